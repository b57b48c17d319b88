//! The incarnations of the log, and where it begins.

use crate::Projection;
use acta_events::{Epoch, Event, HistoryExpired, Record, Sequence, Timestamp};
use serde::{Deserialize, Serialize};

/// Where an epoch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The last sequence that it shares with its parent.
    pub fork: Sequence,
}

/// Up to where history has expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// The record that says so.
    pub seq: Sequence,
    /// When that was.
    pub at: Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub history: HistoryExpired,
}

/// The epochs of this log, oldest first. A log that was never restored has epoch 1 only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    epochs: Vec<EpochStart>,
    /// The newest epoch has not begun to act upon what the log asks for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_paused: bool,
    /// The beginning is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expired: Option<Expired>,
}

impl Default for Lineage {
    fn default() -> Self {
        Self {
            epochs: vec![EpochStart { epoch: Epoch(1), fork: Sequence::ZERO }],
            is_paused: false,
            expired: None,
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

    /// Up to where history has expired, if any has.
    pub fn expired(&self) -> Option<&Expired> {
        self.expired.as_ref()
    }

    /// The last record that expired; zero if none has.
    pub fn expired_through(&self) -> Sequence {
        self.expired.as_ref().map_or(Sequence::ZERO, |expired| expired.history.through)
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
            Event::HistoryExpired(history) if history.through > self.expired_through() => {
                let (seq, at) = (record.seq(), record.header.time);
                self.expired = Some(Expired { seq, at, history: history.clone() });
            }
            _ => {}
        }
    }
}
