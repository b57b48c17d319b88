//! All workers, by runtime and id.

use crate::{Projection, RunState, WorkerState, WorkerStatus};
use acta_events::{Event, HostId, Record, RuntimeId, Sequence, WorkerId};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

/// How many workers a runtime has, by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCounts {
    /// Neither stopped nor cancelled.
    pub running: u64,
    /// Stopped.
    pub stopped: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Diagnostics of all of them.
    pub diagnostics: u64,
}

impl WorkerCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.running + self.stopped + self.cancelled
    }

    fn of(&mut self, status: WorkerStatus) -> &mut u64 {
        match status {
            WorkerStatus::Running => &mut self.running,
            WorkerStatus::Stopped => &mut self.stopped,
            WorkerStatus::Cancelled => &mut self.cancelled,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct OfRuntime {
    counts: WorkerCounts,
    by_id: BTreeMap<WorkerId, Arc<WorkerState>>,
    by_host: BTreeMap<HostId, BTreeSet<WorkerId>>,
}

/// Workers by runtime, then by id. A state is shared until it changes, so that a copy of the
/// whole projection costs little.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    created: u32,
    by_runtime: BTreeMap<RuntimeId, OfRuntime>,
}

impl Workers {
    /// One worker.
    pub fn get(&self, runtime: &RuntimeId, worker: &WorkerId) -> Option<&Arc<WorkerState>> {
        self.by_runtime.get(runtime)?.by_id.get(worker)
    }

    /// The workers of a runtime with ids after `after`, by id.
    pub fn of<'a>(
        &'a self,
        runtime: &RuntimeId,
        after: Option<&WorkerId>,
    ) -> impl Iterator<Item = &'a Arc<WorkerState>> + use<'a> {
        let from = after.map_or(Unbounded, |id| Excluded(id.as_str()));
        let range =
            self.by_runtime.get(runtime).map(|of| of.by_id.range::<str, _>((from, Unbounded)));
        range.into_iter().flatten().map(|(_, state)| state)
    }

    /// The workers of a runtime on one of its hosts with ids after `after`, by id.
    pub fn of_host<'a>(
        &'a self,
        runtime: &RuntimeId,
        host: &HostId,
        after: Option<&WorkerId>,
    ) -> impl Iterator<Item = &'a Arc<WorkerState>> + use<'a> {
        let from = after.map_or(Unbounded, |id| Excluded(id.as_str()));
        let of = self.by_runtime.get(runtime);
        let here = of.and_then(|of| Some((of, of.by_host.get(host)?)));
        let range = here.map(|(of, ids)| {
            ids.range::<str, _>((from, Unbounded)).filter_map(|id| of.by_id.get(id))
        });
        range.into_iter().flatten()
    }

    /// All workers of all runtimes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<WorkerState>> {
        self.by_runtime.values().flat_map(|of| of.by_id.values())
    }

    /// How many workers a runtime has.
    pub fn counts(&self, runtime: &RuntimeId) -> WorkerCounts {
        self.by_runtime.get(runtime).map(|of| of.counts).unwrap_or_default()
    }

    /// How many workers were ever created, in all runtimes.
    pub fn created(&self) -> u32 {
        self.created
    }
}

impl Projection for Workers {
    const NAME: &'static str = "workers";

    fn fold(&mut self, record: &Record) {
        let header = &record.header;
        let (Some(runtime), Some(worker)) = (&header.runtime, &header.worker) else { return };
        if let Event::WorkerCreated(_) = &header.event {
            let ordinal = self.created;
            let Some(state) = WorkerState::create(record, ordinal) else { return };
            let of = self.by_runtime.entry(runtime.clone()).or_default();
            let host = state.spec.host.clone();
            if let Some(before) = of.by_id.insert(worker.clone(), Arc::new(state)) {
                *of.counts.of(before.status) -= 1;
                let host = before.spec.host.as_ref();
                if let Some(ids) = host.and_then(|host| of.by_host.get_mut(host)) {
                    ids.remove(worker);
                }
            }
            if let Some(host) = host {
                of.by_host.entry(host).or_default().insert(worker.clone());
            }
            of.counts.running += 1;
            self.created = self.created.saturating_add(1);
            return;
        }
        let Some(of) = self.by_runtime.get_mut(runtime) else { return };
        let Some(state) = of.by_id.get_mut(worker) else { return };
        let state = Arc::make_mut(state);
        let before = state.status;
        state.apply(record);
        if state.status != before {
            *of.counts.of(before) -= 1;
            *of.counts.of(state.status) += 1;
        }
        if matches!(header.event, Event::WorkerDiagnosed(_)) {
            of.counts.diagnostics += 1;
        }
    }
}

impl WorkerState {
    /// Whether it has work in hand.
    pub fn is_busy(&self) -> bool {
        self.run_state() == RunState::Busy
    }

    /// The sequence of its creation.
    pub fn created_seq(&self) -> Sequence {
        self.spec.seq
    }
}
