//! The log in sled, one value per block, with a HEAD file beside it.
//!
//! An append inserts, flushes, syncs, writes HEAD, and only then is seen by readers or
//! acknowledged. The store is not trusted: opening verifies the last records and compares
//! with HEAD, reading verifies what it returns. The records of a log that was opened are
//! therefore either what was written, or an error that names them.

use super::{
    AppendError, CloseError, EncodedBlock, Head, Journal, ReadError, ReadLimits, RecoverError,
    Refusal, check_blocks,
    head_file::{self, Entry, HeadError, HeadFile},
    sled_store::{Disk, RealDisk, Store, StoreError},
    walk::{Walk, damaged},
};
use crate::data_dir::DataDir;
use acta_events::{LogId, Sequence, block::Block};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How many records before HEAD are verified when the log is opened. Older ones are when they
/// are read.
pub(super) const VERIFIED_RECORDS: u64 = 65_536;
/// A copy of the log is flushed whenever it has grown by this much.
const COPY_FLUSH_BYTES: usize = 4 * 1024 * 1024;
/// How long recovering and closing wait for an append to return.
const WRITER_WAIT: Duration = Duration::from_secs(10);

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

/// A journal in a data directory. Locks are taken in the order of the fields.
pub struct SledJournal {
    dir: PathBuf,
    log: LogId,
    disk: Arc<dyn Disk>,
    writer: Mutex<Writer>,
    /// None while it is being reopened, and after closing.
    store: RwLock<Option<Arc<Store>>>,
    head: RwLock<Head>,
}

struct Writer {
    state: WriterState,
    head_file: HeadFile,
    /// The highest number that was given to a store.
    store_number: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriterState {
    Open,
    /// An append ended in `Unknown`.
    Unknown,
    Closed,
}

impl SledJournal {
    /// Opens the log of a data directory, which the caller keeps locked meanwhile.
    pub fn open(data: &DataDir) -> Result<Self, OpenError> {
        Self::open_on(data, Arc::new(RealDisk), VERIFIED_RECORDS)
    }

    /// Only tests give another disk, or verify less.
    pub(super) fn open_on(
        data: &DataDir,
        disk: Arc<dyn Disk>,
        verified_records: u64,
    ) -> Result<Self, OpenError> {
        let (dir, log) = (data.path(), data.log_id());
        let entry = head_file::read(dir)?;
        if entry.log != log {
            return Err(HeadError::Foreign { found: entry.log, expected: log }.into());
        }
        let durable = entry.head;
        let mut number = entry.store;
        let mut store = open_store(dir, entry, &disk)?;
        let end = verify(&store, log, durable, verified_records).map_err(OpenError::Damaged)?;
        if end != durable {
            // The process ended between a sync and HEAD, or that sync failed. If it failed,
            // what is read now may be in memory only and a further sync would not write it,
            // so it is copied to storage whose syncs are known.
            number += 1;
            remove_store(dir, number)?;
            store = copy_store(&store, log, durable, &dir.join(store_name(number)), &disk)
                .map_err(|error| match error {
                    RecoverError::Damaged(damage) => OpenError::Damaged(damage),
                    other => io::Error::other(other.to_string()).into(),
                })?
                .0;
        }
        let entry = Entry::new(log, number, end);
        head_file::replace(dir, entry)?;
        remove_other_stores(dir, number);
        let head_file = HeadFile::open(dir, entry)?;
        let writer = Writer { state: WriterState::Open, head_file, store_number: number };
        Ok(Self {
            dir: dir.into(),
            log,
            disk,
            writer: Mutex::new(writer),
            store: RwLock::new(Some(Arc::new(store))),
            head: RwLock::new(end),
        })
    }

    /// Blocks as they are stored, unverified, from the one that holds the sequence after
    /// `after`; none at the end. For whoever verifies them and measures that alone; where
    /// something is wrong with them, [`Journal::read`] tells what.
    pub fn stored(&self, after: Sequence, blocks: usize) -> Result<Vec<Bytes>, ReadError> {
        let Some(store) = self.live_store() else {
            return Err(ReadError::Io { why: "the log is closed or being recovered".into() });
        };
        let wanted = after.next();
        let fault = |fault| damaged(wanted, self.head().seq.max(wanted), fault);
        if after >= self.head().seq {
            return Ok(Vec::new());
        }
        let floor = store.floor(wanted).map_err(fault)?;
        let mut next = floor.map_or(wanted, |(first, _)| first);
        let mut found = Vec::new();
        while found.len() < blocks {
            let Some((first, bytes)) = store.ceiling(next).map_err(fault)? else { break };
            found.push(bytes);
            next = first.next();
        }
        Ok(found)
    }

