//! Forwards messages to an agent that speaks A2A.
//!
//! The envelope goes on as it came, so a repeat has the same message id there too. An agent may
//! answer at once, or with a task, which is then asked about until it is over.

use crate::{
    connect::{
        backend::{Backend, BackendError, Part, ProgressSender, Request, Response, shown},
        options::BackendOptions,
        row::{read_part, wire_parts},
    },
    trust::{Mistrust, Trust},
};
use futures_util::future::{BoxFuture, FutureExt, ready};
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5 * 60);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Between two questions about a task.
const ASK_EVERY: Duration = Duration::from_secs(1);
const BODY_BYTES_MAX: usize = 8 << 20;
/// What is told of an error that the agent reports.
const ERROR_CHARS_MAX: usize = 1000;

struct A2a {
    url: Url,
    timeout: Duration,
    http: Client,
    closed: CancellationToken,
}

/// Options: `url`, `timeout`.
pub(super) fn build(options: &BackendOptions, trust: &Trust) -> Result<Arc<dyn Backend>, String> {
    options.only(&["url", "timeout"])?;
    let url = options.require("url")?;
    let url = Url::parse(url).map_err(|error| format!("url: {error}"))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some() => {}
        _ => return Err("url: an address is written as in http://127.0.0.1:9000".into()),
    }
    let timeout = options.duration("timeout", TIMEOUT_DEFAULT)?;
    let http = trust.http().connect_timeout(CONNECT_DEADLINE).build();
    let http = http.map_err(|error| error.to_string())?;
    Ok(Arc::new(A2a { url, timeout, http, closed: CancellationToken::new() }))
}

impl A2a {
    async fn forward(&self, request: &Request) -> Result<Response, BackendError> {
        let result = self.call(envelope(request)?).await?;
        let mut result = result;
        loop {
            match read_result(&result)? {
                Answer::Whole(parts) => return Ok(Response { parts, is_final: true }),
                Answer::Later(id) => {
                    sleep(ASK_EVERY).await;
                    let ask = json!({
                        "jsonrpc": "2.0", "id": id, "method": "tasks/get", "params": { "id": id },
                    });
                    result = self.call(ask).await?;
                }
            }
        }
    }

    /// One JSON-RPC call: its result.
    async fn call(&self, envelope: Value) -> Result<Value, BackendError> {
        let failed = |what: String| BackendError::Failed(format!("the agent {what}"));
        let unreachable = |error: reqwest::Error| {
            if let Some(why) = Mistrust::of(&error) {
                return failed(format!("cannot be reached: {why}"));
            }
            let mut root: &dyn std::error::Error = &error;
            while let Some(source) = root.source() {
                root = source;
            }
            failed(format!("cannot be reached: {root}"))
        };
        let request = self.http.post(self.url.clone()).json(&envelope);
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(BackendError::Refused("the agent's answer is too long".into()));
            }
            body.extend_from_slice(&chunk);
        }
        let Ok(mut answer) = serde_json::from_slice::<Value>(&body) else {
            let what = format!("did not answer in JSON (status {})", status.as_u16());
            return Err(judged(status, what));
        };
        if !answer["error"].is_null() {
            let said = answer["error"]["message"].as_str().or(answer["error"].as_str());
            let said: String = said.unwrap_or("an error").chars().take(ERROR_CHARS_MAX).collect();
            return Err(judged(status, format!("failed: {said}")));
        }
        if !status.is_success() {
            return Err(judged(status, format!("failed with status {}", status.as_u16())));
        }
        match answer.get_mut("result").map(Value::take) {
            Some(result) if !result.is_null() => Ok(result),
            _ => Err(failed("answered without a result".into())),
        }
    }
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
        envelope["method"] = "message/send".into();
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
        _: ProgressSender,
    ) -> BoxFuture<'a, Result<Response, BackendError>> {
        async move {
            let late = || format!("the agent gave no answer within {}", shown(self.timeout));
            tokio::select! {
                answer = timeout(self.timeout, self.forward(request)) => {
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
