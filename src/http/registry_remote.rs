//! Operations on workers of other services. Each is one question there; what may have happened
//! without an answer is said to be unknown, never guessed.

use super::{
    App,
    access::Caller,
    dispatch::refuse_if_paused,
    error::Reply,
    query::Around,
    registry_source::{WorkerSummary, diagnostic},
    registry_spawn::{not_spawned, spawned},
    workers,
};
use crate::{
    error::{Code, Rejection},
    remote::{
        AckAnswer, Asked, RemoteError, RemoteTranscript, TranscriptAnswer, WorkerAnswer,
        WorkersAnswer,
    },
};
use acta_events::{Actor, InputKind, RemoteAddress, RuntimeId, WorkerId, WorkerRef, sha256};
use acta_projections::WorkerStatus;
use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

/// The key of a command there. Callers here share one token there, so that their keys have to be
/// kept apart; a caller without one is given one, so that a broken connection does no harm.
fn key(actor: &Actor, around: &Around) -> String {
    match around.idempotency_key() {
        Some(key) => {
            let parts: [&[u8]; 3] = [actor.as_str().as_bytes(), &[0], key.as_str().as_bytes()];
            format!("by-{}", sha256(&parts))
        }
        None => uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
    }
}

/// What an error of another service is here: the worker is unknown, the outcome is, or else a
/// diagnostic.
fn problem(
    app: &App,
    worker: &WorkerRef,
    address: &RemoteAddress,
    error: &RemoteError,
) -> Reply<Value> {
    let runtime = &worker.runtime_id;
    app.remotes.found(runtime, address, error);
    match error {
        RemoteError::Refused { code, .. } if code == "worker_not_found" => {
            let message = format!("runtime `{runtime}` has no worker `{}`", worker.worker_id);
            Err(Rejection::new(Code::UnknownWorker, message))
        }
        RemoteError::Refused { code, message, .. } => {
            Ok(diagnostic(code, "error", message.clone()))
        }
        _ => Ok(told(runtime, error)),
    }
}

fn told(runtime: &RuntimeId, error: &RemoteError) -> Value {
    diagnostic(error.code(), "error", format!("runtime `{runtime}`: {error}"))
}

fn unknown_outcome(runtime: &RuntimeId, error: &RemoteError) -> Option<Rejection> {
    let maybe = match error {
        RemoteError::NoAnswer | RemoteError::NotUnderstood(_) => true,
        RemoteError::Refused { status, .. } => *status >= 500,
        _ => false,
    };
    let message = format!(
        "runtime `{runtime}`: {error}; it is not known whether the command was taken: repeated \
         with the same Idempotency-Key it happens once"
    );
    maybe.then(|| Rejection::new(Code::OutcomeUnknown, message))
}

/// A page of the workers of another service. One that is not there has none to show, and says so.
pub(super) async fn list(
    app: &App,
    runtime: &RuntimeId,
    address: &RemoteAddress,
    limit: usize,
    after: Option<&WorkerId>,
) -> Value {
    let asked = Asked::get(&["workers"]).query("limit", Some(limit)).query("after", after);
    match app.remotes.ask::<WorkersAnswer>(address, asked).await {
        Ok(answer) => {
            // A service that does not know pages answers with all of them.
            let mut found = answer.body.workers;
            found.retain(|worker| after.is_none_or(|after| worker.worker_id > *after));
            found.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
            found.truncate(limit);
            let items: Vec<_> =
                found.into_iter().map(|worker| WorkerSummary::of_remote(worker, runtime)).collect();
            json!({"items": items, "diagnostics": []})
        }
        Err(error) => {
            app.remotes.found(runtime, address, &error);
            json!({"items": [], "diagnostics": [told(runtime, &error)]})
        }
    }
}

/// One worker of another service.
pub(super) async fn show(app: &App, worker: &WorkerRef, address: &RemoteAddress) -> Reply<Value> {
    let path = ["workers", worker.worker_id.as_str()];
    match app.remotes.ask::<WorkerAnswer>(address, Asked::get(&path)).await {
        Ok(answer) => {
            let worker = WorkerSummary::of_remote(answer.body.worker, &worker.runtime_id);
            Ok(json!({ "worker": worker }))
        }
        Err(error) => {
            let told = problem(app, worker, address, &error)?;
            Err(unavailable(&told))
        }
    }
}

/// A diagnostic where only an error will do.
pub(super) fn unavailable(told: &Value) -> Rejection {
    let message = told["message"].as_str().unwrap_or("the runtime is not there");
    Rejection::new(Code::RuntimeUnavailable, message)
}

