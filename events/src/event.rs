//! The events: typed facts, each with a stored name and version.
//!
//! A stored name and version never change their meaning. A new shape is a new version: its
//! old type stays here under a versioned name, with its golden file, and is converted when
//! it is read.

mod access;

pub use access::*;

use crate::{
    Digest,
    ids::{Epoch, HostId, Revision, Sequence},
};
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

macro_rules! events {
    ($($(#[$doc:meta])* $Variant:ident = $name:literal v $version:literal;)*) => {
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
                        .map_err(|source| EventDecodeError::Malformed { name: $name, version, source }),)*
                    _ => Err(EventDecodeError::Unknown { name: name.into(), version }),
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
    /// A new epoch began from an earlier point of the log.
    LogForked = "log_forked" v 1;
    /// A runtime became known.
    RuntimeRegistered = "runtime_registered" v 1;
    /// A runtime's label or templates changed.
    RuntimeUpdated = "runtime_updated" v 1;
    /// A runtime takes no more work; what it ran is stopped.
    RuntimeStopped = "runtime_stopped" v 1;
    /// A host became known.
    HostRegistered = "host_registered" v 1;
    /// What is known of a host changed.
    HostUpdated = "host_updated" v 1;
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
    /// A bearer token was issued.
    TokenIssued = "token_issued" v 1;
    /// A bearer token was revoked.
    TokenRevoked = "token_revoked" v 1;
    /// A consumer committed how far it has read.
    CursorCommitted = "cursor_committed" v 1;
}

impl Event {
    /// Whether the record is about watching itself. Streams leave these out unless they are
    /// asked for, since a follower of the whole log would otherwise feed itself for ever.
    pub fn is_about_watching(&self) -> bool {
        matches!(self, Self::CursorCommitted(_))
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

/// See [`Event::LogForked`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogForked {
    /// The epoch that begins with this record.
    pub epoch: Epoch,
    /// The epoch that it continues.
    pub parent: Epoch,
    /// The last sequence that both share.
    pub fork: Sequence,
    /// The record digest at the fork.
    pub digest: Digest,
}

/// What is known of a template without its command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateSummary {
    /// Its name in the manifest, without a `-default` suffix.
    pub name: String,
    /// Whether it can be started here.
    pub startable: bool,
}

/// See [`Event::RuntimeRegistered`]. The runtime is named in the envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeRegistered {
    /// Such as `embedded_worker_runtime`.
    pub kind: String,
    /// For people.
    pub label: String,
    /// What workers can be made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<TemplateSummary>,
}

/// See [`Event::RuntimeUpdated`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeUpdated {
    /// For people.
    pub label: String,
    /// What workers can be made from, from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<TemplateSummary>,
}

/// See [`Event::RuntimeStopped`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeStopped {}

/// See [`Event::HostRegistered`]. The runtime is named in the envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostRegistered {
    /// The host.
    pub host: HostId,
    /// Such as `embedded-worker-runtime-host`.
    pub kind: String,
    /// For people.
    pub label: String,
    /// Operating system, such as `linux`.
    pub os: String,
    /// Processor architecture, such as `x86_64`.
    pub arch: String,
}

/// See [`Event::HostUpdated`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostUpdated {
    /// The host.
    pub host: HostId,
    /// For people.
    pub label: String,
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
}

/// Where a config bundle came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Such as `operator`.
    pub source: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A config bundle by identifier and digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BundleRef {
    /// Its identifier: at most 128 characters.
    pub id: String,
    /// Its digest: 64 lower-case hexadecimal digits.
    pub digest: String,
}

/// See [`Event::ConfigBundleStored`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigBundleStored {
    /// The bundle.
    pub bundle: BundleRef,
    /// As its author numbers it.
    pub revision: String,
    /// The workspace it is for.
    pub workspace_id: String,
    /// When it was made, as its author wrote it.
    pub created_at: String,
    /// Where it came from.
    pub provenance: Provenance,
    /// The selectors of its profiles, in order.
    pub profiles: Vec<String>,
    /// How many declarations it has.
    pub declaration_count: u64,
}

/// What a worker is for. Its free text is content, see [`WorkerTexts`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum IntentKind {
    /// An assistant, with an optional purpose.
    Assistant,
    /// A task, with an objective.
    Task,
    /// A role, with an optional purpose.
    Role {
        /// The name of the role.
        role: String,
    },
}

/// Which profile a worker runs under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum ProfileSelector {
    /// Whatever the runtime takes by default.
    RuntimeDefault,
    /// One of the runtime's own, such as `builtin:coder`.
    Builtin(String),
    /// One that the worker's config bundle declares.
    Named(String),
}

/// A name for something that the service resolves, never a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRef {
    /// What the worker calls it.
    pub name: String,
    /// What it stands for.
    pub reference: String,
}

