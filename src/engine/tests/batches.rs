//! Deciding in batches is deciding one at a time, only sooner.

use super::history::{Drive, History, Seed, records};
use acta_events::{Digest, Sequence, Version, WorkerId};
use proptest::{collection::vec, prelude::*};
use std::collections::HashMap;

/// Where two sequences differ first, with what is there.
fn assert_same<T: PartialEq + std::fmt::Debug>(made: &[T], expected: &[T]) {
    for (n, (made, expected)) in made.iter().zip(expected).enumerate() {
        assert_eq!(made, expected, "at {n}");
    }
    assert_eq!(made.len(), expected.len());
}

fn shown(log: &crate::log::Log) -> Vec<(String, Digest)> {
    let shown = |record: &acta_events::Record| {
        (String::from_utf8_lossy(&record.json).into_owned(), record.digest)
    };
    records(log).iter().map(|record| shown(record)).collect()
}

fn decide_in_batches(history: &History, steps: &[u8]) {
    let mut drive = Drive::new();
    for (n, request) in history.requests.iter().enumerate() {
        drive.submit(n, request.clone());
        match steps.get(n % steps.len().max(1)).copied().unwrap_or(0) {
            0..120 => {}
            120..180 => drive.hand_over(),
            180..225 => drive.commit(),
            _ => drive.refuse(),
        }
    }
    let (log, answers) = drive.finish();
    assert_same(&shown(&log), &shown(&history.log));
    assert_same(&answers, &history.answers);
    assert_eq!(log.views().read().digests(), history.log.views().read().digests());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Records, answers and views do not depend on what was decided together, on when it
    /// became durable, or on what was refused and decided again.
    #[test]
    fn batches_change_nothing(
        seeds in vec(any::<Seed>(), 0..120),
        steps in vec(any::<u8>(), 1..60),
    ) {
        decide_in_batches(&History::new(&seeds), &steps);
    }

    #[test]
    fn sequences_and_versions_have_no_gap_and_time_never_goes_back(
        seeds in vec(any::<Seed>(), 0..150),
    ) {
        let records = History::new(&seeds).records();
        let mut versions: HashMap<WorkerId, Version> = HashMap::new();
        for (n, record) in (1..).zip(&records) {
            let header = &record.header;
            prop_assert_eq!(header.seq, Sequence(n));
            if n > 1 {
                let before = &records[n as usize - 2].header;
                prop_assert!(header.time >= before.time);
                prop_assert_ne!(header.id, before.id);
            }
            prop_assert_eq!(header.worker.is_some(), header.version.is_some());
            if let Some(worker) = &header.worker {
                let version = versions.entry(worker.clone()).or_default();
                *version = version.next();
                prop_assert_eq!(header.version, Some(*version));
            }
        }
    }
}

/// A generator whose commands were all refused would make every property hold.
#[test]
fn histories_have_a_bit_of_everything() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut kinds = std::collections::HashSet::new();
    let mut answers = String::new();
    for _ in 0..150 {
        let seeds = vec(any::<Seed>(), 120).new_tree(&mut runner).unwrap().current();
        let history = History::new(&seeds);
        kinds.extend(history.records().iter().map(|record| record.header.event.name()));
        answers.extend(history.answers);
    }
    let missing: Vec<_> = acta_events::Event::KINDS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| {
            !matches!(*name, "log_forked" | "dispatch_resumed" | "history_expired")
                && !kinds.contains(name)
        })
        .collect();
    assert!(missing.is_empty(), "never recorded: {missing:?}");
    for code in [
        "worker_not_found",
        "runtime_stopped",
        "worker_execution_unavailable",
        "version_conflict",
        "worker_execution_rejected",
        "idempotency_key_reused",
        "invalid_request",
        "unknown_token",
        "unknown_worker",
        "unknown_runtime",
        "config_bundle_missing",
        "invalid_profile_selector",
        "config_bundle_digest_mismatch",
        "nothing_to_redact",
        "input_pending",
    ] {
        assert!(answers.contains(&format!("({code})")), "never refused with {code}");
    }
    assert!(answers.contains(" true "), "nothing was ever replayed");
    assert!(answers.contains("unchanged"));
}