/// Makes a worker there.
pub(super) async fn spawn(
    caller: &Caller,
    app: &App,
    runtime: &RuntimeId,
    address: &RemoteAddress,
    around: Around,
    create: Value,
    mut diagnostics: Vec<Value>,
) -> Reply<Response> {
    refuse_if_paused(app)?;
    let key = key(&caller.0.actor, &around);
    let asked = Asked::command(&["workers"], create, key).around(None, around.trace);
    match app.remotes.ask::<WorkerAnswer>(address, asked).await {
        Ok(answer) => {
            let worker = WorkerSummary::of_remote(answer.body.worker, runtime);
            Ok(spawned(&worker, answer.replayed, &diagnostics))
        }
        Err(error) => {
            app.remotes.found(runtime, address, &error);
            if let Some(unknown) = unknown_outcome(runtime, &error) {
                return Err(unknown);
            }
            diagnostics.push(match &error {
                RemoteError::Refused { code, message, .. } => {
                    diagnostic(code, "error", message.clone())
                }
                _ => told(runtime, &error),
            });
            Ok(not_spawned("rejected", diagnostics))
        }
    }
}

async fn command(
    caller: &Caller,
    app: &App,
    worker: &WorkerRef,
    address: &RemoteAddress,
    around: Around,
    what: &str,
    body: Value,
) -> Reply<Response> {
    refuse_if_paused(app)?;
    let key = key(&caller.0.actor, &around);
    let path = ["workers", worker.worker_id.as_str(), what];
    let if_match = around.if_match.map(|revision| revision.0);
    let asked = Asked::command(&path, body, key).around(if_match, around.trace);
    let (runtime_id, worker_id) = (&worker.runtime_id, &worker.worker_id);
    match app.remotes.ask::<AckAnswer>(address, asked).await {
        Ok(answer) => {
            let ack = answer.body.ack;
            let mut body = json!({
                "state": "accepted",
                "runtime_id": runtime_id,
                "worker_id": worker_id,
                "diagnostics": [],
            });
            if let Some(item) = ack.transcript_sequence {
                body["transcript_sequence"] = item.into();
                body["event_id"] = ack.event_id.into();
            }
            Ok(workers::answer(answer.replayed, body))
        }
        Err(error) => {
            let told = problem(app, worker, address, &error)?;
            match unknown_outcome(runtime_id, &error) {
                Some(unknown) => Err(unknown),
                None => Ok(rejected(worker, &told)),
            }
        }
    }
}

fn rejected(worker: &WorkerRef, told: &Value) -> Response {
    let body = json!({
        "state": "rejected",
        "runtime_id": worker.runtime_id,
        "worker_id": worker.worker_id,
        "diagnostics": [told],
    });
    Json(body).into_response()
}

/// Gives a worker there an input.
pub(super) async fn input(
    caller: &Caller,
    app: &App,
    worker: &WorkerRef,
    address: &RemoteAddress,
    around: Around,
    kind: InputKind,
    content: &str,
) -> Reply<Response> {
    let body = json!({"kind": kind, "content": content});
    command(caller, app, worker, address, around, "input", body).await
}

/// Ends a worker there.
pub(super) async fn finish(
    caller: &Caller,
    app: &App,
    worker: &WorkerRef,
    address: &RemoteAddress,
    around: Around,
    body: Value,
    how: WorkerStatus,
) -> Reply<Response> {
    let what = if how == WorkerStatus::Cancelled { "cancel" } else { "stop" };
    command(caller, app, worker, address, around, what, body).await
}

/// A page of what was said there.
pub(super) async fn transcript(
    app: &App,
    worker: &WorkerRef,
    address: &RemoteAddress,
    start: u64,
    limit: usize,
) -> Reply<RemoteTranscript> {
    let path = ["workers", worker.worker_id.as_str(), "transcript"];
    let asked = Asked::get(&path).query("start", Some(start)).query("limit", Some(limit));
    match app.remotes.ask::<TranscriptAnswer>(address, asked).await {
        Ok(answer) => Ok(answer.body.transcript),
        Err(error) => Err(unavailable(&problem(app, worker, address, &error)?)),
    }
}

/// Why the observation of a worker there could not be opened.
pub(super) fn unwatchable(
    app: &App,
    worker: &WorkerRef,
    address: &RemoteAddress,
    error: &RemoteError,
) -> Rejection {
    problem(app, worker, address, error).map_or_else(|refused| refused, |told| unavailable(&told))
}
