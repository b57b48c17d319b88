//! Blocks as they are stored, for whoever verifies the log or keeps a copy of it.

use super::{App, access::Caller, error::Reply, query};
use crate::auth::Permission;
use acta_events::Sequence;
use axum::{
    extract::State,
    http::{Uri, header},
    response::{IntoResponse as _, Response},
};
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
