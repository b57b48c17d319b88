//! Whether the service acts upon what the log asks for, and the order to do so.

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
    dispatch::preview,
    error::{Code, Rejection},
    log::blocking,
};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::Uri,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Whether it acts, and if not, what it would do.
pub(super) async fn show(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::ReadAll)?;
    past::refuse(&uri, "whether the service acts")?;
    let (paused, epoch) = {
        let views = app.log.views().read();
        (views.lineage.is_paused(), views.lineage.current())
    };
    let mut answer = json!({ "paused": paused, "epoch": epoch });
    if paused {
        let (log, runtime) = (Arc::clone(&app.log), app.runtime.clone());
        let manifest = Arc::clone(&app.manifest.read());
        let would = blocking(move || preview(&log, &runtime, &manifest)).await?;
        answer["would"] = json!(would);
    }
    Ok(Json(json!({ "dispatch": answer })))
}

/// Acts from now on.
pub(super) async fn resume(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Json<Value>> {
    caller.may(Permission::Command)?;
    let around = Around::of(&request)?;
    let key = around.key(&(), None)?;
    let command = Command::ResumeDispatch;
    app.engine.submit(query::command(caller.0.actor.clone(), around, key, command)).await?;
    let epoch = app.log.views().read().lineage.current();
    Ok(Json(json!({ "dispatch": { "paused": false, "epoch": epoch } })))
}

/// Refuses what would be done elsewhere at once, while nothing is to be done in the world.
pub(super) fn refuse_if_paused(app: &App) -> Reply<()> {
    if !app.log.views().read().lineage.is_paused() {
        return Ok(());
    }
    let message = "this service was restored from a snapshot and does nothing in the world yet: \
                   `acta resume --dry-run` shows what it would do, and `acta resume` has it begin";
    Err(Rejection::new(Code::DispatchPaused, message))
}
