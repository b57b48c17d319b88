//! Projections take whatever the log holds, including what no decision of ours leads to.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../events/tests/support/mod.rs"]
mod support;

use acta_events::*;
use acta_projections::{Gap, Projections};
use proptest::{collection::vec, option, prelude::*, sample::Index};

/// Records 1, 2, 3 … of a few workers in a few runtimes, with any events and numbers.
fn log() -> impl Strategy<Value = Vec<Record>> {
    let event = prop_oneof![3 => support::worker_event(), 1 => support::event()];
    let about = (
        option::weighted(0.95, prop_oneof![5 => Just(0), 1 => Just(1_u8)]),
        option::weighted(0.95, 0..2_u8),
    );
    let version = option::weighted(0.8, prop_oneof![Just(u64::MAX), 0..9_u64]);
    let one = (support::header(), event, about, version, option::of(support::content()));
    vec(one, 0..100).prop_map(|all| {
        (1..)
            .zip(all)
            .map(|(seq, (header, event, (runtime, worker), version, content))| {
                let header = Header {
                    seq: Sequence(seq),
                    runtime: runtime
                        .map(|n| RuntimeId::parse(["r0", "external"][usize::from(n)]).unwrap()),
                    worker: worker.map(|n| WorkerId::parse(&format!("w{n}")).unwrap()),
                    version: version.map(Version),
                    event,
                    ..header
                };
                Record::new(header, content).unwrap()
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_record_is_fine(records in log()) {
        let mut projections = Projections::default();
        for record in &records {
            projections.apply(record).unwrap();
            prop_assert_eq!(projections.position(), record.seq());
        }
        for part in projections.digests() {
            prop_assert_eq!(part.position, projections.position(), "{}", part.name);
        }
        // What a state is made of can always be stored, or its digest would be of nothing.
        let stored = serde_json::to_vec(&projections).unwrap();
        let read: Projections = serde_json::from_slice(&stored).unwrap();
        prop_assert_eq!(read.digests(), projections.digests());
        prop_assert_eq!(&read, &projections);
        // The counts are those of the workers that are there.
        for runtime in ["r0", "external"].map(|id| RuntimeId::parse(id).unwrap()) {
            let counts = projections.workers.counts(&runtime);
            prop_assert_eq!(counts.total(), projections.workers.of(&runtime, None).count() as u64);
        }
        for record in &records {
            projections.apply(record).unwrap();
        }
        prop_assert_eq!(projections, read);
    }

    #[test]
    fn a_gap_is_refused_by_each(records in log(), missing: Index) {
        if records.len() < 2 {
            return Ok(());
        }
        let missing = missing.index(records.len() - 1);
        let mut projections = Projections::default();
        for record in &records[..missing] {
            projections.apply(record).unwrap();
        }
        let before = projections.clone();
        let found = records[missing + 1].seq();
        let gap = Gap { position: projections.position(), found };
        prop_assert_eq!(projections.apply(&records[missing + 1]), Err(gap));
        prop_assert_eq!(projections, before);
    }
}

#[test]
fn the_digest_knows_the_position() {
    let stopped = |seq| {
        let header = Header {
            seq: Sequence(seq),
            id: uuid::Uuid::nil(),
            time: Timestamp(0),
            runtime: None,
            worker: None,
            version: None,
            actor: Actor::service(),
            command: None,
            trace: None,
            event: RuntimeStopped {}.into(),
        };
        Record::new(header, None).unwrap()
    };
    let mut projections = Projections::default();
    let before = projections.workers.digest();
    projections.apply(&stopped(1)).unwrap();
    assert_ne!(projections.workers.digest(), before);
}
