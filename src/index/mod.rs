//! The index: derived data that lets memory and start-up not grow with history.
//!
//! It holds two tables, [`Posting`] (every record of every worker) and
//! [`KeyEntry`] (every idempotency key). The newest entries are in memory, the others in
//! immutable, sorted run files. Everything in it follows from the log: what memory held when
//! the service ended is applied again from [`Index::flushed_through`], and a directory that is
//! removed is rebuilt.
//!
//! **Invariant.** At every moment, across flushes, merges, failures and crashes, a look-up
//! gives what a plain list of everything applied would give, or an error. In particular a page
//! or footer that fails its checksum is [`IndexError::Damaged`].
//!
//! The index does not know which log it was made from. Its owner removes the directory when
//! the log is another one or was forked, or ends before [`Index::flushed_through`].
//!
//! # Life of an entry
//!
//! ```text
//!            apply             freeze             flush                  flush, later
//!  record ──────────► active ──────────► frozen ──────────► run of 1 ──────────────────► run
//!                     memory             memory             flush     merge of adjacent  of many
//! ```
//!
//! A flush writes one file for each table, both named for the sequences they cover: temporary
//! file, fsync, rename, fsync of the directory, and only then the memory is let go. Adjacent
//! runs merge like the digits of a binary counter; a merged run is durable before its parts
//! are removed. At the start each table takes its shortest gapless chain of runs from sequence
//! 1, both to the furthest end they share; everything else is removed.
//!
//! # File format, version 3
//!
//! Numbers are big-endian. A file is named `<table>-<first>-<last>.idx` with 20 decimal digits
//! for each sequence. Files of version 2, which have no filter, are still read; those of version 1
//! (`.run`) are removed at the start, and what they held is read from the log again.
//!
//! ```text
//!  page 0        ┌──────────────────────────────────────┐
//!                │ n u16 │ n entries        │ zeros │ C │   entry page, 4096 bytes
//!                ├──────────────────────────────────────┤
//!                │ … up to 255 entry pages              │
//!                ├──────────────────────────────────────┤
//!                │ a fence per entry page   │ zeros │ C │   fence page: ends a group of 1 MiB
//!                ├──────────────────────────────────────┤
//!                │ … further groups                     │
//!                ├──────────────────────────────────────┤
//!                │ first fence per group    │ zeros │ C │   top pages, 255 fences each
//!                ├──────────────────────────────────────┤
//!                │ 63 blocks of the filter  │ zeros │ C │   of keys only, at most 1024 pages
//!                ├──────────────────────────────────────┤
//!                │ footer                               │   52 bytes
//!                └──────────────────────────────────────┘
//!
//!  key       digest 16 bytes │ seq v
//!  posting   flags u8 │ worker v │ seq v │ items v │ run u8
//!            or, flag 4: of the same worker as the one before in the page
//!            flags u8 │ seq rose by v │ flag 32: items rose by v │ flag 8: run u8
//!  flags     1, 2 kind   4 same worker   8 run follows   16 items rose by one   32 by more
//!  v         a number, seven bits to a byte, the lowest first; 128 is set on all but the last
//!  fence     worker u32 │ seq u64 │ items u32, or the digest, of the first entry of a page
//!  filter    blocks of 64 bytes; a bit is counted from the lowest of its byte
//!  C         CRC-32 over: table u16, first u64, last u64, page u64, the page's 4092 bytes
//!
//!  footer    0 magic "ACTAINDX"   8 version u16 = 3     10 table u16: 1 postings, 2 keys
//!           12 page size u16     14 filter pages u16    16 first u64    24 last u64
//!           32 entries u64       40 entry pages u64     48 CRC-32 of the 48 bytes before
//! ```
//!
//! # Cost
//!
//! A look-up reads one page per run whose filter, if it has one, does not deny the key, two when the run's fences stay in the file because they
//! would take more than 1 MiB (from 13 million keys or some 80 million postings on). There are at
//! most `log2(flushes) + 1` runs of each table. 20 million entries take some 60 MB (postings of workers
//! that are at work in turns) and 405 MB (keys) on disk. Runs below the limit of
//! 1 MiB halve in size from one to the next, so that all fences stay within a few MiB. So do filters, which
//! take twelve bits a key (`filter`); a run of more than 2.7 million keys has none.

mod compare;
mod entry;
mod error;
mod files;
mod filter;
mod lookup;
mod memory;
mod merge;
mod page;
mod run;
mod writer;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod faults;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod model;

pub use compare::{Comparison, Misfit};
pub use entry::{KeyEntry, Posting, PostingKind};
pub use error::IndexError;

use acta_events::Sequence;
use entry::Entry;
use files::RunName;
use memory::Memory;
use parking_lot::{Mutex, RwLock};
use run::Run;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Fences of a run take at most this in memory; above, one in 255 of them is kept.
const FENCE_BYTES_MAX: u64 = 1024 * 1024;

