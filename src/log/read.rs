//! Reading the log: any range, any worker's records, any content, any text.

use super::{BLOCKS_CACHED, Log, Logged};
use crate::{
    content::ContentError,
    error::{Code, Rejection},
    index::{IndexError, Posting, PostingKind},
    journal::{ReadError, ReadLimits},
};
use acta_events::{
    Content, ContentBody, Event, MediaType, Record, Sequence, StoredContent, TextSpan,
};
use acta_projections::Projections;
use bytes::Bytes;
use rand::Rng as _;
use std::sync::Arc;

/// How many pieces of a text are in memory, each with the block that it is in, while it is put together.
const DELTAS_AT_ONCE: usize = 128;

/// Something that is durable cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    /// A block cannot be read.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// A content cannot be read.
    #[error("the content of record {seq} cannot be read: {source}")]
    Content {
        /// The record.
        seq: Sequence,
        /// Why.
        source: ContentError,
    },
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Records are missing.
    #[error(transparent)]
    Gap(#[from] acta_projections::Gap),
    /// They are not kept any more.
    #[error(
        "records 1 to {through} have expired, by the policy that says how much history is kept; \
         the first that is there is {}", through.next()
    )]
    Expired {
        /// The last record that expired.
        through: Sequence,
    },
    /// The base cannot be read.
    #[error(transparent)]
    Base(#[from] crate::base::BaseError),
    /// The thread that read it is gone.
    #[error("the service is shutting down")]
    Gone,
}

impl From<ReadFault> for Rejection {
    fn from(fault: ReadFault) -> Self {
        if let ReadFault::Expired { .. } = fault {
            return Self::new(Code::HistoryExpired, fault.to_string());
        }
        let code = match &fault {
            ReadFault::Journal(ReadError::Damaged { .. })
            | ReadFault::Content { source: ContentError::Damaged { .. }, .. }
            | ReadFault::Index(IndexError::Damaged { .. }) => Code::StoreCorrupt,
            ReadFault::Content { source: ContentError::Missing { .. }, .. } => Code::StoreMissing,
            ReadFault::Gone => Code::NotReady,
            _ => Code::StoreIo,
        };
        tracing::error!(error = %fault, %code, "a read failed");
        Self::new(code, fault.to_string())
    }
}

/// Consecutive records and where they end.
#[derive(Debug)]
pub struct Slice {
    /// In order.
    pub records: Vec<Arc<Logged>>,
    /// Everything up to here has been looked at.
    pub through: Sequence,
}

