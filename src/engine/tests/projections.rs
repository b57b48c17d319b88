//! The views are a fold over the log, from wherever the fold begins.

use super::history::{History, Seed, rebuilt};
use acta_events::{Digest, Record, Sequence};
use acta_projections::{Gap, Projections};
use proptest::{collection::vec, prelude::*, sample::Index};
use std::sync::Arc;

fn stored_and_read(projections: &Projections) -> Projections {
    let stored = serde_json::to_vec(projections).unwrap();
    let read: Projections = serde_json::from_slice(&stored).unwrap();
    assert_eq!(&read, projections);
    assert_eq!(serde_json::to_vec(&read).unwrap(), stored);
    read
}

/// The digest after the tail, begun from each position.
fn check_checkpoints(records: &[Arc<Record>], expected: Digest) {
    let mut at = Projections::default();
    for n in 0..=records.len() {
        let mut from = stored_and_read(&at);
        assert_eq!(from.digests(), at.digests());
        assert_eq!(from.position(), Sequence(n as u64));
        for record in &records[n..] {
            from.apply(record).unwrap();
        }
        assert_eq!(from.digest(), expected, "from a checkpoint at {n}");
        if let Some(record) = records.get(n) {
            at.apply(record).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn live_rebuilt_and_from_any_checkpoint_are_the_same(seeds in vec(any::<Seed>(), 0..60)) {
        let history = History::new(&seeds);
        let live = history.log.views().read().clone();
        let records = history.records();
        prop_assert_eq!(&rebuilt(&records), &live);
        prop_assert_eq!(rebuilt(&records).digests(), live.digests());
        check_checkpoints(&records, live.digest());
    }

    #[test]
    fn what_was_applied_before_changes_nothing(
        seeds in vec(any::<Seed>(), 0..60),
        parts in vec((any::<Index>(), any::<Index>()), 1..8),
    ) {
        let records = History::new(&seeds).records();
        let expected = rebuilt(&records);
        let mut projections = Projections::default();
        for (n, record) in records.iter().enumerate() {
            projections.apply(record).unwrap();
            let before = projections.digest();
            for (from, to) in &parts {
                let (from, to) = (from.index(n + 1), to.index(n + 1));
                for again in &records[from.min(to)..=from.max(to)] {
                    projections.apply(again).unwrap();
                }
            }
            prop_assert_eq!(projections.digest(), before);
        }
        prop_assert_eq!(projections, expected);
    }

    #[test]
    fn a_gap_is_refused_and_changes_nothing(seeds in vec(any::<Seed>(), 1..40), at: Index, skip: Index) {
        let records = History::new(&seeds).records();
        let at = at.index(records.len() - 1);
        let next = at + 1 + skip.index(records.len() - at - 1);
        let mut projections = rebuilt(&records[..at]);
        let before = projections.clone();
        let gap = Gap { position: Sequence(at as u64), found: Sequence(next as u64 + 1) };
        prop_assert_eq!(projections.apply(&records[next]), Err(gap));
        prop_assert_eq!(projections, before);
    }

    /// Two states that differ have two digests.
    #[test]
    fn every_record_changes_the_digest(seeds in vec(any::<Seed>(), 1..40)) {
        let mut projections = Projections::default();
        let mut digests = std::collections::HashSet::from([projections.digest()]);
        for record in History::new(&seeds).records() {
            projections.apply(&record).unwrap();
            prop_assert!(digests.insert(projections.digest()));
        }
    }
}
