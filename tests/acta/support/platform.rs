//! A platform for agents, made up to the letter of the wire, which fails when it is told to.

use super::eventually;
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::Notify;

/// The worker that the agent attaches to, and its token.
pub const WORKER: &str = "w-1";
pub const TOKEN: &str = "worker-token-4711";

/// What a route does instead of its work, once.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// It refuses.
    Status(u16),
    /// It asks to come back later, after so many seconds.
    Later(u16, u64),
    /// It answers 200 with something that is not JSON.
    Garbage,
    /// It does nothing, and breaks the connection off.
    HangUp,
    /// It does its work, and breaks the connection off before it says so.
    Lost,
    /// It does nothing, and never answers.
    Hold,
    /// It does its work, and never answers.
    LostHold,
    /// It does its work so many milliseconds later.
    Slow(u64),
}

/// A request that was taken or at least arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// `register`, `heartbeat`, `poll`, `a2a`, `notify` or `report`.
    pub route: &'static str,
    /// The worker in the path.
    pub worker: String,
    pub query: HashMap<String, String>,
    pub body: Value,
    pub key: Option<String>,
    /// Whether it had an effect that no earlier one had.
    pub counted: bool,
    pub authorized: bool,
}

#[derive(Default)]
struct Inner {
    rows: Vec<Value>,
    /// Rows up to here have been passed by a cursor.
    consumed: usize,
    calls: Vec<Call>,
    faults: HashMap<&'static str, VecDeque<Fault>>,
    forgotten: bool,
}

/// The platform. Its listener ends with the test.
#[derive(Clone)]
pub struct Platform {
    inner: Arc<Mutex<Inner>>,
    arrived: Arc<Notify>,
    waits: bool,
    pub url: String,
}

impl Platform {
    /// One that holds a poll back until there is something, for those who ask it to.
    pub async fn start() -> Self {
        Self::start_with(true).await
    }

    /// One that does not know that.
    pub async fn start_without_waiting() -> Self {
        Self::start_with(false).await
    }

