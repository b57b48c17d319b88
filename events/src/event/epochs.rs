//! Events of epochs: where this incarnation of the log began, and when it began to act.

use crate::{
    Digest,
    ids::{Epoch, Sequence},
};
use serde::{Deserialize, Serialize};

/// See [`Event::LogForked`](super::Event::LogForked).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogForked {
    /// The epoch that begins with this record.
    pub epoch: Epoch,
    /// The epoch that it continues.
    pub parent: Epoch,
    /// The last sequence that both share.
    pub fork: Sequence,
    /// The record digest at the fork.
    pub digest: Digest,
    /// The root of the Merkle tree over what both share; none in records of version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Digest>,
}

/// Version 1, which had no root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogForkedV1 {
    /// The epoch that begins with this record.
    pub epoch: Epoch,
    /// The epoch that it continues.
    pub parent: Epoch,
    /// The last sequence that both share.
    pub fork: Sequence,
    /// The record digest at the fork.
    pub digest: Digest,
}

impl From<LogForkedV1> for LogForked {
    fn from(old: LogForkedV1) -> Self {
        let LogForkedV1 { epoch, parent, fork, digest } = old;
        Self { epoch, parent, fork, digest, root: None }
    }
}

/// See [`Event::DispatchResumed`](super::Event::DispatchResumed).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DispatchResumed {
    /// The epoch in which the service acts from now on.
    pub epoch: Epoch,
}
