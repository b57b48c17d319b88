//! The HTTP ceiling: a server that does nothing, on the same framework, under the same
//! generator. What the service reaches beside this is what its own work costs.

use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::client::Client;
use crate::generator::{self, Outcome, Plan};

/// About what an input is answered with.
const ANSWER: &str = concat!(
    r#"{"ack":{"worker_ref":{"runtime_id":"embedded-worker-runtime","worker_id":"worker-1"},"#,
    r#""status":"running","transcript_sequence":1,"event_id":1}}"#
);

async fn answer(_body: Bytes) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], ANSWER)
}

/// Runs `measure` against an idle server that answers every input and `/healthz` at once.
pub(crate) fn with_server<T>(measure: impl FnOnce(std::net::SocketAddr) -> Result<T>) -> Result<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/v1/workers/{worker}/input", post(answer))
        .route("/healthz", get(|| async { "ok" }));
    let listener =
        axum::serve::ListenerExt::tap_io(listener, |stream: &mut tokio::net::TcpStream| {
            let _ = stream.set_nodelay(true);
        });
    let server = runtime.spawn(async move { axum::serve(listener, router).await });
    let result = measure(address);
    server.abort();
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Requests per second that the framework alone answers.
pub(crate) fn requests(connections: usize, window: Duration) -> Result<Outcome> {
    with_server(|address| {
        generator::run(&Plan {
            address,
            token: "0123456789012345678901234567890123456789012",
            workers: &["worker-1".to_owned()],
            connections,
            warm_up: Duration::from_millis(500),
            window,
            key_prefix: "ceiling-",
        })
    })
}

/// Microseconds of an empty request on one connection.
pub(crate) fn empty_request_us(client: &mut Client, count: usize) -> Result<Vec<f64>> {
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        let at = std::time::Instant::now();
        let answer = client.get("/healthz")?;
        taken.push(at.elapsed().as_secs_f64() * 1e6);
        anyhow::ensure!(answer.status == 200, "/healthz answered {}", answer.status);
    }
    Ok(taken)
}
