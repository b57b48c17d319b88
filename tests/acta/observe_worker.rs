//! Observing one worker: frames, their order, and how an observation ends.

use crate::support::{Client, Incoming, PAYLOADS, Service, Socket, keys, soon};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio_tungstenite::tungstenite::Message;

pub fn path(worker: &str) -> String {
    format!("/v1/workers/{worker}/events/ws")
}

pub fn payload(frame: &Value) -> &str {
    frame["envelope"]["payload"]["event"].as_str().unwrap_or_default()
}

fn data(frame: &Value) -> &Value {
    &frame["envelope"]["payload"]["data"]
}

pub fn cursor(frame: &Value) -> &str {
    frame["envelope"]["cursor"].as_str().unwrap()
}

/// Checks the shape of an event frame, but for its payload.
fn check_event(frame: &Value, worker: &str) {
    assert_eq!(keys(frame), ["envelope", "kind"], "{frame}");
    assert_eq!(frame["kind"], "event");
    let envelope = &frame["envelope"];
    assert_eq!(keys(envelope), ["cursor", "event_id", "payload", "worker_id"], "{frame}");
    assert_eq!(envelope["worker_id"], worker);
    assert_eq!(keys(&envelope["payload"]), ["data", "event"], "{frame}");
    let url_safe = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    assert!(cursor(frame).bytes().all(url_safe), "cursors are put into URLs as they are");
}

/// What is left to read of a worker, up to a payload.
pub async fn backlog(service: &Client, worker: &str, last: &str) -> Vec<Value> {
    let mut socket = service.watch(&format!("{}?after=0", path(worker))).await;
    socket.until(|frame| payload(frame) == last).await
}

#[tokio::test]
async fn an_observer_gets_a_snapshot_and_then_live_events() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.run_state(&worker, "idle").await;
    let mut socket = service.watch(&path(&worker)).await;
    let snapshot = socket.frame().await;
    check_event(&snapshot, &worker);
    assert_eq!(payload(&snapshot), "snapshot");
    assert_eq!(snapshot["envelope"]["event_id"], format!("snapshot:{}", cursor(&snapshot)));
    let data = data(&snapshot);
    assert_eq!(keys(data), ["entries", "greeting", "status"]);
    assert_eq!((&data["entries"], &data["status"]), (&json!([]), &json!("idle")));
    let greeting = &data["greeting"];
    assert_eq!(
        keys(greeting),
        [
            "context_tokens",
            "context_window",
            "cwd",
            "model",
            "provider",
            "scope_summary",
            "tools",
            "worker_name"
        ]
    );
    assert_eq!(greeting["worker_name"], worker);
    assert_eq!((&greeting["cwd"], &greeting["tools"]), (&json!(""), &json!([])));
    assert_eq!((&greeting["context_window"], &greeting["context_tokens"]), (&json!(0), &json!(0)));

    service.input(&worker, "hello").await;
    let frames = socket.until(|frame| payload(frame) == "turn_end").await;
    for frame in &frames {
        check_event(frame, &worker);
        assert_eq!(frame["envelope"]["event_id"], cursor(frame));
    }
    let seen: Vec<_> = frames.iter().map(payload).collect();
    assert_eq!(seen, ["user_message", "turn_start", "text_delta", "text_done", "turn_end"]);
}

#[tokio::test]
async fn payloads_of_a_conversation_have_the_shapes_of_the_contract() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "hello").await;
    service.rests(&worker, 2).await;
    let system = json!({"kind": "system", "content": "rules"});
    service.post(&format!("/v1/workers/{worker}/input"), &system).await.ok();
    service.rests(&worker, 4).await;
    service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    let frames = backlog(&service, &worker, "shutdown").await;
    let of = |event: &str| -> Vec<&Value> {
        frames.iter().filter(|frame| payload(frame) == event).map(data).collect()
    };
    assert_eq!(of("user_message"), [&json!({"segments": [{"kind": "text", "content": "hello"}]})]);
    assert_eq!(of("system_item"), [&json!({"item": "rules"})]);
    assert_eq!(of("status"), [&json!({"status": "idle"})]);
    assert_eq!(of("turn_start"), [&json!({"turn": 1}), &json!({"turn": 2})]);
    let ended = |turn: u64| json!({"turn": turn, "result": "finished"});
    assert_eq!(of("turn_end"), [&ended(1), &ended(2)]);
    let texts = [&json!({"text": "hello\n"}), &json!({"text": "rules\n"})];
    assert_eq!((of("text_delta"), of("text_done")), (texts.into(), texts.into()));
    assert_eq!(of("shutdown").len(), 1);
}

