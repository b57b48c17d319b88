//! Everything that runs during the demonstration: started here, ended here.

use super::{
    api::{Answer, Api},
    cast::Cast,
    input::Inputs,
    observer::{Observer, Seen},
    screen::Screen,
    service::{Home, Service, described},
};
use crate::cli::output::{Ink, one_line};
use acta_events::Sequence;
use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, time::Duration};
use tokio::time::{Instant, sleep};

/// How often it is asked whether the workers are done.
const POLL: Duration = Duration::from_millis(20);
/// How many lines of what the workers say are shown in one step.
const LINES_PER_STEP: usize = 14;
const LINE_CHARS: usize = 100;

/// A command that was acknowledged.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) path: String,
    pub(super) key: String,
    pub(super) body: Value,
    pub(super) answer: Answer,
}

/// What runs, and what it works with.
pub(super) struct Stage {
    pub(super) cast: Cast,
    pub(super) inputs: Inputs,
    pub(super) timeout: Duration,
    pub(super) service: Option<Service>,
    pub(super) observer: Observer,
    /// The operator; there once the service runs.
    operator: Option<Api>,
    /// Holder of a token that was issued to the observer.
    consumer_token: Option<String>,
    /// Worker ids, in the order of the cast.
    pub(super) workers: Vec<String>,
    sent: u32,
    live: Live,
}

impl Stage {
    pub(super) fn new(dir: &Path, cast: Cast, inputs: Inputs, timeout_s: u64) -> Self {
        debug_assert!(cast.home.dir == dir);
        Self {
            cast,
            inputs,
            timeout: Duration::from_secs(timeout_s),
            service: None,
            observer: Observer::default(),
            operator: None,
            consumer_token: None,
            workers: Vec::new(),
            sent: 0,
            live: Live::default(),
        }
    }

    pub(super) fn home(&self) -> &Home {
        &self.cast.home
    }

    /// Starts the service, or starts it again on the same data.
    pub(super) async fn start(&mut self) -> Result<&Service> {
        let service = Service::start(self.home()).await?;
        self.operator = Some(Api::new(&service.at.listening, &self.home().operator_token()?)?);
        Ok(self.service.insert(service))
    }

    pub(super) fn operator(&self) -> Result<Api> {
        self.operator.clone().context("the service does not run yet")
    }

    /// The observer's own access: it reads everything and changes nothing.
    pub(super) async fn admit_observer(&mut self) -> Result<()> {
        let body = json!({"role": "auditor", "label": "observer of the demonstration"});
        let operator = self.operator()?;
        let answer = operator.command(Method::POST, "/v1/tokens", None, &body).await?.json()?;
        let token = answer["token"]["token"].as_str().context("no token was issued")?;
        self.consumer_token = Some(token.to_owned());
        Ok(())
    }

    pub(super) fn consumer(&self) -> Result<Api> {
        let token = self.consumer_token.as_deref().context("no token was issued yet")?;
        Ok(self.operator()?.with_token(token))
    }

    /// Connects the observer, from the beginning or from its cursor.
    pub(super) async fn connect_observer(&mut self) -> Result<()> {
        let api = self.consumer()?;
        self.observer.connect(&api).await
    }

    /// Makes a worker of the cast.
    pub(super) async fn spawn(&mut self, role: usize) -> Result<Value> {
        let template = &self.cast.roles[role].template;
        let body = json!({
            "intent": {"kind": "assistant", "purpose": "to take part in the demonstration"},
            "profile": {"kind": "runtime_default"},
            "template": template,
        });
        let key = format!("demo-worker-{}", role + 1);
        let operator = self.operator()?;
        let answer = operator.command(Method::POST, "/v1/workers", Some(&key), &body).await?;
        let worker = answer.json()?["worker"].take();
        let id = worker["worker_id"].as_str().context("a worker without an id")?.to_owned();
        self.live.names.insert(id.clone(), self.cast.roles[role].name.clone());
        self.workers.push(id);
        Ok(worker)
    }

    /// Sends a worker an input, which has to be acknowledged.
    pub(super) async fn send(&mut self, role: usize, text: &str) -> Result<Sent> {
        self.sent += 1;
        let path = format!("/v1/workers/{}/input", self.workers[role]);
        let key = format!("demo-input-{}", self.sent);
        let body = json!({"kind": "user", "content": text});
        let operator = self.operator()?;
        let answer = operator.command(Method::POST, &path, Some(&key), &body).await?;
        Ok(Sent { path, key, body, answer })
    }

