//! Shows observers an answer while it is being written.
//!
//! This is a courtesy: the answer itself comes as a whole afterwards. So a server that does not
//! take the pieces does not hold the work up for long, and a piece is not sent twice.

use super::{
    backend::{Response, joined_text},
    row::Row,
    wire::{Wire, WireError},
};
use futures_util::future::{BoxFuture, FutureExt, pending};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Text that came within this time is one piece. An answer that is there sooner is not shown
/// in pieces at all.
const GATHER: Duration = Duration::from_millis(200);
/// How long one piece may take to be taken.
const PIECE_DEADLINE: Duration = Duration::from_secs(5);
/// Text that waits to be sent; beyond it the backend waits.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// Text of one piece.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The pieces of one answer.
pub(super) struct Stream<'a> {
    wire: &'a Wire,
    row: &'a Row,
    waiting: String,
    due: Option<Instant>,
    sending: Option<BoxFuture<'a, Result<(), WireError>>>,
    is_refused: bool,
}

impl<'a> Stream<'a> {
    pub(super) fn new(wire: &'a Wire, row: &'a Row) -> Self {
        Self { wire, row, waiting: String::new(), due: None, sending: None, is_refused: false }
    }

    /// Whether more may come.
    pub(super) fn has_room(&self) -> bool {
        self.is_refused || self.waiting.len() < WAITING_BYTES_MAX
    }

    pub(super) fn add(&mut self, piece: &Response) {
        if self.is_refused {
            return;
        }
        self.waiting.push_str(&joined_text(&piece.parts));
        if self.due.is_none() && !self.waiting.is_empty() {
            self.due = Some(Instant::now() + GATHER);
        }
    }

    /// Sends what is due. Never returns while there is nothing to do; cancel-safe.
    pub(super) async fn step(&mut self) {
        if self.sending.is_none() {
            match self.due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
            self.begin();
        }
        self.finish().await;
    }

    /// Waits for the piece that is under way, so that the answer comes after it.
    pub(super) async fn finish(&mut self) {
        let Some(sending) = &mut self.sending else { return };
        let sent = sending.await;
        self.sending = None;
        if let Err(error) = sent {
            tracing::debug!(%error, "the answer is not shown while it is being written");
            self.is_refused = true;
            self.waiting = String::new();
            self.due = None;
        }
    }

    fn begin(&mut self) {
        let mut end = self.waiting.len().min(PIECE_BYTES_MAX);
        while !self.waiting.is_char_boundary(end) {
            end -= 1;
        }
        let rest = self.waiting.split_off(end);
        let text = std::mem::replace(&mut self.waiting, rest);
        self.due = (!self.waiting.is_empty()).then(|| Instant::now() + GATHER);
        let body = self.row.piece(&text);
        let wire = self.wire;
        let sending = async move {
            let late = |_| WireError::Failed { what: "no answer in time".into() };
            timeout(PIECE_DEADLINE, wire.report(&body, None)).await.map_err(late)?
        };
        self.sending = Some(sending.boxed());
    }
}
