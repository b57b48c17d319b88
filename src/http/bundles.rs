//! Config bundles.

use super::{
    App,
    access::Caller,
    body,
    error::Reply,
    past::{self, At},
    query::{self, Around},
    workers::{answer, check_content},
};
use crate::{
    auth::Permission,
    bundle::{self, Availability, ConfigBundle, Summary},
    command::Command,
    error::{Code, Rejection, shown},
    object,
};
use acta_events::{BundleRef, MediaType};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::Uri,
    response::Response,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) async fn list(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let at = past::of_query(&app, &uri).await?;
    let bundles: Vec<_> = past::with_projections(&app, at, |views| {
        views.bundles.iter().map(|state| json!(Summary::from(&state.stored))).collect()
    })
    .await?;
    Ok(Json(json!({ "bundles": bundles })))
}

#[derive(Deserialize)]
struct StoreRequest {
    #[serde(deserialize_with = "object::object")]
    bundle: ConfigBundle,
}

pub(super) async fn store(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let around = Around::of(&request)?;
    let asked: StoreRequest = body::json(&app, request).await?;
    let checked = bundle::check(asked.bundle)?;
    let bytes = Bytes::from(checked.document);
    check_content(&app, &bytes)?;
    let document = app.log.keep(MediaType::Json, bytes.clone()).await?;
    // The bundle's own digest stands for all of it.
    let key = around.key(&checked.stored.bundle, Some((&bytes, document.digest)))?;
    let reference = checked.stored.bundle.clone();
    let command = Command::StoreBundle { stored: Box::new(checked.stored), document };
    let command = query::command(caller.0.actor.clone(), around, key, command);
    let ack = app.engine.submit(command).await?;
    let body = available(&app, &reference, At::Now).await?;
    Ok(answer(ack.is_replayed(), body))
}

async fn available(app: &App, reference: &BundleRef, at: At) -> Reply<Value> {
    let wanted = reference.clone();
    let (found, knows_id) = past::with_projections(app, at, move |views| {
        let found = views.bundles.get(&wanted);
        let found = found.map(|state| json!({ "availability": Availability::from(&state.stored) }));
        (found, views.bundles.knows_id(&wanted.id))
    })
    .await?;
    if let Some(found) = found {
        return Ok(found);
    }
    let id = shown(&reference.id);
    if knows_id {
        let message = format!("config bundle `{id}` is stored under another digest");
        return Err(Rejection::new(Code::ConfigBundleDigestMismatch, message));
    }
    let message = format!("there is no config bundle `{id}`; store it first");
    Err(Rejection::new(Code::ConfigBundleMissing, message))
}

#[derive(Deserialize)]
struct AvailabilityQuery {
    digest: String,
    at: Option<String>,
}

pub(super) async fn availability(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let query: AvailabilityQuery = query::query(&uri)?;
    let reference = BundleRef { id, digest: query.digest };
    bundle::check_ref(&reference)?;
    let at = past::parse(&app, query.at.as_deref()).await?;
    Ok(Json(available(&app, &reference, at).await?))
}
