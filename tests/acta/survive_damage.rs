//! Damage to the data directory of a stopped service: a flipped bit, a zeroed page, a file cut
//! short or gone, in every file that is there.
//!
//! Whatever was damaged, the next start either refuses, in words and with exit code 1, or
//! answers every read as before, or with an error. It never shows less as if it were all, and
//! nobody ever sees a panic.

use super::{
    support::{Answer, Client, Options, Service, manifest},
    survive_bare::{Bare, TOKEN},
    survive_measure::{copy_dir, files_in, seeded},
};
use rand::Rng as _;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// How many damaged copies are looked at at once.
const AT_ONCE: usize = 4;

/// What one copy suffers.
#[derive(Clone, Debug)]
enum Damage {
    Flip { offset: u64, bit: u8 },
    ZeroPage { offset: u64 },
    Cut { len: u64 },
    Gone,
}

impl Damage {
    fn inflict(&self, path: &Path) {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        match *self {
            Self::Flip { offset, bit } => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, offset).unwrap();
                file.write_all_at(&[byte[0] ^ (1 << bit)], offset).unwrap();
            }
            Self::ZeroPage { offset } => {
                let len = file.metadata().unwrap().len() - offset;
                file.write_all_at(&vec![0; len.min(4096) as usize], offset).unwrap();
            }
            Self::Cut { len } => file.set_len(len).unwrap(),
            Self::Gone => fs::remove_file(path).unwrap(),
        }
    }
}

/// A data directory as it was, and what was read from it.
struct Original {
    root: TempDir,
    head: u64,
    reads: BTreeMap<String, (u16, Value)>,
    commands: Vec<(String, String, Value, Value)>,
}

impl Original {
    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }
}

/// A history with everything in it that leaves a file: large contents, index runs,
/// checkpoints, several starts.
async fn original() -> Original {
    let mut service = Options::default().arg("--token").arg(TOKEN).start().await;
    let mut commands = Vec::new();
    let mut workers = Vec::new();
    for round in 0..4 {
        let worker = service.spawn("echo").await;
        for n in 0..60 {
            let large = n % 20 == 0;
            let content = format!("{round} {n} {}", "y".repeat(if large { 40_000 } else { 3_000 }));
            let (path, key) = (format!("/v1/workers/{worker}/input"), format!("{round}-{n}"));
            let body = json!({"kind": "user", "content": content});
            let answer = service.post_keyed(&path, &key, &body).await.ok();
            if n % 10 == 0 {
                commands.push((path, key, body, answer));
            }
        }
        service.put("/v1/cursors/reader", &json!({"cursor": cursor(&service).await})).await.ok();
        if round % 2 == 0 {
            service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
        }
        workers.push(worker);
        service.stop().await;
        service.restart().await;
    }
    service.stop().await;
    service.restart().await;
    let head = service.head().await;
    let paths = paths(head, &workers);
    let reads = reads(&service.with_token(TOKEN), &paths).await;
    let reads: BTreeMap<_, _> =
        reads.into_iter().map(|(path, answer)| (path, shown(&answer))).collect();
    service.stop().await;
    let root = tempfile::tempdir().unwrap();
    copy_dir(&service.data(), &root.path().join("data")).unwrap();
    Original { root, head, reads, commands }
}

async fn cursor(service: &Service) -> Value {
    service.get("/v1/events?after=1&limit=1").await.ok()["cursor"].clone()
}

/// Reads that have one right answer for ever: of the past, up to a head.
fn paths(head: u64, workers: &[String]) -> Vec<String> {
    let mut paths = Vec::new();
    for at in [1, head / 3, head / 2, head] {
        paths.push(format!("/v1/workers?at={at}"));
        paths.push(format!("/v1/runtime?at={at}"));
    }
    for worker in workers {
        paths.push(format!("/v1/workers/{worker}?at={head}"));
        paths.push(format!("/v1/workers/{worker}/transcript?at={head}"));
        paths.push(format!("/v1/events?worker={worker}&after=0&limit=50"));
    }
    for after in (0..head.saturating_sub(100)).step_by(100) {
        paths.push(format!("/v1/events?after={after}&limit=100&watching=1"));
    }
    paths
}

async fn reads(client: &Client, paths: &[String]) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    for path in paths {
        answers.push((path.clone(), client.get(path).await));
    }
    answers
}

/// An answer without the head of today.
fn shown(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    if let Some(page) = body.as_object_mut() {
        page.remove("head");
    }
    (answer.status, body)
}

