//! Follows the log over `/v1/events/ws`: reconnects by itself, resumes from the last cursor,
//! gives each event once. A worker of another service is followed through the registry, whose frames
//! have an envelope in the place of a record.

use super::client::{Client, ClientError};
use super::output::note;
use acta_events::{RuntimeId, Sequence, cursor::Cursor};
use futures_util::{SinkExt, StreamExt};
use rand::Rng;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        Error as WsError, Message, client::IntoClientRequest, http::HeaderValue,
        protocol::WebSocketConfig,
    },
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Silence after which the other side is asked whether it is still there, and after which, if
/// it does not answer that either, it counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// A content of 16 MiB, each byte of it escaped.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With what happens next.
    Now,
    /// After this sequence; 0 is the beginning.
    After(Sequence),
    /// Where somebody left off.
    Cursor(String),
}

/// Which events to see: all that match every filter that is given.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) types: Vec<String>,
    pub(super) runtime: Option<String>,
    pub(super) worker: Option<String>,
    /// The worker is one of another service, under this alias; the other filters do not apply.
    pub(super) through: Option<RuntimeId>,
}

/// What the service tells, without what is about the connection itself.
#[derive(Debug)]
pub(super) enum Frame {
    /// Something happened. The record, or the envelope, is as it was sent.
    Event { cursor: String, record: Box<RawValue> },
    /// Everything up to the present has been told.
    CaughtUp { cursor: String },
    /// Nothing that matches, up to here.
    Heartbeat { cursor: String },
}

