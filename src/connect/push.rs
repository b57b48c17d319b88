//! Takes messages that the platform brings: an HTTP endpoint with an address that is hard to
//! guess, and one worker behind it that goes through them in order.
//!
//! The answer is the response to the request that brought the message. A message that is brought
//! again, because its answer did not arrive, waits for its turn and gets the answer that was
//! recorded.

use super::{
    ConnectError, Stopping,
    backend::Response as Answer,
    dispatch::{Dispatcher, Progressed, Worked},
    options::Options,
    row::{Row, read_envelope, wire_parts},
    state::Given,
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hyper_util::rt::{TokioIo, TokioTimer};
use reqwest::Url;
use serde_json::{Value, json};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// The platform takes no larger message.
const BODY_BYTES_MAX: usize = 1 << 20;
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECTIONS_MAX: usize = 64;
/// Messages that wait for the one in hand; the platform brings one at a time.
const WAITING_MAX: usize = 16;
/// How long responses may take to leave once this side stops.
const DRAIN: Duration = Duration::from_secs(2);
/// The JSON-RPC error of a message that could not be answered.
const ERROR_CODE: i64 = -32000;

/// A message that somebody waits for the answer to.
struct Call {
    row: Row,
    answer: oneshot::Sender<Option<Value>>,
}

/// Where messages are brought to.
pub(super) struct Endpoint {
    listener: TcpListener,
    secret: String,
    /// What the platform is told.
    pub(super) url: Url,
}

impl Endpoint {
    /// Listens; nothing is accepted yet.
    pub(super) async fn open(options: &Options, secret: String) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let mut url = match &options.public_url {
            Some(url) => url.clone(),
            None => local_url(address)?,
        };
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["a2a", &secret]);
        }
        Ok(Self { listener, secret, url })
    }
}

/// Part of an address that nobody guesses.
pub(super) fn fresh_secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>())
}

fn local_url(address: SocketAddr) -> io::Result<Url> {
    Url::parse(&format!("http://{address}")).map_err(io::Error::other)
}

/// Serves until this side stops.
pub(super) async fn serve(
    dispatcher: &mut Dispatcher<'_>,
    endpoint: Endpoint,
) -> Result<(), ConnectError> {
    // An answer that an earlier start, in the other mode, left undelivered comes first.
    if dispatcher.deliver_pending(None).await? == Progressed::Stopped {
        return Ok(());
    }
    let (calls, mut waiting) = mpsc::channel(WAITING_MAX);
    let stopping = dispatcher.stopping.clone();
    let connections = TaskTracker::new();
    let Endpoint { listener, secret, .. } = endpoint;
    let router = Router::new()
        .route(&format!("/a2a/{secret}"), post(bring))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(calls);
    let accepting = tokio::spawn(accept(listener, router, stopping.clone(), connections.clone()));
    let mut worked = Ok(());
    while let Some(call) = tokio::select! {
        call = waiting.recv() => call,
        () = stopping.soft.cancelled() => None,
    } {
        worked = work(dispatcher, call).await;
        if worked.is_err() {
            break;
        }
    }
    accepting.abort();
    // Whoever still waits is told to come again.
    drop(waiting);
    connections.close();
    if stopping.soft.is_cancelled() && timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("some answers did not leave in time");
    }
    worked
}

/// Brings one message to its end. Nobody need wait for its answer any more.
async fn work(dispatcher: &mut Dispatcher<'_>, call: Call) -> Result<(), ConnectError> {
    let Call { mut row, answer } = call;
    dispatcher.wire.worker_id().clone_into(&mut row.request.workspace_id);
    let key = row.key();
    if let Some(given) = dispatcher.state.given(&key) {
        tracing::info!(row = row.id, "this message was answered before");
        let _ = answer.send(Some(given.clone()));
        return Ok(());
    }
    if dispatcher.state.was_answered(&key) {
        tracing::warn!(row = row.id, "this message was answered before, too long ago");
        let _ = answer.send(Some(failure("this message was answered before")));
        return Ok(());
    }
    let from = match row.request.caller_id.as_str() {
        "" => "a person",
        caller => caller,
    };
    tracing::info!(message_id = row.request.message_id, from, "working on a message");
    let body = match dispatcher.work(&row).await? {
        Worked::Answer(response) => success(&row, &response),
        Worked::Failure(detail) => failure(&detail),
        Worked::Stopped => {
            let _ = answer.send(None);
            return Ok(());
        }
    };
    dispatcher.state.settle_given(Given { key, body: body.clone() }).await?;
    tracing::info!(message_id = row.request.message_id, "done");
    let _ = answer.send(Some(body));
    Ok(())
}

fn success(row: &Row, response: &Answer) -> Value {
    let mut message = json!({
        "kind": "message",
        "role": "agent",
        "messageId": row.reply_key(),
        "parts": wire_parts(&response.parts),
    });
    if !row.request.task_id.is_empty() {
        message["task_id"] = row.request.task_id.as_str().into();
    }
    json!({ "jsonrpc": "2.0", "result": message })
}

fn failure(detail: &str) -> Value {
    json!({ "jsonrpc": "2.0", "error": { "code": ERROR_CODE, "message": detail } })
}

async fn bring(
    State(calls): State<mpsc::Sender<Call>>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let read = timeout(BODY_TIMEOUT, axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX));
    let body: Bytes = match read.await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the message is too long"),
        Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, "the message did not arrive"),
    };
    let Ok(envelope) = serde_json::from_slice::<Value>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "the message is not JSON");
    };
    let row = match read_brought(&envelope, &headers) {
        Ok(row) => row,
        Err(reason) => return refusal(StatusCode::BAD_REQUEST, &reason),
    };
    let (answer, answered) = oneshot::channel();
    if calls.try_send(Call { row, answer }).is_err() {
        return come_again();
    }
    match answered.await {
        Ok(Some(mut body)) => {
            body["id"] = envelope["id"].clone();
            Json(body).into_response()
        }
        Ok(None) | Err(_) => come_again(),
    }
}

/// The row's id and the sender are in headers, since the envelope is the sender's own.
fn read_brought(envelope: &Value, headers: &HeaderMap) -> Result<Row, String> {
    let header = |name: &str| headers.get(name)?.to_str().ok().filter(|text| !text.is_empty());
    let mut request = read_envelope(envelope)?;
    request.caller_id = header("x-acta-source-id").unwrap_or_default().to_owned();
    let envelope_id = match &envelope["id"] {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => String::new(),
    };
    let own = [header("x-acta-row-id").unwrap_or_default(), &envelope_id, &request.message_id];
    let id = own.into_iter().find(|id| !id.is_empty()).map(str::to_owned);
    let id = id.ok_or("the message has no id by which a repeat would be recognised")?;
    Ok(Row { id, is_answered: false, request })
}

fn refusal(status: StatusCode, message: &str) -> Response {
    let body = json!({
        "jsonrpc": "2.0", "id": null, "error": { "code": -32600, "message": message },
    });
    (status, Json(body)).into_response()
}

fn come_again() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response()
}

async fn accept(
    listener: TcpListener,
    router: Router,
    stopping: Stopping,
    connections: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Beyond the limit new connections wait in the kernel's queue. The semaphore is never
        // closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (router, stopping) = (router.clone(), stopping.clone());
        connections.spawn(async move {
            serve_one(stream, router, stopping).await;
            drop(place);
        });
    }
}

async fn serve_one(stream: TcpStream, router: Router, stopping: Stopping) {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.soft.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
