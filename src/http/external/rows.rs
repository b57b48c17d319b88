//! Rows of an inbox, as deployed clients read them.

use super::{super::App, row_id};
use crate::{
    envelope::{self, Envelope, MESSAGE_SEND},
    log::{ReadFault, RedactionNote},
};
use acta_events::{Event, Record, Sequence, Timestamp, WorkerId};
use acta_projections::External;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::sync::Arc;

/// Deployed clients read no more than 1 MiB of an answer, and try again for ever with more.
pub(super) const PAGE_BYTES_MAX: usize = (1 << 20) - 4_096;

/// The largest envelope, so that its row fits a page.
pub(super) const ENVELOPE_BYTES_MAX: usize = 768 << 10;

const SUMMARY_CHARS_MAX: usize = 120;

/// Which rows are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Messages,
    Replies,
    Both,
}

impl Wanted {
    pub(super) fn messages(self) -> bool {
        self != Self::Replies
    }

    pub(super) fn replies(self) -> bool {
        self != Self::Messages
    }

    /// Whether a record is such a row.
    pub(super) fn holds(self, event: &Event) -> bool {
        match event {
            Event::MessageReceived(_) | Event::WorkerInputAccepted(_) => self.messages(),
            Event::ReplyReceived(_) => self.replies(),
            _ => false,
        }
    }
}

/// The worker that a row came from; none for a person.
pub(super) fn source(event: &Event) -> Option<&WorkerId> {
    match event {
        Event::MessageReceived(received) => received.source.as_ref().map(|from| &from.worker_id),
        Event::ReplyReceived(reply) => Some(&reply.source.worker_id),
        _ => None,
    }
}

#[derive(Serialize)]
struct Row<'a> {
    id: String,
    workspace_id: &'a WorkerId,
    activity_type: &'static str,
    source_id: Option<&'a WorkerId>,
    target_id: &'a WorkerId,
    method: &'a str,
    summary: String,
    request_body: Option<Box<RawValue>>,
    response_body: Option<Box<RawValue>>,
    duration_ms: Option<i64>,
    status: &'static str,
    error_detail: Option<&'a str>,
    created_at: Timestamp,
    /// Of a reply: the message that it answers, by its id with the worker that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<String>,
    /// Who erased the message, or its answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redacted: Vec<RedactionNote>,
}

/// One row as JSON; none if the record is no row.
pub(super) async fn row(
    app: &App,
    agent: &External,
    record: &Arc<Record>,
) -> Result<Option<Vec<u8>>, ReadFault> {
    let header = &record.header;
    let Some(worker) = &header.worker else { return Ok(None) };
    let (activity_type, method, in_reply_to) = match &header.event {
        Event::MessageReceived(received) => ("a2a_receive", received.method.as_str(), None),
        Event::WorkerInputAccepted(_) => ("a2a_receive", MESSAGE_SEND, None),
        Event::ReplyReceived(reply) => ("a2a_reply", MESSAGE_SEND, Some(row_id(reply.message))),
        _ => return Ok(None),
    };
    let content = app.log.content(record).await?;
    let is_input = matches!(header.event, Event::WorkerInputAccepted(_));
    let (summary, request_body) = match &content {
        // It was erased; that there was a message is still told.
        None => (String::new(), None),
        Some(bytes) if is_input => {
            let text = String::from_utf8_lossy(bytes);
            (summary(&text), to_raw_value(&Envelope::of_text(&row_id(header.seq), &text)).ok())
        }
        Some(bytes) => (summary(&envelope::text_of(bytes)), raw(bytes)),
    };
    let answer = match agent.answer_to(header.seq) {
        Some(answer) if activity_type == "a2a_receive" => answered(app, answer).await?,
        _ => None,
    };
    let undelivered = agent.undelivered(header.seq);
    let mut row = Row {
        id: row_id(header.seq),
        workspace_id: worker,
        activity_type,
        source_id: source(&header.event),
        target_id: worker,
        method,
        summary,
        request_body,
        response_body: None,
        duration_ms: None,
        status: if undelivered.is_some() { "error" } else { "ok" },
        error_detail: undelivered.map(|undelivered| undelivered.reason.as_str()),
        created_at: header.time,
        in_reply_to,
        redacted: Vec::new(),
    };
    if content.is_none() {
        row.redacted.extend(app.log.note(header.seq).await?);
    }
    if let Some(Answered { seq, at, body }) = answer {
        row.duration_ms = Some(at.as_millis().saturating_sub(header.time.as_millis()));
        if body.is_none() {
            row.redacted.extend(app.log.note(seq).await?);
        }
        let asked = row.request_body.as_ref().map_or(0, |body| body.get().len());
        // Both together may not fit a page; the question has to.
        let fits = |body: &RawValue| asked + body.get().len() + 4_096 <= PAGE_BYTES_MAX;
        row.response_body = body.filter(|body| fits(body));
    }
    // A row is made of texts, numbers and JSON that was checked: that always serialises.
    Ok(Some(serde_json::to_vec(&row).unwrap_or_default()))
}

/// The answer to a message; without a body if it was erased.
struct Answered {
    seq: Sequence,
    at: Timestamp,
    body: Option<Box<RawValue>>,
}

async fn answered(app: &App, seq: Sequence) -> Result<Option<Answered>, ReadFault> {
    let Some(logged) = app.log.record(seq).await? else { return Ok(None) };
    let body = app.log.content(&logged.record).await?.and_then(|bytes| raw(&bytes));
    Ok(Some(Answered { seq, at: logged.record.header.time, body }))
}

/// JSON as it stands; what is not JSON, as a text.
pub(super) fn raw(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = String::from_utf8_lossy(bytes);
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(raw) => Some(raw.to_owned()),
        Err(_) => to_raw_value(&*text).ok(),
    }
}

fn summary(text: &str) -> String {
    let mut cut: String = text.chars().take(SUMMARY_CHARS_MAX).collect();
    if text.chars().nth(SUMMARY_CHARS_MAX).is_some() {
        cut.push('…');
    }
    cut
}
