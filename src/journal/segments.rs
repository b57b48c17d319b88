//! The segments of a log as one: which there are, and what was read of them last.
//!
//! The list is known from the names of the files alone, so that opening a log takes no longer for a long
//! history. Segments are opened when somebody reads in them; a bounded number of them stays open, and a
//! bounded number of frames decompressed, so that reading a range from block to block, or a worker's records one
//! by one, does not decompress the same frame for each.

use super::{
    EncodedBlock, Head, ReadError,
    expire::{begin_of, spans_in},
    frame::Frame,
    panics::{Fault, is_of_the_disk},
    segment::{Footer, Segment, SegmentError, SegmentWriter, file_name, parse_name},
    sled_store::{Disk, SealStep},
    walk::damaged,
};
use crate::base::Begin;
use acta_events::{LogId, Sequence, block::Block};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// The directory of the segments, in the data directory.
pub(crate) const DIRECTORY: &str = "segments";
/// What ends the name of a segment that is not complete.
const UNFINISHED: &str = ".new";
/// How many segments stay open.
const OPEN_MAX: usize = 16;
/// How much of decompressed frames is kept, beside the newest: no more than a processor has close at hand, so
/// that whoever reads one after the other does so in the same memory.
const FRAMES_BYTES_MAX: usize = 512 * 1024;

/// The sequences of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
}

/// All segments of a log. One thread adds; any number may read.
pub(crate) struct Segments {
    pub(super) dir: PathBuf,
    pub(super) log: LogId,
    /// Ascending, without a gap. Locked around `begin`.
    pub(super) spans: RwLock<Arc<Vec<Span>>>,
    /// What was before has expired.
    pub(super) begin: RwLock<Option<Begin>>,
    /// Why what is before the first segment has not expired.
    no_base: Option<String>,
    /// Held by whoever replaces or removes the file of a segment.
    pub(super) rewriting: Mutex<()>,
    /// Newest first. Never locked around `spans`, nor while a file is read.
    pub(super) open: Mutex<VecDeque<(Sequence, Arc<Segment>)>>,
    pub(super) frames: Mutex<VecDeque<(Sequence, usize, Arc<Frame>)>>,
    /// Counts segments that were written anew: what was read before is not kept beyond it.
    pub(super) erasures: AtomicU64,
    /// A segment was renamed, and its directory not synced since.
    unsynced: AtomicBool,
}

