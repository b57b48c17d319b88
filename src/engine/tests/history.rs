//! Random histories: commands that make sense often enough, decided one at a time.
//!
//! A command is made of eight random bytes and the state that the commands before it have
//! led to. Making the same log again from the same commands, in other batches, is then a
//! matter of submitting them again.

use crate::{
    command::{
        AgentHealth, Answer, Command, CommandKey, ExternalChange, NewExternal, Outcome,
        RedactionTarget, Request,
    },
    engine::{
        core::{Batch, Core, Decided, Moment, Submission},
        replay_of,
    },
    index::Index,
    journal::{MemoryJournal, ReadLimits},
    log::{Contents, Log},
};
use acta_events::{
    ActivityKind, Actor, BundleRef, ConfigBundleStored, Content, CursorName, DegradedReason,
    Delivery, DeliveryMode, Digest, ExitStatus, HostCapabilities, HostId, HostRegistered,
    IdempotencyKey, Inbox, InputKind, IntentKind, LocalPodsInspected, LocalPodsState,
    LocalWorkerFound, LocalWorkerStatus, LogId, MediaType, OutputKind, ProcessRef, ProfileSelector,
    Provenance, ReadNote, ReadsRecorded, Record, RemoteAddress, RemoteRuntimeRegistered, Revision,
    Role, RuntimeId, RuntimeRegistered, Sequence, StoredContent, Timestamp, TokenId, TokenIssued,
    TurnResult, WorkerCreated, WorkerId, WorkerRef, sha256,
};
use acta_projections::{External, Projections, WorkerState};
use std::sync::Arc;

pub(crate) const LOG: LogId = LogId(uuid::Uuid::from_u128(0xac7a));

/// Random bytes that a command is made from.
pub(crate) type Seed = [u8; 8];

pub(crate) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn text(text: &str) -> StoredContent {
    let salt = sha256(&[text.as_bytes()]).0[..16].try_into().unwrap();
    Content::new(salt, MediaType::Text, text.as_bytes().to_vec().into()).to_stored()
}

pub(crate) fn worker(n: u8) -> WorkerRef {
    WorkerRef { runtime_id: id("r"), worker_id: id(&format!("w{n}")) }
}

pub(crate) fn created(template: Option<&str>) -> WorkerCreated {
    WorkerCreated {
        intent: IntentKind::Assistant,
        profile: ProfileSelector::RuntimeDefault,
        template: template.map(Into::into),
        host: None,
        config_bundle: None,
        requested_capabilities: Vec::new(),
        workspace_refs: Vec::new(),
        mount_refs: Vec::new(),
    }
}

pub(crate) fn register(runtime: &str) -> Command {
    let (runtime, label) = (id::<RuntimeId>(runtime), runtime.to_owned());
    let registered = RuntimeRegistered { kind: "test".into(), label, templates: Vec::new() };
    Command::RegisterRuntime { runtime, registered }
}

pub(crate) fn create(n: u8) -> Command {
    let created = Box::new(created(Some("echo")));
    Command::CreateWorker { worker: worker(n), created, texts: None }
}

pub(crate) fn input(n: u8, words: &str) -> Command {
    Command::Input { worker: worker(n), kind: InputKind::User, content: text(words) }
}

pub(crate) fn request(command: Command) -> Request {
    Request { actor: id("operator"), key: None, if_match: None, trace: None, command }
}

/// A request that a client can repeat; its fingerprint covers all of the command.
pub(crate) fn keyed(actor: &str, key: &str, command: Command) -> Request {
    let asked = sha256(&[format!("{command:?}").as_bytes()]);
    let content = content_of(&command);
    let bytes = content.and_then(|content| match &content.body {
        acta_events::ContentBody::Inline { bytes, .. } => Some(bytes.clone()),
        _ => None,
    });
    let digest = content.map(|content| content.digest);
    let key = CommandKey::new(id::<IdempotencyKey>(key), asked, digest, bytes);
    Request { actor: id::<Actor>(actor), key: Some(key), ..request(command) }
}

fn content_of(command: &Command) -> Option<&StoredContent> {
    match command {
        Command::Input { content, .. } => Some(content),
        Command::Stop { reason, .. } | Command::Cancel { reason, .. } => reason.as_ref(),
        Command::CreateWorker { texts, .. } => texts.as_ref(),
        Command::StoreBundle { document, .. } => Some(document),
        Command::Redact { reason, .. } => reason.as_ref(),
        _ => None,
    }
}

