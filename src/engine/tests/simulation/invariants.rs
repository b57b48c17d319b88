//! What holds after each step.

use super::{World, dispatch};
use crate::{
    command::{Ack, Answer},
    engine::tests::history::{rebuilt, records},
};
use acta_events::{Record, Sequence, WorkerId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

impl World {
    /// Whoever hears of a record finds it, then and for ever.
    pub(super) fn check_answer(&mut self, answer: &Answer) {
        match answer {
            Ok(Ack::Recorded { first, .. }) => {
                assert!(first.seq() <= self.log.head(), "acknowledged before it was durable");
                self.acknowledged.insert(first.seq().0, first.digest);
            }
            Ok(Ack::Repeated { seq }) => assert!(*seq <= self.log.head()),
            Ok(Ack::Unchanged { .. }) | Err(_) => {}
        }
    }

    /// What holds whenever something may have become durable.
    pub(super) fn check(&self) {
        let records = records(&self.log);
        assert_eq!(self.log.head().0, records.len() as u64, "all that is durable is shown");
        let views = self.log.views().read();
        assert_eq!(views.position(), self.log.head());
        assert_eq!(views.digests(), rebuilt(&records).digests(), "the views are a fold");
        drop(views);
        for (seq, digest) in &self.acknowledged {
            let found = records.get(*seq as usize - 1).map(|record| record.digest);
            assert_eq!(found, Some(*digest), "{seq} was acknowledged");
        }
        check_order(&records);
        check_keys(&records);
        dispatch::check(&records, &self.machine);
    }
}

/// Sequences and versions without a gap, time that never goes back.
fn check_order(records: &[Arc<Record>]) {
    let mut versions: BTreeMap<&WorkerId, u64> = BTreeMap::new();
    for (n, record) in (1..).zip(records) {
        assert_eq!(record.seq(), Sequence(n));
        if let Some(before) = n.checked_sub(2).map(|at| &records[at as usize]) {
            assert!(before.header.time <= record.header.time, "time goes back at {n}");
        }
        if let (Some(worker), Some(version)) = (&record.header.worker, record.header.version) {
            let last = versions.entry(worker).or_default();
            *last += 1;
            assert_eq!(version.0, *last, "the version of {worker} at {n}");
        }
    }
}

/// A key is used once by each actor.
fn check_keys(records: &[Arc<Record>]) {
    let mut used = BTreeSet::new();
    for record in records {
        if let Some(command) = &record.header.command {
            let key = (record.header.actor.as_str(), command.key.as_str());
            assert!(used.insert(key), "{key:?} is used twice");
        }
    }
}
