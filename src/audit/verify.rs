//! Verification: reads a log from its first record and believes nothing of it.
//!
//! What is checked, of each block: its own digest and form (by [`Block::decode`], before it comes
//! here), that it follows the one before, sequences, epochs; of each record: that it can be
//! understood, its time, the version of its worker; then the tree over all of it, what was
//! signed, and the projections with their stored checkpoints.

mod behind;
mod erasures;
mod tiles;

pub use erasures::Erasure;
pub(crate) use erasures::Erasures;

use super::{
    checkpoint::SignedCheckpoint,
    proof::leaf_of,
    tree::{Tree, TreeError},
};
use crate::{
    checkpoint::Checkpoints,
    content::ContentStore,
    index::{Comparison, IndexError},
    log::index_entries,
};
use acta_events::{
    ContentBody, Digest, Epoch, LogId, Record, RuntimeId, Sequence, Timestamp, Version, WorkerId,
    block::{Block, genesis},
};
use acta_projections::{Expired, ProjectionDigest, Projections};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};
use tempfile::TempDir;

/// How many problems are told of at most; more are counted.
const PROBLEMS_MAX: usize = 64;
/// How many records the tree keeps in memory.
const TREE_RECORDS: u64 = 1 << 15;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something does not match its own digest, or is missing.
    Damaged,
    /// Something is not what was signed.
    Contradicted,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub kind: Kind,
    /// The first record affected; none if it is about something beside the records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Sequence>,
    /// The last record affected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Sequence>,
    /// What is wrong, for people.
    pub what: String,
}

/// What a signed checkpoint was compared with.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// Which one: `newest` or `earlier`.
    pub which: &'static str,
    /// How many records it covers.
    pub size: u64,
    /// The root that was signed.
    pub root: String,
    /// Whether the log begins with what was signed; none if that much cannot be read.
    pub holds: Option<bool>,
}

/// What a verification found.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The log.
    pub log_id: LogId,
    /// How many records were read.
    pub records: u64,
    /// The last record up to which everything is certainly as it was written.
    pub intact_through: Sequence,
    /// The root over what was read without a gap, in base64, as it stands in checkpoints.
    pub root: String,
    /// The size that the root is of.
    pub size: u64,
    /// Over all projections.
    pub views: Digest,
    /// Each projection.
    pub projections: Vec<ProjectionDigest>,
    /// Stored checkpoints of the projections that were compared.
    pub checkpoints: Vec<Sequence>,
    /// Runs of the index that were compared with the log.
    pub index_runs: u64,
    /// Contents in files of their own that were read.
    pub contents: u64,
    /// What had expired, and by which record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired: Option<Expired>,
    /// Contents that were erased, with who ordered it.
    pub erased: Vec<Erasure>,
    /// How many further ones are not told of.
    pub erased_more: u64,
    /// Records whose content is still there although it was ordered to be erased, the first of them.
    pub not_erased: Vec<Sequence>,
    /// What was signed.
    pub signed: Vec<Held>,
    /// In the order in which they were found.
    pub problems: Vec<Problem>,
    /// How many further problems there are that are not told of.
    pub untold: u64,
}

impl Verdict {
    /// How bad it is; none if all is well.
    pub fn worst(&self) -> Option<Kind> {
        self.problems.iter().map(|problem| problem.kind).max()
    }

    /// The first record that is not as it was written.
    pub fn first_bad(&self) -> Option<Sequence> {
        self.problems.iter().filter_map(|problem| problem.first).min()
    }
}

