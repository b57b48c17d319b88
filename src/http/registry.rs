//! Runtimes and hosts, as lists.

use super::{App, access::Caller, error::Reply, past, query};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
};
use acta_events::{HostId, RuntimeId};
use acta_projections::{HostState, Projections, RuntimeState, RuntimeStatus};
use axum::{Json, extract::State, http::Uri};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
pub(super) struct PageQuery {
    limit: Option<usize>,
    pub(super) after: Option<String>,
    pub(super) at: Option<String>,
}

impl PageQuery {
    pub(super) fn limit(&self, app: &App) -> Reply<usize> {
        let limit = self.limit.unwrap_or(app.limits.list_items);
        if limit <= app.limits.list_items {
            return Ok(limit);
        }
        let message = format!(
            "limit {limit} is larger than a page, which has at most {} items",
            app.limits.list_items
        );
        Err(Rejection::new(Code::LimitTooLarge, message))
    }

    fn is_after(&self, id: &str) -> bool {
        self.after.as_deref().is_none_or(|after| id > after)
    }
}

fn host_shape(id: &HostId, host: &HostState) -> Value {
    json!({
        "runtime_id": host.runtime,
        "host_id": id,
        "label": host.label,
        "kind": host.kind,
        "status": "online",
        "observed_at": host.registered_at,
        // As the log knows it: a view as of a sequence is the same whenever it is asked for.
        "last_seen_at": host.registered_at,
        "capabilities": {"os": host.os, "arch": host.arch},
        "diagnostics": [],
    })
}

fn runtime_shape(projections: &Projections, id: &RuntimeId, runtime: &RuntimeState) -> Value {
    let hosts = projections.hosts.iter().filter(|(_, host)| host.runtime == *id);
    let host_ids: Vec<_> = hosts.map(|(id, _)| id).collect();
    let running = runtime.status == RuntimeStatus::Running;
    json!({
        "runtime_id": id,
        "label": runtime.label,
        "kind": runtime.kind,
        "status": runtime.status,
        "source": {
            "kind": "embedded_worker_runtime",
            "status": "active",
            "identity_authority": "runtime_registry_projection",
            "note": "this service runs the workers as its own child processes",
        },
        "host_ids": host_ids,
        "templates": runtime.templates,
        "capabilities": {
            "can_list_hosts": true,
            "can_list_workers": true,
            "can_get_worker": true,
            "can_spawn_worker": running,
            "can_stop_worker": running,
            "can_accept_input": running,
            "can_stream_events": true,
            "can_read_bounded_transcript": true,
            "has_workspace_fs": false,
            "has_shell": false,
            "has_git": false,
            "supports_worktrees": false,
            "supports_backend_internal_tools": true,
            "workspace_scope": "backend_internal",
            "local_pod_inspection": "not_applicable",
            "max_workers": null,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
        },
        "diagnostics": [],
    })
}

pub(super) async fn runtimes(
    caller: Caller,
    State(app): State<App>,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let query: PageQuery = query::query(&uri)?;
    let limit = query.limit(&app)?;
    let at = past::parse(&app, query.at.as_deref()).await?;
    let items: Vec<_> = past::with_projections(&app, at, |views| {
        let all = views.runtimes.iter().filter(|(id, _)| query.is_after(id.as_str()));
        all.take(limit).map(|(id, runtime)| runtime_shape(views, id, runtime)).collect()
    })
    .await?;
    Ok(Json(json!({"items": items, "diagnostics": []})))
}

pub(super) async fn runtime(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let id = query::runtime_id(&id)?;
    let at = past::of_query(&app, &uri).await?;
    let found = past::with_projections(&app, at, |views| {
        views.runtimes.get(&id).map(|runtime| runtime_shape(views, &id, runtime))
    })
    .await?;
    let runtime = found.ok_or_else(|| {
        let then = if at == past::At::Now { "" } else { " at that moment" };
        let message = format!("there is no runtime `{id}`{then}; `acta ls runtimes` lists them");
        Rejection::new(Code::UnknownRuntime, message)
    })?;
    Ok(Json(json!({ "runtime": runtime })))
}

pub(super) async fn hosts(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let query: PageQuery = query::query(&uri)?;
    let limit = query.limit(&app)?;
    let at = past::parse(&app, query.at.as_deref()).await?;
    let items: Vec<_> = past::with_projections(&app, at, |views| {
        let all = views.hosts.iter().filter(|(id, _)| query.is_after(id.as_str()));
        all.take(limit).map(|(id, host)| host_shape(id, host)).collect()
    })
    .await?;
    Ok(Json(json!({"items": items, "diagnostics": []})))
}
