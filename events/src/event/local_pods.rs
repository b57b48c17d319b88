//! Events of the local pod source: what a directory of pods was found to hold.

use crate::ids::{HostId, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the metadata of a local worker says about what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalWorkerStatus {
    /// It is at work on a segment.
    #[serde(rename = "active:segment")]
    Segment,
    /// It is at work, and on no segment yet.
    #[serde(rename = "active:pending_segment")]
    PendingSegment,
    /// There is nothing but its metadata.
    #[serde(rename = "metadata_only")]
    MetadataOnly,
}

impl LocalWorkerStatus {
    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Segment => "active:segment",
            Self::PendingSegment => "active:pending_segment",
            Self::MetadataOnly => "metadata_only",
        }
    }

    /// Whether it is at work.
    pub fn is_active(self) -> bool {
        self != Self::MetadataOnly
    }
}

/// See [`Event::LocalWorkerFound`](super::Event::LocalWorkerFound). The runtime is named in the envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalWorkerFound {
    /// Its id, made from the name of its directory.
    pub worker: WorkerId,
    /// The host that it is seen on.
    pub host: HostId,
    /// For people, from its metadata.
    pub label: String,
    /// For people, from the name of its directory.
    pub hint: String,
    /// Its role, if its manifest names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Its profile, if its manifest names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What it does.
    pub status: LocalWorkerStatus,
}

/// See [`Event::LocalWorkerLost`](super::Event::LocalWorkerLost).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalWorkerLost {
    /// Its id.
    pub worker: WorkerId,
}

/// Whether a directory of pods can be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalPodsState {
    /// It can.
    Available,
    /// None is configured.
    Unavailable,
    /// It cannot be read.
    Unreadable,
}

impl LocalPodsState {
    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Unavailable => "unavailable",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Why something in a directory of pods is no local worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalPodProblem {
    /// There is no metadata that could be read.
    MetadataUnreadable,
    /// The metadata is not what it should be.
    MetadataInvalid,
    /// The metadata names no workspace root.
    WorkspaceRootMissing,
    /// It belongs to another workspace.
    WorkspaceNotVisible,
    /// There are more than are looked at.
    TooMany,
}

/// See [`Event::LocalPodsInspected`](super::Event::LocalPodsInspected).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalPodsInspected {
    /// The host that they are seen on.
    pub host: HostId,
    /// Whether the directory can be looked into.
    pub state: LocalPodsState,
    /// How much of what is in it is no local worker, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub problems: BTreeMap<LocalPodProblem, u64>,
}
