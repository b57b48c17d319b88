//! The deciding half of the engine: a state machine without threads, clocks or I/O of its own.
//!
//! It decides each command upon what is durable (the views) and, on top of that, an overlay of
//! what has been decided and is not durable yet. Decided records go into blocks; whoever drives
//! the core takes the blocks as a [`Batch`], makes them durable, publishes them, and says so
//! with [`Core::committed`], or takes the decisions back with [`Core::rolled_back`].
//!
//! Invariant: an answer leaves only with a batch, or when nothing that it could rest upon is
//! still on its way to the disk.

use crate::{
    command::{Ack, Answer, Command, Request},
    decide::{self, Decision, Draft, Facts},
    error::{Code, Rejection},
    index::Index,
    journal::EncodedBlock,
    views::Views,
};
use acta_events::{
    Actor, Digest, Epoch, Header, IdempotencyKey, Record, RuntimeId, Sequence, Timestamp, Version,
    WorkerId, WorkerRef,
    block::{Block, BlockBuilder},
    record::CommandRef,
    sha256,
};
use acta_projections::WorkerState;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};
use uuid::Uuid;

/// How many blocks one batch has at most, about.
pub const BLOCKS_WAITING_MAX: usize = 16;

/// What makes a command recognisable, whoever gives it.
pub type KeyDigest = [u8; 16];

/// The digest under which a key is looked up: actor and key.
pub fn key_digest(actor: &Actor, key: &IdempotencyKey) -> KeyDigest {
    let digest = sha256(&[actor.as_str().as_bytes(), &[0], key.as_str().as_bytes()]);
    let mut short = [0; 16];
    short.copy_from_slice(&digest.0[..16]);
    short
}

/// Where the log ends: what the next block follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The last sequence.
    pub seq: Sequence,
    /// The digest of the last block.
    pub block: Digest,
    /// The time of the last record.
    pub time: Timestamp,
    /// The incarnation that is being written.
    pub epoch: Epoch,
}

/// Time and randomness for one decision.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// Ten random bytes make a record's id.
    pub random: [u8; 10],
}

/// A command on its way through the engine.
#[derive(Debug)]
pub struct Submission<R> {
    /// What is asked.
    pub request: Request,
    /// Up to where the key is known not to have been used.
    pub key_checked: Sequence,
    /// How the answer gets back.
    pub reply: R,
}

/// A command that has been decided, with its answer.
#[derive(Debug)]
pub struct Decided<R> {
    /// The command, in case the decision has to be taken back.
    pub submission: Box<Submission<R>>,
    /// What it will hear once everything before it is durable.
    pub answer: Answer,
}

/// Blocks to be made durable, and the answers that wait for it.
#[derive(Debug)]
pub struct Batch<R> {
    /// What the first block follows.
    pub after: Sequence,
    /// In order; none if there are only answers.
    pub blocks: Vec<(Block, EncodedBlock)>,
    /// In order.
    pub decided: Vec<Decided<R>>,
}

struct Pending {
    state: Arc<WorkerState>,
    last: Sequence,
}

type WorkerKey = (RuntimeId, WorkerId);

/// The deciding half of the engine.
pub struct Core<R> {
    views: Arc<Views>,
    index: Arc<Index>,
    end: LogEnd,
    builder: BlockBuilder,
    sealed: Vec<(Block, EncodedBlock)>,
    decided: Vec<Decided<R>>,
    overlay: HashMap<WorkerKey, Pending>,
    touched: VecDeque<(Sequence, WorkerKey)>,
    keys: HashMap<KeyDigest, Sequence>,
    key_order: VecDeque<(Sequence, KeyDigest)>,
    /// The last record, not durable yet, that changed something other than a worker.
    globals_changed: Option<Sequence>,
    batch_after: Sequence,
}

