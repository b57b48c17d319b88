//! One worker: what it was created as, and what has become of it.

use crate::{External, Presence};
use acta_events::{
    BundleRef, Digest, Event, HostId, IntentKind, NamedRef, OutputKind, ProcessRef,
    ProfileSelector, Record, Revision, RuntimeId, Sequence, Timestamp, Version, WorkerId,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a worker was created as; never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerSpec {
    /// The record that created it; its content holds the free text.
    pub seq: Sequence,
    /// When.
    pub created_at: Timestamp,
    /// What it is for.
    pub intent: IntentKind,
    /// Which profile it runs under.
    pub profile: ProfileSelector,
    /// The template it is made from.
    pub template: Option<String>,
    /// The host it runs on.
    pub host: Option<HostId>,
    /// Its config bundle.
    pub config_bundle: Option<BundleRef>,
    /// The names of the capabilities asked for.
    pub requested_capabilities: Vec<String>,
    /// Workspaces asked for.
    pub workspace_refs: Vec<NamedRef>,
    /// Mounts asked for.
    pub mount_refs: Vec<NamedRef>,
    /// The digest of its free text, if it has any.
    pub texts: Option<Digest>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// Neither stopped nor cancelled.
    Running,
    /// Stopped for good.
    Stopped,
    /// Cancelled for good.
    Cancelled,
}

/// Whether a backend has the worker at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// None has, and none will.
    Unconnected,
    /// One has, or had, or is about to.
    Connected,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// There is no backend.
    Unconnected,
    /// It waits for input.
    Idle,
    /// It starts, or has work in hand.
    Busy,
    /// The backend refused.
    Rejected,
    /// It could not be started, or ended with an error.
    Errored,
    /// It ended.
    Stopped,
}

/// What was asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// To start the worker.
    Spawn,
    /// To give it an input.
    Input,
    /// To stop it.
    Stop,
    /// To cancel it.
    Cancel,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done, or under way.
    Accepted,
    /// Not now.
    Busy,
    /// Refused.
    Rejected,
    /// It failed.
    Errored,
    /// The backend cannot.
    Unsupported,
}

/// The last operation and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastResult {
    /// What was asked.
    pub operation: Operation,
    /// What came of it.
    pub outcome: Outcome,
    /// What the worker was doing then.
    pub run_state: RunState,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Arc<str>>,
}

/// How a worker is being executed, as clients see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Execution {
    /// Whether a backend has it at hand.
    pub backend: Backend,
    /// What it is doing.
    pub run_state: RunState,
    /// The last operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_result: Option<LastResult>,
}

/// What is known of the worker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Child {
    /// It has no template, so nothing runs it.
    Unconnected,
    /// It is being started.
    Starting,
    /// It is at hand.
    Ready,
    /// It could not be started.
    Failed,
    /// It ended by itself with exit code 0.
    Finished,
    /// It ended by itself in another way.
    Broken,
    /// The service ended; the next input starts it again.
    Lost,
}

/// How a worker ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The record that ended it.
    pub seq: Sequence,
    /// The version that it made.
    pub version: Version,
    /// The revision that it made.
    pub revision: Revision,
}

/// A turn that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTurn {
    /// Its number.
    pub turn: u64,
    /// The input that it answers.
    pub input: Option<Sequence>,
}

/// Text of the worker that is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenText {
    /// The sequence of its first delta.
    pub first: Sequence,
    /// Bytes so far.
    pub bytes: u64,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerState {
    /// Its runtime.
    pub runtime: RuntimeId,
    /// Its id within the runtime.
    pub worker: WorkerId,
    /// Its number in the index.
    pub ordinal: u32,
    /// What it was created as.
    pub spec: Arc<WorkerSpec>,
    /// Where it is in its life.
    pub status: WorkerStatus,
    /// What is known of its process.
    pub child: Child,
    /// The last operation.
    pub last_result: Option<LastResult>,
    /// How it ended for good.
    pub terminal: Option<Terminal>,
    /// Count of its records.
    pub version: Version,
    /// Count of its commands and lifecycle changes.
    pub revision: Revision,
    /// Its last record.
    pub last_seq: Sequence,
    /// When that was.
    pub last_at: Timestamp,
    /// Length of its transcript.
    pub items: u64,
    /// How often it was started.
    pub incarnation: u32,
    /// Its long-lived process, while it runs; or that of the open turn.
    pub process: Option<ProcessRef>,
    /// Accepted inputs that were neither dispatched nor failed.
    pub pending: u64,
    /// All accepted inputs up to here were dispatched or failed.
    pub settled: Sequence,
    /// The number of the last turn.
    pub turn: u64,
    /// The turn that has not ended.
    pub open_turn: Option<OpenTurn>,
    /// The text that is not complete.
    pub open_text: Option<OpenText>,
    /// Of a worker that an agent connects in for: the agent, and what waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Arc<External>>,
}

