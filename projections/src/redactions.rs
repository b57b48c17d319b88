//! Which contents were erased, and by whose order.

use crate::Projection;
use acta_events::{Actor, Digest, ErasureOrder, Event, Record, Sequence, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// An order to erase a content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Redaction {
    /// The record of the order; its content is the reason, if one was given.
    pub seq: Sequence,
    /// Who ordered it.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// The content digest of what was erased.
    pub content: Digest,
    /// Whether a reason was given.
    pub has_reason: bool,
    /// Of an order that was repeated after an older state was restored: the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<ErasureOrder>,
}

/// All redactions, by the sequence of the record whose content is erased. The first order counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Redactions {
    /// Shared until the next one, so that a copy of all projections costs little.
    by_sequence: Arc<BTreeMap<u64, Redaction>>,
}

impl Redactions {
    /// The order by which the content of a record was erased.
    pub fn get(&self, seq: Sequence) -> Option<&Redaction> {
        self.by_sequence.get(&seq.0)
    }

    /// Whether nothing was ever erased.
    pub fn is_empty(&self) -> bool {
        self.by_sequence.is_empty()
    }

    /// All of them, with the sequence of the record whose content is erased, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Sequence, &Redaction)> {
        self.by_sequence.iter().map(|(seq, redaction)| (Sequence(*seq), redaction))
    }
}

impl Projection for Redactions {
    const NAME: &'static str = "redactions";

    fn fold(&mut self, record: &Record) {
        if let Event::ContentRedacted(redacted) = &record.header.event {
            let redaction = Redaction {
                seq: record.seq(),
                by: record.header.actor.clone(),
                at: record.header.time,
                content: redacted.content,
                has_reason: record.content.is_some(),
                repeats: redacted.repeats.clone(),
            };
            Arc::make_mut(&mut self.by_sequence).entry(redacted.sequence.0).or_insert(redaction);
        }
    }
}