impl<R> Core<R> {
    /// A core that continues the log at its end.
    pub fn new(views: Arc<Views>, index: Arc<Index>, end: LogEnd) -> Self {
        Self {
            views,
            index,
            end,
            builder: BlockBuilder::new(end.epoch, end.block),
            sealed: Vec::new(),
            decided: Vec::new(),
            overlay: HashMap::new(),
            touched: VecDeque::new(),
            keys: HashMap::new(),
            key_order: VecDeque::new(),
            globals_changed: None,
            batch_after: end.seq,
        }
    }

    /// Whether there is something to hand over.
    pub fn has_work(&self) -> bool {
        !self.decided.is_empty()
    }

    /// Whether no further command should be decided before a batch is taken.
    pub fn is_full(&self) -> bool {
        self.sealed.len() >= BLOCKS_WAITING_MAX
    }

    /// Decides a command. Its answer is kept until its batch is durable. Gives the command back
    /// if it rests upon something that is not durable yet.
    pub fn submit(
        &mut self,
        submission: Box<Submission<R>>,
        moment: Moment,
    ) -> Option<Box<Submission<R>>> {
        let command = &submission.request.command;
        let rests_upon_pending = self.globals_changed.is_some() && command.reads_globals()
            || !self.overlay.is_empty() && command.reads_other_workers();
        if rests_upon_pending {
            return Some(submission);
        }
        let answer = self.decide(&submission, moment);
        self.decided.push(Decided { submission, answer });
        None
    }

    fn decide(&mut self, submission: &Submission<R>, moment: Moment) -> Answer {
        let request = &submission.request;
        let key = request.key.as_ref().map(|key| key_digest(&request.actor, &key.key));
        if let Some(key) = &key
            && let Some(first) = self.find_key(key, submission.key_checked)?
        {
            return Ok(Ack::Repeated { seq: first });
        }
        let worker = request.command.worker().cloned();
        let state = worker.as_ref().and_then(|worker| self.worker(worker));
        check_revision(request, state.as_ref())?;
        let moment = Moment { now: moment.now.max(self.end.time), ..moment };
        if let Command::Report { outcomes, .. } = &request.command {
            let answer = self.decide_report(request, state, outcomes, moment)?;
            self.remember(key, &answer);
            return Ok(answer);
        }
        let peer = request.command.peer().and_then(|worker| self.worker(worker));
        let decision = {
            let globals = self.views.read();
            let facts = Facts {
                globals: &globals,
                worker: state.as_ref(),
                peer: peer.as_ref(),
                actor: &request.actor,
                now: moment.now,
            };
            decide::decide(facts, &request.command)?
        };
        match decision {
            Decision::Unchanged => Ok(Ack::Unchanged { worker: state }),
            Decision::Record(draft) => {
                let record = self.record(request, state.as_deref(), *draft, moment, true)?;
                if request.command.changes_globals() {
                    self.globals_changed = Some(record.seq());
                }
                let answer = Ack::Recorded { first: record, replayed: false };
                self.remember(key, &answer);
                Ok(answer)
            }
            Decision::RecordAll(drafts) => {
                let answer = self.record_all(request, drafts, moment)?;
                self.remember(key, &answer);
                Ok(answer)
            }
        }
    }

    /// Records several drafts of one command, in one block where they fit into one.
    fn record_all(&mut self, request: &Request, drafts: Vec<Draft>, moment: Moment) -> Answer {
        if !self.builder.fits(request.command.bytes()) {
            self.seal();
        }
        let mut first = None;
        for (n, draft) in drafts.into_iter().enumerate() {
            let about = draft.runtime.clone().zip(draft.worker.clone());
            let state = about.and_then(|key| self.worker_by_key(&key));
            let moment = moment.vary(n);
            let record = self.record(request, state.as_deref(), draft, moment, first.is_none())?;
            if request.command.changes_tokens() {
                self.globals_changed = Some(record.seq());
            }
            first.get_or_insert(record);
        }
        Ok(match first {
            Some(first) => Ack::Recorded { first, replayed: false },
            None => Ack::Unchanged { worker: None },
        })
    }

