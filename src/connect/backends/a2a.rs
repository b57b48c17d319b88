//! Forwards messages to an agent that speaks A2A.
//!
//! The envelope goes on as it came, so a repeat has the same message id there too. An agent may
//! answer at once, or with a task, which is then asked about until it is over, or with a stream of
//! events, whose pieces are shown as they come. A stream that breaks off is asked about as a task.

mod streamed;

use crate::{
    connect::{
        backend::{
            Backend, BackendError, Part, Progress, ProgressSender, Request, Response, shown,
        },
        options::BackendOptions,
        row::{read_part, wire_parts},
    },
    trust::{Mistrust, Trust},
};
use futures_util::future::{BoxFuture, FutureExt, ready};
use reqwest::{
    Client, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use streamed::{Collected, Events};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5 * 60);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Between two questions about a task.
const ASK_EVERY: Duration = Duration::from_secs(1);
const BODY_BYTES_MAX: usize = 8 << 20;
/// What is told of an error that the agent reports.
const ERROR_CHARS_MAX: usize = 1000;
const EVENT_STREAM: &str = "text/event-stream";
const SEND: &str = "message/send";
const STREAM: &str = "message/stream";
/// JSON-RPC errors of an agent that does not stream: no such method, and unsupported operation.
const NO_STREAM: [i64; 2] = [-32601, -32004];

struct A2a {
    url: Url,
    timeout: Duration,
    stream: bool,
    http: Client,
    closed: CancellationToken,
}

/// Options: `url`, `timeout`, `stream`.
pub(super) fn build(options: &BackendOptions, trust: &Trust) -> Result<Arc<dyn Backend>, String> {
    options.only(&["url", "timeout", "stream"])?;
    let url = options.require("url")?;
    let url = Url::parse(url).map_err(|error| format!("url: {error}"))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some() => {}
        _ => return Err("url: an address is written as in http://127.0.0.1:9000".into()),
    }
    let timeout = options.duration("timeout", TIMEOUT_DEFAULT)?;
    let stream = options.flag("stream", false)?;
    let http = trust.http().connect_timeout(CONNECT_DEADLINE).build();
    let http = http.map_err(|error| error.to_string())?;
    Ok(Arc::new(A2a { url, timeout, stream, http, closed: CancellationToken::new() }))
}

/// A call that did not give a result.
struct CallError {
    /// The number of the JSON-RPC error, if it was one.
    code: Option<i64>,
    error: BackendError,
}

impl From<BackendError> for CallError {
    fn from(error: BackendError) -> Self {
        Self { code: None, error }
    }
}

impl A2a {
    async fn forward(
        &self,
        request: &Request,
        progress: &ProgressSender,
    ) -> Result<Response, BackendError> {
        let mut asked = envelope(request)?;
        if self.stream && asked["method"] == SEND {
            asked["method"] = STREAM.into();
        }
        let mut answer = self.call(&asked, progress).await;
        if let Err(CallError { code: Some(code), .. }) = &answer
            && NO_STREAM.contains(code)
            && asked["method"] == STREAM
        {
            asked["method"] = SEND.into();
            answer = self.call(&asked, progress).await;
        }
        loop {
            match read_result(&answer.map_err(|failed| failed.error)?)? {
                Answer::Whole(parts) => return Ok(Response { parts, is_final: true }),
                Answer::Later(id) => {
                    sleep(ASK_EVERY).await;
                    let ask = json!({
                        "jsonrpc": "2.0", "id": id, "method": "tasks/get", "params": { "id": id },
                    });
                    answer = self.call(&ask, progress).await;
                }
            }
        }
    }

    /// One JSON-RPC call: its result.
    async fn call(&self, envelope: &Value, progress: &ProgressSender) -> Result<Value, CallError> {
        let accepted = format!("application/json, {EVENT_STREAM}");
        let request = self.http.post(self.url.clone()).header(ACCEPT, accepted).json(envelope);
        let mut response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let media = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if status.is_success() && media.is_some_and(|media| media.starts_with(EVENT_STREAM)) {
            return follow(response, progress).await;
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(too_long().into());
            }
            body.extend_from_slice(&chunk);
        }
        match serde_json::from_slice::<Value>(&body) {
            Ok(answer) => result_of(answer, status),
            Err(_) => {
                let what = format!("did not answer in JSON (status {})", status.as_u16());
                Err(judged(status, what).into())
            }
        }
    }
}

