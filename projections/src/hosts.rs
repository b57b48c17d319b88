//! Hosts.

use crate::{Projection, remote_host};
use acta_events::{Event, HostCapabilities, HostId, Record, RuntimeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

/// Whether a host is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostStatus {
    /// It is.
    Online,
    /// Nothing was heard of it for longer than its lease.
    Lost,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostState {
    /// The runtime it belongs to.
    pub runtime: RuntimeId,
    /// Such as `embedded-worker-runtime-host`.
    pub kind: String,
    /// For people.
    pub label: String,
    /// Whether it is there.
    pub status: HostStatus,
    /// What it has to offer.
    pub capabilities: HostCapabilities,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// When it was last heard of, as far as the log knows.
    pub last_seen_at: Timestamp,
}

/// Hosts by id, and their ids by runtime. A state is shared until it changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hosts {
    by_id: BTreeMap<HostId, Arc<HostState>>,
    by_runtime: BTreeMap<RuntimeId, BTreeSet<HostId>>,
}

impl Hosts {
    /// One host.
    pub fn get(&self, id: &HostId) -> Option<&HostState> {
        self.by_id.get(id).map(|state| &**state)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&HostId, &HostState)> {
        self.by_id.iter().map(|(id, state)| (id, &**state))
    }

    /// Those with ids after `after`, by id.
    pub fn after<'a>(
        &'a self,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a HostId, &'a HostState)> + use<'a> {
        let range = self.by_id.range::<str, _>((after.map_or(Unbounded, Excluded), Unbounded));
        range.map(|(id, state)| (id, &**state))
    }

    /// The hosts of a runtime, by id.
    pub fn of<'a>(&'a self, runtime: &RuntimeId) -> impl Iterator<Item = &'a HostId> + use<'a> {
        self.by_runtime.get(runtime).into_iter().flatten()
    }

    /// How many hosts a runtime has.
    pub fn count(&self, runtime: &RuntimeId) -> usize {
        self.by_runtime.get(runtime).map_or(0, BTreeSet::len)
    }

    fn change(&mut self, id: &HostId, change: impl FnOnce(&mut HostState)) {
        if let Some(state) = self.by_id.get_mut(id) {
            change(Arc::make_mut(state));
        }
    }
}

impl Projection for Hosts {
    const NAME: &'static str = "hosts";

    fn fold(&mut self, record: &Record) {
        let Some(runtime) = &record.header.runtime else { return };
        let now = record.header.time;
        match &record.header.event {
            Event::HostRegistered(registered) => {
                let state = HostState {
                    runtime: runtime.clone(),
                    kind: registered.kind.clone(),
                    label: registered.label.clone(),
                    status: HostStatus::Online,
                    capabilities: registered.capabilities.clone(),
                    registered_at: now,
                    last_seen_at: now,
                };
                let id = &registered.host;
                if let Some(before) = self.by_id.insert(id.clone(), Arc::new(state))
                    && let Some(hosts) = self.by_runtime.get_mut(&before.runtime)
                {
                    hosts.remove(id);
                }
                self.by_runtime.entry(runtime.clone()).or_default().insert(id.clone());
            }
            Event::RemoteRuntimeRegistered(registered) => {
                let id = remote_host(runtime);
                let before = self.by_id.get(&id).map(|before| before.registered_at);
                let state = HostState {
                    runtime: runtime.clone(),
                    kind: "remote-http-host".into(),
                    label: registered.label.clone(),
                    status: HostStatus::Online,
                    capabilities: HostCapabilities::default(),
                    registered_at: before.unwrap_or(now),
                    last_seen_at: now,
                };
                self.by_id.insert(id.clone(), Arc::new(state));
                self.by_runtime.entry(runtime.clone()).or_default().insert(id);
            }
            Event::RuntimeRetired(_) => {
                for id in self.by_runtime.remove(runtime).into_iter().flatten() {
                    self.by_id.remove(&id);
                }
            }
            Event::HostUpdated(updated) => self.change(&updated.host, |state| {
                state.label.clone_from(&updated.label);
                state.capabilities.clone_from(&updated.capabilities);
                state.last_seen_at = now;
            }),
            Event::HostLost(lost) => self.change(&lost.host, |state| {
                state.status = HostStatus::Lost;
                state.last_seen_at = lost.last_seen_at.map_or(state.last_seen_at, |seen| {
                    // What a clock says that was set back is not believed.
                    seen.max(state.last_seen_at)
                });
            }),
            Event::HostFound(found) => self.change(&found.host, |state| {
                state.status = HostStatus::Online;
                state.last_seen_at = now;
            }),
            _ => {}
        }
    }
}