/// Oldest first, each run beginning where the one before ends.
type Runs<E> = Arc<Vec<Arc<Run<E>>>>;

/// What look-ups read. Owned by the index's lock, which is never held while a file is read or
/// written: a look-up takes what is in memory and the list of runs, then reads.
#[derive(Debug)]
struct State {
    active: Memory,
    frozen: Option<Arc<Memory>>,
    postings: Runs<Posting>,
    keys: Runs<KeyEntry>,
    flushed_through: Sequence,
}

/// Postings and keys of the whole log. One writer applies, in order; anybody looks up; flushes
/// belong on background threads, of which two let the next part be written while runs merge.
#[derive(Debug)]
pub struct Index {
    /// None of a memory journal, which never flushes.
    dir: Option<PathBuf>,
    fence_bytes_max: u64,
    state: RwLock<State>,
    /// Set from `freeze` until its `Frozen` is flushed or dropped.
    flushing: Arc<AtomicBool>,
    /// Held by the one thread that merges, and so alone removes runs.
    merging: Mutex<()>,
    /// What is at or below this has expired: look-ups say nothing of it, and merges leave it out.
    expired: AtomicU64,
}

/// A part of the index that is to be flushed. If it is dropped instead, or its flush fails, it
/// stays in memory and the next [`Index::freeze`] hands out the same part again.
#[derive(Debug)]
pub struct Frozen {
    part: Arc<Memory>,
    _permit: Permit,
}

