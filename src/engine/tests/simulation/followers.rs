//! Observers: each has a cursor and nothing else when its service ends.

use super::super::history::worker;
use crate::{
    feed::{Filter, Follower, cursor_at, resolve},
    log::Log,
};
use acta_events::{Record, Sequence};
use std::sync::Arc;

/// One observer, with all that it was shown.
pub(super) struct Watcher {
    filter: Filter,
    log: Arc<Log>,
    follower: Follower,
    cursor: String,
    seen: Vec<u64>,
}

/// Observers of the whole log, of one type, of a runtime, and of a worker.
pub(super) fn all(log: &Arc<Log>) -> Vec<Watcher> {
    let of_type = vec!["worker_output".to_owned(), "cursor_committed".to_owned()];
    let one = worker(0);
    let filters = [
        Filter { watching: true, ..Filter::default() },
        Filter { types: of_type, ..Filter::default() },
        Filter { runtime: Some(one.runtime_id.clone()), ..Filter::default() },
        Filter { runtime: Some(one.runtime_id), worker: Some(one.worker_id), ..Filter::default() },
    ];
    let watcher = |filter: Filter| Watcher {
        log: Arc::clone(log),
        follower: Follower::new(Arc::clone(log), filter.clone(), None, Sequence::ZERO),
        filter,
        cursor: String::new(),
        seen: Vec::new(),
    };
    filters.into_iter().map(watcher).collect()
}

impl Watcher {
    /// Comes back with its cursor.
    pub(super) async fn resume(&mut self, log: &Arc<Log>) {
        let mut after = Sequence::ZERO;
        if !self.cursor.is_empty() {
            let resume = resolve(log, &self.cursor).await.expect("it was given out");
            assert!(!resume.epoch_changed);
            after = resume.after;
        }
        // A follower of one worker reads that worker's records only, where it is known.
        let ordinal = self.filter.worker.as_ref().and_then(|worker| {
            let runtime = self.filter.runtime.as_ref()?;
            log.views().worker(runtime, worker).map(|state| state.ordinal)
        });
        self.follower = Follower::new(Arc::clone(log), self.filter.clone(), ordinal, after);
        self.log = Arc::clone(log);
    }

    pub(super) async fn read(&mut self, limit: usize) {
        let head = self.follower.head();
        let records = self.follower.read_through(head, limit).await.unwrap();
        for logged in &records {
            let seq = logged.record.seq();
            assert!(seq <= head, "{seq} is shown before it is durable");
            assert!(self.seen.last().is_none_or(|last| *last < seq.0), "{seq} is shown again");
            self.seen.push(seq.0);
        }
        let cursor = cursor_at(&self.log, self.follower.position()).await.unwrap();
        self.cursor = cursor.expect("what was looked at is durable").to_string();
    }

    pub(super) async fn catch_up(&mut self) {
        while !self.follower.caught_up() {
            self.read(64).await;
        }
    }

    /// It was shown all of what it wanted, and nothing else.
    pub(super) fn check(&self, records: &[Arc<Record>]) {
        let wanted = records.iter().filter(|record| self.filter.wants(record));
        let wanted: Vec<u64> = wanted.map(|record| record.seq().0).collect();
        assert_eq!(self.seen, wanted, "{:?}", self.filter);
    }
}
