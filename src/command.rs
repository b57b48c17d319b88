//! Commands: validated intent, on its way to becoming events.

mod external;

pub use external::{AgentHealth, ExternalChange, NewExternal};

use crate::error::Rejection;
use acta_events::{
    Actor, ConfigBundleStored, CursorName, Digest, ErasureOrder, ExitStatus, HistoryExpired,
    HostId, HostRegistered, IdempotencyKey, InputKind, LocalPodsInspected, LocalWorkerFound,
    LogForked, OutputKind, ProcessRef, ReadsRecorded, Record, RemoteRuntimeRegistered, Revision,
    RuntimeId, RuntimeRegistered, Sequence, StoredContent, Timestamp, TokenId, TokenIssued,
    TraceParent, TurnResult, WorkerCreated, WorkerId, WorkerRef, sha256,
};
use acta_projections::{EXTERNAL_RUNTIME, WorkerState};
use bytes::Bytes;
use std::sync::Arc;

/// A command with everything that surrounds it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub actor: Actor,
    /// What makes a repeat recognisable.
    pub key: Option<CommandKey>,
    /// The revision that the worker must have.
    pub if_match: Option<Revision>,
    /// The caller's trace.
    pub trace: Option<TraceParent>,
    /// What is asked.
    pub command: Command,
}

impl Request {
    /// A command of the service itself.
    pub fn service(command: Command) -> Self {
        Self { actor: Actor::service(), key: None, if_match: None, trace: None, command }
    }
}

/// An idempotency key with the fingerprint of what was asked under it.
///
/// The fingerprint is SHA-256 over what was asked without its content, and the content's
/// digest. That digest is salted, so a repeat has another one: whether the contents are equal
/// is seen by comparing them, and erasing a content leaves nothing to guess it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandKey {
    /// Unique per actor.
    pub key: IdempotencyKey,
    /// To be recorded.
    pub fingerprint: Digest,
    asked: Digest,
    content: Option<Bytes>,
    any_content: bool,
}

impl CommandKey {
    /// A key over what was asked (method, path and fields) and its content.
    pub fn new(
        key: IdempotencyKey,
        asked: Digest,
        content_digest: Option<Digest>,
        content: Option<Bytes>,
    ) -> Self {
        let fingerprint = fingerprint(asked, content_digest);
        Self { key, fingerprint, asked, content, any_content: false }
    }

    /// A key that says all there is to say: whatever comes with it is the same command again.
    pub fn of_anything(key: IdempotencyKey) -> Self {
        let asked = sha256(&[key.as_str().as_bytes()]);
        Self { key, fingerprint: asked, asked, content: None, any_content: true }
    }

    /// Whether `first`, with its content as far as it is still there, is a record of the same
    /// command.
    pub fn is_of(&self, first: &Record, content: Option<&Bytes>) -> bool {
        let Some(command) = &first.header.command else { return false };
        if self.any_content {
            return command.fingerprint == self.fingerprint;
        }
        let digest = first.content.as_ref().map(|content| content.digest);
        let erased = first.content.is_some() && content.is_none();
        let equal = erased || content == self.content.as_ref();
        equal && fingerprint(self.asked, digest) == command.fingerprint
    }
}

fn fingerprint(asked: Digest, content: Option<Digest>) -> Digest {
    match content {
        None => asked,
        Some(content) => sha256(&[&asked.0, &content.0]),
    }
}

