//! The workers of this service's own runtime.

use super::{
    App,
    access::Caller,
    body,
    error::Reply,
    external,
    past::{self, At},
    query::{self, Around},
    shapes,
    snapshot::{self, TranscriptItem},
};
use crate::{
    agents::external_runtime,
    auth::Permission,
    command::{Ack, Command, worker_id},
    create_request::{CheckedCreate, CreateRequest},
    error::{Code, Rejection},
};
use acta_events::{Event, InputKind, MediaType, Record, Revision, Sequence, Version, WorkerRef};
use acta_projections::{EXTERNAL_RUNTIME, WorkerStatus};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// The mark of an answer that was given before.
pub(crate) const REPLAYED: &str = "idempotent-replayed";

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    at: Option<String>,
}

/// All workers, or a page of them if a limit is given.
pub(super) async fn list(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Response> {
    caller.may(Permission::ReadWorkers)?;
    let query: ListQuery = query::query(&uri)?;
    let after = query.after.as_deref().map(|text| query::own_worker(&app, text)).transpose()?;
    let limit = query.limit.unwrap_or(usize::MAX);
    let at = past::parse(&app, query.at.as_deref()).await?;
    let states = past::with_projections(&app, at, |projections| {
        let after = after.as_ref().map(|worker| &worker.worker_id);
        let own = projections.workers.of(&app.runtime, after).take(limit);
        let external = projections.workers.of(&external_runtime(), after).take(limit);
        let mut all: Vec<_> = own.chain(external).cloned().collect();
        all.sort_by(|a, b| a.worker.cmp(&b.worker));
        all.truncate(limit);
        all
    })
    .await?;
    let body = shapes::summaries(&app, &states).await?;
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// One worker, now or at a past moment.
pub(super) async fn show(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let worker = query::own_worker(&app, &id)?;
    let at = past::of_query(&app, &uri).await?;
    let state = past::worker(&app, &worker, at).await?;
    Ok(Json(json!({ "worker": shapes::detail(&app, &state).await? })))
}

/// Makes a worker.
pub(super) async fn create(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let around = Around::of(&request)?;
    let asked: CreateRequest = body::json(&app, request).await?;
    let (first, replayed) = make(&caller, &app, around, asked.check()?).await?;
    let detail = shapes::created(&app, &first).await?.ok_or_else(unexpected)?;
    Ok(answer(replayed, json!({ "worker": detail })))
}

/// Makes a worker of this service's own runtime, whichever surface that was asked by. Gives back
/// its first record, and whether that was there before.
pub(super) async fn make(
    caller: &Caller,
    app: &App,
    around: Around,
    parsed: CheckedCreate,
) -> Reply<(Arc<Record>, bool)> {
    let mut created = parsed.created;
    let template = app.manifest.read().choose(parsed.template.as_deref(), &created.profile)?;
    let fields = (&created, &parsed.template);
    let (content, key) = if parsed.texts.is_empty() {
        (None, around.key(&fields, None)?)
    } else {
        let bytes = serde_json::to_vec(&parsed.texts).map(Bytes::from);
        let bytes = bytes.map_err(|error| Rejection::invalid(error.to_string()))?;
        check_content(app, &bytes)?;
        let content = app.log.keep(MediaType::Json, bytes.clone()).await?;
        let key = around.key(&fields, Some((&bytes, content.digest)))?;
        (Some(content), key)
    };
    created.host = template.is_some().then(|| app.host.clone());
    created.template = template;
    let millis = jiff::Timestamp::now().as_millisecond();
    let worker = WorkerRef {
        runtime_id: app.runtime.clone(),
        worker_id: worker_id(millis, rand::rng().random()),
    };
    let command = Command::CreateWorker { worker, created: Box::new(created), texts: content };
    let command = query::command(caller.0.actor.clone(), around, key, command);
    let ack = app.engine.submit(command).await?;
    let Ack::Recorded { first, replayed } = ack else { return Err(unexpected()) };
    Ok((first, replayed))
}

pub(super) fn unexpected() -> Rejection {
    Rejection::new(Code::Internal, "the command was recorded as something else than expected")
}

pub(super) fn answer(replayed: bool, body: impl Serialize) -> Response {
    let mut response = Json(body).into_response();
    if replayed {
        response.headers_mut().insert(REPLAYED, axum::http::HeaderValue::from_static("true"));
    }
    response
}

/// Refuses what is larger than contents may be.
pub(super) fn check_content(app: &App, bytes: &[u8]) -> Reply<()> {
    if bytes.len() <= app.limits.content_bytes {
        return Ok(());
    }
    let message = format!(
        "the content has {} bytes; at most {} are accepted",
        bytes.len(),
        app.limits.content_bytes
    );
    Err(Rejection::new(Code::PayloadTooLarge, message))
}

#[derive(Deserialize)]
struct InputRequest {
    kind: InputKind,
    content: String,
}

/// An input that was accepted.
pub(super) struct AcceptedInput {
    pub(super) replayed: bool,
    pub(super) record: Arc<Record>,
    pub(super) item: u64,
    pub(super) revision: Revision,
}

#[derive(Serialize)]
struct InputAck<'a> {
    worker_ref: &'a WorkerRef,
    status: WorkerStatus,
    transcript_sequence: u64,
    event_id: Sequence,
    version: Option<Version>,
    revision: Revision,
    sequence: Sequence,
}

#[derive(Serialize)]
struct Acked<T> {
    ack: T,
}

/// Gives a worker an input.
pub(super) async fn input(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let worker = query::own_worker(&app, &id)?;
    let around = Around::of(&request)?;
    let input: InputRequest = body::json(&app, request).await?;
    let accepted = give(&caller, &app, &worker, around, input.kind, input.content).await?;
    let seq = accepted.record.seq();
    let ack = InputAck {
        worker_ref: &worker,
        status: WorkerStatus::Running,
        transcript_sequence: accepted.item,
        event_id: seq,
        version: accepted.record.header.version,
        revision: accepted.revision,
        sequence: seq,
    };
    Ok(answer(accepted.replayed, Acked { ack }))
}

/// Gives a worker an input, whichever surface it came by.
pub(super) async fn give(
    caller: &Caller,
    app: &App,
    worker: &WorkerRef,
    around: Around,
    kind: InputKind,
    content: String,
) -> Reply<AcceptedInput> {
    if content.trim().is_empty() {
        return Err(Rejection::invalid("`content` is blank; say something"));
    }
    check_content(app, content.as_bytes())?;
    if worker.runtime_id.as_str() == EXTERNAL_RUNTIME {
        external::check_input(&content)?;
    }
    let bytes = Bytes::from(content);
    let content = app.log.keep(MediaType::Text, bytes.clone()).await?;
    let key = around.key(&kind, Some((&bytes, content.digest)))?;
    let command = Command::Input { worker: worker.clone(), kind, content };
    let command = query::command(caller.0.actor.clone(), around, key, command);
    let Ack::Recorded { first, replayed } = app.engine.submit(command).await? else {
        return Err(unexpected());
    };
    let Event::WorkerInputAccepted(accepted) = &first.header.event else {
        return Err(unexpected());
    };
    let (item, revision) = (accepted.item, accepted.revision);
    Ok(AcceptedInput { replayed, record: first, item, revision })
}

#[derive(Default, Deserialize)]
struct LifecycleRequest {
    reason: Option<String>,
    #[serde(default)]
    mode: EndMode,
}

/// How a worker is ended: with its grace period, or at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EndMode {
    #[default]
    Graceful,
    Force,
}

