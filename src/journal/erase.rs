//! Erasing contents: whatever file one may stand in is replaced by another without it.
//!
//! sled keeps old pages, and a commit file keeps its frames until it is written again, so that
//! nothing short of other files does. No digest changes, since a content is in none but by its
//! own; the blocks stay what they are.
//!
//! ```text
//! 1  appends and the keeper wait: the tail is copied to a fresh store, HEAD names it, the commit
//!    files are removed; all goes on
//! 2  the other stores are removed
//! 3  each segment with one of the contents: written anew beside it, fsync, rename, fsync
//! ```
//!
//! Killed before HEAD names the fresh store, everything is as it was; afterwards a start removes
//! what is left of the other files. A block that it finds in a commit file still has its content,
//! and so have segments that were not come to, so that whoever ordered the erasure has to look
//! again after every start. Since the tail comes first, a block in a segment that is erased tells
//! that nothing of it is left elsewhere.

use super::{
    EraseError, Head, Journal as _, ReadError, ReadLimits, RecoverError,
    panics::Fault,
    pending::View,
    segments::SealError,
    sled::{SledJournal, Writer, WriterState},
    sled_copy::{other_stores, remove_store, store_name},
    sled_store::SealStep,
    sled_store::Store,
    walk::{Walk, damaged},
};
use crate::data_dir::remove_ways_back;
use acta_events::Sequence;
use parking_lot::{MutexGuard, RwLock};
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long an erasure waits for an append to return, for the keeper's step, and for those who
/// still read the old store.
const PATIENCE: Duration = Duration::from_secs(10);

fn io_error(error: impl std::fmt::Display) -> EraseError {
    EraseError::Io { why: error.to_string() }
}

impl SledJournal {
    pub(super) fn erase_contents(&self, contents: &BTreeSet<Sequence>) -> Result<(), EraseError> {
        drop(self.writer_for_erasing()?);
        remove_ways_back(&self.dir).map_err(io_error)?;
        let there = self.still_there(contents)?;
        if !there.is_empty() {
            self.erase_in_tail(&there)?;
        }
        self.remove_old_stores()?;
        let segments = &self.keeper.sealer.segments;
        let mut damaged = None;
        for span in &*segments.spans() {
            if there.range(span.first..=span.last).next().is_none() {
                continue;
            }
            let erased = segments.erase(*span, |seq| there.contains(&seq), &*self.disk);
            match erased.map_err(EraseError::from) {
                // One that is damaged keeps no other from being erased.
                Err(error @ EraseError::Damaged(_)) => damaged = damaged.or(Some(error)),
                other => other?,
            }
        }
        segments.sync_names(&*self.disk)?;
        damaged.map_or(Ok(()), Err)
    }

    /// Those of the contents that are not erased.
    fn still_there(&self, contents: &BTreeSet<Sequence>) -> Result<BTreeSet<Sequence>, EraseError> {
        let limits = ReadLimits { blocks: 1, bytes: 1 };
        let mut there = BTreeSet::new();
        // What has expired is gone in any case.
        let mut looked_at = self.keeper.sealer.segments.begin_head().seq;
        for seq in contents {
            if *seq <= looked_at {
                continue;
            }
            let blocks = self.read(Sequence(seq.0 - 1), limits)?;
            let Some(block) = blocks.first() else { break };
            let records = block.records.iter().filter(|record| contents.contains(&record.seq()));
            there.extend(records.filter_map(|record| record.erased()).map(|record| record.seq()));
            looked_at = block.last();
        }
        Ok(there)
    }

