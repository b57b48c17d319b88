//! What the last run of the service left behind, settled by events.

use super::{Surroundings, address, is_over, reports};
use crate::{
    backend::{Backend, StopMode},
    command::Outcome,
};
use acta_projections::{WorkerState, WorkerStatus};
use std::time::Duration;
use tokio::sync::watch;

/// Ends a process that outlived the service, and records what became of its worker: its text
/// so far is complete, its turn is interrupted, and its next input starts it again, unless it was stopped.
pub(super) async fn settle<B: Backend>(
    around: &Surroundings<B>,
    worker: &WorkerState,
    stop: watch::Receiver<Option<StopMode>>,
) {
    let exec = worker
        .spec
        .template
        .as_deref()
        .and_then(|name| around.manifest.read().exec_of(name).cloned());
    if let Some(process) = &worker.process {
        let grace = exec.as_ref().and_then(|exec| exec.stop_grace_ms);
        let grace = grace.map_or(around.stop_grace, Duration::from_millis);
        let end = tokio::select! {
            end = around.backend.end_leftover(process, grace) => end,
            () = until_forced(stop) => {
                around.backend.end_leftover(process, Duration::ZERO).await
            }
        };
        tracing::info!(worker = %worker.worker, ?end, "a process of the last run was looked for");
    }
    let mut outcomes = Vec::new();
    if let Some(open) = worker.open_turn
        && worker.open_text.is_some()
    {
        outcomes.push(Outcome::TextDone { turn: open.turn });
    }
    if worker.status == WorkerStatus::Running && is_over(worker.child) {
        let message = "the worker ended before this input could be given to it".into();
        outcomes.push(Outcome::AllInputsFailed { message });
    } else {
        // Whether it was stopped meanwhile is seen when this is decided.
        let again = exec.is_some_and(|exec| exec.rerun_interrupted);
        outcomes.push(Outcome::Interrupted { reason: "service_lost", again });
    }
    if reports::submit(around, &address(worker), outcomes).await.is_err() {
        tracing::error!(worker = %worker.worker, "a worker could not be settled");
    }
}

async fn until_forced(mut stop: watch::Receiver<Option<StopMode>>) {
    if stop.wait_for(|stop| *stop == Some(StopMode::Force)).await.is_err() {
        std::future::pending().await
    }
}
