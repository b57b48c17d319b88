//! The whole log: pages, lines, Server-Sent Events, WebSocket; and named cursors.

use crate::support::{Client, Incoming, Service, eventually, keys, soon};
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    cell::Cell,
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How long nothing happens before it counts as rest.
const QUIET: Duration = Duration::from_millis(150);

/// A response body, a line at a time.
struct Lines {
    stream: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: Vec<u8>,
}

impl Lines {
    async fn open(client: &Client, path: &str, accept: &str, last_event_id: Option<&str>) -> Self {
        let mut request = client.request(Method::GET, path).header("accept", accept);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], accept);
        Self { stream: response.bytes_stream().boxed(), buffer: Vec::new() }
    }

    /// The next line; none at the end of the body.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.drain(..=end).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            match soon("a line", self.stream.next()).await {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.unwrap()),
                None => {
                    assert!(self.buffer.is_empty(), "it ended within a line");
                    return None;
                }
            }
        }
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.next().await.unwrap()).unwrap()
    }

    /// The next Server-Sent Event: id, name, data.
    async fn event(&mut self) -> (String, String, Value) {
        let mut lines = Vec::new();
        loop {
            let line = self.next().await.unwrap();
            match line.as_str() {
                "" if lines.is_empty() => {}
                "" => break,
                comment if comment.starts_with(':') => {}
                _ => lines.push(line),
            }
        }
        let [id, event, data] = &lines[..] else { panic!("{lines:?}") };
        let value = |line: &str, name: &str| line.strip_prefix(name).unwrap().to_owned();
        let data = serde_json::from_str(&value(data, "data: ")).unwrap();
        (value(id, "id: "), value(event, "event: "), data)
    }
}

const NDJSON: &str = "application/x-ndjson";
const SSE: &str = "text/event-stream";

/// A service with some history, at rest: two workers that said something and were ended.
async fn with_history() -> (Service, [String; 2]) {
    let service = Service::start().await;
    let workers = [service.spawn("echo").await, service.spawn("lines").await];
    for worker in &workers {
        service.input(worker, "hello").await;
        service.rests(worker, 2).await;
        service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    }
    rests(&service).await;
    (service, workers)
}

/// Waits until the children of stopped workers have had their last word: nothing announces
/// that none will come any more.
async fn rests(service: &Client) {
    let last = Cell::new((0, Instant::now()));
    eventually("the log comes to rest", || async {
        let head = service.head().await;
        if head != last.get().0 {
            last.set((head, Instant::now()));
        }
        (last.get().1.elapsed() > QUIET).then_some(())
    })
    .await;
}

fn sequences(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_page_of_the_log_has_events_head_and_cursor() {
    let (service, workers) = with_history().await;
    let page = service.get("/v1/events").await.ok();
    assert_eq!(keys(&page), ["cursor", "events", "head"]);
    let events = page["events"].as_array().unwrap();
    let head = page["head"].as_u64().unwrap();
    assert_eq!(sequences(events), (1..=head).collect::<Vec<_>>(), "gapless, from 1");
    let ids: BTreeSet<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len());
    let input = events.iter().find(|event| event["type"] == "worker_input_accepted").unwrap();
    assert_eq!(
        keys(input),
        [
            "actor",
            "content",
            "content_type",
            "data",
            "id",
            "runtime",
            "seq",
            "time",
            "type",
            "v",
            "version",
            "worker"
        ]
    );
    assert_eq!(
        (&input["content"], &input["content_type"]),
        (&json!("hello"), &json!("text/plain"))
    );
    assert_eq!((&input["actor"], &input["worker"]), (&json!("operator"), &json!(workers[0])));
    assert_eq!(input["runtime"], "embedded-worker-runtime");
    for worker in &workers {
        let own = events.iter().filter(|event| event["worker"] == **worker);
        let versions: Vec<_> = own.map(|event| event["version"].as_u64().unwrap()).collect();
        assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>(), "gapless, from 1");
    }
    let cursor = page["cursor"].as_str().unwrap();
    let next = service.get(&format!("/v1/events?cursor={cursor}")).await.ok();
    assert_eq!((&next["events"], &next["cursor"]), (&json!([]), &json!(cursor)));
}

