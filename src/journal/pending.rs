//! Blocks on their way into the store, and the log as store and blocks together.

use super::{EncodedBlock, panics::Fault, segments::Segments, sled_store::Store};
use acta_events::Sequence;
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::BTreeMap;

/// Durable blocks that the store may not have yet, by first sequence. A block leaves when the
/// store has it, and not before: whoever looks here first and into the store then finds it.
#[derive(Debug, Default)]
pub(super) struct Pending {
    blocks: BTreeMap<Sequence, EncodedBlock>,
    bytes: usize,
}

impl Pending {
    pub(super) fn add(&mut self, blocks: impl IntoIterator<Item = EncodedBlock>) {
        for block in blocks {
            self.bytes += block.bytes.len();
            if let Some(before) = self.blocks.insert(block.first, block) {
                self.bytes -= before.bytes.len();
            }
        }
    }

    /// The oldest block.
    pub(super) fn oldest(&self) -> Option<EncodedBlock> {
        self.blocks.first_key_value().map(|(_, block)| block.clone())
    }

    /// The last sequence of the newest block.
    pub(super) fn last(&self) -> Option<Sequence> {
        self.blocks.last_key_value().map(|(_, block)| block.last)
    }

    /// The store has this block.
    pub(super) fn remove(&mut self, first: Sequence) {
        if let Some(block) = self.blocks.remove(&first) {
            self.bytes -= block.bytes.len();
        }
    }

    /// Blocks up to there are in segments.
    pub(super) fn remove_through(&mut self, sealed: Sequence) {
        while let Some(block) = self.oldest().filter(|block| block.last <= sealed) {
            self.remove(block.first);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All blocks, in order.
    pub(super) fn each(&self, visit: impl FnMut(&EncodedBlock)) {
        self.blocks.values().for_each(visit);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// What the blocks hold in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn ceiling(&self, seq: Sequence) -> Option<(Sequence, Bytes)> {
        self.blocks.range(seq..).next().map(found)
    }

    fn floor(&self, seq: Sequence) -> Option<(Sequence, Bytes)> {
        self.blocks.range(..=seq).next_back().map(found)
    }
}

fn found((first, block): (&Sequence, &EncodedBlock)) -> (Sequence, Bytes) {
    (*first, block.bytes.clone())
}

/// The log as a whole: segments, and after them the tail. What is in a segment counts, whatever the
/// store says. In the tail, where both have a block, the pending one counts: it was read from a frame
/// with a checksum, or never left memory.
///
/// A block is in the next place before it leaves the one before it (pending, store, segments), so
/// looking in that order finds it.
pub(super) struct View<'a> {
    pub(super) segments: &'a Segments,
    pub(super) store: &'a Store,
    pub(super) pending: &'a RwLock<Pending>,
}

impl View<'_> {
    /// The first block at or after a sequence, with its key.
    pub(super) fn ceiling(&self, seq: Sequence) -> Result<Option<(Sequence, Bytes)>, Fault> {
        let sealed = self.segments.last();
        if seq <= sealed
            && let Some(found) = self.segments.ceiling(seq)?
        {
            return Ok(Some(found));
        }
        self.tail_ceiling(seq.max(sealed.next()))
    }

    fn tail_ceiling(&self, seq: Sequence) -> Result<Option<(Sequence, Bytes)>, Fault> {
        let pending = self.pending.read().ceiling(seq);
        if pending.as_ref().is_some_and(|(first, _)| *first == seq) {
            return Ok(pending);
        }
        let stored = self.store.ceiling(seq)?;
        Ok(match (pending, stored) {
            (Some(pending), Some(stored)) if stored.0 < pending.0 => Some(stored),
            (Some(pending), _) => Some(pending),
            (None, stored) => stored,
        })
    }

    /// The last block at or before a sequence, with its key.
    pub(super) fn floor(&self, seq: Sequence) -> Result<Option<(Sequence, Bytes)>, Fault> {
        let sealed = self.segments.last();
        if seq > sealed
            && let Some(found) = self.tail_floor(seq)?.filter(|(first, _)| *first > sealed)
        {
            return Ok(Some(found));
        }
        self.segments.floor(seq)
    }

    fn tail_floor(&self, seq: Sequence) -> Result<Option<(Sequence, Bytes)>, Fault> {
        let pending = self.pending.read().floor(seq);
        if pending.as_ref().is_some_and(|(first, _)| *first == seq) {
            return Ok(pending);
        }
        let stored = self.store.floor(seq)?;
        Ok(match (pending, stored) {
            (Some(pending), Some(stored)) if stored.0 > pending.0 => Some(stored),
            (Some(pending), _) => Some(pending),
            (None, stored) => stored,
        })
    }
}
