//! Traces: what of a request happened where, and how long it took.
//!
//! Spans of the target [`TARGET`] are made along the path of a command: the HTTP request, the
//! command, its decision, the append that made it durable, and the turn of a backend that it
//! started. Unless the service was built with the feature `otlp` and told where traces go,
//! nobody wants them, and making one costs a look at a flag. They hold names of routes, kinds
//! and identifiers, and nothing that was said.

use acta_events::TraceParent;
use tracing::Span;

/// The target of the spans that make a trace.
pub const TARGET: &str = "acta::trace";

/// Makes a span part of a trace that began elsewhere: of a caller, or of the request in the log.
pub(crate) fn join(span: &Span, trace: Option<&TraceParent>) {
    if let Some(trace) = trace
        && !span.is_disabled()
    {
        context::join(span, trace);
    }
}

/// The trace that a span is part of, for who comes after.
pub(crate) fn of(span: &Span) -> Option<TraceParent> {
    if span.is_disabled() { None } else { context::of(span) }
}

#[cfg(not(feature = "otlp"))]
mod context {
    use super::{Span, TraceParent};

    pub(super) fn join(_: &Span, _: &TraceParent) {}

    pub(super) fn of(_: &Span) -> Option<TraceParent> {
        None
    }
}

#[cfg(feature = "otlp")]
mod context {
    use super::{Span, TraceParent};
    use opentelemetry::{
        Context,
        trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
    };
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    pub(super) fn join(span: &Span, trace: &TraceParent) {
        if let Some(parent) = read(trace.as_str()) {
            // It fails only for a span that nobody records.
            drop(span.set_parent(Context::new().with_remote_span_context(parent)));
        }
    }

    pub(super) fn of(span: &Span) -> Option<TraceParent> {
        let context = span.context();
        let span = context.span();
        let at = span.span_context();
        let (trace, id, flags) = (at.trace_id(), at.span_id(), at.trace_flags().to_u8());
        at.is_valid().then(|| TraceParent::parse(&format!("00-{trace}-{id}-{flags:02x}")).ok())?
    }

    fn read(text: &str) -> Option<SpanContext> {
        let mut parts = text.split('-').skip(1);
        let trace = TraceId::from_hex(parts.next()?).ok()?;
        let span = SpanId::from_hex(parts.next()?).ok()?;
        let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
        let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
        context.is_valid().then_some(context)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_traceparent_is_read_as_it_is_written() {
            let check = |text: &str, sampled: Option<bool>| {
                let read = read(text);
                assert_eq!(read.as_ref().map(SpanContext::is_sampled), sampled, "{text}");
                let written = read.map(|at| format!("{}-{}", at.trace_id(), at.span_id()));
                assert!(written.is_none_or(|written| text.contains(&written)), "{text}");
            };
            check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(true));
            check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false));
            check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None);
            check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None);
        }
    }
}