/// Reads a stream of events to its end, and shows the pieces of the answer as they come.
async fn follow(
    mut response: reqwest::Response,
    progress: &ProgressSender,
) -> Result<Value, CallError> {
    let (mut events, mut collected) = (Events::default(), Collected::default());
    let mut bytes = 0;
    while !collected.is_over() {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "the agent's stream broke off");
                break;
            }
        };
        bytes += chunk.len();
        if bytes > BODY_BYTES_MAX {
            return Err(too_long().into());
        }
        for event in events.feed(&chunk) {
            let answer = serde_json::from_slice::<Value>(&event).map_err(|_| {
                BackendError::Failed("the agent streams something that is not JSON".into())
            })?;
            if let Some(text) = collected.take(result_of(answer, StatusCode::OK)?) {
                let piece = Response { parts: vec![Part::text(text)], is_final: false };
                progress.send(Progress::Piece(piece)).await;
            }
        }
    }
    collected.into_result().ok_or_else(|| {
        BackendError::Failed("the agent ended its stream without an answer".into()).into()
    })
}

/// The result of a JSON-RPC answer.
fn result_of(mut answer: Value, status: StatusCode) -> Result<Value, CallError> {
    if !answer["error"].is_null() {
        let said = answer["error"]["message"].as_str().or(answer["error"].as_str());
        let said: String = said.unwrap_or("an error").chars().take(ERROR_CHARS_MAX).collect();
        let code = answer["error"]["code"].as_i64();
        return Err(CallError { code, error: judged(status, format!("failed: {said}")) });
    }
    if !status.is_success() {
        let what = format!("failed with status {}", status.as_u16());
        return Err(judged(status, what).into());
    }
    match answer.get_mut("result").map(Value::take) {
        Some(result) if !result.is_null() => Ok(result),
        _ => Err(BackendError::Failed("the agent answered without a result".into()).into()),
    }
}

fn unreachable(error: &reqwest::Error) -> BackendError {
    if let Some(why) = Mistrust::of(error) {
        return BackendError::Failed(format!("the agent cannot be reached: {why}"));
    }
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    BackendError::Failed(format!("the agent cannot be reached: {root}"))
}

fn too_long() -> BackendError {
    BackendError::Refused("the agent's answer is too long".into())
}

/// A request that is wrong stays wrong.
fn judged(status: StatusCode, what: String) -> BackendError {
    let what = format!("the agent {what}");
    match status.as_u16() {
        408 | 429 => BackendError::Failed(what),
        400..500 => BackendError::Refused(what),
        _ => BackendError::Failed(what),
    }
}

/// The envelope as it came, with what A2A wants and an older sender left out.
fn envelope(request: &Request) -> Result<Value, BackendError> {
    let wrong = |_| BackendError::Refused("the message's envelope is not JSON".into());
    let mut envelope: Value = serde_json::from_str(&request.raw).map_err(wrong)?;
    if !envelope["params"]["message"].is_object() {
        envelope = json!({ "params": { "message": {
            "messageId": request.message_id,
            "parts": wire_parts(&request.parts),
        } } });
    }
    let message = &mut envelope["params"]["message"];
    for (name, value) in [("role", "user"), ("kind", "message"), ("messageId", &request.message_id)]
    {
        if message[name].as_str().is_none_or(str::is_empty) {
            message[name] = value.into();
        }
    }
    envelope["jsonrpc"] = "2.0".into();
    if !(envelope["id"].is_string() || envelope["id"].is_number()) {
        envelope["id"] = request.message_id.as_str().into();
    }
    if envelope["method"].as_str().is_none_or(str::is_empty) {
        envelope["method"] = SEND.into();
    }
    Ok(envelope)
}

#[derive(Debug, PartialEq)]
enum Answer {
    Whole(Vec<Part>),
    /// The task with this id is not over.
    Later(String),
}

