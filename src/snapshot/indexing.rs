//! The index of a log that is put back, made while its blocks are verified: on a thread of its own, so that
//! neither the blocks are decoded twice nor one waits for the other.
//!
//! **Invariant.** What is written ends with a segment that is kept. The log is opened with its segments alone, and
//! an index must not be ahead of the log that it is of.
//!
//! It is derived data. Should it fail, what there is of it is removed, and opening the log makes it.

use super::{SnapshotError, receive::discard};
use crate::{
    base::Base,
    index::{Frozen, Index, IndexError},
    log::{key_of, posting_of},
};
use acta_events::{Record, Sequence};
use acta_projections::{Gap, Projections};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// How many blocks may wait.
const BLOCKS_MAX: usize = 64;
/// How many records are in memory before they are written.
const FLUSH_RECORDS: u64 = 65_536;

type Records = Vec<Arc<Record>>;

/// An index in the making.
pub(super) struct Indexing {
    dir: PathBuf,
    /// None when no more is wanted of it.
    blocks: Option<SyncSender<Records>>,
    thread: JoinHandle<Result<(), IndexingError>>,
}

#[derive(Debug, thiserror::Error)]
enum IndexingError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Gap(#[from] Gap),
}

impl Indexing {
    /// Begins one in a directory, behind what has expired. `ends` are the last sequences of all segments,
    /// ascending.
    pub(super) fn begin(
        dir: PathBuf,
        base: Option<Base>,
        ends: Vec<Sequence>,
    ) -> Result<Self, SnapshotError> {
        let (sender, receiver) = sync_channel(BLOCKS_MAX);
        let path = dir.clone();
        let make = move || make(&path, base, &ends, &receiver);
        let thread = thread::Builder::new().name("restore-index".into()).spawn(make)?;
        Ok(Self { dir, blocks: Some(sender), thread })
    }

    /// The records of the next block.
    pub(super) fn push(&mut self, records: &[Arc<Record>]) {
        let sent = self.blocks.as_ref().is_some_and(|blocks| blocks.send(records.to_vec()).is_ok());
        if !sent {
            self.end();
        }
    }

    /// There are no more blocks to come that are kept as a whole.
    pub(super) fn end(&mut self) {
        self.blocks = None;
    }

    /// Waits until it is written.
    pub(super) fn finish(mut self) -> Result<(), SnapshotError> {
        self.end();
        let why = match self.thread.join() {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its thread panicked".into(),
        };
        tracing::warn!(error = %why, "the index could not be made beside; it is made from the log");
        discard(&self.dir)
    }
}

fn make(
    dir: &Path,
    base: Option<Base>,
    ends: &[Sequence],
    blocks: &Receiver<Records>,
) -> Result<(), IndexingError> {
    let index = Index::open(dir)?;
    let mut projections = Projections::default();
    if let Some(base) = base {
        index.begin_behind(base.begin.seq)?;
        projections = base.views;
    }
    let mut aside: Option<Frozen> = None;
    let mut frozen = Sequence::ZERO;
    while let Ok(records) = blocks.recv() {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { continue };
        let (first, last) = (first.seq(), last.seq());
        let (mut postings, mut keys) = (Vec::with_capacity(records.len()), Vec::new());
        for record in &records {
            projections.apply(record)?;
            postings.extend(posting_of(record, &projections));
            keys.extend(key_of(record));
        }
        index.apply(first, last, &postings, &keys)?;
        let due = frozen == Sequence::ZERO || last.0 - frozen.0 >= FLUSH_RECORDS;
        if due && ends.binary_search(&last).is_ok() {
            // What is set aside is written when more is: fewer and larger runs.
            if let Some(aside) = aside.take() {
                index.flush(aside)?;
            }
            aside = index.freeze();
            frozen = last;
        }
    }
    match aside {
        Some(aside) => Ok(index.flush(aside)?),
        None => Ok(()),
    }
}
