//! What both modes share: the outlet, the stop, the turns.

use super::{
    Closed, Ended, ExecSpec, Outlet, REPORT_BYTES_MAX, REPORTS_MAX, Report, StopMode,
    child::Running,
    stopper::{Signal, Stopper},
    turns::Turns,
};
use std::pin::pin;
use tokio::sync::watch;

/// One worker, whether or not a child of it runs at the moment.
pub(super) struct Worker<O> {
    /// What to run.
    pub(super) spec: ExecSpec,
    /// Its turns.
    pub(super) turns: Turns,
    /// When to send which signal.
    pub(super) stopper: Stopper,
    outlet: O,
}

impl<O: Outlet> Worker<O> {
    /// A worker that has not begun.
    pub(super) fn new(
        spec: ExecSpec,
        first_turn: u64,
        outlet: O,
        stop: watch::Receiver<Option<StopMode>>,
    ) -> Self {
        let stopper = Stopper::new(stop, spec.stop_grace);
        let turns = Turns::new(first_turn, spec.mode);
        Self { spec, turns, stopper, outlet }
    }

    /// Waits until `reports` are durable, in as many vectors as their size asks for. A stop
    /// is acted upon meanwhile.
    pub(super) async fn tell(
        &mut self,
        mut running: Option<&mut Running>,
        reports: Vec<Report>,
    ) -> Result<(), Closed> {
        for vector in vectors(reports) {
            let mut durable = pin!(self.outlet.report(vector));
            loop {
                let signal = tokio::select! {
                    biased;
                    outcome = &mut durable => break outcome?,
                    signal = self.stopper.step() => signal,
                };
                if signal == Signal::GiveUp {
                    return Err(Closed);
                }
                if let Some(running) = running.as_deref_mut() {
                    running.act(signal);
                }
            }
        }
        Ok(())
    }

    /// The worker cannot run.
    pub(super) async fn spawn_failed(&mut self, message: String) -> Ended {
        match self.tell(None, vec![Report::SpawnFailed { message }]).await {
            Ok(()) => Ended::SpawnFailed,
            Err(Closed) => Ended::Closed,
        }
    }
}

/// Cuts reports into vectors within the limits; only a single report may be larger.
fn vectors(reports: Vec<Report>) -> Vec<Vec<Report>> {
    let mut vectors = Vec::new();
    let mut current = Vec::new();
    let mut bytes = 0;
    for report in reports {
        let more = report.content_bytes();
        let full = current.len() == REPORTS_MAX || bytes + more > REPORT_BYTES_MAX;
        if full && !current.is_empty() {
            vectors.push(std::mem::take(&mut current));
            bytes = 0;
        }
        bytes += more;
        current.push(report);
    }
    if !current.is_empty() {
        vectors.push(current);
    }
    vectors
}