#[derive(Serialize)]
struct LifecycleAck {
    worker_ref: WorkerRef,
    status: WorkerStatus,
    event_id: Sequence,
    version: Option<Version>,
    revision: Revision,
    sequence: Sequence,
}

/// Stops a worker for good.
pub(super) async fn stop(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    request: Request<Body>,
) -> Reply<Response> {
    end(caller, app, &id, request, WorkerStatus::Stopped).await
}

/// Cancels a worker for good.
pub(super) async fn cancel(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    request: Request<Body>,
) -> Reply<Response> {
    end(caller, app, &id, request, WorkerStatus::Cancelled).await
}

async fn end(
    caller: Caller,
    app: App,
    id: &str,
    request: Request<Body>,
    how: WorkerStatus,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let worker = query::own_worker(&app, id)?;
    let around = Around::of(&request)?;
    let asked: LifecycleRequest = body::optional_json(&app, request).await?;
    let ack = finish(&caller, &app, &worker, around, asked.reason, how).await?;
    if asked.mode == EndMode::Force {
        app.kills.force(&worker);
    }
    lifecycle_ack(worker, ack)
}

/// Ends a worker for good, whichever surface that was asked by.
pub(super) async fn finish(
    caller: &Caller,
    app: &App,
    worker: &WorkerRef,
    around: Around,
    reason: Option<String>,
    how: WorkerStatus,
) -> Reply<Ack> {
    let bytes = reason.map(Bytes::from);
    let reason = match &bytes {
        None => None,
        Some(bytes) => {
            check_content(app, bytes)?;
            Some(app.log.keep(MediaType::Text, bytes.clone()).await?)
        }
    };
    let digest = reason.as_ref().map(|reason| reason.digest);
    let key = around.key(&(), bytes.as_ref().zip(digest))?;
    let of = worker.clone();
    let command = match how {
        WorkerStatus::Cancelled => Command::Cancel { worker: of, reason },
        _ => Command::Stop { worker: of, reason },
    };
    let command = query::command(caller.0.actor.clone(), around, key, command);
    app.engine.submit(command).await
}

