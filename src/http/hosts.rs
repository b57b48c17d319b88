//! Hosts: registering, beating, and looking at them.

use super::{
    App,
    access::Caller,
    body,
    error::Reply,
    local_workers, past,
    query::{self, Around},
    registry::{PageQuery, collected},
    registry_source::{self, Source, diagnostic, remote_status},
    workers::answer,
};
use crate::{
    auth::Permission,
    command::{Ack, Command},
    error::{Code, Rejection, shown},
    object,
};
use acta_events::{Actor, HostCapabilities, HostId, HostRegistered, Timestamp};
use acta_projections::{HostState, HostStatus, Projections, RuntimeStatus};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::Uri,
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The longest label, kind, operating system or architecture, in characters.
const TEXT_CHARS_MAX: usize = 120;

/// What a host is that does not say what kind it is.
const KIND_DEFAULT: &str = "worker-host";

/// `last_seen` is what the leases know, in a view of the present. A past view is what the log
/// knows: it is the same whenever it is asked for.
fn shape(
    app: &App,
    views: &Projections,
    id: &HostId,
    host: &HostState,
    at: past::At,
    last_seen: Option<Timestamp>,
) -> Value {
    let online = host.status == HostStatus::Online;
    let runtime = views.runtimes.get(&host.runtime);
    let (mut status, mut usable) = (json!(host.status), online);
    let mut diagnostics = diagnostics(id, host);
    let mut capabilities = match runtime {
        Some(runtime) => {
            let source = Source::of(runtime);
            usable &= runtime.status == RuntimeStatus::Running;
            if let (Source::Remote(address), past::At::Now) = (&source, at) {
                let seen = app.remotes.seen(&host.runtime, address);
                let (shown, there) = remote_status(seen.as_ref());
                // The host is there as long as its service answers, whether that takes work or not.
                let shown = if matches!(shown, "running" | "stopped") { "online" } else { shown };
                (status, usable) = (json!(shown), there);
                if let Some(problem) = seen.and_then(|seen| seen.problem) {
                    let message = format!("runtime `{}`: {problem}", host.runtime);
                    diagnostics.push(diagnostic(problem.code(), "error", message));
                }
            }
            registry_source::capabilities(&source, usable)
        }
        None => registry_source::capabilities(&Source::Embedded, false),
    };
    let has = &host.capabilities;
    for (name, value) in [
        ("os", json!(named(&has.os))),
        ("arch", json!(named(&has.arch))),
        ("has_workspace_fs", json!(has.has_workspace_fs)),
        ("has_shell", json!(has.has_shell)),
        ("has_git", json!(has.has_git)),
        ("supports_worktrees", json!(has.supports_worktrees)),
    ] {
        capabilities[name] = value;
    }
    if let Some(most) = has.max_workers {
        capabilities["max_workers"] = most.into();
    }
    let mut shape = json!({
        "runtime_id": host.runtime,
        "host_id": id,
        "label": host.label,
        "kind": host.kind,
        "status": status,
        "observed_at": host.registered_at,
        "last_seen_at": last_seen.map_or(host.last_seen_at, |seen| seen.max(host.last_seen_at)),
        "capabilities": capabilities,
        "diagnostics": diagnostics,
    });
    local_workers::refine(views, &host.runtime, Some(id), &mut shape);
    shape
}