impl WorkerState {
    /// The state after a `worker_created` record; none for any other.
    pub fn create(record: &Record, ordinal: u32) -> Option<Self> {
        let header = &record.header;
        let (Some(runtime), Some(worker)) = (&header.runtime, &header.worker) else { return None };
        let Event::WorkerCreated(created) = &header.event else { return None };
        let spec = WorkerSpec {
            seq: header.seq,
            created_at: header.time,
            intent: created.intent.clone(),
            profile: created.profile.clone(),
            template: created.template.clone(),
            host: created.host.clone(),
            config_bundle: created.config_bundle.clone(),
            requested_capabilities: created.requested_capabilities.clone(),
            workspace_refs: created.workspace_refs.clone(),
            mount_refs: created.mount_refs.clone(),
            texts: record.content.as_ref().map(|content| content.digest),
        };
        let startable = spec.template.is_some();
        let mut state = Self {
            runtime: runtime.clone(),
            worker: worker.clone(),
            ordinal,
            spec: Arc::new(spec),
            status: WorkerStatus::Running,
            child: if startable { Child::Starting } else { Child::Unconnected },
            last_result: None,
            terminal: None,
            version: header.version.unwrap_or(Version(1)),
            revision: Revision(1),
            last_seq: header.seq,
            last_at: header.time,
            items: 0,
            incarnation: 0,
            process: None,
            pending: 0,
            settled: header.seq,
            turn: 0,
            open_turn: None,
            open_text: None,
            external: External::of_runtime(runtime).map(Arc::new),
        };
        if startable {
            state.result(Operation::Spawn, Outcome::Accepted, None);
        }
        Some(state)
    }

    /// Takes in a record of this worker. Total: what makes no sense changes little.
    pub fn apply(&mut self, record: &Record) {
        let header = &record.header;
        self.version = header.version.unwrap_or(self.version);
        self.last_seq = header.seq;
        self.last_at = header.time;
        if let Some(external) = &mut self.external {
            Arc::make_mut(external).apply(header);
        }
        match &header.event {
            Event::WorkerConnected(connected) => {
                self.child = Child::Ready;
                self.incarnation = connected.incarnation;
                self.process.clone_from(&connected.process);
                self.revision = self.revision.next();
                self.result(Operation::Spawn, Outcome::Accepted, None);
            }
            Event::WorkerSpawnFailed(failed) => {
                self.child = Child::Failed;
                self.revision = self.revision.next();
                self.result(Operation::Spawn, Outcome::Errored, Some(&failed.message));
            }
            Event::WorkerInputAccepted(accepted) => {
                self.items = accepted.item;
                // An external worker's inputs wait with all other messages to its agent.
                if self.external.is_none() {
                    self.pending = self.pending.saturating_add(1);
                }
                self.revision = accepted.revision;
                self.result(Operation::Input, Outcome::Accepted, None);
            }
            Event::WorkerInputDispatched(dispatched) => {
                self.pending = self.pending.saturating_sub(1);
                self.settled = dispatched.input;
                self.turn = dispatched.turn;
                self.open_turn =
                    Some(OpenTurn { turn: dispatched.turn, input: Some(dispatched.input) });
            }
            Event::WorkerProcessStarted(started) => self.process = Some(started.process.clone()),
            Event::WorkerProcessEnded(_) => {
                self.process = None;
                self.open_turn = None;
            }
            Event::WorkerInputFailed(failed) => {
                self.pending = self.pending.saturating_sub(failed.count);
                self.settled = self.settled.max(failed.through);
                self.result(Operation::Input, Outcome::Errored, Some(&failed.message));
            }
            Event::WorkerInterrupted(interrupted) => {
                self.open_turn = None;
                self.child = Child::Lost;
                self.process = None;
                self.revision = self.revision.next();
                if let (Some(input), true) = (interrupted.input, interrupted.again) {
                    self.settled = Sequence(input.0.saturating_sub(1));
                    self.pending = self.pending.saturating_add(1);
                }
            }
            Event::WorkerOutput(output) => self.apply_output(record, output.event, output.turn),
            Event::WorkerTurnEnded(ended) => {
                self.turn = ended.turn;
                self.open_turn = None;
                if ended.exit.is_some() {
                    self.process = None;
                }
            }
            Event::WorkerExited(exited) => {
                self.child = if exited.exit.success() { Child::Finished } else { Child::Broken };
                self.process = None;
                self.open_turn = None;
                self.revision = self.revision.next();
            }
            Event::WorkerStopped(stopped) => {
                self.end(WorkerStatus::Stopped, Operation::Stop, stopped.revision);
            }
            Event::WorkerCancelled(cancelled) => {
                self.end(WorkerStatus::Cancelled, Operation::Cancel, cancelled.revision);
            }
            Event::MessageReceived(received) => self.items = received.item,
            Event::ReplyReceived(received) => self.items = received.item,
            Event::WorkerReported(reported) => self.items = reported.item,
            Event::MessageAnswered(answered) => self.said(answered.item),
            Event::WorkerNotified(notified) => self.said(notified.item),
            _ => {}
        }
    }

