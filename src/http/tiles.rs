//! Checkpoints and tiles, as C2SP `tlog-tiles` has them: what monitors and mirrors read.
//!
//! A tile never changes once it is there, so it may be kept for ever; of a checkpoint there is
//! always a newer one.

use super::{App, access::Caller, error::Reply};
use crate::{
    audit::{SignedCheckpoint, TILE_WIDTH, TileKind, TilePath},
    auth::Permission,
    error::{Code, Rejection, shown},
    log::ReadFault,
};
use acta_events::Sequence;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use std::sync::Arc;

/// How long an entry is, in front of it: that of a digest.
const ENTRY_LENGTH: [u8; 2] = [0, 32];

pub(super) fn routes() -> Router<App> {
    Router::new().route("/checkpoint", get(checkpoint)).route("/tile/{*path}", get(tile))
}

/// Everybody, or whoever may read the whole log.
fn admit(app: &App, request: &Request) -> Reply<()> {
    if app.public_log {
        return Ok(());
    }
    let caller = request.extensions().get::<Caller>().cloned();
    let nobody = || Rejection::new(Code::Unauthorized, "send `Authorization: Bearer <token>`");
    caller.ok_or_else(nobody)?.may(Permission::ReadAll)
}

/// The newest signed checkpoint.
async fn checkpoint(State(app): State<App>, request: Request) -> Reply<Response> {
    admit(&app, &request)?;
    Ok(note(&app.notary.latest()))
}

fn note(checkpoint: &SignedCheckpoint) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, checkpoint.text().to_owned()).into_response()
}

/// A tile of hashes or of entries.
async fn tile(State(app): State<App>, request: Request) -> Reply<Response> {
    admit(&app, &request)?;
    let text = request.uri().path().strip_prefix("/tile/").unwrap_or_default();
    let path = TilePath::parse(text).ok_or_else(|| {
        let message = format!(
            "`{}` names no tile; tiles are /tile/<level>/<number> and /tile/entries/<number>, \
             incomplete ones with .p/<width>, as in /tile/0/x001/234.p/7",
            shown(text)
        );
        Rejection::new(Code::NotFound, message)
    })?;
    let bytes = match path.kind {
        TileKind::Entries => entries(&app, &path).await?,
        TileKind::Hashes(level) => {
            let tree = Arc::clone(app.log.tree());
            let read = move || Ok(tree.tile(level, path.number, path.width));
            crate::log::blocking(read).await??
        }
    };
    let cache = if app.public_log { "public" } else { "private" };
    let cache = HeaderValue::try_from(format!("{cache}, max-age=31536000, immutable"))
        .unwrap_or(HeaderValue::from_static("no-store"));
    let mut response = bytes.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, cache);
    Ok(response)
}

/// The record digests that the leaves are the hashes of.
async fn entries(app: &App, path: &TilePath) -> Reply<Vec<u8>> {
    let head = app.log.head().0;
    let end = path.end().filter(|end| *end <= head).ok_or_else(|| {
        let message = format!("the log has {head} records, so that entry tile is not there");
        Rejection::new(Code::NotFound, message)
    })?;
    let first = path.number * TILE_WIDTH;
    let mut bytes = Vec::with_capacity(path.width as usize * 34);
    let mut position = first;
    while position < end {
        let limit = (end - position) as usize;
        let records = app.log.read(Sequence(position), Sequence(end), limit).await?;
        for logged in &records {
            bytes.extend_from_slice(&ENTRY_LENGTH);
            bytes.extend_from_slice(&logged.record.digest.0);
        }
        match records.last() {
            Some(last) => position = last.record.seq().0,
            None => return Err(ReadFault::Gone.into()),
        }
    }
    Ok(bytes)
}
