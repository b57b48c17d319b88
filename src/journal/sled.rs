//! The log in sled, one value per block, behind commit files and with a HEAD file beside it.
//!
//! ```text
//! append ── frame in a commit file, fdatasync ── HEAD ── visible, acknowledged
//!                                                           │
//!                                  keeper ── sled ── once per commit file: flush, fdatasync
//! ```
//!
//! **Invariant.** Every block up to the head is durable in a commit file or in the store; a
//! commit file is written again only when all of its blocks are durable in the store.
//!
//! Neither is trusted: opening verifies the last records and compares with HEAD, reading
//! verifies what it returns. The records of a log that was opened are therefore either what was
//! written, or an error that names them.

use super::{
    AppendError, CloseError, EncodedBlock, EraseError, Head, Journal, ReadError, ReadLimits,
    RecoverError, Refusal, Sealed, check_blocks,
    commit_file::{self, CommitError, CommitFiles},
    expire::ExpireError,
    head_file::{self, Entry, HeadError, HeadFile},
    keeper::Keeper,
    panics::Fault,
    pending::{Pending, View},
    seal::{SealLimits, Sealer, Tail},
    segments::Segments,
    sled_copy::{Durable, copy, remove_other_stores, remove_store, store_name, verify},
    sled_store::{Disk, RealDisk, Store, StoreError},
    walk::{Walk, damaged},
};
use crate::{
    base::{Base, BaseError, Begin},
    data_dir::DataDir,
};
use acta_events::{LogId, Record, Sequence, block::Block};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How many records before HEAD are verified when the log is opened. Older ones are when they
/// are read.
pub(super) const VERIFIED_RECORDS: u64 = 65_536;
/// How long recovering and closing wait for an append to return, or for the keeper's step.
const WRITER_WAIT: Duration = Duration::from_secs(10);
/// How long an append waits for the store to catch up.
const STORE_WAIT: Duration = Duration::from_secs(10);

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// HEAD is of no use.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Durable records are not there or not what was written.
    #[error("{0}. Restore the data directory from a snapshot or a backup")]
    Damaged(ReadError),
    /// The storage engine does not open its files.
    #[error(
        "the log, whose records 1 to {head} were durable, cannot be opened: {why}. Restore the \
         data directory from a snapshot or a backup"
    )]
    Engine {
        /// The last sequence that was durable.
        head: Sequence,
        /// What the engine said.
        why: String,
    },
    /// Another process has the log open.
    #[error("another process has the log open. Stop it first")]
    Locked,
    /// The file system said no.
    #[error("the log cannot be opened: {0}")]
    Io(#[from] io::Error),
}

/// A journal in a data directory. The writer's lock is taken before any lock of the keeper.
pub struct SledJournal {
    pub(super) dir: PathBuf,
    pub(super) log: LogId,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) writer: Mutex<Writer>,
    pub(super) keeper: Keeper,
    head: RwLock<Head>,
}

pub(super) struct Writer {
    pub(super) state: WriterState,
    pub(super) commits: CommitFiles,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WriterState {
    Open,
    /// An append ended in `Unknown`.
    Unknown,
    Closed,
}

impl SledJournal {
    /// Opens the log of a data directory, which the caller keeps locked meanwhile.
    pub fn open(data: &DataDir) -> Result<Self, OpenError> {
        Self::open_sealing(data, SealLimits::default())
    }

    /// As [`Self::open`], with segments of another size.
    pub fn open_sealing(data: &DataDir, limits: SealLimits) -> Result<Self, OpenError> {
        Self::open_on(data, Arc::new(RealDisk), VERIFIED_RECORDS, limits)
    }

    /// Only tests give another disk, or verify less.
    pub(super) fn open_on(
        data: &DataDir,
        disk: Arc<dyn Disk>,
        verified_records: u64,
        limits: SealLimits,
    ) -> Result<Self, OpenError> {
        let (dir, log) = (data.path(), data.log_id());
        let entry = head_file::read(dir)?;
        if entry.log != log {
            return Err(HeadError::Foreign { found: entry.log, expected: log }.into());
        }
        let segments = Segments::open(dir, log)?;
        segments.check_joined().map_err(OpenError::Damaged)?;
        let (store, tail) = settle(dir, entry, &segments, &disk, verified_records)?;
        let end = tail.end;
        let entry = Entry::new(log, tail.number, end);
        head_file::replace(dir, entry)?;
        remove_other_stores(dir, tail.number);
        commit_file::remove(dir)?;
        let commits = CommitFiles::new(dir, Arc::clone(&disk));
        let sealer = Sealer::new(dir.into(), Arc::clone(&disk), segments, limits, tail);
        let keeper = Keeper::start(store, HeadFile::open(dir, entry)?, sealer)?;
        keeper.begin_again(end.seq);
        let writer = Writer { state: WriterState::Open, commits };
        Ok(Self {
            dir: dir.into(),
            log,
            disk,
            writer: Mutex::new(writer),
            keeper,
            head: RwLock::new(end),
        })
    }

