//! Observing the whole log over WebSocket.

use super::{
    App,
    access::Caller,
    error::Reply,
    events::EventsQuery,
    frames, query,
    session::{Session, View},
    socket::split,
    worker_ws::{frugal, is_set, refuse},
};
use crate::{
    error::{Code, Rejection},
    feed::{CursorProblem, resolve, retained},
};
use acta_events::Sequence;
use axum::{
    extract::{State, ws::WebSocket, ws::WebSocketUpgrade},
    http::Uri,
    response::Response,
};

pub(super) async fn open(
    caller: Caller,
    State(app): State<App>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Reply<Response> {
    let query: EventsQuery = query::query(&uri)?;
    caller.may(query.permission())?;
    let _ = query.follower(&app, Sequence::ZERO)?;
    if query.since.is_some() || query.until.is_some() || query.grep.is_some() {
        let message = "`since`, `until` and `grep` are for reading over plain HTTP";
        return Err(Rejection::new(Code::InvalidQuery, message));
    }
    let upgrade = upgrade.map_err(|error| {
        Rejection::invalid(format!("this route speaks WebSocket only: {error}"))
    })?;
    Ok(frugal(upgrade).on_upgrade(move |socket| watch(app, caller, query, socket)))
}

async fn watch(app: App, caller: Caller, query: EventsQuery, socket: WebSocket) {
    let (mut sender, stream) = split(socket, app.limits.observer_idle);
    let after = match begin(&app, &query).await {
        Ok(after) => after,
        Err(problem) => return refuse(sender, &problem).await,
    };
    let Ok(follower) = query.follower(&app, after) else { return };
    let progress = is_set(&query.progress);
    if let Some(change) = query.epoch_change(&app)
        && sender.send(frames::epoch_changed(&change)).await.is_err()
    {
        return;
    }
    let epoch = app.log.views().read().lineage.current();
    let view = View::Records;
    Session { app, caller, follower, sender, stream, view, progress, epoch }.run().await;
}

async fn begin(app: &App, query: &EventsQuery) -> Result<Sequence, CursorProblem> {
    if let Some(cursor) = &query.cursor {
        return Ok(resolve(&app.log, cursor).await?.after);
    }
    let head = app.log.head();
    match query.after {
        Some(seq) if seq > head => Err(CursorProblem::Ahead { seq, head }),
        after => {
            let after = after.unwrap_or(head);
            retained(&app.log, after).await?;
            Ok(after)
        }
    }
}
