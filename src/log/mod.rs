//! The log as everyone but the engine sees it: what is durable, from its newest records in
//! memory to its oldest on disk, together with what is derived from it.
//!
//! One owner, the engine's writer, publishes blocks, in order, once they are durable. Then
//! the views and the index have them, then the ring of recent records, and last of all the
//! head moves. Whoever has seen a head finds everything up to it.

mod contents;
mod erase;
mod expire;
mod read;
mod ring;
#[cfg(test)]
mod tests;
mod tree;

pub use contents::Contents;
pub use erase::{EraseFault, Erased, RedactionNote};
pub use expire::ExpireFault;
pub use read::{ReadFault, Slice};
pub(crate) use read::{blocking, text_span};
pub use ring::Logged;

use crate::{
    audit::Tree,
    checkpoint::Checkpoints,
    engine::{LogEnd, key_digest},
    index::{Index, KeyEntry, Posting, PostingKind},
    journal::{Journal, ReadLimits},
    views::Views,
};
use acta_events::{Digest, Event, LogId, Record, Sequence, block::Block};
use acta_projections::{MarkKind, Projections, TranscriptMark};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak, atomic::AtomicU64},
    time::Instant,
};
use tokio::sync::watch;

/// How many records may pass between two checkpoints: what a start has to replay at most.
pub const CHECKPOINT_RECORDS: u64 = 65_536;

/// How many decoded blocks are kept for readers of history.
const BLOCKS_CACHED: usize = 64;

/// The durable log with everything derived from it.
pub struct Log {
    id: LogId,
    journal: Arc<dyn Journal>,
    contents: Contents,
    checkpoints: Option<Checkpoints>,
    index: Arc<Index>,
    views: Arc<Views>,
    tree: Arc<Tree>,
    ring: RwLock<ring::Ring>,
    blocks: Mutex<VecDeque<Arc<[Arc<Logged>]>>>,
    head: watch::Sender<Sequence>,
    /// Heads of workers that somebody follows, by their number in the index.
    worker_heads: Mutex<HashMap<u32, watch::Sender<Sequence>>>,
    /// Counts revoked tokens.
    revocations: watch::Sender<u64>,
    /// Counts orders to erase a content.
    redacted: watch::Sender<u64>,
    /// Which of them are carried out.
    erased: watch::Sender<Erased>,
    /// Content files whose records are not there yet.
    on_their_way: Mutex<HashMap<Digest, Instant>>,
    checkpointed: Mutex<Sequence>,
    /// The last record that expired.
    expired: AtomicU64,
    /// How far those have come who read the log on their own and must miss nothing.
    holds: Mutex<Vec<Weak<AtomicU64>>>,
}