    /// An agent that connects in has said something as a whole, which includes whatever it had
    /// said of it so far.
    fn said(&mut self, item: u64) {
        self.items = item;
        self.open_text = None;
        self.open_turn = None;
    }

    fn apply_output(&mut self, record: &Record, kind: OutputKind, turn: u64) {
        self.turn = turn;
        if self.open_turn.is_none() && is_work(kind) {
            self.open_turn = Some(OpenTurn { turn, input: None });
        }
        match kind {
            OutputKind::TextDelta => {
                let bytes = record.content.as_ref().map_or(0, |content| content.len);
                let open = self.open_text.get_or_insert(OpenText { first: record.seq(), bytes: 0 });
                open.bytes = open.bytes.saturating_add(bytes);
            }
            OutputKind::TextDone => {
                self.open_text = None;
                self.items = self.items.saturating_add(1);
            }
            _ => {}
        }
    }

    fn end(&mut self, status: WorkerStatus, operation: Operation, revision: Revision) {
        self.status = status;
        self.revision = revision;
        self.pending = 0;
        self.terminal = Some(Terminal { seq: self.last_seq, version: self.version, revision });
        self.result(operation, Outcome::Accepted, None);
    }

    fn result(&mut self, operation: Operation, outcome: Outcome, message: Option<&str>) {
        let run_state = self.run_state();
        self.last_result =
            Some(LastResult { operation, outcome, run_state, message: message.map(Into::into) });
    }

    /// What it is doing.
    pub fn run_state(&self) -> RunState {
        if self.status != WorkerStatus::Running {
            return RunState::Stopped;
        }
        if let Some(external) = &self.external {
            return match external.presence {
                Presence::AwaitingAgent => RunState::Unconnected,
                _ if external.waiting.is_empty() => RunState::Idle,
                _ => RunState::Busy,
            };
        }
        match self.child {
            Child::Unconnected => RunState::Unconnected,
            Child::Starting => RunState::Busy,
            Child::Failed | Child::Broken => RunState::Errored,
            Child::Finished => RunState::Stopped,
            Child::Ready | Child::Lost if self.pending > 0 || self.open_turn.is_some() => {
                RunState::Busy
            }
            Child::Ready | Child::Lost => RunState::Idle,
        }
    }

    /// How it is being executed, as clients see it.
    pub fn execution(&self) -> Execution {
        let backend = match (&self.external, self.child) {
            (Some(external), _) if external.presence != Presence::AwaitingAgent => {
                Backend::Connected
            }
            (_, Child::Unconnected) => Backend::Unconnected,
            _ => Backend::Connected,
        };
        Execution { backend, run_state: self.run_state(), last_result: self.last_result.clone() }
    }
}

/// Whether an output is part of a turn, so that it opens one if none is open. What a worker
/// reports of its run as a whole may also come between two turns.
fn is_work(kind: OutputKind) -> bool {
    match kind {
        OutputKind::TextDelta
        | OutputKind::TextDone
        | OutputKind::ThinkingStart
        | OutputKind::ThinkingDelta
        | OutputKind::ThinkingDone
        | OutputKind::ToolCallStart
        | OutputKind::ToolCallArgsDelta
        | OutputKind::ToolCallDone
        | OutputKind::ToolResult => true,
        OutputKind::Usage
        | OutputKind::RunEnd
        | OutputKind::Error
        | OutputKind::Status
        | OutputKind::Alert => false,
    }
}
