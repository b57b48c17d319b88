//! Sealing: what the store holds becomes a segment, and a fresh store takes its place.
//!
//! The keeper does it, between taking blocks over, whenever the store holds [`SealLimits`] of them. Appends go on
//! meanwhile, into commit files and memory.
//!
//! ```text
//!  1  read from the store, verified, into segments/<…>.seg.new     kill here: the store has them
//!  2  fsync, rename, fsync of the directory                        kill here: both have them, the segment counts
//!  3  a fresh store, with what is not sealed copied into it, synced
//!  4  HEAD names the fresh store, synced in both slots             kill here: the other one is removed at the start
//!  5  readers turn to the fresh store; the other one is removed when the last of them has left it
//! ```
//!
//! **Invariants.** Nothing leaves the store before a durable segment holds it. A segment holds only blocks
//! that were acknowledged, each checked against its digest and the one before it as it was read for the segment.
//! Commit files wait for blocks to be durable in the store *or* in a segment.
//!
//! sled never gives back space or, while it is open, memory for what was read; a store of its own for
//! every tail does, and makes the time in which a log is opened independent of its length.
//!
//! What fails before HEAD is written leaves everything as it was: the store goes on, and sealing is tried
//! again a few seconds later, and less and less often. If HEAD cannot be written, it is not known which store it names; that is a fault
//! like any other of the store, and a recovery ends it.

use super::{
    EncodedBlock, Head, RecoverError,
    keeper::Kept,
    panics::Fault,
    pending::View,
    segments::{SealError, Segments},
    sled_copy::{Durable, copy, remove_store, store_name},
    sled_store::{Disk, SealStep, Store},
    walk::Walk,
};
use acta_events::Sequence;
use parking_lot::{Mutex, RwLock};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// What the store holds before it is sealed, and a segment at most: whichever is reached first.
#[derive(Clone, Copy, Debug)]
pub struct SealLimits {
    /// Number of records.
    pub records: u64,
    /// Of blocks, before compression.
    pub bytes: u64,
    /// How long nothing is sealed after that has failed once; twice as long after each further time.
    pub retry: Duration,
}

impl Default for SealLimits {
    fn default() -> Self {
        Self { records: 65_536, bytes: 16 * 1024 * 1024, retry: Duration::from_secs(5) }
    }
}

/// How often the wait after a failure doubles.
const RETRY_DOUBLINGS: u32 = 6;

/// What sealing needs and knows. `state` is locked alone.
pub(super) struct Sealer {
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) segments: Arc<Segments>,
    pub(super) limits: SealLimits,
    /// The highest number that was given to a store. None is used twice: HEAD may name a store although
    /// writing it failed.
    pub(super) store_number: AtomicU32,
    state: Mutex<State>,
}

struct State {
    /// The last block that the store was given.
    taken: Head,
    /// The bytes of the blocks in the store that are not sealed.
    bytes: u64,
    /// The store holds blocks that are sealed.
    outdated: bool,
    not_before: Option<Instant>,
    /// How often sealing has failed without success in between.
    failures: u32,
    /// Stores that nobody new reads from, by number.
    retired: Vec<(u32, Arc<Store>)>,
}

/// The store as it was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub(super) number: u32,
    /// The end of the log.
    pub(super) end: Head,
    /// The bytes of the blocks in it.
    pub(super) bytes: u64,
}

impl Sealer {
    pub(super) fn new(
        dir: PathBuf,
        disk: Arc<dyn Disk>,
        segments: Segments,
        limits: SealLimits,
        tail: Tail,
    ) -> Self {
        let state = State {
            taken: tail.end,
            bytes: tail.bytes,
            outdated: false,
            not_before: None,
            failures: 0,
            retired: Vec::new(),
        };
        Self {
            dir,
            disk,
            segments: Arc::new(segments),
            limits,
            store_number: AtomicU32::new(tail.number),
            state: Mutex::new(state),
        }
    }

    /// The number of a store to be made.
    pub(super) fn next_number(&self) -> u32 {
        self.store_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The store has this block.
    pub(super) fn took(&self, block: &EncodedBlock) {
        let mut state = self.state.lock();
        state.taken = Head { seq: block.last, block: block.digest };
        state.bytes += block.bytes.len() as u64;
    }

    /// The log was copied to a fresh store, up to its end.
    pub(super) fn begin_again(&self, end: Head) {
        let mut state = self.state.lock();
        state.taken = end;
        state.outdated = false;
        state.not_before = None;
        state.failures = 0;
    }

    /// Whether everything up to the end has come, and nothing of it is to be sealed yet.
    pub(super) fn is_settled(&self, end: Sequence) -> bool {
        self.state.lock().taken.seq >= end && !self.is_due()
    }

    fn is_due(&self) -> bool {
        let state = self.state.lock();
        let records = state.taken.seq.0.saturating_sub(self.segments.last().0);
        records >= self.limits.records || (records > 0 && state.bytes >= self.limits.bytes)
    }

    /// When there is something to do, if there is.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let is_due = self.is_due();
        let state = self.state.lock();
        (is_due || state.outdated).then(|| state.not_before.unwrap_or_else(Instant::now))
    }

