//! What there is of a worker only if an agent connects in for it: presence, and what waits.
//!
//! Everything here is bounded: what waits is limited when it is accepted, and of what only
//! explains (answers, undelivered messages) the newest are kept.

use acta_events::{DegradedReason, Delivery, Event, Header, Inbox, RuntimeId, Sequence, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The runtime of the workers that agents connect in for.
pub const EXTERNAL_RUNTIME: &str = "external";

/// How many messages may wait for one agent.
pub const WAITING_MAX: usize = 10_000;

/// How many replies that were not read yet are known one by one; older ones are found in the log.
pub const REPLIES_KEPT: usize = 256;

/// How many of the newest answers are remembered with what they answer.
pub const ANSWERS_KEPT: usize = 512;

/// How many of the newest messages that could not be delivered are remembered.
pub const UNDELIVERED_KEPT: usize = 1_024;

/// Whether the agent is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// None is; one may come at any time.
    #[default]
    AwaitingAgent,
    /// It is.
    Online,
    /// It is, but of limited use.
    Degraded,
}

impl Presence {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingAgent => "awaiting_agent",
            Self::Online => "online",
            Self::Degraded => "degraded",
        }
    }
}

/// A message and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The message.
    pub message: Sequence,
    /// The record that answers it.
    pub answer: Sequence,
}

/// A message that is not tried to be delivered any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// The message.
    pub message: Sequence,
    /// The record that says so.
    pub failed: Sequence,
    /// What the last attempt came to.
    pub reason: String,
}

/// An external worker's agent, and what waits for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct External {
    /// What people call the worker.
    pub label: Option<String>,
    /// Whether the agent is there.
    pub presence: Presence,
    /// Why it is of limited use, if it is.
    pub degraded: Option<DegradedReason>,
    /// Whether it has to beat to stay online.
    pub leased: bool,
    /// How messages get to it.
    pub delivery: Delivery,
    /// When it registered last.
    pub registered_at: Option<Timestamp>,
    /// Messages that it has not dealt with, in the order in which it gets them.
    pub waiting: VecDeque<Sequence>,
    /// It has dealt with all messages up to here.
    pub messages_read: Sequence,
    /// Replies that it has not read: the newest.
    pub replies: VecDeque<Sequence>,
    /// Whether there are older ones that it has not read either.
    pub replies_forgotten: bool,
    /// It has read all replies up to here.
    pub replies_read: Sequence,
    /// What it answered, newest last.
    pub answers: VecDeque<Answered>,
    /// What could not be delivered to it, newest last.
    pub undelivered: VecDeque<Undelivered>,
}

impl External {
    /// The state of a worker that was just created, if its runtime is the external one.
    pub(crate) fn of_runtime(runtime: &RuntimeId) -> Option<Self> {
        (runtime.as_str() == EXTERNAL_RUNTIME).then(Self::default)
    }

    /// The record that answers a message, as far as that is remembered.
    pub fn answer_to(&self, message: Sequence) -> Option<Sequence> {
        let found = self.answers.iter().rev().find(|answered| answered.message == message);
        found.map(|answered| answered.answer)
    }

    /// Why a message could not be delivered, as far as that is remembered.
    pub fn undelivered(&self, message: Sequence) -> Option<&Undelivered> {
        self.undelivered.iter().find(|undelivered| undelivered.message == message)
    }

    pub(crate) fn apply(&mut self, header: &Header) {
        match &header.event {
            Event::AgentAwaited(awaited) => self.label.clone_from(&awaited.label),
            Event::AgentRegistered(registered) => {
                self.presence = Presence::Online;
                self.degraded = None;
                self.leased = registered.leased;
                self.delivery.clone_from(&registered.delivery);
                self.registered_at = Some(header.time);
            }
            Event::WorkerOnline(_) => {
                self.presence = Presence::Online;
                self.degraded = None;
                self.leased = true;
            }
            Event::WorkerRecovered(_) => {
                self.presence = Presence::Online;
                self.degraded = None;
            }
            Event::WorkerOffline(_) => {
                self.presence = Presence::AwaitingAgent;
                self.degraded = None;
            }
            Event::WorkerDegraded(degraded) => {
                self.presence = Presence::Degraded;
                self.degraded = Some(degraded.reason);
                self.leased = true;
            }
            _ => self.apply_message(header),
        }
    }

    fn apply_message(&mut self, header: &Header) {
        let seq = header.seq;
        match &header.event {
            Event::MessageReceived(_) | Event::WorkerInputAccepted(_) => {
                self.waiting.push_back(seq);
            }
            Event::ReplyReceived(_) => {
                self.replies.push_back(seq);
                while self.replies.len() > REPLIES_KEPT {
                    self.replies.pop_front();
                    self.replies_forgotten = true;
                }
            }
            Event::MessageAnswered(answered) => self.answered(answered.message, seq),
            Event::WorkerNotified(notified) => {
                if let Some(message) = notified.message {
                    self.answered(message, seq);
                }
            }
            Event::InboxRead(read) => self.read(read.inbox, read.through),
            Event::MessageDelivered(delivered) => self.settle(delivered.message),
            Event::DeliveryFailed(failed) => {
                self.settle(failed.message);
                self.undelivered.retain(|undelivered| undelivered.message != failed.message);
                self.undelivered.push_back(Undelivered {
                    message: failed.message,
                    failed: seq,
                    reason: failed.reason.clone(),
                });
                while self.undelivered.len() > UNDELIVERED_KEPT {
                    self.undelivered.pop_front();
                }
            }
            Event::DeliveryRetried(retried) => {
                self.undelivered.retain(|undelivered| undelivered.message != retried.message);
                // Before all that is newer: messages stay in the order in which they came.
                let place = self.waiting.partition_point(|waiting| *waiting < retried.message);
                self.waiting.insert(place, retried.message);
            }
            _ => {}
        }
    }

    fn answered(&mut self, message: Sequence, answer: Sequence) {
        self.answers.push_back(Answered { message, answer });
        while self.answers.len() > ANSWERS_KEPT {
            self.answers.pop_front();
        }
    }

    fn settle(&mut self, message: Sequence) {
        self.waiting.retain(|waiting| *waiting != message);
    }

    fn read(&mut self, inbox: Inbox, through: Sequence) {
        if inbox != Inbox::Replies {
            self.messages_read = self.messages_read.max(through);
            self.waiting.retain(|waiting| *waiting > through);
        }
        if inbox != Inbox::Messages {
            self.replies_read = self.replies_read.max(through);
            self.replies.retain(|reply| *reply > through);
            // What was forgotten is older than everything that is known one by one, and still
            // unread only as long as nothing of that was read.
            self.replies_forgotten &= self.replies.len() == REPLIES_KEPT;
        }
    }
}
