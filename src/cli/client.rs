//! The HTTP side of the command line: one call, its deadline, its retries and its errors.

use super::credentials::Credentials;
use crate::trust::{Mistrust, Trust};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Method, StatusCode, Url, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
const ATTEMPTS_MAX: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_millis(200);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

/// A call that did not give a result.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Nothing listens there.
    #[error(
        "no Acta service answers at {url}; start one with `acta serve`, or name another with --url"
    )]
    NoService { url: String },
    /// Somebody listens there who is not believed.
    #[error("{url}: {why}")]
    Mistrusted { url: String, why: Mistrust },
    /// The service wants another token, or one at all.
    #[error(
        "{} (unauthorized); looked for a token in: {}",
        if *.sent { "the service refused the token" } else { "the service wants a token, and none was found" },
        .looked.join(", ")
    )]
    Unauthorized { sent: bool, looked: Vec<String> },
    /// The service said no.
    #[error("{message} ({code})")]
    Api { status: u16, code: String, message: String },
    /// The connection broke or took too long: what was asked for may have happened.
    #[error("{what}{}", .key.as_ref().map(|key| format!(
        "; it is not known whether the command was taken: repeated with --idempotency-key {key} \
         it happens once"
    )).unwrap_or_default())]
    Unknown { what: String, key: Option<String> },
    /// Whoever answered does not speak as Acta does.
    #[error("{url} answered, but not as an Acta service does: {what}")]
    NotActa { url: String, what: String },
}

impl ClientError {
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Api { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// One request. Commands bear an idempotency key, so that they can be repeated.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    pub(super) idempotency_key: Option<String>,
    revision: Option<u64>,
}

impl Call {
    fn new(method: Method, path: &[&str]) -> Self {
        let idempotency_key = (method != Method::GET).then(fresh_key);
        let path = path.iter().map(|&segment| segment.to_owned()).collect();
        Self { method, path, query: Vec::new(), body: None, idempotency_key, revision: None }
    }

    /// Reads. The path is given by its segments, after `/v1`.
    pub(super) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: &[&str], body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::POST, path) }
    }

    pub(super) fn put(path: &[&str], body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::PUT, path) }
    }

    pub(super) fn delete(path: &[&str]) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub(super) fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// The person's own key instead of a fresh one.
    pub(super) fn key(mut self, key: Option<&acta_events::IdempotencyKey>) -> Self {
        if let Some(key) = key {
            self.idempotency_key = Some(key.to_string());
        }
        self
    }

    /// Without a key, for what the service does not do again under one: it is attempted once.
    pub(super) fn once(mut self) -> Self {
        self.idempotency_key = None;
        self
    }

    fn may_repeat(&self) -> bool {
        self.method == Method::GET || self.idempotency_key.is_some()
    }

    fn unknown(&self, what: String) -> ClientError {
        ClientError::Unknown { what, key: self.idempotency_key.clone() }
    }

    /// Only if the worker is still at this revision.
    pub(super) fn if_revision(mut self, revision: Option<u64>) -> Self {
        self.revision = revision;
        self
    }
}

