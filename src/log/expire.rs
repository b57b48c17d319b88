//! What has expired: refused from the moment its record is published, and removed afterwards.

use super::{Log, ReadFault, ReplayError};
use crate::{
    audit::TreeError,
    base::{BaseError, Bases, Begin, BlockEnd},
    journal::{ExpireError, ReadError, ReadLimits},
};
use acta_events::{ContentBody, Digest, Sequence, block::Block};
use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const ONE: ReadLimits = ReadLimits { blocks: 1, bytes: 1 };

/// History did not expire, or not all that was to.
#[derive(Debug, thiserror::Error)]
pub enum ExpireFault {
    /// The base cannot be used.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// The tree cannot be written.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The journal keeps it.
    #[error(transparent)]
    Journal(#[from] ExpireError),
    /// No block ends there.
    #[error("no block ends with record {0}")]
    NotASeam(Sequence),
    /// The base is not the one that the log names.
    #[error(
        "the base at {0} is not the one that the log names. Restore the data directory from a \
         snapshot or a backup"
    )]
    OtherBase(Sequence),
    /// Records are missing, and none says that they expired.
    #[error(
        "records 1 to {0} are damaged or missing: there is no segment with them, and the log does \
         not say that they have expired. Restore the data directory from a snapshot or a backup"
    )]
    NotExpired(Sequence),
    /// The file system said no.
    #[error("what has expired could not be removed: {0}")]
    Io(#[from] io::Error),
}

impl From<ReadError> for ExpireFault {
    fn from(error: ReadError) -> Self {
        Self::Read(error.into())
    }
}

impl Log {
    /// The last record that expired; zero if all are there.
    pub fn expired_through(&self) -> Sequence {
        Sequence(self.expired.load(Ordering::Acquire))
    }

    /// Whether a record has expired.
    pub fn has_expired(&self, seq: Sequence) -> bool {
        seq > Sequence::ZERO && seq <= self.expired_through()
    }

    /// Where the log begins; none as long as nothing that expired was removed.
    pub fn begin(&self) -> Option<Begin> {
        self.journal.begin()
    }

    /// Refuses a record that has expired.
    pub(crate) fn retains(&self, seq: Sequence) -> Result<(), ReadFault> {
        match self.has_expired(seq) {
            true => Err(ReadFault::Expired { through: self.expired_through() }),
            false => Ok(()),
        }
    }

    /// The digest of a record, also of the last one that has expired: what a cursor right before the
    /// first record is compared with. Blocking.
    pub(crate) fn digest_at(&self, seq: Sequence) -> Option<Digest> {
        super::record_digest_at(&*self.journal, seq)
    }

    /// From now on nobody is given what has expired by what is recorded.
    pub(super) fn expire_as_recorded(&self) -> Result<(), ReplayError> {
        let through = self.views.read().lineage.expired_through();
        if through > self.expired_through() {
            self.expired.store(through.0, Ordering::Release);
            self.index.begin_behind(through)?;
            self.blocks.lock().clear();
        }
        Ok(())
    }

    /// Keeps what comes after a position from expiring, for as long as the other half of this lives.
    pub(crate) fn hold(&self, position: Sequence) -> Arc<AtomicU64> {
        let hold = Arc::new(AtomicU64::new(position.0));
        let mut holds = self.holds.lock();
        holds.retain(|hold| hold.strong_count() > 0);
        holds.push(Arc::downgrade(&hold));
        hold
    }

    /// The position of whoever has come the least far of those who must miss nothing.
    pub(crate) fn held_at(&self) -> Option<Sequence> {
        let holds = self.holds.lock();
        let held = holds.iter().filter_map(std::sync::Weak::upgrade);
        held.map(|hold| Sequence(hold.load(Ordering::Acquire))).min()
    }

    /// Makes the base durable with which the log could begin behind a record, and the tree that goes
    /// with it. Blocking.
    pub fn prepare_base(&self, bases: &Bases, through: Sequence) -> Result<Begin, ExpireFault> {
        let before = Sequence(through.0.saturating_sub(1));
        let blocks = self.journal.read(before, ONE)?;
        let seam = blocks.first().filter(|block| block.last() == through);
        let seam = seam.ok_or(ExpireFault::NotASeam(through))?;
        let views = self.projections_at(through)?;
        self.tree.flush()?;
        let root = Digest(self.tree.root(through.0)?.0);
        let end = BlockEnd { digest: seam.digest, epoch: seam.epoch, root };
        Ok(bases.write(self.id, &views, end)?)
    }

    /// Whether the log begins where it says: what is missing at its beginning has to have expired, and
    /// the base has to be the one that is recorded.
    pub fn check_begin(&self, bases: &Bases) -> Result<(), ExpireFault> {
        let begin = self.journal.begin();
        let expired = self.views.read().lineage.expired().cloned();
        match (begin, expired) {
            (None, None) => Ok(()),
            (Some(begin), None) => Err(ExpireFault::NotExpired(begin.seq)),
            (Some(begin), Some(expired)) if begin.seq > expired.history.through => {
                Err(ExpireFault::NotExpired(begin.seq))
            }
            (_, Some(expired)) => {
                let seq = expired.history.through;
                match bases.begin(seq, self.id)?.digest == expired.history.base {
                    true => Ok(()),
                    false => Err(ExpireFault::OtherBase(seq)),
                }
            }
        }
    }

    /// Removes what has expired by what is recorded, and bases that do not count any more; with
    /// `strays`, those too that nothing names. Blocking; may be cut off at any moment, and repeated.
    pub fn remove_expired(&self, bases: &Bases, strays: bool) -> Result<(), ExpireFault> {
        let Some(expired) = self.views.read().lineage.expired().cloned() else {
            return Ok(bases.keep_only(Sequence::ZERO, strays)?);
        };
        let through = expired.history.through;
        let begin = bases.begin(through, self.id)?;
        if begin.digest != expired.history.base {
            return Err(ExpireFault::OtherBase(through));
        }
        let kept = self.contents_behind(through)?;
        self.journal.expire(&begin, &mut |bytes| self.remove_contents(bytes, &kept))?;
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.remove_before(through)?;
        }
        Ok(bases.keep_only(through, strays)?)
    }

    /// Two records of one decision may name one content, and need not be in the same block.
    fn contents_behind(&self, through: Sequence) -> Result<HashSet<Digest>, ExpireFault> {
        let blocks = self.journal.read(through, ReadLimits { blocks: 2, bytes: usize::MAX })?;
        let records = blocks.iter().flat_map(|block| &block.records);
        let contents = records.filter_map(|record| record.content.as_ref());
        let in_files = contents.filter(|content| content.body == ContentBody::File);
        Ok(in_files.map(|content| content.digest).collect())
    }

    fn remove_contents(&self, stored: bytes::Bytes, kept: &HashSet<Digest>) -> io::Result<()> {
        // What is damaged names nothing that could be trusted.
        let Ok(block) = Block::decode(stored) else { return Ok(()) };
        let contents = block.records.iter().filter_map(|record| record.content.as_ref());
        for content in contents.filter(|content| content.body == ContentBody::File) {
            if !kept.contains(&content.digest) {
                self.contents.remove(content.digest).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }
}
