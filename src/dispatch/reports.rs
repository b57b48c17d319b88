//! Reports: they are given until they are durable, whatever the disk does meanwhile.

use super::{MARKS_PER_READ, Surroundings};
use crate::{
    backend::Closed,
    command::{Command, Outcome, Request},
    engine::Health,
    error::Code,
};
use acta_events::{Actor, Event, Sequence, WorkerRef};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Waits until what became of a worker is durable, once. Nobody else reports of it meanwhile.
pub(super) async fn submit<B>(
    around: &Surroundings<B>,
    worker: &WorkerRef,
    outcomes: Vec<Outcome>,
) -> Result<(), Closed> {
    let mut pause = PAUSE;
    let command = Command::Report { worker: worker.clone(), outcomes };
    let request = Request::service(command);
    let before = around.log.head();
    loop {
        match around.engine.submit_patiently(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(rejection) if rejection.code.status() < 500 => return Err(Closed),
            Err(rejection) if around.engine.is_closed() => {
                tracing::warn!(worker = %worker.worker_id, %rejection, "a report was lost to the end of the service");
                return Err(Closed);
            }
            Err(rejection) => {
                tracing::warn!(worker = %worker.worker_id, %rejection, "a report waits");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                let ready = around.engine.health() == Health::Ready;
                if rejection.code == Code::OutcomeUnknown
                    && ready
                    && is_in_log(around, worker, before).await
                {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether a report whose outcome was unknown is in the log after all. A report is there as a whole or
/// not at all.
async fn is_in_log<B>(around: &Surroundings<B>, worker: &WorkerRef, before: Sequence) -> bool {
    let state = around.log.views().worker(&worker.runtime_id, &worker.worker_id);
    let Some(state) = state else { return false };
    let (log, head) = (&around.log, around.log.head());
    let service = Actor::service();
    match log.worker_records(state.ordinal, before, head, MARKS_PER_READ).await {
        Ok(slice) => slice.records.iter().any(|logged| {
            let header = &logged.record.header;
            header.actor == service && !matches!(header.event, Event::WorkerStopped(_))
        }),
        Err(error) => {
            tracing::error!(%error, "a worker's records cannot be read");
            false
        }
    }
}
