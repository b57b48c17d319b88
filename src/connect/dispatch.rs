//! What happens to one message: the backend works on it, the outcome is recorded, delivered,
//! and only then the message is over.

use super::{
    ConnectError, Stopping,
    backend::{Backend, BackendError, Progress, ProgressSender, Request, Response},
    backoff::Backoff,
    health::Health,
    row::Row,
    state::{Outcome, Pending, State},
    stream::Stream,
    wire::{Wire, WireError},
};
use std::{pin::pin, time::Duration};
use tokio::time::{Instant, sleep};

/// How often a backend is given the same message before it counts as failed.
const BACKEND_TRIES: u32 = 3;
/// How often an outcome is offered to a service that answers but fails.
const DELIVERY_TRIES: u32 = 5;
/// What is reported of a failure.
const DETAIL_CHARS_MAX: usize = 4000;

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progressed {
    /// The message is over.
    Done,
    /// This side stops; the message is left for the next start.
    Stopped,
}

/// What the backend made of a message.
pub(super) enum Worked {
    Answer(Response),
    Failure(String),
    Stopped,
}

/// Works on messages, one after the other.
pub(super) struct Dispatcher<'a> {
    pub(super) wire: &'a Wire,
    pub(super) backend: &'a dyn Backend,
    pub(super) state: State,
    pub(super) stopping: &'a Stopping,
    pub(super) health: &'a Health,
    /// The delay before the second try.
    pub(super) delay: Duration,
}

impl Dispatcher<'_> {
    /// Brings a row to its end. Messages that were answered before are passed over.
    pub(super) async fn dispatch(
        &mut self,
        row: &Row,
        behind: &str,
    ) -> Result<Progressed, ConnectError> {
        let key = row.key();
        if row.is_answered || self.state.was_answered(&key) {
            tracing::info!(row = row.id, "this message was answered before");
            self.state.pass(&row.id).await?;
            return Ok(Progressed::Done);
        }
        let Request { caller_id, message_id, .. } = &row.request;
        let from = if caller_id.is_empty() { "a person" } else { caller_id };
        tracing::info!(message_id, from, behind, "working on a message");
        let begun = Instant::now();
        let outcome = match self.work(row).await? {
            Worked::Answer(response) if caller_id.is_empty() => {
                Outcome::Notice { body: row.notice(&response) }
            }
            Worked::Answer(response) => {
                Outcome::Reply { to: caller_id.clone(), body: row.reply(&response) }
            }
            Worked::Failure(detail) => Outcome::Failure { body: row.failure(&detail) },
            Worked::Stopped => return Ok(Progressed::Stopped),
        };
        self.state.set_pending(Pending { row_id: row.id.clone(), key, outcome }).await?;
        let worked_ms = millis(begun);
        let done = self.deliver_pending(Some(row)).await?;
        if done == Progressed::Done {
            tracing::info!(message_id, worked_ms, total_ms = millis(begun), "done");
        }
        Ok(done)
    }

    /// Has the backend work, as often as it takes or is allowed.
    pub(super) async fn work(&mut self, row: &Row) -> Result<Worked, ConnectError> {
        let mut backoff = Backoff::new(self.delay);
        loop {
            let error = match self.attempt(row).await? {
                Ok(response) if response.parts.is_empty() => {
                    BackendError::Refused("the backend gave no answer".into())
                }
                Ok(response) => {
                    self.health.succeeded();
                    return Ok(Worked::Answer(response));
                }
                Err(BackendError::Closed) => {
                    self.state.set_running(None).await?;
                    return Ok(Worked::Stopped);
                }
                Err(error) => error,
            };
            let wait = backoff.next(None);
            let tries = backoff.failures();
            let message_id = &row.request.message_id;
            if tries >= BACKEND_TRIES || matches!(error, BackendError::Refused(_)) {
                tracing::error!(message_id, %error, tries, "the backend failed; giving up");
                self.health.failed();
                return Ok(Worked::Failure(cut(&error.to_string())));
            }
            let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(message_id, %error, retry_ms, "the backend failed");
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stopping.soft.cancelled() => return Ok(Worked::Stopped),
            }
        }
    }

    /// Once. Meanwhile observers see what is there already.
    async fn attempt(&mut self, row: &Row) -> Result<Result<Response, BackendError>, ConnectError> {
        let (sender, mut progress) = ProgressSender::channel();
        let mut stream = Stream::new(self.wire, row);
        let mut work = pin!(self.backend.handle(&row.request, sender));
        let mut closing = false;
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                Some(told) = progress.recv(), if stream.has_room() => match told {
                    Progress::Process(process) => self.state.set_running(Some(process)).await?,
                    Progress::Piece(piece) => stream.add(&piece),
                },
                () = stream.step() => {}
                () = self.stopping.patience_ended(), if !closing => {
                    closing = true;
                    self.backend.close().await;
                }
            }
        };
        stream.finish().await;
        Ok(result)
    }

    /// Delivers the recorded outcome, if there is one, and records that it was. `row` is its
    /// message, where that is at hand.
    pub(super) async fn deliver_pending(
        &mut self,
        row: Option<&Row>,
    ) -> Result<Progressed, ConnectError> {
        let mut backoff = Backoff::new(self.delay);
        let mut tries = 0;
        while let Some(pending) = self.state.pending().cloned() {
            let offered = tokio::select! {
                offered = self.offer(&pending) => offered,
                // Whether it was taken shows when it is offered again, under the same key.
                () = self.stopping.patience_ended() => return Ok(Progressed::Stopped),
            };
            let error = match offered {
                Ok(()) => {
                    self.state.settle_pending().await?;
                    break;
                }
                Err(error) if error.is_shut_out() => return Err(error.into()),
                Err(error) => error,
            };
            let wait = backoff.next(error.retry_after());
            tries += u32::from(matches!(error, WireError::Failed { .. }));
            let is_final = error.status().is_some() || tries >= DELIVERY_TRIES;
            if is_final {
                tries = 0;
                backoff.reset();
                self.give_up(pending, row, &error).await?;
                continue;
            }
            tracing::warn!(row = pending.row_id, %error, "the outcome is not delivered yet");
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stopping.soft.cancelled() => return Ok(Progressed::Stopped),
            }
        }
        Ok(Progressed::Done)
    }

    /// An answer that is not taken becomes the report that it was not; a report that is not
    /// taken is dropped, since there is nobody else to tell.
    async fn give_up(
        &mut self,
        mut pending: Pending,
        row: Option<&Row>,
        error: &WireError,
    ) -> Result<(), ConnectError> {
        tracing::error!(row = pending.row_id, %error, "the outcome is not taken");
        self.health.failed();
        if let Outcome::Failure { .. } = pending.outcome {
            return Ok(self.state.settle_pending().await?);
        }
        let detail = cut(&format!("the answer could not be delivered: {error}"));
        let body = match row {
            Some(row) => row.failure(&detail),
            None => Row::of_id(&pending.row_id).failure(&detail),
        };
        pending.outcome = Outcome::Failure { body };
        Ok(self.state.set_pending(pending).await?)
    }

    async fn offer(&self, pending: &Pending) -> Result<(), WireError> {
        match &pending.outcome {
            Outcome::Reply { to, body } => {
                self.wire.a2a(to, body, &Row::of_id(&pending.row_id).reply_key()).await
            }
            Outcome::Notice { body } => {
                self.wire.notify(body, &Row::of_id(&pending.row_id).reply_key()).await
            }
            Outcome::Failure { body } => {
                let key = Row::of_id(&pending.row_id).failure_key();
                self.wire.report(body, Some(&key)).await
            }
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(DETAIL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
