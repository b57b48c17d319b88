//! Events of external workers: agents that connect in, what is said to them, what they answer.

use super::WorkerRef;
use crate::ids::Sequence;
use serde::{Deserialize, Serialize};

/// How messages get to an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryMode {
    /// The agent asks for them.
    #[default]
    Poll,
    /// They are posted to the agent's URL.
    Push,
}

/// How messages get to an agent, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// How.
    pub mode: DeliveryMode,
    /// Of `push`: where to. It holds no user name and no password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// See [`Event::AgentAwaited`](super::Event::AgentAwaited).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentAwaited {
    /// What people call the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// See [`Event::AgentRegistered`](super::Event::AgentRegistered).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentRegistered {
    /// How messages get to it.
    pub delivery: Delivery,
    /// Whether it has to beat to stay online. An agent that was only entered by an operator, with
    /// its URL, does not until it first speaks for itself.
    pub leased: bool,
}

/// See [`Event::WorkerOnline`](super::Event::WorkerOnline).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerOnline {}

/// See [`Event::WorkerOffline`](super::Event::WorkerOffline).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerOffline {}

/// Why an agent that is there is of limited use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DegradedReason {
    /// It says that it is stuck.
    Wedged,
    /// It says that half of what it does fails, or more.
    ErrorRate,
    /// It beats, but does not ask for its messages while some wait.
    Deaf,
}

/// See [`Event::WorkerDegraded`](super::Event::WorkerDegraded).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerDegraded {
    /// Why.
    pub reason: DegradedReason,
}

/// See [`Event::WorkerRecovered`](super::Event::WorkerRecovered).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerRecovered {}

/// See [`Event::MessageReceived`](super::Event::MessageReceived).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageReceived {
    /// The worker that sent it; none for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<WorkerRef>,
    /// Its JSON-RPC method, such as `message/send`.
    pub method: String,
    /// Its place in the transcript, from 1.
    pub item: u64,
}

/// See [`Event::MessageAnswered`](super::Event::MessageAnswered). The worker is the one that answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageAnswered {
    /// The message that it answers.
    pub message: Sequence,
    /// The worker that asked; none for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asker: Option<WorkerRef>,
    /// Its place in the transcript, from 1.
    pub item: u64,
}

/// See [`Event::ReplyReceived`](super::Event::ReplyReceived). The worker is the one that asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyReceived {
    /// The worker that answered.
    pub source: WorkerRef,
    /// The message of that worker which is answered.
    pub message: Sequence,
    /// Its place in the transcript, from 1.
    pub item: u64,
}

/// See [`Event::WorkerNotified`](super::Event::WorkerNotified).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerNotified {
    /// The message of a person that it answers, if it answers one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Sequence>,
    /// Its place in the transcript, from 1.
    pub item: u64,
}

/// What an agent reports of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivityKind {
    /// It sent a message.
    A2aSend,
    /// It got a message.
    A2aReceive,
    /// It got on with a task.
    TaskUpdate,
    /// For the record.
    AgentLog,
    /// It learned something.
    SkillPromotion,
    /// It remembers something.
    MemoryWrite,
    /// Something failed.
    Error,
}

/// See [`Event::WorkerReported`](super::Event::WorkerReported).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerReported {
    /// What it is about.
    pub activity: ActivityKind,
    /// The message that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Sequence>,
    /// Its place in the transcript, from 1.
    pub item: u64,
}

/// Which part of what waits for an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inbox {
    /// What it was asked.
    Messages,
    /// Answers to what it asked.
    Replies,
    /// Both.
    All,
}

/// See [`Event::InboxRead`](super::Event::InboxRead).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InboxRead {
    /// Which part.
    pub inbox: Inbox,
    /// Everything up to here has been dealt with.
    pub through: Sequence,
}

/// See [`Event::MessageDelivered`](super::Event::MessageDelivered).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageDelivered {
    /// The message.
    pub message: Sequence,
    /// How often it was tried.
    pub attempts: u32,
}

/// See [`Event::DeliveryFailed`](super::Event::DeliveryFailed).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryFailed {
    /// The message.
    pub message: Sequence,
    /// How often it was tried.
    pub attempts: u32,
    /// What the last attempt came to, for people.
    pub reason: String,
}

/// See [`Event::DeliveryRetried`](super::Event::DeliveryRetried).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryRetried {
    /// The message.
    pub message: Sequence,
}