/// What can be asked.
#[derive(Clone, Debug)]
pub enum Command {
    /// The service opened the log.
    StartService {
        /// The version of Acta.
        acta: String,
    },
    /// The service is about to close the log.
    StopService {
        /// Why.
        reason: String,
    },
    /// Begin a new epoch at the end of a log that was restored.
    ForkLog {
        /// Where, and out of what.
        forked: LogForked,
        /// Why.
        reason: Option<StoredContent>,
    },
    /// Do again what the log asks for; nothing happens if that is done already.
    ResumeDispatch,
    /// Let the oldest segments expire, whose base is durable; nothing happens if they have.
    ExpireHistory(Box<HistoryExpired>),
    /// Make a runtime known, with its templates; nothing happens if it is known so already.
    RegisterRuntime {
        /// The runtime.
        runtime: RuntimeId,
        /// What it is.
        registered: RuntimeRegistered,
    },
    /// Make a runtime of another service known under an alias; nothing happens if it is known so
    /// already.
    RegisterRemote {
        /// The alias.
        runtime: RuntimeId,
        /// What and where it is.
        registered: RemoteRuntimeRegistered,
    },
    /// Forget a runtime of another service.
    RetireRuntime {
        /// Its alias.
        runtime: RuntimeId,
    },
    /// Take no more work, and stop all workers of the runtime.
    StopRuntime {
        /// The runtime.
        runtime: RuntimeId,
    },
    /// Make a host known; nothing happens if it is known so already.
    RegisterHost {
        /// The runtime it belongs to.
        runtime: RuntimeId,
        /// What it is.
        registered: HostRegistered,
    },
    /// Nothing was heard of a host for longer than its lease.
    LoseHost {
        /// The host.
        host: HostId,
        /// When it was last heard of, if that was since the service started.
        last_seen_at: Option<Timestamp>,
    },
    /// A host is there again; nothing happens if it was not lost.
    FindHost {
        /// The host.
        host: HostId,
    },
    /// A worker is in the directory of pods; nothing happens if it is known so already.
    FindLocalWorker {
        /// The runtime that stands for the directory.
        runtime: RuntimeId,
        /// What it is.
        found: Box<LocalWorkerFound>,
    },
    /// A worker is not in the directory of pods any more.
    LoseLocalWorker {
        /// The runtime that stands for the directory.
        runtime: RuntimeId,
        /// The worker.
        worker: WorkerId,
    },
    /// What else is seen there; nothing happens if it is known already.
    InspectLocalPods {
        /// The runtime that stands for the directory.
        runtime: RuntimeId,
        /// What.
        inspected: Box<LocalPodsInspected>,
    },
    /// Keep a config bundle that has been checked.
    StoreBundle {
        /// What is known without the document.
        stored: Box<ConfigBundleStored>,
        /// The document.
        document: StoredContent,
    },
    /// Make a worker.
    CreateWorker {
        /// Its address.
        worker: WorkerRef,
        /// What it is to be.
        created: Box<WorkerCreated>,
        /// Its free text.
        texts: Option<StoredContent>,
    },
    /// Make a worker that an agent connects in for.
    CreateExternal {
        /// Its address.
        worker: WorkerRef,
        /// What it is to be.
        new: Box<NewExternal>,
    },
    /// Something changes for an external worker, or one of its messages.
    External {
        /// The worker.
        worker: WorkerRef,
        /// What.
        change: Box<ExternalChange>,
    },
    /// Give a worker an input.
    Input {
        /// The worker.
        worker: WorkerRef,
        /// Who it speaks for.
        kind: InputKind,
        /// Its text.
        content: StoredContent,
    },
    /// Stop a worker for good.
    Stop {
        /// The worker.
        worker: WorkerRef,
        /// Why.
        reason: Option<StoredContent>,
    },
    /// Cancel a worker for good.
    Cancel {
        /// The worker.
        worker: WorkerRef,
        /// Why.
        reason: Option<StoredContent>,
    },
    /// Remember how far a consumer has read.
    CommitCursor {
        /// The consumer's name for it.
        name: CursorName,
        /// The position, as it was given out.
        cursor: String,
        /// The sequence in it.
        position: Sequence,
        /// Whether anything but records about watching lies between it and the last one.
        steps: bool,
    },
    /// Issue a token.
    IssueToken(Box<TokenIssued>),
    /// Revoke a token.
    RevokeToken {
        /// The token.
        token: TokenId,
    },
    /// Remember what the actor has read.
    RecordReads(ReadsRecorded),
    /// Erase the content of an earlier record.
    Redact {
        /// The record.
        target: RedactionTarget,
        /// Why.
        reason: Option<StoredContent>,
        /// Of an order that is repeated after an older state was restored: the first one.
        repeats: Option<ErasureOrder>,
    },
    /// What a backend reports of a worker.
    Report {
        /// The worker.
        worker: WorkerRef,
        /// In order.
        outcomes: Vec<Outcome>,
    },
}

/// A durable record whose content is to be erased.
#[derive(Clone, Debug)]
pub struct RedactionTarget {
    /// The record.
    pub record: Arc<Record>,
    /// The worker that it is about.
    pub worker: Option<WorkerRef>,
}

