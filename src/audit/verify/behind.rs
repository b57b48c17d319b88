//! Verifying a log whose beginning has expired.
//!
//! Of what expired there are its leaves in the tree and the base. Both are held to the record that
//! says so, which is part of what is signed: what they say of the past is as good as that.

use super::{Kind, Problem, TREE_RECORDS, TreeError, Verification};
use crate::base::{Base, Begin};
use acta_events::{Event, Record, Sequence};
use tlog_tiles::Hash;

/// What a verification knows of the beginning.
#[derive(Debug, Default)]
pub(super) struct Behind {
    begin: Option<Begin>,
    /// A record names the base, rightly or not.
    is_named: bool,
    /// The leaves are not those that the base goes with.
    has_lost_leaves: bool,
}

impl Behind {
    /// Whether nothing can be said of the tree.
    pub(super) fn has_lost_leaves(&self) -> bool {
        self.has_lost_leaves
    }
}

impl Verification {
    /// The next leaf of what expired; all of them come before [`Self::begin_behind`].
    pub fn expired_leaf(&mut self, leaf: Hash) -> Result<(), TreeError> {
        self.tree.push(leaf);
        if self.tree.size() - self.tree_flushed >= TREE_RECORDS {
            self.tree.flush()?;
            self.tree_flushed = self.tree.size();
        }
        Ok(())
    }

    /// Begins behind a base. Nothing was taken in before but the leaves of what expired, as far as they
    /// could be read.
    pub fn begin_behind(&mut self, base: Base) -> Result<(), TreeError> {
        let Base { begin, views } = base;
        self.behind.begin = Some(begin);
        let complete = self.tree.size() == begin.seq.0;
        if !complete || self.tree.root(begin.seq.0)?.0 != begin.root.0 {
            let what = format!(
                "the tree does not hold the leaves of records 1 to {}, which have expired, as the base \
                 has them",
                begin.seq
            );
            self.problem(Problem { kind: Kind::Damaged, first: None, last: None, what });
            self.behind.has_lost_leaves = true;
            // Sequences and leaves go on side by side.
            while self.tree.size() < begin.seq.0 {
                self.expired_leaf(Hash([0; 32]))?;
            }
        }
        self.previous = begin.block;
        self.position = begin.seq;
        self.epoch = begin.epoch;
        self.time = begin.time;
        for state in views.workers.iter() {
            let workers = self.versions.entry(state.runtime.clone()).or_default();
            workers.insert(state.worker.clone(), state.version);
        }
        self.projections = views;
        self.ahead.retain(|position| *position > begin.seq);
        if let Some(index) = &mut self.index {
            index.begin_behind(begin.seq);
        }
        Ok(())
    }

    /// Where the log begins; zero if nothing has expired.
    pub fn begins_behind(&self) -> Sequence {
        self.behind.begin.map_or(Sequence::ZERO, |begin| begin.seq)
    }

    /// Whether no record so far names the base: if history expired only now, it is further on.
    pub fn lacks_base(&self) -> bool {
        self.behind.begin.is_some() && !self.behind.is_named
    }

    /// Holds the base to the record that names it.
    pub(super) fn compare_base(&mut self, record: &Record) {
        let (Some(begin), Event::HistoryExpired(expired)) =
            (self.behind.begin, &record.header.event)
        else {
            return;
        };
        if expired.through != begin.seq || self.behind.is_named {
            return;
        }
        self.behind.is_named = true;
        if (expired.base, expired.root) != (begin.digest, begin.root) {
            let seq = Some(record.seq());
            let what = format!("it names another base of the log at {} than there is", begin.seq);
            let kind = Kind::Contradicted;
            self.problem(Problem { kind, first: seq, last: seq, what });
        }
    }

    /// What is missing at the beginning has to have expired.
    pub(super) fn look_for_base(&mut self) {
        let Some(begin) = self.behind.begin else { return };
        if self.gapless && !self.behind.is_named {
            let what = format!(
                "records 1 to {} are missing, and no record says that they have expired",
                begin.seq
            );
            let (first, last) = (Some(Sequence(1)), Some(begin.seq));
            self.problem(Problem { kind: Kind::Contradicted, first, last, what });
        }
    }
}
