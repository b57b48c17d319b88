//! Observers: each has a cursor and nothing else when its service ends.

use super::super::history::worker;
use crate::{
    feed::{CursorProblem, Filter, Follower, cursor_at, resolve},
    log::Log,
};
use acta_events::{Digest, Record, Sequence, cursor::Cursor};
use std::sync::Arc;

/// One observer, with all that it was shown.
pub(super) struct Watcher {
    filter: Filter,
    log: Arc<Log>,
    follower: Follower,
    cursor: String,
    seen: Vec<(u64, Digest)>,
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
        let after = self.position_in(log).await;
        // A follower of one worker reads that worker's records only, where it is known.
        let ordinal = self.filter.worker.as_ref().and_then(|worker| {
            let runtime = self.filter.runtime.as_ref()?;
            log.views().worker(runtime, worker).map(|state| state.ordinal)
        });
        self.follower = Follower::new(Arc::clone(log), self.filter.clone(), ordinal, after);
        self.log = Arc::clone(log);
    }

    /// Where it goes on: behind what it has seen, or, where that is not what the log has any more, as
    /// far back as it is told to.
    async fn position_in(&mut self, log: &Arc<Log>) -> Sequence {
        if self.cursor.is_empty() {
            return Sequence::ZERO;
        }
        let lineage = log.views().read().lineage.clone();
        let cursor: Cursor = self.cursor.parse().unwrap();
        let (resume, cursor) = match resolve(log, &self.cursor).await {
            Ok(resume) => (resume, cursor),
            Err(CursorProblem::Diverged { back: Some((fork, back)) }) => {
                assert!(cursor.epoch < lineage.current() && cursor.seq > fork, "{cursor} {fork}");
                assert_eq!(back.seq, fork);
                self.seen.retain(|(seq, _)| *seq <= fork.0);
                (resolve(log, &back.to_string()).await.expect("it is where both agree"), back)
            }
            // A restore to before the fork that its epoch began with: begin again.
            Err(CursorProblem::Diverged { back: None }) => {
                assert!(!lineage.contains(cursor.epoch), "{cursor}");
                self.seen.clear();
                self.cursor.clear();
                return Sequence::ZERO;
            }
            Err(problem) => panic!("{problem}"),
        };
        assert_eq!(resume.after, cursor.seq);
        assert_eq!(resume.epoch_changed, cursor.epoch < lineage.current(), "{cursor}");
        self.cursor = cursor.to_string();
        resume.after
    }

    pub(super) async fn read(&mut self, limit: usize) {
        let head = self.follower.head();
        let records = self.follower.read_through(head, limit).await.unwrap();
        for logged in &records {
            let seq = logged.record.seq();
            assert!(seq <= head, "{seq} is shown before it is durable");
            let is_news = self.seen.last().is_none_or(|(last, _)| *last < seq.0);
            assert!(is_news, "{seq} is shown again");
            self.seen.push((seq.0, logged.record.digest));
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
        let wanted: Vec<_> = wanted.map(|record| (record.seq().0, record.digest)).collect();
        assert_eq!(self.seen, wanted, "{:?}", self.filter);
    }
}