/// A verification under way. Blocks are given in order; what cannot be read is told of.
pub struct Verification {
    log: LogId,
    previous: Digest,
    position: Sequence,
    epoch: Epoch,
    time: Timestamp,
    records: u64,
    /// Nothing is known to be missing or wrong so far, so tree and projections are complete.
    gapless: bool,
    /// There are few runtimes, and workers without end.
    versions: BTreeMap<RuntimeId, HashMap<WorkerId, Version>>,
    projections: Projections,
    tree: Tree,
    tree_flushed: u64,
    _tree_dir: TempDir,
    stored: Option<Checkpoints>,
    /// Stored checkpoints that are still ahead, the nearest last.
    ahead: Vec<Sequence>,
    compared: Vec<Sequence>,
    index: Option<Comparison>,
    index_runs: u64,
    contents: u64,
    erasures: Erasures,
    behind: behind::Behind,
    problems: Vec<Problem>,
    untold: u64,
}

impl Verification {
    /// Of a log, beside stored checkpoints of its projections if there are any.
    pub fn new(log: LogId, stored: Option<Checkpoints>) -> Result<Self, TreeError> {
        let dir = tempfile::tempdir()?;
        let mut ahead = stored.as_ref().map(Checkpoints::positions).unwrap_or_default();
        ahead.reverse();
        Ok(Self {
            log,
            previous: genesis(log),
            position: Sequence::ZERO,
            epoch: Epoch(0),
            time: Timestamp(i64::MIN),
            records: 0,
            gapless: true,
            versions: BTreeMap::new(),
            projections: Projections::default(),
            tree: Tree::scratch(dir.path())?,
            tree_flushed: 0,
            _tree_dir: dir,
            stored,
            ahead,
            compared: Vec::new(),
            index: None,
            index_runs: 0,
            contents: 0,
            erasures: Erasures::default(),
            behind: behind::Behind::default(),
            problems: Vec::new(),
            untold: 0,
        })
    }

    /// Compares an index with the log, from the next record on, which is the first.
    pub fn beside_index(&mut self, index: Comparison) {
        self.index = Some(index);
    }

    /// How far it has come.
    pub fn position(&self) -> Sequence {
        self.position
    }

    /// Whether nothing is wrong so far.
    pub fn is_intact(&self) -> bool {
        self.problems.is_empty() && self.gapless
    }

    /// Whether contents are erased of which no record so far says by whose order: if they were
    /// only now, it is further on.
    pub fn lacks_orders(&self) -> bool {
        self.erasures.lack_orders()
    }

    /// A content in a file of its own was looked at elsewhere.
    pub fn content_seen(&mut self) {
        self.contents += 1;
    }