impl RedactionTarget {
    /// A record as a target.
    pub fn new(record: Arc<Record>) -> Self {
        let header = &record.header;
        let worker = header.runtime.clone().zip(header.worker.clone());
        let worker = worker.map(|(runtime_id, worker_id)| WorkerRef { runtime_id, worker_id });
        Self { record, worker }
    }
}

/// What has become of work in the world.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A backend has the worker at hand.
    Connected {
        /// The kind of backend.
        backend: &'static str,
        /// Its long-lived process.
        process: Option<ProcessRef>,
    },
    /// It could not be started.
    SpawnFailed {
        /// Why.
        message: String,
    },
    /// An input is about to be given to it.
    Dispatching {
        /// The accepted input.
        input: Sequence,
        /// The turn that it starts.
        turn: u64,
    },
    /// A process was started for one turn.
    Started {
        /// The turn.
        turn: u64,
        /// The process.
        process: ProcessRef,
    },
    /// It said or did something.
    Output {
        /// The turn.
        turn: u64,
        /// What.
        kind: OutputKind,
        /// Text, or the payload's data.
        content: StoredContent,
    },
    /// The text so far is complete.
    TextDone {
        /// The turn.
        turn: u64,
    },
    /// The turn ended.
    TurnEnded {
        /// The turn.
        turn: u64,
        /// How.
        result: TurnResult,
        /// Exit status of the turn's own process.
        exit: Option<ExitStatus>,
    },
    /// It wrote to its standard error, or spoke out of form.
    Diagnosed {
        /// Which of the two.
        source: &'static str,
        /// The text.
        content: StoredContent,
    },
    /// An accepted input could not be given to it.
    InputFailed {
        /// The input.
        input: Sequence,
        /// Why.
        message: String,
    },
    /// No accepted input that was not dispatched will ever be given to it.
    AllInputsFailed {
        /// Why.
        message: String,
    },
    /// Its process ended by itself.
    Exited {
        /// How.
        exit: ExitStatus,
    },
    /// The end of the service cut it off, or it was stopped or cancelled: nothing runs it any more.
    Interrupted {
        /// `service_stopped` or `service_lost`.
        reason: &'static str,
        /// Whether an input that was being worked on is given to it again.
        again: bool,
    },
}

