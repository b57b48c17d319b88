//! Named consumer cursors: a consumer's own note of how far it has read.

use super::{
    App,
    access::Caller,
    body,
    error::Reply,
    past::{self, At},
    query::{self, Around},
    workers::answer,
};
use crate::{
    auth::Permission,
    command::Command,
    error::{Code, Rejection, shown},
    feed::resolve,
};
use acta_events::{CursorName, Sequence};
use acta_projections::CursorState;
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::Uri,
    response::Response,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// How many records between two commits are looked at to see whether anything was consumed.
const LOOKED_AT: usize = 256;

fn shape(name: &CursorName, state: &CursorState) -> Value {
    json!({
        "name": name,
        "cursor": state.cursor,
        "position": state.position,
        "committed_at": state.committed_at,
        "event_id": state.committed_seq,
    })
}

fn parse(name: &str) -> Reply<CursorName> {
    CursorName::parse(name)
        .map_err(|error| Rejection::new(Code::InvalidIdentifier, error.to_string()))
}

/// The caller's own cursors.
pub(super) async fn list(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::OwnCursors)?;
    let at = past::of_query(&app, &uri).await?;
    let actor = caller.0.actor.clone();
    let cursors: Vec<_> = past::with_projections(&app, at, move |views| {
        views.cursors.of(&actor).map(|(name, state)| shape(name, state)).collect()
    })
    .await?;
    Ok(Json(json!({ "cursors": cursors })))
}

/// One of the caller's own cursors.
pub(super) async fn show(
    caller: Caller,
    State(app): State<App>,
    query::Segment(name): query::Segment,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::OwnCursors)?;
    let name = parse(&name)?;
    let at = past::of_query(&app, &uri).await?;
    read(&app, &caller, &name, at).await
}

async fn read(app: &App, caller: &Caller, name: &CursorName, at: At) -> Reply<Json<Value>> {
    let (actor, wanted) = (caller.0.actor.clone(), name.clone());
    let found = past::with_projections(app, at, move |views| {
        views.cursors.get(&actor, &wanted).map(|state| shape(&wanted, state))
    })
    .await?;
    let found = found.ok_or_else(|| {
        let then = if at == At::Now { "" } else { " at that moment" };
        let name = shown(name.as_str());
        let message = format!("you have no cursor `{name}`{then}; commit one with PUT");
        Rejection::new(Code::UnknownCursor, message)
    })?;
    Ok(Json(json!({ "cursor": found })))
}

#[derive(Deserialize)]
struct CommitRequest {
    cursor: String,
}

/// Commits a position under a name of the caller's own.
pub(super) async fn commit(
    caller: Caller,
    State(app): State<App>,
    query::Segment(name): query::Segment,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::OwnCursors)?;
    let name = parse(&name)?;
    let around = Around::of(&request)?;
    let asked: CommitRequest = body::json(&app, request).await?;
    let resume = resolve(&app.log, &asked.cursor).await?;
    let steps = steps(&app, &caller, &name, resume.after).await?;
    let key = around.key(&asked.cursor, None)?;
    let command = Command::CommitCursor {
        name: name.clone(),
        cursor: asked.cursor,
        position: resume.after,
        steps,
    };
    let request = query::command(caller.0.actor.clone(), around, key, command);
    let ack = app.engine.submit(request).await?;
    Ok(answer(ack.is_replayed(), read(&app, &caller, &name, At::Now).await?.0))
}

/// Whether anything but records about watching lies between the committed position and the new.
async fn steps(app: &App, caller: &Caller, name: &CursorName, to: Sequence) -> Reply<bool> {
    let from = {
        let views = app.log.views().read();
        views.cursors.get(&caller.0.actor, name).map(|state| state.position)
    };
    let Some(from) = from else { return Ok(true) };
    if to <= from {
        return Ok(to < from);
    }
    if from < app.log.expired_through() {
        // What was consumed there cannot be looked at any more.
        return Ok(true);
    }
    let records = app.log.read(from, to, LOOKED_AT).await?;
    let all_seen = records.last().is_some_and(|last| last.record.seq() >= to);
    let watching = records.iter().all(|logged| logged.record.header.event.is_about_watching());
    Ok(!(all_seen && watching))
}
