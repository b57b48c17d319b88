//! External workers on the wire of the original platform, where a worker is a workspace.

mod create;
pub(super) mod deliveries;
mod inbox;
mod message;
mod presence;
mod report;
mod rows;
mod show;
mod snippets;

use super::{App, access::Caller, error::Reply};
use crate::{
    agents::{AddressPolicy, Leases, external_runtime},
    auth::Permission,
    command::{CommandKey, ExternalChange},
    error::{Code, Rejection, shown},
};
use acta_events::{Actor, Event, IdempotencyKey, Record, Role, Sequence, WorkerId, WorkerRef};
use acta_projections::{External, WorkerState};
use axum::{
    Router,
    routing::{get, post},
};
use std::{sync::Arc, time::Duration};

/// What the handlers of external workers need beside the rest.
#[derive(Clone)]
pub struct Agents {
    /// Who was heard of when.
    pub leases: Leases,
    /// Where messages may be posted to.
    pub addresses: AddressPolicy,
    /// How agents reach this service, if a request's own headers do not tell.
    pub platform_url: Option<String>,
    /// How long a message waits for the answer of an agent that it is posted to.
    pub answer_wait: Duration,
}

/// Reads and writes take other roles; see each handler.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaces", get(show::list).post(create::create))
        .route("/workspaces/{id}", get(show::show).delete(show::remove))
        .route("/workspaces/{id}/state", get(show::state))
        .route("/workspaces/{id}/activity", get(inbox::poll).post(report::report))
        .route("/workspaces/{id}/notify", post(report::notify))
        .route("/workspaces/{id}/a2a", post(message::send))
        .route("/workspaces/{id}/deliveries/{message}/retry", post(deliveries::retry_of_worker))
        .route("/registry/register", post(presence::register))
        .route("/registry/heartbeat", post(presence::heartbeat))
}

/// The address of an external worker. A text that is no identifier names none.
fn address(text: &str) -> Reply<WorkerRef> {
    let worker_id = WorkerId::parse(text)
        .map_err(|error| Rejection::new(Code::InvalidWorkerId, error.to_string()))?;
    Ok(WorkerRef { runtime_id: external_runtime(), worker_id })
}

/// An external worker, which may have ended.
fn worker(app: &App, address: &WorkerRef) -> Reply<Arc<WorkerState>> {
    app.log.views().worker(&address.runtime_id, &address.worker_id).ok_or_else(|| {
        let message = format!(
            "there is no external worker `{}`; GET /workspaces lists them",
            shown(address.worker_id.as_str())
        );
        Rejection::new(Code::WorkerNotFound, message)
    })
}

fn external(state: &WorkerState) -> Reply<&Arc<External>> {
    state.external.as_ref().ok_or_else(|| {
        Rejection::new(Code::Internal, "a worker of the external runtime has no agent state")
    })
}

/// Refuses unless the caller speaks for this worker.
fn own(caller: &Caller, address: &WorkerRef) -> Reply<()> {
    caller.0.require_worker(address)
}

/// Whether the caller is the worker's own agent, and not an operator in its place.
fn is_agent(caller: &Caller, address: &WorkerRef) -> bool {
    caller.0.role == Role::Worker && caller.0.worker.as_ref() == Some(address)
}

/// Refuses unless the caller may read this worker: its own agent, or whoever reads workers.
fn may_read(caller: &Caller, address: &WorkerRef) -> Reply<()> {
    match caller.0.role {
        Role::Worker => own(caller, address),
        _ => caller.may(Permission::ReadWorkers),
    }
}

fn change(actor: &Actor, worker: &WorkerRef, change: ExternalChange) -> crate::command::Request {
    let command =
        crate::command::Command::External { worker: worker.clone(), change: Box::new(change) };
    let actor = actor.clone();
    crate::command::Request { actor, key: None, if_match: None, trace: None, command }
}

/// What clients call a record that they can continue after.
fn row_id(seq: Sequence) -> String {
    format!("act-{seq}")
}

/// The record that a row's id names; none if it is not of that form.
fn row_seq(id: &str) -> Option<Sequence> {
    let digits = id.strip_prefix("act-")?;
    let canonical = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    canonical.then(|| digits.parse().ok().map(Sequence))?
}

/// A key of the service's own making: what comes under it again is the same again.
fn own_key(kind: &str, parts: &[&[u8]]) -> Option<CommandKey> {
    let digest = acta_events::sha256(parts);
    IdempotencyKey::parse(&format!("{kind}:{digest}")).ok().map(CommandKey::of_anything)
}

/// Refuses an input whose row would not fit a page.
pub(super) fn check_input(text: &str) -> Reply<()> {
    let bytes = serde_json::to_string(text).map_or(0, |json| json.len());
    if bytes <= rows::ENVELOPE_BYTES_MAX - 1_024 {
        return Ok(());
    }
    let message = format!(
        "the input has {bytes} bytes as JSON; an agent that connects in reads at most {}",
        rows::ENVELOPE_BYTES_MAX
    );
    Err(Rejection::new(Code::PayloadTooLarge, message))
}

/// The record of a message or an input that this worker got.
async fn message_of(app: &App, address: &WorkerRef, seq: Sequence) -> Reply<Option<Arc<Record>>> {
    if seq > app.log.head() {
        return Ok(None);
    }
    let Some(logged) = app.log.record(seq).await? else { return Ok(None) };
    let header = &logged.record.header;
    let is_own = header.runtime.as_ref() == Some(&address.runtime_id)
        && header.worker.as_ref() == Some(&address.worker_id);
    let is_message =
        matches!(header.event, Event::MessageReceived(_) | Event::WorkerInputAccepted(_));
    Ok((is_own && is_message).then(|| Arc::clone(&logged.record)))
}
