//! Runtimes.

use super::{
    App,
    access::Caller,
    error::Reply,
    local_workers, past, query,
    registry_source::{DIAGNOSTICS_MAX, diagnostic, runtime_shape},
};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
};
use acta_events::RuntimeId;
use acta_projections::{Projections, RuntimeState};
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

fn shape(
    app: &App,
    views: &Projections,
    id: &RuntimeId,
    runtime: &RuntimeState,
    at: past::At,
) -> Value {
    let host_ids: Vec<_> = views.hosts.of(id).take(HOST_IDS_MAX).collect();
    let mut shape = runtime_shape(app, id, runtime, at, &host_ids);
    let all = views.hosts.count(id);
    if all > HOST_IDS_MAX
        && let Some(diagnostics) = shape["diagnostics"].as_array_mut()
    {
        let message = format!(
            "only the first {HOST_IDS_MAX} of {all} hosts are named; GET /v1/hosts lists them"
        );
        diagnostics.push(diagnostic("runtime_host_ids_cut", "info", message));
    }
    local_workers::refine(views, id, None, &mut shape);
    shape
}

/// One runtime as it is now.
pub(super) fn one(app: &App, id: &RuntimeId) -> Option<Value> {
    let views = app.log.views().read();
    views.runtimes.get(id).map(|runtime| shape(app, &views, id, runtime, past::At::Now))
}

/// What a list says on top of its items: what they say, as far as there is room.
pub(super) fn collected(items: &[Value]) -> Vec<Value> {
    let all = items.iter().filter_map(|item| item["diagnostics"].as_array()).flatten();
    all.take(DIAGNOSTICS_MAX).cloned().collect()
}

pub(super) async fn runtimes(
    caller: Caller,
    State(app): State<App>,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let query: PageQuery = query::query(&uri)?;
    let limit = query.limit(&app)?;
    let after = query.after.as_deref().map(query::runtime_id).transpose()?;
    let at = past::parse(&app, query.at.as_deref()).await?;
    let items: Vec<_> = past::with_projections(&app, at, |views| {
        let all = views.runtimes.after(after.as_ref().map(RuntimeId::as_str));
        all.take(limit).map(|(id, runtime)| shape(&app, views, id, runtime, at)).collect()
    })
    .await?;
    let diagnostics = collected(&items);
    Ok(Json(json!({"items": items, "diagnostics": diagnostics})))
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
        views.runtimes.get(&id).map(|runtime| shape(&app, views, &id, runtime, at))
    })
    .await?;
    let runtime = found.ok_or_else(|| {
        let then = if at == past::At::Now { "" } else { " at that moment" };
        let message = format!("there is no runtime `{id}`{then}; `acta ls runtimes` lists them");
        Rejection::new(Code::UnknownRuntime, message)
    })?;
    Ok(Json(json!({ "runtime": runtime })))
}
