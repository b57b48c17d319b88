//! What an operator watches: metrics, and the same on one screen. Looking changes nothing: no
//! record is made of it.

use super::{App, access::Caller, error::Reply, health::reason, past};
use crate::{
    auth::Permission,
    disk_use::{self, Process},
    engine::Health,
    error::{Code, Rejection},
    log::blocking,
    metrics::{Form, Observer},
    retention::Held,
};
use acta_events::{RetentionPolicy, Sequence};
use acta_projections::{Expired, HostStatus, Projections};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse as _, Response},
};
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

/// How long what was found on the disk is shown before it is looked at again; longer where
/// looking takes long, so that it never takes more than a twentieth of the time.
const DISK_LOOKED_AT_EVERY: Duration = Duration::from_secs(15);
const DISK_SHARE: u32 = 20;

/// How many cursors have a lag of their own: those that are furthest behind.
const CURSORS_MAX: usize = 128;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What was found on the disk, and until when that is good enough.
pub(crate) type DiskSeen = tokio::sync::Mutex<Option<(Instant, Disk)>>;

/// Bytes on the disk of the data.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Disk {
    /// Used, by part of the data directory.
    used: BTreeMap<String, u64>,
    /// Free, for the service.
    free: u64,
    /// Sealed segments.
    segments: u64,
}

/// A consumer's cursor.
#[derive(Serialize)]
struct Cursor {
    owner: String,
    name: String,
    /// Records after its position.
    lag: u64,
}

/// What is looked at when it is asked for.
#[derive(Serialize)]
struct Seen {
    version: &'static str,
    log_id: String,
    epoch: u32,
    health: &'static str,
    uptime_seconds: u64,
    head: u64,
    last_record_at: Option<String>,
    workers: BTreeMap<&'static str, u64>,
    /// By whether their lease holds.
    hosts: BTreeMap<&'static str, u64>,
    observers: BTreeMap<&'static str, u64>,
    queue_commands: u64,
    /// Records that are in the log and not there yet.
    lag: BTreeMap<&'static str, u64>,
    cursors_total: u64,
    cursors: Vec<Cursor>,
    process: BTreeMap<&'static str, u64>,
    disk: Option<Disk>,
    /// The newest that is known of.
    snapshot: Option<SnapshotSeen>,
    history: History,
}

/// What of the log is kept.
#[derive(Serialize)]
struct History {
    /// The first record that has not expired.
    first: u64,
    policy: RetentionPolicy,
    /// Up to where it has expired, if it has.
    expired: Option<Expired>,
    /// What keeps more from it.
    held: Option<Held>,
}

fn history(app: &App, views: &Projections) -> History {
    History {
        first: app.log.expired_through().next().0,
        policy: app.retention.policy,
        expired: views.lineage.expired().cloned(),
        held: app.retention.held(),
    }
}

/// A snapshot.
#[derive(Serialize)]
struct SnapshotSeen {
    sequence: u64,
    age_seconds: u64,
}

fn snapshot(app: &App) -> Option<SnapshotSeen> {
    let (sequence, taken) = app.snapshots.get()?;
    let age = jiff::Timestamp::now().as_microsecond().saturating_sub(taken.0);
    let age_seconds = u64::try_from(age).unwrap_or(0) / 1_000_000;
    Some(SnapshotSeen { sequence: sequence.0, age_seconds })
}

