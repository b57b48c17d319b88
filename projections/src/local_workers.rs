//! Workers that were found in a directory of pods. They are seen only: nothing here runs them.

use crate::Projection;
use acta_events::{
    Event, LocalPodsInspected, LocalWorkerFound, Record, RuntimeId, Timestamp, WorkerId,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

/// A worker in a directory of pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalWorkerState {
    /// As it was found last.
    pub found: LocalWorkerFound,
    /// When it was found first.
    pub found_at: Timestamp,
    /// When it was found to be as it is.
    pub changed_at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct OfRuntime {
    by_id: BTreeMap<WorkerId, Arc<LocalWorkerState>>,
    inspected: Option<LocalPodsInspected>,
}

/// Local workers by runtime, then by id; only those that are there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LocalWorkers {
    by_runtime: BTreeMap<RuntimeId, OfRuntime>,
}

impl LocalWorkers {
    /// One local worker.
    pub fn get(&self, runtime: &RuntimeId, worker: &WorkerId) -> Option<&LocalWorkerState> {
        self.by_runtime.get(runtime)?.by_id.get(worker).map(|state| &**state)
    }

    /// The local workers of a runtime with ids after `after`, by id.
    pub fn of<'a>(
        &'a self,
        runtime: &RuntimeId,
        after: Option<&WorkerId>,
    ) -> impl Iterator<Item = (&'a WorkerId, &'a LocalWorkerState)> + use<'a> {
        let from = after.map_or(Unbounded, |id| Excluded(id.as_str()));
        let range =
            self.by_runtime.get(runtime).map(|of| of.by_id.range::<str, _>((from, Unbounded)));
        range.into_iter().flatten().map(|(id, state)| (id, &**state))
    }

    /// All local workers, by runtime, then by id.
    pub fn iter(&self) -> impl Iterator<Item = (&RuntimeId, &WorkerId, &LocalWorkerState)> {
        self.by_runtime.iter().flat_map(|(runtime, of)| {
            of.by_id.iter().map(move |(id, state)| (runtime, id, &**state))
        })
    }

    /// How many local workers a runtime has.
    pub fn count(&self, runtime: &RuntimeId) -> usize {
        self.by_runtime.get(runtime).map_or(0, |of| of.by_id.len())
    }

    /// What else was seen in the directory of pods, and on which host.
    pub fn inspected(&self, runtime: &RuntimeId) -> Option<&LocalPodsInspected> {
        self.by_runtime.get(runtime)?.inspected.as_ref()
    }
}

impl Projection for LocalWorkers {
    const NAME: &'static str = "local_workers";

    fn fold(&mut self, record: &Record) {
        let Some(runtime) = &record.header.runtime else { return };
        let now = record.header.time;
        match &record.header.event {
            Event::LocalWorkerFound(found) => {
                let of = self.by_runtime.entry(runtime.clone()).or_default();
                let known = of.by_id.get(&found.worker);
                let found_at = known.map_or(now, |known| known.found_at);
                let state = LocalWorkerState { found: found.clone(), found_at, changed_at: now };
                of.by_id.insert(found.worker.clone(), Arc::new(state));
            }
            Event::LocalWorkerLost(lost) => {
                if let Some(of) = self.by_runtime.get_mut(runtime) {
                    of.by_id.remove(&lost.worker);
                }
            }
            Event::RuntimeRetired(_) => drop(self.by_runtime.remove(runtime)),
            Event::LocalPodsInspected(inspected) => {
                let of = self.by_runtime.entry(runtime.clone()).or_default();
                of.inspected = Some(inspected.clone());
            }
            _ => {}
        }
    }
}
