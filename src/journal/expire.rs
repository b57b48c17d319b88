//! Letting the oldest segments go. See `crate::base` for the order of steps.

use super::{
    Head,
    segment::{Segment, SegmentError, parse_name},
    segments::{Segments, Span},
    sled::SledJournal,
    sled_store::{Disk, SealStep},
};
use crate::base::{Base, BaseError, Bases, Begin};
use acta_events::{LogId, Sequence};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

/// A sealed part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The last sequence in it.
    pub last: Sequence,
    /// Its size on the disk.
    pub bytes: u64,
}

/// What was to expire is still there, all of it or a part.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// This log keeps everything.
    #[error("this log keeps everything")]
    KeepsAll,
    /// There is no part of the log that ends there.
    #[error("no segment ends with record {0}, or nothing would be left behind it")]
    NotASeam(Sequence),
    /// The storage refused. Repeating may help.
    #[error("what has expired could not be removed yet: {0}")]
    Io(#[from] io::Error),
}

impl SledJournal {
    pub(super) fn base_of(&self) -> Result<Option<Base>, BaseError> {
        match self.keeper.sealer.segments.begin() {
            Some(begin) => Bases::of(&self.dir).read(begin.seq, self.log).map(Some),
            None => Ok(None),
        }
    }

    /// Sizes of files that are not there are not counted: they are going.
    pub(super) fn sealed_parts(&self) -> Vec<Sealed> {
        let segments = &self.keeper.sealer.segments;
        let spans = segments.spans();
        let sealed = |span: &Span| {
            let bytes = fs::metadata(segments.path(*span)).map_or(0, |found| found.len());
            Sealed { last: span.last, bytes }
        };
        spans.iter().map(sealed).collect()
    }

    pub(super) fn expire_through(
        &self,
        begin: &Begin,
        each: &mut dyn FnMut(Bytes) -> io::Result<()>,
    ) -> Result<(), ExpireError> {
        let segments = &self.keeper.sealer.segments;
        segments.begin_behind(begin)?;
        segments.remove_expired(each, &*self.disk)
    }
}

impl Segments {
    /// Where the log begins, if its beginning has expired.
    pub(super) fn begin(&self) -> Option<Begin> {
        *self.begin.read()
    }

    /// What the first block follows.
    pub(super) fn begin_head(&self) -> Head {
        match self.begin() {
            Some(begin) => Head { seq: begin.seq, block: begin.block },
            None => Head::empty(self.log),
        }
    }

    /// The segments whose files are there.
    pub(super) fn files(&self) -> io::Result<Vec<Span>> {
        spans_in(&self.dir)
    }

    /// Nothing of these segments is kept in memory, nor by whoever is reading one now.
    pub(super) fn forget(&self, is_gone: impl Fn(Sequence) -> bool) {
        self.erasures.fetch_add(1, Ordering::SeqCst);
        self.open.lock().retain(|(first, _)| !is_gone(*first));
        self.frames.lock().retain(|(first, ..)| !is_gone(*first));
    }

    /// From now on the log begins behind this.
    fn begin_behind(&self, begin: &Begin) -> Result<(), ExpireError> {
        if self.begin().is_some_and(|now| now.seq >= begin.seq) {
            return Ok(());
        }
        let mut spans = self.spans.write();
        let at = spans.iter().position(|span| span.last == begin.seq);
        let at = at.filter(|at| at + 1 < spans.len()).ok_or(ExpireError::NotASeam(begin.seq))?;
        *spans = Arc::new(spans[at + 1..].to_vec());
        *self.begin.write() = Some(*begin);
        drop(spans);
        self.forget(|first| first <= begin.seq);
        Ok(())
    }

    /// Removes the files of segments that lie before the beginning, oldest first. Each removal is
    /// durable before the next, so that after a power loss too what is left has no gap.
    fn remove_expired(
        &self,
        each: &mut dyn FnMut(Bytes) -> io::Result<()>,
        disk: &dyn Disk,
    ) -> Result<(), ExpireError> {
        let Some(begin) = self.begin() else { return Ok(()) };
        let mut expired = self.files()?;
        expired.retain(|span| span.last <= begin.seq);
        for span in expired {
            // Not while a content is being erased from it, which writes it anew.
            let _alone = self.rewriting.lock();
            let path = self.path(span);
            let opened = Segment::open(&path, self.log).map_err(Shown::Unreadable);
            match opened.and_then(|segment| show(&segment, each)) {
                Ok(()) => {}
                Err(Shown::By(error)) => return Err(error.into()),
                // What hangs on a damaged one is not known any more, and stays.
                Err(Shown::Unreadable(error)) => {
                    tracing::warn!(%error, first = %span.first, "an expired segment cannot be read; contents of it may stay");
                }
            }
            disk.before_seal(SealStep::Expire)?;
            fs::remove_file(&path)?;
            disk.before_seal(SealStep::SyncDirectory)?;
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }
}

/// The segments in a directory, in order.
pub(super) fn spans_in(dir: &Path) -> io::Result<Vec<Span>> {
    let mut spans = Vec::new();
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                let name = entry?.file_name();
                let span = name.to_str().and_then(parse_name);
                spans.extend(span.map(|(first, last)| Span { first, last }));
            }
        }
    }
    spans.sort_by_key(|span| span.first);
    Ok(spans)
}

/// Where a log begins whose segments are these; or why what is missing before them has not expired. A
/// base counts only if something is missing: one that no record names yet is no reason to let go of
/// what is there.
pub(super) fn begin_of(
    data: &Path,
    log: LogId,
    spans: &[Span],
) -> io::Result<Result<Option<Begin>, String>> {
    let missing = match spans.first() {
        Some(span) if span.first <= Sequence(1) => return Ok(Ok(None)),
        Some(span) => Some(Sequence(span.first.0 - 1)),
        None => None,
    };
    let bases = Bases::of(data);
    let positions = bases.positions()?;
    let at = match missing {
        Some(missing) => positions.into_iter().find(|seq| *seq >= missing),
        None => positions.last().copied(),
    };
    match at.map(|at| bases.begin(at, log)) {
        Some(Ok(begin)) => Ok(Ok(Some(begin))),
        Some(Err(BaseError::Io(error))) => Err(error),
        Some(Err(error)) => Ok(Err(error.to_string())),
        None if missing.is_some() => Ok(Err("there is no base behind them".into())),
        None => Ok(Ok(None)),
    }
}

/// Why not all blocks of a segment were shown.
enum Shown {
    By(io::Error),
    Unreadable(SegmentError),
}

impl From<SegmentError> for Shown {
    fn from(error: SegmentError) -> Self {
        Self::Unreadable(error)
    }
}

fn show(segment: &Segment, each: &mut dyn FnMut(Bytes) -> io::Result<()>) -> Result<(), Shown> {
    for number in 0..segment.frames() {
        let frame = segment.frame(number)?;
        frame.blocks().try_for_each(&mut *each).map_err(Shown::By)?;
    }
    Ok(())
}
