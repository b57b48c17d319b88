//! Runtimes.

use super::{App, access::Caller, error::Reply, past, query};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
};
use acta_events::RuntimeId;
use acta_projections::{Projections, RuntimeState, RuntimeStatus};
use axum::{Json, extract::State, http::Uri};
use serde::Deserialize;
use serde_json::{Value, json};

/// How many hosts the summary of a runtime names.
const HOST_IDS_MAX: usize = 256;

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
}

fn runtime_shape(projections: &Projections, id: &RuntimeId, runtime: &RuntimeState) -> Value {
    let host_ids: Vec<_> = projections.hosts.of(id).take(HOST_IDS_MAX).collect();
    let all = projections.hosts.count(id);
    let diagnostics: Vec<_> = (all > HOST_IDS_MAX)
        .then(|| {
            let message = format!(
                "only the first {HOST_IDS_MAX} of {all} hosts are named; GET /v1/hosts lists them"
            );
            json!({"code": "runtime_host_ids_cut", "severity": "info", "message": message})
        })
        .into_iter()
        .collect();
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
        "diagnostics": diagnostics,
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
        let all = views.runtimes.after(query.after.as_deref());
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
