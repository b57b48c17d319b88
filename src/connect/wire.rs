//! The requests of an agent: register, beat, ask, reply, notify, report.
//!
//! Each is made once, with a deadline of its own; who calls decides whether to repeat it. What
//! is repeated after a crash carries the same key, so that it counts once.

use crate::trust::{Mistrust, Trust};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url, header};
use serde_json::{Value, json};
use std::{fmt, time::Duration};

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// How long the server is asked to hold back the answer to a poll that has nothing yet.
pub(super) const WAIT_SECS: u64 = 30;
/// Rows asked for at a time.
pub(super) const PAGE_ROWS: usize = 50;
/// A page is below 1 MiB; one that is far beyond it is not a page.
const BODY_BYTES_MAX: usize = 8 << 20;
/// How much of an answer that nobody understands is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// A request that did not do what it was for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Nobody answered, or not to the end, or the service asks to come back later. The same
    /// request may go well as soon as the service is back.
    #[error("{what}")]
    Away {
        /// What happened.
        what: String,
        /// How long the service asked to wait.
        retry_after: Option<Duration>,
    },
    /// Whoever answers is not believed to be the service. Nothing was asked.
    #[error("{0}")]
    Mistrusted(Mistrust),
    /// The service failed at this very request: it may go well the next time.
    #[error("{what}")]
    Failed {
        /// What happened.
        what: String,
    },
    /// The service says no, and would again.
    #[error("{message} (status {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the service said.
        message: String,
    },
}

impl WireError {
    /// The status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the service does not know this worker, or its token, any more.
    pub(super) fn is_shut_out(&self) -> bool {
        self.status() == Some(401)
    }

    /// Whether somebody has to change something before the same request can go well.
    pub(super) fn is_for_people(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Mistrusted(_))
    }

    /// How long the service asked to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Away { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A worker's token. It never shows itself.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token that a header can carry; what cannot be one gives nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        valid.then(|| Self(text.into()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What to ask the inbox for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Poll<'a> {
    pub(super) since_id: Option<&'a str>,
    pub(super) since_secs: Option<u32>,
    pub(super) wait: bool,
}

/// The platform, as one worker speaks to it.
#[derive(Clone, Debug)]
pub struct Wire {
    base: Url,
    worker_id: String,
    token: Token,
    http: Client,
}

impl Wire {
    /// Nothing is sent yet.
    pub fn new(
        base: Url,
        worker_id: &str,
        token: Token,
        trust: &Trust,
    ) -> Result<Self, reqwest::Error> {
        let http = trust
            .http()
            .connect_timeout(CONNECT_DEADLINE)
            .user_agent(concat!("acta-connect/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { base, worker_id: worker_id.into(), token, http })
    }

    /// Where the platform is, for people. A password in it is not shown.
    pub fn shown(&self) -> String {
        let mut url = self.base.clone();
        // An address that cannot have them has none.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        url.as_str().trim_end_matches('/').to_owned()
    }

    /// The worker that this speaks for.
    pub(super) fn worker_id(&self) -> &str {
        &self.worker_id
    }

    /// Attaches this side to the worker; with a `url`, messages are to be brought there.
    pub(super) async fn register(&self, url: Option<&Url>) -> Result<(), WireError> {
        let mut body = json!({
            "id": self.worker_id,
            "agent_card": {
                "name": self.worker_id,
                "description": "acta connect",
                "version": env!("CARGO_PKG_VERSION"),
            },
            "delivery_mode": if url.is_some() { "push" } else { "poll" },
        });
        if let Some(url) = url {
            body["url"] = url.as_str().into();
        }
        self.post(&["registry", "register"], &body, None).await
    }

    /// Says that this side is there, and how it is.
    pub(super) async fn heartbeat(&self, state: Value) -> Result<(), WireError> {
        let mut body = json!({ "workspace_id": self.worker_id, "runtime_state": "ok" });
        if let (Some(body), Value::Object(state)) = (body.as_object_mut(), state) {
            body.extend(state);
        }
        self.post(&["registry", "heartbeat"], &body, None).await
    }

    /// Asks for messages. The rows are as they were sent.
    pub(super) async fn activity(&self, poll: Poll<'_>) -> Result<Vec<Value>, WireError> {
        let mut url = self.url(&["workspaces", &self.worker_id, "activity"]);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("type", "a2a_receive");
            query.append_pair("limit", &PAGE_ROWS.to_string());
            if let Some(id) = poll.since_id {
                query.append_pair("since_id", id);
            }
            if let Some(secs) = poll.since_secs {
                query.append_pair("since_secs", &secs.to_string());
            }
            if poll.wait {
                query.append_pair("wait", &WAIT_SECS.to_string());
            }
        }
        let wait = Duration::from_secs(if poll.wait { WAIT_SECS } else { 0 });
        let request = self.http.request(Method::GET, url).timeout(REQUEST_DEADLINE + wait);
        let body = self.exchange(request).await?;
        serde_json::from_slice(&body).map_err(|error| WireError::Failed {
            what: format!("the answer is not a list of messages: {error}"),
        })
    }

    /// Sends another worker an envelope.
    pub(super) async fn a2a(&self, to: &str, body: &Value, key: &str) -> Result<(), WireError> {
        self.post(&["workspaces", to, "a2a"], body, Some(key)).await
    }

    /// Tells the people who watch.
    pub(super) async fn notify(&self, body: &Value, key: &str) -> Result<(), WireError> {
        self.post(&["workspaces", &self.worker_id, "notify"], body, Some(key)).await
    }

    /// Reports what this side does.
    pub(super) async fn report(&self, body: &Value, key: Option<&str>) -> Result<(), WireError> {
        self.post(&["workspaces", &self.worker_id, "activity"], body, key).await
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn post(&self, path: &[&str], body: &Value, key: Option<&str>) -> Result<(), WireError> {
        let mut request = self.http.post(self.url(path)).timeout(REQUEST_DEADLINE).json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.exchange(request).await.map(drop)
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Vec<u8>, WireError> {
        let request = request.bearer_auth(&self.token.0).header(header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(|error| away(&error))?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| away(&error))? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                let what = format!("an answer of more than {BODY_BYTES_MAX} bytes");
                return Err(WireError::Failed { what });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        Err(judged(status, message(status, &body), retry_after))
    }
}

fn judged(status: StatusCode, message: String, retry_after: Option<Duration>) -> WireError {
    let what = format!("{message} (status {})", status.as_u16());
    match status.as_u16() {
        408 | 429 | 503 => WireError::Away { what, retry_after },
        // Nothing is followed, so a redirect is as final as a refusal.
        300..500 => WireError::Refused { status: status.as_u16(), message },
        _ => WireError::Failed { what },
    }
}

fn away(error: &reqwest::Error) -> WireError {
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    if let Some(why) = Mistrust::of(error) {
        return WireError::Mistrusted(why);
    }
    let what = if error.is_connect() {
        format!("nobody answers there: {root}")
    } else if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        format!("the connection broke: {root}")
    };
    if error.is_builder() {
        return WireError::Failed { what };
    }
    WireError::Away { what, retry_after: None }
}

/// Whole seconds; a date is not understood, and the own delay is used.
fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let secs = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(secs))
}