/// The free text of a create request; the content of [`Event::WorkerCreated`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerTexts {
    /// Of an assistant or a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Of a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// Why a capability is asked for, by its place in the list of capabilities.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub capability_reasons: std::collections::BTreeMap<usize, String>,
}

impl WorkerTexts {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// See [`Event::WorkerCreated`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerCreated {
    /// What it is for.
    pub intent: IntentKind,
    /// Which profile it runs under.
    pub profile: ProfileSelector,
    /// The template it is made from; none if there was none to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The host it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// Its config bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_bundle: Option<BundleRef>,
    /// The names of the capabilities asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested_capabilities: Vec<String>,
    /// Workspaces asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workspace_refs: Vec<NamedRef>,
    /// Mounts asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_refs: Vec<NamedRef>,
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Process id, which is also its process group.
    pub pid: u32,
    /// Start time in clock ticks since boot, as the kernel tells it.
    pub started_ticks: u64,
    /// The kernel's id of this boot.
    pub boot: String,
}

/// See [`Event::WorkerConnected`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerConnected {
    /// The kind of backend, such as `process`.
    pub backend: String,
    /// Counts the starts of this worker, from 1.
    pub incarnation: u32,
    /// Its long-lived process, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessRef>,
}

/// See [`Event::WorkerSpawnFailed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerSpawnFailed {
    /// Why, for people; no path and no secret.
    pub message: String,
}

/// Who an input speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// A person or another agent.
    User,
    /// The surroundings.
    System,
}

/// See [`Event::WorkerInputAccepted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerInputAccepted {
    /// Who it speaks for.
    pub kind: InputKind,
    /// Its place in the transcript, from 1.
    pub item: u64,
    /// The worker's revision that it makes.
    pub revision: Revision,
}

/// See [`Event::WorkerInputDispatched`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerInputDispatched {
    /// The sequence of the accepted input.
    pub input: Sequence,
    /// The turn that it starts.
    pub turn: u64,
}

/// See [`Event::WorkerProcessStarted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerProcessStarted {
    /// The turn that it serves.
    pub turn: u64,
    /// The process.
    pub process: ProcessRef,
}

/// See [`Event::WorkerInputFailed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerInputFailed {
    /// The last of the accepted inputs that failed.
    pub through: Sequence,
    /// How many failed that had not been dispatched, counted backwards from there.
    pub count: u64,
    /// Why, for people.
    pub message: String,
}

/// See [`Event::WorkerInterrupted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerInterrupted {
    /// `service_stopped` or `service_lost`.
    pub reason: String,
    /// The turn that was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u64>,
    /// The input that was being worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Sequence>,
    /// Whether that input will be given to the worker again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// See [`Event::WorkerOutput`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerOutput {
    /// The payload's name, such as `text_delta`.
    pub event: OutputKind,
    /// The turn that it belongs to.
    pub turn: u64,
    /// Of `text_done`: where its text is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextSpan>,
}

/// Where the text of a `text_done` is: the `text_delta`s of the worker from `first` on,
/// before the record itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextSpan {
    /// The sequence of the first delta.
    pub first: Sequence,
    /// Their length in bytes, together.
    pub bytes: u64,
    /// Its place in the transcript, from 1.
    pub item: u64,
}

/// The names of output payloads: a closed set that strict clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// Text as it is being written; content is the text itself.
    TextDelta,
    /// The text of the turn so far is complete.
    TextDone,
    /// The agent began to think.
    ThinkingStart,
    /// Thinking, as it goes; content is the payload's data.
    ThinkingDelta,
    /// The agent finished thinking.
    ThinkingDone,
    /// The agent began to call a tool.
    ToolCallStart,
    /// The arguments of a call, as they come.
    ToolCallArgsDelta,
    /// A call is complete.
    ToolCallDone,
    /// What a tool answered.
    ToolResult,
    /// Tokens used.
    Usage,
    /// A whole run ended.
    RunEnd,
    /// The agent reports an error.
    Error,
    /// The agent reports its own status.
    Status,
    /// The agent warns.
    Alert,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnResult {
    /// It said all it had to say.
    Finished,
    /// It waits for something.
    Paused,
}

/// See [`Event::WorkerTurnEnded`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerTurnEnded {
    /// The turn.
    pub turn: u64,
    /// How it ended.
    pub result: TurnResult,
    /// The exit code of the process of this turn, if it had one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitStatus>,
}

/// See [`Event::WorkerDiagnosed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerDiagnosed {
    /// `stderr`, or `framing` for a line that is not of the agreed form.
    pub source: String,
}

/// How a process ended: one of the two is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

impl ExitStatus {
    /// Exit code 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}

/// See [`Event::WorkerExited`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerExited {
    /// How.
    pub exit: ExitStatus,
}

/// See [`Event::WorkerStopped`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStopped {
    /// The worker's revision that it makes.
    pub revision: Revision,
}

/// See [`Event::WorkerCancelled`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerCancelled {
    /// The worker's revision that it makes.
    pub revision: Revision,
}
