//! The service under measurement: the release binary on a fresh data directory, and its end.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::machine;

const START_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// The child of this template is busy with its first message for as long as the bench lasts, so
/// that every further input is exactly one durable record.
pub(crate) const BUSY: &str = "busy";
/// The child of this template prints the lines of the output scenario.
pub(crate) const COUNT: &str = "count";
/// The child of this template says what it is told, for the whole life of its worker.
pub(crate) const ECHO: &str = "echo";

pub(crate) struct Service {
    child: Child,
    directory: Option<TempDir>,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

/// A service that has ended; its data directory goes when this is dropped.
pub(crate) struct Stopped {
    directory: TempDir,
}

impl Stopped {
    /// Starts a service on it again.
    pub(crate) fn start(self, binary: &Path, lines: u64) -> Result<Service> {
        Service::start_in(binary, self.directory, lines)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

impl Service {
    pub(crate) fn start(binary: &Path, parent: &Path, lines: u64) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("acta-load-").tempdir_in(parent)?;
        Self::start_in(binary, directory, lines)
    }

    /// Starts it on the directory `data` of a directory, which may be there.
    pub(crate) fn start_in(binary: &Path, directory: TempDir, lines: u64) -> Result<Self> {
        let data = directory.path().join("data");
        let manifest = directory.path().join("manifest.json");
        std::fs::write(&manifest, manifest_of(lines).to_string())?;
        let log = directory.path().join("service.log");
        let mut child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .arg("--manifest")
            .arg(&manifest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let listening = match listening_line(&mut child) {
            Ok(line) => line,
            Err(error) => {
                end(&mut child);
                return Err(error.context(format!("the log says: {}", tail_of(&log))));
            }
        };
        // From here on the drop of `service` ends the child.
        let mut service = Self {
            child,
            directory: Some(directory),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: String::new(),
        };
        let url = listening["listening"].as_str().context("no `listening` in the first line")?;
        service.address = url.trim_start_matches("http://").trim_end_matches('/').parse()?;
        service.token = std::fs::read_to_string(data.join("operator.token"))
            .context("reading operator.token")?
            .trim()
            .to_owned();
        Ok(service)
    }

    pub(crate) fn client(&self) -> Result<Client> {
        Client::connect(self.address, &self.token)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Creates a worker of a template and returns its id.
    pub(crate) fn create_worker(&self, client: &mut Client, template: &str) -> Result<String> {
        let body = json!({
            "intent": {"kind": "assistant", "purpose": "load bench"},
            "profile": {"kind": "runtime_default"},
            "template": template,
            "requested_capabilities": [], "workspace_refs": [], "mount_refs": [],
        });
        let key = format!("create-{:016x}", rand::random::<u64>());
        let answer = client.post("/v1/workers", &key, &body.to_string())?.json()?;
        let id = answer["worker"]["worker_id"].as_str();
        Ok(id.with_context(|| format!("no worker_id in {answer}"))?.to_owned())
    }

    /// Creates workers whose children are busy at their first message.
    pub(crate) fn busy_workers(&self, client: &mut Client, count: usize) -> Result<Vec<String>> {
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            ids.push(self.create_worker(client, BUSY)?);
        }
        for id in &ids {
            send(client, id, "the first message keeps the child busy")?;
        }
        let deadline = Instant::now() + START_DEADLINE;
        for id in &ids {
            loop {
                let detail = client.get(&format!("/v1/workers/{id}"))?.json()?;
                if detail["worker"]["execution"]["run_state"] == "busy" {
                    break;
                }
                ensure!(Instant::now() < deadline, "worker {id} never got busy: {detail}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // What belongs to the start of the children is over before anything is counted.
        std::thread::sleep(Duration::from_millis(300));
        Ok(ids)
    }

    /// Kills the service, and none of its children, and keeps its data directory.
    pub(crate) fn kill(mut self) -> Result<Stopped> {
        self.child.kill()?;
        self.child.wait()?;
        let directory = self.directory.take().context("stopped twice")?;
        Ok(Stopped { directory })
    }

    /// Stops the service and keeps its data directory.
    pub(crate) fn stop(mut self) -> Result<Stopped> {
        end(&mut self.child);
        let directory = self.directory.take().context("stopped twice")?;
        Ok(Stopped { directory })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

pub(crate) fn send(client: &mut Client, worker: &str, content: &str) -> Result<Value> {
    let key = format!("send-{:016x}", rand::random::<u64>());
    let body = json!({"kind": "user", "content": content}).to_string();
    client.post(&format!("/v1/workers/{worker}/input"), &key, &body)?.json()
}

/// The sequence of the last record.
pub(crate) fn head(client: &mut Client) -> Result<u64> {
    let page = client.get("/v1/events?after=0&limit=1")?.json()?;
    page["head"].as_u64().with_context(|| format!("no head in {page}"))
}

fn manifest_of(lines: u64) -> Value {
    let entry = |name: &str, argv: Value| json!({"name": name, "exec": {"argv": argv, "mode": "per_input", "framing": "text"}});
    let echo = json!({"argv": ["cat"], "mode": "session", "framing": "text", "turn_idle_ms": 50});
    json!({
        "default_template": BUSY,
        "workspace_templates": [
            entry(BUSY, json!(["sleep", "100000"])),
            entry(COUNT, json!(["seq", "1", lines.to_string()])),
            json!({"name": ECHO, "exec": echo}),
        ],
    })
}

/// The one line that the service prints when it listens. The thread goes on reading so that the
/// service never writes to a closed pipe; it ends with the service.
fn listening_line(child: &mut Child) -> Result<Value> {
    let stdout = child.stdout.take().context("no standard output")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        let read = reader.read_line(&mut line).map(|_| line);
        if sender.send(read).is_ok() {
            let _ = reader.read_to_end(&mut Vec::new());
        }
    });
    let line = receiver.recv_timeout(START_DEADLINE).context("no listening line in time")??;
    serde_json::from_str(&line).with_context(|| format!("not a listening line: {line:?}"))
}

/// SIGTERM, a wait, SIGKILL; then whatever is left of the children that the service had.
fn end(child: &mut Child) {
    let Ok(None) = child.try_wait() else { return };
    let left = machine::descendants(child.id());
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    let deadline = Instant::now() + STOP_DEADLINE;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > deadline {
            eprintln!("warning: the service did not stop on SIGTERM and is killed");
            let _ = child.kill();
            let _ = child.wait();
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for process in left.iter().filter(|process| process.is_alive()) {
        eprintln!("warning: the service left process {} behind", process.pid);
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
}

fn tail_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
