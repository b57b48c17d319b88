//! Operations on workers by way of the registry: what is refused by what is known already is an
//! answer with a state and diagnostics, not an error.

use super::{
    App,
    access::Caller,
    body,
    error::Reply,
    query::{self, Around},
    registry_workers::unknown_runtime,
    workers,
};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
};
use acta_events::{InputKind, WorkerId, WorkerRef};
use acta_projections::WorkerStatus;
use axum::{
    Json,
    body::Body,
    extract::{Path, Request, State},
    http::Uri,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// A runtime and a worker, as a path names them.
type Address = Path<(String, String)>;

#[derive(Deserialize)]
struct InputRequest {
    #[serde(default)]
    kind: Option<InputKind>,
    content: String,
}

#[derive(Default, Deserialize)]
struct EndRequest {
    reason: Option<String>,
    #[serde(default)]
    mode: Mode,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Graceful,
    Force,
}

/// The worker, which has to be one of a runtime that is known.
fn address(app: &App, path: &Address) -> Reply<WorkerRef> {
    let (runtime, worker) = &path.0;
    let runtime_id = query::runtime_id(runtime)?;
    let worker_id = WorkerId::parse(worker)
        .map_err(|error| Rejection::new(Code::InvalidIdentifier, error.to_string()))?;
    if app.log.views().read().runtimes.get(&runtime_id).is_none() {
        return Err(unknown_runtime(&runtime_id));
    }
    Ok(WorkerRef { runtime_id, worker_id })
}

/// What a refusal is to the registry: a diagnostic where the runtime has refused, else the error.
fn diagnostic(worker: &WorkerRef, refused: Rejection) -> Reply<Value> {
    let code = match refused.code {
        Code::WorkerNotFound => {
            let message =
                format!("runtime `{}` has no worker `{}`", worker.runtime_id, worker.worker_id);
            return Err(Rejection::new(Code::UnknownWorker, message));
        }
        Code::RuntimeStopped => "embedded_runtime_stopped",
        Code::InvalidRequest => "embedded_runtime_invalid_request",
        Code::WorkerExecutionUnavailable | Code::WorkerExecutionRejected => refused.code.as_str(),
        _ => return Err(refused),
    };
    Ok(json!({"code": code, "severity": "error", "message": refused.message}))
}

fn rejected(worker: &WorkerRef, refused: Rejection) -> Reply<Response> {
    Ok(refusal(worker, "rejected", &diagnostic(worker, refused)?))
}

fn refusal(worker: &WorkerRef, state: &str, diagnostic: &Value) -> Response {
    let answer = json!({
        "state": state,
        "runtime_id": worker.runtime_id,
        "worker_id": worker.worker_id,
        "diagnostics": [diagnostic],
    });
    Json(answer).into_response()
}

/// Gives a worker an input.
pub(super) async fn input(
    caller: Caller,
    State(app): State<App>,
    path: Address,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let worker = address(&app, &path)?;
    let around = Around::of(&request)?;
    let asked: InputRequest = body::json(&app, request).await?;
    let kind = asked.kind.unwrap_or(InputKind::User);
    match workers::give(&caller, &app, &worker, around, kind, asked.content).await {
        Ok(accepted) => {
            let answer = json!({
                "state": "accepted",
                "runtime_id": worker.runtime_id,
                "worker_id": worker.worker_id,
                "transcript_sequence": accepted.item,
                "event_id": accepted.record.seq(),
                "diagnostics": [],
            });
            Ok(workers::answer(accepted.replayed, answer))
        }
        Err(refused) => rejected(&worker, refused),
    }
}

/// Stops a worker for good.
pub(super) async fn stop(
    caller: Caller,
    State(app): State<App>,
    path: Address,
    request: Request<Body>,
) -> Reply<Response> {
    end(caller, app, path, request, WorkerStatus::Stopped).await
}

/// Cancels a worker for good.
pub(super) async fn cancel(
    caller: Caller,
    State(app): State<App>,
    path: Address,
    request: Request<Body>,
) -> Reply<Response> {
    end(caller, app, path, request, WorkerStatus::Cancelled).await
}

async fn end(
    caller: Caller,
    app: App,
    path: Address,
    request: Request<Body>,
    how: WorkerStatus,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let worker = address(&app, &path)?;
    let around = Around::of(&request)?;
    let asked: EndRequest = body::optional_json(&app, request).await?;
    if asked.mode == Mode::Force {
        let message = "a stop that is forced at once is not offered; a graceful one is forced after \
                       the grace period of the template";
        let pending =
            json!({"code": "worker_stop_pending", "severity": "warning", "message": message});
        return Ok(refusal(&worker, "unsupported", &pending));
    }
    match workers::finish(&caller, &app, &worker, around, asked.reason, how).await {
        Ok(ack) => {
            let answer = json!({
                "state": "accepted",
                "runtime_id": worker.runtime_id,
                "worker_id": worker.worker_id,
                "diagnostics": [],
            });
            Ok(workers::answer(ack.is_replayed(), answer))
        }
        Err(refused) => rejected(&worker, refused),
    }
}

/// A page of what was said.
pub(super) async fn transcript(
    caller: Caller,
    State(app): State<App>,
    path: Address,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let worker = address(&app, &path)?;
    let page = match workers::page(&app, worker.clone(), &uri).await {
        Ok(page) => page,
        Err(refused) => return Err(diagnostic(&worker, refused.clone()).err().unwrap_or(refused)),
    };
    let items: Vec<Value> = page
        .items
        .iter()
        .map(|item| {
            let mut item = serde_json::to_value(item).unwrap_or_default();
            if let Some(item) = item.as_object_mut() {
                item.remove("worker_ref");
            }
            item
        })
        .collect();
    let mut answer = json!({
        "state": "accepted",
        "runtime_id": worker.runtime_id,
        "worker_id": worker.worker_id,
        "start": page.start,
        "limit": page.limit,
        "total_items": page.total_items,
        "items": items,
        "diagnostics": [],
    });
    if let Some(next) = page.next_start {
        answer["next_start"] = next.into();
    }
    Ok(Json(answer))
}
