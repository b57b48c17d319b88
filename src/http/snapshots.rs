//! A snapshot of everything, sent as it is read.

use super::{App, access::Caller, body, error::Reply};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
    snapshot::{self, Base, Plan, SnapshotError},
};
use acta_events::Timestamp;
use axum::{
    body::Body,
    extract::{Request, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::mpsc;

/// How many pieces wait for a client that reads slowly.
const PIECES_WAITING: usize = 8;

#[derive(Default, Deserialize)]
struct CreateRequest {
    base: Option<Base>,
}

/// Why nothing more is sent.
enum Cut {
    /// Nobody reads any more, or the service ends.
    Gone,
    Failed(SnapshotError),
}

impl From<SnapshotError> for Cut {
    fn from(error: SnapshotError) -> Self {
        Self::Failed(error)
    }
}

/// Sends everything up to the newest record.
pub(super) async fn create(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let CreateRequest { base } = body::optional_json(&app, request).await?;
    let Some(data) = app.data.clone() else {
        let message =
            "this service keeps its log in memory; there is nothing to take a snapshot of";
        return Err(Rejection::new(Code::StoreMissing, message));
    };
    snapshot::settled(&app.log).await.map_err(refused)?;
    let planning = Arc::clone(&app);
    let plan = tokio::task::spawn_blocking(move || {
        let created = snapshot::created(&data)?;
        Plan::new(&planning.log, &planning.notary, &data, created, base.as_ref())
    });
    let plan = plan.await.map_err(|_| Rejection::new(Code::Internal, "the plan failed"))?;
    let plan = plan.map_err(refused)?;
    let (sender, receiver) = mpsc::channel::<Bytes>(PIECES_WAITING);
    tokio::task::spawn_blocking(move || {
        let sequence = plan.sequence();
        let sent = plan.send(|bytes| match app.shutdown.is_begun() {
            true => Err(Cut::Gone),
            false => sender.blocking_send(bytes).map_err(|_| Cut::Gone),
        });
        match sent {
            Ok(()) => {
                let now = Timestamp(jiff::Timestamp::now().as_microsecond());
                app.snapshots.taken(sequence, now);
                tracing::info!(%sequence, "a snapshot was sent");
            }
            Err(Cut::Gone) => tracing::info!(%sequence, "a snapshot was cut off"),
            // Whoever receives it misses its end.
            Err(Cut::Failed(error)) => tracing::error!(%error, "a snapshot could not be read"),
        }
    });
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), receiver))
    });
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(body)).into_response())
}

fn refused(error: SnapshotError) -> Rejection {
    match error {
        SnapshotError::Read(fault) => fault.into(),
        SnapshotError::Base(_) => Rejection::invalid(error.to_string()),
        SnapshotError::Again(why) => Rejection::new(Code::NotReady, why),
        error => {
            tracing::error!(%error, "a snapshot could not be planned");
            Rejection::new(
                Code::StoreIo,
                "the files of the log cannot be read; see the log of the service",
            )
        }
    }
}
