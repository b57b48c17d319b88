//! Asks for messages, and works on them in order.

use super::{
    ConnectError, Stopping,
    backoff::Backoff,
    dispatch::{Dispatcher, Progressed},
    options::Options,
    row::{Row, row_id},
    wire::{PAGE_ROWS, Poll, WireError},
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Polls until this side stops, or the service does not want it any more.
pub(super) async fn poll(
    dispatcher: &mut Dispatcher<'_>,
    options: &Options,
) -> Result<(), ConnectError> {
    // Work that a former life left undone comes first.
    if dispatcher.deliver_pending(None).await? == Progressed::Stopped {
        return Ok(());
    }
    let stopping = dispatcher.stopping;
    let mut backoff = Backoff::new(dispatcher.delay);
    let mut wait = true;
    while !stopping.soft.is_cancelled() {
        let begun = Instant::now();
        let cursor = dispatcher.state.cursor().map(str::to_owned);
        let ask = Poll { since_id: cursor.as_deref(), since_secs: options.since_secs, wait };
        let asked = tokio::select! {
            asked = dispatcher.wire.activity(ask) => asked,
            () = stopping.soft.cancelled() => break,
        };
        let rest = match asked {
            Ok(rows) => {
                if backoff.failures() > 0 {
                    tracing::info!("the service is back");
                }
                backoff.reset();
                match batch(dispatcher, &rows).await? {
                    Batch::Stopped => break,
                    Batch::Progressed => Duration::ZERO,
                    // A service that holds an answer back is asked again at once, another one
                    // after the interval.
                    Batch::Nothing => options.interval.saturating_sub(begun.elapsed()),
                }
            }
            Err(WireError::Refused { status: 410, .. }) if cursor.is_some() => {
                tracing::warn!("the service does not know the cursor any more; beginning anew");
                dispatcher.state.reset_cursor().await?;
                Duration::ZERO
            }
            Err(WireError::Refused { status: 400 | 422, .. }) if wait => {
                wait = false;
                Duration::ZERO
            }
            Err(error) if error.status().is_some() => return Err(error.into()),
            Err(error) => {
                if backoff.failures() == 0 {
                    tracing::warn!(%error, "no messages can be fetched; trying again");
                }
                backoff.next(error.retry_after())
            }
        };
        pause(rest, stopping).await;
    }
    Ok(())
}

async fn pause(rest: Duration, stopping: &Stopping) {
    if !rest.is_zero() {
        tokio::select! {
            () = sleep(rest) => {}
            () = stopping.soft.cancelled() => {}
        }
    }
}

enum Batch {
    /// There was nothing that the cursor could go past.
    Nothing,
    Progressed,
    Stopped,
}

/// Works on one page, in order.
async fn batch(dispatcher: &mut Dispatcher<'_>, rows: &[Value]) -> Result<Batch, ConnectError> {
    let mut outcome = Batch::Nothing;
    let more = if rows.len() >= PAGE_ROWS { " or more" } else { "" };
    for (at, row) in rows.iter().enumerate() {
        if dispatcher.stopping.soft.is_cancelled() {
            return Ok(Batch::Stopped);
        }
        match Row::read(row) {
            Ok(row) => {
                let behind = format!("{}{more}", rows.len() - at - 1);
                if dispatcher.dispatch(&row, &behind).await? == Progressed::Stopped {
                    return Ok(Batch::Stopped);
                }
            }
            Err(reason) => {
                tracing::warn!(row = row_id(row), reason, "a malformed message is skipped");
                let Some(id) = row_id(row) else { continue };
                dispatcher.state.pass(id).await?;
            }
        }
        outcome = Batch::Progressed;
    }
    Ok(outcome)
}
