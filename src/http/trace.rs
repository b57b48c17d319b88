//! The span of a request, which everything that it causes is part of.

use crate::trace::{self, TARGET};
use acta_events::TraceParent;
use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument as _, Span, debug_span, field::Empty};

/// Begins a span, in the trace of the caller if it names one.
pub(super) async fn span(request: Request, next: Next) -> Response {
    let span = begin(&request);
    if span.is_disabled() {
        return next.run(request).await;
    }
    let given = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    trace::join(&span, given.and_then(|text| TraceParent::parse(text).ok()).as_ref());
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}

fn begin(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("", |path| path.as_str());
    debug_span!(
        target: TARGET,
        "http",
        otel.name = format_args!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = request.method().as_str(),
        http.route = route,
        http.response.status_code = Empty,
    )
}