    /// Waits until all that there is to seal is sealed, at most for that long. Whether it is.
    pub(crate) fn settle(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while !self.keeper.sealer.is_settled(self.head().seq) {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// The last sequence in a segment.
    #[cfg(test)]
    pub(super) fn sealed(&self) -> Sequence {
        self.keeper.sealer.segments.last()
    }

    #[cfg(test)]
    pub(super) fn live_store(&self) -> Option<Arc<Store>> {
        self.keeper.live_store()
    }

    #[cfg(test)]
    pub(super) fn store_fault(&self) -> Option<String> {
        self.keeper.fault()
    }

    #[cfg(test)]
    pub(super) fn store_synced(&self) -> Sequence {
        self.keeper.synced()
    }

    /// What closing a commit file does.
    #[cfg(test)]
    pub(super) fn ask_for_sync(&self) {
        self.keeper.tell(Some(self.head().seq));
    }

    pub(super) fn view<'a>(&'a self, store: &'a Store) -> View<'a> {
        View { segments: &self.keeper.sealer.segments, store, pending: &self.keeper.pending }
    }

    fn read_from(
        &self,
        store: &Store,
        head: Head,
        after: Sequence,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Block>>, ReadError> {
        let view = self.view(store);
        let mut walk = Walk::new(&view, after.next(), head.seq);
        let mut blocks = Vec::new();
        let mut bytes = 0_usize;
        loop {
            let (block, stored) = match walk.step() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(blocks),
                Err(_) if !blocks.is_empty() => return Ok(blocks),
                Err(error) => return Err(error),
            };
            if block.last() <= after {
                continue;
            }
            bytes = bytes.saturating_add(stored.len());
            if block.first() > head.seq || (bytes > limits.bytes && !blocks.is_empty()) {
                return Ok(blocks);
            }
            let last = block.last();
            blocks.push(Arc::new(block));
            // Looking whether one more would fit costs as much as reading it.
            if last >= head.seq || blocks.len() >= limits.blocks || bytes >= limits.bytes {
                return Ok(blocks);
            }
        }
    }

    /// Makes room in the commit files, if they wait for the store.
    fn make_room(&self, writer: &mut Writer) -> Result<(), AppendError> {
        let until = Instant::now() + STORE_WAIT;
        loop {
            if let Some(why) = self.keeper.fault() {
                // Nothing of this append was written, but only a recovery leads on from here.
                writer.state = WriterState::Unknown;
                return Err(AppendError::Unknown { why });
            }
            let synced = self.keeper.synced();
            writer.commits.reclaim(synced);
            if !writer.commits.must_wait() {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AppendError::Refused(Refusal::Behind));
            }
            // A part of what was waited for may free no file: the keeper seals piece by piece.
            self.keeper.tell(writer.commits.waiting());
            self.keeper.wait_beyond(synced, left);
        }
    }

    /// What [`Journal::recover`] does, for whoever has the writer.
    pub(super) fn recover_now(&self, writer: &mut Writer) -> Result<Head, RecoverError> {
        let io = |error: io::Error| RecoverError::Io { why: error.to_string() };
        let _still = self.keeper.stand_still(WRITER_WAIT).ok_or(RecoverError::Busy)?;
        let head = self.head();
        let number = self.settle_store(head).map_err(|error| match error {
            RecoverError::Damaged(ReadError::Io { why }) => RecoverError::Io { why },
            error => error,
        })?;
        let entry = Entry::new(self.log, number, head);
        head_file::replace(&self.dir, entry).map_err(io)?;
        *self.keeper.head_file.lock() = HeadFile::open(&self.dir, entry).map_err(io)?;
        writer.commits.discard().map_err(io)?;
        remove_other_stores(&self.dir, number);
        self.keeper.begin_again(head.seq);
        writer.state = WriterState::Open;
        Ok(head)
    }

    /// Brings the store up to date with everything that was acknowledged, or copies all of it
    /// to another. The keeper stands still.
    fn settle_store(&self, head: Head) -> Result<u32, RecoverError> {
        let entry = self.keeper.head_file.lock().entry();
        if self.keeper.fault().is_none()
            && let Some(store) = self.keeper.live_store()
        {
            match self.keeper.take_over(&store).and_then(|()| self.keeper.sync(&store)) {
                Ok(()) => return Ok(entry.store),
                // Should this be tried again, then not on a store that has failed.
                Err(fault) => self.keeper.give_up(&fault),
            }
        }
        let number = self.keeper.sealer.next_number();
        let durable = Durable { head, at_least: head.seq };
        let store = self.copy_live(entry, number, durable)?;
        *self.keeper.store.write() = Some(Arc::new(store));
        self.keeper.pending.write().clear();
        self.keeper.sealer.begin_again(head);
        Ok(number)
    }

    /// Copies the log to a store of its own, from the live one if that can still be read, else
    /// from what opening its files again finds.
    fn copy_live(
        &self,
        entry: Entry,
        number: u32,
        durable: Durable,
    ) -> Result<Store, RecoverError> {
        let target = self.dir.join(store_name(number));
        let copy = |from: &Store| {
            copy(&self.view(from), durable, &target, &self.disk).map(|(store, _)| store)
        };
        match self.keeper.live_store().map(|store| copy(&store)) {
            Some(Err(RecoverError::Damaged(_))) | None => {}
            Some(result) => return self.kept_or_removed(result, number),
        }
        *self.keeper.store.write() = None;
        remove_store(&self.dir, number)
            .map_err(|error| RecoverError::Io { why: error.to_string() })?;
        let reopened = open_store(&self.dir, entry, self.keeper.sealer.segments.last(), &self.disk)
            .map_err(|error| RecoverError::Io { why: error.to_string() })?;
        let reopened = Arc::new(reopened);
        self.take_from_commit_files(durable.head)?;
        *self.keeper.store.write() = Some(Arc::clone(&reopened));
        self.kept_or_removed(copy(&reopened), number)
    }

    /// What was taken over into a store was forgotten here, but was in its memory only until a sync:
    /// until then the commit files have it. What they have beyond the head was never acknowledged.
    fn take_from_commit_files(&self, head: Head) -> Result<(), RecoverError> {
        let found = commit_file::load(&self.dir)
            .map_err(|error| RecoverError::Io { why: error.to_string() })?;
        let sealed = self.keeper.sealer.segments.last();
        let counts = |block: &EncodedBlock| block.first > sealed && block.last <= head.seq;
        self.keeper.pending.write().add(found.into_iter().filter(counts));
        Ok(())
    }

    /// An incomplete copy must not take the space that the next attempt needs.
    fn kept_or_removed<T>(
        &self,
        result: Result<T, RecoverError>,
        number: u32,
    ) -> Result<T, RecoverError> {
        if result.is_err() {
            let _ = remove_store(&self.dir, number);
        }
        result
    }
}

impl Journal for SledJournal {
    fn append(&self, expected: Sequence, blocks: &[EncodedBlock]) -> Result<Head, AppendError> {
        let mut writer = self.writer.lock();
        match writer.state {
            WriterState::Open => {}
            WriterState::Unknown => return Err(AppendError::Refused(Refusal::RecoverFirst)),
            WriterState::Closed => return Err(AppendError::Refused(Refusal::Closed)),
        }
        let head = self.head();
        if expected != head.seq {
            return Err(AppendError::Conflict { head });
        }
        let end = check_blocks(head, blocks).map_err(AppendError::Refused)?;
        self.make_room(&mut writer)?;
        let written = writer.commits.write(blocks);
        self.keeper.tell(writer.commits.waiting());
        match written {
            Ok(()) => {}
            Err(CommitError::Refused(error)) => {
                return Err(AppendError::Refused(Refusal::Storage { why: error.to_string() }));
            }
            Err(CommitError::Unknown(error)) => {
                writer.state = WriterState::Unknown;
                return Err(AppendError::Unknown { why: error.to_string() });
            }
        }
        if let Err(error) = self.keeper.head_file.lock().write(end) {
            writer.state = WriterState::Unknown;
            return Err(AppendError::Unknown { why: error.to_string() });
        }
        self.keeper.pending.write().add(blocks.iter().cloned());
        *self.head.write() = end;
        self.keeper.tell(None);
        Ok(end)
    }