pub(crate) fn memory_log() -> Arc<Log> {
    let journal = Arc::new(MemoryJournal::new(LOG));
    let (log, _) =
        Log::open(LOG, journal, Index::in_memory(), Contents::in_memory(), None).unwrap();
    Arc::new(log)
}

/// Everything that is durable.
pub(crate) fn records(log: &Log) -> Vec<Arc<Record>> {
    let limits = ReadLimits { blocks: usize::MAX, bytes: usize::MAX };
    let blocks = log.journal().read(Sequence::ZERO, limits).unwrap();
    blocks.iter().flat_map(|block| block.records.iter().cloned()).collect()
}

pub(crate) fn rebuilt(records: &[Arc<Record>]) -> Projections {
    let mut projections = Projections::default();
    records.iter().for_each(|record| projections.apply(record).unwrap());
    projections
}

/// The time and randomness of the n-th command, so that deciding it again gives the record
/// again, byte for byte.
pub(super) fn moment(n: usize) -> Moment {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&(n as u64 * 7919).to_le_bytes());
    // Not steadily forward: clocks are not.
    let micros = 1_795_000_000_000_000 + n as i64 * 1000 - (n as i64 % 7) * 2500;
    Moment { now: Timestamp(micros), random }
}

/// What a caller gets to see, in a form that can be compared.
pub(crate) fn seen(log: &Log, request: &Request, answer: &Answer) -> String {
    use crate::command::Ack;
    match answer {
        Err(rejection) => format!("refused: {rejection}"),
        Ok(Ack::Recorded { first, replayed }) => {
            format!("recorded {} {replayed} {}", first.seq(), first.digest)
        }
        Ok(Ack::Repeated { seq }) => {
            let first = records(log)[seq.0 as usize - 1].clone();
            let content = log.content_blocking(&first).unwrap();
            seen(log, request, &replay_of(request, first, content.as_ref()))
        }
        Ok(Ack::Unchanged { worker }) => {
            // The number in the index is given when a worker is durable.
            let state = worker.as_deref().map(|state| WorkerState { ordinal: 0, ..state.clone() });
            format!("unchanged {state:?}")
        }
    }
}

/// A core over a journal in memory, whose batches are made durable on demand.
pub(crate) struct Drive {
    pub(crate) log: Arc<Log>,
    pub(crate) core: Core<usize>,
    in_flight: Option<Batch<usize>>,
    /// By number of the command.
    pub(crate) answers: Vec<(usize, String)>,
}

impl Drive {
    pub(crate) fn new() -> Self {
        let log = memory_log();
        let core = Core::new(Arc::clone(log.views()), Arc::clone(log.index()), log.end());
        Self { log, core, in_flight: None, answers: Vec::new() }
    }

    /// Decides a command, as soon as that is possible.
    pub(crate) fn submit(&mut self, n: usize, request: Request) {
        let key_checked = self.log.index().flushed_through();
        let mut submission = Box::new(Submission { request, key_checked, reply: n });
        while let Some(waiting) = self.core.submit(submission, moment(n)) {
            submission = waiting;
            assert!(self.in_flight.is_some() || self.core.has_work(), "it would wait for ever");
            self.commit();
        }
        if self.core.is_full() {
            self.commit();
        }
    }

    pub(crate) fn hand_over(&mut self) {
        if self.in_flight.is_none() && self.core.has_work() {
            self.in_flight = Some(self.core.take_batch());
        }
    }

    /// Makes what was handed over durable; if nothing was, what is ready to be.
    pub(crate) fn commit(&mut self) {
        self.hand_over();
        let Some(Batch { after, blocks, decided }) = self.in_flight.take() else { return };
        let (blocks, encoded): (Vec<_>, Vec<_>) = blocks.into_iter().unzip();
        if !encoded.is_empty() {
            self.log.journal().append(after, &encoded).unwrap();
            self.log.publish(&blocks).unwrap();
        }
        for Decided { submission, answer } in decided {
            self.answers.push((submission.reply, seen(&self.log, &submission.request, &answer)));
        }
        self.core.committed(self.log.head());
    }

