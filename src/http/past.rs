//! Looking at a past moment: `?at=<sequence|time>`, and from one to another: `since`, `until`.

use super::{App, error::Reply, query};
use crate::{
    error::{Code, Rejection, shown},
    log::{Log, ReadFault},
};
use acta_events::{Sequence, Timestamp, WorkerRef};
use acta_projections::{Projections, WorkerState};
use axum::http::Uri;
use serde::Deserialize;
use std::sync::Arc;

/// How many records are applied between two looks at whether somebody still waits.
const RECORDS_PER_READ: usize = 4096;

/// The query of a view that takes nothing but a moment.
#[derive(Deserialize)]
pub(super) struct AtQuery {
    pub(super) at: Option<String>,
}

/// The moment that a query asks for.
pub(super) async fn of_query(app: &App, uri: &Uri) -> Reply<At> {
    let query: AtQuery = query::query(uri)?;
    parse(app, query.at.as_deref()).await
}

/// Refuses a moment where only the present can be told.
pub(super) fn refuse(uri: &Uri, what: &str) -> Reply<()> {
    let query: AtQuery = query::query(uri)?;
    if query.at.is_none() {
        return Ok(());
    }
    let message = format!("{what} is told of the present only; leave `at` out");
    Err(Rejection::new(Code::InvalidQuery, message))
}

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
    match moment("at", text)? {
        Moment::Sequence(seq) if seq > head => {
            let message = format!("`at` is {seq}, but the log ends at {head}");
            Err(Rejection::new(Code::InvalidQuery, message))
        }
        moment => {
            let seq = last_of(app, moment, head).await?;
            let through = app.log.expired_through();
            // A time before the first record that is there leads to what is before it, and which moment
            // that is cannot be told any more.
            let before = match moment {
                Moment::Sequence(seq) => seq < through,
                Moment::Time(time) => seq <= through && time < begin_time(app),
            };
            if before {
                return Err(ReadFault::Expired { through }.into());
            }
            Ok(At::Sequence(seq))
        }
    }
}

/// When the last record was decided that has expired.
fn begin_time(app: &App) -> Timestamp {
    app.log.begin().map_or(Timestamp(i64::MIN), |begin| begin.time)
}

/// What `at`, `since` and `until` take.
#[derive(Clone, Copy)]
enum Moment {
    Sequence(Sequence),
    Time(Timestamp),
}

fn moment(name: &str, text: &str) -> Reply<Moment> {
    if let Ok(seq) = text.parse().map(Sequence) {
        return Ok(Moment::Sequence(seq));
    }
    Timestamp::parse(text).map(Moment::Time).map_err(|_| {
        let shown = shown(text);
        let message = match is_time(text) {
            true => {
                format!("`{name}` is out of range: times go up to the year 9998, not `{shown}`")
            }
            false => format!(
                "`{name}` takes a sequence, or a time as in 2026-11-20T19:14:00Z, not `{shown}`"
            ),
        };
        Rejection::new(Code::InvalidQuery, message)
    })
}

/// Whether a text has the form of a time, be it one that can be reckoned with or not.
fn is_time(text: &str) -> bool {
    let pieces = jiff::fmt::temporal::Pieces::parse(text);
    pieces.is_ok_and(|pieces| pieces.time().is_some() && pieces.offset().is_some())
}

/// The last record up to and with a moment.
async fn last_of(app: &App, moment: Moment, head: Sequence) -> Reply<Sequence> {
    match moment {
        Moment::Sequence(seq) => Ok(seq.min(head)),
        Moment::Time(time) => {
            let log = Arc::clone(&app.log);
            Ok(crate::log::blocking(move || last_at(&log, head, time)).await?)
        }
    }
}

/// The last record before what `since` asks for, so that reading after it begins there.
pub(super) async fn before_since(app: &App, since: &str) -> Reply<Sequence> {
    let head = app.log.head();
    let before = match moment("since", since)? {
        // What is asked for begins where something is there; that the rest has expired is said.
        Moment::Sequence(seq) => {
            let begin = app.log.expired_through();
            Moment::Sequence(begin.max(Sequence(seq.0.saturating_sub(1))))
        }
        Moment::Time(time) => Moment::Time(Timestamp(time.0.saturating_sub(1))),
    };
    last_of(app, before, head).await
}

/// The last record that `until` asks for.
pub(super) async fn last_until(app: &App, until: &str) -> Reply<Sequence> {
    last_of(app, moment("until", until)?, app.log.head()).await
}

/// The last record that was decided at or before a time. Times never go back, so halving works.
fn last_at(log: &Log, head: Sequence, time: Timestamp) -> Result<Sequence, ReadFault> {
    let (mut before, mut after) = (log.expired_through().0, head.0 + 1);
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
    if app.log.has_expired(now.created_seq()) {
        // Its first records are gone; what it was where the log begins is part of the base.
        let _alone = app.rebuilding.lock().await;
        let log = Arc::clone(&app.log);
        let (runtime, worker) = (now.runtime.clone(), now.worker.clone());
        return crate::log::blocking(move || {
            let past = log.projections_at(seq)?;
            Ok(past.workers.get(&runtime, &worker).map(|state| (**state).clone()))
        })
        .await;
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
