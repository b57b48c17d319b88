//! Erasing the content of an earlier record.

use super::{Decision, Draft, Facts};
use crate::{
    command::RedactionTarget,
    error::{Code, Rejection},
};
use acta_events::{ContentRedacted, ErasureOrder, Event, StoredContent};
use acta_projections::WorkerStatus;

pub(super) fn redact(
    facts: Facts<'_>,
    target: &RedactionTarget,
    reason: Option<&StoredContent>,
    repeats: Option<&ErasureOrder>,
) -> Result<Decision, Rejection> {
    let record = &target.record;
    let sequence = record.seq();
    let Some(content) = &record.content else {
        let message = format!(
            "record {sequence} has no content, so that there is nothing to erase: what is in its \
             header stays"
        );
        return Err(Rejection::new(Code::NothingToRedact, message));
    };
    if facts.globals.redactions.get(sequence).is_some() {
        return Ok(Decision::Unchanged);
    }
    if repeats.is_none() && waits_for_an_agent(facts, target) {
        let message = format!(
            "record {sequence} is a message that its agent has not dealt with yet; wait until it \
             has, or remove the worker, then redact again"
        );
        return Err(Rejection::new(Code::InputPending, message));
    }
    if repeats.is_none() && is_needed(facts, target) {
        let message = format!(
            "record {sequence} is an input that its worker is still to be given, or is at work on; \
             wait until it has answered, or stop or cancel the worker, then redact again"
        );
        return Err(Rejection::new(Code::InputPending, message));
    }
    let event = ContentRedacted { sequence, content: content.digest, repeats: repeats.cloned() };
    let draft = match &target.worker {
        Some(worker) if facts.worker.is_some() => Draft::of_worker(worker, event),
        _ => Draft::of_service(event),
    };
    Ok(draft.with(reason.cloned()).into())
}

/// Whether the content is a message that the agent of an external worker is still to be given. One
/// that is not tried to be delivered any more may go: trying it again says that it was erased.
fn waits_for_an_agent(facts: Facts<'_>, target: &RedactionTarget) -> bool {
    let Some(state) = facts.worker.filter(|state| state.status == WorkerStatus::Running) else {
        return false;
    };
    let waiting = state.external.as_ref().map(|agent| &agent.waiting);
    waiting.is_some_and(|waiting| waiting.contains(&target.record.seq()))
}

/// Whether the content is an input that was not given to its worker yet, or that would be given to
/// it once more if the service ended now.
fn is_needed(facts: Facts<'_>, target: &RedactionTarget) -> bool {
    let Event::WorkerInputAccepted(_) = &target.record.header.event else { return false };
    let Some(state) = facts.worker else { return false };
    let seq = target.record.seq();
    let waits = state.pending > 0 && seq > state.settled;
    let is_answered = state.open_turn.and_then(|turn| turn.input) == Some(seq);
    state.status == WorkerStatus::Running && (waits || is_answered)
}
