//! Who is at work: each part goes on through every kill, asks again under the same key until it
//! has an answer, and holds what the service has against what it was told.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{Soak, locked};
use crate::client::{Answer, Client};
use crate::external::post;
use crate::service::ECHO;

const TALKERS: usize = 6;
const PAIRS: usize = 3;
/// Inputs of a worker before it is stopped and another takes its place.
const INPUTS: usize = 40;
/// Between two commands of one talker.
const PACE: Duration = Duration::from_millis(60);
/// Whoever has no answer for so long complains.
const PATIENCE: Duration = Duration::from_secs(120);
const REDACT_EVERY: Duration = Duration::from_secs(45);
const DRILL_EVERY: Duration = Duration::from_secs(240);

pub(super) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    soak: &'scope Soak,
    binary: &'scope Path,
    directory: &'scope Path,
) -> Vec<ScopedJoinHandle<'scope, ()>> {
    let mut parts = Vec::new();
    for n in 0..TALKERS {
        parts.push(scope.spawn(move || again_and_again(soak, "a talker", || talk(soak, n))));
    }
    for n in 0..PAIRS {
        parts.push(scope.spawn(move || again_and_again(soak, "a pair", || converse(soak, n))));
    }
    parts.push(scope.spawn(move || again_and_again(soak, "a reader", || read(soak))));
    parts.push(scope.spawn(move || again_and_again(soak, "the eraser", || erase(soak))));
    parts.push(scope.spawn(move || {
        again_and_again(soak, "a drill", || drill(soak, binary, directory));
    }));
    parts
}

fn again_and_again(soak: &Soak, who: &str, mut once: impl FnMut() -> Result<()>) {
    while !soak.is_over() {
        if let Err(error) = once() {
            soak.problem(format!("{who}: {error:#}"));
            soak.pause(Duration::from_secs(1));
        }
    }
}

/// A connection that is made anew whenever it breaks.
struct Caller<'s> {
    soak: &'s Soak,
    client: Option<Client>,
    token: Option<String>,
}

impl<'s> Caller<'s> {
    fn new(soak: &'s Soak) -> Self {
        Self { soak, client: None, token: None }
    }

    fn with(soak: &'s Soak, token: &str) -> Self {
        Self { soak, client: None, token: Some(token.to_owned()) }
    }

    /// Asks until there is an answer that is no "not now".
    fn ask(&mut self, mut once: impl FnMut(&mut Client) -> Result<Answer>) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let asked = match &mut self.client {
                Some(client) => once(client),
                None => self.connected().and_then(&mut once),
            };
            match asked {
                Ok(answer) if matches!(answer.status, 200 | 201) => {
                    return Ok(serde_json::from_slice(&answer.body)?);
                }
                Ok(answer) if answer.status == 503 => {}
                Ok(answer) => bail!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)),
                Err(_) => self.client = None,
            }
            ensure!(Instant::now() < until, "no answer within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn connected(&mut self) -> Result<&mut Client> {
        let token = self.token.as_deref().unwrap_or(&self.soak.token);
        let client = Client::connect(*locked(&self.soak.address), token)?;
        Ok(self.client.insert(client))
    }

    fn get(&mut self, path: &str) -> Result<Value> {
        self.ask(|client| client.get(path)).with_context(|| format!("GET {path}"))
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let (key, body) = (format!("soak-{:032x}", rand::random::<u128>()), body.to_string());
        let begun = Instant::now();
        let answer = self.ask(|client| client.post(path, &key, &body));
        let answer = answer.with_context(|| format!("POST {path}"))?;
        locked(&self.soak.taken).push((begun, begun.elapsed().as_secs_f64() * 1e3));
        self.soak.acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }
}

/// The life of a worker.
fn talk(soak: &Soak, n: usize) -> Result<()> {
    let mut caller = Caller::new(soak);
    let body = json!({
        "intent": {"kind": "assistant", "purpose": "soak"},
        "profile": {"kind": "runtime_default"}, "template": ECHO,
        "requested_capabilities": [], "workspace_refs": [], "mount_refs": [],
    });
    let spawned = caller.post("/v1/workers", &body)?;
    let id = spawned["worker"]["worker_id"].as_str().context("no id")?.to_owned();
    let mut said = Vec::new();
    for at in 0..INPUTS {
        let content = format!("talker {n}, input {at}: {:016x}", rand::random::<u64>());
        let body = json!({"kind": "user", "content": content});
        caller.post(&format!("/v1/workers/{id}/input"), &body)?;
        said.push(content);
        soak.pause(PACE);
        if soak.is_over() {
            break;
        }
    }
    let heard = users(&mut caller, &id)?;
    ensure!(heard == said, "worker {id} was told {said:?} and has {heard:?}");
    let path = format!("/v1/workers/{id}/stop");
    caller.post(&path, &json!({"reason": "the soak has no further use for it"}))?;
    Ok(())
}

/// What users said to a worker.
fn users(caller: &mut Caller<'_>, id: &str) -> Result<Vec<String>> {
    let (mut texts, mut start) = (Vec::new(), 0);
    loop {
        let path = format!("/v1/workers/{id}/transcript?start={start}&limit=256");
        let page = caller.get(&path)?;
        let items = page["transcript"]["items"].as_array().context("no items")?;
        if items.is_empty() {
            return Ok(texts);
        }
        start += items.len();
        let of_users = items.iter().filter(|item| item["role"] == "user");
        texts.extend(of_users.filter_map(|item| item["content"].as_str().map(str::to_owned)));
    }
}

