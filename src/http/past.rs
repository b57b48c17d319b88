//! Looking at a past moment: `?at=<sequence|time>`.

use super::{App, error::Reply};
use crate::{
    error::{Code, Rejection, shown},
    log::{Log, ReadFault},
};
use acta_events::{Sequence, Timestamp, WorkerRef};
use acta_projections::{Projections, WorkerState};
use std::sync::Arc;

/// How many records are applied between two looks at whether somebody still waits.
const RECORDS_PER_READ: usize = 4096;

/// Which moment is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// The present.
    Now,
    /// Right after the record with this sequence; 0 is before any.
    Sequence(Sequence),
}

/// Understands `at`: a sequence, or a time, which means the last record up to then.
pub(super) async fn parse(app: &App, at: Option<&str>) -> Reply<At> {
    let Some(text) = at else { return Ok(At::Now) };
    let head = app.log.head();
    if let Ok(seq) = text.parse().map(Sequence) {
        if seq > head {
            let message = format!("`at` is {seq}, but the log ends at {head}");
            return Err(Rejection::new(Code::InvalidQuery, message));
        }
        return Ok(At::Sequence(seq));
    }
    let time = Timestamp::parse(text).map_err(|_| {
        let message = format!(
            "`at` takes a sequence, or a time as in 2026-11-20T19:14:00Z, not `{}`",
            shown(text)
        );
        Rejection::new(Code::InvalidQuery, message)
    })?;
    let log = Arc::clone(&app.log);
    let seq = crate::log::blocking(move || last_at(&log, head, time)).await?;
    Ok(At::Sequence(seq))
}

/// The last record that was decided at or before a time. Times never go back, so halving works.
fn last_at(log: &Log, head: Sequence, time: Timestamp) -> Result<Sequence, ReadFault> {
    let (mut before, mut after) = (0, head.0 + 1);
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        let records = log.read_blocking(Sequence(middle - 1), Sequence(middle), 1)?;
        match records.first() {
            Some(logged) if logged.record.header.time <= time => before = middle,
            _ => after = middle,
        }
    }
    Ok(Sequence(before))
}

/// A worker at a moment.
pub(super) async fn worker(app: &App, worker: &WorkerRef, at: At) -> Reply<Arc<WorkerState>> {
    let missing = || {
        let message = format!(
            "there is no worker `{}` in runtime `{}`{}; `acta ls workers` lists them",
            worker.worker_id,
            worker.runtime_id,
            if at == At::Now { "" } else { " at that moment" }
        );
        Rejection::new(Code::WorkerNotFound, message)
    };
    let state =
        app.log.views().worker(&worker.runtime_id, &worker.worker_id).ok_or_else(missing)?;
    match at {
        At::Sequence(seq) if seq < state.last_seq => {
            worker_at(app, &state, seq).await?.map(Arc::new).ok_or_else(missing)
        }
        _ => Ok(state),
    }
}

/// A worker as it was: its own records up to then, folded.
pub(super) async fn worker_at(
    app: &App,
    now: &WorkerState,
    seq: Sequence,
) -> Result<Option<WorkerState>, ReadFault> {
    if seq < now.created_seq() {
        return Ok(None);
    }
    let Some(created) = app.log.record(now.created_seq()).await? else { return Ok(None) };
    let mut state = WorkerState::create(&created.record, now.ordinal);
    let mut position = now.created_seq();
    while position < seq {
        let slice = app.log.worker_records(now.ordinal, position, seq, RECORDS_PER_READ).await?;
        for logged in &slice.records {
            if let Some(state) = &mut state {
                state.apply(&logged.record);
            }
        }
        position = slice.through;
    }
    Ok(state)
}

/// Looks at all projections at a moment. The past is rebuilt from the nearest checkpoint, one
/// such rebuild at a time.
pub(super) async fn with_projections<T: Send + 'static>(
    app: &App,
    at: At,
    look: impl FnOnce(&Projections) -> T + Send,
) -> Reply<T> {
    let At::Sequence(seq) = at else { return Ok(look(&app.log.views().read())) };
    let _alone = app.rebuilding.lock().await;
    let log = Arc::clone(&app.log);
    let past = crate::log::blocking(move || log.projections_at(seq)).await?;
    Ok(look(&past))
}