fn lifecycle_ack(worker_ref: WorkerRef, ack: Ack) -> Reply<Response> {
    let replayed = ack.is_replayed();
    let (status, seq, version, revision) = match ack {
        Ack::Recorded { first, .. } => {
            let (status, revision) = match &first.header.event {
                Event::WorkerStopped(stopped) => (WorkerStatus::Stopped, stopped.revision),
                Event::WorkerCancelled(cancelled) => (WorkerStatus::Cancelled, cancelled.revision),
                _ => return Err(unexpected()),
            };
            (status, first.seq(), first.header.version, revision)
        }
        Ack::Unchanged { worker: Some(state) } => {
            let terminal = state.terminal.ok_or_else(unexpected)?;
            (state.status, terminal.seq, Some(terminal.version), terminal.revision)
        }
        Ack::Unchanged { worker: None } | Ack::Repeated { .. } => return Err(unexpected()),
    };
    let ack = LifecycleAck { worker_ref, status, event_id: seq, version, revision, sequence: seq };
    Ok(answer(replayed, Acked { ack }))
}

#[derive(Deserialize)]
struct TranscriptQuery {
    #[serde(default)]
    start: u64,
    limit: Option<usize>,
    at: Option<String>,
}

/// A page of a transcript.
#[derive(Serialize)]
pub(super) struct Transcript {
    pub(super) worker_ref: WorkerRef,
    pub(super) start: u64,
    pub(super) limit: usize,
    pub(super) total_items: u64,
    pub(super) items: Vec<TranscriptItem>,
    pub(super) next_start: Option<u64>,
    /// Items before this one (from 1) have expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) truncated_before: Option<u64>,
}

/// A page of what was said.
pub(super) async fn transcript(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let worker = query::own_worker(&app, &id)?;
    Ok(Json(json!({ "transcript": page(&app, worker, &uri).await? })))
}

/// Where a page of a transcript begins, and how long it may be.
pub(super) fn present_page(app: &App, uri: &Uri) -> Reply<(u64, usize)> {
    let query: TranscriptQuery = query::query(uri)?;
    if query.at.is_some() {
        let message = "the past of a worker of another service is in its own log; ask that service \
                       with `at`";
        return Err(Rejection::new(Code::InvalidQuery, message));
    }
    let limit = limit(app, &query)?;
    Ok((query.start, limit))
}

/// Where the page begins that a query asks for, and how long it is to be, whether that can be had or
/// not.
pub(super) fn asked_page(uri: &Uri) -> Reply<(u64, Option<usize>)> {
    let query: TranscriptQuery = query::query(uri)?;
    Ok((query.start, query.limit))
}

fn limit(app: &App, query: &TranscriptQuery) -> Reply<usize> {
    let limit = query.limit.unwrap_or(app.limits.transcript_items);
    if limit > app.limits.transcript_items {
        let message = format!(
            "limit {limit} is larger than a page, which has at most {} items",
            app.limits.transcript_items
        );
        return Err(Rejection::new(Code::LimitTooLarge, message));
    }
    Ok(limit)
}

/// The page that a query asks for.
pub(super) async fn page(app: &App, worker: WorkerRef, uri: &Uri) -> Reply<Transcript> {
    let query: TranscriptQuery = query::query(uri)?;
    let limit = limit(app, &query)?;
    let at = past::parse(app, query.at.as_deref()).await?;
    let state = past::worker(app, &worker, at).await?;
    let through = match at {
        At::Now => app.log.head().max(state.last_seq),
        At::Sequence(seq) => seq,
    };
    let truncated_before = snapshot::first_item(app, &state, through).await?;
    let start = query.start.max(truncated_before.map_or(0, |first| first - 1));
    let items = snapshot::items(app, &state, start, limit, through).await?;
    let end = start.saturating_add(items.len() as u64);
    Ok(Transcript {
        worker_ref: worker,
        truncated_before,
        start,
        limit,
        total_items: state.items,
        next_start: (end < state.items).then_some(end),
        items,
    })
}