    /// Knows the key of a command that was recorded until the index does.
    fn remember(&mut self, key: Option<KeyDigest>, answer: &Ack) {
        if let (Some(key), Ack::Recorded { first, .. }) = (key, answer) {
            self.keys.insert(key, first.seq());
            self.key_order.push_back((first.seq(), key));
        }
    }

    fn decide_report(
        &mut self,
        request: &Request,
        state: Option<Arc<WorkerState>>,
        outcomes: &[crate::command::Outcome],
        moment: Moment,
    ) -> Answer {
        let mut state = state.ok_or_else(|| Rejection::invalid("a report of an unknown worker"))?;
        let worker =
            WorkerRef { runtime_id: state.runtime.clone(), worker_id: state.worker.clone() };
        // Of a report that is refused nothing is recorded. No outcome ends a worker, so what is
        // refused is refused from the beginning.
        if state.terminal.is_some() {
            for outcome in outcomes {
                decide::decide_outcome(&state, outcome)?;
            }
        }
        // All of a report stands in one block, so that after a crash it is there as a whole or
        // not at all, and whoever reported can tell which.
        if !self.builder.fits(request.command.bytes()) {
            self.seal();
        }
        let mut first = None;
        for (n, outcome) in outcomes.iter().enumerate() {
            if let Decision::Record(draft) = decide::decide_outcome(&state, outcome)? {
                let moment = moment.vary(n);
                let record = self.record(request, Some(&state), *draft, moment, first.is_none())?;
                state = self.worker(&worker).unwrap_or(state);
                first.get_or_insert(record);
            }
        }
        Ok(match first {
            Some(first) => Ack::Recorded { first, replayed: false },
            None => Ack::Unchanged { worker: Some(state) },
        })
    }

    /// Numbers a draft, puts it into the open block and takes it into the overlay.
    fn record(
        &mut self,
        request: &Request,
        state: Option<&WorkerState>,
        draft: Draft,
        moment: Moment,
        is_first: bool,
    ) -> Result<Arc<Record>, Rejection> {
        let version = draft.worker.as_ref().map(|_| state.map_or(Version(1), |s| s.version.next()));
        let command = request
            .key
            .as_ref()
            .filter(|_| is_first)
            .map(|key| CommandRef { key: key.key.clone(), fingerprint: key.fingerprint });
        let header = Header {
            seq: self.end.seq.next(),
            id: uuid_v7(moment),
            time: moment.now,
            runtime: draft.runtime,
            worker: draft.worker,
            version,
            actor: request.actor.clone(),
            command,
            trace: request.trace.clone(),
            event: draft.event,
        };
        let record = Record::new(header, draft.content).map_err(|error| {
            let message = format!("the request does not fit into one record: {error}");
            Rejection::new(Code::PayloadTooLarge, message)
        })?;
        if !self.builder.fits(record.stored_bytes()) {
            self.seal();
        }
        self.end.seq = record.seq();
        self.end.time = record.header.time;
        self.overlay_worker(&record);
        let record = Arc::new(record);
        self.builder.push(Arc::clone(&record));
        Ok(record)
    }

    fn overlay_worker(&mut self, record: &Record) {
        let (Some(runtime), Some(worker)) = (&record.header.runtime, &record.header.worker) else {
            return;
        };
        let key = (runtime.clone(), worker.clone());
        let seq = record.seq();
        let state = match WorkerState::create(record, 0) {
            Some(state) => Some(Arc::new(state)),
            None => self.worker_by_key(&key).map(|mut state| {
                Arc::make_mut(&mut state).apply(record);
                state
            }),
        };
        if let Some(state) = state {
            self.overlay.insert(key.clone(), Pending { state, last: seq });
            self.touched.push_back((seq, key));
        }
    }

    fn worker(&self, worker: &WorkerRef) -> Option<Arc<WorkerState>> {
        self.worker_by_key(&(worker.runtime_id.clone(), worker.worker_id.clone()))
    }

