//! What the service tells about itself on standard error, and, with the feature `otlp`, as traces
//! to whoever gathers them.

use super::serve_args::LogFormat;
use crate::trace::TARGET;
use anyhow::{Result, anyhow};
use reqwest::Url;
use std::io::{IsTerminal as _, stderr};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::filter_fn,
    fmt,
    layer::{Layered, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// Ends what gathers traces.
pub(super) struct Telemetry {
    #[cfg(feature = "otlp")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// The subscriber that layers are put upon.
type Base = Layered<Box<dyn Layer<Registry> + Send + Sync>, Registry>;

/// Begins to tell on standard error alone.
pub(super) fn begin_logging(format: LogFormat) -> Result<()> {
    Telemetry::begin(format, None).map(drop)
}

impl Telemetry {
    /// Begins to tell. Blocking; not within a runtime.
    pub(super) fn begin(format: LogFormat, otlp: Option<&Url>) -> Result<Self> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let lines = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
        let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
            LogFormat::Json => lines.json().boxed(),
            LogFormat::Text => lines.boxed(),
        };
        let of_lines = filter_fn(|metadata| metadata.target() != TARGET);
        let lines = lines.with_filter(of_lines).with_filter(filter).boxed();
        Self::install(tracing_subscriber::registry().with(lines), otlp)
    }

    #[cfg(not(feature = "otlp"))]
    fn install(base: Base, otlp: Option<&Url>) -> Result<Self> {
        if otlp.is_some() {
            return Err(super::usage(
                "--otlp-endpoint needs a build that can send traces: cargo build --features otlp",
            ));
        }
        base.try_init().map_err(|error| anyhow!("logging could not be set up: {error}"))?;
        Ok(Self {})
    }

    #[cfg(feature = "otlp")]
    fn install(base: Base, otlp: Option<&Url>) -> Result<Self> {
        use opentelemetry::trace::TracerProvider as _;
        let provider = otlp.map(provider).transpose()?;
        let spans = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("acta"))
                .with_location(false)
                .with_threads(false)
                .with_filter(filter_fn(|metadata| metadata.target() == TARGET))
        });
        let begun = base.with(spans).try_init();
        begun.map_err(|error| anyhow!("logging could not be set up: {error}"))?;
        Ok(Self { provider })
    }

    /// Sends what was gathered, as far as there is somebody who takes it. Blocking, for at most a
    /// few seconds.
    pub(super) fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(provider) = self.provider
            && let Err(error) = provider.shutdown_with_timeout(std::time::Duration::from_secs(3))
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Sends spans in batches from a thread of its own; what does not fit is dropped, never waited for.
#[cfg(feature = "otlp")]
fn provider(endpoint: &Url) -> Result<opentelemetry_sdk::trace::SdkTracerProvider> {
    use anyhow::Context as _;
    use opentelemetry::KeyValue;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
    use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
    let traces = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(traces)
        .with_timeout(std::time::Duration::from_secs(5))
        .build()
        .context("traces cannot be sent")?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name("acta").with_attribute(version).build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}
