//! Observing one worker, as the contract of the runtime API has it.

use super::{
    App,
    access::Caller,
    error::Reply,
    frames, query,
    session::{Session, View},
    snapshot,
    socket::{CloseCode, Sender, split},
};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
    feed::{CursorProblem, Follower, cursor_at, epoch_change, resolve, retained},
};
use acta_events::{Sequence, WorkerRef, cursor::Cursor};
use acta_projections::WorkerState;
use axum::{
    extract::{State, ws::WebSocket, ws::WebSocketUpgrade},
    http::Uri,
    response::Response,
};
use serde::Deserialize;
use std::sync::Arc;

/// The largest message that is read from an observer, who should send none.
const INBOUND_BYTES_MAX: usize = 64 * 1024;

/// How much of a socket is read at once. Observers hardly send anything.
const READ_BUFFER_BYTES: usize = 4 * 1024;

#[derive(Deserialize)]
struct WatchQuery {
    cursor: Option<String>,
    after: Option<Sequence>,
    #[serde(default)]
    progress: String,
}

/// Turns a request into a WebSocket that is frugal with memory.
pub(super) fn frugal(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(16 * 1024)
        .max_message_size(INBOUND_BYTES_MAX)
        .max_frame_size(INBOUND_BYTES_MAX)
}

/// Whether a flag in a query string is set.
pub(super) fn is_set(flag: &str) -> bool {
    matches!(flag, "1" | "true" | "yes")
}

pub(super) async fn open(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Reply<Response> {
    caller.may(Permission::ReadWorkers)?;
    let worker = query::own_worker(&app, &id)?;
    open_worker(caller, app, worker, &uri, upgrade)
}

/// The same for a worker of any runtime in this log.
pub(super) fn open_worker(
    caller: Caller,
    app: App,
    worker: WorkerRef,
    uri: &Uri,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Reply<Response> {
    let query: WatchQuery = query::query(uri)?;
    let state = app.log.views().worker(&worker.runtime_id, &worker.worker_id).ok_or_else(|| {
        let message =
            format!("there is no worker `{}`; `acta ls workers` lists them", worker.worker_id);
        Rejection::new(Code::WorkerNotFound, message)
    })?;
    let upgrade = upgrade.map_err(|error| {
        let message = format!("this route speaks WebSocket only: {error}");
        Rejection::invalid(message)
    })?;
    Ok(frugal(upgrade).on_upgrade(move |socket| watch(app, caller, state, query, socket)))
}

async fn watch(
    app: App,
    caller: Caller,
    state: Arc<WorkerState>,
    query: WatchQuery,
    socket: WebSocket,
) {
    let (mut sender, stream) = split(socket, app.limits.observer_idle);
    let (after, shown) = match begin(&app, &query).await {
        Ok(begin) => begin,
        Err(problem) => return refuse(sender, &problem).await,
    };
    let progress = is_set(&query.progress);
    let first = first_frames(&app, &state, after, &shown).await;
    let sent = match first {
        Ok(frame) => sender.send(frame).await,
        Err(fault) => {
            tracing::error!(error = %fault, "a snapshot cannot be read");
            let frame = frames::diagnostic("runtime.unavailable", &fault.to_string());
            let _ = sender.send(frame).await;
            return sender.close(CloseCode::Failed, "the snapshot cannot be read").await;
        }
    };
    if sent.is_err() {
        return;
    }
    let change = query.cursor.as_deref().and_then(|cursor| epoch_change(&app.log, cursor));
    if let Some(change) = change
        && sender.send(frames::epoch_changed(&change)).await.is_err()
    {
        return;
    }
    let epoch = app.log.views().read().lineage.current();
    let filter = frames::of_worker(&state);
    let log = Arc::clone(&app.log);
    let follower = Follower::new(log, filter, Some(state.ordinal), after);
    let view = View::Worker(state.ordinal);
    Session { app, caller, follower, sender, stream, view, progress, epoch }.run().await;
}

/// The position to start from, and the cursor that the snapshot carries.
async fn begin(app: &App, query: &WatchQuery) -> Result<(Sequence, String), CursorProblem> {
    if let Some(text) = query.cursor.as_deref() {
        let resume = resolve(&app.log, text).await?;
        return Ok((resume.after, text.to_owned()));
    }
    let head = app.log.head();
    let seq = match query.after {
        None => head,
        Some(seq) if seq > head => return Err(CursorProblem::Ahead { seq, head }),
        Some(seq) => seq,
    };
    retained(&app.log, seq).await?;
    let unreadable = |error: crate::log::ReadFault| CursorProblem::Unreadable(error.to_string());
    let cursor = cursor_at(&app.log, seq).await.map_err(unreadable)?;
    let epoch = app.log.views().read().lineage.current();
    let cursor = cursor.unwrap_or_else(|| Cursor::beginning(app.log.id(), epoch));
    Ok((seq, cursor.to_string()))
}

async fn first_frames(
    app: &App,
    state: &WorkerState,
    after: Sequence,
    cursor: &str,
) -> Result<axum::extract::ws::Utf8Bytes, crate::log::ReadFault> {
    let data = snapshot::snapshot(app, state, after).await?;
    let payload = serde_json::json!({"event": "snapshot", "data": data});
    let event_id = format!("snapshot:{cursor}");
    Ok(frames::event(cursor, &event_id, state.worker.as_str(), &payload))
}

/// The only frame for a cursor that cannot be resumed, and the end.
pub(super) async fn refuse(mut sender: Sender, problem: &CursorProblem) {
    let code = match problem {
        CursorProblem::Malformed => "runtime.cursor_malformed",
        CursorProblem::Foreign => "runtime.cursor_foreign",
        CursorProblem::Ahead { .. } => "runtime.cursor_ahead",
        CursorProblem::Diverged { .. } => "runtime.cursor_diverged",
        CursorProblem::Expired { .. } => "runtime.cursor_expired",
        CursorProblem::Unreadable(_) => "runtime.unavailable",
    };
    let message = problem.to_string();
    let _ = sender.send(frames::diagnostic(code, &message)).await;
    let close = match problem {
        CursorProblem::Malformed | CursorProblem::Foreign => CloseCode::BadRequest,
        CursorProblem::Ahead { .. }
        | CursorProblem::Diverged { .. }
        | CursorProblem::Expired { .. } => CloseCode::Conflict,
        CursorProblem::Unreadable(_) => CloseCode::Failed,
    };
    sender.close(close, &message).await;
}
