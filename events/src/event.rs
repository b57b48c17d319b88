//! The events: typed facts, each with a stored name and version.
//!
//! A stored name and version never change their meaning. A new shape is a new version: its
//! old type stays here under a versioned name, with its golden file, and is converted when
//! it is read.

mod access;
mod epochs;
mod erasure;
mod external;
mod hosts;
mod local_pods;
mod registry;
mod retention;
mod worker;

pub use access::*;
pub use epochs::*;
pub use erasure::*;
pub use external::*;
pub use hosts::*;
pub use local_pods::*;
pub use registry::*;
pub use retention::*;
pub use worker::*;

use serde::{Deserialize, Serialize};

/// A stored event could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum EventDecodeError {
    /// The name and version are not known to this build.
    #[error(
        "event `{name}` version {version} is not known to this version of Acta; a newer one wrote it"
    )]
    Unknown {
        /// The stored name.
        name: String,
        /// The stored version.
        version: u16,
    },
    /// The name is known, but the data does not have its shape.
    #[error("event `{name}` version {version} has malformed data: {source}")]
    Malformed {
        /// The stored name.
        name: &'static str,
        /// The stored version.
        version: u16,
        /// What did not fit.
        source: serde_json::Error,
    },
}

/// The value at the beginning of a text, and its length.
fn first<'a, T: Deserialize<'a>>(text: &'a str) -> Option<(T, usize)> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = stream.next()?.ok()?;
    Some((value, stream.byte_offset()))
}

macro_rules! events {
    ($($(#[$doc:meta])* $Variant:ident = $name:literal v $version:literal
        $(, was v $old:literal $Old:ident)*;)*) => {
        /// Everything that can happen. The data of a variant is the type of the same name.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Event {
            $($(#[$doc])* $Variant($Variant),)*
        }

        impl Event {
            /// The stored name and version of every event that this build writes.
            pub const KINDS: &'static [(&'static str, u16)] = &[$(($name, $version),)*];

            /// The stored name, past tense.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$Variant(_) => $name,)* }
            }

            /// The version of the data's shape.
            pub fn version(&self) -> u16 {
                match self { $(Self::$Variant(_) => $version,)* }
            }

            /// Decodes the data of a stored event.
            pub fn decode(name: &str, version: u16, data: &str) -> Result<Self, EventDecodeError> {
                match (name, version) {
                    $(($name, $version) => serde_json::from_str(data)
                        .map(Self::$Variant)
                        .map_err(|source| EventDecodeError::Malformed { name: $name, version, source }),
                    $(($name, $old) => serde_json::from_str::<$Old>(data)
                        .map(|old| Self::$Variant(old.into()))
                        .map_err(|source| EventDecodeError::Malformed { name: $name, version, source }),)*)*
                    _ => Err(EventDecodeError::Unknown { name: name.into(), version }),
                }
            }

            /// Decodes the data at the beginning of a text, and tells its length. Nothing if it
            /// cannot be decoded; [`Self::decode`] says why.
            pub(crate) fn decode_first(name: &str, version: u16, text: &str) -> Option<(Self, usize)> {
                match (name, version) {
                    $(($name, $version) => {
                        let (data, len) = first::<$Variant>(text)?;
                        Some((Self::$Variant(data), len))
                    }
                    $(($name, $old) => {
                        let (data, len) = first::<$Old>(text)?;
                        Some((Self::$Variant(data.into()), len))
                    })*)*
                    _ => None,
                }
            }
        }

        $(impl From<$Variant> for Event {
            fn from(data: $Variant) -> Self {
                Self::$Variant(data)
            }
        })*
    };
}

