//! Speaking HTTP.

use super::{PATIENCE, Socket, eventually};
use reqwest::{
    Method, RequestBuilder,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Somebody with a token, or without.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// Where the service listens.
    pub base: String,
    /// What it shows.
    pub bearer: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    asked: String,
}

impl Client {
    pub fn new(base: String, bearer: Option<String>) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { http, base, bearer }
    }

    /// A request that is not sent yet.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.bearer {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let asked = format!("{} {}", request.method(), request.url());
        let response = match self.http.execute(request).await {
            Ok(response) => response,
            Err(error) => panic!("{asked}: {error:?}"),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.bytes().await.unwrap().into(), asked }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// A body of any kind, announced as JSON.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
        self.send(request.body(body.into())).await
    }

    /// Nothing at all in the body, and no announcement of one.
    pub async fn post_empty(&self, path: &str) -> Answer {
        self.send(self.request(Method::POST, path)).await
    }

    /// A command under a key.
    pub async fn post_keyed(&self, path: &str, key: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).header("idempotency-key", key);
        self.send(request.json(body)).await
    }

    /// Makes a worker from a template; its id.
    pub async fn spawn(&self, template: &str) -> String {
        let request = json!({
            "intent": {"kind": "assistant"},
            "profile": {"kind": "runtime_default"},
            "template": template,
        });
        let answer = self.post("/v1/workers", &request).await.ok();
        answer["worker"]["worker_id"].as_str().unwrap().to_owned()
    }

    /// Gives a worker a user's input; the acknowledgement.
    pub async fn input(&self, worker: &str, content: &str) -> Value {
        let input = json!({"kind": "user", "content": content});
        let answer = self.post(&format!("/v1/workers/{worker}/input"), &input).await;
        answer.ok()["ack"].clone()
    }

    /// The detail of a worker.
    pub async fn worker(&self, worker: &str) -> Value {
        self.get(&format!("/v1/workers/{worker}")).await.ok()["worker"].clone()
    }

    /// The transcript of a worker, its first page.
    pub async fn transcript(&self, worker: &str) -> Value {
        self.get(&format!("/v1/workers/{worker}/transcript")).await.ok()["transcript"].clone()
    }

    /// Waits until a worker has at least that many transcript items and no work in hand; its detail.
    pub async fn rests(&self, worker: &str, items: u64) -> Value {
        let what = format!("worker {worker} rests with {items} items");
        eventually(&what, || async {
            let state = self.worker(worker).await;
            let rests = state["execution"]["run_state"] != "busy";
            // A machine that stands still for a moment may end a turn of text in the middle.
            let there = state["transcript_len"].as_u64() >= Some(items);
            (rests && there).then_some(state)
        })
        .await
    }

    /// Waits until a worker's run state is that; its detail.
    pub async fn run_state(&self, worker: &str, run_state: &str) -> Value {
        eventually(&format!("worker {worker} is {run_state}"), || async {
            let state = self.worker(worker).await;
            (state["execution"]["run_state"] == run_state).then_some(state)
        })
        .await
    }

    /// Records of the whole log; the query without its question mark.
    pub async fn events(&self, query: &str) -> Vec<Value> {
        let page = self.get(&format!("/v1/events?{query}")).await.ok();
        page["events"].as_array().unwrap().clone()
    }

    /// The head of the log.
    pub async fn head(&self) -> u64 {
        self.get("/v1/events?limit=0").await.ok()["head"].as_u64().unwrap()
    }

    /// Issues a token.
    pub async fn issue(&self, request: &Value) -> Value {
        self.post("/v1/tokens", request).await.ok()["token"].clone()
    }

    /// Opens a WebSocket.
    pub async fn watch(&self, path: &str) -> Socket {
        match Socket::connect(self, path, &[]).await {
            Ok(socket) => socket,
            Err((status, body)) => panic!("{path}: {status} {body}"),
        }
    }

    /// Opens a WebSocket where that is expected to fail: status and body.
    pub async fn watch_refused(&self, path: &str) -> (u16, Value) {
        match Socket::connect(self, path, &[]).await {
            Ok(_) => panic!("{path} was opened"),
            Err((status, body)) => (status, serde_json::from_str(&body).unwrap()),
        }
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}: {}", self.asked, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body of a success, which is always 200.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}: {}", self.asked, self.text());
        assert_eq!(self.header("content-type"), "application/json", "{}", self.asked);
        self.json()
    }

    /// The body of what was made.
    #[track_caller]
    pub fn created(&self) -> Value {
        assert_eq!(self.status, 201, "{}: {}", self.asked, self.text());
        self.json()
    }

    /// Checks that it is a refusal of the one shape that refusals have; its message.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        let shown = format!("{}: {} {}", self.asked, self.status, self.text());
        assert_eq!((self.status, &self.json()["error"]["code"]), (status, &json!(code)), "{shown}");
        assert_eq!(self.header("content-type"), "application/json", "{shown}");
        let body = self.json();
        assert_eq!(keys(&body), ["error"], "{shown}");
        assert_eq!(keys(&body["error"]), ["code", "message"], "{shown}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(!message.is_empty(), "{shown}");
        message.to_owned()
    }
}

/// The names of an object's fields, sorted.
pub fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap_or_else(|| panic!("not an object: {value}"));
    object.keys().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
}
