//! By whose order contents of a stopped log are erased. Orders come later than what they erase, and
//! one that the service was killed before it carried it out counts as well, so that all of them have
//! to be known before the first record is shown.

use crate::{
    checkpoint::Checkpoints,
    cli::rebuild::{StoppedLog, damaged},
    journal::{Journal, ReadError, ReadLimits},
    log::RedactionNote,
};
use acta_events::{ContentBody, Record, Sequence, block::Block};
use acta_projections::{Projections, Redactions};
use anyhow::Result;
use std::sync::Arc;

pub(super) struct Orders<'a> {
    journal: &'a dyn Journal,
    known: Redactions,
}

impl<'a> Orders<'a> {
    /// All that the log has: from the newest checkpoint that fits, and what came after it.
    pub(super) fn of(stopped: &'a StoppedLog) -> Result<Self> {
        let journal = stopped.journal();
        let head = journal.head().seq;
        let digest_at = |seq| record_at(journal, seq).ok().flatten().map(|record| record.digest);
        let checkpoints = Checkpoints::new(stopped.data.subpath("checkpoints"));
        let newest = checkpoints.newest(stopped.data.log_id(), head, digest_at);
        let mut views: Projections = newest.unwrap_or_default();
        while views.position() < head {
            let before = views.position();
            for block in read(journal, before, ReadLimits { blocks: 64, bytes: 4 << 20 })? {
                for record in &block.records {
                    views.apply(record)?;
                }
            }
            if views.position() == before {
                break;
            }
        }
        Ok(Self { journal, known: (*views.redactions).clone() })
    }

    /// The order to erase the content of a record, if there is one.
    pub(super) fn note(&self, record: Sequence) -> Result<Option<RedactionNote>> {
        let Some(order) = self.known.get(record) else { return Ok(None) };
        let reason = record_at(self.journal, order.seq)?.and_then(|order| {
            match order.content.as_ref()?.body {
                ContentBody::Inline { ref bytes, .. } => {
                    Some(String::from_utf8_lossy(bytes).into_owned())
                }
                _ => None,
            }
        });
        // A reason may have been ordered to be erased too.
        let reason = reason.filter(|_| self.known.get(order.seq).is_none());
        Ok(Some(RedactionNote {
            record,
            sequence: order.seq,
            by: order.by.clone(),
            at: order.at,
            reason,
            repeats: order.repeats.clone(),
        }))
    }
}

fn record_at(journal: &dyn Journal, seq: Sequence) -> Result<Option<Arc<Record>>> {
    let before = Sequence(seq.0.saturating_sub(1));
    let blocks = read(journal, before, ReadLimits { blocks: 1, bytes: 1 })?;
    let mut records = blocks.iter().flat_map(|block| &block.records);
    Ok(records.find(|record| record.seq() == seq).cloned())
}

pub(super) fn read(
    journal: &dyn Journal,
    after: Sequence,
    limits: ReadLimits,
) -> Result<Vec<Arc<Block>>> {
    journal.read(after, limits).map_err(|error| match error {
        ReadError::Damaged { .. } => damaged(error.to_string()),
        other => other.into(),
    })
}
