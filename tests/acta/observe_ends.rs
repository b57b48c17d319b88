//! How long an observation lasts, and how it ends when it has to.

use crate::{
    observe_worker::{cursor, path, payload},
    support::{Incoming, Options, Service, keys, manifest, soon},
};
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// How long an observer may leave its frames unread.
const OBSERVER_IDLE: Duration = Duration::from_millis(300);

/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn heartbeats_carry_the_head_also_where_a_filter_lets_nothing_through() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    service.run_state(&worker, "idle").await;
    let mut socket = service
        .watch(&format!("/v1/events/ws?progress=1&type=runtime_stopped&worker={worker}"))
        .await;
    let mut of_worker = service.watch(&format!("{}?progress=1", path(&worker))).await;
    let mut plain = service.watch(&path(&worker)).await;
    plain.frame().await;
    let mut bodies = Vec::new();
    for (accept, mark) in
        [("text/event-stream", "event: heartbeat\n"), ("application/x-ndjson", "{\"cursor\":")]
    {
        let uri = "/v1/events?progress=1&type=runtime_stopped";
        let request = service.request(Method::GET, uri).header("accept", accept);
        bodies.push((request.send().await.unwrap().bytes_stream(), mark));
    }
    assert_eq!(socket.frame().await["kind"], "caught_up");
    of_worker.until(|frame| frame["kind"] == "caught_up").await;
    let ack = service.input(&worker, "something happens").await;

    let heartbeat = soon("a heartbeat", socket.frame()).await;
    assert_eq!(keys(&heartbeat), ["cursor", "head", "kind"]);
    assert_eq!(heartbeat["kind"], "heartbeat");
    let head = service.head().await;
    assert_eq!(heartbeat["head"], head);
    let resumed = format!("/v1/events?cursor={}", heartbeat["cursor"].as_str().unwrap());
    assert_eq!(service.get(&resumed).await.ok()["events"], json!([]), "it is that of the head");
    assert!(head > ack["event_id"].as_u64().unwrap());
    let frames = of_worker.until(|frame| frame["kind"] == "heartbeat").await;
    assert!(frames.len() > 1);
    for (mut body, mark) in bodies {
        let mut seen = 0;
        while seen < 2 {
            let chunk = soon("a heartbeat", body.next()).await.unwrap().unwrap();
            let text = String::from_utf8(chunk.to_vec()).unwrap();
            // Lines tell both kinds of progress alike; the first of them is that it caught up.
            seen += if mark.starts_with('{') {
                text.matches(mark).count()
            } else {
                2 * text.matches(mark).count()
            };
        }
    }
    // Whoever did not ask gets none: what comes next is an event.
    service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    let frames = plain.until(|frame| payload(frame) == "shutdown").await;
    assert!(frames.iter().all(|frame| frame["kind"] == "event"), "within {HEARTBEAT:?} and more");
}

#[tokio::test]
async fn an_observer_that_does_not_read_is_closed_with_its_resume_cursor() {
    let mut manifest = manifest();
    let flood = "cat >/dev/null; yes 'one line of many in a flood of output' | head -c 24000000";
    manifest["workspace_templates"].as_array_mut().unwrap().push(json!({
        "name": "flood",
        "exec": {"argv": ["sh", "-c", flood], "mode": "per_input"},
    }));
    let idle = format!("--observer-idle-ms={}", OBSERVER_IDLE.as_millis());
    let options = Options::default().manifest(manifest).arg(idle);
    let service = options.start().await;
    let worker = service.spawn("flood").await;
    let mut slow = service.watch(&format!("{}?after=0", path(&worker))).await;
    service.input(&worker, "go").await;
    service.run_state(&worker, "busy").await;
    service.run_state(&worker, "idle").await;
    // Not reading for longer than the limit is what this is about. All of the output may have been
    // printed faster than that.
    tokio::time::sleep(4 * OBSERVER_IDLE).await;
    let mut frames = Vec::new();
    let reason = loop {
        match slow.next().await {
            Incoming::Frame(frame) => frames.push(frame),
            Incoming::Close(1013, reason) => break reason,
            // Where reading begins later than a Close frame waits, the last frame tells as much.
            Incoming::End => break cursor(frames.last().unwrap()).to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_ne!(payload(frames.last().unwrap()), "turn_end", "it was closed before the end");
    assert_eq!(reason, cursor(frames.last().unwrap()), "the reason is the cursor to resume from");
    // A reader that reads gets the rest, and nothing twice.
    let mut resumed = service.watch(&format!("{}?cursor={reason}", path(&worker))).await;
    resumed.frame().await;
    let rest = resumed.until(|frame| payload(frame) == "turn_end").await;
    let text = |frames: &[Value]| -> usize {
        let deltas = frames.iter().filter(|frame| payload(frame) == "text_delta");
        deltas
            .map(|frame| frame["envelope"]["payload"]["data"]["text"].as_str().unwrap().len())
            .sum()
    };
    assert_eq!(text(&frames) + text(&rest), 24_000_000);
}

#[tokio::test]
async fn what_cannot_be_read_is_runtime_unavailable() {
    let mut service = Service::start().await;
    let worker = service.spawn("refuses").await;
    service.input(&worker, &"A content in a file of its own. ".repeat(2000)).await;
    service.run_state(&worker, "idle").await;
    service.stop().await;
    fs::remove_dir_all(service.data().join("content")).unwrap();
    service.restart().await;
    let mut socket = service.watch(&format!("{}?after=0", path(&worker))).await;
    let before = socket.frame().await;
    assert_eq!(payload(&before), "snapshot");
    let (code, close) = loop {
        match socket.next().await {
            Incoming::Frame(frame) if frame["kind"] == "diagnostic" => {
                let Incoming::Close(close, reason) = socket.next().await else { panic!() };
                assert!(!reason.is_empty());
                break (frame["diagnostic"]["code"].clone(), close);
            }
            Incoming::Frame(frame) => assert_ne!(payload(&frame), "user_message"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((code, close), (json!("runtime.unavailable"), 1011));
    // A snapshot that cannot be read is none.
    let mut socket = service.watch(&path(&worker)).await;
    assert_eq!(socket.refusal().await, ("runtime.unavailable".to_owned(), 1011));
}
