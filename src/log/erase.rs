//! Erasing contents: what counts as erased, and taking it away for good.
//!
//! The order comes first, as a record. From the moment it is published nobody is given the
//! content any more ([`Log::hide`] and the filter in `read.rs`); [`Log::erase_pending`] then takes
//! it out of the storage, and is repeated after every start for all orders, since any of them may
//! have been cut off.

use super::{Contents, Log, Logged, ReadFault, blocking, read::inline_content};
use crate::{
    content::ContentError,
    journal::{EraseError, ReadError, ReadLimits},
};
use acta_events::{
    Actor, ContentBody, Digest, ErasureOrder, Event, Record, Sequence, Timestamp, block::Block,
    record::INLINE_BYTES_MAX,
};
use acta_projections::Redaction;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
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

impl EraseFault {
    /// Whether trying again does not help: what is to be erased is damaged.
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Journal(EraseError::Damaged(_))
                | Self::Content(ContentError::Damaged { .. })
                | Self::Read(
                    ReadFault::Journal(ReadError::Damaged { .. })
                        | ReadFault::Content { source: ContentError::Damaged { .. }, .. }
                )
        )
    }
}

/// Which orders to erase a content are carried out.
#[derive(Clone, Debug, Default)]
pub struct Erased {
    /// Up to here they were attempted.
    through: Sequence,
    /// And these not.
    not: BTreeSet<Sequence>,
}

impl Erased {
    /// Whether the order in this record is carried out.
    pub fn has(&self, order: Sequence) -> bool {
        order <= self.through && !self.not.contains(&order)
    }

    /// Whether every order up to this record is carried out.
    pub fn has_all(&self, through: Sequence) -> bool {
        through <= self.through && self.not.range(..=through).next().is_none()
    }
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

    /// Which orders are carried out.
    pub fn watch_erased(&self) -> watch::Receiver<Erased> {
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
    /// and long where there is much history. One that cannot be taken away keeps no other from it;
    /// what is returned is then a fault that may pass, if there is one.
    pub fn erase_pending(&self) -> Result<(), EraseFault> {
        let done = self.erased.borrow().clone();
        let mut through = done.through;
        let mut orders = BTreeMap::new();
        for (seq, redaction) in self.views.read().redactions.iter() {
            if !done.has(redaction.seq) {
                orders.insert(seq, redaction.seq);
                through = through.max(redaction.seq);
            }
        }
        if orders.is_empty() {
            return Ok(());
        }
        let mut failed = BTreeMap::new();
        let targets = self.targets(orders.keys(), &mut failed);
        let files = || targets.iter().filter_map(|it| it.file.map(|file| (it.seq, file)));
        for (seq, (digest, len)) in files() {
            if let Err(fault) = self.remove_twins(digest, len) {
                failed.insert(seq, fault);
            }
        }
        self.erase_in_blocks(targets.iter().map(|target| target.seq).collect(), &mut failed);
        for (seq, (digest, _)) in files() {
            // As long as one has twins, it is needed to know them by.
            if !failed.contains_key(&seq)
                && let Err(error) = self.contents.remove(digest)
            {
                failed.insert(seq, error.into());
            }
        }
        let contents = orders.len() - failed.len();
        tracing::info!(contents, %through, failed = failed.len(), "contents were erased");
        let of = |seq: &Sequence| orders.get(seq).copied();
        self.erased.send_replace(Erased { through, not: failed.keys().filter_map(of).collect() });
        let (lasting, passing): (Vec<_>, Vec<_>) =
            failed.into_values().partition(EraseFault::is_lasting);
        passing.into_iter().chain(lasting).next().map_or(Ok(()), Err)
    }

    /// Takes contents out of blocks. Where some are damaged, out of the others.
    fn erase_in_blocks(
        &self,
        mut wanted: BTreeSet<Sequence>,
        failed: &mut BTreeMap<Sequence, EraseFault>,
    ) {
        while !wanted.is_empty() {
            let Err(error) = self.journal.erase(&wanted) else { return };
            let mut bad = wanted.clone();
            if let EraseError::Damaged(ReadError::Damaged { first, last, .. }) = &error {
                let is_damaged = |seq: &Sequence| first <= seq && seq <= last;
                let damaged: BTreeSet<_> = wanted.iter().copied().filter(is_damaged).collect();
                if !damaged.is_empty() {
                    bad = damaged;
                }
            }
            wanted.retain(|seq| !bad.contains(seq));
            failed.extend(bad.into_iter().map(|seq| (seq, error.clone().into())));
        }
    }

    fn targets<'a>(
        &self,
        wanted: impl Iterator<Item = &'a Sequence>,
        failed: &mut BTreeMap<Sequence, EraseFault>,
    ) -> Vec<Target> {
        let mut targets = Vec::new();
        for seq in wanted {
            match self.record_blocking(*seq) {
                Ok(Some(logged)) => {
                    let content = logged.record.content.as_ref();
                    let large = content.filter(|content| content.len > INLINE_BYTES_MAX as u64);
                    let file = large.map(|content| (content.digest, content.len));
                    targets.push(Target { seq: *seq, file });
                }
                Ok(None) => {}
                Err(fault) => drop(failed.insert(*seq, fault.into())),
            }
        }
        targets
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
        let mut position = self.expired_through();
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
