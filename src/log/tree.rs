//! Brings the Merkle tree to where a replay begins.

use super::ReplayError;
use crate::{
    audit::Tree,
    journal::{Journal, ReadError, ReadLimits},
};
use acta_events::{ContentBody, Digest, Sequence};

/// How many records are taken in between two times that they are written.
const FLUSH_RECORDS: u64 = 1 << 20;

/// Keeps the tree if it was made from this log, else begins again; then takes in what it lacks up
/// to `from`. Only a tree that is new, or was lost, has to read more than a replay does.
pub(super) fn settle(
    tree: &Tree,
    journal: &dyn Journal,
    from: Sequence,
) -> Result<(), ReplayError> {
    let begin = journal.begin();
    match &begin {
        Some(begin) if tree.size() < begin.seq.0 || !is_of(tree, journal)? => tree.rewind(begin)?,
        None if !is_of(tree, journal)? => {
            tracing::warn!("the tree is not of this history; it is made anew from the log");
            tree.reset()?;
        }
        _ => {}
    }
    let mut flushed = tree.size();
    while tree.size() < from.0 {
        let limits = ReadLimits { blocks: 64, bytes: 4 << 20 };
        for block in journal.read(Sequence(tree.size()), limits)? {
            tree.apply(&block)?;
        }
        if tree.size() - flushed >= FLUSH_RECORDS {
            tree.flush()?;
            flushed = tree.size();
        }
    }
    Ok(())
}

/// Whether the block at the end of the tree is the one that the log has there. It names all that
/// is before it.
fn is_of(tree: &Tree, journal: &dyn Journal) -> Result<bool, ReplayError> {
    let (size, digest) = tree.end();
    if size == 0 {
        return Ok(true);
    }
    if size > journal.head().seq.0 {
        return Ok(false);
    }
    if let Some(begin) = journal.begin().filter(|begin| begin.seq.0 == size) {
        return Ok(begin.block == digest);
    }
    match journal.read(Sequence(size - 1), ReadLimits { blocks: 1, bytes: 1 }) {
        Ok(blocks) => {
            Ok(blocks.first().is_some_and(|block| block.last().0 == size && block.digest == digest))
        }
        Err(error @ ReadError::Io { .. }) => Err(error.into()),
        Err(ReadError::Damaged { .. }) => Ok(false),
    }
}

impl super::Log {
    /// The digests of the contents in files that the records after `after`, up to `through`, name and
    /// that nobody ordered to be erased. Blocking.
    pub fn content_files_between(
        &self,
        after: Sequence,
        through: Sequence,
        mut each: impl FnMut(Digest),
    ) -> Result<(), super::ReadFault> {
        let mut position = after.max(self.expired_through());
        while position < through {
            let limits = ReadLimits { blocks: 64, bytes: 4 << 20 };
            let blocks = self.journal.read(position, limits)?;
            let Some(last) = blocks.last() else { break };
            let views = self.views.read();
            for record in blocks.iter().flat_map(|block| &block.records) {
                let seq = record.seq();
                if let Some(content) = &record.content
                    && content.body == ContentBody::File
                    && seq > after
                    && seq <= through
                    && views.redactions.get(seq).is_none()
                {
                    each(content.digest);
                }
            }
            position = last.last();
        }
        Ok(())
    }

    /// Some blocks as they are stored, each with its length in front, from the one that holds the
    /// sequence after `after`, up to the head. Blocking.
    pub fn framed_blocks(&self, after: Sequence) -> Result<Vec<u8>, super::ReadFault> {
        Ok(self.framed_blocks_through(after, self.head())?.0)
    }

    /// As [`Self::framed_blocks`], up to an earlier end of a block, with where they end.
    pub fn framed_blocks_through(
        &self,
        after: Sequence,
        through: Sequence,
    ) -> Result<(Vec<u8>, Sequence), super::ReadFault> {
        let through = through.min(self.head());
        let mut bytes = Vec::new();
        let mut end = after;
        if after < through {
            self.retains(after.next())?;
            let limits = ReadLimits { blocks: 64, bytes: 4 << 20 };
            let blocks = self.journal.read(after, limits)?;
            for block in blocks.iter().filter(|block| block.last() <= through) {
                let views = self.views.read();
                let erased = block.erased(|seq| views.redactions.get(seq).is_some());
                drop(views);
                crate::audit::frame(erased.as_ref().map_or(block, |(block, _)| block), &mut bytes);
                end = block.last();
            }
        }
        Ok((bytes, end))
    }
}
