//! Crashes and restarts; snapshots and restores: the log up to a moment on another disk, in a new
//! epoch.

use super::{
    World,
    dispatch::{self, Dispatch},
    open,
};
use crate::{
    command::{Command, Request},
    engine::{
        core::{Batch, Core, LogEnd},
        offline::record_at,
        tests::{
            faulty::{Fate, Faulty},
            history::{LOG, moment, records, text},
        },
    },
    journal::ReadLimits,
    snapshot::kept_through,
};
use acta_events::{
    Epoch, LogForked, Sequence,
    block::{Block, BlockBuilder},
};
use rand::Rng as _;
use std::sync::Arc;

/// Snapshots that are kept.
const KEPT: usize = 3;

/// What a snapshot holds, as far as this world has it: blocks, and the epoch they end in.
pub(super) struct Snapshot {
    epoch: Epoch,
    through: Sequence,
    blocks: Vec<Arc<Block>>,
}

impl World {
    /// The process ends: with what it had in memory, and perhaps in the middle of a write. It
    /// starts again upon what the disk has.
    pub(super) async fn crash(&mut self) {
        if self.at_rest {
            return;
        }
        self.note("crash".into());
        self.dispatch.kill(&self.machine).await;
        self.lose_what_is_under_way();
        self.log.journal().recover().unwrap();
        self.begin().await;
    }

    /// What was decided and not answered, and perhaps a write in the middle of which it ends.
    fn lose_what_is_under_way(&mut self) {
        let mut lost: Vec<usize> = Vec::new();
        if let Some(Batch { after, blocks, decided }) = self.in_flight.take() {
            let encoded: Vec<_> = blocks.into_iter().map(|(_, encoded)| encoded).collect();
            if !encoded.is_empty() && self.heads(60) {
                let blocks_written = self.dice.random_range(0..=encoded.len());
                self.disk.once(Fate::Unknown { blocks_written });
                drop(self.log.journal().append(after, &encoded));
            }
            lost.extend(decided.iter().map(|decided| decided.submission.reply));
        }
        lost.extend(self.core.take_batch().decided.iter().map(|decided| decided.submission.reply));
        lost.extend(self.backlog.drain(..).map(|submission| submission.reply));
        for n in lost {
            self.lost(n, false);
        }
    }

    /// A service starts upon what the disk has, and everybody comes back.
    async fn begin(&mut self) {
        (self.log, self.core) = open(&self.disk);
        for watcher in &mut self.watchers {
            watcher.resume(&self.log).await;
        }
        self.dispatch = Dispatch::start(&self.log, &self.machine);
        self.check();
    }

    /// While the service runs: everything that is durable.
    pub(super) fn take_snapshot(&mut self) {
        let through = self.log.head();
        let limits = ReadLimits { blocks: usize::MAX, bytes: usize::MAX };
        let blocks = self.log.journal().read(Sequence::ZERO, limits).unwrap();
        assert_eq!(blocks.last().map_or(Sequence::ZERO, |block| block.last()), through);
        let epoch = self.log.views().read().lineage.current();
        if self.snapshots.len() == KEPT {
            self.snapshots.remove(0);
        }
        self.snapshots.push(Snapshot { epoch, through, blocks });
    }

    /// The service ends for good; what a snapshot has up to some record goes on elsewhere.
    pub(super) async fn restore(&mut self) {
        if self.at_rest || self.snapshots.is_empty() {
            return;
        }
        self.dispatch.kill(&self.machine).await;
        self.lose_what_is_under_way();
        let which = self.dice.random_range(0..self.snapshots.len());
        let snapshot = self.snapshots.swap_remove(which);
        // Each of the others, restored as well, would be another log of the same epoch.
        self.snapshots.clear();
        let cut = Sequence(self.dice.random_range(self.setting..=snapshot.through.0));
        self.note(format!(
            "restore up to {cut} of {} in epoch {}",
            snapshot.through, snapshot.epoch
        ));
        let disk = Faulty::new(LOG);
        let (log, _) = open(&disk);
        for block in &snapshot.blocks {
            let (block, bytes) = encoded(block);
            if let Some((block, encoded)) = kept_through(block, bytes, cut) {
                log.journal().append(log.head(), &[encoded]).unwrap();
                log.publish([&*block]).unwrap();
            }
        }
        assert_eq!(log.head(), cut, "all of it, and no more");
        let (end, digest) = (log.end(), log.views().read().tip.digest.unwrap());
        let epoch = snapshot.epoch.next();
        let forked = LogForked { epoch, parent: end.epoch, fork: end.seq, digest, root: None };
        let end = LogEnd { epoch, ..end };
        let mut core = Core::new(Arc::clone(log.views()), Arc::clone(log.index()), end);
        let fork = Request::service(Command::ForkLog { forked, reason: Some(text("a trial")) });
        let at = moment(self.requests.len());
        self.requests.push(fork.clone());
        record_at(&log, &mut core, fork, at).unwrap().unwrap();
        self.machine.replaced(dispatch::dispatched(&records(&log)));
        drop((core, log));
        self.disk = disk;
        self.acknowledged.retain(|seq, _| *seq <= cut.0);
        self.begin().await;
    }

    /// An operator lets a restored service act.
    pub(super) fn resume_dispatch(&mut self) {
        if self.log.views().read().lineage.is_paused() {
            self.give(Request::service(Command::ResumeDispatch));
        }
    }
}

fn encoded(block: &Block) -> (Block, bytes::Bytes) {
    let mut builder = BlockBuilder::new(block.epoch, block.previous);
    block.records.iter().for_each(|record| builder.push(Arc::clone(record)));
    let (again, bytes) = builder.finish().expect("no block is empty");
    assert_eq!(again.digest, block.digest);
    (again, bytes)
}
