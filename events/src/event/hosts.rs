//! Events of hosts: the machines that workers run on, and whether they are there.

use crate::{ids::HostId, time::Timestamp};
use serde::{Deserialize, Serialize};

/// What a host has to offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCapabilities {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Processor architecture, such as `x86_64`.
    pub arch: String,
    /// Whether its workers see the files of a workspace.
    #[serde(default)]
    pub has_workspace_fs: bool,
    /// Whether its workers have a shell.
    #[serde(default)]
    pub has_shell: bool,
    /// Whether its workers have git.
    #[serde(default)]
    pub has_git: bool,
    /// Whether its workers can have a worktree each.
    #[serde(default)]
    pub supports_worktrees: bool,
    /// How many workers it runs at most, where it has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_workers: Option<u64>,
}

impl HostCapabilities {
    /// Of a host that has told nothing but what kind of machine it is.
    pub fn of_machine(os: impl Into<String>, arch: impl Into<String>) -> Self {
        Self { os: os.into(), arch: arch.into(), ..Self::default() }
    }
}

/// See [`Event::HostRegistered`](super::Event::HostRegistered). The runtime is named in the envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostRegistered {
    /// The host.
    pub host: HostId,
    /// Such as `embedded-worker-runtime-host`.
    pub kind: String,
    /// For people.
    pub label: String,
    /// What it has to offer.
    pub capabilities: HostCapabilities,
}

/// See [`Event::HostUpdated`](super::Event::HostUpdated).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostUpdated {
    /// The host.
    pub host: HostId,
    /// For people.
    pub label: String,
    /// What it has to offer from now on.
    pub capabilities: HostCapabilities,
}

/// See [`Event::HostLost`](super::Event::HostLost).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostLost {
    /// The host.
    pub host: HostId,
    /// When it was last heard of, if that was since the service started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
}

/// See [`Event::HostFound`](super::Event::HostFound).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostFound {
    /// The host.
    pub host: HostId,
}

/// Version 1 of [`HostRegistered`], frozen.
#[derive(Deserialize)]
pub(super) struct HostRegisteredV1 {
    host: HostId,
    kind: String,
    label: String,
    os: String,
    arch: String,
}

impl From<HostRegisteredV1> for HostRegistered {
    fn from(old: HostRegisteredV1) -> Self {
        let HostRegisteredV1 { host, kind, label, os, arch } = old;
        Self { host, kind, label, capabilities: HostCapabilities::of_machine(os, arch) }
    }
}

/// Version 1 of [`HostUpdated`], frozen.
#[derive(Deserialize)]
pub(super) struct HostUpdatedV1 {
    host: HostId,
    label: String,
    os: String,
    arch: String,
}

impl From<HostUpdatedV1> for HostUpdated {
    fn from(old: HostUpdatedV1) -> Self {
        let HostUpdatedV1 { host, label, os, arch } = old;
        Self { host, label, capabilities: HostCapabilities::of_machine(os, arch) }
    }
}
