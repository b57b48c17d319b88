//! All views at one moment, rebuilt.

use super::{App, access::Caller, error::Reply, past, query};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
    overview::{self, Wanted, overview},
};
use axum::{Json, extract::State, http::Uri};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// How many workers one answer lists at most.
const WORKERS_MAX: usize = 10_000;

#[derive(Deserialize)]
struct ViewsQuery {
    at: Option<String>,
    runtime: Option<String>,
    worker: Option<String>,
    status: Option<String>,
    limit: Option<usize>,
}

/// Rebuilds all views up to a moment, the present unless another is given, and shows them with
/// their digests.
pub(super) async fn show(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::ReadAll)?;
    let query: ViewsQuery = query::query(&uri)?;
    let invalid = |message: String| Rejection::new(Code::InvalidQuery, message);
    let limit = query.limit.unwrap_or(WORKERS_MAX);
    if limit > WORKERS_MAX {
        let message = format!("limit {limit} is larger than the {WORKERS_MAX} that are listed");
        return Err(Rejection::new(Code::LimitTooLarge, message));
    }
    let wanted = Wanted {
        runtime: query.runtime.as_deref().map(query::runtime_id).transpose()?,
        worker: query.worker,
        status: query.status.as_deref().map(overview::parse_status).transpose().map_err(invalid)?,
        limit,
    };
    let seq = match past::parse(&app, query.at.as_deref()).await? {
        past::At::Now => app.log.head(),
        past::At::Sequence(seq) => seq,
    };
    let _alone = app.rebuilding.lock().await;
    let log = Arc::clone(&app.log);
    let rebuild = move || Ok(overview(&log.projections_at(seq)?, &wanted));
    Ok(Json(crate::log::blocking(rebuild).await?))
}
