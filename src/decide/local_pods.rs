//! What a look into the directory of pods means: only what is news is recorded.

use super::{Decision, Draft, Facts};
use acta_events::{LocalPodsInspected, LocalWorkerFound, LocalWorkerLost, RuntimeId, WorkerId};

pub(super) fn find(facts: Facts<'_>, runtime: &RuntimeId, found: &LocalWorkerFound) -> Decision {
    match facts.globals.local_workers.get(runtime, &found.worker) {
        _ if is_gone(facts, runtime) => Decision::Unchanged,
        Some(known) if known.found == *found => Decision::Unchanged,
        _ => Draft::of_runtime(runtime, found.clone()).into(),
    }
}

pub(super) fn lose(facts: Facts<'_>, runtime: &RuntimeId, worker: &WorkerId) -> Decision {
    match facts.globals.local_workers.get(runtime, worker) {
        None => Decision::Unchanged,
        Some(_) => Draft::of_runtime(runtime, LocalWorkerLost { worker: worker.clone() }).into(),
    }
}

pub(super) fn inspect(
    facts: Facts<'_>,
    runtime: &RuntimeId,
    inspected: &LocalPodsInspected,
) -> Decision {
    match facts.globals.local_workers.inspected(runtime) {
        _ if is_gone(facts, runtime) => Decision::Unchanged,
        Some(known) if known == inspected => Decision::Unchanged,
        _ => Draft::of_runtime(runtime, inspected.clone()).into(),
    }
}

/// Nothing is recorded of a runtime that was retired.
fn is_gone(facts: Facts<'_>, runtime: &RuntimeId) -> bool {
    facts.globals.runtimes.get(runtime).is_none()
}