    fn failed(&self, what: &str, why: &dyn std::fmt::Display) {
        let mut state = self.state.lock();
        let wait = self.limits.retry * (1 << state.failures.min(RETRY_DOUBLINGS));
        state.failures = state.failures.saturating_add(1);
        state.not_before = Some(Instant::now() + wait);
        tracing::warn!(error = %why, "{what}; it is tried again in {wait:?}");
    }

    fn worked(&self) {
        let mut state = self.state.lock();
        state.not_before = None;
        state.failures = 0;
    }

    /// Another store has taken the place of this one.
    pub(super) fn retire(&self, number: u32, store: Arc<Store>) {
        let mut state = self.state.lock();
        state.outdated = false;
        state.retired.push((number, store));
    }

    /// Removes the stores that nobody reads from any more.
    pub(super) fn remove_retired(&self) {
        let retired = std::mem::take(&mut self.state.lock().retired);
        let (in_use, unused): (Vec<_>, Vec<_>) =
            retired.into_iter().partition(|(_, store)| Arc::strong_count(store) > 1);
        for (number, store) in unused {
            drop(store);
            let step = self.disk.before_seal(SealStep::RemoveStore);
            if let Err(error) = step.and_then(|()| remove_store(&self.dir, number)) {
                tracing::warn!(%error, number, "a store that is no longer used was not removed");
            }
        }
        self.state.lock().retired.extend(in_use);
    }
}

impl Kept {
    /// Seals what there is to seal. Returns up to where the log is durable without the commit files
    /// because of that; zero if nothing was done. The keeper's step.
    pub(super) fn seal_if_due(&self, store: &Arc<Store>) -> Result<Sequence, Fault> {
        let sealer = &self.sealer;
        let waits = sealer.state.lock().not_before.is_some_and(|at| Instant::now() < at);
        if waits {
            return Ok(Sequence::ZERO);
        }
        let mut durable = Sequence::ZERO;
        while sealer.is_due() {
            match self.seal(store) {
                Ok(end) => {
                    durable = end;
                    sealer.worked();
                }
                Err(error) => {
                    sealer.failed("the log could not be sealed", &error);
                    return Ok(durable);
                }
            }
        }
        let (outdated, taken) = {
            let state = sealer.state.lock();
            (state.outdated, state.taken)
        };
        if outdated && self.replace_store(store, taken)? {
            return Ok(taken.seq);
        }
        Ok(durable)
    }

    /// Makes one segment of what comes first in the store, and returns its end.
    fn seal(&self, store: &Store) -> Result<Sequence, SealError> {
        let sealer = &self.sealer;
        let taken = sealer.state.lock().taken.seq;
        let after = sealer.segments.end()?;
        let nothing = RwLock::default();
        let view = View { segments: &sealer.segments, store, pending: &nothing };
        let mut walk = Walk::new(&view, after.seq.next(), taken);
        let (mut bytes, mut last) = (0, after.seq);
        let blocks = std::iter::from_fn(|| {
            let full =
                last.0 - after.seq.0 >= sealer.limits.records || bytes >= sealer.limits.bytes;
            if full || last >= taken {
                return None;
            }
            let (block, stored) = match walk.step() {
                Ok(found) => found?,
                Err(error) => return Some(Err(error)),
            };
            bytes += stored.len() as u64;
            last = block.last();
            Some(Ok(EncodedBlock::new(&block, stored)))
        });
        let footer = sealer.segments.add(after, blocks, &*sealer.disk)?;
        let mut state = sealer.state.lock();
        state.bytes = state.bytes.saturating_sub(footer.block_bytes);
        state.outdated = true;
        tracing::debug!(first = %footer.first, last = %footer.end.seq, "a segment was sealed");
        Ok(footer.end.seq)
    }

    /// Puts a fresh store with what is not sealed in the place of this one. `false` if that has to be
    /// tried again.
    fn replace_store(&self, store: &Arc<Store>, taken: Head) -> Result<bool, Fault> {
        let sealer = &self.sealer;
        let number = sealer.next_number();
        let fresh = match self.fresh_store(store, taken, number) {
            Ok(fresh) => fresh,
            Err(error) => {
                let _ = remove_store(&sealer.dir, number);
                sealer.failed("the store could not be replaced by a fresh one", &error);
                return Ok(false);
            }
        };
        let switched = (|| {
            sealer.disk.before_seal(SealStep::Switch)?;
            let mut head_file = self.head_file.lock();
            let before = head_file.entry().store;
            head_file.switch_store(number).map(|()| before)
        })();
        let before = switched.map_err(|error| Fault::Io(error.to_string()))?;
        *self.store.write() = Some(Arc::new(fresh));
        sealer.worked();
        let mut state = sealer.state.lock();
        state.outdated = false;
        state.retired.push((before, Arc::clone(store)));
        Ok(true)
    }

    fn fresh_store(&self, store: &Store, taken: Head, number: u32) -> Result<Store, RecoverError> {
        let sealer = &self.sealer;
        let step = sealer.disk.before_seal(SealStep::FreshStore);
        step.map_err(|error| RecoverError::Io { why: error.to_string() })?;
        let nothing = RwLock::default();
        let view = View { segments: &sealer.segments, store, pending: &nothing };
        let durable = Durable { head: taken, at_least: taken.seq };
        let target = sealer.dir.join(store_name(number));
        copy(&view, durable, &target, &sealer.disk).map(|(store, _)| store)
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
pub(super) mod tests;
