//! One question to another service: its deadline, its repeat, and what may come back.

use super::Remotes;
use crate::trust::Mistrust;
use acta_events::{RemoteAddress, TraceParent};
use reqwest::{Method, StatusCode, Url, header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::time::Duration;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// The longest message of another service that is passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// How long to wait before asking again after a connection broke.
const REPEAT_DELAY: Duration = Duration::from_millis(100);

/// Why another service gave no result. The texts name neither its address nor a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RemoteError {
    /// Nothing was asked: the token is not there.
    #[error(
        "the environment variable `{0}`, which should have its token, is not set in this service; \
         set it and start the service again"
    )]
    NoToken(String),
    /// Nobody was reached: nothing was done.
    #[error("it cannot be reached; it may be down, or its address wrong")]
    Unreachable,
    /// Somebody was reached who is not believed to be it: nothing was asked.
    #[error("{0}")]
    Mistrusted(Mistrust),
    /// No answer, or half of one: what was asked for may have been done.
    #[error("it did not answer within {} s", super::ANSWER_DEADLINE.as_secs())]
    NoAnswer,
    /// It wants another token.
    #[error("it refuses the token that this service has for it")]
    Unauthorized,
    /// It said no.
    #[error("{message}")]
    Refused {
        /// Its status.
        status: u16,
        /// In one word.
        code: String,
        /// For people.
        message: String,
    },
    /// Whoever is there does not speak the runtime API, or another version of it.
    #[error("what it answers is not the runtime API as this version knows it: {0}")]
    NotUnderstood(String),
}

impl RemoteError {
    /// The code of the diagnostic for it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NoToken(_) => "remote_token_missing",
            Self::Unreachable | Self::NoAnswer => "remote_unavailable",
            Self::Mistrusted(_) => "remote_untrusted",
            Self::Unauthorized => "remote_unauthorized",
            Self::Refused { .. } => "remote_refused",
            Self::NotUnderstood(_) => "remote_not_understood",
        }
    }

    /// Whether the service is there and well, and merely refused this.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status < 500)
    }
}

/// What is asked of another service.
#[derive(Clone, Debug)]
pub(crate) struct Asked<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    key: Option<String>,
    if_match: Option<u64>,
    trace: Option<TraceParent>,
}

impl<'a> Asked<'a> {
    /// Reads something.
    pub(crate) fn get(path: &'a [&'a str]) -> Self {
        Self {
            method: Method::GET,
            path,
            query: Vec::new(),
            body: None,
            key: None,
            if_match: None,
            trace: None,
        }
    }

    /// Gives a command. The key makes a repeat harmless.
    pub(crate) fn command(path: &'a [&'a str], body: Value, key: String) -> Self {
        Self { method: Method::POST, body: Some(body), key: Some(key), ..Self::get(path) }
    }

    /// Adds a parameter.
    pub(crate) fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Passes on the trace of the caller and the revision that the worker must have.
    pub(crate) fn around(mut self, if_match: Option<u64>, trace: Option<TraceParent>) -> Self {
        (self.if_match, self.trace) = (if_match, trace);
        self
    }
}

/// An answer, and whether it was given before under the same key.
#[derive(Clone, Debug)]
pub(crate) struct Answered<T> {
    pub(crate) body: T,
    pub(crate) replayed: bool,
}

/// The address of something at another service.
pub(super) fn url(address: &RemoteAddress, path: &[&str]) -> Result<Url, RemoteError> {
    let mut url = Url::parse(&address.url).map_err(|_| RemoteError::Unreachable)?;
    url.path_segments_mut()
        .map_err(|()| RemoteError::Unreachable)?
        .pop_if_empty()
        .push("v1")
        .extend(path);
    Ok(url)
}

/// The token for a service, if one is wanted.
pub(super) fn token(address: &RemoteAddress) -> Result<Option<String>, RemoteError> {
    let Some(name) = &address.token_env else { return Ok(None) };
    match std::env::var(name) {
        Ok(token) if !token.trim().is_empty() => Ok(Some(token.trim().to_owned())),
        _ => Err(RemoteError::NoToken(name.clone())),
    }
}

impl Remotes {
    /// Asks, once more if the connection broke, and understands the answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        address: &RemoteAddress,
        asked: Asked<'_>,
    ) -> Result<Answered<T>, RemoteError> {
        let attempts = async {
            match self.attempt(address, &asked).await {
                Err(first @ (RemoteError::NoAnswer | RemoteError::Unreachable)) => {
                    tokio::time::sleep(REPEAT_DELAY).await;
                    self.attempt(address, &asked).await.map_err(|second| match second {
                        // The first attempt may have arrived.
                        RemoteError::Unreachable => first,
                        other => other,
                    })
                }
                other => other,
            }
        };
        let deadline = tokio::time::timeout(super::ANSWER_DEADLINE, attempts);
        let (bytes, replayed) = deadline.await.map_err(|_| RemoteError::NoAnswer)??;
        let body = serde_json::from_slice(&bytes)
            .map_err(|error| RemoteError::NotUnderstood(short(&error.to_string())))?;
        Ok(Answered { body, replayed })
    }

    async fn attempt(
        &self,
        address: &RemoteAddress,
        asked: &Asked<'_>,
    ) -> Result<(Vec<u8>, bool), RemoteError> {
        let url = url(address, asked.path)?;
        let mut request = self.http.request(asked.method.clone(), url).query(&asked.query);
        if let Some(token) = token(address)? {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &asked.body {
            request = request.json(body);
        }
        if let Some(key) = &asked.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(revision) = asked.if_match {
            request = request.header(header::IF_MATCH, format!("\"{revision}\""));
        }
        if let Some(trace) = &asked.trace {
            request = request.header("traceparent", trace.to_string());
        }
        let mut response = request.send().await.map_err(|error| {
            let never_sent = error.is_connect() || error.is_builder();
            match Mistrust::of(&error) {
                Some(why) if never_sent => RemoteError::Mistrusted(why),
                _ if never_sent => RemoteError::Unreachable,
                _ => RemoteError::NoAnswer,
            }
        })?;
        let status = response.status();
        let replayed = response.headers().contains_key(crate::http::REPLAYED);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| RemoteError::NoAnswer)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                let message = format!("an answer of more than {ANSWER_BYTES_MAX} bytes");
                return Err(RemoteError::NotUnderstood(message));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status == StatusCode::OK { Ok((bytes, replayed)) } else { Err(refusal(status, &bytes)) }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    code: String,
    message: String,
}

pub(super) fn refusal(status: StatusCode, body: &[u8]) -> RemoteError {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return RemoteError::Unauthorized;
    }
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) if is_code(&error.code) => RemoteError::Refused {
            status: status.as_u16(),
            code: error.code,
            message: plain(&error.message),
        },
        _ => RemoteError::NotUnderstood(format!("status {}", status.as_u16())),
    }
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// What another service says may name a place of its machine; then its code has to do.
fn plain(message: &str) -> String {
    if message.contains(['/', '\\']) {
        return "the other service refused this; ask it directly to see why".into();
    }
    short(message)
}

fn short(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect()
}
