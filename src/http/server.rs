//! Accepting connections, and ending in good order.

use super::{Surface, drain::Drained, router};
use axum::{Router, body::Body, extract::Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

/// How long a connection may take to send the head of a request; idle ones between two
/// requests as well.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// How much longer than an observer any other client may leave its answer unread.
const UNREAD_GRACE: Duration = Duration::from_secs(10);

/// How long requests in flight may take once the service ends.
const DRAIN: Duration = Duration::from_secs(10);

/// Tells streams and the listener that the service ends.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Begins to end.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether it has begun.
    pub fn is_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it begins.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }
}

/// Serves until shutdown begins, then lets requests in flight finish.
pub async fn serve(listener: TcpListener, surface: Arc<Surface>) {
    let shutdown = surface.shutdown.clone();
    let places = Arc::new(Semaphore::new(surface.limits.connections));
    // Observers over WebSocket are closed earlier, with their cursor.
    let unread_max = surface.limits.observer_idle + UNREAD_GRACE;
    let app = router(surface);
    let connections = TaskTracker::new();
    loop {
        // Beyond the limit new connections wait in the kernel's queue.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = shutdown.begun() => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Most likely out of file descriptors: others will be freed.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = shutdown.begun() => break,
        };
        let (app, shutdown) = (app.clone(), shutdown.clone());
        connections.spawn(async move {
            serve_one(stream, app, shutdown, unread_max).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("some requests did not finish before the service ended");
    }
}

async fn serve_one(stream: TcpStream, app: Router, shutdown: Shutdown, unread_max: Duration) {
    // Small answers are not worth waiting for more of them.
    drop(stream.set_nodelay(true));
    // Whoever leaves its answer unread for too long gives up its place.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(unread_max));
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        app.clone().oneshot(request.map(|body| Body::new(Drained::new(body))))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.begun() => {
            // The request in hand is answered; no further one is read.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
