//! What becomes of a cursor that does not fit.

use crate::{
    observe_worker::{cursor, path, payload},
    support::{Service, Socket},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// A cursor with its bytes changed: version 0, log id 1 to 16, epoch 17 to 20, sequence 21 to
/// 28, digest 29 to 36.
fn changed(cursor: &str, change: impl FnOnce(&mut [u8])) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap();
    assert_eq!(bytes.len(), 37);
    change(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

struct Watched {
    service: Service,
    worker: String,
    good: String,
}

async fn watched() -> Watched {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "x").await;
    service.rests(&worker, 2).await;
    let mut socket = service.watch(&format!("{}?after=0", path(&worker))).await;
    let frames = socket.until(|frame| payload(frame) == "text_done").await;
    let good = cursor(frames.last().unwrap()).to_owned();
    Watched { service, worker, good }
}

impl Watched {
    /// The only frame over WebSocket, of a worker and of the whole log; and the answer to a page.
    async fn refuses(&self, bad: &str, name: &str, close: u16, status: u16) {
        for path in [path(&self.worker), "/v1/events/ws".into()] {
            let mut socket: Socket = self.service.watch(&format!("{path}?cursor={bad}")).await;
            let expected = (format!("runtime.{name}"), close);
            assert_eq!(socket.refusal().await, expected, "{bad}");
        }
        let page = self.service.get(&format!("/v1/events?cursor={bad}")).await;
        page.refused(status, name);
        let stream = self.service.request(reqwest::Method::GET, "/v1/events");
        let stream = stream.header("accept", "text/event-stream").header("last-event-id", bad);
        self.service.send(stream).await.refused(status, name);
        let commit = serde_json::json!({"cursor": bad});
        self.service.put("/v1/cursors/mine", &commit).await.refused(status, name);
    }
}

#[tokio::test]
async fn a_malformed_cursor_is_the_only_frame() {
    let watched = watched().await;
    let good = &watched.good;
    let version = changed(good, |bytes| bytes[0] = 2);
    let epoch_zero = changed(good, |bytes| bytes[17..21].fill(0));
    let digest_of_nothing = changed(good, |bytes| bytes[21..29].fill(0));
    for bad in
        ["bad", "0", &good[..49], &format!("{good}A"), &version, &epoch_zero, &digest_of_nothing]
    {
        watched.refuses(bad, "cursor_malformed", 4400, 400).await;
    }
    let mut socket = watched.service.watch(&format!("{}?cursor=", path(&watched.worker))).await;
    assert_eq!(socket.refusal().await.0, "runtime.cursor_malformed");
}

#[tokio::test]
async fn a_cursor_of_another_log_is_foreign() {
    let (watched, other) = (watched().await, watched().await);
    watched.refuses(&other.good, "cursor_foreign", 4400, 400).await;
    let bad = changed(&watched.good, |bytes| bytes[5] ^= 1);
    watched.refuses(&bad, "cursor_foreign", 4400, 400).await;
}

#[tokio::test]
async fn a_cursor_ahead_of_the_head_is_told_and_never_reset() {
    let watched = watched().await;
    let next = watched.service.head().await + 1;
    for seq in [next, next + 1000, u64::MAX] {
        let bad = changed(&watched.good, |bytes| bytes[21..29].copy_from_slice(&seq.to_be_bytes()));
        watched.refuses(&bad, "cursor_ahead", 4409, 409).await;
        let after = format!("{}?after={seq}", path(&watched.worker));
        let mut socket = watched.service.watch(&after).await;
        assert_eq!(socket.refusal().await, ("runtime.cursor_ahead".to_owned(), 4409));
        let page = watched.service.get(&format!("/v1/events?after={seq}")).await;
        page.refused(409, "cursor_ahead");
    }
}

#[tokio::test]
async fn a_cursor_of_another_history_has_diverged() {
    let watched = watched().await;
    for at in 29..37 {
        let bad = changed(&watched.good, |bytes| bytes[at] ^= 1);
        watched.refuses(&bad, "cursor_diverged", 4409, 409).await;
    }
    let earlier = changed(&watched.good, |bytes| bytes[28] -= 1);
    watched.refuses(&earlier, "cursor_diverged", 4409, 409).await;
    let epoch = changed(&watched.good, |bytes| bytes[20] = 9);
    watched.refuses(&epoch, "cursor_diverged", 4409, 409).await;
}

#[tokio::test]
async fn a_cursor_never_expires_because_other_workers_were_busy() {
    let watched = watched().await;
    let service = &watched.service;
    let other = service.spawn("echo").await;
    let inputs = (0..300).map(|n| {
        let (service, other) = (service, &other);
        async move { service.input(other, &format!("busy {n}")).await }
    });
    futures_util::future::join_all(inputs).await;
    service.input(&watched.worker, "more").await;
    let resumed = format!("{}?cursor={}", path(&watched.worker), watched.good);
    let mut socket = service.watch(&resumed).await;
    assert_eq!(payload(&socket.frame().await), "snapshot");
    let frames = socket.until(|frame| payload(frame) == "text_done").await;
    let seen: Vec<_> = frames.iter().map(payload).collect();
    assert_eq!(seen, ["turn_end", "user_message", "turn_start", "text_delta", "text_done"]);
}

#[tokio::test]
async fn a_cursor_of_another_workers_event_is_a_position_like_any_other() {
    let watched = watched().await;
    let service = &watched.service;
    let second = service.spawn("refuses").await;
    let ack = service.input(&second, "y").await;
    let before = ack["event_id"].as_u64().unwrap() - 1;
    let page = service.get(&format!("/v1/events?after={before}&limit=1")).await.ok();
    let cursor_of_other = page["cursor"].as_str().unwrap().to_owned();
    service.input(&watched.worker, "more").await;
    let resumed = format!("{}?cursor={cursor_of_other}", path(&watched.worker));
    let mut socket = service.watch(&resumed).await;
    let snapshot = socket.frame().await;
    assert_eq!(cursor(&snapshot), cursor_of_other);
    assert_eq!(payload(&socket.frame().await), "user_message");
}
