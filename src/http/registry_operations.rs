//! Operations on workers by way of the registry: what is refused by what is known already is an
//! answer with a state and diagnostics, not an error.

use super::{
    App,
    access::Caller,
    body,
    error::Reply,
    query::{self, Around},
    registry_remote,
    registry_source::{Source, diagnostic},
    registry_workers::{unknown_runtime, unknown_worker},
    workers::{self, EndMode},
};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
};
use acta_events::{InputKind, RuntimeId, WorkerId, WorkerRef};
use acta_projections::WorkerStatus;
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::Uri,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

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
    mode: EndMode,
}

/// The worker that a path names, if there is one or not.
pub(super) fn parsed(path: &query::Segments) -> Reply<WorkerRef> {
    let query::Segments(runtime, worker) = path;
    let runtime_id = query::runtime_id(runtime)?;
    let worker_id = WorkerId::parse(worker)
        .map_err(|error| Rejection::new(Code::InvalidIdentifier, error.to_string()))?;
    Ok(WorkerRef { runtime_id, worker_id })
}

/// What a runtime is that has to be known.
pub(super) fn source(app: &App, runtime: &RuntimeId) -> Reply<Source> {
    let views = app.log.views().read();
    views.runtimes.get(runtime).map(Source::of).ok_or_else(|| unknown_runtime(runtime))
}

/// The worker, which has to be one of a runtime that is known.
pub(super) fn address(app: &App, path: &query::Segments) -> Reply<(WorkerRef, Source)> {
    let worker = parsed(path)?;
    let source = source(app, &worker.runtime_id)?;
    Ok((worker, source))
}

/// Refuses unless the worker is known to its runtime.
pub(super) async fn known(app: &App, worker: &WorkerRef, source: &Source) -> Reply<()> {
    if let Source::Remote(address) = source {
        return registry_remote::show(app, worker, address).await.map(drop);
    }
    if *source == Source::LocalPods {
        let views = app.log.views().read();
        let found = views.local_workers.get(&worker.runtime_id, &worker.worker_id);
        return found.map(drop).ok_or_else(|| unknown_worker(worker));
    }
    let found = app.log.views().worker(&worker.runtime_id, &worker.worker_id);
    found.map(drop).ok_or_else(|| unknown_worker(worker))
}

/// What a refusal of this service's own runtime is to the registry.
pub(super) fn runtime_diagnostic(refused: Rejection) -> Reply<Value> {
    let code = match refused.code {
        Code::RuntimeStopped => "embedded_runtime_stopped",
        Code::InvalidRequest => "embedded_runtime_invalid_request",
        Code::WrongRuntime => "embedded_runtime_wrong_identity",
        Code::LimitTooLarge => "embedded_runtime_limit_too_large",
        Code::StoreMissing | Code::StoreCorrupt => "embedded_runtime_store_error",
        Code::StatePoisoned => "embedded_runtime_state_unavailable",
        Code::WorkerExecutionUnavailable | Code::WorkerExecutionRejected => refused.code.as_str(),
        _ => return Err(refused),
    };
    Ok(diagnostic(code, "error", refused.message))
}

/// The same where a worker was named.
fn worker_diagnostic(worker: &WorkerRef, refused: Rejection) -> Reply<Value> {
    match refused.code {
        Code::WorkerNotFound => Err(unknown_worker(worker)),
        _ => runtime_diagnostic(refused),
    }
}

fn rejected(worker: &WorkerRef, refused: Rejection) -> Reply<Response> {
    Ok(refusal(worker, "rejected", &worker_diagnostic(worker, refused)?))
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
    path: query::Segments,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let (worker, source) = address(&app, &path)?;
    let around = Around::of(&request)?;
    let asked: InputRequest = body::json(&app, request).await?;
    let kind = asked.kind.unwrap_or(InputKind::User);
    match &source {
        Source::Remote(address) => {
            let content = &asked.content;
            return registry_remote::input(&caller, &app, &worker, address, around, kind, content)
                .await;
        }
        Source::LocalPods => return pending(&app, &worker, &source, "worker_input_pending").await,
        Source::Embedded | Source::External => {}
    }
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
    path: query::Segments,
    request: Request<Body>,
) -> Reply<Response> {
    end(caller, app, path, request, WorkerStatus::Stopped).await
}

/// Cancels a worker for good.
pub(super) async fn cancel(
    caller: Caller,
    State(app): State<App>,
    path: query::Segments,
    request: Request<Body>,
) -> Reply<Response> {
    end(caller, app, path, request, WorkerStatus::Cancelled).await
}

async fn end(
    caller: Caller,
    app: App,
    path: query::Segments,
    request: Request<Body>,
    how: WorkerStatus,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let (worker, source) = address(&app, &path)?;
    let around = Around::of(&request)?;
    let asked: EndRequest = body::optional_json(&app, request).await?;
    match &source {
        Source::Remote(address) => {
            let mut body = json!({"reason": asked.reason});
            if asked.mode == EndMode::Force {
                body["mode"] = "force".into();
            }
            return registry_remote::finish(&caller, &app, &worker, address, around, body, how)
                .await;
        }
        Source::LocalPods => return pending(&app, &worker, &source, "worker_stop_pending").await,
        Source::Embedded | Source::External => {}
    }
    match workers::finish(&caller, &app, &worker, around, asked.reason, how).await {
        Ok(ack) => {
            if asked.mode == EndMode::Force {
                app.kills.force(&worker);
            }
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

/// What this source does not do.
async fn pending(app: &App, worker: &WorkerRef, source: &Source, code: &str) -> Reply<Response> {
    known(app, worker, source).await?;
    let message =
        "the workers of this runtime are only looked at here; who runs them does the rest";
    Ok(refusal(worker, "unsupported", &diagnostic(code, "info", message)))
}

/// A page that could not be read.
fn unread(worker: &WorkerRef, (start, limit): (u64, Option<usize>), told: &Value) -> Response {
    let answer = json!({
        "state": "rejected",
        "runtime_id": worker.runtime_id,
        "worker_id": worker.worker_id,
        "start": start,
        "limit": limit,
        "total_items": 0,
        "items": [],
        "diagnostics": [told],
    });
    Json(answer).into_response()
}

/// A page of what was said.
pub(super) async fn transcript(
    caller: Caller,
    State(app): State<App>,
    path: query::Segments,
    uri: Uri,
) -> Reply<Response> {
    caller.may(Permission::ReadWorkers)?;
    let (worker, source) = address(&app, &path)?;
    match &source {
        Source::Remote(address) => {
            let (start, limit) = workers::present_page(&app, &uri)?;
            let page = registry_remote::transcript(&app, &worker, address, start, limit).await?;
            let mut answer = json!({
                "state": "accepted",
                "runtime_id": worker.runtime_id,
                "worker_id": worker.worker_id,
                "start": page.start,
                "limit": page.limit,
                "total_items": page.total_items,
                "items": page.items,
                "diagnostics": [],
            });
            if let Some(next) = page.next_start {
                answer["next_start"] = next.into();
            }
            return Ok(Json(answer).into_response());
        }
        Source::LocalPods => {
            return pending(&app, &worker, &source, "worker_transcript_pending").await;
        }
        Source::Embedded | Source::External => {}
    }
    let page = match workers::page(&app, worker.clone(), &uri).await {
        Ok(page) => page,
        Err(refused) => {
            let told = worker_diagnostic(&worker, refused)?;
            return Ok(unread(&worker, workers::asked_page(&uri)?, &told));
        }
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
    Ok(Json(answer).into_response())
}