fn named(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

fn diagnostics(id: &HostId, host: &HostState) -> Vec<Value> {
    let lost = (host.status == HostStatus::Lost).then(|| {
        let message = format!(
            "nothing was heard of host `{id}` for longer than its lease; it is found again when it \
             beats (`acta host beat {id}` on that machine)"
        );
        diagnostic("host_lost", "warning", message)
    });
    lost.into_iter().collect()
}

fn host_id(text: &str) -> Reply<HostId> {
    HostId::parse(text).map_err(|error| Rejection::new(Code::InvalidIdentifier, error.to_string()))
}

/// Refuses with what leads further.
pub(super) fn unknown(host: &HostId, at: past::At) -> Rejection {
    let then = if at == past::At::Now { "" } else { " at that moment" };
    let message = format!("there is no host `{host}`{then}; `acta ls hosts` lists them");
    Rejection::new(Code::UnknownHost, message)
}

/// The hosts of all runtimes, by id.
pub(super) async fn list(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let query: PageQuery = query::query(&uri)?;
    let limit = query.limit(&app)?;
    let after = query.after.as_deref().map(host_id).transpose()?;
    let at = past::parse(&app, query.at.as_deref()).await?;
    let leases = leases_at(&app, at);
    let items: Vec<_> = past::with_projections(&app, at, |views| {
        let all = views.hosts.after(after.as_ref().map(HostId::as_str)).take(limit);
        let seen = |id: &HostId| leases.and_then(|leases| leases.last_seen(id));
        all.map(|(id, host)| shape(&app, views, id, host, at, seen(id))).collect()
    })
    .await?;
    let diagnostics = collected(&items);
    Ok(Json(json!({"items": items, "diagnostics": diagnostics})))
}

fn leases_at(app: &App, at: past::At) -> Option<&crate::host_leases::HostLeases> {
    app.host_leases.as_ref().filter(|_| at == past::At::Now)
}

/// One host.
pub(super) async fn show(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
) -> Reply<Json<Value>> {
    caller.may(Permission::ReadWorkers)?;
    let id = host_id(&id)?;
    let at = past::of_query(&app, &uri).await?;
    let last_seen = leases_at(&app, at).and_then(|leases| leases.last_seen(&id));
    let found = past::with_projections(&app, at, |views| {
        views.hosts.get(&id).map(|host| shape(&app, views, &id, host, at, last_seen))
    })
    .await?;
    Ok(Json(json!({ "host": found.ok_or_else(|| unknown(&id, at))? })))
}

#[derive(Deserialize)]
struct RegisterRequest {
    host_id: String,
    runtime_id: Option<String>,
    kind: Option<String>,
    label: Option<String>,
    #[serde(default, deserialize_with = "object::object")]
    capabilities: CapabilitiesRequest,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CapabilitiesRequest {
    os: Option<String>,
    arch: Option<String>,
    has_workspace_fs: bool,
    has_shell: bool,
    has_git: bool,
    supports_worktrees: bool,
    max_workers: Option<u64>,
}

/// What is shown to everybody who may list hosts: short, and no path.
fn text(name: &str, given: Option<String>, default: &str) -> Reply<String> {
    let text = given.unwrap_or_else(|| default.into());
    let is_plain = !text.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'));
    if is_plain && !text.is_empty() && text.chars().count() <= TEXT_CHARS_MAX {
        return Ok(text);
    }
    let message = format!(
        "`{name}` has 1 to {TEXT_CHARS_MAX} characters, none of them a slash or of control, unlike \
         `{}`",
        shown(&text)
    );
    Err(Rejection::invalid(message))
}

impl RegisterRequest {
    fn registered(self, host: HostId) -> Reply<HostRegistered> {
        let asked = self.capabilities;
        Ok(HostRegistered {
            kind: text("kind", self.kind, KIND_DEFAULT)?,
            label: text("label", self.label, host.as_str())?,
            capabilities: HostCapabilities {
                os: text("os", asked.os, "unknown")?,
                arch: text("arch", asked.arch, "unknown")?,
                has_workspace_fs: asked.has_workspace_fs,
                has_shell: asked.has_shell,
                has_git: asked.has_git,
                supports_worktrees: asked.supports_worktrees,
                max_workers: asked.max_workers,
            },
            host,
        })
    }
}

/// What a registration is recognised by under an idempotency key.
#[derive(Serialize)]
struct Asked<'a>(&'a str, &'a HostRegistered);

/// Makes a host known, or brings what is known of it up to date. It is there from then on.
pub(super) async fn register(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::HostBeat)?;
    let around = Around::of(&request)?;
    let asked: RegisterRequest = body::json(&app, request).await?;
    let host = host_id(&asked.host_id)?;
    caller.0.require_host(&host)?;
    let runtime = match &asked.runtime_id {
        Some(runtime) => query::runtime_id(runtime)?,
        None => app.runtime.clone(),
    };
    let registered = asked.registered(host.clone())?;
    let key = around.key(&Asked(runtime.as_str(), &registered), None)?;
    let command = Command::RegisterHost { runtime: runtime.clone(), registered };
    let command = query::command(caller.0.actor.clone(), around, key, command);
    let ack = app.engine.submit(command).await?;
    heard_of(&app, &caller.0.actor, &host).await?;
    let (state, event_id) = match &ack {
        Ack::Recorded { first, .. } if first.header.event.name() == "host_registered" => {
            ("registered", Some(first.seq()))
        }
        Ack::Recorded { first, .. } => ("updated", Some(first.seq())),
        Ack::Unchanged { .. } | Ack::Repeated { .. } => ("unchanged", None),
    };
    let body = json!({
        "state": state,
        "runtime_id": runtime,
        "host_id": host,
        "event_id": event_id,
        "lease_ms": lease_ms(&app),
    });
    Ok(answer(ack.is_replayed(), body))
}

/// Renews the lease of a host.
pub(super) async fn heartbeat(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
) -> Reply<Json<Value>> {
    caller.may(Permission::HostBeat)?;
    let host = host_id(&id)?;
    caller.0.require_host(&host)?;
    let seen = heard_of(&app, &caller.0.actor, &host).await?;
    Ok(Json(json!({
        "host_id": host,
        "status": "online",
        "last_seen_at": seen,
        "lease_ms": lease_ms(&app),
    })))
}

fn lease_ms(app: &App) -> Option<u64> {
    let lease = app.host_leases.as_ref()?.lease();
    Some(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX))
}

/// Renews the lease of a host that is known. One that was lost is found, and that is recorded
/// before anybody is told so.
async fn heard_of(app: &App, actor: &Actor, host: &HostId) -> Reply<Option<Timestamp>> {
    let status = app.log.views().read().hosts.get(host).map(|host| host.status);
    let Some(status) = status else {
        let message = format!(
            "there is no host `{host}`; register it first (POST /v1/hosts, `acta host add`)"
        );
        return Err(Rejection::new(Code::UnknownHost, message));
    };
    let seen = app.host_leases.as_ref().map(|leases| leases.beat(host));
    if status == HostStatus::Lost {
        let request = crate::command::Request {
            actor: actor.clone(),
            key: None,
            if_match: None,
            trace: None,
            command: Command::FindHost { host: host.clone() },
        };
        app.engine.submit(request).await?;
    }
    Ok(seen)
}
