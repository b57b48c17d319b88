//! What the last run of the service left behind, settled by events.

use super::{Surroundings, address, is_over};
use crate::{
    backend::Backend,
    command::{Command, Outcome, Request},
};
use acta_projections::{WorkerState, WorkerStatus};

/// Ends a process that outlived the service, and records what became of its worker: its text
/// so far is complete, its turn is interrupted, and its next input starts it again.
pub(super) async fn settle<B: Backend>(around: &Surroundings<B>, worker: &WorkerState) {
    if let Some(process) = &worker.process {
        let end = around.backend.end_leftover(process, around.stop_grace).await;
        tracing::info!(worker = %worker.worker, ?end, "a process of the last run was looked for");
    }
    let mut outcomes = Vec::new();
    if let Some(open) = worker.open_turn
        && worker.open_text.is_some()
    {
        outcomes.push(Outcome::TextDone { turn: open.turn });
    }
    if worker.status == WorkerStatus::Running {
        if is_over(worker.child) {
            let message = "the worker ended before this input could be given to it".into();
            outcomes.push(Outcome::AllInputsFailed { message });
        } else {
            let again = worker
                .spec
                .template
                .as_deref()
                .and_then(|name| {
                    around.manifest.read().exec_of(name).map(|exec| exec.rerun_interrupted)
                })
                .unwrap_or(false);
            outcomes.push(Outcome::Interrupted { reason: "service_lost", again });
        }
    }
    let report = Command::Report { worker: address(worker), outcomes };
    if let Err(error) = around.engine.submit_patiently(Request::service(report)).await {
        tracing::error!(worker = %worker.worker, %error, "a worker could not be reconciled");
    }
}
