//! One sled database that holds blocks, one value each, under their first sequence.
//!
//! A value is the block, compressed with zstd where that makes it smaller: sled writes every value
//! about three times until it lies in its final leaf, so that what is saved counts threefold.
//! Blocks begin with another magic than zstd frames, which tells them apart.
//!
//! This is all that touches sled. What sled 0.34.7 does, and what is done about it:
//!
//! - Its `flush` ends in `sync_file_range`, which syncs neither the length of the file nor the
//!   cache of the drive. [`Store::sync`] goes on with `fdatasync` on a handle of its own.
//! - It panics on damage; every call is [`contained`]. It may also open a damaged file without
//!   a word; the callers verify whatever they read, and HEAD knows how far the log went.
//! - A value, *or a whole leaf of its tree*, above a quarter of `segment_size` goes to a file
//!   in `blobs/` that is never synced. A leaf is split by number of values (16), not by size,
//!   so with blocks of 64 KiB the default segments of 512 KiB do not do: see [`SEGMENT_BYTES`].
//! - A read that fails while it opens ends its log there, and it writes over what follows. So the file
//!   is read through first: see [`read_through`].
//! - A crash while it writes `snap.*.generating` keeps it from opening; such files are renamed
//!   to `generating-*.aside` first. They are a cache of what is in the log.
//! - Nothing of what it creates is synced by directory. That is done after opening.
//! - Some of its writes that fail wake nobody, so that a `flush` may wait for one for ever. A second
//!   `flush` that finds the error wakes all: see [`flush`].

use super::panics::{Fault, contained, is_of_the_disk};
use acta_events::{Sequence, block::BLOCK_BYTES_MAX};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    cell::RefCell,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};
use zstd::bulk::{Compressor, Decompressor};

/// How much of the file is read at once before sled opens it.
const READ_AT_ONCE: usize = 256 * 1024;

/// The unit in which sled writes and frees. A quarter of it has to hold the fullest leaf.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// sled splits a leaf above 16 values; one more while it does.
const LEAF_BLOCKS_MAX: usize = 18;
const _: () = assert!(LEAF_BLOCKS_MAX * (BLOCK_BYTES_MAX + 64) < SEGMENT_BYTES / 4);

/// The fastest level that looks for repetitions, of which headers are full.
const ZSTD_LEVEL: i32 = 1;
const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// The threads of a store that was just closed hold its lock for a moment longer.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How long a flush may take before another one looks whether it has failed.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Where a test makes the disk fail. [`RealDisk`] is what the service runs on.
pub(super) trait Disk: Send + Sync {
    /// Called before each block is given to the engine.
    fn before_insert(&self) -> io::Result<()>;
    /// Makes the engine's file durable.
    fn sync_store(&self, file: &File) -> io::Result<()>;
    /// Called before anything of a frame is written.
    fn before_commit(&self) -> io::Result<()>;
    /// Makes a commit file durable.
    fn sync_commit(&self, file: &File) -> io::Result<()>;
    /// Called before each step of sealing.
    fn before_seal(&self, step: SealStep) -> io::Result<()>;
}

/// What sealing does to the disk, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SealStep {
    /// The file is made, under another name.
    Create,
    /// A block is added to it.
    Write,
    Sync,
    Rename,
    SyncDirectory,
    /// The store that takes the place of the one with sealed blocks is made.
    FreshStore,
    /// HEAD is told of it.
    Switch,
    /// The other store is removed.
    RemoveStore,
    /// A segment that has expired is removed.
    Expire,
}

