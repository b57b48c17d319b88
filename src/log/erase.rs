//! Erasing contents: what counts as erased, and taking it away for good.
//!
//! The order comes first, as a record. From the moment it is published nobody is given the
//! content any more ([`Log::hide`] and the filter in `read.rs`); [`Log::erase_pending`] then takes
//! it out of the storage, and is repeated after every start for all orders, since any of them may
//! have been cut off.

use super::{Contents, Log, Logged, ReadFault, blocking, read::inline_content};
use crate::{
    content::ContentError,
    journal::{EraseError, ReadLimits},
};
use acta_events::{
    Actor, ContentBody, Digest, ErasureOrder, Event, Record, Sequence, Timestamp, block::Block,
    record::INLINE_BYTES_MAX,
};
use acta_projections::Redaction;
use serde::Serialize;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A content file without a record belongs to a command that is on its way for this long at most.
const COMMAND_MAX: Duration = Duration::from_secs(600);

/// Who had a content erased, when, and why.
#[derive(Clone, Debug, Serialize)]
pub struct RedactionNote {
    /// The record whose content is erased.
    pub record: Sequence,
    /// The record of the order.
    pub sequence: Sequence,
    /// Who ordered it.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// Why; none if no reason was given, or if it was erased too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of an order that was repeated after an older state was restored: the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<ErasureOrder>,
}

/// A content was not erased, or not everywhere.
#[derive(Debug, thiserror::Error)]
pub enum EraseFault {
    /// It may stand in a block.
    #[error(transparent)]
    Journal(#[from] EraseError),
    /// It may stand in a file of its own.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFault),
}

/// A content that is to be taken away.
struct Target {
    seq: Sequence,
    /// Of a content that is, or was, in a file of its own.
    file: Option<(Digest, u64)>,
}

impl Log {
    /// By whose order the content of a record is erased, if it is.
    fn redaction(&self, seq: Sequence) -> Option<Redaction> {
        self.views.read().redactions.get(seq).cloned()
    }

    pub(super) fn is_redacted(&self, record: &Record) -> bool {
        record.content.as_ref().is_some_and(|content| content.body != ContentBody::Erased)
            && self.views.read().redactions.get(record.seq()).is_some()
    }

    /// Counts orders, so that whoever keeps what was made of contents can see that it is outdated.
    pub(crate) fn redactions(&self) -> u64 {
        *self.redacted.borrow()
    }

    /// Wakes whenever a content is to be erased.
    pub(crate) fn watch_redactions(&self) -> watch::Receiver<u64> {
        self.redacted.subscribe()
    }

    /// All orders up to this record are carried out.
    pub fn watch_erased(&self) -> watch::Receiver<Sequence> {
        self.erased.subscribe()
    }

    /// Takes what was erased by the orders in a block out of everything that readers are given.
    pub(super) fn hide(&self, block: &Block) {
        let orders = block.records.iter();
        let orders = orders.filter(|it| matches!(it.header.event, Event::ContentRedacted(_)));
        let count = orders.count() as u64;
        if count > 0 {
            // Frames of other records may hold the text too, so all of them are made anew.
            self.ring.write().renew(|record| self.is_redacted(record));
            self.blocks.lock().clear();
            self.redacted.send_modify(|before| *before += count);
        }
    }

    /// The records of a block as readers are given them.
    pub(super) fn as_shown(&self, records: &[Arc<Record>]) -> Arc<[Arc<Logged>]> {
        let shown = |record: &Arc<Record>| {
            let erased = if self.is_redacted(record) { record.erased() } else { None };
            Logged::new(erased.map_or_else(|| Arc::clone(record), Arc::new))
        };
        records.iter().map(shown).collect()
    }

    /// Who erased the contents of these records, as far as they are erased.
    pub(crate) fn notes_blocking(
        &self,
        records: &[Sequence],
    ) -> Result<Vec<RedactionNote>, ReadFault> {
        let mut notes = Vec::new();
        for record in records {
            let Some(redaction) = self.redaction(*record) else { continue };
            let reason = match redaction.has_reason {
                true => self.record_blocking(redaction.seq)?,
                false => None,
            };
            let reason = reason.and_then(|logged| inline_content(&logged.record));
            notes.push(RedactionNote {
                record: *record,
                sequence: redaction.seq,
                by: redaction.by,
                at: redaction.at,
                reason: reason.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
                repeats: redaction.repeats,
            });
        }
        Ok(notes)
    }