#[derive(Debug)]
struct Permit(Arc<AtomicBool>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What the index consists of at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexStats {
    /// Last sequence applied.
    pub position: Sequence,
    /// Last sequence covered by run files.
    pub flushed_through: Sequence,
    /// Run files of both tables.
    pub runs: usize,
    /// Entries in run files of both tables.
    pub run_entries: u64,
    /// Bytes of fences in memory.
    pub fence_bytes: usize,
    /// Bytes of filters in memory.
    pub filter_bytes: usize,
}

impl Index {
    /// Opens the runs in `dir`, making the directory if there is none and removing what an
    /// interrupted flush or merge left behind. What lies above [`Index::flushed_through`] is
    /// then to be applied from the log. Reads footers and fences, at most 1 MiB of each run.
    pub fn open(dir: &Path) -> Result<Self, IndexError> {
        Self::open_with(dir, FENCE_BYTES_MAX)
    }

    fn open_with(dir: &Path, fence_bytes_max: u64) -> Result<Self, IndexError> {
        let chosen = files::settle(dir)?;
        let state = State {
            active: Memory::following(chosen.through),
            frozen: None,
            postings: open_runs(dir, &chosen.postings, fence_bytes_max)?,
            keys: open_runs(dir, &chosen.keys, fence_bytes_max)?,
            flushed_through: chosen.through,
        };
        Ok(Self::new(Some(dir.to_owned()), fence_bytes_max, state))
    }

    /// Without a directory: everything stays in memory, and nothing is ever frozen.
    pub fn in_memory() -> Self {
        let state = State {
            active: Memory::following(Sequence::ZERO),
            frozen: None,
            postings: Runs::default(),
            keys: Runs::default(),
            flushed_through: Sequence::ZERO,
        };
        Self::new(None, FENCE_BYTES_MAX, state)
    }

    fn new(dir: Option<PathBuf>, fence_bytes_max: u64, state: State) -> Self {
        Self {
            dir,
            fence_bytes_max,
            state: RwLock::new(state),
            flushing: Arc::default(),
            merging: Mutex::default(),
            expired: AtomicU64::new(0),
        }
    }

    /// Last sequence covered by run files of both tables.
    pub fn flushed_through(&self) -> Sequence {
        self.state.read().flushed_through
    }

    /// Last sequence applied.
    pub fn position(&self) -> Sequence {
        self.state.read().active.last
    }

    /// The records up to there have expired. Nothing is looked up of them from now on, nor missed
    /// if it is not there: the log is applied from the record behind.
    pub fn begin_behind(&self, through: Sequence) -> Result<(), IndexError> {
        self.expired.fetch_max(through.0, Ordering::Relaxed);
        self.apply(self.position().next(), through, &[], &[])
    }

    /// The last record that has expired.
    fn expired(&self) -> Sequence {
        Sequence(self.expired.load(Ordering::Relaxed))
    }

    /// What the index consists of.
    pub fn stats(&self) -> IndexStats {
        let state = self.state.read();
        let (postings, keys) = (&state.postings, &state.keys);
        IndexStats {
            position: state.active.last,
            flushed_through: state.flushed_through,
            runs: postings.len() + keys.len(),
            run_entries: postings.iter().map(|run| run.count()).sum::<u64>()
                + keys.iter().map(|run| run.count()).sum::<u64>(),
            fence_bytes: postings.iter().map(|run| run.fence_bytes()).sum::<usize>()
                + keys.iter().map(|run| run.fence_bytes()).sum::<usize>(),
            filter_bytes: keys.iter().map(|run| run.filter_bytes()).sum(),
        }
    }

    /// Takes in all entries of the records `first..=through`, which are durable already; there
    /// may be none. Called in order, by one writer. Of a worker the postings ascend in `seq`,
    /// and `items` never falls and rises with each completed item; this is checked against
    /// what is in memory. What is at or below the position is ignored. All or nothing: on
    /// [`IndexError::Gap`] and [`IndexError::Disordered`] nothing was applied.
    ///
    /// A log whose beginning has expired starts with an empty batch for what is missing.
    pub fn apply(
        &self,
        first: Sequence,
        through: Sequence,
        postings: &[Posting],
        keys: &[KeyEntry],
    ) -> Result<(), IndexError> {
        let mut state = self.state.write();
        let position = state.active.last;
        if first > position.next() {
            return Err(IndexError::Gap { position, first });
        }
        if through <= position {
            return Ok(());
        }
        state.active.apply(first, through, postings, keys)
    }

    /// Moves the part in memory aside, still readable, for [`Index::flush`]. Cheap. `None` when
    /// there is nothing to flush, a part is out already, or the index has no directory.
    pub fn freeze(&self) -> Option<Frozen> {
        if self.dir.is_none() || self.flushing.swap(true, Ordering::Acquire) {
            return None;
        }
        let permit = Permit(Arc::clone(&self.flushing));
        let mut state = self.state.write();
        if state.frozen.is_none() && !state.active.is_empty() {
            let next = Memory::following(state.active.last);
            state.frozen = Some(Arc::new(std::mem::replace(&mut state.active, next)));
        }
        let part = state.frozen.clone()?;
        Some(Frozen { part, _permit: permit })
    }

    /// Writes a frozen part as run files, then merges runs that are due. Blocks. On an error
    /// nothing is lost: either the part stays in memory and `flushed_through` where it was, or
    /// only a merge failed, which the next flush tries again. From the moment the part is
    /// written the next one can be frozen, and flushed on another thread meanwhile.
    pub fn flush(&self, frozen: Frozen) -> Result<(), IndexError> {
        let dir = self.dir.as_deref().ok_or(IndexError::NotFrozen)?;
        let part = &frozen.part;
        if !self.state.read().frozen.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, part)) {
            return Err(IndexError::NotFrozen);
        }
        let name = RunName { first: part.first, last: part.last };
        writer::write_run(dir, name, 0, part.sorted_postings())?;
        let keys = part.sorted_keys();
        writer::write_run(dir, name, keys.len(), keys.into_iter())?;
        files::sync(dir)?;
        let postings = Arc::new(Run::open(dir, &name, self.fence_bytes_max)?);
        let keys = Arc::new(Run::open(dir, &name, self.fence_bytes_max)?);
        {
            let mut state = self.state.write();
            Arc::make_mut(&mut state.postings).push(postings);
            Arc::make_mut(&mut state.keys).push(keys);
            state.flushed_through = name.last;
            state.frozen = None;
        }
        drop(frozen);
        // A thread that is merging already looks again for what is due.
        let Some(_merging) = self.merging.try_lock() else { return Ok(()) };
        self.merge_due::<Posting>(dir, |state| &mut state.postings)?;
        self.merge_due::<KeyEntry>(dir, |state| &mut state.keys)
    }

    /// Merges a table's runs until none are due. Under the lock `merging`.
    fn merge_due<E: Entry>(
        &self,
        dir: &Path,
        table: impl Fn(&mut State) -> &mut Runs<E>,
    ) -> Result<(), IndexError> {
        loop {
            let runs = Arc::clone(table(&mut self.state.write()));
            let Some(parts) = merge::due(&runs) else { return Ok(()) };
            let merged = Arc::new(merge::merge(dir, &parts, self.fence_bytes_max, self.expired())?);
            {
                let mut state = self.state.write();
                let runs = Arc::make_mut(table(&mut state));
                let start = runs.iter().position(|run| Arc::ptr_eq(run, &parts[0]));
                let start = start.expect("only the thread that merges removes runs");
                runs.splice(start..start + parts.len(), [merged]);
            }
            for part in &parts {
                let name = part.name().file_name::<E>();
                fs::remove_file(dir.join(&name)).map_err(|error| IndexError::io(&name, error))?;
            }
        }
    }
}

fn open_runs<E: Entry>(
    dir: &Path,
    names: &[RunName],
    fence_bytes_max: u64,
) -> Result<Runs<E>, IndexError> {
    let open = |name| Run::open(dir, name, fence_bytes_max).map(Arc::new);
    names.iter().map(open).collect::<Result<Vec<_>, _>>().map(Arc::new)
}
