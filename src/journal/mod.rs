//! The log: what is written here has happened.
//!
//! A [`Journal`] keeps blocks in order, each naming the digest of the one before it. The trait
//! promises nothing about files, so that a replicated log fits behind it as well as a local
//! engine: the expected head of an append is such a log's expected last sequence.
//!
//! ```text
//!   1 ─ block ─ 3   4 ─ block ─ 4   5 ─ block ─ 9
//!                                              ▲ head: the last durable sequence and its block
//!            ▲ read(after 2) begins with the block that holds 3
//! ```

mod commit_file;
#[cfg(test)]
mod conformance;
mod erase;
#[cfg(test)]
mod erase_tests;
mod expire;
#[cfg(test)]
mod expire_tests;
mod frame;
mod frame_contexts;
mod frame_parts;
mod fresh;
pub(crate) mod head_file;
#[cfg(test)]
mod io_faults;
mod keeper;
mod memory;
mod panics;
mod pending;
#[cfg(test)]
mod power_loss;
mod records;
mod seal;
mod segment;
mod segment_list;
mod segments;
mod sled;
mod sled_copy;
#[cfg(test)]
mod sled_damage;
mod sled_store;
#[cfg(test)]
mod sled_tests;
mod stored;
#[cfg(test)]
pub(crate) mod test_blocks;
mod walk;

pub use expire::{ExpireError, Sealed};
pub use fresh::{FreshLog, FreshLogError};
pub use head_file::HeadError;
pub use memory::MemoryJournal;
pub use seal::SealLimits;
pub use segment_list::{ListedSegment, SegmentContent, begin_behind_segments, segments};
pub(crate) use segments::DIRECTORY as SEGMENTS;
pub use sled::{OpenError, SledJournal};

use crate::base::{Base, BaseError, Begin};
use acta_events::{
    Digest, LogId, Record, Sequence,
    block::{BLOCK_BYTES_MAX, Block, genesis},
};
use bytes::Bytes;
use std::{collections::BTreeSet, sync::Arc};

/// The end of the log: everything up to it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last sequence; zero when there is none.
    pub seq: Sequence,
    /// The digest of the block that ends with it; the genesis digest of the log when empty.
    pub block: Digest,
}

impl Head {
    /// The head of a log without records.
    pub fn empty(log: LogId) -> Self {
        Self { seq: Sequence::ZERO, block: genesis(log) }
    }
}

/// A block as it is stored, with what a journal needs to know of it.
#[derive(Clone, Debug)]
pub struct EncodedBlock {
    /// The first sequence in it.
    pub first: Sequence,
    /// The last sequence in it.
    pub last: Sequence,
    /// The digest of the block before it.
    pub previous: Digest,
    /// Its own digest.
    pub digest: Digest,
    /// The bytes to store.
    pub bytes: Bytes,
}

impl EncodedBlock {
    /// From what [`acta_events::block::BlockBuilder::finish`] returns.
    pub fn new(block: &Block, bytes: Bytes) -> Self {
        Self {
            first: block.first(),
            last: block.last(),
            previous: block.previous,
            digest: block.digest,
            bytes,
        }
    }
}

/// How much one read returns at most. At least one block is returned if there is one.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Number of blocks.
    pub blocks: usize,
    /// Bytes as stored, all blocks together.
    pub bytes: usize,
}

/// The log, behind whichever engine keeps it.
///
/// All of it blocks, on a disk or on a network, and belongs off the async runtime. One task
/// appends; any number may read meanwhile.
pub trait Journal: Send + Sync + 'static {
    /// Appends blocks that follow `expected` and each other, as one commit with one sync.
    ///
    /// `Ok` means that they survive a power loss, and returns the new head. Several blocks are
    /// not all or nothing: after a crash, or `Unknown`, any number of them from the first on
    /// may be there. None is visible to [`Self::read`] before all are durable.
    fn append(&self, expected: Sequence, blocks: &[EncodedBlock]) -> Result<Head, AppendError>;

    /// Verified durable blocks in order: each matches its digest and follows the one before
    /// it without a gap. The first holds the sequence after `after`, so it may begin earlier;
    /// none at the head or beyond. Where damage begins further on, the blocks before it are
    /// returned, and the next read reports it.
    fn read(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Arc<Block>>, ReadError>;

    /// Single records, which are named in ascending order: each out of a block that matches its digest.
    /// That the block follows the one before it need not be looked at. Those that are not durable are left
    /// out.
    fn records(&self, wanted: &[Sequence]) -> Result<Vec<Arc<Record>>, ReadError> {
        records::by_block(self, wanted)
    }

    /// The end of what is known to be durable. Does not block for long.
    fn head(&self) -> Head;

    /// After [`Refusal::Storage`] or [`Refusal::Behind`]: whether an append would go through by
    /// now. Writes no record.
    fn probe(&self) -> Result<(), Refusal> {
        Ok(())
    }

    /// After [`AppendError::Unknown`]: finds out what is there, makes it durable on storage
    /// whose syncs have not failed, and returns the head. May take long, and may be repeated
    /// until it succeeds.
    fn recover(&self) -> Result<Head, RecoverError>;

    /// Takes the contents of these records, as far as they stand in blocks, away for good: when
    /// this returns `Ok`, neither they nor their salts are in the storage. No digest changes.
    /// Repeating it does no harm, and after a start or a recovery it has to be repeated, since it
    /// may have been cut off. Appends go on meanwhile, and wait for a moment at the end of it.
    fn erase(&self, contents: &BTreeSet<Sequence>) -> Result<(), EraseError>;

    /// Where the log begins; none if all of it is there. Blocks before that cannot be read.
    fn begin(&self) -> Option<Begin> {
        None
    }

    /// The same with the views there.
    fn base(&self) -> Result<Option<Base>, BaseError> {
        Ok(None)
    }

    /// The sealed parts, oldest first. Each but the newest may expire as a whole.
    fn sealed(&self) -> Vec<Sealed> {
        Vec::new()
    }

    /// The end of the newest sealed part; grows with each sealing.
    fn sealed_through(&self) -> Sequence {
        Sequence::ZERO
    }

    /// Lets everything up to a base go for good, which is durable and named by a durable record. Its
    /// blocks are shown to `each` before they go, unverified, so that what hangs on them can go first.
    /// May be cut off at any moment and has to be repeated then; repeating it does no harm.
    fn expire(
        &self,
        _begin: &Begin,
        _each: &mut dyn FnMut(bytes::Bytes) -> std::io::Result<()>,
    ) -> Result<(), ExpireError> {
        Err(ExpireError::KeepsAll)
    }

    /// Syncs whatever is left to sync and ends. Afterwards appends and reads are refused.
    /// A second call does nothing.
    fn close(&self) -> Result<(), CloseError>;
}

