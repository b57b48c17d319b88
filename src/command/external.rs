//! What is asked about external workers.

use acta_events::{
    ActivityKind, DegradedReason, Delivery, Inbox, Sequence, StoredContent, TokenIssued,
    WorkerCreated, WorkerRef,
};

/// A worker that an agent connects in for.
#[derive(Clone, Debug)]
pub struct NewExternal {
    /// As of any other worker.
    pub created: WorkerCreated,
    /// What people call it.
    pub label: Option<String>,
    /// The agent's URL, if it is known already.
    pub url: Option<String>,
    /// The token that the agent shows.
    pub token: Option<TokenIssued>,
}

/// What an agent says of itself with a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentHealth {
    /// It is well.
    Good,
    /// Not so well that it recovers, and not so bad that it is degraded.
    Fair,
    /// It is of limited use.
    Bad(DegradedReason),
}

/// What may change for an external worker.
#[derive(Clone, Debug)]
pub enum ExternalChange {
    /// Its agent is there.
    Register {
        /// How messages get to it.
        delivery: Delivery,
        /// What it says of itself, as JSON.
        card: Option<StoredContent>,
    },
    /// Its agent has beaten.
    Beat {
        /// What it says of itself.
        health: AgentHealth,
        /// An example of what fails.
        sample: Option<StoredContent>,
    },
    /// Its agent has not beaten for as long as its lease lasts.
    Lost,
    /// Its agent beats, but does not ask for what waits.
    WentDeaf,
    /// Its agent asks for what waits again.
    Listens,
    /// A message for its agent.
    Message {
        /// The worker that sent it; none for a person.
        source: Option<WorkerRef>,
        /// Its JSON-RPC method.
        method: String,
        /// Its envelope.
        content: StoredContent,
    },
    /// Its agent answers a message.
    Answer {
        /// The message.
        message: Sequence,
        /// The worker that asked.
        asker: Option<WorkerRef>,
        /// The answer.
        answer: StoredContent,
        /// The answer again, for the asker.
        reply: Option<StoredContent>,
    },
    /// Its agent tells those who watch.
    Notify {
        /// The message of a person that it answers.
        message: Option<Sequence>,
        /// What, as JSON.
        content: StoredContent,
    },
    /// Its agent reports what it does.
    Report {
        /// What it is about.
        activity: ActivityKind,
        /// The message that it is about.
        message: Option<Sequence>,
        /// The report, as JSON.
        content: StoredContent,
    },
    /// Its agent has dealt with what waited.
    Read {
        /// Which part.
        inbox: Inbox,
        /// Everything up to here.
        through: Sequence,
    },
    /// A message was posted to its agent.
    Delivered {
        /// The message.
        message: Sequence,
        /// How often it was tried.
        attempts: u32,
        /// Who asked, what the agent answered, and that again for the asker.
        answer: Option<(Option<WorkerRef>, StoredContent, Option<StoredContent>)>,
    },
    /// A message could not be posted to its agent.
    DeliveryFailed {
        /// The message.
        message: Sequence,
        /// How often it was tried.
        attempts: u32,
        /// What the last attempt came to.
        reason: String,
    },
    /// A message that could not be posted is to be tried again.
    RetryDelivery {
        /// The message.
        message: Sequence,
    },
}

impl ExternalChange {
    pub(super) fn contents(&self) -> [Option<&StoredContent>; 2] {
        match self {
            Self::Register { card: content, .. } | Self::Beat { sample: content, .. } => {
                [content.as_ref(), None]
            }
            Self::Message { content, .. }
            | Self::Notify { content, .. }
            | Self::Report { content, .. } => [Some(content), None],
            Self::Answer { answer, reply, .. }
            | Self::Delivered { answer: Some((_, answer, reply)), .. } => {
                [Some(answer), reply.as_ref()]
            }
            _ => [None, None],
        }
    }
}
