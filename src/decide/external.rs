//! External workers: agents that connect in, what is said to them, what they answer.
//!
//! Presence is decided here from what a beat says; when a lease has run out is for whoever has a
//! clock to say. A change that is so already is no event, so that a fleet at rest writes nothing.

use super::{
    Decision, Draft, Facts,
    worker::{existing, running_runtime},
};
use crate::{
    command::{AgentHealth, ExternalChange, NewExternal},
    error::{Code, Rejection},
};
use acta_events::{
    AgentAwaited, AgentRegistered, DegradedReason, Delivery, DeliveryFailed, DeliveryMode,
    DeliveryRetried, Event, Inbox, InboxRead, MessageAnswered, MessageDelivered, MessageReceived,
    ReplyReceived, Sequence, StoredContent, TokenRevoked, WorkerDegraded, WorkerNotified,
    WorkerOffline, WorkerOnline, WorkerRecovered, WorkerRef, WorkerReported,
};
use acta_projections::{External, Presence, WAITING_MAX, WorkerState, WorkerStatus};

/// Makes a worker that an agent connects in for, with its token, all in one.
pub(super) fn create(
    facts: Facts<'_>,
    worker: &WorkerRef,
    new: &NewExternal,
) -> Result<Decision, Rejection> {
    running_runtime(facts, worker)?;
    if facts.worker.is_some() {
        let message = format!("a worker `{}` exists already", worker.worker_id);
        return Err(Rejection::invalid(message));
    }
    let mut drafts = vec![
        Draft::of_worker(worker, new.created.clone()),
        Draft::of_worker(worker, AgentAwaited { label: new.label.clone() }),
    ];
    if let Some(url) = &new.url {
        let delivery = Delivery { mode: DeliveryMode::Push, url: Some(url.clone()) };
        drafts.push(Draft::of_worker(worker, AgentRegistered { delivery, leased: false }));
    }
    if let Some(token) = &new.token {
        drafts.push(Draft::of_service(token.clone()));
    }
    Ok(Decision::RecordAll(drafts))
}

/// What ends a worker revokes its tokens.
pub(super) fn revoked_tokens(facts: Facts<'_>, worker: &WorkerRef) -> Vec<Draft> {
    let tokens = facts.globals.tokens.iter();
    let own = tokens
        .filter(|(_, token)| token.revoked_at.is_none() && token.worker.as_ref() == Some(worker));
    own.map(|(id, _)| Draft::of_service(TokenRevoked { token: id.clone() })).collect()
}

/// Refuses a message if too many wait already.
pub(super) fn has_room(worker: &WorkerRef, external: &External) -> Result<(), Rejection> {
    if external.waiting.len() < WAITING_MAX {
        return Ok(());
    }
    let message = format!(
        "{} messages wait for worker `{}`, and no more are accepted until its agent has dealt \
         with some",
        external.waiting.len(),
        worker.worker_id
    );
    Err(Rejection::new(Code::Overloaded, message))
}

pub(super) fn change(
    facts: Facts<'_>,
    worker: &WorkerRef,
    change: &ExternalChange,
) -> Result<Decision, Rejection> {
    let state = existing(facts, worker)?;
    let Some(external) = &state.external else {
        let message = format!("worker `{}` is not one that an agent connects to", worker.worker_id);
        return Err(Rejection::invalid(message));
    };
    if let ExternalChange::Answer { message, asker, answer, reply } = change {
        let answered = Answered { message: *message, asker: asker.as_ref() };
        return Ok(answered.decide(facts, state, external, answer, reply.as_ref()));
    }
    if state.status != WorkerStatus::Running {
        return ended(worker, change);
    }
    let of = |event: Event| Draft::of_worker(worker, event);
    let item = state.items + 1;
    Ok(match change {
        ExternalChange::Register { delivery, card } => {
            let registered = AgentRegistered { delivery: delivery.clone(), leased: true };
            of(registered.into()).with(card.clone()).into()
        }
        ExternalChange::Beat { health, sample } => beat(worker, external, *health, sample.as_ref()),
        ExternalChange::Lost if external.presence == Presence::AwaitingAgent => Decision::Unchanged,
        ExternalChange::Lost => of(WorkerOffline {}.into()).into(),
        ExternalChange::WentDeaf if external.presence == Presence::Online => {
            of(WorkerDegraded { reason: DegradedReason::Deaf }.into()).into()
        }
        ExternalChange::Listens if external.degraded == Some(DegradedReason::Deaf) => {
            of(WorkerRecovered {}.into()).into()
        }
        ExternalChange::WentDeaf | ExternalChange::Listens => Decision::Unchanged,
        ExternalChange::Message { source, method, content } => {
            has_room(worker, external)?;
            let (source, method) = (source.clone(), method.clone());
            let received = MessageReceived { source, method, item };
            of(received.into()).with(Some(content.clone())).into()
        }
        ExternalChange::Notify { message, content } => {
            if message.is_some_and(|message| external.answer_to(message).is_some()) {
                return Ok(Decision::Unchanged);
            }
            let notified = WorkerNotified { message: *message, item };
            of(notified.into()).with(Some(content.clone())).into()
        }
        ExternalChange::Report { activity, message, content } => {
            let reported = WorkerReported { activity: *activity, message: *message, item };
            of(reported.into()).with(Some(content.clone())).into()
        }
        ExternalChange::Answer { .. } => Decision::Unchanged,
        ExternalChange::Read { inbox, through } => read(worker, external, *inbox, *through),
        ExternalChange::Delivered { message, attempts, answer } => {
            let mut drafts = Vec::new();
            if external.waiting.contains(message) {
                let (message, attempts) = (*message, *attempts);
                drafts.push(of(MessageDelivered { message, attempts }.into()));
            }
            if let Some((asker, answer, reply)) = answer {
                let answered = Answered { message: *message, asker: asker.as_ref() };
                let decided = answered.decide(facts, state, external, answer, reply.as_ref());
                drafts.extend(decided.drafts());
            }
            Decision::all(drafts)
        }
        ExternalChange::DeliveryFailed { message, attempts, reason } => {
            if !external.waiting.contains(message) {
                return Ok(Decision::Unchanged);
            }
            let (message, attempts, reason) = (*message, *attempts, reason.clone());
            of(DeliveryFailed { message, attempts, reason }.into()).into()
        }
        ExternalChange::RetryDelivery { message } => retry(worker, external, *message)?,
    })
}