impl Log {
    /// The records after a sequence, at most `limit` of them and never beyond `through`.
    pub async fn read(
        self: &Arc<Self>,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> Result<Vec<Arc<Logged>>, ReadFault> {
        if after >= through || limit == 0 {
            return Ok(Vec::new());
        }
        self.retains(after.next())?;
        if let Some(records) = self.ring.read().after(after, through, limit) {
            return Ok(records);
        }
        let log = Arc::clone(self);
        blocking(move || log.read_blocking(after, through, limit)).await
    }

    /// As [`Self::read`], on a thread that may block.
    pub fn read_blocking(
        &self,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> Result<Vec<Arc<Logged>>, ReadFault> {
        let mut records = Vec::new();
        let mut position = after;
        while position < through && records.len() < limit {
            let block = self.block_with(position.next());
            // Before anything else is said of it: it may have gone while it was read.
            self.retains(position.next())?;
            let block = block?;
            let before = records.len();
            let room = limit - records.len();
            let wanted = block.iter().filter(|logged| {
                let seq = logged.record.seq();
                seq > position && seq <= through
            });
            records.extend(wanted.take(room).cloned());
            match records.last() {
                Some(last) if records.len() > before => position = last.record.seq(),
                _ => break,
            }
        }
        Ok(records)
    }

    fn block_with(&self, seq: Sequence) -> Result<Arc<[Arc<Logged>]>, ReadFault> {
        let holds = |block: &Arc<[Arc<Logged>]>| {
            let (first, last) = (block.first(), block.last());
            first
                .zip(last)
                .is_some_and(|(first, last)| first.record.seq() <= seq && seq <= last.record.seq())
        };
        if let Some(block) = self.blocks.lock().iter().find(|block| holds(block)) {
            return Ok(Arc::clone(block));
        }
        let before = Sequence(seq.0.saturating_sub(1));
        let redactions = self.redactions();
        let blocks = self.journal.read(before, ReadLimits { blocks: 1, bytes: 1 })?;
        let records = blocks.first().map(|block| block.records.as_slice()).unwrap_or_default();
        let block = self.as_shown(records);
        let mut cached = self.blocks.lock();
        // What was read before an order to erase is not kept beyond it.
        if redactions == self.redactions() {
            cached.push_front(Arc::clone(&block));
            cached.truncate(BLOCKS_CACHED);
        }
        Ok(block)
    }

    /// One record.
    ///
    /// None of one that has expired, whether it ever was there or not.
    pub async fn record(self: &Arc<Self>, seq: Sequence) -> Result<Option<Arc<Logged>>, ReadFault> {
        let after = Sequence(seq.0.saturating_sub(1));
        unless_expired(self.read(after, seq, 1).await)
    }

    pub(crate) fn record_blocking(&self, seq: Sequence) -> Result<Option<Arc<Logged>>, ReadFault> {
        if self.has_expired(seq) {
            return Ok(None);
        }
        if let Some(logged) = self.ring.read().get(seq) {
            return Ok(Some(logged));
        }
        let after = Sequence(seq.0.saturating_sub(1));
        unless_expired(self.read_blocking(after, seq, 1))
    }

    /// The records of one worker after a sequence, at most `limit`, never beyond `through`.
    /// The slice says how far the log has been looked through for them. What has expired is passed
    /// over.
    pub async fn worker_records(
        self: &Arc<Self>,
        worker: u32,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> Result<Slice, ReadFault> {
        let log = Arc::clone(self);
        let read = move || -> Result<Slice, ReadFault> {
            let postings = log.index.after(worker, after, through, limit)?;
            let through = match postings.last() {
                Some(last) if postings.len() >= limit => last.seq,
                _ => through,
            };
            Ok(Slice { records: log.records_of(&postings)?, through })
        };
        // What is recent is read from memory at once; only history goes to another thread.
        let after = after.max(self.expired_through());
        let recent = self.ring.read().get(after.next()).is_some();
        if recent { read() } else { blocking(read).await }
    }

    /// The records up to and with `through` that come after `after`, newest first, at most
    /// `limit`: of one worker, or all. The slice says down to where has been looked.
    pub async fn backwards(
        self: &Arc<Self>,
        worker: Option<u32>,
        (after, through): (Sequence, Sequence),
        limit: usize,
    ) -> Result<Slice, ReadFault> {
        let log = Arc::clone(self);
        let after = after.max(self.expired_through());
        blocking(move || match worker {
            Some(worker) => {
                let mut postings = log.index.before(worker, through, limit)?;
                let full = postings.len() >= limit;
                postings.retain(|posting| posting.seq > after);
                let through = match postings.last() {
                    Some(last) if full => Sequence(last.seq.0 - 1),
                    _ => after,
                };
                Ok(Slice { records: log.records_of(&postings)?, through: through.max(after) })
            }
            None => {
                let from = through.0.saturating_sub(limit as u64).max(after.0);
                let mut records = log.read_blocking(Sequence(from), through, limit)?;
                records.reverse();
                Ok(Slice { records, through: Sequence(from) })
            }
        })
        .await
    }

    /// Single records, in the order in which they are named. What has expired is left out.
    pub async fn records_at(
        self: &Arc<Self>,
        mut wanted: Vec<Sequence>,
    ) -> Result<Vec<Arc<Logged>>, ReadFault> {
        let log = Arc::clone(self);
        blocking(move || {
            loop {
                wanted.retain(|seq| !log.has_expired(*seq));
                match log.single_records(&wanted) {
                    // Some expired while they were read.
                    Err(_) if wanted.iter().any(|seq| log.has_expired(*seq)) => {}
                    done => return done,
                }
            }
        })
        .await
    }

    /// Records by their postings, in the order of these.
    pub(crate) fn records_of(&self, postings: &[Posting]) -> Result<Vec<Arc<Logged>>, ReadFault> {
        let wanted: Vec<_> = postings.iter().map(|posting| posting.seq).collect();
        self.single_records(&wanted)
    }

    /// Single records, in the order in which they are named, none of which has expired.
    fn single_records(&self, wanted: &[Sequence]) -> Result<Vec<Arc<Logged>>, ReadFault> {
        let mut records: Vec<_> = {
            let ring = self.ring.read();
            wanted.iter().map(|seq| ring.get(*seq)).collect()
        };
        let missing = wanted.iter().zip(&records).filter(|(_, found)| found.is_none());
        let mut older: Vec<_> = missing.map(|(seq, _)| *seq).collect();
        if !older.is_empty() {
            older.sort_unstable();
            let older = self.as_shown(&self.journal.records(&older)?);
            for (seq, found) in wanted.iter().zip(&mut records) {
                let at = || older.binary_search_by_key(seq, |older| older.record.seq());
                if found.is_none()
                    && let Ok(at) = at()
                {
                    *found = Some(Arc::clone(&older[at]));
                }
            }
        }
        Ok(records.into_iter().flatten().collect())
    }

    /// The content of a record; none if it has none or it was erased.
    pub async fn content(
        self: &Arc<Self>,
        record: &Arc<Record>,
    ) -> Result<Option<Bytes>, ReadFault> {
        if let Some(content) = inline_content(record) {
            return Ok(Some(content));
        }
        if record.content.is_none() {
            return Ok(None);
        }
        let (log, record) = (Arc::clone(self), Arc::clone(record));
        blocking(move || log.content_blocking(&record)).await
    }

    /// As [`Self::content`], on a thread that may block.
    pub fn content_blocking(&self, record: &Record) -> Result<Option<Bytes>, ReadFault> {
        let Some(content) = &record.content else { return Ok(None) };
        match &content.body {
            ContentBody::Inline { bytes, .. } => Ok(Some(bytes.clone())),
            ContentBody::Erased => Ok(None),
            ContentBody::File => {
                self.of_file(record, self.contents.read(content.digest, content.len))
            }
        }
    }

    /// What was read of the file of a content. It goes once its record has expired, also from under whoever
    /// had the record before.
    fn of_file(
        &self,
        record: &Record,
        found: Result<Bytes, ContentError>,
    ) -> Result<Option<Bytes>, ReadFault> {
        if found.is_err() {
            self.retains(record.seq())?;
        }
        found.map(Some).map_err(|source| ReadFault::Content { seq: record.seq(), source })
    }

    /// The content of a record as it is stored, its salt in front; none if it has none or it was
    /// erased. Blocking.
    pub fn salted_content_blocking(&self, record: &Record) -> Result<Option<Bytes>, ReadFault> {
        let Some(content) = &record.content else { return Ok(None) };
        match &content.body {
            ContentBody::Inline { salt, bytes } => {
                Ok(Some([&salt[..], &bytes[..]].concat().into()))
            }
            ContentBody::Erased => Ok(None),
            ContentBody::File => {
                self.of_file(record, self.contents.read_salted(content.digest, content.len))
            }
        }
    }

    /// Makes a content ready to be recorded: draws its salt, and writes it to its file if it is
    /// too large to stand beside its header.
    pub async fn keep(
        self: &Arc<Self>,
        media_type: MediaType,
        bytes: Bytes,
    ) -> Result<StoredContent, Rejection> {
        let mut salt = [0; 16];
        rand::rng().fill(&mut salt);
        let content = Content::new(salt, media_type, bytes);
        let stored = content.to_stored();
        if stored.body != ContentBody::File {
            return Ok(stored);
        }
        self.set_out(stored.digest);
        let contents = self.contents.clone();
        let written = tokio::task::spawn_blocking(move || contents.put(&content)).await;
        match written {
            Ok(Ok(())) => Ok(stored),
            Ok(Err(error)) => {
                tracing::error!(%error, "a content file could not be written");
                let message = "the content could not be written, so nothing was recorded; \
                               see whether the disk of the service is full, then try again";
                Err(Rejection::new(Code::StoreIo, message))
            }
            Err(_) => Err(ReadFault::Gone.into()),
        }
    }

    /// The text that a `text_done` record refers to, and those of its records whose content is
    /// erased and missing from it.
    pub(crate) fn text_blocking(
        &self,
        worker: u32,
        span: TextSpan,
        done: Sequence,
    ) -> Result<(String, Vec<Sequence>), ReadFault> {
        let mut erased = Vec::new();
        let mut text = Vec::with_capacity(usize::try_from(span.bytes).unwrap_or(0).min(1 << 20));
        let mut after = Sequence(span.first.0.saturating_sub(1));
        loop {
            let postings = self.index.after(worker, after, done, 1024)?;
            let Some(last) = postings.last() else { break };
            after = last.seq;
            let mut deltas = postings;
            deltas.retain(|posting| posting.kind == PostingKind::Delta);
            for deltas in deltas.chunks(DELTAS_AT_ONCE) {
                for logged in self.records_of(deltas)? {
                    match self.content_blocking(&logged.record)? {
                        Some(bytes) => text.extend(bytes),
                        None => erased.push(logged.record.seq()),
                    }
                }
            }
        }
        Ok((String::from_utf8_lossy(&text).into_owned(), erased))
    }

    /// All projections as they were right after a record, rebuilt from the nearest checkpoint.
    /// Blocking.
    pub fn projections_at(&self, seq: Sequence) -> Result<Projections, ReadFault> {
        if seq < self.expired_through() {
            return Err(ReadFault::Expired { through: self.expired_through() });
        }
        let nearest = self.checkpoints.as_ref().and_then(|checkpoints| {
            checkpoints.newest(self.id, seq, |seq| super::record_digest_at(&*self.journal, seq))
        });
        let mut projections = match nearest {
            Some(nearest) => nearest,
            None => self.journal.base()?.map(|base| base.views).unwrap_or_default(),
        };
        while projections.position() < seq {
            let limits = ReadLimits { blocks: 64, bytes: 4 << 20 };
            let blocks = self.journal.read(projections.position(), limits)?;
            let records = blocks.iter().flat_map(|block| &block.records);
            let before = projections.position();
            for record in records.take_while(|record| record.seq() <= seq) {
                projections.apply(record)?;
            }
            if projections.position() == before {
                break;
            }
        }
        Ok(projections)
    }
}

/// The only one of these records, if there is one; of one that has expired nothing is said.
fn unless_expired(
    found: Result<Vec<Arc<Logged>>, ReadFault>,
) -> Result<Option<Arc<Logged>>, ReadFault> {
    match found {
        Ok(mut records) => Ok(records.pop()),
        Err(ReadFault::Expired { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The content of a record if it is at hand.
pub(crate) fn inline_content(record: &Record) -> Option<Bytes> {
    match &record.content.as_ref()?.body {
        ContentBody::Inline { bytes, .. } => Some(bytes.clone()),
        _ => None,
    }
}

/// The span of a `text_done` record.
pub(crate) fn text_span(record: &Record) -> Option<TextSpan> {
    match &record.header.event {
        Event::WorkerOutput(output) => output.text,
        _ => None,
    }
}

/// Runs a read on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadFault> + Send + 'static,
) -> Result<T, ReadFault> {
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(ReadFault::Gone))
}