async fn look(app: &App) -> Reply<Seen> {
    let disk = disk(app).await?;
    let process = blocking(|| Ok(disk_use::process())).await?;
    let metrics = app.engine.metrics();
    let health = reason(app);
    let dispatch = metrics.dispatch_lag(&app.log);
    let views = app.log.views().read();
    // Views are ahead of the head for a moment, never behind it.
    let head = app.log.head().max(views.position());
    let behind = |position: Sequence| head.0.saturating_sub(position.0);
    let counts = views.workers.counts(&app.runtime);
    let hosts =
        |status| views.hosts.iter().filter(|(_, host)| host.status == status).count() as u64;
    let mut cursors: Vec<_> = views
        .cursors
        .iter()
        .map(|(owner, name, state)| (behind(state.position), owner, name))
        .collect();
    let cursors_total = cursors.len() as u64;
    cursors.sort_unstable_by(|a, b| b.cmp(a));
    cursors.truncate(CURSORS_MAX);
    let cursors = cursors
        .into_iter()
        .map(|(lag, owner, name)| Cursor { owner: owner.to_string(), name: name.to_string(), lag })
        .collect();
    Ok(Seen {
        version: env!("CARGO_PKG_VERSION"),
        log_id: app.log.id().to_string(),
        epoch: views.lineage.current().0,
        health,
        uptime_seconds: metrics.uptime().as_secs(),
        head: head.0,
        last_record_at: (head.0 > 0).then(|| views.tip.time.to_string()),
        workers: [
            ("running", counts.running),
            ("stopped", counts.stopped),
            ("cancelled", counts.cancelled),
        ]
        .into(),
        hosts: [("online", hosts(HostStatus::Online)), ("lost", hosts(HostStatus::Lost))].into(),
        observers: Observer::ALL
            .map(|way| (way.name(), u64::try_from(metrics.observers(way)).unwrap_or(0)))
            .into(),
        queue_commands: app.engine.waiting() as u64,
        lag: [
            ("views", behind(views.position())),
            ("dispatch", dispatch),
            ("index", behind(app.log.index().position())),
            ("index_on_disk", behind(app.log.index().flushed_through())),
            ("state_checkpoint", behind(app.log.checkpointed())),
            ("signed_checkpoint", head.0.saturating_sub(app.notary.latest().size())),
        ]
        .into(),
        cursors_total,
        cursors,
        process: fields(process),
        disk,
        snapshot: snapshot(app),
        history: history(app, &views),
    })
}

fn fields(process: Process) -> BTreeMap<&'static str, u64> {
    let Process { resident_bytes, threads, open_files, open_files_max } = process;
    [
        ("resident_bytes", resident_bytes),
        ("threads", threads),
        ("open_files", open_files),
        ("open_files_max", open_files_max),
    ]
    .into()
}

/// What the disk holds; looked at now and then, since it costs a walk through the directory.
async fn disk(app: &App) -> Reply<Option<Disk>> {
    let Some(data) = app.data.clone() else { return Ok(None) };
    let mut seen = app.disk_seen.lock().await;
    let begun = Instant::now();
    if let Some((until, disk)) = &*seen
        && begun < *until
    {
        return Ok(Some(disk.clone()));
    }
    let disk = blocking(move || Ok(measure(&data))).await?;
    let pause = DISK_LOOKED_AT_EVERY.max(begun.elapsed() * DISK_SHARE);
    *seen = Some((Instant::now() + pause, disk.clone()));
    Ok(Some(disk))
}

fn measure(data: &Path) -> Disk {
    Disk {
        used: disk_use::parts(data),
        free: disk_use::free_bytes(data).unwrap_or(0),
        segments: disk_use::segments(data),
    }
}

/// One screen, as JSON.
pub(super) async fn status(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    past::refuse(&uri, "the status of the service")?;
    let seen = look(&app).await?;
    Ok(Json(json!({ "status": seen })))
}

/// Everything, for Prometheus.
pub(super) async fn metrics(
    caller: Caller,
    State(app): State<App>,
    headers: HeaderMap,
) -> Reply<Response> {
    caller.may(Permission::ReadWorkers)?;
    let seen = look(&app).await?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let (form, media_type) = match accept {
        Some(accept) if accept.contains("application/openmetrics-text") => {
            (Form::OpenMetrics, OPENMETRICS)
        }
        _ => (Form::Text, TEXT),
    };
    let text = app.engine.metrics().encode(&[registry(&seen), process(&seen)], form);
    let text = text.map_err(|_| Rejection::new(Code::Internal, "the metrics have no text"))?;
    Ok(([(header::CONTENT_TYPE, media_type)], text).into_response())
}

