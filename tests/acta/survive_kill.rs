//! SIGKILL at any moment, fifty times in a row, while commands come in and observers watch.
//!
//! Writers repeat what was not answered, under the same key; observers resume from the cursor
//! of the last frame that they saw. At the end the log has every acknowledged command once, at
//! the sequence that was acknowledged, and everyone saw exactly what stands in it.

use super::{
    support::{Client, Options, Service, eventually, soon},
    survive_measure::{processes_in, seeded},
};
use futures_util::StreamExt as _;
use rand::{Rng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_tungstenite::tungstenite::{
    Message,
    client::IntoClientRequest as _,
    http::{HeaderValue, header::AUTHORIZATION},
};

/// How often the service is killed.
const KILLS: usize = 50;
const WRITERS: usize = 6;
const SHARED_WORKERS: usize = 4;

/// Where the service is at the moment, and whether there is more to do.
#[derive(Clone)]
struct Link {
    client: Client,
    over: bool,
}

/// A command that was acknowledged.
struct Acked {
    key: String,
    path: String,
    body: Value,
    answer: Value,
    sequence: u64,
}

/// What a writer did, in its order.
#[derive(Default)]
struct Written {
    acked: Vec<Acked>,
    refused: Vec<String>,
    unanswered: usize,
}

struct Writer {
    name: String,
    random: StdRng,
    link: watch::Receiver<Link>,
    shared: Arc<Vec<String>>,
    own: Vec<String>,
    written: Written,
}

impl Writer {
    async fn run(mut self) -> Written {
        for n in 0.. {
            if self.link.borrow().over {
                break;
            }
            let (path, body) = self.choose(n);
            let key = format!("{}-{n}", self.name);
            let twice = self.random.random_ratio(1, 5);
            let (status, answer) = if twice {
                let (one, other) =
                    tokio::join!(self.settle(&path, &key, &body), self.settle(&path, &key, &body));
                assert_eq!(one.0, other.0, "two at once have one outcome: {key}");
                self.written.unanswered += one.1 + other.1;
                one.0
            } else {
                let (answer, unanswered) = self.settle(&path, &key, &body).await;
                self.written.unanswered += unanswered;
                answer
            };
            if status == 400 {
                assert!(path.ends_with("/input"), "{key}: {path}: {answer}");
                self.written.refused.push(key);
                continue;
            }
            assert_eq!(status, 200, "{key}: {path}: {answer}");
            self.take(Acked { sequence: sequence_of(&answer), key, path, body, answer });
        }
        self.written
    }

    fn take(&mut self, acked: Acked) {
        if let Some(id) = acked.answer["worker"]["worker_id"].as_str() {
            self.own.push(id.to_owned());
        }
        let before = self.written.acked.last().map_or(0, |last| last.sequence);
        assert!(before < acked.sequence, "{}: {} after {before}", acked.key, acked.sequence);
        self.written.acked.push(acked);
    }

    fn choose(&mut self, n: u64) -> (String, Value) {
        match self.random.random_range(0..100) {
            0..4 => ("/v1/workers".into(), create("echo")),
            4..7 if !self.own.is_empty() => {
                let worker = self.own.remove(self.random.random_range(0..self.own.len()));
                (format!("/v1/workers/{worker}/stop"), json!({"reason": "enough"}))
            }
            dice => {
                let from =
                    if dice < 30 && !self.own.is_empty() { &self.own } else { &*self.shared };
                let worker = &from[self.random.random_range(0..from.len())];
                let large = self.random.random_ratio(1, 20);
                let padding = if large { "x".repeat(40_000) } else { String::new() };
                let content = format!("{} says {n} {padding}", self.name);
                (format!("/v1/workers/{worker}/input"), json!({"kind": "user", "content": content}))
            }
        }
    }

    /// Repeats a command until it is answered: status and answer, and how often it was not.
    async fn settle(&self, path: &str, key: &str, body: &Value) -> ((u16, Value), usize) {
        for unanswered in 0..10_000 {
            let client = self.link.borrow().client.clone();
            if let Some(answer) = attempt(&client, path, key, body).await {
                return (answer, unanswered);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{key} was never answered")
    }
}

fn create(template: &str) -> Value {
    json!({
        "intent": {"kind": "task", "objective": "to survive"},
        "profile": {"kind": "runtime_default"},
        "template": template,
    })
}

fn sequence_of(answer: &Value) -> u64 {
    let of = if answer["ack"].is_null() { &answer["worker"] } else { &answer["ack"] };
    of["sequence"].as_u64().unwrap_or_else(|| panic!("no sequence in {answer}"))
}

/// None if it was not answered, or only with a request to try again.
async fn attempt(client: &Client, path: &str, key: &str, body: &Value) -> Option<(u16, Value)> {
    let request = client.request(Method::POST, path).header("idempotency-key", key);
    let response = request.timeout(Duration::from_secs(5)).json(body).send().await.ok()?;
    let status = response.status().as_u16();
    let bytes = response.bytes().await.ok()?;
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    assert_ne!(status, 500, "{path}: {answer}");
    (status != 503).then_some((status, answer))
}

/// A frame as it came, and its cursor.
type Frame = (String, String);

/// Watches until the task is aborted. `path` goes with the cursor to resume from, if any.
async fn observe(
    mut link: watch::Receiver<Link>,
    path: impl Fn(Option<&str>) -> String,
    seen: watch::Sender<Vec<Frame>>,
) {
    loop {
        let client = link.borrow_and_update().client.clone();
        let cursor = seen.borrow().last().map(|(_, cursor)| cursor.clone());
        if let Some(mut frames) = open(&client, &path(cursor.as_deref())).await {
            while let Some(Ok(message)) = frames.next().await {
                let Message::Text(text) = message else { continue };
                let frame: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(frame["kind"], "event", "{frame}");
                if frame["envelope"]["payload"]["event"] == "snapshot" {
                    continue;
                }
                let cursor = frame["cursor"].as_str().or(frame["envelope"]["cursor"].as_str());
                let cursor = cursor.unwrap().to_owned();
                seen.send_modify(|seen| seen.push((text.to_string(), cursor)));
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

async fn open(
    client: &Client,
    path: &str,
) -> Option<
    impl futures_util::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + use<>,
> {
    let url = format!("{}{path}", client.base.replacen("http", "ws", 1));
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", client.bearer.as_deref().unwrap_or_default());
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&bearer).unwrap());
    let opening = Box::pin(tokio_tungstenite::connect_async(request));
    match tokio::time::timeout(Duration::from_secs(5), opening).await {
        Ok(Ok((stream, _))) => Some(stream),
        Ok(Err(tokio_tungstenite::tungstenite::Error::Http(answer))) => {
            panic!("{path}: {}", answer.status())
        }
        _ => None,
    }
}

/// Frames of the whole log through a filter-free stream, watching included.
fn whole_log(cursor: Option<&str>) -> String {
    let from = cursor.map_or("after=0".into(), |cursor| format!("cursor={cursor}"));
    format!("/v1/events/ws?watching=1&{from}")
}

fn one_worker(worker: &str) -> impl Fn(Option<&str>) -> String + use<> {
    let worker = worker.to_owned();
    move |cursor| {
        let from = cursor.map_or("after=0".into(), |cursor| format!("cursor={cursor}"));
        format!("/v1/workers/{worker}/events/ws?{from}")
    }
}

/// All records as they stand in the log, a line each.
async fn log_lines(client: &Client) -> Vec<String> {
    let request = client
        .request(Method::GET, "/v1/events?after=0&follow=0&watching=1")
        .header("accept", "application/x-ndjson");
    let answer = client.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_lose_nothing_and_repeat_nothing() {
    let mut random = seeded("fifty_kills_lose_nothing_and_repeat_nothing");
    let mut service = Options::default().env("RUST_LOG", "warn").start().await;
    let mut shared = Vec::new();
    for _ in 0..SHARED_WORKERS {
        shared.push(service.spawn("echo").await);
    }
    let shared = Arc::new(shared);
    let client = service.with_token(&service.token());
    let (link, linked) = watch::channel(Link { client, over: false });

    let mut writers = JoinSet::new();
    for n in 0..WRITERS {
        let writer = Writer {
            name: format!("w{n}"),
            random: rand::SeedableRng::seed_from_u64(random.random()),
            link: linked.clone(),
            shared: Arc::clone(&shared),
            own: Vec::new(),
            written: Written::default(),
        };
        writers.spawn(writer.run());
    }
    let mut observers = JoinSet::new();
    let mut whole = Vec::new();
    for _ in 0..2 {
        let (seen, watched) = watch::channel(Vec::new());
        observers.spawn(observe(linked.clone(), whole_log, seen));
        whole.push(watched);
    }
    let mut partial = Vec::new();
    for worker in shared.iter() {
        let (seen, watched) = watch::channel(Vec::new());
        observers.spawn(observe(linked.clone(), one_worker(worker), seen));
        partial.push((worker.clone(), watched));
    }

    for n in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..250))).await;
        service.kill9().await;
        if n % 5 == 4 {
            kill_while_it_starts(&service, random.random_range(0..120)).await;
        }
        service.restart().await;
        link.send_modify(|link| link.client = service.with_token(&service.token()));
    }
    link.send_modify(|link| link.over = true);
    let mut written = Vec::new();
    while let Some(writer) = soon("the writers end", writers.join_next()).await {
        written.push(writer.unwrap());
    }

    settled(&service).await;
    let lines = log_lines(&service).await;
    let records: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    the_log_is_gapless(&records);
    every_acknowledgement_is_there_once(&records, &written);
    for watched in &mut whole {
        everything_was_seen_once(watched, &lines).await;
    }
    for (worker, watched) in &mut partial {
        its_frames_were_seen_once(&service, worker, watched, &lines).await;
    }
    if let Some(ended) = observers.try_join_next() {
        panic!("an observer ended: {ended:?}");
    }
    observers.abort_all();
    repeats_are_answered_the_same(&service, &written).await;
    views_are_what_a_rebuild_gives(&mut service).await;
    service.stop().await;
    let work = service.data().join("work");
    eventually("no child is left", || async { processes_in(&work).is_empty().then_some(()) }).await;

    let acked: usize = written.iter().map(|written| written.acked.len()).sum();
    let unanswered: usize = written.iter().map(|written| written.unanswered).sum();
    println!("{acked} acknowledged, {unanswered} repeated, {} records", records.len());
    assert!(acked >= KILLS && unanswered > 0, "{acked} acknowledged, {unanswered} repeated");
}

async fn kill_while_it_starts(service: &Service, after_ms: u64) {
    let mut command = service.command();
    command.arg("serve").arg("--data").arg(service.data());
    command.arg("--manifest").arg(service.root().join("manifest.json"));
    command.args(["--listen", "127.0.0.1:0"]);
    let mut starting = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    starting.kill().unwrap();
    starting.wait().unwrap();
}

/// Stops all workers and waits until nothing more is recorded.
async fn settled(service: &Service) {
    let workers = service.get("/v1/workers").await.ok();
    for worker in workers["workers"].as_array().unwrap() {
        let id = worker["worker_id"].as_str().unwrap();
        service.post_empty(&format!("/v1/workers/{id}/stop")).await.ok();
    }
    let mut last = 0;
    let mut same = 0;
    while same < 8 {
        let head = service.head().await;
        same = if head == last { same + 1 } else { 0 };
        last = head;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn the_log_is_gapless(records: &[Value]) {
    let mut versions = HashMap::<&str, u64>::new();
    let mut time = "";
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record["seq"], n as u64 + 1, "{record}");
        let at = record["time"].as_str().unwrap();
        assert!(time <= at, "{time} is before {record}");
        time = at;
        if let Some(worker) = record["worker"].as_str() {
            let version = versions.entry(worker).or_default();
            *version += 1;
            assert_eq!(record["version"], *version, "{record}");
        }
    }
}

fn every_acknowledgement_is_there_once(records: &[Value], written: &[Written]) {
    let mut keys = BTreeMap::<&str, &Value>::new();
    for record in records {
        if let Some(key) = record["command"]["key"].as_str() {
            let twice = keys.insert(key, record);
            assert!(twice.is_none(), "{key} is there twice: {record} {twice:?}");
        }
    }
    let mut expected = HashSet::new();
    for written in written {
        for acked in &written.acked {
            let record = keys.get(acked.key.as_str());
            let record = record.unwrap_or_else(|| panic!("{} is lost", acked.key));
            assert_eq!(record["seq"], acked.sequence, "{}", acked.key);
            if acked.path.ends_with("/input") {
                assert_eq!(record["type"], "worker_input_accepted");
                assert_eq!(record["content"], acked.body["content"], "{}", acked.key);
                assert!(acked.path.contains(record["worker"].as_str().unwrap()));
            }
            expected.insert(acked.key.as_str());
        }
        for key in &written.refused {
            assert!(!keys.contains_key(key.as_str()), "{key} was refused, but is in the log");
        }
    }
    // Whoever was answered knows; nobody gave a command that is not in one of the lists.
    let unknown: Vec<_> = keys.keys().filter(|key| !expected.contains(**key)).collect();
    assert!(unknown.is_empty(), "never acknowledged: {unknown:?}");
}

async fn everything_was_seen_once(watched: &mut watch::Receiver<Vec<Frame>>, lines: &[String]) {
    let all = watched.wait_for(|seen| seen.len() >= lines.len());
    let seen = soon("an observer of everything catches up", all).await.unwrap();
    assert_eq!(seen.len(), lines.len());
    for ((frame, cursor), line) in seen.iter().zip(lines) {
        let expected = format!("{{\"kind\":\"event\",\"cursor\":\"{cursor}\",\"record\":{line}}}");
        assert_eq!(*frame, expected);
    }
}

async fn its_frames_were_seen_once(
    service: &Service,
    worker: &str,
    watched: &mut watch::Receiver<Vec<Frame>>,
    lines: &[String],
) {
    let about = format!("\"worker\":\"{worker}\"");
    assert!(lines.iter().any(|line| line.contains(&about)));
    // The same stream again, from the beginning and without a break, up to its end.
    let mut fresh = open(service, &one_worker(worker)(None)).await.unwrap();
    let mut expected = Vec::new();
    loop {
        let message = soon("a frame", fresh.next()).await.unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        let event = &frame["envelope"]["payload"]["event"];
        if event != "snapshot" {
            expected.push(text.to_string());
        }
        if event == "shutdown" {
            break;
        }
    }
    let all = watched.wait_for(|seen| seen.len() >= expected.len());
    let seen = soon("an observer of a worker catches up", all).await.unwrap();
    let seen: Vec<_> = seen.iter().map(|(frame, _)| frame.clone()).collect();
    // What comes after the end of the worker differs by when one looks.
    assert_eq!(seen[..expected.len()], expected[..], "worker {worker}");
}

async fn repeats_are_answered_the_same(service: &Service, written: &[Written]) {
    for written in written {
        for acked in written.acked.iter().rev().step_by(7).take(40) {
            let again = service.post_keyed(&acked.path, &acked.key, &acked.body).await;
            assert_eq!(again.header("idempotent-replayed"), "true", "{}", acked.key);
            assert_eq!(again.ok(), acked.answer, "{}", acked.key);
        }
    }
}

/// What is shown as of a moment is what the log alone gives, before and after a start. What
/// was still waiting for its worker goes on meanwhile, and does not change the past.
async fn views_are_what_a_rebuild_gives(service: &mut Service) {
    let head = service.head().await;
    let list = format!("/v1/workers?at={head}");
    let workers = service.get(&list).await.ok();
    let mut views = Vec::new();
    for worker in workers["workers"].as_array().unwrap() {
        let id = worker["worker_id"].as_str().unwrap();
        for path in ["", "/transcript"] {
            let path = format!("/v1/workers/{id}{path}?at={head}");
            views.push((path.clone(), service.get(&path).await.ok()));
        }
    }
    assert!(views.len() > 2, "no workers to look at");
    views.push((list, workers));
    service.stop().await;
    service.restart().await;
    for (path, before) in views {
        assert_eq!(service.get(&path).await.ok(), before, "{path}");
    }
}
