//! A worker's transcript, and its state as an observer first sees it.

use super::{App, past};
use crate::{
    envelope,
    index::{Posting, PostingKind},
    log::{Log, ReadFault, RedactionNote, blocking, text_span},
};
use acta_events::{Event, InputKind, Record, Sequence, WorkerRef};
use acta_projections::WorkerState;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// How many transcript items a snapshot holds at most.
const SNAPSHOT_ITEMS: u64 = 256;

/// How many marks are looked at backwards for text that is not complete. A turn's text is
/// completed every 64 KiB, so that it cannot be far.
const OPEN_TEXT_MARKS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TranscriptRole {
    User,
    Assistant,
    System,
}

/// One thing that was said.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TranscriptItem {
    /// From 1.
    pub(super) sequence: u64,
    pub(super) worker_ref: WorkerRef,
    pub(super) role: TranscriptRole,
    pub(super) content: String,
    pub(super) event_id: Sequence,
    /// Who erased the content, or pieces of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) redacted: Vec<RedactionNote>,
    /// What was said of it before this record has expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) truncated_before: Option<Sequence>,
}

/// The first transcript item of a worker that has not expired, if others have, up to a record.
pub(super) async fn first_item(
    app: &App,
    state: &WorkerState,
    through: Sequence,
) -> Result<Option<u64>, ReadFault> {
    if !app.log.has_expired(state.created_seq()) {
        return Ok(None);
    }
    let (log, ordinal) = (Arc::clone(&app.log), state.ordinal);
    let first = blocking(move || Ok(log.index().first_item(ordinal, through)?)).await?;
    let first = first.map_or(state.items + 1, u64::from);
    Ok((first > 1).then_some(first))
}

/// The items from `start` (counted from 0), at most `limit`, none completed after `through`.
pub(super) async fn items(
    app: &App,
    state: &WorkerState,
    start: u64,
    limit: usize,
    through: Sequence,
) -> Result<Vec<TranscriptItem>, ReadFault> {
    if limit == 0 || start >= state.items {
        return Ok(Vec::new());
    }
    let from = u32::try_from(start + 1).unwrap_or(u32::MAX);
    let (log, ordinal, worker) = (Arc::clone(&app.log), state.ordinal, address(state));
    blocking(move || {
        let postings = log.index().items(ordinal, from, limit, through)?;
        postings.iter().filter_map(|posting| item(&log, &worker, posting).transpose()).collect()
    })
    .await
}

fn address(state: &WorkerState) -> WorkerRef {
    WorkerRef { runtime_id: state.runtime.clone(), worker_id: state.worker.clone() }
}

fn item(
    log: &Log,
    worker: &WorkerRef,
    posting: &Posting,
) -> Result<Option<TranscriptItem>, ReadFault> {
    let Some(logged) = log.records_of(std::slice::from_ref(posting))?.pop() else {
        return Ok(None);
    };
    let record = &logged.record;
    let (role, (content, erased)) = match &record.header.event {
        Event::WorkerInputAccepted(accepted) => {
            let role = match accepted.kind {
                InputKind::User => TranscriptRole::User,
                InputKind::System => TranscriptRole::System,
            };
            (role, text_content(log, record)?)
        }
        Event::MessageReceived(_) | Event::ReplyReceived(_) => {
            (TranscriptRole::User, envelope_text(log, record)?)
        }
        Event::MessageAnswered(_) | Event::WorkerNotified(_) => {
            (TranscriptRole::Assistant, envelope_text(log, record)?)
        }
        Event::WorkerReported(_) => (TranscriptRole::System, envelope_text(log, record)?),
        _ => match text_span(record) {
            Some(span) => {
                let text = log.text_blocking(posting.worker, span, record.seq())?;
                (TranscriptRole::Assistant, text)
            }
            None => return Ok(None),
        },
    };
    Ok(Some(TranscriptItem {
        sequence: u64::from(posting.items),
        worker_ref: worker.clone(),
        role,
        content,
        event_id: record.seq(),
        redacted: log.notes_blocking(&erased)?,
        truncated_before: begun_before(log, text_span(record).map(|span| span.first)),
    }))
}