#[tokio::test]
async fn every_payload_that_a_worker_reports_appears_as_its_frame() {
    let service = Service::start().await;
    let worker = service.spawn("jsonl").await;
    service.input(&worker, "go").await;
    let frames = backlog(&service, &worker, "run_end").await;
    let lines = PAYLOADS.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut expected: Vec<Value> = lines.collect();
    let first = frames.iter().position(|frame| payload(frame) == "turn_start").unwrap();
    let said: Vec<Value> =
        frames[first..].iter().map(|frame| frame["envelope"]["payload"].clone()).collect();
    expected[0]["data"]["turn"] = json!(1);
    assert_eq!(said, expected);
    assert!(frames.iter().all(|frame| frame["envelope"]["worker_id"] == *worker));
    let transcript = service.rests(&worker, 2).await;
    assert_eq!(transcript["transcript_len"], 2, "one answer");
}

#[tokio::test]
async fn the_failures_of_workers_are_error_and_alert_payloads() {
    let service = Service::start().await;
    for (template, last, shape) in [
        ("complains", "alert", ["level", "message", "source", "timestamp_ms"].as_slice()),
        ("breaks", "error", ["code", "message"].as_slice()),
        ("quits", "run_end", ["result"].as_slice()),
    ] {
        let worker = service.spawn(template).await;
        service.input(&worker, "x").await;
        let frames = backlog(&service, &worker, last).await;
        assert_eq!(keys(data(frames.last().unwrap())), shape);
    }
    let worker = service.spawn("absent").await;
    let frames = backlog(&service, &worker, "error").await;
    assert_eq!(data(frames.last().unwrap())["code"], "internal");
}

#[tokio::test]
async fn a_long_text_is_done_every_64_kib_and_in_whole_characters() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let text = "ä€😀x".repeat(20_000);
    service.input(&worker, &text).await;
    let mut socket = service.watch(&format!("{}?after=0", path(&worker))).await;
    let frames = socket.until(|frame| payload(frame) == "turn_end").await;
    let all = |event: &str| -> Vec<&str> {
        let of = frames.iter().filter(|frame| payload(frame) == event);
        of.map(|frame| data(frame)["text"].as_str().unwrap()).collect()
    };
    let (deltas, done) = (all("text_delta"), all("text_done"));
    assert_eq!(deltas.concat(), format!("{text}\n"));
    assert_eq!(done.concat(), format!("{text}\n"));
    assert!(done.len() > 1 && done.iter().all(|text| text.len() <= 64 * 1024));
    let items = service.transcript(&worker).await["items"].as_array().unwrap().clone();
    let assistant = items[1..].iter().map(|item| item["content"].as_str().unwrap());
    assert_eq!(assistant.collect::<Vec<_>>(), done);
}

#[tokio::test]
async fn other_workers_never_appear() {
    let service = Service::start().await;
    let (worker, other) = (service.spawn("lines").await, service.spawn("lines").await);
    let mut socket = service.watch(&format!("{}?after=0", path(&worker))).await;
    let inputs = |id: String| {
        let service = &service;
        async move {
            for n in 0..10 {
                service.input(&id, &format!("{id} {n}")).await;
            }
        }
    };
    futures_util::future::join(inputs(worker.clone()), inputs(other.clone())).await;
    service.rests(&other, 20).await;
    service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    let frames = socket.until(|frame| payload(frame) == "shutdown").await;
    for frame in &frames {
        check_event(frame, &worker);
        assert!(!frame.to_string().contains(&other), "{frame}");
    }
    assert_eq!(frames.iter().filter(|frame| payload(frame) == "user_message").count(), 10);
}

