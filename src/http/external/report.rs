//! What an agent tells those who watch, and what it reports for the record.

use super::{
    super::{App, access::Caller, body, error::Reply, query},
    address, change, external, message_of, own, own_key, row_id, row_seq,
    rows::ENVELOPE_BYTES_MAX,
    worker,
};
use crate::{
    command::{Ack, Command, ExternalChange, Outcome, Request as CommandRequest},
    error::{Code, Rejection, shown},
};
use acta_events::{ActivityKind, Event, MediaType, OutputKind, Sequence, WorkerRef};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::HeaderMap,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The method of a report that is a piece of an answer which is still being written.
const TEXT_DELTA: &str = "text_delta";

#[derive(Deserialize)]
struct Notification {
    message: String,
    attachments: Option<Value>,
    /// The row of a person's message that this answers.
    reply_to: Option<String>,
}

/// Tells those who watch; with `reply_to` it is the answer to a message of a person.
pub(super) async fn notify(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    request: Request<Body>,
) -> Reply<Json<Value>> {
    let address = address(&id)?;
    own(&caller, &address)?;
    worker(&app, &address)?;
    let headers = request.headers().clone();
    let asked: Notification = body::json(&app, request).await?;
    if asked.message.trim().is_empty() {
        return Err(Rejection::invalid("`message` is blank; say something"));
    }
    let message = message_named(&app, &address, asked.reply_to.as_deref()).await?;
    let mut content = json!({"message": asked.message});
    if let Some(attachments) = asked.attachments.filter(|value| !value.is_null()) {
        content["attachments"] = attachments;
    }
    let bytes = Bytes::from(content.to_string());
    fits(&bytes)?;
    let content = app.log.keep(MediaType::Json, bytes).await?;
    let notify = ExternalChange::Notify { message, content };
    let mut command = change(&caller.0.actor, &address, notify);
    // A message is answered once.
    command.key = match message {
        Some(message) => own_key("ans", &[row_id(message).as_bytes()]),
        None => repeat_key(&headers, &address),
    };
    Ok(recorded("sent", &app.engine.submit(command).await?))
}

/// What makes a repeat of a report or notification recognisable, if the agent says.
fn repeat_key(headers: &HeaderMap, address: &WorkerRef) -> Option<crate::command::CommandKey> {
    let key = headers.get("idempotency-key")?.as_bytes();
    own_key("rep", &[address.worker_id.as_str().as_bytes(), &[0], key])
}

fn recorded(status: &str, ack: &Ack) -> Json<Value> {
    let id = match ack {
        Ack::Recorded { first, .. } => Some(row_id(first.seq())),
        _ => None,
    };
    Json(json!({"status": status, "id": id}))
}

fn fits(bytes: &Bytes) -> Reply<()> {
    if bytes.len() <= ENVELOPE_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the report has {} bytes; at most {ENVELOPE_BYTES_MAX}", bytes.len());
    Err(Rejection::new(Code::PayloadTooLarge, message))
}

/// The message that a row's id names.
async fn message_named(
    app: &App,
    address: &WorkerRef,
    id: Option<&str>,
) -> Reply<Option<Sequence>> {
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Ok(None) };
    let unknown = || {
        let message = format!("`reply_to` {} is not the id of a message to this worker", shown(id));
        Rejection::invalid(message)
    };
    let seq = row_seq(id).ok_or_else(unknown)?;
    message_of(app, address, seq).await?.ok_or_else(unknown)?;
    Ok(Some(seq))
}

/// Keeps a report of an agent.
pub(super) async fn report(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    request: Request<Body>,
) -> Reply<Json<Value>> {
    let address = address(&id)?;
    own(&caller, &address)?;
    worker(&app, &address)?;
    let headers = request.headers().clone();
    let report: Map<String, Value> = body::json(&app, request).await?;
    let kind = report.get("activity_type").cloned().unwrap_or_default();
    let activity: ActivityKind = serde_json::from_value(kind).map_err(|_| {
        Rejection::invalid(
            "`activity_type` is one of a2a_send, a2a_receive, task_update, agent_log, \
             skill_promotion, memory_write, error",
        )
    })?;
    let is_delta = report.get("method").and_then(Value::as_str) == Some(TEXT_DELTA);
    if activity == ActivityKind::AgentLog && is_delta {
        return delta(&caller, &app, &address, &report).await;
    }
    let reply_to = report.get("reply_to").and_then(Value::as_str);
    let message = message_named(&app, &address, reply_to).await?;
    let bytes = Bytes::from(Value::Object(report).to_string());
    fits(&bytes)?;
    let content = app.log.keep(MediaType::Json, bytes).await?;
    let report = ExternalChange::Report { activity, message, content };
    let mut command = change(&caller.0.actor, &address, report);
    command.key = repeat_key(&headers, &address);
    Ok(recorded("ok", &app.engine.submit(command).await?))
}

/// A piece of an answer that is still being written: observers see it at once.
async fn delta(
    caller: &Caller,
    app: &App,
    address: &WorkerRef,
    report: &Map<String, Value>,
) -> Reply<Json<Value>> {
    let state = worker(app, address)?;
    external(&state)?;
    let text = report.get("summary").and_then(Value::as_str).unwrap_or_default();
    if text.is_empty() {
        return Err(Rejection::invalid("a text_delta has its text in `summary`"));
    }
    let bytes = Bytes::from(text.to_owned());
    fits(&bytes)?;
    let content = app.log.keep(MediaType::Text, bytes).await?;
    let turn = state.open_turn.map_or(state.turn + 1, |open| open.turn);
    let outcomes = vec![Outcome::Output { turn, kind: OutputKind::TextDelta, content }];
    let command = Command::Report { worker: address.clone(), outcomes };
    let actor = caller.0.actor.clone();
    let request = CommandRequest { actor, key: None, if_match: None, trace: None, command };
    let ack = app.engine.submit(request).await?;
    debug_assert!(
        !matches!(&ack, Ack::Recorded { first, .. }
            if !matches!(first.header.event, Event::WorkerOutput(_))),
        "a piece of text is recorded as output"
    );
    Ok(recorded("ok", &ack))
}
