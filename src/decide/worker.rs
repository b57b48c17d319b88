//! One worker: what may be asked of it, and what its backend's reports mean.

use super::{
    Decision, Draft, Facts,
    external::{has_room, revoked_tokens},
    registry::unknown_runtime,
};
use crate::{
    command::Outcome,
    error::{Code, Rejection, shown},
};
use acta_events::{
    InputKind, OutputKind, ProfileSelector, StoredContent, TextSpan, WorkerCancelled,
    WorkerConnected, WorkerCreated, WorkerDiagnosed, WorkerExited, WorkerInputAccepted,
    WorkerInputDispatched, WorkerInputFailed, WorkerInterrupted, WorkerOutput, WorkerProcessEnded,
    WorkerProcessStarted, WorkerRef, WorkerSpawnFailed, WorkerStopped, WorkerTurnEnded,
};
use acta_projections::{Child, RuntimeStatus, WorkerState, WorkerStatus};
use std::sync::Arc;

pub(super) fn create(
    facts: Facts<'_>,
    worker: &WorkerRef,
    created: &WorkerCreated,
    texts: Option<StoredContent>,
) -> Result<Decision, Rejection> {
    running_runtime(facts, worker)?;
    if facts.worker.is_some() {
        let message = format!("a worker `{}` exists already", worker.worker_id);
        return Err(Rejection::invalid(message));
    }
    check_profile(facts, created)?;
    Ok(Draft::of_worker(worker, created.clone()).with(texts).into())
}

pub(super) fn running_runtime(facts: Facts<'_>, worker: &WorkerRef) -> Result<(), Rejection> {
    match facts.globals.runtimes.get(&worker.runtime_id) {
        None => Err(unknown_runtime(&worker.runtime_id)),
        Some(runtime) if runtime.status == RuntimeStatus::Stopped => {
            let message = format!(
                "runtime `{}` is stopped: what it has can be read, but it takes no more work",
                worker.runtime_id
            );
            Err(Rejection::new(Code::RuntimeStopped, message))
        }
        Some(_) => Ok(()),
    }
}

fn check_profile(facts: Facts<'_>, created: &WorkerCreated) -> Result<(), Rejection> {
    let bundle = match &created.config_bundle {
        None => None,
        Some(bundle) => Some(facts.globals.bundles.get(bundle).ok_or_else(|| {
            if facts.globals.bundles.knows_id(&bundle.id) {
                let message = format!(
                    "config bundle `{}` is stored under another digest than {}",
                    shown(&bundle.id),
                    shown(&bundle.digest)
                );
                Rejection::new(Code::ConfigBundleDigestMismatch, message)
            } else {
                let message = format!(
                    "there is no config bundle `{}`; store it with POST /v1/config-bundles first",
                    shown(&bundle.id)
                );
                Rejection::new(Code::ConfigBundleMissing, message)
            }
        })?),
    };
    let selector = match (&created.profile, bundle) {
        (ProfileSelector::Named(name), None) => {
            let message = format!(
                "profile `{}` is a named one, which needs a `config_bundle` that declares it",
                shown(name)
            );
            return Err(Rejection::new(Code::InvalidProfileSelector, message));
        }
        (ProfileSelector::RuntimeDefault, _) | (_, None) => return Ok(()),
        (ProfileSelector::Named(name) | ProfileSelector::Builtin(name), Some(_)) => name,
    };
    match bundle {
        Some(bundle) if !bundle.stored.profiles.contains(selector) => {
            let message = format!(
                "profile `{}` is not declared in config bundle `{}`, which has: {}",
                shown(selector),
                shown(&bundle.stored.bundle.id),
                shown(&bundle.stored.profiles.join(", "))
            );
            Err(Rejection::new(Code::InvalidProfileSelector, message))
        }
        _ => Ok(()),
    }
}

pub(super) fn existing<'a>(
    facts: Facts<'a>,
    worker: &WorkerRef,
) -> Result<&'a Arc<WorkerState>, Rejection> {
    facts.worker.ok_or_else(|| {
        let message = format!(
            "there is no worker `{}` in runtime `{}`; `acta ls workers` lists them",
            worker.worker_id, worker.runtime_id
        );
        Rejection::new(Code::WorkerNotFound, message)
    })
}

pub(super) fn input(
    facts: Facts<'_>,
    worker: &WorkerRef,
    kind: InputKind,
    content: &StoredContent,
) -> Result<Decision, Rejection> {
    let state = existing(facts, worker)?;
    let id = &worker.worker_id;
    let refuse = |code, message: String| Err(Rejection::new(code, message));
    let ended = match state.status {
        WorkerStatus::Running => None,
        WorkerStatus::Stopped => Some("stopped"),
        WorkerStatus::Cancelled => Some("cancelled"),
    };
    if let Some(ended) = ended {
        let message =
            format!("worker `{id}` is {ended} and takes no more input; spawn another one");
        return refuse(Code::InvalidRequest, message);
    }
    let gone = |how: &str| {
        format!("worker `{id}` {how} and takes no more input; stop it and spawn another one")
    };
    let accept = || {
        let accepted =
            WorkerInputAccepted { kind, item: state.items + 1, revision: state.revision.next() };
        Ok(Draft::of_worker(worker, accepted).with(Some(content.clone())).into())
    };
    if let Some(external) = &state.external {
        has_room(worker, external)?;
        return accept();
    }
    match state.child {
        Child::Unconnected => refuse(
            Code::WorkerExecutionUnavailable,
            format!(
                "nothing runs worker `{id}`: it was created without a template that can be \
                 started; spawn one with a template that `acta show runtime` lists as startable"
            ),
        ),
        Child::Failed => refuse(Code::WorkerExecutionRejected, gone("could not be started")),
        Child::Finished => refuse(Code::WorkerExecutionRejected, gone("has ended (exit code 0)")),
        Child::Broken => refuse(Code::WorkerExecutionRejected, gone("has ended with an error")),
        Child::Starting | Child::Ready | Child::Lost => accept(),
    }
}