    async fn start_with(waits: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let platform = Self { inner: Arc::default(), arrived: Arc::default(), waits, url };
        let router = Router::new()
            .route("/registry/register", post(register))
            .route("/registry/heartbeat", post(heartbeat))
            .route("/workspaces/{id}/activity", get(poll).post(report))
            .route("/workspaces/{id}/a2a", post(a2a))
            .route("/workspaces/{id}/notify", post(notify))
            .with_state(platform.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        platform
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Puts a message into the inbox: its row's id.
    pub fn message(&self, source: Option<&str>, id: &str, text: &str) -> String {
        self.envelope(
            source,
            json!({
                "jsonrpc": "2.0", "method": "message/send",
                "params": { "message": {
                    "messageId": id, "task_id": format!("task-{id}"),
                    "parts": [{ "type": "text", "kind": "text", "text": text }],
                } },
            }),
        )
    }

    /// Puts anything into the inbox.
    pub fn envelope(&self, source: Option<&str>, envelope: Value) -> String {
        let id = format!("act-{}", self.lock().rows.len() + 1);
        self.row(json!({
            "id": id, "workspace_id": WORKER, "activity_type": "a2a_receive",
            "source_id": source, "target_id": WORKER, "method": "message/send",
            "summary": "s", "request_body": envelope, "response_body": null,
            "duration_ms": null, "status": "ok", "error_detail": null,
            "created_at": "2026-11-20T19:14:00Z",
        }));
        id
    }

    /// Puts a whole row, of whatever shape, into the inbox.
    pub fn row(&self, row: Value) {
        self.lock().rows.push(row);
        self.arrived.notify_waiters();
    }

    /// What the next requests to a route meet, in order.
    pub fn fail(&self, route: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.entry(route).or_default().extend(faults);
    }

    /// Forgets which rows were where: every cursor is unknown now.
    pub fn forget_cursors(&self) {
        self.lock().forgotten = true;
    }

    /// All requests to a route.
    pub fn calls(&self, route: &str) -> Vec<Call> {
        self.lock().calls.iter().filter(|call| call.route == route).cloned().collect()
    }

    /// Those that had an effect.
    pub fn counted(&self, route: &str) -> Vec<Call> {
        self.calls(route).into_iter().filter(|call| call.counted).collect()
    }

    /// Waits for so many requests with an effect.
    pub async fn after(&self, route: &str, count: usize) -> Vec<Call> {
        let what = format!("{count} × {route}");
        eventually(&what, || async {
            let calls = self.counted(route);
            (calls.len() >= count).then_some(calls)
        })
        .await
    }

    /// Waits for so many requests, with an effect or not.
    pub async fn asked(&self, route: &str, count: usize) -> Vec<Call> {
        eventually(&format!("{count} × {route}"), || async {
            let calls = self.calls(route);
            (calls.len() >= count).then_some(calls)
        })
        .await
    }

    /// Waits until a cursor has passed every row.
    pub async fn all_consumed(&self) {
        eventually("a cursor at the end", || async {
            let inner = self.lock();
            (inner.consumed == inner.rows.len()).then_some(())
        })
        .await;
    }

    /// What a fault makes of a request; none if it is to be answered as usual.
    async fn meet(&self, fault: Option<Fault>) -> Option<Response> {
        match fault? {
            Fault::Status(status) => {
                let status = StatusCode::from_u16(status).unwrap();
                let body = json!({ "error": { "code": "made_up", "message": "made up" } });
                Some((status, Json(body)).into_response())
            }
            Fault::Later(status, secs) => {
                let status = StatusCode::from_u16(status).unwrap();
                Some((status, [("retry-after", secs.to_string())]).into_response())
            }
            Fault::Garbage => Some("<html>not what you wanted</html>".into_response()),
            Fault::HangUp | Fault::Lost => {
                let broken = futures_util::stream::iter([
                    Ok(Bytes::from_static(b"{")),
                    Err(std::io::Error::other("hung up")),
                ]);
                Some(Body::from_stream(broken).into_response())
            }
            Fault::Hold | Fault::LostHold => std::future::pending().await,
            Fault::Slow(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                None
            }
        }
    }

    /// Notes a request and answers it.
    async fn take(
        &self,
        route: &'static str,
        worker: &str,
        headers: &HeaderMap,
        body: Value,
        answer: Value,
    ) -> Response {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
        let bearer = text("authorization");
        let key = text("idempotency-key");
        let fault = {
            let mut inner = self.lock();
            let fault = inner.faults.get_mut(route).and_then(VecDeque::pop_front);
            let works =
                matches!(fault, None | Some(Fault::Lost | Fault::LostHold | Fault::Slow(_)));
            let authorized = bearer == Some(format!("Bearer {TOKEN}"));
            let repeated =
                key.is_some() && inner.calls.iter().any(|call| call.counted && call.key == key);
            let counted = works && authorized && !repeated;
            let (worker, query) = (worker.to_owned(), HashMap::new());
            inner.calls.push(Call { route, worker, query, body, key, counted, authorized });
            if authorized { fault } else { Some(Fault::Status(401)) }
        };
        match self.meet(fault).await {
            Some(response) => response,
            None => Json(answer).into_response(),
        }
    }

    /// The rows that a poll gets.
    fn page(&self, query: &HashMap<String, String>) -> Result<Vec<Value>, StatusCode> {
        let mut inner = self.lock();
        if let Some(id) = query.get("since_id") {
            if std::mem::take(&mut inner.forgotten) {
                return Err(StatusCode::GONE);
            }
            let at = inner.rows.iter().position(|row| row["id"] == id.as_str());
            inner.consumed = at.ok_or(StatusCode::GONE)? + 1;
        }
        let limit: usize = query["limit"].parse().unwrap();
        Ok(inner.rows[inner.consumed..].iter().take(limit).cloned().collect())
    }
}

async fn register(
    State(platform): State<Platform>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let mode = body["delivery_mode"].clone();
    let answer = json!({ "status": "registered", "delivery_mode": mode });
    platform.take("register", WORKER, &headers, body, answer).await
}

async fn heartbeat(
    State(platform): State<Platform>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    platform.take("heartbeat", WORKER, &headers, body, json!({ "status": "ok" })).await
}

async fn a2a(
    State(platform): State<Platform>,
    Path(worker): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let answer = json!({ "status": "queued", "delivery_mode": "poll", "method": "message/send" });
    platform.take("a2a", &worker, &headers, body, answer).await
}

async fn notify(
    State(platform): State<Platform>,
    Path(worker): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    platform.take("notify", &worker, &headers, body, json!({ "status": "ok" })).await
}

async fn report(
    State(platform): State<Platform>,
    Path(worker): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let is_piece = body["method"] == "text_delta";
    let route = if is_piece { "piece" } else { "report" };
    platform.take(route, &worker, &headers, body, json!({ "status": "ok" })).await
}

async fn poll(
    State(platform): State<Platform>,
    Path(worker): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let noted = platform.take("poll", &worker, &headers, Value::Null, Value::Null).await;
    if let Some(call) = platform.lock().calls.iter_mut().rfind(|call| call.route == "poll") {
        call.query = query.clone();
    }
    // Anything but the answer of the usual case is a fault's.
    let bytes = match noted.status() {
        StatusCode::OK => axum::body::to_bytes(noted.into_body(), 1024).await,
        _ => return noted,
    };
    match bytes {
        Ok(bytes) if bytes.as_ref() == b"null" => {}
        Ok(bytes) => return bytes.into_response(),
        Err(_) => return platform.meet(Some(Fault::HangUp)).await.unwrap(),
    }
    let wait = query.get("wait").filter(|_| platform.waits);
    let deadline = tokio::time::Instant::now()
        + Duration::from_secs(wait.map_or(0, |wait| wait.parse().unwrap()));
    loop {
        let arrived = platform.arrived.notified();
        match platform.page(&query) {
            Err(status) => return status.into_response(),
            Ok(rows) if !rows.is_empty() => {
                return Json(rows).into_response();
            }
            Ok(rows) => {
                if tokio::time::timeout_at(deadline, arrived).await.is_err() {
                    return Json(rows).into_response();
                }
            }
        }
    }
}
