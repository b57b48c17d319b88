//! Observing workers by way of the registry, whoever runs them.

use super::{
    App,
    access::Caller,
    error::Reply,
    past, query,
    registry_operations::{address, known},
    registry_remote,
    registry_source::{Source, diagnostic},
    socket::{CloseCode, Sender, split},
    worker_ws,
};
use crate::{auth::Permission, error::Rejection, remote::Frames};
use acta_events::{RuntimeId, WorkerRef};
use axum::{
    Json,
    extract::{State, ws::WebSocket, ws::WebSocketUpgrade},
    http::Uri,
    response::Response,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode as RemoteCode};

/// How a worker can be reached for more than one question.
pub(super) async fn connect_points(
    caller: Caller,
    State(app): State<App>,
    path: query::Segments,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    past::refuse(&uri, "how a worker can be reached")?;
    let (worker, source) = address(&app, &path)?;
    known(&app, &worker, &source).await?;
    let point = match source {
        Source::LocalPods => json!({
            "kind": "stream_proxy",
            "status": "unsupported",
            "diagnostics": [diagnostic(
                "worker_proxy_pending",
                "info",
                "workers of this runtime are only listed here; they cannot be followed",
            )],
        }),
        _ => json!({
            "kind": "stream_proxy",
            "status": "available",
            "route": format!(
                "/v1/runtimes/{}/workers/{}/events/ws",
                worker.runtime_id, worker.worker_id
            ),
            "diagnostics": [],
        }),
    };
    Ok(Json(json!({"items": [point], "diagnostics": []})))
}

pub(super) async fn open(
    caller: Caller,
    State(app): State<App>,
    path: query::Segments,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Reply<Response> {
    caller.may(Permission::ReadWorkers)?;
    let (worker, source) = address(&app, &path)?;
    match source {
        Source::Embedded | Source::External => {
            worker_ws::open_worker(caller, app, worker, &uri, upgrade)
        }
        Source::LocalPods => {
            known(&app, &worker, &source).await?;
            Err(Rejection::invalid(
                "workers of this runtime are only listed here; they cannot be followed \
                 (worker_proxy_pending)",
            ))
        }
        Source::Remote(address) => {
            let upgrade = upgrade.map_err(|error| {
                Rejection::invalid(format!("this route speaks WebSocket only: {error}"))
            })?;
            let opened = app.remotes.watch(&address, worker.worker_id.as_str(), uri.query()).await;
            let frames = opened
                .map_err(|error| registry_remote::unwatchable(&app, &worker, &address, &error))?;
            let there =
                app.remotes.seen(&worker.runtime_id, &address).and_then(|seen| seen.runtime);
            let alias = Alias { worker, there };
            let upgrade = worker_ws::frugal(upgrade);
            Ok(upgrade.on_upgrade(move |socket| pass_on(app, caller, alias, frames, socket)))
        }
    }
}

/// The name of a runtime here and there.
struct Alias {
    worker: WorkerRef,
    there: Option<RuntimeId>,
}

impl Alias {
    /// A frame with the alias in place of the runtime's own id. Only a snapshot bears one.
    fn rewrite(&self, frame: &str) -> Option<String> {
        let there = self.there.as_ref()?;
        if !frame.contains("\"snapshot\"") || !frame.contains(there.as_str()) {
            return None;
        }
        let mut frame: Value = serde_json::from_str(frame).ok()?;
        let payload = frame.pointer_mut("/envelope/payload")?;
        if payload["event"] != "snapshot" {
            return None;
        }
        for entry in payload.pointer_mut("/data/entries")?.as_array_mut()? {
            if let Some(runtime) = entry.pointer_mut("/worker_ref/runtime_id") {
                *runtime = json!(self.worker.runtime_id);
            }
        }
        serde_json::to_string(&frame).ok()
    }
}

/// Frame by frame, each sent before the next one is read: a slow observer slows the other service,
/// which ends it as it ends its own.
async fn pass_on(app: App, caller: Caller, alias: Alias, mut frames: Frames, socket: WebSocket) {
    let (mut sender, mut observer) = split(socket, app.limits.observer_idle);
    let shutdown = app.shutdown.clone();
    let mut look = tokio::time::interval(app.limits.heartbeat);
    loop {
        tokio::select! {
            () = shutdown.begun() => {
                drop(frames.close(None).await);
                return sender.close(CloseCode::GoingAway, "the service ends").await;
            }
            _ = look.tick() => {
                if !caller.is_valid(&app) {
                    drop(frames.close(None).await);
                    return sender.close(CloseCode::Unauthorized, "the token was revoked").await;
                }
                if sender.ping().await.is_err() {
                    return;
                }
            }
            said = observer.next() => match said {
                // Whoever watches says nothing; the other service tells them so.
                Some(Ok(axum::extract::ws::Message::Text(_) | axum::extract::ws::Message::Binary(_))) => {
                    drop(frames.send(Message::text("")).await);
                }
                Some(Ok(axum::extract::ws::Message::Ping(_) | axum::extract::ws::Message::Pong(_))) => {}
                Some(Ok(axum::extract::ws::Message::Close(_)) | Err(_)) | None => {
                    drop(frames.close(None).await);
                    return;
                }
            },
            frame = frames.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    let text = alias.rewrite(&text).unwrap_or_else(|| text.as_str().to_owned());
                    if sender.send(text.into()).await.is_err() {
                        drop(frames.close(None).await);
                        return;
                    }
                }
                Some(Ok(Message::Close(close))) => return end(sender, close.map(|close| (close.code, close.reason.to_string()))).await,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return end(sender, None).await,
            },
        }
    }
}

async fn end(sender: Sender, close: Option<(RemoteCode, String)>) {
    let (code, reason) = match close {
        Some((code, reason)) => (CloseCode::of(code.into()), reason),
        None => (CloseCode::GoingAway, "the other service is gone; resume with your cursor".into()),
    };
    sender.close(code, &reason).await;
}
