//! Single records: those of one worker, which lie in many frames.
//!
//! **What is relied upon.** The table of frames was checked when the segment was opened, a frame matches its
//! checksum, a block the digest over all of its records, and a record says its own sequence: what was written is
//! read, or nothing. That the block follows the one before it is not looked at here, which would take the frame
//! in front of each. A range is read with that ([`super::walk`]), and `acta verify` holds all of it to what was
//! signed. Whoever finds something wrong here reads the range, which tells what it is.

use super::{
    Journal, ReadError, ReadLimits, SledJournal,
    segment::{Segment, SegmentError},
    segments::{Segments, Span},
};
use acta_events::{Record, Sequence, block::Block};
use std::{
    io,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// How many threads decompress for one request at most.
const THREADS_MAX: usize = 4;
/// A thread is not begun for fewer frames than this: half a millisecond of work.
const FRAMES_PER_THREAD: usize = 4;

/// How many segments are read from at the same time. What the frames of one have in common takes half a
/// megabyte.
const SEGMENTS_AT_ONCE: usize = 8;

static CORES: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

type Found = Vec<Arc<Record>>;

/// Single records, by reading the blocks that hold them.
pub(super) fn by_block<J: Journal + ?Sized>(
    journal: &J,
    wanted: &[Sequence],
) -> Result<Found, ReadError> {
    let mut found: Found = Vec::with_capacity(wanted.len());
    let mut rest = wanted;
    while let Some(first) = rest.first() {
        let before = Sequence(first.0.saturating_sub(1));
        let blocks = journal.read(before, ReadLimits { blocks: 1, bytes: 1 })?;
        let Some(block) = blocks.first().filter(|block| block.last() >= *first) else { break };
        let (here, beyond) = rest.split_at(rest.partition_point(|seq| *seq <= block.last()));
        let records = block.records.iter();
        found.extend(records.filter(|record| here.binary_search(&record.seq()).is_ok()).cloned());
        rest = beyond;
    }
    Ok(found)
}

impl SledJournal {
    /// What [`Journal::records`] does.
    pub(super) fn find_records(&self, wanted: &[Sequence]) -> Result<Found, ReadError> {
        let (head, sealer) = (self.head().seq, &self.keeper.sealer);
        let wanted = &wanted[..wanted.partition_point(|seq| *seq <= head)];
        if self.keeper.live_store().is_none() {
            return by_block(self, wanted);
        }
        let sealed = sealer.segments.last();
        let (sealed, tail) = wanted.split_at(wanted.partition_point(|seq| *seq <= sealed));
        // Reading the range tells what is wrong, if anything is.
        let mut found = match sealer.segments.records(sealed) {
            Ok(found) => found,
            Err(_) => by_block(self, sealed)?,
        };
        found.extend(match self.tail_records(tail) {
            Some(found) => found,
            None => by_block(self, tail)?,
        });
        Ok(found)
    }

    /// Single records of the tail, ascending. None if one of them is not found at once.
    fn tail_records(&self, wanted: &[Sequence]) -> Option<Found> {
        let store = self.keeper.live_store()?;
        let view = self.view(&store);
        let mut found: Found = Vec::with_capacity(wanted.len());
        while let Some(seq) = wanted.get(found.len()) {
            let (_, bytes) = view.floor(*seq).ok()??;
            let wanted = |seq| wanted.binary_search(&seq).is_ok();
            let records = Block::decode_some(bytes, wanted).ok()?;
            records.first().filter(|record| record.seq() == *seq)?;
            found.extend(records);
        }
        Some(found)
    }
}

/// The records that are wanted of one frame.
struct Job<'a> {
    span: Span,
    segment: Arc<Segment>,
    frame: usize,
    wanted: &'a [Sequence],
}