    fn live_store(&self) -> Option<Arc<Store>> {
        self.store.read().clone()
    }

    /// Copies the log to a store of its own, from the live one if that can still be read, else
    /// from what opening its files again finds.
    fn copy_live(&self, entry: Entry, number: u32) -> Result<(Store, Head), RecoverError> {
        let target = self.dir.join(store_name(number));
        let copy = |from: &Store| copy_store(from, self.log, entry.head, &target, &self.disk);
        match self.live_store().map(|store| copy(&store)) {
            Some(Err(RecoverError::Damaged(_))) | None => {}
            Some(result) => return self.kept_or_removed(result, number),
        }
        *self.store.write() = None;
        remove_store(&self.dir, number)
            .map_err(|error| RecoverError::Io { why: error.to_string() })?;
        let reopened = open_store(&self.dir, entry, &self.disk)
            .map_err(|error| RecoverError::Io { why: error.to_string() })?;
        let reopened = Arc::new(reopened);
        *self.store.write() = Some(Arc::clone(&reopened));
        self.kept_or_removed(copy(&reopened), number)
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
        let store = self.live_store().ok_or(AppendError::Refused(Refusal::Closed))?;
        let written = write_blocks(&store, blocks)
            .and_then(|()| writer.head_file.write(end).map_err(|error| error.to_string()));
        if let Err(why) = written {
            writer.state = WriterState::Unknown;
            return Err(AppendError::Unknown { why });
        }
        *self.head.write() = end;
        Ok(end)
    }

    fn read(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Arc<Block>>, ReadError> {
        let head = self.head();
        if after >= head.seq {
            return Ok(Vec::new());
        }
        let Some(store) = self.live_store() else {
            return Err(ReadError::Io { why: "the log is closed or being recovered".into() });
        };
        let mut walk = Walk::new(&store, self.log, after.next(), head.seq);
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
            let full = blocks.len() >= limits.blocks || bytes > limits.bytes;
            if block.first() > head.seq || (full && !blocks.is_empty()) {
                return Ok(blocks);
            }
            let last = block.last();
            blocks.push(Arc::new(block));
            if last >= head.seq {
                return Ok(blocks);
            }
        }
    }

    fn head(&self) -> Head {
        *self.head.read()
    }

    fn recover(&self) -> Result<Head, RecoverError> {
        let mut writer = self.writer.try_lock_for(WRITER_WAIT).ok_or(RecoverError::Busy)?;
        match writer.state {
            WriterState::Open => return Ok(self.head()),
            WriterState::Closed => return Err(RecoverError::Closed),
            WriterState::Unknown => {}
        }
        let io = |error: io::Error| RecoverError::Io { why: error.to_string() };
        // A number is never used twice: HEAD may name a store although replacing it failed.
        writer.store_number += 1;
        let number = writer.store_number;
        let (store, end) = self.copy_live(writer.head_file.entry(), number)?;
        let entry = Entry::new(self.log, number, end);
        head_file::replace(&self.dir, entry).map_err(io)?;
        writer.head_file = HeadFile::open(&self.dir, entry).map_err(io)?;
        *self.store.write() = Some(Arc::new(store));
        *self.head.write() = end;
        writer.state = WriterState::Open;
        remove_other_stores(&self.dir, number);
        Ok(end)
    }