/// The disk itself.
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn before_insert(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_store(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn before_commit(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_commit(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn before_seal(&self, _: SealStep) -> io::Result<()> {
        Ok(())
    }
}

/// A store cannot be opened.
#[derive(Debug)]
pub(super) enum StoreError {
    /// There is no database where there should be one.
    Missing,
    /// Another process has it open.
    Locked,
    /// sled does not open it.
    Engine(Fault),
    Io(io::Error),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The database. None after [`Drop`] has taken it, where a panic of the engine is contained too.
struct Engine(Option<sled::Db>);

pub(super) struct Store {
    engine: Engine,
    compressor: Mutex<Compressor<'static>>,
    /// sled's `db` file, for syncing it.
    file: File,
    disk: Arc<dyn Disk>,
}

impl Store {
    /// Opens the database in `dir`, or makes one there if it may be missing.
    pub(super) fn open(
        dir: &Path,
        may_create: bool,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let db_path = dir.join("db");
        if !db_path.exists() {
            if !may_create {
                return Err(StoreError::Missing);
            }
            make_dir(dir)?;
        }
        set_aside_unfinished_snapshots(dir)?;
        wait_for_lock(&db_path)?;
        read_through(&db_path)?;
        let config = sled::Config::new()
            .path(dir)
            .mode(sled::Mode::HighThroughput)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None)
            .use_compression(false);
        // From here on it is closed in the same manner whatever happens.
        let engine = Engine(Some(opened(contained(|| Ok::<_, String>(config.open())))?));
        let file = OpenOptions::new().read(true).write(true).open(&db_path)?;
        file.sync_all()?;
        File::open(dir.join("conf"))?.sync_all()?;
        File::open(dir)?.sync_all()?;
        let compressor = Mutex::new(Compressor::new(ZSTD_LEVEL)?);
        Ok(Self { engine, compressor, file, disk })
    }

    fn call<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, Fault> {
        let Some(db) = &self.engine.0 else {
            return Err(Fault::Error("the store is closed".into()));
        };
        contained(|| Ok::<_, String>(call(db)))?.map_err(explain)
    }

    /// Gives a block to the engine. Not durable before [`Self::sync`].
    pub(super) fn insert(&self, first: Sequence, bytes: &[u8]) -> Result<(), Fault> {
        self.disk.before_insert().map_err(|error| Fault::Io(error.to_string()))?;
        let compressed = self.compressor.lock().compress(bytes);
        let value = match &compressed {
            Ok(compressed) if compressed.len() < bytes.len() => compressed.as_slice(),
            _ => bytes,
        };
        self.call(|db| db.insert(first.0.to_be_bytes(), value)).map(drop)
    }

    /// Makes everything that was inserted survive a power loss.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        self.call(flush)?;
        self.disk.sync_store(&self.file).map_err(|error| Fault::Io(error.to_string()))
    }

    /// The first block at or after a sequence, with its key.
    pub(super) fn ceiling(&self, seq: Sequence) -> Result<Option<(Sequence, Bytes)>, Fault> {
        self.call(|db| db.range(seq.0.to_be_bytes()..).next().transpose()).map(found)
    }

    /// The last block at or before a sequence, with its key.
    pub(super) fn floor(&self, seq: Sequence) -> Result<Option<(Sequence, Bytes)>, Fault> {
        self.call(|db| db.range(..=seq.0.to_be_bytes()).next_back().transpose()).map(found)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let db = self.0.take();
        // sled flushes when it is dropped, and could wait for ever as any flush could. Nothing
        // acknowledged depends on either any more.
        let _ = contained(|| {
            drop(db.as_ref().map(flush));
            drop(db);
            Ok::<_, String>(())
        });
    }
}

/// Returns for certain when the disk has answered, be it with an error.
fn flush(db: &sled::Db) -> sled::Result<usize> {
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.recv_timeout(FLUSH_PATIENCE) == Err(RecvTimeoutError::Timeout) {
                scope.spawn(|| contained(|| db.flush().map_err(|error| error.to_string())));
            }
        });
        // Dropped when a panic unwinds through here too.
        let _done = done;
        db.flush()
    })
}

/// Reads a file to its end, if it is there. Where sled cannot read while it opens, it takes its log
/// to end there, says nothing, and writes over what follows; so it is not let near a file that
/// cannot be read. What was read here it finds in the page cache.
fn read_through(path: &Path) -> io::Result<()> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut buffer = vec![0; READ_AT_ONCE];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn opened(opened: Result<sled::Result<sled::Db>, Fault>) -> Result<sled::Db, StoreError> {
    match opened {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(error))) if is_of_the_disk(&error) => Err(StoreError::Io(error)),
        Ok(Err(error)) => Err(StoreError::Engine(explain(error))),
        Err(fault) => Err(StoreError::Engine(fault)),
    }
}

/// sled's own words for damage say nothing but "offset None".
fn explain(error: sled::Error) -> Fault {
    match error {
        sled::Error::Corruption { .. } => {
            Fault::Error("the storage engine found its files damaged".into())
        }
        sled::Error::Io(error) if is_of_the_disk(&error) => Fault::Io(error.to_string()),
        sled::Error::Io(error) => Fault::Error(error.to_string()),
        other => Fault::Error(other.to_string()),
    }
}

/// The value is copied: sled's own refers to the whole leaf it was read with. One that cannot be
/// decompressed is given as it is, and does not read as a block.
fn found(item: Option<(sled::IVec, sled::IVec)>) -> Option<(Sequence, Bytes)> {
    item.map(|(key, value)| {
        // A key of another length is not ours. It reads as a place where no block belongs.
        let seq = <[u8; 8]>::try_from(&key[..]).map_or(u64::MAX, u64::from_be_bytes);
        (Sequence(seq), decompressed(&value).unwrap_or_else(|| Bytes::copy_from_slice(&value)))
    })
}

fn decompressed(value: &[u8]) -> Option<Bytes> {
    if !value.starts_with(&ZSTD_MAGIC) {
        return None;
    }
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = Decompressor::new().ok();
        }
        decompressor.as_mut()?.decompress(value, BLOCK_BYTES_MAX).ok().map(Bytes::from)
    })
}

/// Makes the directory, empty, with its name durable.
fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn set_aside_unfinished_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // sled takes whatever begins with `snap.` for a snapshot, so the new name must not.
        let unfinished = name.strip_prefix("snap.").and_then(|n| n.strip_suffix(".generating"));
        if let Some(number) = unfinished {
            tracing::warn!(file = name, "moving an unfinished file of the storage engine aside");
            fs::rename(&path, dir.join(format!("generating-{number}.aside")))?;
        }
    }
    Ok(())
}

/// sled tries its lock once, and says so with an error that looks like any other. Trying it
/// first makes the reason clear and gives the threads of a closed store time to end.
fn wait_for_lock(db_path: &Path) -> Result<(), StoreError> {
    let file = match File::open(db_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file.unlock()?),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Err(StoreError::Locked)
}
