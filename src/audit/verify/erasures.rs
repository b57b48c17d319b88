//! Which contents of a log are erased, and by whose order.

use acta_events::{Actor, ContentBody, Event, Record, Sequence, Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How many are told of at most; more are counted.
const TOLD_MAX: usize = 256;

/// A content that was erased.
#[derive(Clone, Debug, Serialize)]
pub struct Erasure {
    /// Its record.
    pub record: Sequence,
    /// The record of the order.
    pub sequence: Sequence,
    /// Who ordered it.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// Why, as far as that is not erased too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What was seen so far. Erased contents whose order was not seen yet are kept as ranges.
#[derive(Debug, Default)]
pub(crate) struct Erasures {
    /// Last by first, of records that are erased and have no order so far.
    unordered: BTreeMap<Sequence, Sequence>,
    /// What was ordered to be erased.
    ordered: BTreeSet<Sequence>,
    /// Records whose content was there although it was ordered to be erased later on.
    unheeded: BTreeSet<Sequence>,
    told: Vec<Erasure>,
    more: u64,
}

impl Erasures {
    /// Whether contents are erased whose order was not seen yet.
    pub(crate) fn lack_orders(&self) -> bool {
        !self.unordered.is_empty()
    }

    /// Whether a content was seen that an order seen later takes away: it was given before that.
    pub(crate) fn has_unheeded(&self) -> bool {
        !self.unheeded.is_empty()
    }

    pub(crate) fn take_in(&mut self, record: &Record) {
        let body = record.content.as_ref().map(|content| &content.body);
        if body == Some(&ContentBody::Erased) {
            self.add(record.seq());
        }
        let Event::ContentRedacted(redacted) = &record.header.event else { return };
        let was_erased = self.remove(redacted.sequence);
        // Another order for the same content has nothing left to take away.
        if self.ordered.insert(redacted.sequence) && !was_erased {
            self.unheeded.insert(redacted.sequence);
        }
        if self.told.len() >= TOLD_MAX {
            self.more += 1;
            return;
        }
        let reason = match body {
            Some(ContentBody::Inline { bytes, .. }) => {
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
            _ => None,
        };
        self.told.push(Erasure {
            record: redacted.sequence,
            sequence: record.seq(),
            by: record.header.actor.clone(),
            at: record.header.time,
            reason,
        });
    }

    /// What was ordered behind a record was ordered by nobody.
    pub(super) fn forget_behind(&mut self, last: Sequence) {
        for erasure in self.told.extract_if(.., |erasure| erasure.sequence > last) {
            self.unordered.insert(erasure.record, erasure.record);
        }
    }

    /// Records come in order, so that a new one is behind all others.
    fn add(&mut self, seq: Sequence) {
        match self.unordered.last_entry() {
            Some(mut last) if last.get().next() == seq => *last.get_mut() = seq,
            _ => drop(self.unordered.insert(seq, seq)),
        }
    }

    /// Whether it was erased, and had no order so far.
    fn remove(&mut self, seq: Sequence) -> bool {
        let Some((&first, &last)) = self.unordered.range(..=seq).next_back() else { return false };
        if seq > last {
            return false;
        }
        self.unordered.remove(&first);
        if first < seq {
            self.unordered.insert(first, Sequence(seq.0 - 1));
        }
        if seq < last {
            self.unordered.insert(seq.next(), last);
        }
        true
    }

    /// What came of it.
    pub(super) fn finish(self) -> Found {
        let Self { unordered, unheeded, told, more, .. } = self;
        Found { told, more, unordered, unheeded: unheeded.into_iter().take(TOLD_MAX).collect() }
    }
}

/// What was found of erased contents.
pub(super) struct Found {
    pub(super) told: Vec<Erasure>,
    /// How many more there are.
    pub(super) more: u64,
    /// Ranges of records that are erased without an order, last by first.
    pub(super) unordered: BTreeMap<Sequence, Sequence>,
    /// Records whose content is there although there is an order, the first of them.
    pub(super) unheeded: Vec<Sequence>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_order_is_left() {
        let mut erasures = Erasures::default();
        for seq in [3, 4, 5, 6, 9, 12, 13] {
            erasures.add(Sequence(seq));
        }
        for (seq, erased) in
            [(4, true), (9, true), (13, true), (100, false), (1, false), (4, false)]
        {
            assert_eq!(erasures.remove(Sequence(seq)), erased, "{seq}");
        }
        let left: Vec<_> = erasures.unordered.iter().map(|(a, b)| (a.0, b.0)).collect();
        assert_eq!(left, [(3, 3), (5, 6), (12, 12)]);
    }
}
