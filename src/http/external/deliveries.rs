//! Messages that could not be delivered to the agents that they are for: a list, and another try.

use super::{
    super::{App, access::Caller, error::Reply, past, query},
    address, change, external_runtime, message_of, row_id, row_seq, worker,
};
use crate::{
    auth::Permission,
    command::ExternalChange,
    error::{Code, Rejection, shown},
};
use acta_events::{Event, Sequence, WorkerId, WorkerRef};
use acta_projections::{External, Projections, Undelivered, WorkerState, WorkerStatus};
use axum::{Json, extract::State, http::Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
struct ListQuery {
    worker: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    at: Option<String>,
}

/// What could not be delivered, worker by worker, each in the order in which its messages came.
///
/// A page has whole workers, so that it may be longer than `limit` by what the last one has.
pub(in super::super) async fn list(
    caller: Caller,
    State(app): State<App>,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadAll)?;
    let query: ListQuery = query::query(&uri)?;
    let most = app.limits.list_items;
    let limit = query.limit.unwrap_or(most);
    if limit == 0 || limit > most {
        return Err(query::limit_outside(limit, most));
    }
    let at = past::parse(&app, query.at.as_deref()).await?;
    let (workers, next) = match &query.worker {
        Some(id) => {
            let address = address(id)?;
            worker(&app, &address)?;
            (vec![past::worker(&app, &address, at).await?], None)
        }
        None => {
            let after = query.after.as_deref().map(address).transpose()?;
            let after = after.map(|after| after.worker_id);
            past::with_projections(&app, at, |views| page(views, after.as_ref(), limit)).await?
        }
    };
    let mut items = Vec::new();
    for state in &workers {
        let Some(agent) = &state.external else { continue };
        for undelivered in in_order(agent) {
            items.push(item(&app, state, agent, undelivered).await?);
        }
    }
    Ok(Json(json!({"deliveries": items, "next_after": next})))
}

/// The workers of a page, and the last of them if there are more.
fn page(
    views: &Projections,
    after: Option<&WorkerId>,
    limit: usize,
) -> (Vec<Arc<WorkerState>>, Option<WorkerId>) {
    let of = views.workers.of(&external_runtime(), after);
    let mut with_some = of.filter(|state| {
        // To one that was removed nothing is delivered any more.
        state.status == WorkerStatus::Running && count(state) > 0
    });
    let (mut workers, mut items) = (Vec::new(), 0);
    for state in with_some.by_ref() {
        items += count(state);
        workers.push(Arc::clone(state));
        if items >= limit {
            break;
        }
    }
    let more = with_some.next().is_some();
    let next = workers.last().map(|state| state.worker.clone()).filter(|_| more);
    (workers, next)
}

fn count(state: &WorkerState) -> usize {
    state.external.as_ref().map_or(0, |agent| agent.undelivered.len())
}

fn in_order(agent: &External) -> Vec<&Undelivered> {
    let mut all: Vec<_> = agent.undelivered.iter().collect();
    all.sort_by_key(|undelivered| undelivered.message);
    all
}

async fn item(
    app: &App,
    state: &WorkerState,
    agent: &External,
    undelivered: &Undelivered,
) -> Reply<Value> {
    let mut item = json!({
        "id": row_id(undelivered.message),
        "worker_id": state.worker,
        "name": agent.label,
        "reason": undelivered.reason,
        "failed_event_id": undelivered.failed,
    });
    if let Some(failed) = app.log.record(undelivered.failed).await? {
        item["failed_at"] = json!(failed.record.header.time);
        if let Event::DeliveryFailed(failed) = &failed.record.header.event {
            item["attempts"] = failed.attempts.into();
        }
    }
    if let Some(message) = app.log.record(undelivered.message).await? {
        item["received_at"] = json!(message.record.header.time);
        if let Event::MessageReceived(received) = &message.record.header.event {
            item["source_id"] = json!(received.source.as_ref().map(|source| &source.worker_id));
        }
    }
    Ok(item)
}

/// Tries a message again, which is named by its id alone.
pub(in super::super) async fn retry(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
) -> Reply<Json<Value>> {
    caller.may(Permission::Command)?;
    let message = named(&id)?;
    let unknown = || {
        let message = format!("{} is no message to an external worker", shown(&id));
        Rejection::new(Code::NotFound, message)
    };
    if message > app.log.head() {
        return Err(unknown());
    }
    app.log.retains(message)?;
    let logged = app.log.record(message).await?.ok_or_else(unknown)?;
    let header = &logged.record.header;
    let runtime = header.runtime.as_ref().filter(|id| **id == external_runtime());
    let (Some(runtime), Some(worker)) = (runtime, &header.worker) else { return Err(unknown()) };
    let of = WorkerRef { runtime_id: runtime.clone(), worker_id: worker.clone() };
    again(&caller, &app, &of, message).await
}

/// Tries a message of a worker again.
pub(super) async fn retry_of_worker(
    caller: Caller,
    State(app): State<App>,
    path: query::Segments,
) -> Reply<Json<Value>> {
    caller.may(Permission::Command)?;
    let of = address(&path.0)?;
    worker(&app, &of)?;
    again(&caller, &app, &of, named(&path.1)?).await
}

fn named(id: &str) -> Reply<Sequence> {
    row_seq(id).ok_or_else(|| {
        let message = format!(
            "a message is named by the id of its row, as in act-17, and not `{}`",
            shown(id)
        );
        Rejection::invalid(message)
    })
}

async fn again(
    caller: &Caller,
    app: &App,
    of: &WorkerRef,
    message: Sequence,
) -> Reply<Json<Value>> {
    app.log.retains(message)?;
    if message_of(app, of, message).await?.is_none() {
        let message =
            format!("{} is no message to worker `{}`", row_id(message), of.worker_id.as_str());
        return Err(Rejection::new(Code::NotFound, message));
    }
    let retry = ExternalChange::RetryDelivery { message };
    app.engine.submit(change(&caller.0.actor, of, retry)).await?;
    Ok(Json(json!({"status": "queued", "id": row_id(message), "worker_id": of.worker_id})))
}