    fn close(&self) -> Result<(), CloseError> {
        let Some(mut writer) = self.writer.try_lock_for(WRITER_WAIT) else {
            return Err(CloseError { why: "an append is still under way".into() });
        };
        if writer.state == WriterState::Closed {
            return Ok(());
        }
        writer.state = WriterState::Closed;
        let store = self.store.write().take();
        drop(store);
        writer.head_file.sync().map_err(|error| CloseError { why: error.to_string() })
    }
}

/// From the first insert on, an error says nothing about what will be found later.
fn write_blocks(store: &Store, blocks: &[EncodedBlock]) -> Result<(), String> {
    for block in blocks {
        store.insert(block.first, &block.bytes).map_err(|fault| fault.to_string())?;
    }
    store.sync().map_err(|fault| fault.to_string())
}

fn store_name(number: u32) -> String {
    format!("log-{number}")
}

fn open_store(dir: &Path, entry: Entry, disk: &Arc<dyn Disk>) -> Result<Store, OpenError> {
    let durable = entry.head.seq;
    let path = dir.join(store_name(entry.store));
    // At zero nothing was ever acknowledged, so there may be no store yet.
    let may_create = durable == Sequence::ZERO;
    Store::open(&path, may_create, Arc::clone(disk)).map_err(|error| match error {
        StoreError::Missing => {
            OpenError::Damaged(damaged(Sequence(1), durable, "the files of the log are gone"))
        }
        StoreError::Locked => OpenError::Locked,
        StoreError::Engine(fault) => OpenError::Engine { head: durable, why: fault.to_string() },
        StoreError::Io(error) => OpenError::Io(error),
    })
}

/// Follows the chain from some way before HEAD to the end, and returns where that is.
fn verify(store: &Store, log: LogId, durable: Head, records: u64) -> Result<Head, ReadError> {
    let from = Sequence(durable.seq.0.saturating_sub(records)).next();
    follow(store, log, from, durable, |_, _| Ok(()))
}

/// Follows the chain from the block with `from` to the end, through the durable head.
fn follow<E: From<ReadError>>(
    store: &Store,
    log: LogId,
    from: Sequence,
    durable: Head,
    mut visit: impl FnMut(&Block, &[u8]) -> Result<(), E>,
) -> Result<Head, E> {
    let mut walk = Walk::new(store, log, from, durable.seq);
    let mut end = Head::empty(log);
    while let Some((block, stored)) = walk.step()? {
        let (first, last) = (block.first(), block.last());
        let holds_head = first <= durable.seq && durable.seq <= last;
        if holds_head && (last, block.digest) != (durable.seq, durable.block) {
            let why = "the block is not the one that HEAD names; this is another history";
            return Err(damaged(first, last, why).into());
        }
        visit(&block, &stored)?;
        end = Head { seq: last, block: block.digest };
    }
    Ok(end)
}

/// Copies the whole log to a fresh store and makes it durable there.
fn copy_store(
    from: &Store,
    log: LogId,
    durable: Head,
    target: &Path,
    disk: &Arc<dyn Disk>,
) -> Result<(Store, Head), RecoverError> {
    let io = |why: String| RecoverError::Io { why };
    let store = Store::open(target, true, Arc::clone(disk))
        .map_err(|error| io(format!("the copy: {error:?}")))?;
    let mut unsynced = 0;
    let end = follow(from, log, Sequence(1), durable, |block, stored| {
        store.insert(block.first(), stored).map_err(|fault| io(fault.to_string()))?;
        unsynced += stored.len();
        if unsynced >= COPY_FLUSH_BYTES {
            unsynced = 0;
            store.sync().map_err(|fault| io(fault.to_string()))?;
        }
        Ok::<_, RecoverError>(())
    })?;
    store.sync().map_err(|fault| io(fault.to_string()))?;
    // What was written is what is read, or it is not taken into use.
    if verify(&store, log, end, VERIFIED_RECORDS)? != end {
        return Err(io("the copy does not end where the original does".into()));
    }
    Ok((store, end))
}

fn remove_store(dir: &Path, number: u32) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(store_name(number))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::open(dir)?.sync_all(),
    }
}

/// Removes stores that HEAD does not name: copies that were not finished, or the original of
/// one that was. What cannot be removed now is tried again at the next start.
fn remove_other_stores(dir: &Path, current: u32) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("log-")?.parse::<u32>().ok());
        if let Some(number) = number.filter(|number| *number != current)
            && let Err(error) = remove_store(dir, number)
        {
            tracing::warn!(%error, number, "a store that is no longer used was not removed");
        }
    }
}