fn fresh_key() -> String {
    format!("cli-{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()))
}

/// A service, and how to be let in.
pub(super) struct Client {
    base: Url,
    http: reqwest::Client,
    trust: Trust,
    credentials: Credentials,
}

impl Client {
    pub(super) fn new(base: Url, credentials: Credentials, trust: &Trust) -> anyhow::Result<Self> {
        let http = trust
            .http()
            .connect_timeout(CONNECT_DEADLINE)
            .user_agent(concat!("acta/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { base, http, trust: trust.clone(), credentials })
    }

    /// What opens a WebSocket to the service.
    pub(super) fn connector(&self) -> tokio_tungstenite::Connector {
        self.trust.connector()
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.credentials.token.as_ref().map(super::credentials::Secret::expose)
    }

    pub(super) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        url
    }

    pub(super) fn no_service(&self) -> ClientError {
        ClientError::NoService { url: self.shown() }
    }

    /// Why there is no connection, after an attempt at one.
    pub(super) fn unconnected(&self, error: &(dyn std::error::Error + 'static)) -> ClientError {
        match Mistrust::of(error) {
            Some(why) => ClientError::Mistrusted { url: self.shown(), why },
            None => self.no_service(),
        }
    }

    pub(super) fn not_acta(&self, what: impl ToString) -> ClientError {
        ClientError::NotActa { url: self.shown(), what: what.to_string() }
    }

    fn shown(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Makes the call; repeats it, within its deadline, where the connection or the service
    /// failed in a way that may pass.
    pub(super) async fn send(&self, call: Call) -> Result<Value, ClientError> {
        self.send_as(call).await
    }

    /// As [`Self::send`], with the answer understood as something else than any JSON.
    pub(super) async fn send_as<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let mut attempt = 1;
        loop {
            let (failure, wait) = match self.attempt(&call, deadline).await {
                Ok(value) => return Ok(value),
                Err(Failure::Final(ClientError::NoService { .. })) if attempt > 1 => {
                    return Err(call.unknown("the service went away".into()));
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error, wait)) => (error, wait),
            };
            let wait = wait.unwrap_or(RETRY_DELAY * attempt).min(RETRY_AFTER_MAX);
            let is_last = attempt == ATTEMPTS_MAX || !call.may_repeat();
            if is_last || Instant::now() + wait >= deadline {
                return Err(failure);
            }
            attempt += 1;
            sleep(wait).await;
        }
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        call: &Call,
        deadline: Instant,
    ) -> Result<T, Failure> {
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        let mut url = self.url(&path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = self.http.request(call.method.clone(), url);
        if let Some(token) = self.token() {
            request = request.bearer_auth(token);
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(revision) = call.revision {
            request = request.header(header::IF_MATCH, format!("\"{revision}\""));
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let unknown = |what: String| Failure::Passing(call.unknown(what), None);
        let exchange = async {
            let response = request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, response.bytes().await?))
        };
        let (status, headers, body) = match timeout_at(deadline, exchange).await {
            Ok(Ok(answer)) => answer,
            // Nothing was sent; a service that does not listen will not by itself.
            Ok(Err(error)) if error.is_connect() => {
                return Err(Failure::Final(self.unconnected(&error)));
            }
            Ok(Err(error)) => {
                return Err(unknown(format!("the connection broke: {}", root(&error))));
            }
            Err(_) => {
                return Err(unknown(format!("no answer in {} s", REQUEST_DEADLINE.as_secs())));
            }
        };
        if status.is_success() {
            let body: &[u8] = if body.is_empty() { b"null" } else { &body };
            let value = serde_json::from_slice(body);
            return value.map_err(|error| Failure::Final(self.not_acta(error)));
        }
        let error = self.refusal(status, &body);
        if !matches!(status.as_u16(), 502..=504) {
            return Err(Failure::Final(error));
        }
        let wait = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Err(Failure::Passing(error, wait.and_then(|s| s.parse().ok()).map(Duration::from_secs)))
    }

    /// Begins to read an answer of a record a line. It has no deadline of its own.
    pub(super) async fn get_lines(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
    ) -> Result<reqwest::Response, ClientError> {
        let mut url = self.url(path);
        url.query_pairs_mut().extend_pairs(query);
        let mut request = self.http.get(url).header(header::ACCEPT, "application/x-ndjson");
        if let Some(token) = self.token() {
            request = request.bearer_auth(token);
        }
        let broken = |what: String| ClientError::Unknown { what, key: None };
        let response = request.send().await.map_err(|error| match error.is_connect() {
            true => self.unconnected(&error),
            false => broken(format!("the connection broke: {}", root(&error))),
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.map_err(|error| broken(root(&error)))?;
        if matches!(status.as_u16(), 502..=504) {
            return Err(broken(format!("the service is not ready (status {status})")));
        }
        Err(self.refusal(status, &body))
    }

    /// Asks once for something that comes in pieces.
    pub(super) async fn post_for_stream(
        &self,
        path: &[&str],
        body: &Value,
    ) -> Result<reqwest::Response, ClientError> {
        let mut request = self.http.post(self.url(path)).json(body);
        if let Some(token) = self.token() {
            request = request.bearer_auth(token);
        }
        let broken = |what: String| ClientError::Unknown { what, key: None };
        let response = request.send().await.map_err(|error| match error.is_connect() {
            true => self.no_service(),
            false => broken(format!("the connection broke: {}", root(&error))),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|error| broken(root(&error)))?;
        Err(self.refusal(status, &body))
    }

    /// Reads an answer that is not JSON. The path is given from the top.
    pub(super) async fn get_bytes(
        &self,
        path: &str,
        query: Option<(&'static str, u64)>,
    ) -> Result<bytes::Bytes, ClientError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        if let Some((name, value)) = query {
            url.query_pairs_mut().append_pair(name, &value.to_string());
        }
        let mut request = self.http.get(url).timeout(REQUEST_DEADLINE);
        if let Some(token) = self.token() {
            request = request.bearer_auth(token);
        }
        let broken = |error: reqwest::Error| match error.is_connect() {
            true => self.unconnected(&error),
            false => ClientError::Unknown {
                what: format!("the connection broke: {}", root(&error)),
                key: None,
            },
        };
        let response = request.send().await.map_err(broken)?;
        let status = response.status();
        let body = response.bytes().await.map_err(broken)?;
        if status.is_success() { Ok(body) } else { Err(self.refusal(status, &body)) }
    }

    /// What an answer that is not a success means.
    pub(super) fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        if status == StatusCode::UNAUTHORIZED {
            let looked = self.credentials.looked.clone();
            return ClientError::Unauthorized { sent: self.token().is_some(), looked };
        }
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| value["error"][name].as_str().map(str::to_owned);
        match (text("code"), text("message")) {
            (Some(code), Some(message)) => {
                ClientError::Api { status: status.as_u16(), code, message }
            }
            _ => self.not_acta(format_args!("status {status}")),
        }
    }
}

enum Failure {
    Final(ClientError),
    /// With how long the service asked to wait.
    Passing(ClientError, Option<Duration>),
}

fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
