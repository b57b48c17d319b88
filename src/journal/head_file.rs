//! The HEAD file: how far the log goes, kept outside the engine that keeps the log.
//!
//! sled may open a damaged file and say nothing of what is missing. HEAD is what notices.
//!
//! ```text
//! offset 0      slot
//! offset 4096   slot
//!
//! slot  magic "ACTH" · format u16 · 0 u16 · writes u64 · log id [16] · store u32 · syncing u32
//!       · last sequence u64 · block digest [32] · SHA-256 of all that [32]
//! ```
//!
//! Big-endian. The slots are written in turn, `writes` counting up, so that a torn write
//! damages only the newer one; they lie in different pages for the same reason. `store` is
//! the number of the directory that holds the store; `syncing` is 1 while that is being made
//! durable, so that a process that ends meanwhile leaves word of it.
//!
//! A slot is written after each durable append and before its acknowledgement, so a crash of
//! the process loses nothing of it. It is synced within about a second, and at close. **What
//! remains:** after a power loss HEAD may be up to that second older than the log. The
//! records of that second are there, for the log itself was synced; but should the engine
//! lose exactly those in the same event, HEAD cannot tell. The first append to a log is
//! synced at once, so a HEAD at zero means that nothing was ever acknowledged.

use super::Head;
use acta_events::{Digest, LogId, Sequence, sha256};
use parking_lot::{Condvar, Mutex};
use std::{
    fs::{File, OpenOptions, rename},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The name of the file in the data directory.
pub(crate) const NAME: &str = "HEAD";
/// The name under which a new one is prepared.
pub(crate) const TEMPORARY: &str = "HEAD.new";

const SYNC_EVERY: Duration = Duration::from_secs(1);
const MAGIC: &[u8; 4] = b"ACTH";
const FORMAT: u16 = 1;
const BODY_BYTES: usize = 4 + 2 + 2 + 8 + 16 + 4 + 4 + 8 + 32;
const SLOT_BYTES: usize = BODY_BYTES + 32;
const SLOT_OFFSETS: [u64; 2] = [0, 4096];

/// The HEAD file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// It is not there.
    #[error(
        "the file HEAD is missing from the data directory; without it a loss of records would \
         go unnoticed. Restore the data directory from a snapshot or a backup"
    )]
    Missing,
    /// Neither slot is intact.
    #[error(
        "both slots of the file HEAD are damaged, so it is not known how far the log went. \
         Restore the data directory from a snapshot or a backup"
    )]
    Damaged,
    /// It belongs to another log.
    #[error(
        "the file HEAD belongs to log {found}, but acta.json says that this data directory is of \
         log {expected}: one of them is damaged or was put there from elsewhere. Restore the data \
         directory from a snapshot or a backup"
    )]
    Foreign {
        /// The log it names.
        found: LogId,
        /// The log of the data directory.
        expected: LogId,
    },
    /// The file system said no.
    #[error("the file HEAD: {0}")]
    Io(#[from] io::Error),
}

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) log: LogId,
    pub(crate) store: u32,
    pub(crate) head: Head,
    /// The store was being made durable, and it is not known whether that succeeded.
    pub(super) syncing: bool,
    writes: u64,
}

impl Entry {
    pub(crate) fn new(log: LogId, store: u32, head: Head) -> Self {
        Self { log, store, head, syncing: false, writes: 1 }
    }

    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut body = Vec::with_capacity(SLOT_BYTES);
        body.extend_from_slice(MAGIC);
        body.extend_from_slice(&FORMAT.to_be_bytes());
        body.extend_from_slice(&[0; 2]);
        body.extend_from_slice(&self.writes.to_be_bytes());
        body.extend_from_slice(self.log.0.as_bytes());
        body.extend_from_slice(&self.store.to_be_bytes());
        body.extend_from_slice(&u32::from(self.syncing).to_be_bytes());
        body.extend_from_slice(&self.head.seq.0.to_be_bytes());
        body.extend_from_slice(&self.head.block.0);
        let checksum = sha256(&[&body]);
        body.extend_from_slice(&checksum.0);
        let mut slot = [0; SLOT_BYTES];
        slot.copy_from_slice(&body);
        slot
    }

    fn decode(slot: &[u8; SLOT_BYTES]) -> Option<Self> {
        let (body, checksum) = slot.split_at(BODY_BYTES);
        let number = |at: usize, len: usize| {
            body[at..at + len].iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte))
        };
        if sha256(&[body]).0 != *checksum
            || &body[..4] != MAGIC
            || number(4, 2) != u64::from(FORMAT)
        {
            return None;
        }
        let block = Digest(body[48..80].try_into().ok()?);
        Some(Self {
            log: LogId(Uuid::from_slice(&body[16..32]).ok()?),
            store: u32::try_from(number(32, 4)).ok()?,
            head: Head { seq: Sequence(number(40, 8)), block },
            syncing: number(36, 4) != 0,
            writes: number(8, 8),
        })
    }
}

/// Reads the newer intact slot.
pub(crate) fn read(dir: &Path) -> Result<Entry, HeadError> {
    let file = match File::open(dir.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(HeadError::Missing),
        other => other?,
    };
    let mut newest: Option<Entry> = None;
    for offset in SLOT_OFFSETS {
        let mut slot = [0; SLOT_BYTES];
        match file.read_exact_at(&mut slot, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            other => other?,
        }
        if let Some(entry) = Entry::decode(&slot)
            && newest.is_none_or(|other| other.writes < entry.writes)
        {
            newest = Some(entry);
        }
    }
    newest.ok_or(HeadError::Damaged)
}

