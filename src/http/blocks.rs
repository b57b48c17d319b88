//! Blocks as they are stored, for whoever verifies the log or keeps a copy of it.

use super::{App, access::Caller, error::Reply, query};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
    log::{Log, ReadFault},
};
use acta_events::{ContentBody, Sequence};
use axum::{
    extract::State,
    http::{Uri, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
struct BlocksQuery {
    #[serde(default)]
    after: Sequence,
}

/// Some blocks, each with its length in front, from the one that holds the sequence after
/// `after`; none at the head.
pub(super) async fn list(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Response> {
    caller.may(Permission::ReadAll)?;
    let BlocksQuery { after } = query::query(&uri)?;
    let log = Arc::clone(&app.log);
    let bytes = crate::log::blocking(move || log.framed_blocks(after)).await?;
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, bytes).into_response())
}

#[derive(Deserialize)]
struct ContentQuery {
    seq: Option<String>,
}

/// The content of a record as it is stored: its salt, then what was written. The content digest in
/// the block is SHA-256 over both.
pub(super) async fn content(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Response> {
    caller.may(Permission::ReadAll)?;
    let ContentQuery { seq } = query::query(&uri)?;
    let seq = query::number("seq", "the sequence of a record", seq.as_deref()).map(Sequence)?;
    let log = Arc::clone(&app.log);
    let found = crate::log::blocking(move || find(&log, seq)).await?;
    let bytes = match found {
        Found::Content(bytes) => bytes,
        Found::Erased => {
            let by = app.log.note(seq).await?.map(|note| format!(" by {} at {}", note.by, note.at));
            let by = by.unwrap_or_default();
            let message = format!("the content of record {seq} was erased{by}");
            return Err(Rejection::new(Code::ContentErased, message));
        }
        Found::Nothing => {
            let message = format!("the log has no record {seq} with a content");
            return Err(Rejection::new(Code::UnknownRecord, message));
        }
    };
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, bytes).into_response())
}

enum Found {
    Content(Bytes),
    Erased,
    Nothing,
}

fn find(log: &Log, seq: Sequence) -> Result<Found, ReadFault> {
    // An order to erase it may come, and be carried out, after the record was looked at.
    for last in [false, true] {
        if seq == Sequence::ZERO || seq > log.head() {
            return Ok(Found::Nothing);
        }
        log.retains(seq)?;
        let Some(logged) = log.record_blocking(seq)? else { return Ok(Found::Nothing) };
        match logged.record.content.as_ref().map(|content| &content.body) {
            None => return Ok(Found::Nothing),
            Some(ContentBody::Erased) => return Ok(Found::Erased),
            Some(_) => match log.salted_content_blocking(&logged.record) {
                Err(fault) if last => return Err(fault),
                Err(_) => {}
                found => return Ok(found?.map_or(Found::Erased, Found::Content)),
            },
        }
    }
    Ok(Found::Nothing)
}