events! {
    /// The service opened the log.
    ServiceStarted = "service_started" v 1;
    /// The service closed the log in good order.
    ServiceStopped = "service_stopped" v 1;
    /// A new epoch began from an earlier point of the log. Content: the reason. What the log asks
    /// for is not done before [`Self::DispatchResumed`].
    LogForked = "log_forked" v 2, was v 1 LogForkedV1;
    /// After a fork, the service does again what the log asks for.
    DispatchResumed = "dispatch_resumed" v 1;
    /// A runtime became known.
    RuntimeRegistered = "runtime_registered" v 1;
    /// A runtime's label or templates changed.
    RuntimeUpdated = "runtime_updated" v 1;
    /// A runtime takes no more work; what it ran is stopped.
    RuntimeStopped = "runtime_stopped" v 1;
    /// A runtime that another service has became known, or is reached differently from now on.
    RemoteRuntimeRegistered = "remote_runtime_registered" v 1;
    /// A runtime is not known any more.
    RuntimeRetired = "runtime_retired" v 1;
    /// A host became known.
    HostRegistered = "host_registered" v 2, was v 1 HostRegisteredV1;
    /// What is known of a host changed.
    HostUpdated = "host_updated" v 2, was v 1 HostUpdatedV1;
    /// Nothing was heard of a host for longer than its lease.
    HostLost = "host_lost" v 1;
    /// A host that was lost is there again.
    HostFound = "host_found" v 1;
    /// A worker was found in the directory of pods, or found to be different.
    LocalWorkerFound = "local_worker_found" v 1;
    /// A worker is not in the directory of pods any more.
    LocalWorkerLost = "local_worker_lost" v 1;
    /// What can be seen of the directory of pods, other than workers, is different.
    LocalPodsInspected = "local_pods_inspected" v 1;
    /// A config bundle was stored. Content: the bundle, as JSON.
    ConfigBundleStored = "config_bundle_stored" v 1;
    /// A worker was asked for. Content: [`WorkerTexts`], as JSON, unless it is empty.
    WorkerCreated = "worker_created" v 1;
    /// A backend has the worker at hand.
    WorkerConnected = "worker_connected" v 1;
    /// A backend could not start the worker.
    WorkerSpawnFailed = "worker_spawn_failed" v 1;
    /// An input was accepted for delivery. Content: its text.
    WorkerInputAccepted = "worker_input_accepted" v 1;
    /// An input is about to be given to the worker; recorded before it is.
    WorkerInputDispatched = "worker_input_dispatched" v 1;
    /// A process was started for one turn; recorded before it is given its input.
    WorkerProcessStarted = "worker_process_started" v 1;
    /// What ran a worker that was stopped or cancelled is gone.
    WorkerProcessEnded = "worker_process_ended" v 1;
    /// Inputs that had been accepted could not be delivered.
    WorkerInputFailed = "worker_input_failed" v 1;
    /// What the worker was doing was cut off by the end of the service.
    WorkerInterrupted = "worker_interrupted" v 1;
    /// The worker said or did something. Content: text, or the payload's data as JSON.
    WorkerOutput = "worker_output" v 1;
    /// The worker finished answering.
    WorkerTurnEnded = "worker_turn_ended" v 1;
    /// The worker wrote to its standard error, or spoke out of form. Content: the text.
    WorkerDiagnosed = "worker_diagnosed" v 1;
    /// The worker's process ended by itself.
    WorkerExited = "worker_exited" v 1;
    /// The worker was stopped for good. Content: the reason, if one was given.
    WorkerStopped = "worker_stopped" v 1;
    /// The worker was cancelled for good. Content: the reason, if one was given.
    WorkerCancelled = "worker_cancelled" v 1;
    /// An external worker waits for an agent to connect in.
    AgentAwaited = "agent_awaited" v 1;
    /// An agent connected in, or was entered with its URL. Content: its card, as JSON.
    AgentRegistered = "agent_registered" v 1;
    /// An agent that had been lost is there again.
    WorkerOnline = "worker_online" v 1;
    /// An agent was not heard of for as long as its lease lasts.
    WorkerOffline = "worker_offline" v 1;
    /// An agent is there, but of limited use. Content: an example of what fails, if it gave one.
    WorkerDegraded = "worker_degraded" v 1;
    /// An agent is of use again.
    WorkerRecovered = "worker_recovered" v 1;
    /// A message for an agent was accepted. Content: its JSON-RPC envelope.
    MessageReceived = "message_received" v 1;
    /// An agent answered a message. Content: the JSON-RPC envelope, or the answer to a push.
    MessageAnswered = "message_answered" v 1;
    /// An agent's question was answered. Content: as of the answer.
    ReplyReceived = "reply_received" v 1;
    /// An agent told those who watch. Content: `{"message", "attachments"}`.
    WorkerNotified = "worker_notified" v 1;
    /// An agent reported what it does. Content: the report, as JSON.
    WorkerReported = "worker_reported" v 1;
    /// An agent has dealt with what waited for it.
    InboxRead = "inbox_read" v 1;
    /// A message was posted to an agent's URL.
    MessageDelivered = "message_delivered" v 1;
    /// A message could not be posted to an agent's URL, and is not tried any more.
    DeliveryFailed = "delivery_failed" v 1;
    /// A message that could not be posted is to be tried again.
    DeliveryRetried = "delivery_retried" v 1;
    /// A bearer token was issued.
    TokenIssued = "token_issued" v 1;
    /// A bearer token was revoked.
    TokenRevoked = "token_revoked" v 1;
    /// A consumer committed how far it has read.
    CursorCommitted = "cursor_committed" v 1;
    /// What an auditor has read, where that is recorded. The auditor is the actor.
    ReadsRecorded = "reads_recorded" v 1;
    /// The content of an earlier record is erased; its digest stays. Content: the reason, if one
    /// was given.
    ContentRedacted = "content_redacted" v 1;
    /// The oldest segments expired by policy; rebuilds begin with a base from now on.
    HistoryExpired = "history_expired" v 1;
}

impl Event {
    /// Whether the record is about watching itself. Streams leave these out unless they are
    /// asked for, since a follower of the whole log would otherwise feed itself for ever.
    pub fn is_about_watching(&self) -> bool {
        matches!(self, Self::CursorCommitted(_) | Self::ReadsRecorded(_) | Self::InboxRead(_))
    }
}

/// See [`Event::ServiceStarted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStarted {
    /// The version of Acta.
    pub acta: String,
}

/// See [`Event::ServiceStopped`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStopped {
    /// What ended it, such as `signal`.
    pub reason: String,
}
