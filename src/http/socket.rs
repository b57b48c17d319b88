//! What all WebSocket sessions share: sending with patience that ends, listening for what an
//! observer may say (nothing), and closing with a code and a reason.

use acta_events::Sequence;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use std::time::Duration;

/// How long a Close frame may take to be sent.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The longest reason that fits into a Close frame, in bytes.
const REASON_BYTES_MAX: usize = 123;

/// Why a session ends, as a WebSocket close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCode {
    /// The service ends; resume elsewhere or later.
    GoingAway = 1001,
    /// The observer did what it may not.
    Policy = 1008,
    /// Something failed here.
    Failed = 1011,
    /// The observer was too slow; resume with the cursor in the reason.
    TooSlow = 1013,
    /// The request was wrong.
    BadRequest = 4400,
    /// The token was revoked.
    Unauthorized = 4401,
    /// The cursor does not fit the log.
    Conflict = 4409,
}

impl CloseCode {
    /// The one that another service has given.
    pub(super) fn of(code: u16) -> Self {
        let all = [
            Self::GoingAway,
            Self::Policy,
            Self::TooSlow,
            Self::BadRequest,
            Self::Unauthorized,
            Self::Conflict,
        ];
        all.into_iter().find(|known| *known as u16 == code).unwrap_or(Self::Failed)
    }
}

/// The sending half.
pub(super) struct Sender {
    sink: SplitSink<WebSocket, Message>,
    patience: Duration,
}

/// The observer is gone, or was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    Gone,
    TooSlow,
}

/// What an observer did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is alive.
    Alive,
    /// It spoke, which it may not.
    Spoke,
    /// It left.
    Left,
}

/// Takes a socket apart.
pub(super) fn split(socket: WebSocket, patience: Duration) -> (Sender, SplitStream<WebSocket>) {
    let (sink, stream) = socket.split();
    (Sender { sink, patience }, stream)
}

impl Sender {
    /// Puts frames into the socket and sends them off together. `passed` is the position of
    /// the last one that was put in, also if that took too long: what is in the socket comes
    /// before anything that is sent later, such as a Close frame.
    pub(super) async fn send_all(
        &mut self,
        frames: impl IntoIterator<Item = (Sequence, Utf8Bytes)>,
        passed: &mut Sequence,
    ) -> Result<(), Unsent> {
        let patience = self.patience;
        let sending = async {
            for (position, frame) in frames {
                self.sink.feed(Message::Text(frame)).await?;
                *passed = position;
            }
            self.sink.flush().await
        };
        match tokio::time::timeout(patience, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Unsent::Gone),
            Err(_) => Err(Unsent::TooSlow),
        }
    }

    /// Sends one frame.
    pub(super) async fn send(&mut self, frame: Utf8Bytes) -> Result<(), Unsent> {
        self.send_all([(Sequence::ZERO, frame)], &mut Sequence::default()).await
    }

    /// Asks whether the observer is still there.
    pub(super) async fn ping(&mut self) -> Result<(), Unsent> {
        let ping = self.sink.send(Message::Ping(bytes::Bytes::new()));
        match tokio::time::timeout(self.patience, ping).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Unsent::Gone),
            Err(_) => Err(Unsent::TooSlow),
        }
    }

    /// Says why, and closes. Whoever does not listen any more is left alone.
    pub(super) async fn close(mut self, code: CloseCode, reason: &str) {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let frame = CloseFrame { code: code as u16, reason: reason[..end].to_owned().into() };
        let closing = async {
            if self.sink.send(Message::Close(Some(frame))).await.is_ok() {
                drop(self.sink.close().await);
            }
        };
        drop(tokio::time::timeout(CLOSE_PATIENCE, closing).await);
    }
}

/// Waits for the next thing that the observer does. Pings are answered by the protocol layer.
pub(super) async fn listen(stream: &mut SplitStream<WebSocket>) -> Heard {
    match stream.next().await {
        None | Some(Err(_) | Ok(Message::Close(_))) => Heard::Left,
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Heard::Alive,
        Some(Ok(Message::Text(_) | Message::Binary(_))) => Heard::Spoke,
    }
}
