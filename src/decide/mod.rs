//! Deciding: from what is so and what is asked to what happens. Pure.
//!
//! `decide` sees the state that all commands before it have made, whether or not they are
//! durable yet, and answers with the events to record, with "it is so already", or with a
//! refusal. It assigns no sequence and reads no clock.

mod access;
mod external;
mod hosts;
mod local_pods;
mod redaction;
mod registry;
mod retention;
#[cfg(test)]
mod tests;
mod worker;

use crate::{
    command::{Command, Outcome},
    error::Rejection,
};
use acta_events::{
    Actor, DispatchResumed, Event, RuntimeId, ServiceStarted, ServiceStopped, StoredContent,
    Timestamp, WorkerId, WorkerRef,
};
use acta_projections::{Projections, WorkerState};
use std::sync::Arc;

/// An event that has been decided and has no sequence yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The runtime it is about.
    pub runtime: Option<RuntimeId>,
    /// The worker it is about.
    pub worker: Option<WorkerId>,
    /// What happens.
    pub event: Event,
    /// What a person or an agent wrote.
    pub content: Option<StoredContent>,
}

impl Draft {
    fn of_worker(worker: &WorkerRef, event: impl Into<Event>) -> Self {
        Self {
            runtime: Some(worker.runtime_id.clone()),
            worker: Some(worker.worker_id.clone()),
            event: event.into(),
            content: None,
        }
    }

    fn of_runtime(runtime: &RuntimeId, event: impl Into<Event>) -> Self {
        Self { runtime: Some(runtime.clone()), worker: None, event: event.into(), content: None }
    }

    fn of_service(event: impl Into<Event>) -> Self {
        Self { runtime: None, worker: None, event: event.into(), content: None }
    }

    fn with(self, content: Option<StoredContent>) -> Self {
        Self { content, ..self }
    }
}

/// What a command leads to.
#[derive(Clone, Debug)]
pub enum Decision {
    /// This is recorded.
    Record(Box<Draft>),
    /// These are recorded, all of them or none; there is at least one.
    RecordAll(Vec<Draft>),
    /// It is so already.
    Unchanged,
}

impl Decision {
    /// What is to be recorded, which may be nothing.
    pub fn all(drafts: Vec<Draft>) -> Self {
        if drafts.is_empty() { Self::Unchanged } else { Self::RecordAll(drafts) }
    }

    /// What is to be recorded, in order.
    pub fn drafts(self) -> Vec<Draft> {
        match self {
            Self::Record(draft) => vec![*draft],
            Self::RecordAll(drafts) => drafts,
            Self::Unchanged => Vec::new(),
        }
    }
}

impl From<Draft> for Decision {
    fn from(draft: Draft) -> Self {
        Self::Record(Box::new(draft))
    }
}

/// What a decision is based upon.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Everything but the worker, as far as it is durable.
    pub globals: &'a Projections,
    /// The worker that the command is about, with all that was decided about it so far.
    pub worker: Option<&'a Arc<WorkerState>>,
    /// Another worker that it concerns, likewise.
    pub peer: Option<&'a Arc<WorkerState>>,
    /// Who asks.
    pub actor: &'a Actor,
    /// The time of the decision.
    pub now: Timestamp,
}

/// Decides one command. What backends report is decided by [`decide_outcome`].
pub fn decide(facts: Facts<'_>, command: &Command) -> Result<Decision, Rejection> {
    match command {
        Command::StartService { acta } => {
            Ok(Draft::of_service(ServiceStarted { acta: acta.clone() }).into())
        }
        Command::StopService { reason } => {
            Ok(Draft::of_service(ServiceStopped { reason: reason.clone() }).into())
        }
        Command::ForkLog { forked, reason } => {
            Ok(Draft::of_service(forked.clone()).with(reason.clone()).into())
        }
        Command::ResumeDispatch if !facts.globals.lineage.is_paused() => Ok(Decision::Unchanged),
        Command::ResumeDispatch => {
            let epoch = facts.globals.lineage.current();
            Ok(Draft::of_service(DispatchResumed { epoch }).into())
        }
        Command::ExpireHistory(expired) => Ok(retention::expire(facts, expired)),
        Command::RegisterRuntime { runtime, registered } => {
            Ok(registry::register_runtime(facts, runtime, registered))
        }
        Command::RegisterRemote { runtime, registered } => {
            registry::register_remote(facts, runtime, registered)
        }
        Command::RetireRuntime { runtime } => registry::retire_runtime(facts, runtime),
        Command::StopRuntime { runtime } => registry::stop_runtime(facts, runtime),
        Command::RegisterHost { runtime, registered } => {
            hosts::register(facts, runtime, registered)
        }
        Command::LoseHost { host, last_seen_at } => Ok(hosts::lose(facts, host, *last_seen_at)),
        Command::FindHost { host } => hosts::find(facts, host),
        Command::FindLocalWorker { runtime, found } => Ok(local_pods::find(facts, runtime, found)),
        Command::LoseLocalWorker { runtime, worker } => {
            Ok(local_pods::lose(facts, runtime, worker))
        }
        Command::InspectLocalPods { runtime, inspected } => {
            Ok(local_pods::inspect(facts, runtime, inspected))
        }
        Command::StoreBundle { stored, document } => {
            Ok(registry::store_bundle(facts, stored, document))
        }
        Command::CreateWorker { worker, created, texts } => {
            worker::create(facts, worker, created, texts.clone())
        }
        Command::CreateExternal { worker, new } => external::create(facts, worker, new),
        Command::External { worker, change } => external::change(facts, worker, change),
        Command::Input { worker, kind, content } => worker::input(facts, worker, *kind, content),
        Command::Stop { worker, reason } => worker::stop(facts, worker, reason.clone()),
        Command::Cancel { worker, reason } => worker::cancel(facts, worker, reason.clone()),
        Command::CommitCursor { name, cursor, position, steps } => {
            Ok(access::commit_cursor(facts, name, cursor, *position, *steps))
        }
        Command::IssueToken(issued) => access::issue_token(facts, issued),
        Command::RevokeToken { token } => access::revoke_token(facts, token),
        Command::Redact { target, reason, repeats } => {
            redaction::redact(facts, target, reason.as_ref(), repeats.as_ref())
        }
        Command::RecordReads(reads) => Ok(Draft::of_service(reads.clone()).into()),
        Command::Report { .. } => Ok(Decision::Unchanged),
    }
}

/// Decides what one outcome of work means for its worker. What does not fit the worker's state
/// any more is left out; what may not begin any more is refused.
pub fn decide_outcome(state: &WorkerState, outcome: &Outcome) -> Result<Decision, Rejection> {
    worker::outcome(state, outcome)
}
