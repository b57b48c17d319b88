//! Erasing the content of a record, and listing what was erased.

use super::{
    App,
    access::Caller,
    body,
    error::Reply,
    past::{self, At},
    query::{self, Around},
};
use crate::{
    auth::Permission,
    command::{Command, RedactionTarget},
    eraser,
    error::{Code, Rejection},
    log::{RedactionNote, blocking},
};
use acta_events::{Digest, LogId, MediaType, Sequence};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::Uri,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// How long an answer waits for the storage to be rewritten.
const ERASE_WAIT: Duration = Duration::from_secs(20);

#[derive(Deserialize, Serialize)]
struct RedactRequest {
    sequence: Sequence,
    #[serde(skip_serializing)]
    reason: String,
}

/// Orders an erasure, and waits until it is carried out.
pub(super) async fn redact(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Json<Value>> {
    caller.may(Permission::Command)?;
    let around = Around::of(&request)?;
    let asked: RedactRequest = body::json(&app, request).await?;
    let reason = asked.reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        let message = format!(
            "`reason` says why the content is erased, in 1 to {REASON_BYTES_MAX} bytes; it stays \
             in the log, so it must not repeat what is erased"
        );
        return Err(Rejection::invalid(message));
    }
    let seq = asked.sequence;
    let unknown = || {
        let message = format!("there is no record {seq}; the log has 1 to {}", app.log.head());
        Rejection::new(Code::UnknownRecord, message)
    };
    if seq == Sequence::ZERO || seq > app.log.head() {
        return Err(unknown());
    }
    app.log.retains(seq)?;
    let logged = app.log.record(seq).await?.ok_or_else(unknown)?;
    let text = Bytes::copy_from_slice(reason.as_bytes());
    let reason = app.log.keep(MediaType::Text, text.clone()).await?;
    let key = around.key(&asked, Some((&text, reason.digest)))?;
    let target = RedactionTarget::new(Arc::clone(&logged.record));
    let command = Command::Redact { target, reason: Some(reason), repeats: None };
    app.engine.submit(query::command(caller.0.actor.clone(), around, key, command)).await?;
    let note = app.log.note(seq).await?;
    let note = note.ok_or_else(|| {
        Rejection::new(Code::Internal, "the redaction was recorded, but not found")
    })?;
    let erased = eraser::is_erased(&app.log, note.sequence, ERASE_WAIT).await?;
    Ok(Json(json!({ "redaction": note, "erased": erased })))
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    after: Sequence,
    limit: Option<usize>,
    at: Option<String>,
}

/// An erased content, with what makes its record recognisable in another copy of the log.
#[derive(Serialize)]
struct Item {
    log_id: LogId,
    #[serde(flatten)]
    note: RedactionNote,
    record_digest: Digest,
    content_digest: Option<Digest>,
}

/// What was erased, by the sequence of the record.
pub(super) async fn list(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::ReadAll)?;
    let ListQuery { after, limit, at } = query::query(&uri)?;
    let most = app.limits.list_items;
    let limit = limit.unwrap_or(most);
    if limit == 0 || limit > most {
        return Err(query::limit_outside(limit, most));
    }
    // The first order counts and none is taken back, so the past is part of the present.
    let through = match past::parse(&app, at.as_deref()).await? {
        At::Now => app.log.head(),
        At::Sequence(seq) => seq,
    };
    let log = Arc::clone(&app.log);
    let page = move || {
        let wanted: Vec<Sequence> = {
            let views = log.views().read();
            let ordered = views.redactions.iter().filter(|(_, order)| order.seq <= through);
            let later = ordered.map(|(seq, _)| seq).filter(|seq| *seq > after);
            later.take(limit + 1).collect()
        };
        let next = (wanted.len() > limit).then(|| wanted[limit - 1]);
        let mut items = Vec::new();
        for note in log.notes_blocking(&wanted[..wanted.len().min(limit)])? {
            // One that has expired is in no snapshot of what is left of the log either.
            let logged = log.record_blocking(note.record)?;
            let Some(record) = logged.map(|logged| Arc::clone(&logged.record)) else { continue };
            items.push(Item {
                log_id: log.id(),
                record_digest: record.digest,
                content_digest: record.content.as_ref().map(|content| content.digest),
                note,
            });
        }
        Ok((items, next))
    };
    let (items, next) = blocking(page).await?;
    Ok(Json(json!({ "redactions": items, "next_after": next })))
}
