//! The command line against a service that is made up: what is understood, what is sent, and
//! what is printed when connections break.

use super::client::{Call, Client, ClientError};
use super::credentials::Credentials;
use super::output::{Format, Output};
use super::{Cli, Command, Secret, tail};
use crate::trust::Trust;
use axum::{
    Json, Router,
    extract::{
        Path, Query, RawQuery, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use clap::{CommandFactory, Parser};
use parking_lot::Mutex;
use reqwest::Url;
use serde_json::{Value, json};
use std::{collections::HashMap, future::pending, io, sync::Arc, time::Duration};

#[test]
fn the_definitions_of_all_commands_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    let cursor = "A".repeat(50);
    let check = |line: &str, code: Option<i32>| {
        let result = Cli::try_parse_from(line.split(' '));
        let got = result.as_ref().err().map(clap::Error::exit_code);
        assert_eq!(got, code, "{line}");
    };
    let id = "0193e4a2";
    for line in [
        "acta ls",
        "acta ls hosts --limit 3 --after h",
        "acta ls -o json",
        "acta ls workers --all --limit 5",
        "acta ls workers --runtime berlin --after w",
        "acta ls workers --host h",
        "acta runtime add berlin http://10.0.0.7:7421 --token-env T --label L",
        "acta runtime rm berlin",
        "acta show worker berlin/w-1",
        "acta -o json --url http://localhost:1 ls runtimes",
        "acta ls --url https://x --ca authority.pem",
        "acta serve --ca authority.pem",
        "acta connect w --ca authority.pem",
        "acta send w hello there --wait --timeout 5",
        "acta send w -",
        "acta send w --kind system -- --not-an-option",
        "acta stop w --reason r --if-revision 3",
        "acta cancel w --idempotency-key k",
        "acta show w",
        "acta show runtime r --at 5",
        "acta show worker w --at 2026-11-20T19:14:00+01:00",
        "acta transcript w --all",
        "acta tail",
        "acta tail w -f --from start --type worker_output,worker_exited --json",
        "acta tail --no-follow --from 12",
        "acta cursor ls",
        "acta token issue --role observer --label l",
        "acta token issue --role worker --worker r/w",
        "acta token revoke t",
        "acta token reset --data d",
        "acta bundle put -",
        "acta bundle check id digest",
        "acta runtime stop",
        "acta completions fish",
        "acta serve --data=d --listen=127.0.0.1:0 --store memory --log json --stop-grace-ms 5",
        "acta demo a b",
    ] {
        check(line, None);
    }
    for line in ["acta --help", "acta --version", "acta serve --help", "acta token issue --help"] {
        check(line, Some(0));
    }
    for line in [
        "acta",
        "acta frobnicate",
        "acta ls moons",
        "acta ls workers --all --host h",
        "acta runtime add berlin",
        "acta runtime rm",
        "acta ls --limit -1",
        "acta ls --url ftp://x",
        "acta ls --token",
        "acta ls --at yesterday",
        "acta send",
        "acta send ../secret x",
        "acta send w x --timeout 5",
        "acta send w x --kind robot",
        "acta send w x --if-revision newest",
        "acta transcript w --all --limit 3",
        "acta tail -f --no-follow",
        "acta tail --from yesterday",
        "acta tail --type worker_dances",
        "acta cursor put export nonsense",
        "acta token issue",
        "acta token issue --role king",
        "acta token issue --role worker",
        "acta token issue --role worker --worker w",
        "acta serve --listen nowhere",
        "acta serve --token=",
        "acta serve --observer-idle-ms 0",
        "acta serve --store tape",
        "acta serve --runtime-id a/b",
        "acta completions cmd",
    ] {
        check(line, Some(2));
    }
    check(&format!("acta tail --from {cursor}"), Some(2));
    check(&format!("acta tail {id} --from now"), None);
}

#[test]
fn serve_keeps_its_own_meaning_of_shared_options() {
    let cli = Cli::try_parse_from("acta serve --data d --token a --token b".split(' ')).unwrap();
    let Command::Serve(args) = cli.command else { panic!("not serve") };
    let tokens: Vec<&str> = args.token.iter().map(Secret::expose).collect();
    assert_eq!((args.data.to_str(), tokens), (Some("d"), vec!["a", "b"]));
    let help = Cli::command().find_subcommand_mut("serve").unwrap().render_long_help().to_string();
    assert!(help.contains("ACTA_LISTEN"));
}

#[derive(Clone, Default)]
struct Fake {
    /// The queries of the observers, and the keys of the commands, in their order.
    asked: Arc<Mutex<Vec<String>>>,
    behaviour: Behaviour,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Behaviour {
    /// Cuts the first two observers off in the middle, then tells everything.
    #[default]
    DropsObservers,
    /// Ends every stream with a diagnostic.
    Diagnoses(&'static str),
    /// As the first, and what is told is one turn.
    AnswersInput,
    /// As the first, and never says that everything has been told.
    NeverCatchesUp,
}

const RECORDS: u64 = 12;

/// A turn: its beginning, what is said in it, and its end.
fn turn_record(seq: u64) -> Value {
    let mut record = record(seq);
    let (kind, data) = match seq {
        1 => ("worker_input_dispatched", json!({"input": 0, "turn": 1})),
        RECORDS => ("worker_turn_ended", json!({"turn": 1, "result": "finished"})),
        _ => return record,
    };
    record["type"] = kind.into();
    record["data"] = data;
    record
}

fn record(seq: u64) -> Value {
    json!({
        "seq": seq, "time": "2026-11-20T19:14:05Z", "type": "worker_output", "v": 1, "worker": "w-1",
        "actor": "service", "data": {"event": "text_delta", "turn": 1}, "content": format!("line {seq}")
    })
}

async fn observe(
    State(fake): State<Fake>,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let query = query.unwrap_or_default();
    let number = |name: &str| {
        let found = query.split('&').find_map(|pair| pair.strip_prefix(name));
        found.and_then(|value| value.parse::<u64>().ok())
    };
    let after = number("after=").or(number("cursor=c")).unwrap_or(RECORDS);
    let nth = {
        let mut asked = fake.asked.lock();
        asked.push(query);
        asked.len()
    };
    upgrade.on_upgrade(move |socket| tell(socket, fake.behaviour, nth, after))
}

async fn tell(mut socket: WebSocket, behaviour: Behaviour, nth: usize, after: u64) {
    let text = |value: Value| Message::Text(value.to_string().into());
    if let Behaviour::Diagnoses(code) = behaviour {
        let diagnostic = json!({"code": code, "message": "no"});
        let frame = json!({"kind": "diagnostic", "diagnostic": diagnostic});
        let _ = socket.send(text(frame)).await;
        let _ = socket.send(Message::Close(None)).await;
        return;
    }
    // One that resumes is told the last record again, which an observer must not show twice.
    let first = if nth == 1 { after + 1 } else { after.max(1) };
    for seq in first..=RECORDS {
        if nth < 3 && seq == first + 5 {
            return; // the connection drops, without a closing handshake
        }
        let record =
            if behaviour == Behaviour::AnswersInput { turn_record(seq) } else { record(seq) };
        let frame = json!({"kind": "event", "cursor": format!("c{seq}"), "record": record});
        if socket.send(text(frame)).await.is_err() {
            return;
        }
    }
    let kind = if behaviour == Behaviour::NeverCatchesUp { "heartbeat" } else { "caught_up" };
    let _ = socket.send(text(json!({"kind": kind, "cursor": "c12", "head": RECORDS}))).await;
    // Holds the connection until the observer goes.
    while let Some(Ok(_)) = socket.recv().await {}
}

async fn stop_worker(State(fake): State<Fake>, headers: HeaderMap) -> Response {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("none");
    let mut asked = fake.asked.lock();
    asked.push(key.to_owned());
    if asked.len() < 3 {
        let error = json!({"error": {"code": "busy", "message": "try again"}});
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], Json(error))
            .into_response();
    }
    Json(json!({"ack": {"status": "stopped"}})).into_response()
}

const WORKERS: [&str; 3] = ["ab-1", "ab-2", "cd-1"];

async fn one_worker(Path(id): Path<String>) -> Response {
    match WORKERS.contains(&id.as_str()) {
        true => Json(json!({"worker": {"worker_id": id}})).into_response(),
        false => refuse(404, "worker_not_found").await,
    }
}

async fn all_workers() -> Json<Value> {
    let workers: Vec<Value> = WORKERS.iter().map(|id| json!({ "worker_id": id })).collect();
    Json(json!({ "workers": workers }))
}

/// Five items, at most two in an answer.
async fn transcript(Query(page): Query<HashMap<String, usize>>) -> Json<Value> {
    let start = page["start"];
    let end = (start + page["limit"].min(2)).min(5);
    let item = |n| json!({"sequence": n + 1, "role": "user", "content": format!("item {n}")});
    let items: Vec<Value> = (start..end).map(item).collect();
    let next = (end < 5).then_some(end);
    Json(json!({
        "transcript": {"start": start, "limit": 2, "total_items": 5, "items": items, "next_start": next}
    }))
}

async fn input(Json(body): Json<Value>) -> Json<Value> {
    assert_eq!(body["kind"], "user");
    // The records of the made-up log all belong to the turn that follows.
    Json(json!({"ack": {"event_id": 0, "transcript_sequence": 1}}))
}

async fn refuse(status: u16, code: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, Json(json!({"error": {"code": code, "message": "why"}}))).into_response()
}