    /// Who erased the content of a record, if it is erased.
    pub(crate) async fn note(
        self: &Arc<Self>,
        record: Sequence,
    ) -> Result<Option<RedactionNote>, ReadFault> {
        if self.redaction(record).is_none() {
            return Ok(None);
        }
        let log = Arc::clone(self);
        Ok(blocking(move || log.notes_blocking(&[record])).await?.pop())
    }

    /// Takes all contents away that were ordered to be erased and may still be there. Blocking,
    /// and long where there is much history.
    pub fn erase_pending(&self) -> Result<(), EraseFault> {
        let done = *self.erased.borrow();
        let mut through = done;
        let mut wanted = BTreeSet::new();
        for (seq, redaction) in self.views.read().redactions.iter() {
            if redaction.seq > done {
                wanted.insert(seq);
                through = through.max(redaction.seq);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let targets = self.targets(&wanted)?;
        for (digest, len) in targets.iter().filter_map(|target| target.file) {
            self.remove_twins(digest, len)?;
        }
        self.journal.erase(&wanted)?;
        for (digest, _) in targets.iter().filter_map(|target| target.file) {
            self.contents.remove(digest)?;
        }
        tracing::info!(contents = targets.len(), %through, "contents were erased");
        self.erased.send_replace(through);
        Ok(())
    }

    fn targets(&self, wanted: &BTreeSet<Sequence>) -> Result<Vec<Target>, ReadFault> {
        let mut targets = Vec::new();
        for seq in wanted {
            let Some(logged) = self.record_blocking(*seq)? else { continue };
            let content = logged.record.content.as_ref();
            let large = content.filter(|content| content.len > INLINE_BYTES_MAX as u64);
            let file = large.map(|content| (content.digest, content.len));
            targets.push(Target { seq: logged.record.seq(), file });
        }
        targets.dedup_by_key(|target| target.seq);
        Ok(targets)
    }

    /// A command that was repeated, or whose outcome never became known, may have left a file with
    /// the same content under another salt. No record names it.
    fn remove_twins(&self, digest: Digest, len: u64) -> Result<(), EraseFault> {
        let Contents::Files(files) = &self.contents else { return Ok(()) };
        files.remove_stale_temporaries()?;
        let mut twins = files.twins(digest, len)?;
        twins.retain(|twin| !self.is_on_its_way(*twin));
        if twins.is_empty() {
            return Ok(());
        }
        let named = self.content_files()?;
        for twin in twins.into_iter().filter(|twin| !named.contains(twin)) {
            files.remove(twin)?;
        }
        Ok(())
    }

    /// The digests of all contents in files of their own.
    fn content_files(&self) -> Result<HashSet<Digest>, ReadFault> {
        let mut named = HashSet::new();
        let mut position = Sequence::ZERO;
        let head = self.journal.head().seq;
        while position < head {
            let blocks = self.journal.read(position, ReadLimits { blocks: 64, bytes: 4 << 20 })?;
            let Some(last) = blocks.last() else { break };
            position = last.last();
            let contents = blocks.iter().flat_map(|block| &block.records);
            let contents = contents.filter_map(|record| record.content.as_ref());
            let in_files = contents.filter(|content| content.body == ContentBody::File);
            named.extend(in_files.map(|content| content.digest));
        }
        Ok(named)
    }

    fn is_on_its_way(&self, content: Digest) -> bool {
        self.on_their_way.lock().get(&content).is_some_and(|since| since.elapsed() < COMMAND_MAX)
    }

    /// A content file is about to be written, for a record that is not there yet.
    pub(super) fn set_out(&self, content: Digest) {
        let mut on_their_way = self.on_their_way.lock();
        on_their_way.retain(|_, since| since.elapsed() < COMMAND_MAX);
        on_their_way.insert(content, Instant::now());
    }

    /// The records of these content files are there.
    pub(super) fn arrive(&self, records: &[Arc<Record>]) {
        for record in records {
            if let Some(content) = &record.content
                && content.body == ContentBody::File
            {
                self.on_their_way.lock().remove(&content.digest);
            }
        }
    }

    /// Removes content files that no record will ever name. What cannot be removed stays, and
    /// does no harm but to take space.
    pub(crate) fn discard(self: &Arc<Self>, contents: Vec<Digest>) {
        if contents.is_empty() {
            return;
        }
        let log = Arc::clone(self);
        drop(tokio::task::spawn_blocking(move || {
            for content in contents {
                if let Err(error) = log.contents.remove(content) {
                    tracing::warn!(%error, "a content that nothing refers to was not removed");
                }
                log.on_their_way.lock().remove(&content);
            }
        }));
    }
}
