//! The law of observation: a snapshot and the events after it add up to the present.

use crate::{
    observe_worker::{backlog, cursor, path, payload},
    support::{Client, Service},
};
use serde_json::{Value, json};

/// What a client knows of a worker: it begins with a snapshot and takes in every event.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    said: Vec<(String, String)>,
    /// Text that is not complete.
    partial: String,
    status: String,
}

impl Known {
    fn begin(snapshot: &Value) -> Self {
        assert_eq!(payload(snapshot), "snapshot", "{snapshot}");
        let data = &snapshot["envelope"]["payload"]["data"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut known =
            Self { said: Vec::new(), partial: String::new(), status: text(&data["status"]) };
        for entry in data["entries"].as_array().unwrap() {
            if entry["partial"] == true {
                assert_eq!((&entry["role"], known.partial.as_str()), (&json!("assistant"), ""));
                known.partial = text(&entry["content"]);
            } else {
                assert_eq!(known.partial, "", "what is not complete comes last");
                known.said.push((text(&entry["role"]), text(&entry["content"])));
            }
        }
        known
    }

    fn take(&mut self, frame: &Value) {
        let data = &frame["envelope"]["payload"]["data"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        match payload(frame) {
            "user_message" => {
                self.said.push(("user".into(), text(&data["segments"][0]["content"])));
                self.status = "running".into();
            }
            "system_item" => {
                self.said.push(("system".into(), text(&data["item"])));
                self.status = "running".into();
            }
            "text_delta" => self.partial += data["text"].as_str().unwrap(),
            "text_done" => {
                let whole = text(&data["text"]);
                assert_eq!(self.partial, whole, "the deltas are the text");
                self.said.push(("assistant".into(), whole));
                self.partial.clear();
            }
            "turn_start" => self.status = "running".into(),
            "turn_end" | "shutdown" => self.status = "idle".into(),
            "status" => self.status = text(&data["status"]),
            _ => {}
        }
    }
}

async fn snapshot_at(service: &Client, worker: &str, cursor: &str) -> Known {
    let mut socket = service.watch(&format!("{}?cursor={cursor}", path(worker))).await;
    Known::begin(&socket.frame().await)
}

/// Folds from every snapshot to the end, and from the beginning to every snapshot.
async fn check(service: &Client, worker: &str, last: &str) {
    let mut socket = service.watch(&format!("{}?after=0", path(worker))).await;
    let beginning = Known::begin(&socket.frame().await);
    let frames = socket.until(|frame| payload(frame) == last).await;
    let present = snapshot_at(service, worker, cursor(frames.last().unwrap())).await;
    let mut known = beginning;
    for (n, frame) in frames.iter().enumerate() {
        known.take(frame);
        let at = snapshot_at(service, worker, cursor(frame)).await;
        assert_eq!((&at.said, &at.partial), (&known.said, &known.partial), "at {frame}");
        let mut sum = at;
        frames[n + 1..].iter().for_each(|frame| sum.take(frame));
        assert_eq!(sum, present, "from {frame}");
    }
    assert!(frames.len() > 5, "there was something to add up");
}

#[tokio::test]
async fn snapshot_and_following_events_add_up_at_every_cursor_of_a_session() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    for n in 0..4 {
        let kind = if n % 2 == 0 { "user" } else { "system" };
        let body = json!({"kind": kind, "content": format!("number {n}\nand ä€😀")});
        service.post(&format!("/v1/workers/{worker}/input"), &body).await.ok();
        service.rests(&worker, 2 * (n + 1)).await;
    }
    service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    check(&service, &worker, "shutdown").await;
    service.kill9().await;
    service.restart().await;
    check(&service, &worker, "shutdown").await;
}

#[tokio::test]
async fn snapshot_and_following_events_add_up_with_text_in_many_pieces() {
    let service = Service::start().await;
    for template in ["jsonl", "lines"] {
        let worker = service.spawn(template).await;
        service.input(&worker, &"a long line of text\n".repeat(2000)).await;
        service.rests(&worker, 2).await;
        service.input(&worker, "short").await;
        service.rests(&worker, 4).await;
        service.post_empty(&format!("/v1/workers/{worker}/cancel")).await.ok();
        check(&service, &worker, "shutdown").await;
    }
}

#[tokio::test]
async fn snapshot_and_following_events_add_up_where_inputs_queued_up() {
    let service = Service::start().await;
    let worker = service.spawn("lines").await;
    for n in 0..6 {
        service.input(&worker, &format!("queued {n}")).await;
    }
    service.rests(&worker, 12).await;
    service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    check(&service, &worker, "shutdown").await;
}

#[tokio::test]
async fn snapshot_and_following_events_add_up_where_the_worker_failed() {
    let service = Service::start().await;
    for (template, last) in [("breaks", "error"), ("quits", "run_end")] {
        let worker = service.spawn(template).await;
        service.input(&worker, "x").await;
        backlog(&service, &worker, last).await;
        service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
        let frames = backlog(&service, &worker, "shutdown").await;
        for frame in &frames {
            snapshot_at(&service, &worker, cursor(frame)).await;
        }
    }
}

#[tokio::test]
async fn a_snapshot_shows_the_last_256_items() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let inputs = (0..300).map(|n| {
        let (service, worker) = (&service, &worker);
        async move { service.input(worker, &format!("item {n}")).await }
    });
    futures_util::future::join_all(inputs).await;
    let mut socket = service.watch(&path(&worker)).await;
    let snapshot = socket.frame().await;
    let entries = snapshot["envelope"]["payload"]["data"]["entries"].as_array().unwrap().clone();
    let transcript = service.get(&format!("/v1/workers/{worker}/transcript?start=44")).await.ok();
    let items = transcript["transcript"]["items"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[..]), (256, &items[..256]));
}