/// What the service said, in its own words where they are found.
fn message(status: StatusCode, body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = [&value["error"]["message"], &value["error"], &value["message"]];
    let text = said.into_iter().find_map(Value::as_str).map(str::to_owned);
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if text.is_empty() => {
            status.canonical_reason().unwrap_or("no reason given").to_owned()
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_to_try_again() {
        let check = |status: u16, expected: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let kind = match judged(status, "m".into(), None) {
                WireError::Away { .. } => "away",
                WireError::Failed { .. } => "failed",
                WireError::Refused { .. } => "refused",
                WireError::Mistrusted(_) => "mistrusted",
            };
            assert_eq!(kind, expected, "{status}");
        };
        for status in [302, 400, 401, 403, 404, 409, 410, 413, 422] {
            check(status, "refused");
        }
        for status in [408, 429, 503] {
            check(status, "away");
        }
        for status in [500, 502, 504] {
            check(status, "failed");
        }
    }

    #[test]
    fn the_words_of_the_service_are_found_and_cut() {
        let check = |body: &str, expected: &str| {
            assert_eq!(message(StatusCode::NOT_FOUND, body.as_bytes()), expected);
        };
        check(r#"{"error":{"code":"c","message":"no such worker"}}"#, "no such worker");
        check(r#"{"error":"gone"}"#, "gone");
        check(r#"{"message":"gone"}"#, "gone");
        check("plain\n", "plain");
        check("\u{1b}[31mred", " [31mred");
        check("", "Not Found");
        check(&"é".repeat(500), &format!("{}…", "é".repeat(200)));
    }

    #[test]
    fn a_token_is_what_a_header_carries_and_does_not_show_itself() {
        for wrong in ["", "a b", "a\n", "é"] {
            assert!(Token::parse(wrong).is_none(), "{wrong:?}");
        }
        let token = Token::parse("s3cret").unwrap();
        let wire = Url::parse("http://u:p@h:1/base/").unwrap();
        let wire = Wire::new(wire, "w", token, &Trust::new(None).unwrap()).unwrap();
        assert!(!format!("{wire:?}").contains("s3cret"));
        assert_eq!(wire.shown(), "http://h:1/base");
        let url = wire.url(&["workspaces", "a/b", "a2a"]);
        assert_eq!(url.path(), "/base/workspaces/a%2Fb/a2a");
    }
}
