//! Workers as the registry shows them: of one runtime, of one host, one by its address.

use super::{
    App,
    access::Caller,
    error::Reply,
    local_workers, past, query,
    registry::PageQuery,
    registry_operations::{parsed, source},
    registry_remote,
    registry_source::{Source, WorkerSummary},
};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
};
use acta_events::{HostId, RemoteAddress, RuntimeId, WorkerId, WorkerRef};
use acta_projections::{Projections, RuntimeStatus, WorkerState};
use axum::{Json, extract::State, http::Uri};
use serde_json::{Value, json};
use std::sync::Arc;

fn page<'a>(
    app: &App,
    views: &Projections,
    runtime: &RuntimeId,
    workers: impl Iterator<Item = &'a Arc<WorkerState>>,
    limit: usize,
) -> Vec<WorkerSummary> {
    let Some(state) = views.runtimes.get(runtime) else { return Vec::new() };
    let (source, runs) = (Source::of(state), state.status == RuntimeStatus::Running);
    workers.take(limit).map(|worker| WorkerSummary::of(worker, &source, runs, &app.host)).collect()
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
    if let (Source::Remote(address), past::At::Now) = (source(&app, &runtime)?, at) {
        let list = registry_remote::list(&app, &runtime, &address, limit, after.as_ref());
        return Ok(Json(list.await));
    }
    let asked = runtime.clone();
    let items = past::with_projections(&app, at, |views| {
        if Source::of(views.runtimes.get(&asked)?) == Source::LocalPods {
            return Some(local_workers::list(views, &asked, None, after.as_ref(), limit));
        }
        let workers = views.workers.of(&asked, after.as_ref());
        let items = page(&app, views, &asked, workers, limit);
        Some(json!({"items": items, "diagnostics": []}))
    })
    .await?;
    match items {
        Some(list) => Ok(Json(list)),
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
    if let (Some((runtime, address)), past::At::Now) = (remote_of(&app, &host), at) {
        let list = registry_remote::list(&app, &runtime, &address, limit, after.as_ref());
        return Ok(Json(list.await));
    }
    let asked = host.clone();
    let items = past::with_projections(&app, at, |views| {
        let runtime = &views.hosts.get(&asked)?.runtime;
        if views.runtimes.get(runtime).map(Source::of) == Some(Source::LocalPods) {
            let list = local_workers::list(views, runtime, Some(&asked), after.as_ref(), limit);
            return Some(list);
        }
        let here = views.workers.of_host(runtime, &asked, after.as_ref());
        let items = page(&app, views, runtime, here, limit);
        Some(json!({"items": items, "diagnostics": []}))
    })
    .await?;
    match items {
        Some(list) => Ok(Json(list)),
        None => {
            let message = format!("there is no host `{host}`; `acta ls hosts` lists them");
            Err(Rejection::new(Code::UnknownHost, message))
        }
    }
}

/// The other service that a host stands for.
fn remote_of(app: &App, host: &HostId) -> Option<(RuntimeId, RemoteAddress)> {
    let views = app.log.views().read();
    let runtime = &views.hosts.get(host)?.runtime;
    let remote = views.runtimes.get(runtime)?.remote.clone()?;
    Some((runtime.clone(), remote))
}

/// One worker by its address.
pub(super) async fn show(
    caller: Caller,
    State(app): State<App>,
    path: query::Segments,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let worker = parsed(&path)?;
    let at = past::of_query(&app, &uri).await?;
    let runtime = past::with_projections(&app, at, |views| {
        let runtime = views.runtimes.get(&worker.runtime_id)?;
        Some((Source::of(runtime), runtime.status == RuntimeStatus::Running))
    })
    .await?;
    let Some((source, runs)) = runtime else { return Err(unknown_runtime(&worker.runtime_id)) };
    if let (Source::Remote(address), past::At::Now) = (&source, at) {
        return registry_remote::show(&app, &worker, address).await.map(Json);
    }
    if source == Source::LocalPods {
        let (runtime, id) = (&worker.runtime_id, &worker.worker_id);
        let look = |views: &Projections| local_workers::worker(views, runtime, id);
        let found = past::with_projections(&app, at, look).await?;
        return found
            .map(|found| Json(json!({ "worker": found })))
            .ok_or_else(|| unknown_worker(&worker));
    }
    let state = past::worker(&app, &worker, at).await.map_err(|error| match error.code {
        Code::WorkerNotFound => unknown_worker(&worker),
        _ => error,
    })?;
    let summary = WorkerSummary::of(&state, &source, runs, &app.host);
    Ok(Json(json!({ "worker": summary })))
}

pub(super) fn unknown_runtime(runtime: &RuntimeId) -> Rejection {
    let message = format!("there is no runtime `{runtime}`; `acta ls runtimes` lists them");
    Rejection::new(Code::UnknownRuntime, message)
}

pub(super) fn unknown_worker(worker: &WorkerRef) -> Rejection {
    let message = format!("runtime `{}` has no worker `{}`", worker.runtime_id, worker.worker_id);
    Rejection::new(Code::UnknownWorker, message)
}
