//! The HTTP surfaces: thin handlers over engine, views and feed.
//!
//! A handler parses, asks, and renders. It decides nothing, and it never sees a journal.

mod access;
mod base;
mod blocks;
mod body;
mod bundles;
mod cursors;
mod dispatch;
mod drain;
mod error;
mod events;
mod events_back;
mod events_stream;
mod events_ws;
mod external;
mod frames;
mod grep;
mod health;
mod hosts;
mod local_workers;
mod operate;
mod past;
mod proofs;
mod query;
mod reads;
mod record_json;
mod redactions;
mod registry;
mod registry_operations;
mod registry_remote;
mod registry_runtimes;
mod registry_source;
mod registry_spawn;
mod registry_watch;
mod registry_workers;
mod runtime;
mod server;
mod session;
mod shapes;
mod snapshot;
mod snapshots;
mod socket;
mod tiles;
mod tokens;
mod trace;
mod views;
mod worker_ws;
mod workers;

pub use external::Agents;
pub use reads::{Reads, ReadsOwner};
pub use server::{Shutdown, serve};
pub(crate) use workers::REPLAYED;

use crate::{
    audit::Notary,
    auth::{Authenticator, HostPolicy},
    dispatch::Kills,
    engine::EngineHandle,
    host_leases::HostLeases,
    log::Log,
    manifest::Manifest,
    remote::Remotes,
    retention::Retention,
    snapshot::Newest,
};
use acta_events::{HostId, RuntimeId};
use axum::{
    Router, middleware,
    routing::{delete, get, post},
};
use parking_lot::RwLock;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// Bounds of requests and answers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest request body, in bytes.
    pub body_bytes: usize,
    /// The largest content, in bytes.
    pub content_bytes: usize,
    /// The largest transcript page, in items.
    pub transcript_items: usize,
    /// The largest page of events, in records.
    pub event_records: usize,
    /// The largest page of a registry list, in items.
    pub list_items: usize,
    /// How long a request may take to arrive.
    pub body_timeout: Duration,
    /// How long an observer may leave its frames unread.
    pub observer_idle: Duration,
    /// The pause between two heartbeats of a stream.
    pub heartbeat: Duration,
    /// How many connections are served at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 17 << 20,
            content_bytes: 16 << 20,
            transcript_items: 256,
            event_records: 1_000,
            list_items: 256,
            body_timeout: Duration::from_secs(30),
            observer_idle: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            connections: 20_000,
        }
    }
}

/// What the handlers work with.
pub struct Surface {
    /// The durable log and what is derived from it.
    pub log: Arc<Log>,
    /// Where commands go.
    pub engine: EngineHandle,
    /// What workers can be made from.
    pub manifest: Arc<RwLock<Arc<Manifest>>>,
    /// The runtime that this service executes itself.
    pub runtime: RuntimeId,
    /// This machine, as a host of that runtime.
    pub host: HostId,
    /// Who may do what.
    pub authenticator: Authenticator,
    /// Which `Host` and `Origin` headers are ours.
    pub hosts: HostPolicy,
    /// Bounds.
    pub limits: Limits,
    /// Proves what is in the log.
    pub notary: Arc<Notary>,
    /// Whether everybody may read checkpoints and tiles.
    pub public_log: bool,
    /// Ends open streams.
    pub shutdown: Shutdown,
    /// Notes what auditors read, if it is to be recorded.
    pub reads: Option<Reads>,
    /// Where the data is, if it is on disk.
    pub data: Option<PathBuf>,
    /// What was found there last.
    pub(crate) disk_seen: operate::DiskSeen,
    /// Which hosts are there; without, nothing is known but what the log says.
    pub host_leases: Option<HostLeases>,
    /// The runtimes of other services.
    pub remotes: Remotes,
    /// Where a worker is ended without grace.
    pub kills: Kills,
    /// What is wrong with the manifest as it is now, while an earlier one is in use.
    pub manifest_problem: Arc<RwLock<Option<String>>>,
    /// Agents that connect in.
    pub agents: Agents,
    /// The newest snapshot that is known of.
    pub snapshots: Newest,
    /// How much history is kept.
    pub retention: Retention,
    /// One rebuild of a past state at a time.
    pub(crate) rebuilding: tokio::sync::Mutex<()>,
}