impl Command {
    /// What it is, in one word; for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::StartService { .. } => "start_service",
            Self::StopService { .. } => "stop_service",
            Self::ForkLog { .. } => "fork_log",
            Self::ResumeDispatch => "resume_dispatch",
            Self::ExpireHistory(_) => "expire_history",
            Self::RegisterRuntime { .. } => "register_runtime",
            Self::RegisterRemote { .. } => "register_remote",
            Self::RetireRuntime { .. } => "retire_runtime",
            Self::StopRuntime { .. } => "stop_runtime",
            Self::RegisterHost { .. } => "register_host",
            Self::LoseHost { .. } => "lose_host",
            Self::FindHost { .. } => "find_host",
            Self::FindLocalWorker { .. } => "find_local_worker",
            Self::LoseLocalWorker { .. } => "lose_local_worker",
            Self::InspectLocalPods { .. } => "inspect_local_pods",
            Self::StoreBundle { .. } => "store_bundle",
            Self::CreateWorker { .. } => "create_worker",
            Self::CreateExternal { .. } => "create_external_worker",
            Self::External { .. } => "external_worker",
            Self::Input { .. } => "input",
            Self::Stop { .. } => "stop",
            Self::Cancel { .. } => "cancel",
            Self::CommitCursor { .. } => "commit_cursor",
            Self::IssueToken(_) => "issue_token",
            Self::RevokeToken { .. } => "revoke_token",
            Self::RecordReads(_) => "record_reads",
            Self::Redact { .. } => "redact",
            Self::Report { .. } => "report",
        }
    }

    /// The worker that `If-Match` speaks of.
    pub fn worker(&self) -> Option<&WorkerRef> {
        match self {
            Self::CreateWorker { worker, .. }
            | Self::CreateExternal { worker, .. }
            | Self::External { worker, .. }
            | Self::Input { worker, .. }
            | Self::Stop { worker, .. }
            | Self::Cancel { worker, .. }
            | Self::Report { worker, .. } => Some(worker),
            Self::Redact { target, .. } => target.worker.as_ref(),
            _ => None,
        }
    }

    /// Whether it is about the tokens of its worker too.
    pub fn changes_tokens(&self) -> bool {
        match self {
            Self::CreateExternal { .. } => true,
            Self::Stop { worker, .. } | Self::Cancel { worker, .. } => {
                worker.runtime_id.as_str() == EXTERNAL_RUNTIME
            }
            _ => false,
        }
    }

    /// Another worker that it changes too.
    pub fn peer(&self) -> Option<&WorkerRef> {
        match self {
            Self::External { change, .. } => match &**change {
                ExternalChange::Answer { asker, .. }
                | ExternalChange::Delivered { answer: Some((asker, ..)), .. } => asker.as_ref(),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it changes something other than a worker. Such commands are rare; they are
    /// decided one after the other, each upon what is durable.
    pub fn changes_globals(&self) -> bool {
        self.worker().is_none() || matches!(self, Self::Redact { .. })
    }

    /// Whether it is decided upon something other than its worker.
    pub fn reads_globals(&self) -> bool {
        self.changes_globals() || self.changes_tokens() || matches!(self, Self::CreateWorker { .. })
    }

    /// Whether it is decided upon a worker that it does not change.
    pub fn reads_other_workers(&self) -> bool {
        matches!(self, Self::IssueToken(_))
    }

    /// The digests of its contents that are in files of their own.
    pub fn content_files(&self) -> Vec<Digest> {
        let mut files = Vec::new();
        let mut add = |content: &StoredContent| {
            if content.body == acta_events::ContentBody::File {
                files.push(content.digest);
            }
        };
        match self {
            Self::Input { content, .. } => add(content),
            Self::StoreBundle { document, .. } => add(document),
            Self::CreateWorker { texts: content, .. }
            | Self::Stop { reason: content, .. }
            | Self::Cancel { reason: content, .. }
            | Self::Redact { reason: content, .. } => content.iter().for_each(add),
            Self::Report { outcomes, .. } => {
                for outcome in outcomes {
                    if let Outcome::Output { content, .. } | Outcome::Diagnosed { content, .. } =
                        outcome
                    {
                        add(content);
                    }
                }
            }
            _ => {}
        }
        files
    }

    /// Roughly how much memory it holds while it waits, in bytes.
    pub fn bytes(&self) -> usize {
        let content = |content: &StoredContent| match &content.body {
            acta_events::ContentBody::Inline { bytes, .. } => bytes.len(),
            _ => 0,
        };
        512 + match self {
            Self::Input { content: text, .. } => content(text),
            Self::StoreBundle { document, .. } => content(document),
            Self::CreateWorker { texts: Some(texts), .. } => content(texts),
            Self::External { change, .. } => {
                let contents = change.contents().into_iter().flatten();
                contents.map(|text| 768 + content(text)).sum()
            }
            Self::Report { outcomes, .. } => outcomes
                .iter()
                .map(|outcome| match outcome {
                    Outcome::Output { content: text, .. }
                    | Outcome::Diagnosed { content: text, .. } => 768 + content(text),
                    _ => 768,
                })
                .sum(),
            _ => 0,
        }
    }
}

/// The answer to a command that was not refused. Durable by the time anyone sees it.
#[derive(Clone, Debug)]
pub enum Ack {
    /// It was recorded.
    Recorded {
        /// Its first record.
        first: Arc<Record>,
        /// Whether it had been recorded before, under the same key.
        replayed: bool,
    },
    /// Its key was used before, for the command that made this record. The engine's handle
    /// reads the record and turns this into one of the others.
    Repeated {
        /// The first record of that command.
        seq: Sequence,
    },
    /// There was nothing to record: it was so already.
    Unchanged {
        /// The worker as it is, if the command was about one.
        worker: Option<Arc<WorkerState>>,
    },
}

impl Ack {
    /// Whether the command had been recorded before, under the same key.
    pub fn is_replayed(&self) -> bool {
        matches!(self, Self::Recorded { replayed: true, .. })
    }
}

/// What comes back from the engine.
pub type Answer = Result<Ack, Rejection>;

/// The id of a worker, fresh.
pub fn worker_id(millis: i64, random: u64) -> WorkerId {
    let text = format!("w-{:012x}{:08x}", millis & 0xffff_ffff_ffff, random & 0xffff_ffff);
    WorkerId::parse(&text).expect("a dash and hexadecimal digits make an identifier")
}