/// Blocks were not appended, or it is not known whether they were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log ends elsewhere; nothing was written. A result of two writers, not a fault: the
    /// caller reads up to `head` and decides again.
    #[error("the log ends at {}, not where the append expects it to", head.seq)]
    Conflict {
        /// Where the log ends.
        head: Head,
    },
    /// Certainly not written.
    #[error("not written: {0}")]
    Refused(Refusal),
    /// Written or not, durable or not. Nothing can be appended before [`Journal::recover`].
    #[error("it is not known whether this was written: {why}")]
    Unknown {
        /// What the engine said. For the log of the service, not for its clients.
        why: String,
    },
}

/// Why an append was certainly not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to append.
    #[error("there are no blocks to append")]
    Empty,
    /// A block is larger than blocks are.
    #[error("a block has {bytes} bytes; at most {BLOCK_BYTES_MAX} are stored")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A block does not follow the one before it, or is not what its description says.
    #[error("the block at {first} does not follow what is before it")]
    Misplaced {
        /// The first sequence of the block.
        first: Sequence,
    },
    /// An earlier append ended in `Unknown`.
    #[error("an earlier write has an unknown outcome; recover the log first")]
    RecoverFirst,
    /// There was no room for it, or the storage refused before anything was written.
    #[error("the storage refused: {why}")]
    Storage {
        /// What it said.
        why: String,
    },
    /// What was appended before has to reach the store first.
    #[error("the store is too far behind")]
    Behind,
    /// The journal was closed.
    #[error("the log is closed")]
    Closed,
}

/// Blocks cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// These sequences are not there or not what was written. Others may well be.
    #[error("records {first} to {last} are damaged or missing: {why}")]
    Damaged {
        /// The first sequence affected.
        first: Sequence,
        /// The last sequence affected.
        last: Sequence,
        /// What was found. For the log of the service, not for its clients.
        why: String,
    },
    /// The storage could not be asked; nothing is known of the blocks.
    #[error("the log cannot be read at present: {why}")]
    Io {
        /// What the engine said. For the log of the service, not for its clients.
        why: String,
    },
}

/// The outcome of an append is still unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// Durable records are not there or not what was written. Repeating does not help.
    #[error(transparent)]
    Damaged(#[from] ReadError),
    /// The storage refused. Repeating may help, for instance when there is space again.
    #[error("the log could not be recovered: {why}")]
    Io {
        /// What the engine said.
        why: String,
    },
    /// An append has not returned yet.
    #[error("an append is still under way")]
    Busy,
    /// The journal was closed.
    #[error("the log is closed")]
    Closed,
}

/// Contents were not erased, or not all of them, or not everywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EraseError {
    /// Durable records are not there or not what was written. Repeating does not help.
    #[error(transparent)]
    Damaged(ReadError),
    /// The storage refused. Repeating may help, for instance when there is space again.
    #[error("the contents could not be erased yet: {why}")]
    Io {
        /// What the engine said.
        why: String,
    },
    /// The log is being recovered, or an append has not returned yet.
    #[error("the log is busy")]
    Busy,
    /// The journal was closed.
    #[error("the log is closed")]
    Closed,
}

/// The log was closed, but its last sync failed. No acknowledged record is lost by that; a
/// loss of acknowledged records might go unnoticed at the next start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log did not close in good order: {why}")]
pub struct CloseError {
    /// What went wrong.
    pub why: String,
}

/// Checks that blocks follow `head` and each other, and are what they say.
fn check_blocks(head: Head, blocks: &[EncodedBlock]) -> Result<Head, Refusal> {
    let mut end = head;
    for block in blocks {
        if block.bytes.len() > BLOCK_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes: block.bytes.len() });
        }
        let follows = block.first == end.seq.next()
            && block.last >= block.first
            && block.previous == end.block
            && block.bytes.ends_with(&block.digest.0);
        if !follows {
            return Err(Refusal::Misplaced { first: block.first });
        }
        end = Head { seq: block.last, block: block.digest };
    }
    if blocks.is_empty() { Err(Refusal::Empty) } else { Ok(end) }
}