/// All of it is inflicted once, each on a copy of its own.
fn damages(original: &Original) -> Vec<(PathBuf, Damage)> {
    let mut random = seeded("every_damage_is_refused_or_answered_with_an_error");
    let data = original.data();
    let mut all = Vec::new();
    let mut contents = 0;
    for path in files_in(&data) {
        let relative = path.strip_prefix(&data).unwrap().to_owned();
        let is_content = relative.starts_with("content");
        contents += usize::from(is_content);
        // One is like the other.
        if is_content && contents > 2 {
            continue;
        }
        let len = fs::metadata(&path).unwrap().len();
        let is_log = relative.ends_with("db");
        let mut push = |damage| all.push((relative.clone(), damage));
        push(Damage::Gone);
        if len == 0 {
            continue;
        }
        for len in [0, len / 2, len - 1] {
            push(Damage::Cut { len });
        }
        let mut offsets = vec![0, len / 2, len - 1];
        let more = if is_log { 24 } else { 2 };
        offsets.extend((0..more).map(|_| random.random_range(0..len)));
        for offset in offsets {
            push(Damage::Flip { offset, bit: random.random_range(0..8) });
            if len > 4096 {
                push(Damage::ZeroPage { offset: offset / 4096 * 4096 });
            }
        }
    }
    all
}

/// How a damaged copy took it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    SomeReadsFail,
    AsBefore,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damage_is_refused_or_answered_with_an_error() {
    let original = Arc::new(original().await);
    let mut waiting = damages(&original).into_iter();
    let mut running = JoinSet::new();
    let mut outcomes = BTreeMap::<(PathBuf, Outcome), usize>::new();
    let mut wrong = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((file, damage)) = waiting.next()
        {
            let original = Arc::clone(&original);
            running.spawn(async move {
                let outcome = examine(&original, &file, &damage).await;
                (file, damage, outcome)
            });
        }
        let Some(done) = running.join_next().await else { break };
        let (file, damage, outcome) = done.unwrap();
        match outcome {
            Ok(outcome) => *outcomes.entry((file, outcome)).or_default() += 1,
            Err(why) => wrong.push(format!("{}: {damage:?}: {why}", file.display())),
        }
    }
    for ((file, outcome), count) in &outcomes {
        println!("{count:4} {outcome:?} {}", file.display());
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

async fn examine(original: &Original, file: &Path, damage: &Damage) -> Result<Outcome, String> {
    let copy = tempfile::tempdir().unwrap();
    let data = copy.path().join("data");
    copy_dir(&original.data(), &data).unwrap();
    damage.inflict(&data.join(file));
    let mut started = Bare::start(copy.path(), &data, &manifest()).await;
    let outcome = match &started.client {
        Some(client) => look(original, client).await,
        None => is_a_clear_refusal(&mut started, file).await,
    };
    let said = started.said();
    if said.contains("panicked") || said.contains("RUST_BACKTRACE") {
        return Err(format!("a panic was shown:\n{said}"));
    }
    outcome.map_err(|why| format!("{why}\n{said}"))
}

/// It ended with exit code 1, and words that say what is affected and what to do.
async fn is_a_clear_refusal(started: &mut Bare, file: &Path) -> Result<Outcome, String> {
    let Some(status) = started.ended().await else {
        return Err("it neither listens nor ends".into());
    };
    let said = started.said();
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let names = said.contains(&name)
        || said.contains("records ")
        || (file.starts_with("index") && said.contains("index"));
    let advice = [
        "Restore",
        "Put it back",
        "remove it",
        "remove the",
        "reset",
        "Use the version",
        "Give an empty",
    ];
    let advises = advice.iter().any(|advice| said.contains(advice));
    if status.code() != Some(1) || !names || !advises {
        return Err(format!("it ended with {status}, unclearly"));
    }
    Ok(Outcome::Refused)
}

/// Every read is as it was or an error, and so is every repeated command.
async fn look(original: &Original, client: &Client) -> Result<Outcome, String> {
    let mut outcome = Outcome::AsBefore;
    for (path, expected) in &original.reads {
        let answer = client.get(path).await;
        match answer.status {
            500 => {
                a_clear_error(&answer)?;
                outcome = Outcome::SomeReadsFail;
            }
            _ if shown(&answer) == *expected => {}
            status => return Err(format!("{path}: {status} {}", cut(&answer.text()))),
        }
    }
    for (path, key, body, before) in &original.commands {
        let answer = client.post_keyed(path, key, body).await;
        match answer.status {
            200 if answer.json() == *before => {}
            500 => {
                a_clear_error(&answer)?;
                outcome = Outcome::SomeReadsFail;
            }
            status => return Err(format!("repeating {key}: {status} {}", cut(&answer.text()))),
        }
    }
    let head = client.get("/v1/events?limit=0").await;
    if head.status == 200 && head.json()["head"].as_u64() < Some(original.head) {
        return Err(format!("the head went back: {}", head.text()));
    }
    Ok(outcome)
}

fn a_clear_error(answer: &Answer) -> Result<(), String> {
    let body = answer.json();
    let code = body["error"]["code"].as_str().unwrap_or_default();
    let message = body["error"]["message"].as_str().unwrap_or_default();
    let names = message.chars().any(|c| c.is_ascii_digit()) || message.contains("index");
    if ["store_corrupt", "store_missing"].contains(&code) && names && !message.contains("panic") {
        return Ok(());
    }
    Err(format!("not a clear error: {}", answer.text()))
}

fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}