#[tokio::test]
async fn a_command_stands_in_its_record() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = service.request(Method::POST, &format!("/v1/workers/{worker}/input"));
    let request = request.header("idempotency-key", "key-1").header("traceparent", trace);
    service.send(request.json(&json!({"kind": "user", "content": "x"}))).await.ok();
    let event = &service.events("type=worker_input_accepted").await[0];
    assert_eq!(keys(&event["command"]), ["fingerprint", "key"]);
    assert_eq!((&event["command"]["key"], &event["trace"]), (&json!("key-1"), &json!(trace)));
}

#[tokio::test]
async fn pages_of_any_size_add_up_to_the_whole_log() {
    let (service, _) = with_history().await;
    let whole = service.events("").await;
    for limit in [1, 2, 7, 1000] {
        let (mut cursor, mut events) = (String::new(), Vec::new());
        loop {
            let from =
                if cursor.is_empty() { "after=0".into() } else { format!("cursor={cursor}") };
            let page = service.get(&format!("/v1/events?limit={limit}&{from}")).await.ok();
            let page_events = page["events"].as_array().unwrap();
            assert!(page_events.len() <= limit);
            if page_events.is_empty() {
                break;
            }
            events.extend_from_slice(page_events);
            cursor = page["cursor"].as_str().unwrap().to_owned();
        }
        assert_eq!(events, whole, "pages of {limit}");
    }
    service.get("/v1/events?limit=1001").await.refused(400, "limit_too_large");
}

#[tokio::test]
async fn the_log_is_filtered_by_type_runtime_and_worker() {
    let (service, [first, second]) = with_history().await;
    let whole = service.events("").await;
    let wanted = |want: &dyn Fn(&Value) -> bool| -> Vec<Value> {
        whole.iter().filter(|event| want(event)).cloned().collect()
    };
    let runtime = "embedded-worker-runtime";
    let rows: [(String, Vec<Value>); 6] = [
        ("type=worker_created".into(), wanted(&|event| event["type"] == "worker_created")),
        (
            "type=worker_created,worker_stopped".into(),
            wanted(&|event| event["type"] == "worker_created" || event["type"] == "worker_stopped"),
        ),
        (format!("worker={first}"), wanted(&|event| event["worker"] == *first)),
        (format!("runtime={runtime}"), wanted(&|event| event["runtime"] == runtime)),
        ("runtime=other".into(), Vec::new()),
        (
            format!("runtime={runtime}&worker={second}&type=worker_output"),
            wanted(&|event| event["worker"] == *second && event["type"] == "worker_output"),
        ),
    ];
    let head = service.head().await;
    for (query, expected) in &rows {
        assert_eq!(expected.is_empty(), query == "runtime=other", "{query}");
        assert_eq!(service.events(query).await, *expected, "{query}");
        let path = format!("/v1/events?{query}&follow=0");
        let mut lines = Lines::open(&service, &path, NDJSON, None).await;
        let mut streamed = Vec::new();
        while let Some(line) = lines.next().await {
            streamed.push(serde_json::from_str::<Value>(&line).unwrap());
        }
        assert_eq!(streamed, *expected, "{query}");
        let path = format!("/v1/events/ws?after=0&progress=1&{query}");
        let mut socket = service.watch(&path).await;
        let mut frames = socket.until(|frame| frame["kind"] == "caught_up").await;
        let caught_up = frames.pop().unwrap();
        let records: Vec<Value> = frames.iter().map(|frame| frame["record"].clone()).collect();
        assert_eq!(records, *expected, "{query}");
        assert_eq!(caught_up["head"], head, "{query}");
    }
    service.get("/v1/events?worker=missing").await.refused(404, "worker_not_found");
    service.get("/v1/events?worker=%20").await.refused(400, "invalid_identifier");
}

#[tokio::test]
async fn a_filtered_page_makes_progress_past_what_it_leaves_out() {
    let (service, _) = with_history().await;
    let page = service.get("/v1/events?type=runtime_stopped").await.ok();
    assert_eq!(page["events"], json!([]));
    let end = service.get("/v1/events").await.ok()["cursor"].clone();
    assert_eq!(page["cursor"], end);
}

