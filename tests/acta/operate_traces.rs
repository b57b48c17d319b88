//! Traces over OTLP, taken by a collector in this process: one trace from the request of a caller to
//! the work of the backend. With the feature `otlp`.

use crate::support::{Options, Service, eventually};
use axum::{Router, body::Bytes, extract::State, routing::post};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

type Bodies = Arc<Mutex<Vec<Bytes>>>;

/// Takes what is sent to `/v1/traces`; its address, and what came.
async fn collector() -> (String, Bodies) {
    let bodies = Bodies::default();
    let take = async |State(bodies): State<Bodies>, body: Bytes| {
        bodies.lock().unwrap().push(body);
        ([("content-type", "application/json")], "{}")
    };
    let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&bodies));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (address, bodies)
}

async fn traced(endpoint: &str, protocol: &str) -> Service {
    let options = Options::default()
        .arg(format!("--otlp-endpoint={endpoint}"))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .env("NO_PROXY", "*");
    options.start().await
}

/// Every span that came, as OTLP has it in JSON.
fn spans(bodies: &Bodies) -> Vec<Value> {
    let mut all = Vec::new();
    for body in bodies.lock().unwrap().iter() {
        let body: Value = serde_json::from_slice(body).unwrap();
        for resource in body["resourceSpans"].as_array().unwrap() {
            for scope in resource["scopeSpans"].as_array().unwrap() {
                all.extend(scope["spans"].as_array().unwrap().iter().cloned());
            }
        }
    }
    all
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

/// Gives an input as a caller with a trace does.
async fn input(service: &Service, worker: &str, traceparent: Option<&str>, content: &str) {
    let path = format!("/v1/workers/{worker}/input");
    let mut request = service.request(reqwest::Method::POST, &path);
    if let Some(trace) = traceparent {
        request = request.header("traceparent", trace);
    }
    service.send(request.json(&json!({"kind": "user", "content": content}))).await.ok();
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

#[tokio::test]
async fn one_trace_leads_from_the_caller_by_decision_and_append_to_the_backend() {
    let (endpoint, bodies) = collector().await;
    let service = traced(&endpoint, "http/json").await;
    let worker = service.spawn("echo").await;
    service.run_state(&worker, "idle").await;
    input(&service, &worker, Some(&format!("00-{TRACE}-{CALLER}-01")), "canary").await;
    service.rests(&worker, 2).await;
    let of_trace = eventually("all spans of the trace have come", || async {
        let mut spans = spans(&bodies);
        spans.retain(|span| span["traceId"] == TRACE);
        (!named(&spans, "backend").is_empty()).then_some(spans)
    })
    .await;
    let request = named(&of_trace, "POST /v1/workers/{worker_id}/input");
    assert_eq!(request.len(), 1, "{of_trace:#?}");
    assert_eq!(request[0]["parentSpanId"], CALLER);
    let by_id = |id: &Value| of_trace.iter().find(|span| span["spanId"] == *id);
    let path_of = |span: &Value| {
        let mut path = vec![span["name"].as_str().unwrap().to_owned()];
        let mut at = span.clone();
        while let Some(parent) = by_id(&at["parentSpanId"]) {
            path.insert(0, parent["name"].as_str().unwrap().to_owned());
            at = parent.clone();
        }
        assert_eq!(at["parentSpanId"], CALLER, "{of_trace:#?}");
        path
    };
    let paths: Vec<_> = of_trace.iter().map(path_of).collect();
    let request = "POST /v1/workers/{worker_id}/input";
    for path in [
        &[request, "command", "decide"][..],
        &[request, "command", "append"],
        &["backend"],
        &["backend", "command", "decide"],
        &["backend", "command", "append"],
    ] {
        assert!(paths.iter().any(|seen| seen == path), "{path:?} in {paths:#?}");
    }
    // In order of time: decided before it was appended, appended before the backend had it.
    let time = |span: &Value, at: &str| span[at].as_str().unwrap().parse::<u64>().unwrap();
    let of = |path: &[&str]| &of_trace[paths.iter().position(|seen| seen == path).unwrap()];
    let decided = of(&[request, "command", "decide"]);
    let appended = of(&[request, "command", "append"]);
    let backend = of(&["backend"]);
    assert!(time(decided, "endTimeUnixNano") <= time(appended, "startTimeUnixNano"));
    assert!(time(appended, "endTimeUnixNano") <= time(backend, "startTimeUnixNano"));
    // What was said is in no span, and no token is.
    let everything: Vec<u8> = bodies.lock().unwrap().concat();
    let everything = String::from_utf8(everything).unwrap();
    for secret in ["canary", &service.token(), &service.data().display().to_string()] {
        assert!(!everything.contains(secret), "{secret} in {everything}");
    }
    let record = service.events("type=worker_input_accepted").await;
    assert_eq!(record[0]["trace"], format!("00-{TRACE}-{CALLER}-01"));
}

#[tokio::test]
async fn a_request_without_a_trace_begins_one_that_the_log_remembers() {
    let (endpoint, bodies) = collector().await;
    let service = traced(&endpoint, "http/json").await;
    let worker = service.spawn("echo").await;
    input(&service, &worker, None, "hello").await;
    service.rests(&worker, 2).await;
    let record = service.events("type=worker_input_accepted").await;
    let trace = record[0]["trace"].as_str().unwrap().split('-').nth(1).unwrap().to_owned();
    let names = eventually("the trace has come", || async {
        let spans = spans(&bodies);
        let of_trace = spans.iter().filter(|span| span["traceId"] == *trace);
        let names: Vec<_> = of_trace.map(|span| span["name"].to_string()).collect();
        names.iter().any(|name| name.contains("backend")).then_some(names)
    })
    .await;
    assert!(names.iter().any(|name| name.contains("POST")), "{names:?}");
    // A caller that does not want to be traced is not.
    let quiet = "0123456789abcdef0123456789abcdef";
    input(&service, &worker, Some(&format!("00-{quiet}-{CALLER}-00")), "hello").await;
    service.rests(&worker, 4).await;
    input(&service, &worker, Some(&format!("00-{TRACE}-{CALLER}-01")), "hello").await;
    eventually("a later trace has come", || async {
        spans(&bodies).iter().any(|span| span["traceId"] == TRACE).then_some(())
    })
    .await;
    assert!(spans(&bodies).iter().all(|span| span["traceId"] != quiet));
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_nothing_up() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut service = traced(&format!("http://{closed}"), "http/protobuf").await;
    let worker = service.spawn("echo").await;
    input(&service, &worker, None, "hello").await;
    service.rests(&worker, 2).await;
    service.stop().await;
    service.restart().await;
    assert_eq!(service.transcript(&worker).await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn traces_are_sent_as_protobuf_unless_it_is_said() {
    let (endpoint, bodies) = collector().await;
    let service = traced(&endpoint, "http/protobuf").await;
    let trace = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    let mut request = service.request(reqwest::Method::GET, "/v1/runtime");
    request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    service.send(request).await.ok();
    eventually("a span with the bytes of the trace", || async {
        let bodies = bodies.lock().unwrap();
        let has = |body: &Bytes| body.windows(16).any(|bytes| bytes == trace);
        bodies.iter().any(has).then_some(())
    })
    .await;
}