    /// Waits for the observer, and shows what it sees meanwhile.
    pub(super) async fn watch(
        &mut self,
        screen: &mut Screen<'_>,
        what: &str,
        enough: impl FnMut(&Seen) -> bool,
    ) -> Result<()> {
        let Self { observer, live, timeout, .. } = self;
        let show = || live.show(observer, screen);
        observer.wait(what, *timeout, show, enough).await
    }

    /// Shows what the observer saw since the last time.
    pub(super) fn show(&mut self, screen: &mut Screen<'_>) -> Result<()> {
        self.live.show(&self.observer, screen)
    }

    /// A new step has lines of its own to fill.
    pub(super) fn end_of_step(&mut self, screen: &mut Screen<'_>) -> Result<()> {
        self.show(screen)?;
        self.live.end_of_step(screen)
    }

    /// Waits until no worker has anything to do, and returns the sequence of that moment.
    pub(super) async fn quiet(&mut self, screen: &mut Screen<'_>) -> Result<u64> {
        let operator = self.operator()?;
        let until = Instant::now() + self.timeout;
        loop {
            self.show(screen)?;
            let before = operator.head().await?;
            let list = operator.get("/v1/workers").await?.json()?;
            let workers = list["workers"].as_array().context("no list of workers")?;
            let mut busy = None;
            for worker in workers {
                let id = worker["worker_id"].as_str().unwrap_or_default();
                match worker["execution"]["run_state"].as_str().unwrap_or_default() {
                    "idle" => {}
                    "busy" => busy = Some(id.to_owned()),
                    state => bail!(
                        "worker {} is {state}: {}",
                        self.name(id),
                        worker["execution"]["last_result"]
                    ),
                }
            }
            match busy {
                None if operator.head().await? == before => return Ok(before),
                Some(id) if Instant::now() >= until => bail!(
                    "worker {} is still busy after {} s; --timeout allows more",
                    self.name(&id),
                    self.timeout.as_secs()
                ),
                _ => sleep(POLL).await,
            }
        }
    }

    pub(super) fn name(&self, id: &str) -> String {
        self.live.name(id).to_owned()
    }

    /// Ends whatever was started.
    pub(super) async fn end(&mut self) -> Result<()> {
        self.observer.cut().await;
        let stopped = match self.service.take() {
            None => Ok(()),
            Some(service) => match service.stop().await {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(anyhow!("the stopped service {}", described(status))),
                Err(error) => Err(error),
            },
        };
        // A service that was killed leaves its workers to the next start, which may not come.
        for process in self.observer.look(|seen| seen.processes.clone()) {
            process.kill_group();
        }
        stopped
    }
}

/// Shows what workers say, as the observer sees it.
#[derive(Default)]
struct Live {
    /// Names of workers on the screen.
    names: BTreeMap<String, String>,
    /// How many of the observer's events were looked at.
    looked: usize,
    lines: usize,
    left_out: usize,
}

impl Live {
    fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.names.get(id).map_or(id, String::as_str)
    }

    fn show(&mut self, observer: &Observer, screen: &mut Screen<'_>) -> Result<()> {
        let from = self.looked;
        let new = observer.look(|seen| seen.events.get(from..).unwrap_or_default().to_vec());
        self.looked += new.len();
        for told in new {
            let record: Value = serde_json::from_str(&told.json).context("not a record")?;
            let text = record["content"].as_str().unwrap_or_default();
            let worker = self.name(record["worker"].as_str().unwrap_or_default()).to_owned();
            let seq = Sequence(told.seq);
            let (ink, speaker) = match record["type"].as_str().unwrap_or_default() {
                "worker_input_accepted" => (Ink::Person, format!("to {worker}")),
                "worker_output" if record["data"]["event"] == "text_delta" => (Ink::Agent, worker),
                "worker_diagnosed" | "worker_interrupted" | "worker_spawn_failed" => {
                    (Ink::Alarm, worker)
                }
                _ => continue,
            };
            if self.lines == LINES_PER_STEP {
                self.left_out += 1;
                continue;
            }
            self.lines += 1;
            let text = match text.trim() {
                "" => record["type"].as_str().unwrap_or_default(),
                text => text,
            };
            screen.speech(ink, seq, &speaker, &one_line(text, LINE_CHARS))?;
        }
        Ok(())
    }

    fn end_of_step(&mut self, screen: &mut Screen<'_>) -> Result<()> {
        if self.left_out > 0 {
            screen.aside(&format!("… and {} more like these", self.left_out))?;
        }
        (self.lines, self.left_out) = (0, 0);
        Ok(())
    }
}