/// An agent and whoever asks it, until each has said a few things.
fn converse(soak: &Soak, n: usize) -> Result<()> {
    let (asker, agent) = (enlist(soak, n)?, enlist(soak, n)?);
    let (mut asks, mut answers) = (Caller::with(soak, &asker.1), Caller::with(soak, &agent.1));
    let mut cursor = String::new();
    for at in 0..INPUTS {
        let text = format!("question {at}");
        let message = json!({"jsonrpc": "2.0", "method": "message/send", "params": {"message":
            {"messageId": text, "parts": [{"type": "text", "kind": "text", "text": text}]}}});
        asks.post(&format!("/workspaces/{}/a2a", agent.0), &message)?;
        let since = if cursor.is_empty() { String::new() } else { format!("&since_id={cursor}") };
        let path =
            format!("/workspaces/{}/activity?type=a2a_receive&limit=50&wait=10{since}", agent.0);
        let rows = answers.get(&path)?;
        let [row] = rows.as_array().map(Vec::as_slice).unwrap_or_default() else {
            bail!("{} was asked once and got {rows}", agent.0);
        };
        let heard = &row["request_body"]["params"]["message"]["parts"][0]["text"];
        ensure!(*heard == text, "{} was asked {text:?} and got {row}", agent.0);
        cursor = row["id"].as_str().context("a row without an id")?.to_owned();
        let reply = json!({"jsonrpc": "2.0", "id": cursor, "method": "message/send", "params":
            {"message": {"messageId": format!("answer {at}"), "task_id": null,
             "parts": [{"type": "text", "kind": "text", "text": format!("answer {at}")}]}}});
        answers.post(&format!("/workspaces/{}/a2a", asker.0), &reply)?;
        soak.pause(PACE * 5);
        if soak.is_over() {
            break;
        }
    }
    for (id, _) in [&asker, &agent] {
        let body = json!({"reason": "the soak has no further use for it"});
        Caller::new(soak).post(&format!("/v1/runtimes/external/workers/{id}/stop"), &body)?;
    }
    Ok(())
}

/// An external worker and its token, registered.
fn enlist(soak: &Soak, n: usize) -> Result<(String, String)> {
    let mut caller = Caller::new(soak);
    let body = json!({"name": format!("soak {n}"), "runtime": "external"});
    // Without a key: the token is shown once. One that was made in vain is never connected.
    let made = caller.ask(|client| {
        let address = *locked(&soak.address);
        let request = post(address, &soak.token, "/workspaces", &body.to_string());
        client.exchange(request.as_bytes())
    })?;
    let id = made["id"].as_str().context("no id")?.to_owned();
    let token = made["connection"]["auth_token"].as_str().context("no token")?.to_owned();
    let body = json!({"id": id, "delivery_mode": "poll",
        "agent_card": {"name": id, "description": "soak", "version": "0.1.0"}});
    Caller::with(soak, &token).post("/registry/register", &body)?;
    Ok((id, token))
}

/// Looks at this and that.
fn read(soak: &Soak) -> Result<()> {
    let mut caller = Caller::new(soak);
    let head = caller.get("/v1/events?after=0&limit=1")?["head"].as_u64().context("no head")?;
    let at = rand::random_range(1..=head);
    for path in [
        "/v1/workers?limit=100".to_owned(),
        "/v1/runtimes".to_owned(),
        "/v1/status".to_owned(),
        format!("/v1/events?after={at}&limit=200"),
        format!("/v1/workers?at={at}&limit=20"),
        format!("/v1/proofs/inclusion?seq={at}"),
        "/v1/events?order=newest&limit=50&grep=input".to_owned(),
    ] {
        caller.get(&path)?;
        soak.pause(Duration::from_millis(200));
    }
    Ok(())
}

/// Has something erased that was said to a worker.
fn erase(soak: &Soak) -> Result<()> {
    soak.pause(REDACT_EVERY);
    if soak.is_over() {
        return Ok(());
    }
    let mut caller = Caller::new(soak);
    let path = "/v1/events?order=newest&type=worker_output&limit=200";
    let page = caller.get(path)?;
    let events = page["events"].as_array().context("no events")?;
    let Some(seq) = events.iter().rfind(|e| e["content"].is_string()) else {
        return Ok(());
    };
    let body = json!({"sequence": seq["seq"], "reason": "the soak erases now and then"});
    caller.post("/v1/redactions", &body)?;
    Ok(())
}

/// Takes a snapshot, restores it aside, and has all of it compared.
fn drill(soak: &Soak, binary: &Path, directory: &Path) -> Result<()> {
    soak.pause(DRILL_EVERY);
    let address = *locked(&soak.address);
    if soak.is_over() {
        return Ok(());
    }
    let ran = Command::new(binary)
        .arg("drill")
        .args([format!("--url=http://{address}"), format!("--token={}", soak.token)])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()?;
    // One that meets a kill says so.
    let was_killed = *locked(&soak.address) != address;
    ensure!(
        ran.status.success() || was_killed || soak.is_over(),
        "acta drill: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    Ok(())
}
