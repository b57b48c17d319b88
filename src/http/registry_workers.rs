//! Workers as the registry shows them: of one runtime, of one host, one by its address.

use super::{App, access::Caller, error::Reply, past, query, registry::PageQuery};
use crate::{
    auth::Permission,
    error::{Code, Rejection, shown},
};
use acta_events::{HostId, IntentKind, ProfileSelector, RuntimeId, WorkerId, WorkerRef};
use acta_projections::{Projections, RuntimeStatus, WorkerState, WorkerStatus};
use axum::{Json, extract::State, http::Uri};
use serde_json::{Value, json};
use std::sync::Arc;

/// The longest display hint, in characters.
const HINT_CHARS_MAX: usize = 80;

/// What is shown of a worker to those who list several sources: nothing of its texts, its process
/// or the places of the machine it runs on.
fn worker_shape(worker: &WorkerState, runtime_runs: bool) -> Value {
    let spec = &worker.spec;
    let alive = worker.status == WorkerStatus::Running;
    let startable = spec.template.is_some();
    let role = match &spec.intent {
        IntentKind::Role { role } => Some(role),
        IntentKind::Assistant | IntentKind::Task => None,
    };
    let profile = match &spec.profile {
        ProfileSelector::RuntimeDefault => "runtime_default",
        ProfileSelector::Builtin(value) | ProfileSelector::Named(value) => value,
    };
    json!({
        "runtime_id": worker.runtime,
        "worker_id": worker.worker,
        "host_id": spec.host,
        "label": worker.worker,
        "role": role,
        "profile": profile,
        "workspace": {"visibility": "backend_internal", "identity": "runtime_registry_worker"},
        "state": worker.run_state(),
        "status": worker.status,
        "last_seen_at": worker.last_at,
        "implementation": {
            "kind": "embedded_worker_runtime",
            "display_hint": hint(spec.template.as_deref().unwrap_or("unconnected")),
        },
        "capabilities": {
            "can_accept_input": alive && startable && runtime_runs,
            "can_stream_events": true,
            "can_stop": alive,
            "can_spawn_followup": runtime_runs,
            "can_read_bounded_transcript": true,
        },
        "diagnostics": diagnostics(worker),
    })
}

/// A short name for people: no control characters and no slashes.
fn hint(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control() && !matches!(c, '/' | '\\'));
    plain.take(HINT_CHARS_MAX).collect()
}

fn diagnostics(worker: &WorkerState) -> Vec<Value> {
    let message = worker.last_result.as_ref().and_then(|last| last.message.as_deref());
    let failed = message.map(|message| {
        json!({"code": "worker_last_operation_failed", "severity": "warning", "message": message})
    });
    failed.into_iter().collect()
}

fn runs(views: &Projections, runtime: &RuntimeId) -> bool {
    views.runtimes.get(runtime).is_some_and(|runtime| runtime.status == RuntimeStatus::Running)
}

fn page<'a>(
    workers: impl Iterator<Item = &'a Arc<WorkerState>>,
    limit: usize,
    runtime_runs: bool,
) -> Vec<Value> {
    workers.take(limit).map(|worker| worker_shape(worker, runtime_runs)).collect()
}

fn after(query: &PageQuery) -> Reply<Option<WorkerId>> {
    let parse = |text: &String| {
        WorkerId::parse(text)
            .map_err(|error| Rejection::new(Code::InvalidIdentifier, error.to_string()))
    };
    query.after.as_ref().map(parse).transpose()
}

/// The workers of a runtime, by id.
pub(super) async fn of_runtime(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let runtime = query::runtime_id(&id)?;
    let query: PageQuery = query::query(&uri)?;
    let (limit, after) = (query.limit(&app)?, after(&query)?);
    let at = past::parse(&app, query.at.as_deref()).await?;
    let asked = runtime.clone();
    let items = past::with_projections(&app, at, move |views| {
        views.runtimes.get(&asked)?;
        Some(page(views.workers.of(&asked, after.as_ref()), limit, runs(views, &asked)))
    })
    .await?;
    match items {
        Some(items) => Ok(Json(json!({"items": items, "diagnostics": []}))),
        None => Err(unknown_runtime(&runtime)),
    }
}

/// The workers of a host, by id.
pub(super) async fn of_host(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let host = HostId::parse(&id)
        .map_err(|error| Rejection::new(Code::InvalidIdentifier, error.to_string()))?;
    let query: PageQuery = query::query(&uri)?;
    let (limit, after) = (query.limit(&app)?, after(&query)?);
    let at = past::parse(&app, query.at.as_deref()).await?;
    let asked = host.clone();
    let items = past::with_projections(&app, at, move |views| {
        let runtime = &views.hosts.get(&asked)?.runtime;
        let all = views.workers.of(runtime, after.as_ref());
        let here = all.filter(|worker| worker.spec.host.as_ref() == Some(&asked));
        Some(page(here, limit, runs(views, runtime)))
    })
    .await?;
    match items {
        Some(items) => Ok(Json(json!({"items": items, "diagnostics": []}))),
        None => {
            let message = format!("there is no host `{host}`; `acta ls hosts` lists them");
            Err(Rejection::new(Code::UnknownHost, message))
        }
    }
}

/// One worker by its address.
pub(super) async fn show(
    caller: Caller,
    State(app): State<App>,
    path: axum::extract::Path<(String, String)>,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let (runtime, worker) = (&path.0.0, &path.0.1);
    let runtime_id = query::runtime_id(runtime)?;
    let worker_id = WorkerId::parse(worker)
        .map_err(|error| Rejection::new(Code::InvalidIdentifier, error.to_string()))?;
    let at = past::of_query(&app, &uri).await?;
    let asked = runtime_id.clone();
    let runtime = past::with_projections(&app, at, move |views| {
        views.runtimes.get(&asked).map(|_| runs(views, &asked))
    })
    .await?;
    let Some(runtime_runs) = runtime else { return Err(unknown_runtime(&runtime_id)) };
    let address = WorkerRef { runtime_id, worker_id };
    let state = past::worker(&app, &address, at).await.map_err(|error| match error.code {
        Code::WorkerNotFound => Rejection::new(
            Code::UnknownWorker,
            format!("runtime `{}` has no worker `{}`", address.runtime_id, shown(worker)),
        ),
        _ => error,
    })?;
    Ok(Json(json!({ "worker": worker_shape(&state, runtime_runs) })))
}

pub(super) fn unknown_runtime(runtime: &RuntimeId) -> Rejection {
    let message = format!("there is no runtime `{runtime}`; `acta ls runtimes` lists them");
    Rejection::new(Code::UnknownRuntime, message)
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn a_hint_is_short_and_plain() {
        let rows =
            [("echo", "echo"), ("../etc/passwd", "..etcpasswd"), ("a\\b\u{7}\nc", "abc"), ("", "")];
        for (text, expected) in rows {
            assert_eq!(hint(text), expected);
        }
        assert_eq!(hint(&"ü".repeat(500)).chars().count(), 80);
    }
}