    fn worker_by_key(&self, key: &WorkerKey) -> Option<Arc<WorkerState>> {
        match self.overlay.get(key) {
            Some(pending) => Some(Arc::clone(&pending.state)),
            None => self.views.worker(&key.0, &key.1),
        }
    }

    fn find_key(&self, key: &KeyDigest, checked: Sequence) -> Result<Option<Sequence>, Rejection> {
        if let Some(seq) = self.keys.get(key) {
            return Ok(Some(*seq));
        }
        match self.index.find_key_above(key, checked) {
            Ok(found) => Ok(found),
            Err(error) => {
                tracing::error!(%error, "the key index cannot be read");
                Err(Rejection::new(
                    Code::StoreCorrupt,
                    "the index of idempotency keys is damaged: stop the service, remove the \
                     `index` directory from its data directory, and start it again",
                ))
            }
        }
    }

    fn seal(&mut self) {
        let fresh = BlockBuilder::new(self.end.epoch, Digest::ZERO);
        let builder = std::mem::replace(&mut self.builder, fresh);
        if let Some((block, bytes)) = builder.finish() {
            self.end.block = block.digest;
            let encoded = EncodedBlock {
                first: block.first(),
                last: block.last(),
                previous: block.previous,
                digest: block.digest,
                bytes,
            };
            self.sealed.push((block, encoded));
        }
        self.builder = BlockBuilder::new(self.end.epoch, self.end.block);
    }

    /// Everything decided since the last batch.
    pub fn take_batch(&mut self) -> Batch<R> {
        self.seal();
        let blocks = std::mem::take(&mut self.sealed);
        let decided = std::mem::take(&mut self.decided);
        let after = self.batch_after;
        self.batch_after = self.end.seq;
        Batch { after, blocks, decided }
    }

    /// Everything up to `end` is durable and in the views.
    pub fn committed(&mut self, through: Sequence) {
        while let Some((seq, _)) = self.touched.front()
            && *seq <= through
        {
            if let Some((seq, key)) = self.touched.pop_front()
                && self.overlay.get(&key).is_some_and(|pending| pending.last == seq)
            {
                self.overlay.remove(&key);
            }
        }
        while let Some((seq, _)) = self.key_order.front()
            && *seq <= through
        {
            if let Some((_, key)) = self.key_order.pop_front() {
                self.keys.remove(&key);
            }
        }
        if self.globals_changed.is_some_and(|seq| seq <= through) {
            self.globals_changed = None;
        }
    }

    /// Nothing of what was decided after `end` is or will be durable: all of it is forgotten,
    /// and the commands that were not handed over yet come back, to be decided again.
    pub fn rolled_back(&mut self, end: LogEnd) -> Vec<Box<Submission<R>>> {
        let decided = std::mem::take(&mut self.decided);
        let fresh = Self::new(Arc::clone(&self.views), Arc::clone(&self.index), end);
        *self = fresh;
        decided.into_iter().map(|decided| decided.submission).collect()
    }
}

fn check_revision(request: &Request, state: Option<&Arc<WorkerState>>) -> Result<(), Rejection> {
    match (request.if_match, state) {
        (Some(wanted), Some(state)) if state.revision != wanted => {
            let message = format!(
                "worker `{}` is at revision {}, not {wanted}: read it again and decide anew",
                state.worker, state.revision
            );
            Err(Rejection::new(Code::VersionConflict, message))
        }
        _ => Ok(()),
    }
}

impl Moment {
    /// Another moment at the same time, for the next record of one command.
    fn vary(self, n: usize) -> Self {
        let mut random = self.random;
        for (byte, add) in random.iter_mut().rev().zip((n as u64).to_le_bytes()) {
            *byte ^= add;
        }
        Self { random, ..self }
    }
}

fn uuid_v7(moment: Moment) -> Uuid {
    let millis = u64::try_from(moment.now.as_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &moment.random).into_uuid()
}