#[tokio::test]
async fn lines_stream_the_log_from_the_beginning_and_then_live() {
    let (service, _) = with_history().await;
    let whole = service.events("").await;
    let mut lines = Lines::open(&service, "/v1/events?progress=1", NDJSON, None).await;
    for expected in &whole {
        assert_eq!(lines.json().await, *expected);
    }
    let caught_up = lines.json().await;
    assert_eq!(keys(&caught_up), ["cursor", "head", "kind"]);
    assert_eq!(
        (&caught_up["kind"], &caught_up["head"]),
        (&json!("caught_up"), &json!(whole.len()))
    );
    let worker = service.spawn("refuses").await;
    let live = lines.json().await;
    assert_eq!((&live["type"], &live["worker"]), (&json!("worker_created"), &json!(worker)));
    assert_eq!(live["seq"], whole.len() + 1);

    let mut some = Lines::open(&service, "/v1/events?after=2&limit=3", NDJSON, None).await;
    for expected in &whole[2..5] {
        assert_eq!(some.json().await, *expected);
    }
    assert_eq!(some.next().await, None);
}

#[tokio::test]
async fn server_sent_events_resume_by_last_event_id() {
    let (service, _) = with_history().await;
    let whole = service.events("").await;
    let mut events = Lines::open(&service, "/v1/events?after=0", SSE, None).await;
    let mut ids = Vec::new();
    for expected in &whole {
        let (id, name, data) = events.event().await;
        assert_eq!((json!(name), &data), (expected["type"].clone(), expected));
        ids.push(id);
    }
    for (n, id) in ids.iter().enumerate().step_by(5) {
        // As a browser does: the same address, with the id of the last event.
        let mut resumed = Lines::open(&service, "/v1/events?after=0", SSE, Some(id)).await;
        for expected in &whole[n + 1..] {
            assert_eq!(resumed.event().await.2, *expected);
        }
        let page = service.get(&format!("/v1/events?cursor={id}&limit=1")).await.ok();
        assert_eq!(
            page["events"][0],
            *whole.get(n + 1).unwrap_or(&Value::Null),
            "an id is a cursor"
        );
    }
    let mut live = Lines::open(&service, "/v1/events?progress=1", SSE, None).await;
    let (id, name, _) = live.event().await;
    assert_eq!((name.as_str(), &id), ("caught_up", ids.last().unwrap()), "it begins now");
    let worker = service.spawn("refuses").await;
    assert_eq!(live.event().await.2["worker"], worker);
    assert_eq!(events.event().await.2["worker"], worker);
}

#[tokio::test]
async fn the_whole_log_is_followed_over_websocket() {
    let (service, _) = with_history().await;
    let whole = service.events("").await;
    let mut socket = service.watch("/v1/events/ws?after=0&progress=1").await;
    let mut cursors = Vec::new();
    for expected in &whole {
        let frame = socket.frame().await;
        assert_eq!(keys(&frame), ["cursor", "kind", "record"]);
        assert_eq!((&frame["kind"], &frame["record"]), (&json!("event"), expected));
        cursors.push(frame["cursor"].as_str().unwrap().to_owned());
    }
    let caught_up = socket.frame().await;
    assert_eq!(keys(&caught_up), ["cursor", "head", "kind"]);
    assert_eq!(caught_up["kind"], "caught_up");
    assert_eq!(
        (&caught_up["cursor"], &caught_up["head"]),
        (&json!(cursors.last()), &json!(whole.len()))
    );
    for (n, cursor) in cursors.iter().enumerate().step_by(4) {
        let mut resumed = service.watch(&format!("/v1/events/ws?cursor={cursor}")).await;
        for expected in &whole[n + 1..] {
            assert_eq!(resumed.frame().await["record"], *expected);
        }
    }
    let mut now = service.watch("/v1/events/ws?progress=1").await;
    assert_eq!(now.frame().await["kind"], "caught_up", "it begins now");
    let worker = service.spawn("refuses").await;
    for socket in [&mut socket, &mut now] {
        assert_eq!(socket.frame().await["record"]["worker"], worker);
    }
}