    fn writer_for_erasing(&self) -> Result<MutexGuard<'_, Writer>, EraseError> {
        let mut writer = self.writer.try_lock_for(PATIENCE).ok_or(EraseError::Busy)?;
        match writer.state {
            WriterState::Closed => Err(EraseError::Closed),
            // Whoever appends has to find out first.
            WriterState::Unknown => Err(EraseError::Busy),
            // Nobody may append for long, and until then nothing else would have it recovered.
            WriterState::Open if self.keeper.fault().is_some() => {
                self.recover_now(&mut writer)?;
                Ok(writer)
            }
            WriterState::Open => Ok(writer),
        }
    }

    /// Takes a copy of the tail into use. What may be left of sealed blocks in store and commit
    /// files goes with them.
    fn erase_in_tail(&self, contents: &BTreeSet<Sequence>) -> Result<(), EraseError> {
        let mut writer = self.writer_for_erasing()?;
        let _still = self.keeper.stand_still(PATIENCE).ok_or(EraseError::Busy)?;
        let store = self.keeper.live_store().ok_or(EraseError::Closed)?;
        let sealer = &self.keeper.sealer;
        let number = sealer.next_number();
        let fresh = match self.copy_tail(&store, number, contents) {
            Ok(fresh) => fresh,
            Err(error) => {
                // An incomplete copy is of no use to anybody.
                let _ = remove_store(&self.dir, number);
                return Err(error);
            }
        };
        let switched = self.disk.before_seal(SealStep::Switch).and_then(|()| {
            let mut head_file = self.keeper.head_file.lock();
            let before = head_file.entry().store;
            head_file.switch_store(number).map(|()| before)
        });
        let before = switched.map_err(|error| self.recover_first(error))?;
        *self.keeper.store.write() = Some(Arc::new(fresh));
        sealer.retire(before, store);
        let blocks = std::mem::take(&mut *self.keeper.pending.write());
        blocks.each(|block| sealer.took(block));
        writer.commits.discard().map_err(|error| self.recover_first(error))?;
        self.keeper.begin_again(self.head().seq);
        Ok(())
    }

    /// Copies what is not sealed, without these contents, to a store of its own.
    fn copy_tail(
        &self,
        store: &Store,
        number: u32,
        contents: &BTreeSet<Sequence>,
    ) -> Result<Store, EraseError> {
        let segments = &self.keeper.sealer.segments;
        let (sealed, head) = (segments.end()?, self.head());
        let target = Store::open(&self.dir.join(store_name(number)), true, Arc::clone(&self.disk))
            .map_err(|error| io_error(format!("the copy: {error:?}")))?;
        let view = View { segments, store, pending: &self.keeper.pending };
        let mut walk = Walk::new(&view, sealed.seq.next(), head.seq);
        let mut end = sealed;
        while end.seq < head.seq {
            let Some((block, stored)) = walk.step()? else { break };
            if block.first() != end.seq.next() || block.previous != end.block {
                let why = "the block does not follow the one before it";
                return Err(damaged(block.first(), block.last(), why).into());
            }
            let erased = block.erased(|seq| contents.contains(&seq));
            let bytes = erased.map_or(stored, |(_, bytes)| bytes);
            target.insert(block.first(), &bytes).map_err(io_error)?;
            end = Head { seq: block.last(), block: block.digest };
        }
        target.sync().map_err(io_error)?;
        // What was written is what is read, or it is not taken into use.
        let nothing = RwLock::default();
        let copied = View { segments, store: &target, pending: &nothing };
        let mut walk = Walk::new(&copied, sealed.seq.next(), head.seq);
        let mut read = sealed;
        while read.seq < head.seq {
            let Some((block, _)) = walk.step()? else { break };
            read = Head { seq: block.last(), block: block.digest };
        }
        if end == head && read == head {
            Ok(target)
        } else {
            Err(io_error("the copy does not end where the log does"))
        }
    }

    /// Those who are reading the old store keep its files open. They are removed in any case;
    /// waiting makes it likely that nothing of them lives on in the memory of the process.
    fn remove_old_stores(&self) -> Result<(), EraseError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let writer = self.writer_for_erasing()?;
            let still = self.keeper.stand_still(PATIENCE).ok_or(EraseError::Busy)?;
            self.keeper.sealer.remove_retired();
            let number = self.keeper.head_file.lock().entry().store;
            let others = other_stores(&self.dir, number).map_err(io_error)?;
            if others.is_empty() {
                // They may be gone since an attempt whose sync failed.
                return File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io_error);
            }
            if Instant::now() >= until {
                for other in others {
                    remove_store(&self.dir, other).map_err(io_error)?;
                }
                return Ok(());
            }
            drop(still);
            drop(writer);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Which files count is not certain any more: the next append, or the next attempt to erase,
    /// has the log recovered.
    fn recover_first(&self, error: io::Error) -> EraseError {
        let why = error.to_string();
        self.keeper.give_up(&Fault::Io(why.clone()));
        EraseError::Io { why }
    }
}

impl From<RecoverError> for EraseError {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Damaged(error) => error.into(),
            RecoverError::Io { why } => Self::Io { why },
            RecoverError::Busy => Self::Busy,
            RecoverError::Closed => Self::Closed,
        }
    }
}

impl From<ReadError> for EraseError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io { why } => Self::Io { why },
            error @ ReadError::Damaged { .. } => Self::Damaged(error),
        }
    }
}

impl From<SealError> for EraseError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Io(error) => io_error(error),
            SealError::Read(error) => error.into(),
        }
    }
}