    /// The disk refuses what was handed over. Whoever asked tries again.
    pub(crate) fn refuse(&mut self) {
        let Some(batch) = self.in_flight.take() else { return };
        let again = self.core.rolled_back(self.log.end());
        assert!(!self.core.has_work());
        for submission in batch.decided.into_iter().map(|decided| decided.submission).chain(again) {
            self.submit(submission.reply, submission.request);
        }
    }

    pub(crate) fn finish(mut self) -> (Arc<Log>, Vec<String>) {
        while self.in_flight.is_some() || self.core.has_work() {
            self.commit();
        }
        self.answers.sort_by_key(|(n, _)| *n);
        (self.log, self.answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

/// Commands, and the log and answers that deciding them one at a time leads to.
pub(crate) struct History {
    pub(crate) requests: Vec<Request>,
    pub(crate) answers: Vec<String>,
    pub(crate) log: Arc<Log>,
}

impl History {
    pub(crate) fn new(seeds: &[Seed]) -> Self {
        let mut drive = Drive::new();
        let mut requests = vec![request(register("r"))];
        requests.extend((0..2).map(|n| request(create(n))));
        for n in 0..requests.len() + seeds.len() {
            if let Some(seed) = n.checked_sub(3).map(|n| seeds[n]) {
                let made = make(seed, &drive.log, &requests);
                requests.push(made);
            }
            drive.submit(n, requests[n].clone());
            drive.commit();
        }
        let (log, answers) = drive.finish();
        Self { requests, answers, log }
    }

    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        records(&self.log)
    }
}

/// Now and then an earlier request comes again; most are new.
pub(super) fn make(
    [what, which, a, b, key, actor, matching, again]: Seed,
    log: &Log,
    earlier: &[Request],
) -> Request {
    if again < 20 {
        return earlier[usize::from(which) % earlier.len()].clone();
    }
    let actor = if actor < 200 { "operator" } else { "token:other" };
    let is_agent = (108..130).contains(&what);
    let worker = if is_agent { agent(which % 2) } else { worker(which % 4) };
    let views = log.views().read();
    let state = views.workers.get(&worker.runtime_id, &worker.worker_id);
    let command = match what {
        108..130 => {
            of_agent(worker.clone(), a, b, state.and_then(|state| state.external.as_deref()))
        }
        0..130 => of_worker(what, worker.clone(), a, b, state.map(|state| &**state)),
        250..252 => redact(records(log), a, b),
        _ => of_service(what, a, b),
    };
    let mut made = request(command);
    made.actor = id(actor);
    if key < 90 {
        made = keyed(actor, &format!("k{}", key % 8), made.command);
    }
    if matching < 40 {
        let known = state.map_or(0, |state| state.revision.0);
        made.if_match = Some(Revision(if matching < 30 { known } else { known + 1 }));
    }
    made
}

fn of_worker(what: u8, worker: WorkerRef, a: u8, b: u8, state: Option<&WorkerState>) -> Command {
    let reason = (b < 100).then(|| text("enough"));
    match what {
        0..15 => {
            let template = (a < 200).then_some("echo");
            let mut created = created(template);
            if b < 60 {
                created.profile = ProfileSelector::Named("p".into());
                created.config_bundle = (b < 50).then(|| bundle(b % 3));
            }
            let texts = b.is_multiple_of(2).then(|| text("a purpose"));
            Command::CreateWorker { worker, created: Box::new(created), texts }
        }
        15..55 => {
            let kind = if a < 50 { InputKind::System } else { InputKind::User };
            Command::Input { worker, kind, content: text(&"word ".repeat(usize::from(b) + 1)) }
        }
        55..59 => Command::Stop { worker, reason },
        59..62 => Command::Cancel { worker, reason },
        _ => {
            let count = 1 + usize::from(a % 3);
            let outcomes = (0..count).map(|n| outcome(a.wrapping_add(97 * n as u8), b, state));
            Command::Report { worker, outcomes: outcomes.collect() }
        }
    }
}

fn agent(n: u8) -> WorkerRef {
    WorkerRef { runtime_id: id("external"), worker_id: id(&format!("x{n}")) }
}

/// A worker whose agent connects in, and what may happen to it; the other one asks it.
fn of_agent(worker: WorkerRef, a: u8, b: u8, external: Option<&External>) -> Command {
    let Some(external) = external else {
        let token = None;
        let new = NewExternal { created: created(None), label: None, url: None, token };
        return Command::CreateExternal { worker, new: Box::new(new) };
    };
    let (waits, asker) = (external.waiting.front(), (b < 128).then(|| agent(b % 2)));
    let message = waits.copied().unwrap_or(Sequence(u64::from(b)));
    let attempts = 1 + u32::from(b % 3);
    let change = match a {
        0..15 => ExternalChange::Register {
            delivery: Delivery { mode: DeliveryMode::Poll, url: None },
            card: None,
        },
        15..60 => ExternalChange::Beat {
            health: [AgentHealth::Good, AgentHealth::Bad(DegradedReason::Wedged)]
                [usize::from(b % 2)],
            sample: None,
        },
        60..70 => ExternalChange::Lost,
        70..80 => ExternalChange::WentDeaf,
        80..90 => ExternalChange::Listens,
        90..130 => ExternalChange::Message {
            source: asker,
            method: "message/send".into(),
            content: text("what?"),
        },
        130..145 => {
            let reply = asker.is_some().then(|| text("that"));
            ExternalChange::Answer { message, asker, answer: text("that"), reply }
        }
        145..155 => ExternalChange::Notify { message: None, content: text("look") },
        155..165 => ExternalChange::Report {
            activity: ActivityKind::TaskUpdate,
            message: None,
            content: text("at it"),
        },
        165..172 => ExternalChange::Read { inbox: Inbox::All, through: Sequence(u64::from(b)) },
        172..187 => ExternalChange::Delivered { message, attempts, answer: None },
        187..222 => {
            ExternalChange::DeliveryFailed { message, attempts, reason: "it answered 503".into() }
        }
        _ => {
            let failed = external.undelivered.front().map_or(message, |failed| failed.message);
            ExternalChange::RetryDelivery { message: failed }
        }
    };
    Command::External { worker, change: Box::new(change) }
}

fn outcome(a: u8, b: u8, state: Option<&WorkerState>) -> Outcome {
    let process = ProcessRef { pid: u32::from(b), started_ticks: 1, boot: "boot".into() };
    let exit = ExitStatus { code: Some(i32::from(b % 2)), signal: None };
    let turn = state.map_or(1, |state| state.turn + u64::from(state.open_turn.is_none()));
    let next = state.map_or(1, |state| state.settled.0 + 1);
    let message = "it did not work".to_owned();
    match a {
        0..40 => Outcome::Connected { backend: "test", process: (b < 128).then_some(process) },
        40..46 => Outcome::SpawnFailed { message },
        46..90 => Outcome::Dispatching { input: Sequence(next + u64::from(b % 3)), turn },
        90..100 => Outcome::Started { turn, process },
        100..150 => {
            let kinds = [OutputKind::TextDelta, OutputKind::TextDelta, OutputKind::Usage];
            let kind = kinds[usize::from(b) % 3];
            Outcome::Output { turn, kind, content: text(&"x".repeat(usize::from(b) * 40)) }
        }
        150..175 => Outcome::TextDone { turn },
        175..200 => {
            let exit = (b < 100).then_some(exit);
            Outcome::TurnEnded { turn, result: TurnResult::Finished, exit }
        }
        200..215 => Outcome::Diagnosed { source: "stderr", content: text("oh") },
        215..227 => Outcome::InputFailed { input: Sequence(next + u64::from(b % 2)), message },
        227..236 => Outcome::AllInputsFailed { message },
        236..242 => Outcome::Exited { exit },
        _ => Outcome::Interrupted { reason: "service_lost", again: b < 128 },
    }
}

fn redact(records: Vec<Arc<Record>>, a: u8, b: u8) -> Command {
    let place = usize::from(a) * 256 + usize::from(b);
    let target = RedactionTarget::new(Arc::clone(&records[place % records.len()]));
    Command::Redact { target, reason: (b < 128).then(|| text("by mistake")), repeats: None }
}

fn bundle(n: u8) -> BundleRef {
    BundleRef { id: format!("b{}", n % 2), digest: Digest([n; 32]).to_string() }
}

fn of_service(what: u8, a: u8, b: u8) -> Command {
    match what {
        130..140 => register(["r", "other", "external"][usize::from(a % 3)]),
        140..142 => {
            let remote = RemoteAddress { url: format!("http://{}", b % 2), token_env: None };
            let registered = RemoteRuntimeRegistered { label: "far".into(), remote };
            let runtime = id(["far", "r"][usize::from(a.is_multiple_of(4))]);
            Command::RegisterRemote { runtime, registered }
        }
        142 => {
            Command::RetireRuntime { runtime: id(["far", "r"][usize::from(a.is_multiple_of(4))]) }
        }
        143..145 => {
            let Command::RegisterRuntime { runtime, mut registered } = register("r") else {
                unreachable!()
            };
            registered.label = format!("label {}", b % 3);
            Command::RegisterRuntime { runtime, registered }
        }
        145..148 => {
            Command::StopRuntime { runtime: id(["r", "other", "none"][usize::from(a % 3)]) }
        }
        158..160 => local_pods(a, b),
        148..158 => {
            let registered = HostRegistered {
                host: id::<HostId>(&format!("h{}", b % 4 / 2)),
                kind: "test".into(),
                label: format!("label {}", b % 2),
                capabilities: HostCapabilities::of_machine("linux", "x86_64"),
            };
            match a % 4 {
                0 => Command::LoseHost { host: id("h0"), last_seen_at: None },
                1 => Command::FindHost { host: id("h0") },
                _ => Command::RegisterHost { runtime: id("r"), registered },
            }
        }
        160..180 => {
            let stored = ConfigBundleStored {
                bundle: bundle(a % 3),
                revision: "1".into(),
                workspace_id: "ws".into(),
                created_at: "then".into(),
                provenance: Provenance { source: "test".into(), detail: None },
                profiles: if b < 128 { vec!["p".into()] } else { Vec::new() },
                declaration_count: 0,
            };
            Command::StoreBundle { stored: Box::new(stored), document: text("{}") }
        }
        180..200 => {
            let position = Sequence(u64::from(a % 16));
            let cursor = format!("cursor {position}");
            let name = id::<CursorName>(&format!("c{}", b % 2));
            if b >= 224 {
                let note = ReadNote { what: cursor, count: 1, head: position };
                return Command::RecordReads(ReadsRecorded { reads: vec![note], more: 0 });
            }
            Command::CommitCursor { name, cursor, position, steps: b < 128 }
        }
        200..225 => {
            let of_worker = WorkerRef {
                runtime_id: id("r"),
                worker_id: id::<WorkerId>(&format!("w{}", a % 4)),
            };
            let role = if b < 128 { Role::Worker } else { Role::Observer };
            let issued = TokenIssued {
                token: id::<TokenId>(&format!("t{}", b % 4)),
                digest: Digest([b; 32]),
                role,
                label: None,
                worker: (a < 200).then_some(of_worker),
                host: None,
            };
            Command::IssueToken(Box::new(issued))
        }
        225..245 => Command::RevokeToken { token: id(&format!("t{}", a % 5)) },
        245..250 => Command::StartService { acta: "0.1.0".into() },
        _ => Command::StopService { reason: "test".into() },
    }
}

/// Something about local pods.
fn local_pods(a: u8, b: u8) -> Command {
    let (runtime, worker) = (id("r"), id::<WorkerId>(&format!("local-{}", a % 3)));
    match b % 4 {
        0 => Command::LoseLocalWorker { runtime, worker },
        1 => {
            let state =
                if a < 128 { LocalPodsState::Available } else { LocalPodsState::Unreadable };
            let inspected = LocalPodsInspected { host: id("h0"), state, problems: [].into() };
            Command::InspectLocalPods { runtime, inspected: Box::new(inspected) }
        }
        _ => {
            let found = LocalWorkerFound {
                worker,
                host: id("h0"),
                label: "a label".into(),
                hint: "a hint".into(),
                role: None,
                profile: None,
                status: match b % 3 {
                    0 => LocalWorkerStatus::Segment,
                    1 => LocalWorkerStatus::PendingSegment,
                    _ => LocalWorkerStatus::MetadataOnly,
                },
            };
            Command::FindLocalWorker { runtime, found: Box::new(found) }
        }
    }
}
