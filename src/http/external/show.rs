//! External workers as they are, and their removal.

use super::{
    super::{App, access::Caller, error::Reply, past, query, workers},
    address, may_read, row_id,
};
use crate::{
    agents::external_runtime,
    auth::Permission,
    error::{Code, Rejection},
};
use acta_events::{DegradedReason, WorkerId, WorkerRef};
use acta_projections::{External, RunState, WorkerState, WorkerStatus};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::Uri,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    at: Option<String>,
}

/// What a worker is called here, whichever runtime it is of.
fn status(state: &WorkerState) -> &'static str {
    if state.status != WorkerStatus::Running {
        return "removed";
    }
    match (&state.external, state.run_state()) {
        (Some(agent), _) => agent.presence.as_str(),
        (None, RunState::Unconnected | RunState::Rejected | RunState::Errored) => "failed",
        (None, RunState::Stopped) => "offline",
        (None, _) => "online",
    }
}

fn diagnostics(agent: &External) -> Vec<Value> {
    let mut all = Vec::new();
    let why = agent.degraded.map(|reason| match reason {
        DegradedReason::Wedged => ("agent_wedged", "the agent says that it is stuck".to_owned()),
        DegradedReason::ErrorRate => {
            ("agent_error_rate", "half of what the agent does fails, or more".to_owned())
        }
        DegradedReason::Deaf => (
            "agent_deaf",
            format!(
                "the agent beats, but does not ask for its messages, of which {} wait; it has \
                 probably given up after an error, and needs to be restarted",
                agent.waiting.len()
            ),
        ),
    });
    if let Some((code, message)) = why {
        all.push(json!({"code": code, "severity": "warning", "message": message}));
    }
    if !agent.undelivered.is_empty() {
        let message = format!(
            "{} messages could not be delivered; `acta delivery ls` lists them, `acta delivery \
             retry` tries them again",
            agent.undelivered.len()
        );
        all.push(json!({"code": "delivery_failed", "severity": "error", "message": message}));
    }
    all
}

fn shape(state: &WorkerState) -> Value {
    let mut shape = json!({
        "id": state.worker,
        "runtime_id": state.runtime,
        "external": state.external.is_some(),
        "status": status(state),
        "created_at": state.spec.created_at,
        "last_event_id": state.last_seq,
        "transcript_len": state.items,
    });
    if let Some(agent) = &state.external {
        shape["name"] = json!(agent.label);
        shape["delivery_mode"] = json!(agent.delivery.mode);
        shape["url"] = json!(agent.delivery.url.as_deref().map(origin));
        shape["registered_at"] = json!(agent.registered_at);
        shape["waiting_messages"] = agent.waiting.len().into();
        shape["unread_replies"] = agent.replies.len().into();
        shape["read_through"] =
            json!((agent.messages_read.0 > 0).then(|| row_id(agent.messages_read)));
        shape["undelivered"] = agent
            .undelivered
            .iter()
            .map(|undelivered| {
                json!({"id": row_id(undelivered.message), "reason": undelivered.reason})
            })
            .collect();
        shape["diagnostics"] = diagnostics(agent).into();
    }
    shape
}

/// Where messages are posted to, without the path: that may be what makes it hard to guess.
fn origin(url: &str) -> String {
    let end = url.find("://").map_or(0, |at| at + 3);
    let path = url[end..].find(['/', '?', '#']).map_or(url.len(), |at| end + at);
    url[..path].to_owned()
}

/// All external workers, or a page of them.
pub(super) async fn list(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let query: ListQuery = query::query(&uri)?;
    let after = query.after.as_deref().map(address).transpose()?;
    let limit = query.limit.unwrap_or(usize::MAX);
    let at = past::parse(&app, query.at.as_deref()).await?;
    let page = past::with_projections(&app, at, |views| {
        let after = after.as_ref().map(|after| &after.worker_id);
        let of = views.workers.of(&external_runtime(), after);
        of.take(limit).map(|state| shape(state)).collect()
    });
    page.await.map(Json)
}

/// A worker of an agent, or else of this service's own runtime.
fn find(app: &App, caller: &Caller, id: &str) -> Reply<Arc<WorkerState>> {
    let address = address(id)?;
    may_read(caller, &address)?;
    found(app, &address.worker_id).ok_or_else(|| {
        let message = format!("there is no worker `{}`", address.worker_id);
        Rejection::new(Code::WorkerNotFound, message)
    })
}

fn found(app: &App, worker: &WorkerId) -> Option<Arc<WorkerState>> {
    let views = app.log.views();
    views.worker(&external_runtime(), worker).or_else(|| views.worker(&app.runtime, worker))
}

/// One worker.
pub(super) async fn show(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
) -> Reply<Json<Value>> {
    let state = find_at(&app, &caller, &id, &uri).await?;
    Ok(Json(shape(&state)))
}

/// A worker at the moment that a query asks for.
async fn find_at(app: &App, caller: &Caller, id: &str, uri: &Uri) -> Reply<Arc<WorkerState>> {
    let state = find(app, caller, id)?;
    let at = past::of_query(app, uri).await?;
    let worker = WorkerRef { runtime_id: state.runtime.clone(), worker_id: state.worker.clone() };
    past::worker(app, &worker, at).await
}

/// Whether its agent is there.
pub(super) async fn state(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
) -> Reply<Json<Value>> {
    let state = find_at(&app, &caller, &id, &uri).await?;
    let mut answer = json!({"status": status(&state)});
    if let Some(agent) = &state.external {
        let diagnostics = diagnostics(agent);
        if !diagnostics.is_empty() {
            answer["diagnostics"] = diagnostics.into();
        }
    }
    Ok(Json(answer))
}

/// Removes a worker for good, and with it its tokens.
pub(super) async fn remove(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    request: Request<Body>,
) -> Reply<Json<Value>> {
    caller.may(Permission::Command)?;
    let state = find(&app, &caller, &id)?;
    let worker = WorkerRef { runtime_id: state.runtime.clone(), worker_id: state.worker.clone() };
    let around = query::Around::of(&request)?;
    workers::finish(&caller, &app, &worker, around, None, WorkerStatus::Stopped).await?;
    Ok(Json(json!({"status": "removed"})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deaf_agent_is_explained() {
        let agent = External {
            degraded: Some(DegradedReason::Deaf),
            waiting: [acta_events::Sequence(7)].into(),
            ..External::default()
        };
        let diagnostics = diagnostics(&agent);
        assert_eq!(diagnostics[0]["code"], "agent_deaf");
        assert!(diagnostics[0]["message"].as_str().unwrap().contains("1 wait"));
    }
}
