//! This service's own runtime.

use super::{
    App,
    access::Caller,
    error::Reply,
    past,
    query::{self, Around},
};
use crate::{
    auth::Permission,
    command::Command,
    error::{Code, Rejection},
};
use acta_projections::Projections;
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::Uri,
};
use serde_json::{Value, json};

fn shape(app: &App, projections: &Projections) -> Option<Value> {
    let runtime = projections.runtimes.get(&app.runtime)?;
    let counts = projections.workers.counts(&app.runtime);
    Some(json!({
        "runtime_id": app.runtime,
        "display_name": runtime.label,
        "backend": runtime.kind,
        "status": runtime.status,
        "worker_count": counts.total(),
        "active_worker_count": counts.running,
        "stopped_worker_count": counts.stopped,
        "cancelled_worker_count": counts.cancelled,
        "diagnostic_count": counts.diagnostics,
        "limits": {
            "max_transcript_projection_items": app.limits.transcript_items,
            "max_event_batch_items": app.limits.transcript_items,
        },
    }))
}

fn missing() -> Rejection {
    Rejection::new(Code::UnknownRuntime, "the runtime was not registered at that moment")
}

pub(super) async fn show(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let at = past::of_query(&app, &uri).await?;
    let looked = past::with_projections(&app, at, |projections| shape(&app, projections)).await?;
    Ok(Json(json!({ "runtime": looked.ok_or_else(missing)? })))
}

/// Stops the runtime and, with it, all of its workers. Reading goes on.
pub(super) async fn stop(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Json<Value>> {
    caller.may(Permission::Command)?;
    let around = Around::of(&request)?;
    let key = around.key(&(), None)?;
    let command = Command::StopRuntime { runtime: app.runtime.clone() };
    app.engine.submit(query::command(caller.0.actor.clone(), around, key, command)).await?;
    let views = app.log.views().read();
    Ok(Json(json!({ "runtime": shape(&app, &views).ok_or_else(missing)? })))
}