#[tokio::test]
async fn resuming_at_any_cursor_gives_the_rest_exactly_once() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    for n in 0..3 {
        service.input(&worker, &format!("number {n}")).await;
        service.rests(&worker, 2 * (n + 1)).await;
    }
    service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    let frames = backlog(&service, &worker, "shutdown").await;
    let distinct: BTreeSet<_> = frames.iter().map(cursor).collect();
    assert_eq!(distinct.len(), frames.len(), "every frame has a cursor of its own");
    for (n, frame) in frames.iter().enumerate() {
        let resumed = format!("{}?cursor={}", path(&worker), cursor(frame));
        let mut socket = service.watch(&resumed).await;
        let snapshot = socket.frame().await;
        assert_eq!(cursor(&snapshot), cursor(frame), "the snapshot carries the requested cursor");
        assert_eq!(snapshot["envelope"]["event_id"], format!("snapshot:{}", cursor(frame)));
        if n + 1 < frames.len() {
            let rest = socket.until(|frame| payload(frame) == "shutdown").await;
            assert_eq!(rest, frames[n + 1..]);
        }
    }
}

#[tokio::test]
async fn an_observation_survives_kill_9_of_the_service() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "before").await;
    service.rests(&worker, 2).await;
    let mut socket = service.watch(&format!("{}?after=0", path(&worker))).await;
    let mut frames = socket.until(|frame| payload(frame) == "turn_end").await;
    service.kill9().await;
    assert_eq!(socket.next().await, Incoming::End);
    service.restart().await;
    service.input(&worker, "after").await;
    let resumed = format!("{}?cursor={}", path(&worker), cursor(frames.last().unwrap()));
    let mut socket = service.watch(&resumed).await;
    socket.frame().await;
    frames.extend(socket.until(|frame| payload(frame) == "turn_end").await);
    assert_eq!(frames[1..], backlog_of_two(&service, &worker).await[1..]);
}

async fn backlog_of_two(service: &Client, worker: &str) -> Vec<Value> {
    let mut turns = 0;
    let mut socket = service.watch(&format!("{}?after=0", path(worker))).await;
    let ends = |frame: &Value| {
        turns += u64::from(payload(frame) == "turn_end");
        turns == 2
    };
    socket.until(ends).await
}

#[tokio::test]
async fn any_message_from_the_client_ends_in_observation_only() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.run_state(&worker, "idle").await;
    for message in [
        Message::text("{}"),
        Message::text(""),
        Message::binary(vec![0, 255]),
        Message::binary(Vec::new()),
    ] {
        let mut socket = service.watch(&path(&worker)).await;
        socket.frame().await;
        socket.say(message).await;
        assert_eq!(socket.refusal().await, ("runtime.observation_only".to_owned(), 1008));
    }
    let mut socket = service.watch("/v1/events/ws").await;
    socket.say(Message::text("{}")).await;
    assert_eq!(socket.refusal().await, ("runtime.observation_only".to_owned(), 1008));
}

#[tokio::test]
async fn a_ping_gets_a_pong_and_nothing_else() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.run_state(&worker, "idle").await;
    let mut socket = service.watch(&path(&worker)).await;
    socket.frame().await;
    socket.say(Message::Ping(vec![1, 2, 3].into())).await;
    assert_eq!(socket.next().await, Incoming::Pong(vec![1, 2, 3]));
    service.input(&worker, "still there").await;
    assert_eq!(payload(&socket.frame().await), "user_message");
}