/// Puts a fresh, synced HEAD in the place of whatever is there, in one step.
pub(crate) fn replace(dir: &Path, entry: Entry) -> io::Result<()> {
    let path = dir.join(TEMPORARY);
    let file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
    for offset in SLOT_OFFSETS {
        file.write_all_at(&entry.encode(), offset)?;
    }
    file.sync_all()?;
    rename(&path, dir.join(NAME))?;
    File::open(dir)?.sync_all()
}

/// The open HEAD file: written by its owner, synced once a second by a thread of its own,
/// which ends with it.
#[derive(Debug)]
pub(super) struct HeadFile {
    shared: Arc<Shared>,
    last: Entry,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    state: Mutex<SyncState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SyncState {
    dirty: bool,
    stop: bool,
    failed: Option<String>,
}

impl HeadFile {
    /// Opens the file that holds `entry`, as [`read`] or [`replace`] left it.
    pub(super) fn open(dir: &Path, entry: Entry) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(dir.join(NAME))?;
        let state = Mutex::new(SyncState::default());
        let shared = Arc::new(Shared { file, state, changed: Condvar::new() });
        let syncing = Arc::clone(&shared);
        let thread = Builder::new().name("acta-head".into()).spawn(move || syncing.run())?;
        Ok(Self { shared, last: entry, thread: Some(thread) })
    }

    /// What was written last.
    pub(super) fn entry(&self) -> Entry {
        self.last
    }

    /// Writes the next slot. An error of an earlier sync is returned here, before writing.
    pub(super) fn write(&mut self, head: Head) -> io::Result<()> {
        let first = self.last.head.seq == Sequence::ZERO;
        self.write_slot(Entry { head, writes: self.last.writes + 1, ..self.last })?;
        if first {
            return self.shared.file.sync_data();
        }
        let mut state = self.shared.state.lock();
        if !state.dirty {
            state.dirty = true;
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// Says whether the store is being made durable. Not synced: it is word for the next
    /// process. After a power loss what is read is what is on the disk.
    pub(super) fn mark_syncing(&mut self, syncing: bool) -> io::Result<()> {
        self.write_slot(Entry { syncing, writes: self.last.writes + 1, ..self.last })
    }

    /// Names another store, durably in both slots: should either be damaged, the other names a store
    /// that is there.
    pub(super) fn switch_store(&mut self, store: u32) -> io::Result<()> {
        for _ in 0..SLOT_OFFSETS.len() {
            self.write_slot(Entry { store, writes: self.last.writes + 1, ..self.last })?;
            self.sync()?;
        }
        Ok(())
    }

    fn write_slot(&mut self, entry: Entry) -> io::Result<()> {
        let offset = SLOT_OFFSETS[usize::from(entry.writes % 2 == 1)];
        self.shared.check()?;
        self.shared.file.write_all_at(&entry.encode(), offset)?;
        self.last = entry;
        Ok(())
    }

    /// Makes what was written durable now.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.shared.check()?;
        self.shared.file.sync_data()
    }
}

impl Drop for HeadFile {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has nothing left to do for us.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn check(&self) -> io::Result<()> {
        match &self.state.lock().failed {
            Some(why) => Err(io::Error::other(format!("the file HEAD was not synced: {why}"))),
            None => Ok(()),
        }
    }

    fn run(&self) {
        let mut state = self.state.lock();
        while !state.stop {
            if !state.dirty {
                self.changed.wait(&mut state);
                continue;
            }
            let until = Instant::now() + SYNC_EVERY;
            while !state.stop && !self.changed.wait_until(&mut state, until).timed_out() {}
            if state.stop {
                return;
            }
            state.dirty = false;
            let result = parking_lot::MutexGuard::unlocked(&mut state, || self.file.sync_data());
            if let Err(error) = result {
                state.failed = Some(error.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64) -> Head {
        Head { seq: Sequence(seq), block: Digest([seq as u8; 32]) }
    }

    fn damage(dir: &Path, slot: usize) {
        let file = OpenOptions::new().write(true).open(dir.join(NAME)).unwrap();
        file.write_all_at(b"?", SLOT_OFFSETS[slot] + 50).unwrap();
    }

    #[test]
    fn the_newer_intact_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogId(Uuid::from_u128(7));
        assert!(matches!(read(dir.path()), Err(HeadError::Missing)));
        replace(dir.path(), Entry::new(log, 1, head(0))).unwrap();
        assert_eq!(read(dir.path()).unwrap().head, head(0));
        let mut file = HeadFile::open(dir.path(), read(dir.path()).unwrap()).unwrap();
        for seq in 1..=5 {
            file.write(head(seq)).unwrap();
            assert_eq!(read(dir.path()).unwrap(), file.entry());
        }
        assert_eq!(file.entry().head, head(5));
        drop(file);
        let newer = usize::from(read(dir.path()).unwrap().writes % 2 == 1);
        damage(dir.path(), newer);
        assert_eq!(read(dir.path()).unwrap().head, head(4));
        damage(dir.path(), 1 - newer);
        assert!(matches!(read(dir.path()), Err(HeadError::Damaged)));
    }

    #[test]
    fn dropping_it_ends_the_thread_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry::new(LogId(Uuid::from_u128(7)), 1, head(3));
        replace(dir.path(), entry).unwrap();
        let begun = Instant::now();
        let mut file = HeadFile::open(dir.path(), entry).unwrap();
        file.write(head(4)).unwrap();
        drop(file);
        assert!(begun.elapsed() < SYNC_EVERY);
    }
}