impl Surface {
    /// Everything that the handlers need, with its defaults.
    #[allow(clippy::too_many_arguments, reason = "each is a different thing that serve wires up")]
    pub fn new(
        log: Arc<Log>,
        engine: EngineHandle,
        manifest: Arc<RwLock<Arc<Manifest>>>,
        runtime: RuntimeId,
        host: HostId,
        authenticator: Authenticator,
        hosts: HostPolicy,
        limits: Limits,
        notary: Arc<Notary>,
        public_log: bool,
        remotes: Remotes,
        agents: Agents,
    ) -> Self {
        let shutdown = Shutdown::default();
        let rebuilding = tokio::sync::Mutex::new(());
        Self {
            log,
            engine,
            manifest,
            runtime,
            host,
            authenticator,
            hosts,
            limits,
            notary,
            public_log,
            shutdown,
            reads: None,
            data: None,
            disk_seen: operate::DiskSeen::default(),
            host_leases: None,
            remotes,
            kills: Kills::default(),
            manifest_problem: Arc::default(),
            agents,
            snapshots: Newest::default(),
            retention: Retention::default(),
            rebuilding,
        }
    }
}

pub(crate) type App = Arc<Surface>;

/// All routes.
pub fn router(surface: Arc<Surface>) -> Router {
    let workers = Router::new()
        .route("/v1/workers", get(workers::list).post(workers::create))
        .route("/v1/workers/{worker_id}", get(workers::show))
        .route("/v1/workers/{worker_id}/input", post(workers::input))
        .route("/v1/workers/{worker_id}/stop", post(workers::stop))
        .route("/v1/workers/{worker_id}/cancel", post(workers::cancel))
        .route("/v1/workers/{worker_id}/transcript", get(workers::transcript))
        .route("/v1/workers/{worker_id}/events/ws", get(worker_ws::open));
    // What anybody may mirror stands outside of authentication where that is wanted.
    let (public, private) = if surface.public_log {
        (tiles::routes(), Router::new())
    } else {
        (Router::new(), tiles::routes())
    };
    Router::new()
        .route("/v1/runtime", get(runtime::show))
        .route("/v1/runtime/stop", post(runtime::stop))
        .route("/v1/config-bundles", get(bundles::list).post(bundles::store))
        .route("/v1/config-bundles/{id}/availability", get(bundles::availability))
        .route("/v1/runtimes", get(registry::runtimes).post(registry_runtimes::register))
        .route(
            "/v1/runtimes/{runtime_id}",
            get(registry::runtime).delete(registry_runtimes::retire),
        )
        .route(
            "/v1/runtimes/{runtime_id}/workers",
            get(registry_workers::of_runtime).post(registry_spawn::spawn),
        )
        .route("/v1/runtimes/{runtime_id}/workers/{worker_id}", get(registry_workers::show))
        .merge(registry_operations())
        .route("/v1/hosts", get(hosts::list).post(hosts::register))
        .route("/v1/hosts/{host_id}", get(hosts::show))
        .route("/v1/hosts/{host_id}/heartbeat", post(hosts::heartbeat))
        .route("/v1/hosts/{host_id}/workers", get(registry_workers::of_host))
        .route("/v1/events", get(events::list))
        .route("/v1/events/ws", get(events_ws::open))
        .route("/v1/cursors", get(cursors::list))
        .route("/v1/cursors/{name}", get(cursors::show).put(cursors::commit))
        .route("/v1/views", get(views::show))
        .route("/v1/blocks", get(blocks::list))
        .route("/v1/base", get(base::show))
        .route("/v1/contents", get(blocks::content))
        .route("/v1/proofs/inclusion", get(proofs::inclusion))
        .route("/v1/proofs/consistency", get(proofs::consistency))
        .route("/v1/dispatch", get(dispatch::show))
        .route("/v1/dispatch/resume", post(dispatch::resume))
        .route("/v1/snapshots", post(snapshots::create))
        .route("/v1/status", get(operate::status))
        .route("/metrics", get(operate::metrics))
        .route("/v1/deliveries", get(external::deliveries::list))
        .route("/v1/deliveries/{id}/retry", post(external::deliveries::retry))
        .route("/v1/redactions", get(redactions::list).post(redactions::redact))
        .route("/v1/tokens", get(tokens::list).post(tokens::issue))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .merge(workers)
        .merge(external::routes())
        .merge(private)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&surface), access::authenticate))
        .merge(public)
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        // Of those that need no token; the others have it already.
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&surface), access::check_host))
        .layer(middleware::from_fn(trace::span))
        .with_state(surface)
}

fn registry_operations() -> Router<App> {
    let at = |name: &str| format!("/v1/runtimes/{{runtime_id}}/workers/{{worker_id}}/{name}");
    Router::new()
        .route(&at("input"), post(registry_operations::input))
        .route(&at("stop"), post(registry_operations::stop))
        .route(&at("cancel"), post(registry_operations::cancel))
        .route(&at("transcript"), get(registry_operations::transcript))
        .route(&at("connect-points"), get(registry_watch::connect_points))
        .route(&at("events/ws"), get(registry_watch::open))
}