#[derive(Deserialize)]
struct WireFrame {
    kind: String,
    cursor: Option<String>,
    record: Option<Box<RawValue>>,
    envelope: Option<Box<RawValue>>,
    diagnostic: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct Diagnostic {
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct RecordSequence {
    seq: Sequence,
}

#[derive(Deserialize)]
struct EnvelopePlace {
    cursor: String,
    event_id: String,
}

/// What the event id of a snapshot begins with.
const SNAPSHOT: &str = "snapshot:";

/// Delays that double, up to a bound, and are spread so that observers of a service that
/// comes back do not all come at once.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST_MS: u64 = 200;
    const MAX_MS: u64 = 10_000;

    /// `spread` is drawn from 0..1.
    fn next(&mut self, spread: f64) -> Duration {
        let full = (Self::FIRST_MS << self.failures.min(10)).min(Self::MAX_MS);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(full).mul_f64(0.5 + spread.clamp(0.0, 1.0) / 2.0)
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One observer. [`Self::next`] may be dropped at any await and called again.
pub(super) struct Follower<'a> {
    client: &'a Client,
    filter: Filter,
    position: Start,
    seen: Sequence,
    socket: Option<Socket>,
    asked: bool,
    was_connected: bool,
    retry_at: Option<Instant>,
    backoff: Backoff,
    notice: fn(&str),
}

impl<'a> Follower<'a> {
    pub(super) fn new(client: &'a Client, start: Start, filter: Filter) -> Self {
        let seen = if let Start::After(seq) = start { seq } else { Sequence::ZERO };
        Self {
            client,
            filter,
            position: start,
            seen,
            socket: None,
            asked: false,
            was_connected: false,
            retry_at: None,
            backoff: Backoff::default(),
            notice: note,
        }
    }

    /// The next frame. An error is one that reconnecting would not cure.
    pub(super) async fn next(&mut self) -> Result<Frame, ClientError> {
        loop {
            let Some(socket) = &mut self.socket else {
                self.connect().await?;
                continue;
            };
            match timeout(SILENCE_MAX, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => {
                    self.asked = false;
                    if let Some(frame) = self.understand(&text)? {
                        return Ok(frame);
                    }
                }
                Ok(Some(Ok(Message::Close(close)))) => {
                    let why = close.map(|close| close.reason.to_string()).unwrap_or_default();
                    self.lost(if why.is_empty() { "closed by the service" } else { &why });
                }
                Ok(Some(Ok(_))) => self.asked = false,
                Ok(Some(Err(error))) => self.lost(&error.to_string()),
                Ok(None) => self.lost("closed by the service"),
                Err(_) if self.asked => self.lost("the service is silent"),
                Err(_) => {
                    self.asked = true;
                    let ping = socket.send(Message::Ping(Vec::new().into()));
                    if !matches!(timeout(CONNECT_DEADLINE, ping).await, Ok(Ok(()))) {
                        self.lost("the service is silent");
                    }
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        if let Some(at) = self.retry_at {
            sleep_until(at).await;
        }
        let mut request = self.url().as_str().into_client_request().map_err(|error| {
            self.client.not_acta(format_args!("its address cannot be used: {error}"))
        })?;
        if let Some(token) = self.client.token() {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let mut value = value.map_err(|error| self.client.not_acta(error))?;
            value.set_sensitive(true);
            request.headers_mut().insert("authorization", value);
        }
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let connector = Some(self.client.connector());
        // Boxed, since a handshake has much to remember.
        let connecting =
            Box::pin(connect_async_tls_with_config(request, Some(config), true, connector));
        match timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok((socket, _))) => {
                self.socket = Some(socket);
                self.was_connected = true;
                Ok(())
            }
            Ok(Err(WsError::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                let refusal = self.client.refusal(response.status(), body);
                if self.was_connected && response.status().is_server_error() {
                    self.lost(&refusal.to_string());
                    return Ok(());
                }
                Err(refusal)
            }
            Ok(Err(error)) if self.was_connected => {
                self.lost(&error.to_string());
                Ok(())
            }
            Ok(Err(error @ (WsError::Io(_) | WsError::Tls(_)))) => {
                Err(self.client.unconnected(&error))
            }
            Ok(Err(error)) => Err(self.client.not_acta(error)),
            Err(_) if self.was_connected => {
                self.lost("the service does not answer");
                Ok(())
            }
            Err(_) => Err(self.client.no_service()),
        }
    }

    fn url(&self) -> reqwest::Url {
        let mut url = match (&self.filter.through, &self.filter.worker) {
            (Some(runtime), Some(worker)) => {
                self.client.url(&["runtimes", runtime.as_str(), "workers", worker, "events", "ws"])
            }
            _ => self.client.url(&["events", "ws"]),
        };
        // The base is one of these two; nothing else was let in.
        let _ = url.set_scheme(if url.scheme() == "https" { "wss" } else { "ws" });
        let mut query = url.query_pairs_mut();
        match &self.position {
            Start::Now => {}
            Start::After(seq) => drop(query.append_pair("after", &seq.to_string())),
            Start::Cursor(cursor) => drop(query.append_pair("cursor", cursor)),
        }
        query.append_pair("progress", "1");
        if self.filter.through.is_some() {
            drop(query);
            return url;
        }
        if !self.filter.types.is_empty() {
            query.append_pair("type", &self.filter.types.join(","));
        }
        for (name, value) in [("runtime", &self.filter.runtime), ("worker", &self.filter.worker)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        drop(query);
        url
    }

    /// Drops the connection and decides when to try again.
    fn lost(&mut self, why: &str) {
        self.socket = None;
        self.asked = false;
        if self.backoff.failures == 0 {
            (self.notice)(&format!("connection lost ({why}); reconnecting"));
        }
        self.retry_at = Some(Instant::now() + self.backoff.next(rand::rng().random()));
    }

    fn understand(&mut self, text: &str) -> Result<Option<Frame>, ClientError> {
        let wrong = |what: &dyn std::fmt::Display| {
            self.client.not_acta(format_args!("a frame was not understood: {what}"))
        };
        let frame: WireFrame = serde_json::from_str(text).map_err(|error| wrong(&error))?;
        if let Some(Diagnostic { code, message }) = frame.diagnostic {
            if is_final(&code) {
                return Err(ClientError::Api { status: 0, code, message });
            }
            (self.notice)(&format!("{message} ({code})"));
            return Ok(None);
        }
        if let Some(envelope) = frame.envelope {
            let place: EnvelopePlace =
                serde_json::from_str(envelope.get()).map_err(|error| wrong(&error))?;
            return Ok(self.unpack(place, envelope));
        }
        let Some(cursor) = frame.cursor else { return Ok(None) };
        let frame = match (frame.kind.as_str(), frame.record) {
            ("event", Some(record)) => {
                let read = serde_json::from_str(record.get());
                let RecordSequence { seq } = read.map_err(|error| wrong(&error))?;
                if seq <= self.seen {
                    return Ok(None);
                }
                self.seen = seq;
                if self.filter.through.is_some() {
                    // A record that observers of a worker are shown nothing of.
                    self.position = Start::Cursor(cursor);
                    return Ok(None);
                }
                Frame::Event { cursor, record }
            }
            ("caught_up", _) => Frame::CaughtUp { cursor },
            ("heartbeat", _) => Frame::Heartbeat { cursor },
            // A later service may tell more.
            _ => return Ok(None),
        };
        let (Frame::Event { cursor, .. }
        | Frame::CaughtUp { cursor }
        | Frame::Heartbeat { cursor }) = &frame;
        self.position = Start::Cursor(cursor.clone());
        self.backoff.reset();
        Ok(Some(frame))
    }
}

impl Follower<'_> {
    /// What a frame of one worker tells. Its snapshot tells where the stream stands, and nothing that
    /// was not there before.
    fn unpack(&mut self, place: EnvelopePlace, envelope: Box<RawValue>) -> Option<Frame> {
        let EnvelopePlace { cursor, event_id } = place;
        self.position = Start::Cursor(cursor.clone());
        self.backoff.reset();
        if event_id.starts_with(SNAPSHOT) {
            return None;
        }
        // A cursor of another implementation tells nothing; it is resumed from all the same.
        if let Ok(at) = cursor.parse::<Cursor>() {
            if at.seq <= self.seen {
                return None;
            }
            self.seen = at.seq;
        }
        Some(Frame::Event { cursor, record: envelope })
    }
}

/// Whether trying again with the same cursor and filters would give the same answer.
fn is_final(code: &str) -> bool {
    let code = code.strip_prefix("runtime.").unwrap_or(code);
    code.starts_with("cursor_")
        || code.starts_with("invalid_")
        || code.starts_with("unknown_")
        || matches!(
            code,
            "worker_not_found"
                | "observation_only"
                | "unauthorized"
                | "forbidden"
                | "token_revoked"
                | "wrong_runtime"
                | "wrong_runtime_cursor"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound_and_start_again_after_success() {
        let mut backoff = Backoff::default();
        let full: Vec<u128> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(full, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next(0.0).as_millis(), 5_000);
        backoff.reset();
        assert_eq!(backoff.next(0.0).as_millis(), 100);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for code in
            ["runtime.cursor_ahead", "cursor_expired", "runtime.worker_not_found", "forbidden"]
        {
            assert!(is_final(code), "{code}");
        }
        for code in ["runtime.unavailable", "epoch_changed", "observer_idle"] {
            assert!(!is_final(code), "{code}");
        }
    }
}
