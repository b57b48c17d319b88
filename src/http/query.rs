//! Reading query strings and the headers that surround a command.

use super::{App, error::Reply};
use crate::{
    agents::external_runtime,
    command::CommandKey,
    error::{Code, Rejection, shown},
};
use acta_events::{
    Actor, Digest, IdempotencyKey, Revision, RuntimeId, TraceParent, WorkerId, WorkerRef, sha256,
};
use axum::{
    extract::{FromRequestParts, Path},
    http::{HeaderMap, Method, Uri, request::Parts},
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Parses the query string of a request.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Reply<T> {
    let query = axum::extract::Query::<T>::try_from_uri(uri).map_err(|error| {
        let text = axum::response::IntoResponse::into_response(error);
        let message = format!(
            "the query string `{}` is not what it should be (status {})",
            shown(uri.query().unwrap_or_default()),
            text.status().as_u16()
        );
        Rejection::new(Code::InvalidQuery, message)
    })?;
    Ok(query.0)
}

/// A number that a query has to give. `what` says what it stands for.
pub(super) fn number(name: &str, what: &str, text: Option<&str>) -> Reply<u64> {
    let given = match text {
        Some(text) => match text.parse() {
            Ok(number) => return Ok(number),
            Err(_) => format!("not `{}`", shown(text)),
        },
        None => "and is missing".into(),
    };
    let message = format!("`{name}` takes {what}, as in {name}=17, {given}");
    Err(Rejection::new(Code::InvalidQuery, message))
}

/// Refuses a page of nothing, or one that is too long.
pub(super) fn limit_outside(limit: usize, most: usize) -> Rejection {
    let code = if limit == 0 { Code::InvalidQuery } else { Code::LimitTooLarge };
    Rejection::new(code, format!("`limit` is 1 to {most}"))
}

/// The part of a path that varies. What is not UTF-8 is no identifier of any kind: it becomes
/// a character that none has, so that it is refused as the route refuses any other.
pub(super) struct Segment(pub(super) String);

impl FromRequestParts<App> for Segment {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let text = Path::<String>::from_request_parts(parts, app).await;
        Ok(Self(text.map_or_else(|_| "\u{fffd}".into(), |Path(text)| text)))
    }
}

/// The same where two parts of a path vary.
pub(super) struct Segments(pub(super) String, pub(super) String);

impl FromRequestParts<App> for Segments {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let texts = Path::<(String, String)>::from_request_parts(parts, app).await;
        let (first, second) =
            texts.map_or_else(|_| ("\u{fffd}".into(), "\u{fffd}".into()), |Path(texts)| texts);
        Ok(Self(first, second))
    }
}

/// The worker that a path names: of this service's own runtime, or one that an agent connects
/// in for. The ids of both are drawn from one space.
pub(super) fn own_worker(app: &App, text: &str) -> Reply<WorkerRef> {
    let worker_id = WorkerId::parse(text)
        .map_err(|error| Rejection::new(Code::InvalidWorkerId, error.to_string()))?;
    Ok(WorkerRef { runtime_id: runtime_of(app, &worker_id), worker_id })
}

/// The runtime of a worker that is named by its id alone.
pub(super) fn runtime_of(app: &App, worker: &WorkerId) -> RuntimeId {
    let external = external_runtime();
    let is_external = app.log.views().read().workers.get(&external, worker).is_some();
    if is_external { external } else { app.runtime.clone() }
}

/// A runtime that a path names.
pub(super) fn runtime_id(text: &str) -> Reply<RuntimeId> {
    RuntimeId::parse(text)
        .map_err(|error| Rejection::new(Code::InvalidIdentifier, error.to_string()))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Reply<Option<&'a str>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| {
        Rejection::invalid(format!("the header {name} has characters that headers do not have"))
    })?;
    Ok(Some(text))
}

/// What surrounds a command in the headers of its request.
pub(super) struct Around {
    key: Option<IdempotencyKey>,
    pub(super) if_match: Option<Revision>,
    pub(super) trace: Option<TraceParent>,
    method: Method,
    path: String,
}

impl Around {
    pub(super) fn of<B>(request: &axum::http::Request<B>) -> Reply<Self> {
        let headers = request.headers();
        let key = header(headers, "idempotency-key")?
            .map(IdempotencyKey::parse)
            .transpose()
            .map_err(|error| Rejection::invalid(error.to_string()))?;
        let if_match = header(headers, "if-match")?.map(revision).transpose()?;
        // A trace that is not well-formed is ignored, as its specification asks for.
        let trace = header(headers, "traceparent")
            .ok()
            .flatten()
            .and_then(|text| TraceParent::parse(text).ok())
            .or_else(|| crate::trace::of(&tracing::Span::current()));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        Ok(Self { key, if_match, trace, method, path })
    }

    /// The key alone.
    pub(super) fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        self.key.as_ref()
    }

    /// The key with the fingerprint of what is asked: method, path, the fields of the body,
    /// and for the content its digest.
    pub(super) fn key(
        &self,
        fields: &impl Serialize,
        content: Option<(&Bytes, Digest)>,
    ) -> Reply<Option<CommandKey>> {
        let Some(key) = self.key.clone() else { return Ok(None) };
        let fields = serde_json::to_vec(fields).map_err(|error| {
            Rejection::invalid(format!("the body cannot be fingerprinted: {error}"))
        })?;
        let parts: [&[u8]; 5] =
            [self.method.as_str().as_bytes(), &[0], self.path.as_bytes(), &[0], &fields];
        let asked = sha256(&parts);
        let bytes = content.map(|(bytes, _)| bytes.clone());
        Ok(Some(CommandKey::new(key, asked, content.map(|(_, digest)| digest), bytes)))
    }
}

/// `"7"`, with or without its quotation marks.
fn revision(text: &str) -> Reply<Revision> {
    let inner = text.trim().trim_matches('"');
    inner.parse().map(Revision).map_err(|_| {
        let message =
            format!("If-Match takes the revision of a worker, as in \"7\", not `{}`", shown(text));
        Rejection::invalid(message)
    })
}

/// A command of an actor with everything around it.
pub(super) fn command(
    actor: Actor,
    around: Around,
    key: Option<CommandKey>,
    command: crate::command::Command,
) -> crate::command::Request {
    crate::command::Request { actor, key, if_match: around.if_match, trace: around.trace, command }
}