async fn client(fake: Fake) -> Client {
    let router = Router::new()
        .route("/v1/events", get(async || Json(json!({"events": [], "head": RECORDS}))))
        .route("/v1/events/ws", get(observe))
        .route("/v1/workers", get(all_workers))
        .route("/v1/workers/{id}", get(one_worker))
        .route("/v1/workers/{id}/transcript", get(transcript))
        .route("/v1/workers/{id}/input", post(input))
        .route("/v1/workers/w/stop", post(stop_worker))
        .route("/v1/refused", any(|| refuse(409, "runtime_stopped")))
        .route("/v1/unauthorized", any(|| refuse(401, "unauthorized")))
        .route("/v1/odd", any(|| async { "hello" }))
        .with_state(fake);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    at(&url)
}

fn at(url: &str) -> Client {
    let looked = vec!["/data/operator.token".into()];
    Client::new(
        Url::parse(url).unwrap(),
        Credentials { token: None, looked },
        &Trust::new(None).unwrap(),
    )
    .unwrap()
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

fn tail_args(line: &str) -> tail::TailArgs {
    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    let Command::Tail(args) = cli.command else { panic!("not tail") };
    args
}

#[tokio::test]
async fn tail_resumes_from_its_cursor_and_shows_each_event_once() {
    let fake = Fake::default();
    let client = client(fake.clone()).await;
    let written = Written::default();
    let mut out = Output::to(written.clone(), Format::Json);
    let args = tail_args("acta tail --no-follow --type worker_output --runtime r");
    tail::run(args, &client, &mut out, pending()).await.unwrap();

    let expected: Vec<String> = (1..=RECORDS).map(|seq| record(seq).to_string()).collect();
    assert_eq!(written.lines(), expected);
    let filters = "progress=1&type=worker_output&runtime=r";
    let expected = ["after=0", "cursor=c5", "cursor=c9"].map(|from| format!("{from}&{filters}"));
    assert_eq!(*fake.asked.lock(), expected);
}

#[tokio::test]
async fn tail_ends_well_when_it_is_interrupted() {
    let fake = Fake { behaviour: Behaviour::NeverCatchesUp, ..Fake::default() };
    let client = client(fake).await;
    let written = Written::default();
    let mut out = Output::to(written.clone(), Format::Table);
    let all_seen = async {
        while written.lines().len() < 12 {
            tokio::task::yield_now().await;
        }
    };
    let args = tail_args("acta tail --from start");
    let tail = tail::run(args, &client, &mut out, all_seen);
    tokio::time::timeout(Duration::from_secs(20), tail).await.unwrap().unwrap();
    assert_eq!(written.lines()[11], "19:14:05      12  w-1       agent> line 12");
}

#[tokio::test]
async fn tail_gives_up_where_trying_again_would_not_help() {
    let check = async |code| {
        let fake = Fake { behaviour: Behaviour::Diagnoses(code), ..Fake::default() };
        let client = client(fake.clone()).await;
        let mut out = Output::to(io::sink(), Format::Table);
        let tail = tail::run(tail_args("acta tail"), &client, &mut out, pending());
        let ended = tokio::time::timeout(Duration::from_secs(5), tail).await;
        let asked = fake.asked.lock().len();
        (ended.ok().map(|result| result.unwrap_err().to_string()), asked)
    };
    assert_eq!(check("runtime.cursor_ahead").await, (Some("no (runtime.cursor_ahead)".into()), 1));
    let (ended, asked) = check("runtime.unavailable").await;
    assert!(ended.is_none() && asked > 1, "{ended:?} after {asked} attempts");
}

#[tokio::test]
async fn a_command_is_repeated_with_the_same_key() {
    let fake = Fake::default();
    let client = client(fake.clone()).await;
    client.send(Call::post(&["workers", "w", "stop"], json!({}))).await.unwrap();
    let keys = fake.asked.lock().clone();
    assert_eq!(keys.len(), 3);
    assert!(keys[0].starts_with("cli-") && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn errors_say_what_was_wrong_and_where_to_go_on() {
    let client = client(Fake::default()).await;
    let message = async |path| client.send(Call::get(&[path])).await.unwrap_err().to_string();
    assert_eq!(message("refused").await, "why (runtime_stopped)");
    let unauthorized = message("unauthorized").await;
    assert!(unauthorized.contains("none was found (unauthorized)"), "{unauthorized}");
    assert!(unauthorized.contains("/data/operator.token"), "{unauthorized}");
    assert!(message("odd").await.contains("not as an Acta service does"));

    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let absent = at(&url);
    let error = absent.send(Call::get(&["workers"])).await.unwrap_err();
    assert!(matches!(error, ClientError::NoService { .. }), "{error}");
    assert!(
        error.to_string().starts_with(&format!("no Acta service answers at {url};")),
        "{error}"
    );
    let mut out = Output::to(io::sink(), Format::Table);
    let error = tail::run(tail_args("acta tail"), &absent, &mut out, pending()).await.unwrap_err();
    assert!(error.to_string().starts_with("no Acta service answers"), "{error}");
}

/// Runs a command as `main` does, but for the process.
async fn run(line: &str, client: &Client, format: Format) -> anyhow::Result<String> {
    let written = Written::default();
    let mut out = Output::to(written.clone(), format);
    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    super::talk(cli.command, client, &mut out).await?;
    Ok(String::from_utf8(written.0.lock().clone()).unwrap())
}

#[tokio::test]
async fn a_worker_may_be_named_by_the_beginning_of_its_id() {
    let client = client(Fake::default()).await;
    let check =
        async |line: &str| run(line, &client, Format::Table).await.map_err(|e| e.to_string());
    let shown = Ok("worker_id  cd-1\n".to_owned());
    assert_eq!(check("acta show cd-1").await, shown);
    assert_eq!(check("acta show worker c").await, shown);
    assert_eq!(check("acta show x").await, Err("why (worker_not_found)".into()));
    let several = "`ab` is the beginning of several workers:\n  ab-1\n  ab-2";
    for line in ["acta show ab", "acta stop ab", "acta tail ab", "acta send ab x"] {
        assert_eq!(check(line).await, Err(several.into()), "{line}");
    }
}

#[tokio::test]
async fn a_whole_transcript_takes_as_many_requests_as_there_are_pages() {
    let client = client(Fake::default()).await;
    let text = run("acta transcript c --all --start 1", &client, Format::Table).await.unwrap();
    let lines: Vec<String> = (1..5).map(|n| format!("    {}  user> item {n}\n", n + 1)).collect();
    assert_eq!(text, lines.concat());
    let text = run("acta transcript c --all", &client, Format::Json).await.unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    let transcript = &answer["transcript"];
    assert_eq!(transcript["items"].as_array().map(Vec::len), Some(5));
    assert_eq!((&transcript["start"], &transcript["next_start"]), (&json!(0), &Value::Null));
    let text = run("acta transcript c --limit 1", &client, Format::Table).await.unwrap();
    assert_eq!(text, "    1  user> item 0\n");
}

#[tokio::test]
async fn send_waits_for_the_end_of_its_turn_across_broken_connections() {
    let fake = Fake { behaviour: Behaviour::AnswersInput, ..Fake::default() };
    let client = client(fake.clone()).await;
    let text = run("acta send c --wait hello", &client, Format::Json).await.unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    let said: String = (2..RECORDS).map(|seq| format!("line {seq}")).collect();
    assert_eq!((&answer["text"], &answer["result"]), (&json!(said), &json!("finished")));
    let worker = "progress=1&worker=cd-1";
    let expected = ["after=0", "cursor=c5", "cursor=c9"].map(|from| format!("{from}&{worker}"));
    assert_eq!(*fake.asked.lock(), expected);
}