#[tokio::test]
async fn an_unknown_worker_is_404_before_the_upgrade() {
    let service = Service::start().await;
    for query in ["", "?cursor=bad", "?after=0"] {
        let (status, body) = service.watch_refused(&format!("{}{query}", path("missing"))).await;
        assert_eq!((status, &body["error"]["code"]), (404, &json!("worker_not_found")));
        assert!(body["error"]["message"].as_str().unwrap().contains("missing"));
    }
    let (status, body) = service.anonymous().watch_refused(&path("missing")).await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!("unauthorized")));
    let worker = service.spawn("echo").await;
    service.get(&path(&worker)).await.refused(400, "invalid_request");
    service.get("/v1/events/ws").await.refused(400, "invalid_request");
}

#[tokio::test]
async fn frames_of_other_kinds_come_only_on_request() {
    let service = Service::start().await;
    let worker = service.spawn("lines").await;
    service.input(&worker, "x").await;
    service.rests(&worker, 2).await;
    let mut plain = service.watch(&format!("{}?after=0", path(&worker))).await;
    let frames = plain.until(|frame| payload(frame) == "turn_end").await;
    frames.iter().for_each(|frame| check_event(frame, &worker));

    let mut socket = service.watch(&format!("{}?after=0&progress=1", path(&worker))).await;
    let all = socket.until(|frame| frame["kind"] == "caught_up").await;
    let (caught_up, events) = all.split_last().unwrap();
    assert_eq!(keys(caught_up), ["cursor", "head", "kind"]);
    let head = service.head().await;
    assert_eq!(caught_up["head"], head);
    // What has no payload is shown as a record.
    let records: Vec<&Value> =
        events.iter().filter(|frame| frame.get("record").is_some()).collect();
    for frame in &records {
        assert_eq!(keys(frame), ["cursor", "kind", "record"]);
    }
    let kinds: Vec<_> = records.iter().map(|frame| frame["record"]["type"].clone()).collect();
    assert_eq!(kinds, ["worker_created", "worker_process_started"]);
    let rest: Vec<&Value> = events.iter().filter(|frame| frame.get("record").is_none()).collect();
    assert_eq!(rest[1..], frames[1..].iter().collect::<Vec<_>>()[..]);
    let logged = service.events(&format!("worker={worker}")).await.len();
    assert_eq!(events.len() - 1, logged, "every record is one frame");
}

#[tokio::test]
async fn an_observer_is_told_where_to_resume_when_the_service_ends() {
    let mut service = Service::start().await;
    let worker = service.spawn("lines").await;
    let mut socket = service.watch(&path(&worker)).await;
    let first = socket.frame().await;
    service.stop().await;
    let (code, reason) = loop {
        match socket.next().await {
            Incoming::Close(code, reason) => break (code, reason),
            Incoming::Frame(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1001);
    service.restart().await;
    for cursor in [cursor(&first), reason.as_str()] {
        let mut socket = service.watch(&format!("{}?cursor={cursor}", path(&worker))).await;
        assert_eq!(payload(&socket.frame().await), "snapshot");
    }
}

#[tokio::test]
async fn many_observers_see_the_same() {
    let service = Service::start().await;
    let worker = service.spawn("lines").await;
    service.run_state(&worker, "idle").await;
    let mut sockets: Vec<Socket> = Vec::new();
    for _ in 0..20 {
        sockets.push(service.watch(&format!("{}?after=0", path(&worker))).await);
    }
    for n in 0..10 {
        service.input(&worker, &format!("line {n}")).await;
    }
    service.rests(&worker, 20).await;
    service.post_empty(&format!("/v1/workers/{worker}/cancel")).await.ok();
    let mut seen = Vec::new();
    for socket in &mut sockets {
        seen.push(soon("the end", socket.until(|frame| payload(frame) == "shutdown")).await);
    }
    assert!(seen.iter().all(|frames| *frames == seen[0]));
    let shown = service.events(&format!("worker={worker}")).await.into_iter().filter(|event| {
        event["type"] != "worker_created" && event["type"] != "worker_process_started"
    });
    assert_eq!(seen[0].len() - 1, shown.count(), "a frame for each record that has a payload");
}