    /// A problem that was found elsewhere.
    pub fn problem(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.untold += 1;
        }
    }

    fn damaged(&mut self, first: Sequence, last: Sequence, what: impl Into<String>) {
        let (first, last) = (Some(first), Some(last));
        self.problem(Problem { kind: Kind::Damaged, first, last, what: what.into() });
    }

    /// Records that cannot be read. Reading goes on behind them.
    pub fn unreadable(&mut self, first: Sequence, last: Sequence, why: &str) {
        self.damaged(first, last, format!("damaged or missing: {why}"));
        self.gapless = false;
        self.position = self.position.max(last);
    }

    fn extend(&mut self, next: Sequence) {
        let before = Sequence(next.0 - 1);
        let position = self.position;
        if let Some(last) = self.problems.last_mut().filter(|it| it.last == Some(position)) {
            last.last = Some(before);
        }
        self.position = before;
    }

    /// Takes in a block that matches its own digest. Contents in files are looked at where there
    /// is a place for them.
    pub fn take_in(
        &mut self,
        block: &Block,
        contents: Option<&ContentStore>,
    ) -> Result<(), TreeError> {
        let (first, last) = (block.first(), block.last());
        let next = self.position.next();
        if first > next && self.gapless {
            self.unreadable(next, Sequence(first.0 - 1), "there is no block with them");
        } else if first > next {
            // What could not be read goes up to here.
            self.extend(first);
        }
        let follows = first == self.position.next();
        // Behind a gap the block before it is not known.
        if !follows || (self.gapless && block.previous != self.previous) {
            self.damaged(first, last, "the block does not follow the one before it");
            self.gapless = false;
        }
        if block.epoch < self.epoch {
            self.damaged(first, last, "the block is of an earlier epoch than the one before it");
        }
        self.epoch = block.epoch;
        self.previous = block.digest;
        self.position = last;
        if self.gapless {
            self.tree.push_all(block.records.iter().map(|record| leaf_of(record.digest)));
        }
        for record in &block.records {
            self.records += 1;
            self.look_at(record);
            self.erasures.take_in(record);
            if let (Some(contents), Some(content)) = (contents, &record.content)
                && content.body == ContentBody::File
            {
                self.contents += 1;
                if let Err(error) = contents.read(content.digest, content.len) {
                    self.damaged(record.seq(), record.seq(), error.to_string());
                }
            }
            if self.gapless {
                self.fold(record);
            }
        }
        if self.tree.size() - self.tree_flushed >= TREE_RECORDS {
            self.tree.flush()?;
            self.tree_flushed = self.tree.size();
        }
        Ok(())
    }

    fn look_at(&mut self, record: &Record) {
        let (seq, header) = (record.seq(), &record.header);
        if header.time < self.time {
            self.damaged(seq, seq, "its time is before that of the record in front of it");
        }
        self.time = header.time;
        let (Some(runtime), Some(worker), Some(version)) =
            (&header.runtime, &header.worker, header.version)
        else {
            return;
        };
        let known = self.versions.get_mut(runtime).and_then(|workers| workers.get_mut(worker));
        let before = match known {
            Some(before) => std::mem::replace(before, version),
            None => {
                let workers = self.versions.entry(runtime.clone()).or_default();
                workers.insert(worker.clone(), version);
                Version(0)
            }
        };
        if self.gapless && version.0 != before.0 + 1 {
            let what = format!("it is version {version} of its worker, after {before}");
            self.damaged(seq, seq, what);
        }
    }

    fn fold(&mut self, record: &Record) {
        self.compare_base(record);
        // Sequences were compared, so that there is no gap to be refused.
        if let Err(gap) = self.projections.apply(record) {
            self.damaged(record.seq(), record.seq(), gap.to_string());
        }
        if let Some(index) = &mut self.index {
            let (posting, key) = index_entries(record, &self.projections);
            index.take_in(posting.as_ref(), key.as_ref());
        }
        while self.ahead.last().is_some_and(|position| *position <= record.seq()) {
            let (Some(position), Some(stored)) = (self.ahead.pop(), &self.stored) else { break };
            let wrong = match stored.load(self.log, position) {
                Ok(found) if found.digest() == self.projections.digest() => None,
                Ok(_) => Some("it does not match the log".to_owned()),
                Err(why) => Some(why),
            };
            self.compared.push(position);
            if let Some(why) = wrong {
                let what = format!("the checkpoint of the views at {position}: {why}");
                self.problem(Problem { kind: Kind::Damaged, first: None, last: None, what });
            }
        }
    }

    /// Tells which runs of the index are not of this log, as far as that can be read without a gap. To
    /// be called behind the last block.
    pub fn finish_index(&mut self) -> Result<(), IndexError> {
        let Some(index) = self.index.take() else { return Ok(()) };
        let (compared, misfits) = index.finish(self.projections.position(), self.gapless)?;
        self.index_runs = compared;
        for misfit in misfits {
            let what = format!(
                "the index, its file {} of the records {} to {}: {}. Removing the directory \
                 `index` of the stopped service costs a replay at its next start, and nothing else",
                misfit.file, misfit.first, misfit.last, misfit.what
            );
            self.problem(Problem { kind: Kind::Damaged, first: None, last: None, what });
        }
        Ok(())
    }

    /// What comes in one piece ends with what was signed: whatever is behind that was signed by nobody, and no
    /// order to erase in it counts. To be called behind the last block.
    pub fn ends_with(&mut self, newest: &SignedCheckpoint) {
        let (signed, size) = (newest.size(), self.tree.size());
        if signed >= size {
            return;
        }
        self.erasures.forget_behind(Sequence(signed));
        let what = format!(
            "signed by nobody: the newest checkpoint covers {signed} records, and nothing is ever \
             written behind it"
        );
        let (first, last) = (Some(Sequence(signed + 1)), Some(Sequence(size)));
        self.problem(Problem { kind: Kind::Contradicted, first, last, what });
    }

    /// Compares the log with what was signed, the tiles in a directory with the log, and tells
    /// what came of it all.
    pub fn finish(
        mut self,
        signed: &[(&'static str, SignedCheckpoint)],
        tiles: Option<&Path>,
    ) -> Result<Verdict, TreeError> {
        self.tree.flush()?;
        self.look_for_base();
        if let Some(dir) = tiles {
            let newest = signed.iter().map(|(_, checkpoint)| checkpoint).max_by_key(|it| it.size());
            for problem in tiles::compare(dir, &self.tree, newest)? {
                self.problem(problem);
            }
        }
        let mut held = Vec::new();
        for (which, checkpoint) in signed {
            held.push(self.hold(which, checkpoint)?);
        }
        if self.gapless {
            for position in std::mem::take(&mut self.ahead).into_iter().rev() {
                let what = format!("the checkpoint of the views at {position} is beyond the log");
                self.problem(Problem { kind: Kind::Damaged, first: None, last: None, what });
            }
        }
        let erasures = std::mem::take(&mut self.erasures).finish();
        if self.gapless {
            for (first, last) in erasures.unordered {
                self.damaged(first, last, "erased, but no record says by whose order");
            }
        }
        let size = self.tree.size();
        let first_bad = self.problems.iter().filter_map(|problem| problem.first).min();
        // What contradicts a signature without a place may be anywhere.
        let nowhere = self
            .problems
            .iter()
            .any(|problem| problem.kind == Kind::Contradicted && problem.first.is_none());
        let intact = match first_bad {
            _ if nowhere && first_bad.is_none() => held
                .iter()
                .filter(|held| held.holds == Some(true))
                .map(|held| Sequence(held.size))
                .max()
                .unwrap_or(Sequence::ZERO),
            Some(first) => Sequence(first.0.saturating_sub(1)).min(Sequence(size)),
            None => Sequence(size),
        };
        Ok(Verdict {
            log_id: self.log,
            records: self.records,
            intact_through: intact,
            root: self.tree.root(size)?.to_string(),
            size,
            views: self.projections.digest(),
            projections: self.projections.digests(),
            checkpoints: self.compared,
            index_runs: self.index_runs,
            contents: self.contents,
            expired: self.projections.lineage.expired().cloned(),
            erased: erasures.told,
            erased_more: erasures.more,
            not_erased: erasures.unheeded,
            signed: held,
            problems: self.problems,
            untold: self.untold,
        })
    }

    fn hold(&mut self, which: &'static str, signed: &SignedCheckpoint) -> Result<Held, TreeError> {
        let size = self.tree.size();
        let holds = if self.behind.has_lost_leaves() {
            None
        } else if signed.size() <= size {
            Some(self.tree.root(signed.size())? == signed.root())
        } else if self.gapless {
            Some(false)
        } else {
            None
        };
        if holds == Some(false) {
            let (first, last, what) = if signed.size() > size {
                let what = format!(
                    "missing: the {which} checkpoint was signed over {} records",
                    signed.size()
                );
                (Some(Sequence(size + 1)), Some(Sequence(signed.size())), what)
            } else {
                let what = format!(
                    "the first {} records are not those that were signed in the {which} checkpoint",
                    signed.size()
                );
                (None, None, what)
            };
            self.problem(Problem { kind: Kind::Contradicted, first, last, what });
        }
        let root = signed.root().to_string();
        Ok(Held { which, size: signed.size(), root, holds })
    }
}