/// A result is a message, or a task with what it made and a state.
fn read_result(result: &Value) -> Result<Answer, BackendError> {
    let task_state = result["status"]["state"].as_str();
    let mut parts = read_parts(&result["parts"])?;
    if let Some(state) = task_state {
        match (state, result["id"].as_str()) {
            ("submitted" | "working", Some(id)) => return Ok(Answer::Later(id.into())),
            ("failed" | "rejected" | "canceled", _) => {
                let said = read_parts(&result["status"]["message"]["parts"])?;
                let said = crate::connect::backend::joined_text(&said);
                let said: String = said.chars().take(ERROR_CHARS_MAX).collect();
                return Err(BackendError::Refused(format!("the agent's task {state}: {said}")));
            }
            _ => {}
        }
        for artifact in result["artifacts"].as_array().into_iter().flatten() {
            parts.extend(read_parts(&artifact["parts"])?);
        }
        if parts.is_empty() {
            parts = read_parts(&result["status"]["message"]["parts"])?;
        }
    }
    if parts.is_empty() {
        return Err(BackendError::Refused("the agent's answer has no parts".into()));
    }
    Ok(Answer::Whole(parts))
}

fn read_parts(parts: &Value) -> Result<Vec<Part>, BackendError> {
    let wrong = |error| BackendError::Refused(format!("the agent's answer: {error}"));
    parts.as_array().into_iter().flatten().map(read_part).collect::<Result<_, _>>().map_err(wrong)
}

impl Backend for A2a {
    fn handle<'a>(
        &'a self,
        request: &'a Request,
        progress: ProgressSender,
    ) -> BoxFuture<'a, Result<Response, BackendError>> {
        async move {
            let late = || format!("the agent gave no answer within {}", shown(self.timeout));
            tokio::select! {
                answer = timeout(self.timeout, self.forward(request, &progress)) => {
                    answer.unwrap_or_else(|_| Err(BackendError::Failed(late())))
                }
                () = self.closed.cancelled() => Err(BackendError::Closed),
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.cancel();
        ready(()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_shapes_are_read() {
        let parts = json!([{ "kind": "text", "text": "x" }]);
        let whole = || Ok(Answer::Whole(vec![Part::text("x")]));
        let check = |result: Value, expected: Result<Answer, &str>| match (
            read_result(&result),
            expected,
        ) {
            (Ok(answer), Ok(expected)) => assert_eq!(answer, expected, "{result}"),
            (Err(BackendError::Refused(said)), Err(wrong)) => {
                assert!(said.contains(wrong), "{result}: {said}");
            }
            (other, _) => panic!("{result}: {other:?}"),
        };
        check(json!({ "kind": "message", "parts": parts }), whole());
        check(
            json!({ "id": "t", "status": { "state": "completed" },
                    "artifacts": [{ "parts": parts }] }),
            whole(),
        );
        check(
            json!({ "id": "t", "status": { "state": "input-required",
                    "message": { "parts": parts } } }),
            whole(),
        );
        check(
            json!({ "id": "t", "status": { "state": "working" } }),
            Ok(Answer::Later("t".into())),
        );
        check(
            json!({ "id": "t", "status": { "state": "failed", "message": { "parts": parts } } }),
            Err("failed: x"),
        );
        check(json!({}), Err("no parts"));
        check(json!({ "parts": [{ "kind": "moon" }] }), Err("moon"));
    }

    #[test]
    fn an_envelope_goes_on_with_what_was_missing_in_it() {
        let raw = json!({ "jsonrpc": "2.0", "id": 7, "method": "message/stream", "own": 1,
            "params": { "message": { "messageId": "m", "parts": [], "role": "agent" } } });
        let request =
            Request { message_id: "m".into(), raw: raw.to_string(), ..Request::default() };
        let mut expected = raw;
        expected["params"]["message"]["kind"] = "message".into();
        assert_eq!(envelope(&request), Ok(expected));
        let bare = Request {
            message_id: "m".into(),
            raw: json!({ "parts": [{ "text": "x" }] }).to_string(),
            parts: vec![Part::text("x")],
            ..Request::default()
        };
        let sent = envelope(&bare).unwrap();
        assert_eq!(sent["method"], "message/send");
        assert_eq!(
            (&sent["id"], &sent["params"]["message"]["messageId"]),
            (&json!("m"), &json!("m"))
        );
        assert_eq!(sent["params"]["message"]["parts"][0]["kind"], "text");
    }
}