/// The log cannot be taken into use.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] crate::journal::ReadError),
    /// The index cannot be used.
    #[error(transparent)]
    Index(#[from] crate::index::IndexError),
    /// The Merkle tree cannot be used.
    #[error(transparent)]
    Tree(#[from] crate::audit::TreeError),
    /// Records are missing.
    #[error(transparent)]
    Gap(#[from] acta_projections::Gap),
    /// The base cannot be used.
    #[error(transparent)]
    Base(#[from] crate::base::BaseError),
}

/// What was replayed to take the log into use.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    /// The position of the checkpoint that it began with.
    pub from: Sequence,
    /// The head.
    pub head: Sequence,
}

impl Log {
    /// As [`Self::open_with_tree`], with a Merkle tree that is computed from the whole log.
    pub fn open(
        id: LogId,
        journal: Arc<dyn Journal>,
        index: Index,
        contents: Contents,
        checkpoints: Option<Checkpoints>,
    ) -> Result<(Self, Replayed), ReplayError> {
        let tree = Arc::new(Tree::in_memory());
        Self::open_with_tree(id, journal, index, contents, checkpoints, tree)
    }

    /// Takes a log into use: starts from the newest fitting checkpoint and replays the rest.
    /// Blocking.
    pub fn open_with_tree(
        id: LogId,
        journal: Arc<dyn Journal>,
        index: Index,
        contents: Contents,
        checkpoints: Option<Checkpoints>,
        tree: Arc<Tree>,
    ) -> Result<(Self, Replayed), ReplayError> {
        let head = journal.head().seq;
        let begin = journal.begin().map_or(Sequence::ZERO, |begin| begin.seq);
        let limit = head.min(index.flushed_through());
        index.begin_behind(begin)?;
        let digest_at = |seq| record_digest_at(&*journal, seq);
        let newest = checkpoints.as_ref();
        let newest = newest.and_then(|checkpoints| checkpoints.newest(id, limit, digest_at));
        let start = match newest {
            Some(start) => start,
            None => journal.base()?.map(|base| base.views).unwrap_or_default(),
        };
        let from = start.position();
        tree::settle(&tree, &*journal, from)?;
        let log = Self {
            id,
            journal,
            contents,
            checkpoints,
            index: Arc::new(index),
            views: Arc::new(Views::new(start)),
            tree,
            ring: RwLock::default(),
            blocks: Mutex::default(),
            head: watch::Sender::new(from),
            worker_heads: Mutex::default(),
            revocations: watch::Sender::new(0),
            redacted: watch::Sender::new(0),
            erased: watch::Sender::new(Erased::default()),
            on_their_way: Mutex::default(),
            checkpointed: Mutex::new(from),
            expired: AtomicU64::new(begin.0),
            holds: Mutex::default(),
        };
        log.expire_as_recorded()?;
        let mut position = from;
        while position < head {
            let blocks = log.journal.read(position, ReadLimits { blocks: 64, bytes: 4 << 20 })?;
            for block in &blocks {
                log.take_in(block)?;
                position = block.last();
            }
            if let Some(job) = log.checkpoint_if_due() {
                job.run();
            }
        }
        log.head.send_replace(position);
        Ok((log, Replayed { from, head }))
    }

    /// The identity of the log.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// The live projections.
    pub fn views(&self) -> &Arc<Views> {
        &self.views
    }

    /// The Merkle tree over the log.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// The index over the log.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    pub(crate) fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// The last durable sequence that everyone may see.
    pub fn head(&self) -> Sequence {
        *self.head.borrow()
    }

    /// Wakes whenever the head moves.
    pub fn watch_head(&self) -> watch::Receiver<Sequence> {
        self.head.subscribe()
    }

    /// Returns when what the log asks for may be done: at once, unless it was restored and nobody has
    /// said so yet.
    pub(crate) async fn until_resumed(&self) {
        let mut head = self.watch_head();
        while self.views.read().lineage.is_paused() {
            if head.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Wakes whenever a record of one worker has been published.
    pub(crate) fn watch_worker(&self, worker: u32) -> watch::Receiver<Sequence> {
        let mut heads = self.worker_heads.lock();
        heads.entry(worker).or_insert_with(|| watch::Sender::new(Sequence::ZERO)).subscribe()
    }

    /// Wakes whenever a token has been revoked.
    pub(crate) fn watch_revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    /// Up to where the last checkpoint went that was begun.
    pub fn checkpointed(&self) -> Sequence {
        *self.checkpointed.lock()
    }

    /// Where the next block goes.
    pub fn end(&self) -> LogEnd {
        let views = self.views.read();
        let head = self.journal.head();
        LogEnd {
            seq: head.seq,
            block: head.block,
            time: views.tip.time,
            epoch: views.lineage.current(),
        }
    }

    /// Shows durable blocks to everyone. Called by the writer alone, in order.
    pub(crate) fn publish<'a>(
        &self,
        blocks: impl IntoIterator<Item = &'a Block>,
    ) -> Result<Sequence, ReplayError> {
        let mut head = self.head();
        let mut touched = Vec::new();
        let mut revoked = 0;
        for block in blocks {
            touched
                .extend(self.take_in(block)?.iter().map(|posting| (posting.worker, posting.seq)));
            let events = block.records.iter().map(|record| &record.header.event);
            revoked +=
                events.filter(|event| matches!(event, Event::TokenRevoked(_))).count() as u64;
            head = block.last();
        }
        self.head.send_replace(head);
        self.wake_workers(&touched);
        if revoked > 0 {
            self.revocations.send_modify(|count| *count += revoked);
        }
        Ok(head)
    }

    /// Wakes the followers of the workers that have new records, and forgets those that nobody
    /// follows any more.
    fn wake_workers(&self, touched: &[(u32, Sequence)]) {
        let mut heads = self.worker_heads.lock();
        if heads.is_empty() {
            return;
        }
        for (worker, seq) in touched {
            if let Some(head) = heads.get(worker) {
                head.send_replace(*seq);
            }
        }
        heads.retain(|_, head| head.receiver_count() > 0);
    }

    /// Publishes what the journal has beyond the head: after a recovery.
    pub(crate) fn catch_up(&self) -> Result<Sequence, ReplayError> {
        while self.head() < self.journal.head().seq {
            let limits = ReadLimits { blocks: 64, bytes: 4 << 20 };
            let blocks = self.journal.read(self.head(), limits)?;
            self.publish(blocks.iter().map(|block| &**block))?;
        }
        Ok(self.head())
    }

    fn take_in(&self, block: &Block) -> Result<Vec<Posting>, ReplayError> {
        let mut postings = Vec::with_capacity(block.records.len());
        let mut keys = Vec::new();
        self.views.apply(&block.records, |record, projections| {
            let (posting, key) = index_entries(record, projections);
            postings.extend(posting);
            keys.extend(key);
        })?;
        self.index.apply(block.first(), block.last(), &postings, &keys)?;
        self.tree.apply(block)?;
        self.ring.write().push(&block.records);
        self.arrive(&block.records);
        self.hide(block);
        let mut events = block.records.iter().map(|record| &record.header.event);
        if events.any(|event| matches!(event, Event::HistoryExpired(_))) {
            self.expire_as_recorded()?;
        }
        Ok(postings)
    }

    /// Begins a checkpoint if one is due. Called by the writer between two commits, so that
    /// views and index stand at the same record; the writing happens on a thread of its own.
    pub(crate) fn checkpoint_if_due(&self) -> Option<CheckpointJob> {
        let head = self.views.read().position();
        let last = *self.checkpointed.lock();
        if head.0 - last.0 < CHECKPOINT_RECORDS { None } else { self.checkpoint_now() }
    }

    /// Begins a checkpoint, due or not.
    pub(crate) fn checkpoint_now(&self) -> Option<CheckpointJob> {
        let checkpoints = self.checkpoints.clone()?;
        let frozen = self.index.freeze()?;
        let projections = self.views.read().clone();
        *self.checkpointed.lock() = projections.position();
        Some(CheckpointJob {
            id: self.id,
            index: Arc::clone(&self.index),
            tree: Arc::clone(&self.tree),
            frozen,
            projections,
            checkpoints,
        })
    }
}

/// A checkpoint that is to be written. Derived data: losing it costs time at the next start.
pub struct CheckpointJob {
    id: LogId,
    index: Arc<Index>,
    tree: Arc<Tree>,
    frozen: crate::index::Frozen,
    projections: Projections,
    checkpoints: Checkpoints,
}

impl CheckpointJob {
    /// Writes it. Blocking.
    pub fn run(self) {
        let position = self.projections.position();
        if let Err(error) = self.index.flush(self.frozen) {
            tracing::warn!(%error, %position, "the index could not be written; it stays in memory");
            return;
        }
        if let Err(error) = self.tree.flush() {
            tracing::warn!(%error, %position, "the tree could not be written; it stays in memory");
        }
        if let Err(error) = self.checkpoints.write(self.id, &self.projections) {
            tracing::warn!(%error, %position, "a checkpoint could not be written; the next start replays more");
        }
    }
}

/// What the index has of a record, with the state that the record led to.
pub(crate) fn index_entries(
    record: &Record,
    projections: &Projections,
) -> (Option<Posting>, Option<KeyEntry>) {
    (posting_of(record, projections), key_of(record))
}

pub(crate) fn posting_of(record: &Record, projections: &Projections) -> Option<Posting> {
    let (runtime, worker) = (record.header.runtime.as_ref()?, record.header.worker.as_ref()?);
    let state = projections.workers.get(runtime, worker)?;
    let mark = TranscriptMark::of(record, state);
    let kind = match mark.kind {
        MarkKind::Other => PostingKind::Other,
        MarkKind::Item => PostingKind::Item,
        MarkKind::Delta => PostingKind::Delta,
        MarkKind::TextDone => PostingKind::TextDone,
    };
    Some(Posting {
        worker: mark.worker,
        seq: record.seq(),
        items: u32::try_from(mark.items).unwrap_or(u32::MAX),
        kind,
        run: u8::from(mark.busy),
    })
}

pub(crate) fn key_of(record: &Record) -> Option<KeyEntry> {
    let command = record.header.command.as_ref()?;
    let digest = key_digest(&record.header.actor, &command.key);
    Some(KeyEntry { digest, seq: record.seq() })
}

fn record_digest_at(journal: &dyn Journal, seq: Sequence) -> Option<Digest> {
    if let Some(begin) = journal.begin().filter(|begin| begin.seq == seq) {
        return Some(begin.record);
    }
    let before = Sequence(seq.0.checked_sub(1)?);
    let blocks = journal.read(before, ReadLimits { blocks: 1, bytes: 1 }).ok()?;
    let records = &blocks.first()?.records;
    records.iter().find(|record| record.seq() == seq).map(|record| record.digest)
}