type Labels = Vec<(&'static str, String)>;

fn gauge(value: u64) -> Gauge {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}

fn family(values: impl IntoIterator<Item = (Labels, u64)>) -> Family<Labels, Gauge> {
    let family = Family::<Labels, Gauge>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    family
}

fn registry(seen: &Seen) -> Registry {
    let mut registry = Registry::with_prefix("acta");
    let by = |name: &'static str, values: &BTreeMap<&'static str, u64>| {
        family(values.iter().map(|(key, value)| (vec![(name, (*key).to_owned())], *value)))
    };
    let build = vec![("version", seen.version.to_owned()), ("log_id", seen.log_id.clone())];
    registry.register("build_info", "What runs, and on which log", family([(build, 1)]));
    let is_ready = u64::from(seen.health == Health::Ready.reason());
    let reason = vec![("reason", seen.health.to_owned())];
    let help = "1 if commands are taken, 0 if not, with the reason that /readyz gives";
    registry.register("ready", help, family([(reason, is_ready)]));
    registry.register("epoch", "Incarnation of the log", gauge(seen.epoch.into()));
    let help = "Time since the start";
    registry.register_with_unit("uptime", help, Unit::Seconds, gauge(seen.uptime_seconds));
    registry.register("head_records", "Sequence of the last record", gauge(seen.head));
    let help = "Sequence of the first record that has not expired";
    registry.register("first_record", help, gauge(seen.history.first));
    let help = "1 if history is kept for longer than the policy says, since it is still needed";
    registry.register("history_held", help, gauge(seen.history.held.is_some().into()));
    registry.register("workers", "Workers of the own runtime", by("status", &seen.workers));
    let help = "Hosts, by whether something was heard of them within their lease";
    registry.register("hosts", help, by("status", &seen.hosts));
    registry.register("queue_commands", "Commands that wait", gauge(seen.queue_commands));
    let help = "Records of the log that have not got there yet";
    registry.register("lag_records", help, by("of", &seen.lag));
    registry.register("cursors", "Cursors of consumers", gauge(seen.cursors_total));
    let cursors = seen.cursors.iter().map(|cursor| {
        (vec![("owner", cursor.owner.clone()), ("name", cursor.name.clone())], cursor.lag)
    });
    let help = "Records after a consumer's cursor, for those furthest behind";
    registry.register("cursor_lag_records", help, family(cursors));
    let age: Gauge = Gauge::default();
    let seconds =
        seen.snapshot.as_ref().map(|it| i64::try_from(it.age_seconds).unwrap_or(i64::MAX));
    age.set(seconds.unwrap_or(-1));
    let help = "Age of the newest snapshot; -1 if none is known of";
    registry.register_with_unit("snapshot_age", help, Unit::Seconds, age);
    if let Some(disk) = &seen.disk {
        let used = disk.used.iter().map(|(part, bytes)| (vec![("part", part.clone())], *bytes));
        let help = "On disk, by part of the data";
        registry.register_with_unit("disk", help, Unit::Bytes, family(used));
        registry.register("segments", "Sealed segments of the log", gauge(disk.segments));
        let help = "Free on the disk of the data";
        registry.register_with_unit("disk_free", help, Unit::Bytes, gauge(disk.free));
    }
    registry
}

/// Under the names that every program has.
fn process(seen: &Seen) -> Registry {
    let mut registry = Registry::with_prefix("process");
    let value = |name: &str| gauge(seen.process.get(name).copied().unwrap_or(0));
    let help = "Memory of the process";
    registry.register_with_unit("resident_memory", help, Unit::Bytes, value("resident_bytes"));
    registry.register("threads", "Threads of the process", value("threads"));
    registry.register("open_fds", "Open files of the process", value("open_files"));
    registry.register("max_fds", "How many files may be open", value("open_files_max"));
    registry
}
