//! Messages to an agent, and answers to messages, which come by the same call.

use super::{
    super::{App, access::Caller, body, error::Reply, query},
    address, change, external, message_of, own_key, row_id, row_seq,
    rows::ENVELOPE_BYTES_MAX,
    worker,
};
use crate::{
    agents::external_runtime,
    auth::Permission,
    command::{Ack, ExternalChange},
    envelope::Envelope,
    error::{Code, Rejection},
};
use acta_events::{DeliveryMode, Event, MediaType, Role, Sequence, WorkerRef};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use serde_json::json;

/// The row that a message became, for those who want to know.
const MESSAGE_ID: HeaderName = HeaderName::from_static("acta-message-id");

/// A message for the worker, or the answer of another one to a message of it.
pub(super) async fn send(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::SendMessage)?;
    let target = address(&id)?;
    let header_key = request.headers().get("idempotency-key").cloned();
    let body = body::read(&app, request.into_body()).await?;
    let envelope = Envelope::parse(&body, fresh_id)?;
    let bytes = Bytes::from(envelope.json.to_string());
    if bytes.len() > ENVELOPE_BYTES_MAX {
        let message = format!(
            "the message has {} bytes; an agent reads at most {ENVELOPE_BYTES_MAX}",
            bytes.len()
        );
        return Err(Rejection::new(Code::PayloadTooLarge, message));
    }
    if let Some((by, message)) = answered(&caller, &app, &target, &envelope).await? {
        answer(&caller, &app, &by, message, &target, bytes).await?;
        let mode = worker(&app, &target)?;
        let mode = external(&mode)?.delivery.mode;
        return Ok(queued(mode, &envelope.method, message));
    }
    let state = worker(&app, &target)?;
    let header_key = header_key.as_ref().and_then(|key| key.to_str().ok());
    let key = envelope.key.as_deref().or(header_key).and_then(|key| {
        own_key("msg", &[target.worker_id.as_str().as_bytes(), &[0], key.as_bytes()])
    });
    let source = (caller.0.role == Role::Worker).then(|| caller.0.worker.clone()).flatten();
    let content = app.log.keep(MediaType::Json, bytes).await?;
    let method = envelope.method.clone();
    let message = ExternalChange::Message { source, method, content };
    let mut command = change(&caller.0.actor, &target, message);
    command.key = key;
    let Ack::Recorded { first, .. } = app.engine.submit(command).await? else {
        return Err(Rejection::new(Code::Internal, "the message was not recorded"));
    };
    match external(&state)?.delivery.mode {
        DeliveryMode::Poll => Ok(queued(DeliveryMode::Poll, &envelope.method, first.seq())),
        DeliveryMode::Push => wait_for_answer(&app, &target, first.seq(), &envelope.method).await,
    }
}

/// A message id for a message that has none.
fn fresh_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

fn queued(mode: DeliveryMode, method: &str, message: Sequence) -> Response {
    let answer = json!({"status": "queued", "delivery_mode": mode, "method": method});
    with_id(Json(answer).into_response(), message)
}

fn with_id(mut response: Response, message: Sequence) -> Response {
    if let Ok(value) = HeaderValue::from_str(&row_id(message)) {
        response.headers_mut().insert(MESSAGE_ID, value);
    }
    response
}

/// The message that this answers, if it is an answer: the caller is a worker, the envelope's id
/// is that of a row of its inbox, and that row came from the worker that is called.
async fn answered(
    caller: &Caller,
    app: &App,
    target: &WorkerRef,
    envelope: &Envelope,
) -> Reply<Option<(WorkerRef, Sequence)>> {
    let by = caller
        .0
        .worker
        .as_ref()
        .filter(|by| caller.0.role == Role::Worker && by.runtime_id == external_runtime());
    let (Some(by), Some(seq)) = (by, envelope.id().and_then(row_seq)) else { return Ok(None) };
    let Some(record) = message_of(app, by, seq).await? else { return Ok(None) };
    let Event::MessageReceived(received) = &record.header.event else { return Ok(None) };
    Ok((received.source.as_ref() == Some(target)).then(|| (by.clone(), seq)))
}

/// Records an answer, once, with the reply that the asker gets.
async fn answer(
    caller: &Caller,
    app: &App,
    by: &WorkerRef,
    message: Sequence,
    asker: &WorkerRef,
    bytes: Bytes,
) -> Reply<()> {
    // Two contents, each with its own salt: one can be erased without the other.
    let answer = app.log.keep(MediaType::Json, bytes.clone()).await?;
    let reply = Some(app.log.keep(MediaType::Json, bytes).await?);
    let asker = Some(asker.clone());
    let answer = ExternalChange::Answer { message, asker, answer, reply };
    let mut command = change(&caller.0.actor, by, answer);
    command.key = own_key("ans", &[row_id(message).as_bytes()]);
    app.engine.submit(command).await?;
    Ok(())
}

/// The answer of an agent that messages are posted to, as far as it comes in time.
async fn wait_for_answer(
    app: &App,
    target: &WorkerRef,
    message: Sequence,
    method: &str,
) -> Reply<Response> {
    let mut news = app.log.watch_worker(worker(app, target)?.ordinal);
    let deadline = tokio::time::Instant::now() + app.agents.answer_wait;
    loop {
        let state = worker(app, target)?;
        let agent = external(&state)?;
        if let Some(answer) = agent.answer_to(message) {
            let Some(logged) = app.log.record(answer).await? else { break };
            let body = app.log.content(&logged.record).await?.unwrap_or_default();
            let response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
            return Ok(with_id(response, message));
        }
        if let Some(undelivered) = agent.undelivered(message) {
            let why = format!(
                "the message could not be delivered: {}; it is kept as {}",
                undelivered.reason,
                row_id(message)
            );
            return Err(Rejection::new(Code::DeliveryFailed, why));
        }
        if !agent.waiting.contains(&message) {
            // It was delivered, and the agent had nothing to say.
            break;
        }
        tokio::select! {
            changed = news.changed() => if changed.is_err() { break },
            () = app.shutdown.begun() => break,
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    Ok(queued(DeliveryMode::Push, method, message))
}