    fn read(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Arc<Block>>, ReadError> {
        let head = self.head();
        if after >= head.seq {
            return Ok(Vec::new());
        }
        let begin = self.keeper.sealer.segments.begin_head().seq;
        if after < begin {
            let why = "they have expired by the policy that says how much history is kept";
            return Err(damaged(after.next(), begin, why));
        }
        loop {
            let Some(store) = self.keeper.live_store() else { return Err(closed()) };
            let read = self.read_from(&store, head, after, limits);
            // A recovery that puts another store in the place of this one while it is read takes
            // away what was pending. Then it says nothing that something is missing here.
            let replaced = || self.keeper.live_store().is_none_or(|now| !Arc::ptr_eq(&now, &store));
            match read {
                Err(_) if replaced() => {}
                // What a store says that has failed is not what is on the disk.
                Err(ReadError::Damaged { why, .. }) if self.keeper.fault().is_some() => {
                    return Err(ReadError::Io { why });
                }
                read => return read,
            }
        }
    }

    fn records(&self, wanted: &[Sequence]) -> Result<Vec<Arc<Record>>, ReadError> {
        self.find_records(wanted)
    }

    fn head(&self) -> Head {
        *self.head.read()
    }

    fn probe(&self) -> Result<(), Refusal> {
        let mut writer = self.writer.lock();
        match writer.state {
            WriterState::Open => {}
            WriterState::Unknown => return Err(Refusal::RecoverFirst),
            WriterState::Closed => return Err(Refusal::Closed),
        }
        writer.commits.reclaim(self.keeper.synced());
        if writer.commits.must_wait() {
            return Err(Refusal::Behind);
        }
        writer.commits.probe().map_err(|error| Refusal::Storage { why: error.to_string() })
    }

    /// What was acknowledged is in memory, in the store or in both, so it is made durable in the
    /// store. The frame of an append that ended in `Unknown` is removed with its file before
    /// anything else is written: that append did not happen.
    fn recover(&self) -> Result<Head, RecoverError> {
        let mut writer = self.writer.try_lock_for(WRITER_WAIT).ok_or(RecoverError::Busy)?;
        match writer.state {
            WriterState::Open => return Ok(self.head()),
            WriterState::Closed => return Err(RecoverError::Closed),
            WriterState::Unknown => {}
        }
        self.recover_now(&mut writer)
    }

    fn erase(&self, contents: &BTreeSet<Sequence>) -> Result<(), EraseError> {
        self.erase_contents(contents)
    }

    fn begin(&self) -> Option<Begin> {
        self.keeper.sealer.segments.begin()
    }

    fn base(&self) -> Result<Option<Base>, BaseError> {
        self.base_of()
    }

    fn sealed(&self) -> Vec<Sealed> {
        self.sealed_parts()
    }

    fn sealed_through(&self) -> Sequence {
        self.keeper.sealer.segments.last()
    }

    fn expire(
        &self,
        begin: &Begin,
        each: &mut dyn FnMut(Bytes) -> io::Result<()>,
    ) -> Result<(), ExpireError> {
        self.expire_through(begin, each)
    }

    fn close(&self) -> Result<(), CloseError> {
        let failed = |why: String| CloseError { why };
        let Some(mut writer) = self.writer.try_lock_for(WRITER_WAIT) else {
            return Err(failed("an append is still under way".into()));
        };
        if writer.state == WriterState::Closed {
            return Ok(());
        }
        let sound = writer.state == WriterState::Open && self.keeper.fault().is_none();
        writer.state = WriterState::Closed;
        let Some(_still) = self.keeper.stand_still(WRITER_WAIT) else {
            return Err(failed("the store is still being written".into()));
        };
        self.keeper.stop();
        let store = self.keeper.store.write().take();
        let settled = match &store {
            Some(store) if sound => {
                let done = self.keeper.take_over(store).and_then(|()| self.keeper.sync(store));
                let done = done.map_err(|fault| fault.to_string());
                done.and_then(|()| writer.commits.discard().map_err(|error| error.to_string()))
            }
            // The commit files are there for the next start.
            _ => Ok(()),
        };
        drop(store);
        self.keeper.sealer.remove_retired();
        let synced = self.keeper.head_file.lock().sync().map_err(|error| error.to_string());
        settled.and(synced).map_err(failed)
    }
}

pub(super) fn closed() -> ReadError {
    ReadError::Io { why: "the log is closed or being recovered".into() }
}

/// Makes one durable store out of what was left: the store, and blocks in commit files.
fn settle(
    dir: &Path,
    entry: Entry,
    segments: &Segments,
    disk: &Arc<dyn Disk>,
    verified_records: u64,
) -> Result<(Store, Tail), OpenError> {
    let mut left = Pending::default();
    left.add(commit_file::load(dir)?);
    let sealed = segments.last();
    let durable = Durable::new(entry.head, left.last().max(Some(sealed)));
    let store = open_store(dir, entry, sealed, disk)?;
    let left = RwLock::new(left);
    let view = View { segments, store: &store, pending: &left };
    let (end, bytes) = verify(&view, durable, verified_records).map_err(unreadable)?;
    let failed = |fault: Fault| OpenError::Io(io::Error::other(fault.to_string()));
    let oldest = store.ceiling(Sequence::ZERO).map_err(failed)?;
    let outdated = oldest.is_some_and(|(first, _)| first <= sealed);
    if !entry.syncing && !outdated && end.seq <= durable.at_least {
        left.write().remove_through(sealed);
        take_over(dir, entry, &store, &left)?;
        return Ok((store, Tail { number: entry.store, end, bytes }));
    }
    // The process ended while the store was being synced, or the store has what nobody wrote
    // down elsewhere. If a sync failed, what is read now may be in memory only and a further
    // sync would not write it, so it is copied to storage whose syncs are known. Or the process
    // ended before a fresh store took the place of one that was sealed.
    let number = entry.store + 1;
    remove_store(dir, number)?;
    let target = dir.join(store_name(number));
    let durable = Durable { at_least: end.seq, ..durable };
    let (copied, end) = copy(&view, durable, &target, disk).map_err(|error| match error {
        RecoverError::Damaged(error) => unreadable(error),
        other => io::Error::other(other.to_string()).into(),
    })?;
    drop(store);
    Ok((copied, Tail { number, end, bytes }))
}

/// Puts blocks into the store that it does not have, and makes all of it durable: what it has
/// need not be, since frames are kept until it is.
fn take_over(
    dir: &Path,
    entry: Entry,
    store: &Store,
    left: &RwLock<Pending>,
) -> Result<(), OpenError> {
    if left.read().is_empty() {
        return Ok(());
    }
    let failed = |fault: Fault| OpenError::Io(io::Error::other(fault.to_string()));
    let oldest = || left.read().oldest();
    while let Some(block) = oldest() {
        let has = store.ceiling(block.first).map_err(failed)?;
        if has.is_none_or(|(first, bytes)| first != block.first || bytes != block.bytes) {
            store.insert(block.first, &block.bytes).map_err(failed)?;
        }
        left.write().remove(block.first);
    }
    HeadFile::open(dir, entry)?.mark_syncing(true)?;
    store.sync().map_err(failed)
}

fn unreadable(error: ReadError) -> OpenError {
    match error {
        ReadError::Io { why } => OpenError::Io(io::Error::other(why)),
        error @ ReadError::Damaged { .. } => OpenError::Damaged(error),
    }
}

fn open_store(
    dir: &Path,
    entry: Entry,
    sealed: Sequence,
    disk: &Arc<dyn Disk>,
) -> Result<Store, OpenError> {
    let durable = entry.head.seq;
    let path = dir.join(store_name(entry.store));
    // At zero nothing was ever acknowledged, so there may be no store yet.
    let may_create = durable == Sequence::ZERO;
    Store::open(&path, may_create, Arc::clone(disk)).map_err(|error| match error {
        StoreError::Missing => {
            let first = sealed.next().min(durable);
            OpenError::Damaged(damaged(first, durable, "the files of the log are gone"))
        }
        StoreError::Locked => OpenError::Locked,
        StoreError::Engine(fault) => OpenError::Engine { head: durable, why: fault.to_string() },
        StoreError::Io(error) => OpenError::Io(error),
    })
}
