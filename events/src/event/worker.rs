//! Events of workers: what they were made as, what they were told, what they did.

use super::BundleRef;
use crate::ids::{HostId, Revision, Sequence};
use serde::{Deserialize, Serialize};

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

/// The free text of a create request; the content of [`Event::WorkerCreated`](super::Event::WorkerCreated).
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

/// See [`Event::WorkerCreated`](super::Event::WorkerCreated).
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

/// See [`Event::WorkerConnected`](super::Event::WorkerConnected).
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

/// See [`Event::WorkerSpawnFailed`](super::Event::WorkerSpawnFailed).
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

/// See [`Event::WorkerInputAccepted`](super::Event::WorkerInputAccepted).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerInputAccepted {
    /// Who it speaks for.
    pub kind: InputKind,
    /// Its place in the transcript, from 1.
    pub item: u64,
    /// The worker's revision that it makes.
    pub revision: Revision,
}

/// See [`Event::WorkerInputDispatched`](super::Event::WorkerInputDispatched).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerInputDispatched {
    /// The sequence of the accepted input.
    pub input: Sequence,
    /// The turn that it starts.
    pub turn: u64,
}

/// See [`Event::WorkerProcessStarted`](super::Event::WorkerProcessStarted).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerProcessStarted {
    /// The turn that it serves.
    pub turn: u64,
    /// The process.
    pub process: ProcessRef,
}

/// See [`Event::WorkerProcessEnded`](super::Event::WorkerProcessEnded).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerProcessEnded {
    /// The turn that was cut off, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u64>,
}

/// See [`Event::WorkerInputFailed`](super::Event::WorkerInputFailed).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerInputFailed {
    /// The last of the accepted inputs that failed.
    pub through: Sequence,
    /// How many failed that had not been dispatched, counted backwards from there.
    pub count: u64,
    /// Why, for people.
    pub message: String,
}

/// See [`Event::WorkerInterrupted`](super::Event::WorkerInterrupted).
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

/// See [`Event::WorkerOutput`](super::Event::WorkerOutput).
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

/// See [`Event::WorkerTurnEnded`](super::Event::WorkerTurnEnded).
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

/// See [`Event::WorkerDiagnosed`](super::Event::WorkerDiagnosed).
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

/// See [`Event::WorkerExited`](super::Event::WorkerExited).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerExited {
    /// How.
    pub exit: ExitStatus,
}

/// See [`Event::WorkerStopped`](super::Event::WorkerStopped).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStopped {
    /// The worker's revision that it makes.
    pub revision: Revision,
}

/// See [`Event::WorkerCancelled`](super::Event::WorkerCancelled).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerCancelled {
    /// The worker's revision that it makes.
    pub revision: Revision,
}