pub(super) fn stop(
    facts: Facts<'_>,
    worker: &WorkerRef,
    reason: Option<StoredContent>,
) -> Result<Decision, Rejection> {
    let state = existing(facts, worker)?;
    if state.terminal.is_some() {
        return Ok(Decision::Unchanged);
    }
    let stopped = WorkerStopped { revision: state.revision.next() };
    Ok(ended(facts, worker, state, Draft::of_worker(worker, stopped).with(reason)))
}

pub(super) fn cancel(
    facts: Facts<'_>,
    worker: &WorkerRef,
    reason: Option<StoredContent>,
) -> Result<Decision, Rejection> {
    let state = existing(facts, worker)?;
    if state.terminal.is_some() {
        return Ok(Decision::Unchanged);
    }
    let cancelled = WorkerCancelled { revision: state.revision.next() };
    Ok(ended(facts, worker, state, Draft::of_worker(worker, cancelled).with(reason)))
}

/// With an external worker go its tokens.
fn ended(facts: Facts<'_>, worker: &WorkerRef, state: &WorkerState, draft: Draft) -> Decision {
    if state.external.is_none() {
        return draft.into();
    }
    let mut drafts = vec![draft];
    drafts.extend(revoked_tokens(facts, worker));
    Decision::RecordAll(drafts)
}

pub(super) fn outcome(state: &WorkerState, outcome: &Outcome) -> Result<Decision, Rejection> {
    let worker = WorkerRef { runtime_id: state.runtime.clone(), worker_id: state.worker.clone() };
    let ended = state.terminal.is_some();
    Ok(match outcome {
        Outcome::Connected { backend, process } if !ended => {
            let connected = WorkerConnected {
                backend: (*backend).into(),
                incarnation: state.incarnation + 1,
                process: process.clone(),
            };
            Draft::of_worker(&worker, connected).into()
        }
        Outcome::SpawnFailed { message } if !ended => {
            Draft::of_worker(&worker, WorkerSpawnFailed { message: message.clone() }).into()
        }
        Outcome::Dispatching { input, turn } if !ended => {
            Draft::of_worker(&worker, WorkerInputDispatched { input: *input, turn: *turn }).into()
        }
        Outcome::Started { turn, process } if !ended => {
            let started = WorkerProcessStarted { turn: *turn, process: process.clone() };
            Draft::of_worker(&worker, started).into()
        }
        Outcome::Output { turn, kind, content } => {
            let output = WorkerOutput { event: *kind, turn: *turn, text: None };
            Draft::of_worker(&worker, output).with(Some(content.clone())).into()
        }
        Outcome::TextDone { turn } => match state.open_text {
            None => Decision::Unchanged,
            Some(open) => {
                let span = TextSpan { first: open.first, bytes: open.bytes, item: state.items + 1 };
                let done =
                    WorkerOutput { event: OutputKind::TextDone, turn: *turn, text: Some(span) };
                Draft::of_worker(&worker, done).into()
            }
        },
        Outcome::TurnEnded { turn, result, exit } => {
            let ended = WorkerTurnEnded { turn: *turn, result: *result, exit: *exit };
            Draft::of_worker(&worker, ended).into()
        }
        Outcome::Diagnosed { source, content } => {
            let diagnosed = WorkerDiagnosed { source: (*source).into() };
            Draft::of_worker(&worker, diagnosed).with(Some(content.clone())).into()
        }
        Outcome::InputFailed { input, message } if !ended => {
            // One that had been dispatched is not waiting any more.
            let count = u64::from(*input > state.settled).min(state.pending);
            let failed = WorkerInputFailed { through: *input, count, message: message.clone() };
            Draft::of_worker(&worker, failed).into()
        }
        Outcome::AllInputsFailed { message } if state.pending > 0 => {
            let failed = WorkerInputFailed {
                through: state.last_seq,
                count: state.pending,
                message: message.clone(),
            };
            Draft::of_worker(&worker, failed).into()
        }
        Outcome::Exited { exit } => Draft::of_worker(&worker, WorkerExited { exit: *exit }).into(),
        Outcome::Interrupted { reason, again } if !ended => {
            let input = state.open_turn.and_then(|open| open.input);
            let interrupted = WorkerInterrupted {
                reason: (*reason).into(),
                turn: state.open_turn.map(|open| open.turn),
                input,
                again: *again && input.is_some(),
            };
            Draft::of_worker(&worker, interrupted).into()
        }
        Outcome::Interrupted { .. } if state.process.is_some() || state.open_turn.is_some() => {
            let turn = state.open_turn.map(|open| open.turn);
            Draft::of_worker(&worker, WorkerProcessEnded { turn }).into()
        }
        // What is about to begin must not begin without its record.
        Outcome::Connected { .. } | Outcome::Dispatching { .. } | Outcome::Started { .. } => {
            let message = format!("worker `{}` has ended", state.worker);
            return Err(Rejection::invalid(message));
        }
        _ => Decision::Unchanged,
    })
}