impl Segments {
    /// Single records, ascending, all of which have to be in segments.
    pub(super) fn records(&self, wanted: &[Sequence]) -> Result<Found, SegmentError> {
        let spans = self.spans();
        let mut found = Vec::with_capacity(wanted.len());
        let mut rest = wanted;
        while let Some(first) = rest.first() {
            let at = spans.partition_point(|span| span.last < *first);
            let end = spans.get(at..).and_then(|spans| spans.get(SEGMENTS_AT_ONCE - 1));
            let here = end.map_or(rest.len(), |end| rest.partition_point(|seq| *seq <= end.last));
            let (here, beyond) = rest.split_at(here);
            found.extend(self.records_together(here)?);
            rest = beyond;
        }
        Ok(found)
    }

    /// The same of few segments, all of which are kept open meanwhile.
    fn records_together(&self, wanted: &[Sequence]) -> Result<Found, SegmentError> {
        let erasures = self.erasures();
        let jobs = self.jobs(wanted)?;
        let mut segments: Vec<_> = jobs.iter().map(|job| &job.segment).collect();
        segments.dedup_by_key(|segment| Arc::as_ptr(segment));
        for job in &jobs {
            job.segment.will_read(job.frame);
        }
        // What all frames of a segment need comes first, so that nobody waits for it who could do something.
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Found)>, SegmentError> {
            let mut done = Vec::new();
            loop {
                let step = next.fetch_add(1, Ordering::Relaxed);
                let Some(at) = step.checked_sub(segments.len()) else {
                    segments[step].ready()?;
                    continue;
                };
                let Some(job) = jobs.get(at) else { return Ok(done) };
                done.push((at, self.records_in(job, erasures)?));
            }
        };
        let threads = (jobs.len() / FRAMES_PER_THREAD).min(*CORES).min(THREADS_MAX);
        let mut parts = thread::scope(|scope| -> Result<_, SegmentError> {
            // Should the system have no thread to give, the others do its work.
            let begin = |_| thread::Builder::new().name("frames".into()).spawn_scoped(scope, work);
            let others: Vec<_> = (1..threads).flat_map(begin).collect();
            let mut parts = work()?;
            for other in others {
                parts.extend(other.join().map_err(|_| io::Error::other("a thread panicked"))??);
            }
            Ok(parts)
        })?;
        parts.sort_unstable_by_key(|(at, _)| *at);
        Ok(parts.into_iter().flat_map(|(_, records)| records).collect())
    }

    fn jobs<'a>(&self, mut wanted: &'a [Sequence]) -> Result<Vec<Job<'a>>, SegmentError> {
        let spans = self.spans();
        let mut jobs = Vec::new();
        while let Some(first) = wanted.first() {
            let span = spans.get(spans.partition_point(|span| span.last < *first));
            let span = *span.ok_or(SegmentError::Damaged("a record beyond its end"))?;
            let segment = self.segment(span)?;
            let of_span = wanted.partition_point(|seq| *seq <= span.last);
            let (mut here, beyond) = wanted.split_at(of_span);
            while let Some(first) = here.first() {
                let frame = segment.frame_with(*first);
                let of_frame = here.partition_point(|seq| segment.frame_with(*seq) == frame);
                let (those, rest) = here.split_at(of_frame);
                jobs.push(Job { span, segment: Arc::clone(&segment), frame, wanted: those });
                here = rest;
            }
            wanted = beyond;
        }
        Ok(jobs)
    }

    fn records_in(&self, job: &Job<'_>, erasures: u64) -> Result<Found, SegmentError> {
        let read = || job.segment.frame(job.frame);
        let frame = self.frame_or((job.span, job.frame), erasures, read)?;
        let mut found = Vec::with_capacity(job.wanted.len());
        while let Some(seq) = job.wanted.get(found.len()) {
            let block = frame.within(*seq);
            let block = block.ok_or(SegmentError::Damaged("a frame has no block with a record"))?;
            let wanted = |seq| job.wanted.binary_search(&seq).is_ok();
            let records = Block::decode_some(block, wanted)
                .map_err(|_| SegmentError::Damaged("a block does not match its digest"))?;
            if records.first().map(|record| record.seq()) != Some(*seq) {
                return Err(SegmentError::Damaged("a record is not in its block"));
            }
            found.extend(records);
        }
        Ok(found)
    }
}