/// Of a worker that was removed nothing changes any more. Who speaks to it hears so; what the
/// service itself noticed a moment too late has no meaning.
fn ended(worker: &WorkerRef, change: &ExternalChange) -> Result<Decision, Rejection> {
    let is_late = matches!(
        change,
        ExternalChange::Lost
            | ExternalChange::WentDeaf
            | ExternalChange::Listens
            | ExternalChange::Read { .. }
            | ExternalChange::Delivered { .. }
            | ExternalChange::DeliveryFailed { .. }
    );
    if is_late {
        return Ok(Decision::Unchanged);
    }
    let message = format!("worker `{}` was removed; create another one", worker.worker_id);
    Err(Rejection::new(Code::WorkerExecutionRejected, message))
}

fn beat(
    worker: &WorkerRef,
    external: &External,
    health: AgentHealth,
    sample: Option<&StoredContent>,
) -> Decision {
    match (health, external.presence) {
        (AgentHealth::Bad(reason), _) if external.degraded != Some(reason) => {
            Draft::of_worker(worker, WorkerDegraded { reason }).with(sample.cloned()).into()
        }
        (AgentHealth::Good | AgentHealth::Fair, Presence::AwaitingAgent) => {
            Draft::of_worker(worker, WorkerOnline {}).into()
        }
        // That it says that it is well does not make it listen.
        (AgentHealth::Good, Presence::Degraded)
            if external.degraded != Some(DegradedReason::Deaf) =>
        {
            Draft::of_worker(worker, WorkerRecovered {}).into()
        }
        // From now on it has to beat.
        (_, Presence::Online) if !external.leased => {
            Draft::of_worker(worker, WorkerOnline {}).into()
        }
        _ => Decision::Unchanged,
    }
}

fn read(worker: &WorkerRef, external: &External, inbox: Inbox, through: Sequence) -> Decision {
    let messages = inbox != Inbox::Replies && through > external.messages_read;
    let replies = inbox != Inbox::Messages && through > external.replies_read;
    let inbox = match (messages, replies) {
        (true, true) => Inbox::All,
        (true, false) => Inbox::Messages,
        (false, true) => Inbox::Replies,
        (false, false) => return Decision::Unchanged,
    };
    Draft::of_worker(worker, InboxRead { inbox, through }).into()
}

fn retry(
    worker: &WorkerRef,
    external: &External,
    message: Sequence,
) -> Result<Decision, Rejection> {
    if external.waiting.contains(&message) {
        return Ok(Decision::Unchanged);
    }
    if external.undelivered(message).is_none() {
        let message = format!(
            "act-{message} is not among the messages that could not be delivered to worker `{}`: \
             it was delivered, or it failed so long ago that it is not kept; `acta delivery ls` \
             lists what can be tried again",
            worker.worker_id
        );
        return Err(Rejection::new(Code::NotUndelivered, message));
    }
    has_room(worker, external)?;
    Ok(Draft::of_worker(worker, DeliveryRetried { message }).into())
}

/// An answer to a message, which becomes durable with the reply that its asker gets.
struct Answered<'a> {
    message: Sequence,
    asker: Option<&'a WorkerRef>,
}

impl Answered<'_> {
    fn decide(
        &self,
        facts: Facts<'_>,
        state: &WorkerState,
        external: &External,
        answer: &StoredContent,
        reply: Option<&StoredContent>,
    ) -> Decision {
        if external.answer_to(self.message).is_some() {
            return Decision::Unchanged;
        }
        let worker =
            WorkerRef { runtime_id: state.runtime.clone(), worker_id: state.worker.clone() };
        let answered = MessageAnswered {
            message: self.message,
            asker: self.asker.cloned(),
            item: state.items + 1,
        };
        let mut drafts = vec![Draft::of_worker(&worker, answered).with(Some(answer.clone()))];
        // Whoever asked may be gone by now; that it was answered is still a fact.
        let asker = facts
            .peer
            .filter(|asker| asker.status == WorkerStatus::Running && asker.external.is_some());
        if let (Some(asker), Some(reply)) = (asker, reply) {
            let to =
                WorkerRef { runtime_id: asker.runtime.clone(), worker_id: asker.worker.clone() };
            // One that asks itself gets both records, one after the other.
            let item = asker.items + if to == worker { 2 } else { 1 };
            let received = ReplyReceived { source: worker, message: self.message, item };
            drafts.push(Draft::of_worker(&to, received).with(Some(reply.clone())));
        }
        Decision::RecordAll(drafts)
    }
}
