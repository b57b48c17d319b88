//! How a connection ends.

use super::{
    backend::{BackendError, ProgressSender, Request, Response},
    *,
};
use crate::trust::Trust;
use axum::{
    Json, Router,
    routing::{get, post},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::{net::TcpListener, sync::Notify};
use wire::Token;

/// Is at work until it is closed, and counts how often that happens.
#[derive(Default)]
struct Busy {
    begun: Notify,
    closed: CancellationToken,
    closings: AtomicU32,
}

impl Backend for Busy {
    fn handle<'a>(
        &'a self,
        _: &'a Request,
        _: ProgressSender,
    ) -> BoxFuture<'a, Result<Response, BackendError>> {
        self.begun.notify_one();
        self.closed.cancelled().map(|()| Err(BackendError::Closed)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closings.fetch_add(1, Ordering::SeqCst);
        self.closed.cancel();
        std::future::ready(()).boxed()
    }
}

/// A platform that has one message.
async fn platform() -> Url {
    let row = json!({"id": "act-1", "workspace_id": "w", "activity_type": "a2a_receive",
        "source_id": "asker", "request_body": {"jsonrpc": "2.0", "method": "message/send",
            "params": {"message": {"messageId": "m", "parts": [{"type": "text", "text": "x"}]}}}});
    let rows = move || async move { Json(json!([row])) };
    let fine = || async { Json(json!({"status": "ok"})) };
    let app = Router::new()
        .route("/registry/{what}", post(fine))
        .route("/workspaces/w/activity", get(rows).post(fine));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn options(state_dir: &std::path::Path) -> Options {
    Options {
        worker_id: "w".into(),
        backend: "busy".into(),
        mode: Mode::Poll,
        interval: Duration::from_millis(10),
        since_secs: None,
        state_dir: state_dir.into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        public_url: None,
    }
}

#[tokio::test]
async fn a_backend_is_closed_once_also_where_its_work_had_to_be_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, stopping) = (Arc::new(Busy::default()), Stopping::default());
    let token = Token::parse("token").unwrap();
    let wire = Wire::new(platform().await, "w", token, &Trust::new(None).unwrap()).unwrap();
    let options = options(directory.path());
    let (given, asked) = (Arc::clone(&backend), stopping.clone());
    let running = tokio::spawn(async move { run(&options, &wire, &*given, &asked).await });
    backend.begun.notified().await;
    stopping.soft.cancel();
    stopping.hard.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(backend.closings.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_backend_is_closed_once_where_nothing_could_begin() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("w.json"), "no state").unwrap();
    let backend = Busy::default();
    let token = Token::parse("token").unwrap();
    let nowhere = "http://127.0.0.1:1".parse().unwrap();
    let wire = Wire::new(nowhere, "w", token, &Trust::new(None).unwrap()).unwrap();
    let refused = run(&options(directory.path()), &wire, &backend, &Stopping::default()).await;
    assert!(matches!(refused, Err(ConnectError::State(_))), "{refused:?}");
    assert_eq!(backend.closings.load(Ordering::SeqCst), 1);
}