impl Segments {
    /// Finds the segments of a data directory, and removes what was not completed. What is found is
    /// durable afterwards: a process that was killed may have renamed without a sync.
    pub(super) fn open(data: &Path, log: LogId) -> io::Result<Self> {
        let dir = data.join(DIRECTORY);
        match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    let name = entry.file_name();
                    let name = name.to_str().unwrap_or_default();
                    if name.strip_suffix(UNFINISHED).and_then(parse_name).is_some() {
                        fs::remove_file(entry.path())?;
                    }
                }
                File::open(&dir)?.sync_all()?;
            }
        }
        let mut spans = spans_in(&dir)?;
        let (begin, no_base) = match begin_of(data, log, &spans)? {
            Ok(begin) => (begin, None),
            Err(why) => (None, Some(why)),
        };
        // Those were being removed.
        spans.retain(|span| begin.is_none_or(|begin| span.first > begin.seq));
        Ok(Self {
            dir,
            log,
            spans: RwLock::new(Arc::new(spans)),
            begin: RwLock::new(begin),
            no_base,
            rewriting: Mutex::default(),
            open: Mutex::default(),
            frames: Mutex::default(),
            erasures: AtomicU64::new(0),
            unsynced: AtomicBool::new(false),
        })
    }

    /// Whether segments follow each other from the first record on, or from the base.
    pub(super) fn check_joined(&self) -> Result<(), ReadError> {
        let begin = self.begin_head();
        let mut expected = begin.seq.next();
        for span in &**self.spans() {
            if span.first > expected {
                let last = Sequence(span.first.0 - 1);
                let why = match &self.no_base {
                    Some(why) if expected == Sequence(1) => {
                        format!("there is no segment with them, and they have not expired: {why}")
                    }
                    _ => "there is no segment with them".into(),
                };
                return Err(damaged(expected, last, why));
            }
            if span.first < expected {
                let why = "two segments claim to hold them";
                return Err(damaged(span.first, span.last.min(expected), why));
            }
            expected = span.last.next();
        }
        if begin.seq > Sequence::ZERO
            && let Some(span) = self.spans().first().copied()
        {
            let segment = self.segment(span).map_err(|error| in_span(span, &error))?;
            if segment.footer().previous != begin.block {
                let why = "it does not follow the base";
                return Err(damaged(span.first, span.last, why));
            }
        }
        Ok(())
    }

    pub(super) fn spans(&self) -> Arc<Vec<Span>> {
        Arc::clone(&self.spans.read())
    }

    /// The last sequence in a segment, or before the beginning; zero without any.
    pub(super) fn last(&self) -> Sequence {
        let last = self.spans.read().last().map(|span| span.last);
        last.unwrap_or_else(|| self.begin().map_or(Sequence::ZERO, |begin| begin.seq))
    }

    /// Where the segments end.
    pub(super) fn end(&self) -> Result<Head, ReadError> {
        let Some(span) = self.spans.read().last().copied() else {
            return Ok(self.begin_head());
        };
        self.segment(span)
            .map(|segment| segment.footer().end)
            .map_err(|error| in_span(span, &error))
    }

    pub(super) fn path(&self, span: Span) -> PathBuf {
        self.dir.join(file_name(span.first, span.last))
    }

    pub(super) fn segment(&self, span: Span) -> Result<Arc<Segment>, SegmentError> {
        let mut open = self.open.lock();
        if let Some(at) = open.iter().position(|(first, _)| *first == span.first)
            && let Some(found) = open.remove(at)
        {
            let segment = Arc::clone(&found.1);
            open.push_front(found);
            return Ok(segment);
        }
        drop(open);
        let erasures = self.erasures.load(Ordering::SeqCst);
        let segment = Arc::new(Segment::open(&self.path(span), self.log)?);
        let mut open = self.open.lock();
        if erasures == self.erasures.load(Ordering::SeqCst) {
            open.push_front((span.first, Arc::clone(&segment)));
            open.truncate(OPEN_MAX);
        }
        Ok(segment)
    }

    fn frame(&self, span: Span, number: usize) -> Result<Arc<Frame>, SegmentError> {
        self.frame_or((span, number), self.erasures(), || self.segment(span)?.frame(number))
    }

    /// How often segments were written anew. Whoever keeps one that was opened before has old ones.
    pub(super) fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::SeqCst)
    }

    /// A frame that is kept, or what reading it gives. That is kept unless a segment was written anew
    /// since there were so many erasures.
    pub(super) fn frame_or(
        &self,
        (span, number): (Span, usize),
        erasures: u64,
        read: impl FnOnce() -> Result<Frame, SegmentError>,
    ) -> Result<Arc<Frame>, SegmentError> {
        let mut frames = self.frames.lock();
        let is_it = |(first, at, _): &(Sequence, usize, _)| (*first, *at) == (span.first, number);
        if let Some(at) = frames.iter().position(is_it)
            && let Some(found) = frames.remove(at)
        {
            let frame = Arc::clone(&found.2);
            frames.push_front(found);
            return Ok(frame);
        }
        drop(frames);
        let frame = Arc::new(read()?);
        let mut frames = self.frames.lock();
        if erasures == self.erasures() {
            frames.push_front((span.first, number, Arc::clone(&frame)));
            let mut bytes = 0;
            let fit = frames.iter().take_while(|(_, _, frame)| {
                bytes += frame.plain.len();
                bytes <= FRAMES_BYTES_MAX
            });
            let kept = fit.count().max(1);
            frames.truncate(kept);
        }
        Ok(frame)
    }

    /// The first block at or after a sequence, if it is in a segment.
    pub(super) fn ceiling(&self, seq: Sequence) -> Result<Option<(Sequence, Bytes)>, Fault> {
        let spans = self.spans();
        let at = spans.partition_point(|span| span.last < seq);
        for span in &spans[at..] {
            let segment = self.segment(*span).map_err(|error| fault(*span, &error))?;
            for number in segment.frame_with(seq)..segment.frames() {
                let frame = self.frame(*span, number).map_err(|error| fault(*span, &error))?;
                if let Some(found) = frame.ceiling(seq) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The last block that begins at or before a sequence, if it is in a segment.
    pub(super) fn floor(&self, seq: Sequence) -> Result<Option<(Sequence, Bytes)>, Fault> {
        let spans = self.spans();
        let at = spans.partition_point(|span| span.first <= seq);
        let Some(span) = at.checked_sub(1).and_then(|at| spans.get(at)) else { return Ok(None) };
        let segment = self.segment(*span).map_err(|error| fault(*span, &error))?;
        let frame = self.frame(*span, segment.frame_with(seq));
        Ok(frame.map_err(|error| fault(*span, &error))?.floor(seq))
    }

    /// Writes blocks that follow the last segment as one more, durably, and takes it into use. After
    /// an error there is none, or one that nobody knows of: writing it again replaces it.
    pub(super) fn add(
        &self,
        after: Head,
        blocks: impl Iterator<Item = Result<EncodedBlock, ReadError>>,
        disk: &dyn Disk,
    ) -> Result<Footer, SealError> {
        self.make_dir()?;
        let unfinished =
            self.dir.join(format!("{}{UNFINISHED}", file_name(after.seq.next(), after.seq.next())));
        let written = self.write(&unfinished, after, blocks, disk);
        if written.is_err() {
            // Should it stay, the next start removes it.
            let _ = fs::remove_file(&unfinished);
        }
        let footer = written?;
        let span = Span { first: footer.first, last: footer.end.seq };
        let path = self.path(span);
        let named = (|| {
            disk.before_seal(SealStep::Rename)?;
            fs::rename(&unfinished, &path)?;
            disk.before_seal(SealStep::SyncDirectory)?;
            File::open(&self.dir)?.sync_all()
        })();
        if let Err(error) = named {
            let _ = fs::remove_file(&unfinished);
            let _ = fs::remove_file(&path);
            return Err(error.into());
        }
        let mut spans = self.spans.write();
        let mut longer = Vec::clone(&spans);
        longer.push(span);
        *spans = Arc::new(longer);
        Ok(footer)
    }

    fn write(
        &self,
        path: &Path,
        after: Head,
        blocks: impl Iterator<Item = Result<EncodedBlock, ReadError>>,
        disk: &dyn Disk,
    ) -> Result<Footer, SealError> {
        disk.before_seal(SealStep::Create)?;
        let mut writer = SegmentWriter::create(path, self.log, after)?;
        for block in blocks {
            disk.before_seal(SealStep::Write)?;
            writer.push(&block?)?;
        }
        let (file, footer) = writer.finish()?;
        disk.before_seal(SealStep::Sync)?;
        file.sync_all()?;
        Ok(footer)
    }

    /// Puts a segment without some contents in the place of one. Its frames begin and end with the
    /// same blocks, so that whoever still has the old one open reads on in either.
    pub(super) fn erase(
        &self,
        span: Span,
        is_erased: impl Fn(Sequence) -> bool,
        disk: &dyn Disk,
    ) -> Result<(), SealError> {
        let _alone = self.rewriting.lock();
        if !self.spans().contains(&span) {
            // It has expired meanwhile.
            return Ok(());
        }
        let path = self.path(span);
        let unfinished = self.dir.join(format!("{}{UNFINISHED}", file_name(span.first, span.last)));
        let written = self.write_erased(&unfinished, span, is_erased, disk);
        if written.is_err() {
            // Should it stay, the next start removes it.
            let _ = fs::remove_file(&unfinished);
        }
        written?;
        disk.before_seal(SealStep::Rename)?;
        self.unsynced.store(true, Ordering::SeqCst);
        fs::rename(&unfinished, &path)?;
        self.forget(|first| first == span.first);
        self.sync_names(disk)
    }

    /// Makes durable which segments there are, if it may not be: what was erased before a failed
    /// sync looks as if nothing were left to do.
    pub(super) fn sync_names(&self, disk: &dyn Disk) -> Result<(), SealError> {
        if self.unsynced.load(Ordering::SeqCst) {
            disk.before_seal(SealStep::SyncDirectory)?;
            File::open(&self.dir)?.sync_all()?;
            self.unsynced.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    fn write_erased(
        &self,
        path: &Path,
        span: Span,
        is_erased: impl Fn(Sequence) -> bool,
        disk: &dyn Disk,
    ) -> Result<(), SealError> {
        let in_span = |error| in_span(span, &error);
        let segment = Segment::open(&self.path(span), self.log).map_err(in_span)?;
        let before = Head { seq: Sequence(span.first.0 - 1), block: segment.footer().previous };
        disk.before_seal(SealStep::Create)?;
        let mut writer = SegmentWriter::create(path, self.log, before)?;
        for number in 0..segment.frames() {
            for stored in segment.frame(number).map_err(in_span)?.blocks() {
                let block = Block::decode(stored.clone())
                    .map_err(|error| damaged(span.first, span.last, error))?;
                let erased = block.erased(&is_erased);
                let bytes = erased.map_or(stored, |(_, bytes)| bytes);
                disk.before_seal(SealStep::Write)?;
                writer.push(&EncodedBlock::new(&block, bytes))?;
            }
            writer.close_frame()?;
        }
        let (file, footer) = writer.finish()?;
        if footer.end != segment.footer().end {
            let why = "it does not end where it says";
            return Err(damaged(span.first, span.last, why).into());
        }
        disk.before_seal(SealStep::Sync)?;
        Ok(file.sync_all()?)
    }

    fn make_dir(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => File::open(self.dir.parent().unwrap_or(Path::new("/")))?.sync_all(),
        }
    }
}

/// Blocks were not sealed. They are where they were.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error("a segment could not be written: {0}")]
    Io(#[from] io::Error),
    #[error("what was to be sealed cannot be read: {0}")]
    Read(#[from] ReadError),
}

fn fault(span: Span, error: &SegmentError) -> Fault {
    match error {
        SegmentError::Io(cause) if is_of_the_disk(cause) => Fault::Io(why(span, error)),
        _ => Fault::Error(why(span, error)),
    }
}

fn in_span(span: Span, error: &SegmentError) -> ReadError {
    match error {
        SegmentError::Io(cause) if is_of_the_disk(cause) => ReadError::Io { why: why(span, error) },
        _ => damaged(span.first, span.last, why(span, error)),
    }
}

fn why(span: Span, error: &SegmentError) -> String {
    format!("the segment {}: {error}", file_name(span.first, span.last))
}