#[tokio::test]
async fn named_cursors_are_kept_per_token_and_survive_a_restart() {
    let (mut service, _) = with_history().await;
    let token = service.issue(&json!({"role": "observer"})).await["token"].clone();
    let page = service.get("/v1/events?limit=3").await.ok();
    let later = service.get("/v1/events?limit=5").await.ok();
    let commit = |page: &Value| json!({"cursor": page["cursor"]});
    service.get("/v1/cursors/mine").await.refused(404, "unknown_cursor");
    let answer = service.put("/v1/cursors/mine", &commit(&page)).await.ok();
    assert_eq!(keys(&answer), ["cursor"]);
    let own = &answer["cursor"];
    assert_eq!(keys(own), ["committed_at", "cursor", "event_id", "name", "position"]);
    assert_eq!(
        (&own["name"], &own["position"], &own["cursor"]),
        (&json!("mine"), &json!(3), &page["cursor"])
    );
    let observer = |service: &Service| service.with_token(token.as_str().unwrap());
    observer(&service).get("/v1/cursors/mine").await.refused(404, "unknown_cursor");
    observer(&service).put("/v1/cursors/mine", &commit(&later)).await.ok();
    for restart in [false, true] {
        if restart {
            service.kill9().await;
            service.restart().await;
        }
        assert_eq!(service.get("/v1/cursors/mine").await.ok(), answer);
        assert_eq!(service.get("/v1/cursors").await.ok(), json!({"cursors": [answer["cursor"]]}));
        let other = observer(&service).get("/v1/cursors/mine").await.ok();
        assert_eq!(other["cursor"]["position"], 5);
    }
    // Going back is allowed: a consumer may begin again.
    service.put("/v1/cursors/mine", &commit(&later)).await.ok();
    let back = service.put("/v1/cursors/mine", &commit(&page)).await.ok();
    assert_eq!(back["cursor"]["position"], 3);
    for name in ["a%20b", "%00", &"x".repeat(121)] {
        let answer = service.put(&format!("/v1/cursors/{name}"), &commit(&page)).await;
        answer.refused(400, "invalid_identifier");
    }
}

#[tokio::test]
async fn records_about_watching_are_left_out_unless_asked_for() {
    let (service, _) = with_history().await;
    let before = service.events("").await;
    let cursor = service.get("/v1/events?limit=3").await.ok()["cursor"].clone();
    service.put("/v1/cursors/mine", &json!({"cursor": cursor})).await.ok();
    assert_eq!(service.head().await, before.len() as u64 + 1);
    assert_eq!(service.events("").await, before);
    for query in ["watching=1", "type=cursor_committed"] {
        let events = service.events(query).await;
        assert_eq!(events.last().unwrap()["type"], "cursor_committed", "{query}");
    }
}

#[tokio::test]
async fn a_follower_of_the_whole_log_that_commits_its_cursor_comes_to_rest() {
    let (service, _) = with_history().await;
    for stream in ["/v1/events/ws?after=0", "/v1/events/ws?after=0&watching=1"] {
        let mut socket = service.watch(&format!("{stream}&progress=1")).await;
        let commit = |cursor: Value| {
            let service = &service;
            async move { service.put("/v1/cursors/follower", &json!({"cursor": cursor})).await.ok() }
        };
        // It commits after every frame, whatever kind it is of, until none comes any more.
        let mut frames = 0;
        while let Ok(next) = tokio::time::timeout(QUIET * 2, socket.next()).await {
            let Incoming::Frame(frame) = next else { panic!("{next:?}") };
            commit(frame["cursor"].clone()).await;
            frames += 1;
            assert!(frames < 500, "it feeds itself");
        }
        let head = service.head().await;
        let end = service.get("/v1/events?watching=1").await.ok()["cursor"].clone();
        commit(end.clone()).await;
        commit(end).await;
        assert_eq!(service.head().await, head, "nothing is stepped over but records of watching");
    }
}
