//! The incarnations of the log.

use crate::Projection;
use acta_events::{Epoch, Event, Record, Sequence};
use serde::{Deserialize, Serialize};

/// Where an epoch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The last sequence that it shares with its parent.
    pub fork: Sequence,
}

/// The epochs of this log, oldest first. A log that was never restored has epoch 1 only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    epochs: Vec<EpochStart>,
    /// The newest epoch has not begun to act upon what the log asks for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_paused: bool,
}

impl Default for Lineage {
    fn default() -> Self {
        Self {
            epochs: vec![EpochStart { epoch: Epoch(1), fork: Sequence::ZERO }],
            is_paused: false,
        }
    }
}

impl Lineage {
    /// The epoch that is being written.
    pub fn current(&self) -> Epoch {
        self.epochs.last().map_or(Epoch(1), |start| start.epoch)
    }

    /// Whether what the log asks for waits for an operator: since a fork, whoever went on with the
    /// parent may have done it.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The epochs, oldest first.
    pub fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    /// Whether this log ever had that epoch.
    pub fn contains(&self, epoch: Epoch) -> bool {
        self.epochs.iter().any(|start| start.epoch == epoch)
    }

    /// The last sequence of `epoch` that is still part of this log: where the first epoch
    /// after it forked off. None for the current epoch.
    pub fn ended_at(&self, epoch: Epoch) -> Option<Sequence> {
        self.epochs.iter().filter(|start| start.epoch > epoch).map(|start| start.fork).min()
    }

    /// The epoch in which a record was written.
    pub fn epoch_of(&self, seq: Sequence) -> Epoch {
        self.epochs
            .iter()
            .rev()
            .find(|start| start.fork < seq)
            .map_or(Epoch(1), |start| start.epoch)
    }
}

impl Projection for Lineage {
    const NAME: &'static str = "lineage";

    fn fold(&mut self, record: &Record) {
        match &record.header.event {
            Event::LogForked(forked) => {
                self.epochs.push(EpochStart { epoch: forked.epoch, fork: forked.fork });
                self.is_paused = true;
            }
            Event::DispatchResumed(_) => self.is_paused = false,
            _ => {}
        }
    }
}