/// The first record that is there, of what began before.
fn begun_before(log: &Log, first: Option<Sequence>) -> Option<Sequence> {
    let first = first.filter(|first| log.has_expired(*first));
    first.map(|_| log.expired_through().next())
}

/// As [`text_content`], of a content that is an envelope.
fn envelope_text(log: &Log, record: &Record) -> Result<(String, Vec<Sequence>), ReadFault> {
    Ok(match log.content_blocking(record)? {
        Some(bytes) => (envelope::text_of(&bytes), vec![]),
        None => (String::new(), vec![record.seq()]),
    })
}

/// The text of a record; if it is erased, its sequence too.
fn text_content(log: &Log, record: &Record) -> Result<(String, Vec<Sequence>), ReadFault> {
    let bytes = log.content_blocking(record)?;
    let erased = if bytes.is_none() { vec![record.seq()] } else { vec![] };
    Ok((String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned(), erased))
}

/// The worker's state at a position, in the shape of a `snapshot` payload.
pub(super) async fn snapshot(
    app: &App,
    now: &WorkerState,
    at: Sequence,
) -> Result<Value, ReadFault> {
    let (items_then, busy, partial) = state_at(app, now, at).await?;
    let truncated = first_item(app, now, app.log.head()).await?;
    let start = items_then.saturating_sub(SNAPSHOT_ITEMS);
    let limit = usize::try_from(SNAPSHOT_ITEMS).unwrap_or(usize::MAX);
    let mut entries = Vec::new();
    for item in items(app, now, start, limit, at).await? {
        entries.push(json!(item));
    }
    if let Some(Partial { content, redacted }) = partial {
        let mut entry = json!({
            "worker_ref": address(now),
            "role": TranscriptRole::Assistant,
            "content": content,
            "partial": true,
        });
        if !redacted.is_empty() {
            entry["redacted"] = json!(redacted);
        }
        entries.push(entry);
    }
    let mut data = json!({
        "entries": entries,
        "greeting": {
            "worker_name": now.worker,
            "cwd": "",
            "provider": "acta",
            "model": now.spec.template.as_deref().unwrap_or(""),
            "scope_summary": "",
            "tools": [],
            "context_window": 0,
            "context_tokens": 0,
        },
        "status": if busy { "running" } else { "idle" },
    });
    if let Some(first) = truncated.filter(|first| *first > start + 1) {
        data["truncated_before"] = first.into();
    }
    Ok(data)
}

/// Text that was not complete.
struct Partial {
    content: String,
    /// Who erased pieces of it.
    redacted: Vec<RedactionNote>,
}

/// Transcript length, whether there was work in hand, and the text that was not complete.
async fn state_at(
    app: &App,
    now: &WorkerState,
    at: Sequence,
) -> Result<(u64, bool, Option<Partial>), ReadFault> {
    let (log, ordinal) = (Arc::clone(&app.log), now.ordinal);
    let marks = blocking(move || {
        let marks = log.index().before(ordinal, at, OPEN_TEXT_MARKS)?;
        let deltas = marks.iter().take_while(|mark| {
            matches!(mark.kind, PostingKind::Delta | PostingKind::Other | PostingKind::Item)
        });
        let open: Vec<_> = deltas.filter(|mark| mark.kind == PostingKind::Delta).copied().collect();
        let (mut text, mut erased) = (Vec::new(), Vec::new());
        for logged in log.records_of(&open)?.iter().rev() {
            match log.content_blocking(&logged.record)? {
                Some(bytes) => text.extend(bytes),
                None => erased.push(logged.record.seq()),
            }
        }
        let content = String::from_utf8_lossy(&text).into_owned();
        let redacted = log.notes_blocking(&erased)?;
        let partial = (!open.is_empty()).then_some(Partial { content, redacted });
        Ok((marks.first().copied(), partial))
    })
    .await?;
    let (last, partial) = marks;
    Ok(match last {
        Some(mark) => (u64::from(mark.items), mark.run != 0, partial),
        None => match past::worker_at(app, now, at).await? {
            // Its records may all have expired.
            Some(state) => (state.items, state.is_busy(), None),
            None => (0, false, None),
        },
    })
}
