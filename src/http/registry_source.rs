//! What kinds of runtimes there are, and what each can do. What is said here is what the routes do.

use super::{App, past};
use crate::remote::{RemoteWorker, Seen};
use acta_events::{
    HostId, IntentKind, ProfileSelector, RemoteAddress, RuntimeId, Timestamp, WorkerId,
    display_hint,
};
use acta_projections::{
    REMOTE_HTTP, RunState, RuntimeState, RuntimeStatus, WorkerState, WorkerStatus,
};
use serde::Serialize;
use serde_json::{Value, json};

/// The most diagnostics in one answer.
pub(super) const DIAGNOSTICS_MAX: usize = 16;

/// The most workers that a runtime may have: as many as can be told apart.
const WORKERS_MAX: u32 = u32::MAX;

/// What a runtime is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// This service runs the workers itself.
    Embedded,
    /// Workers that others run on this machine, seen through what they write down.
    LocalPods,
    /// Workers that connect in.
    External,
    /// Another service.
    Remote(RemoteAddress),
}

impl Source {
    pub(super) fn of(runtime: &RuntimeState) -> Self {
        match (&runtime.remote, runtime.kind.as_str()) {
            (Some(remote), _) => Self::Remote(remote.clone()),
            (None, "local_pod") => Self::LocalPods,
            (None, "external") => Self::External,
            (None, _) => Self::Embedded,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded_worker_runtime",
            Self::LocalPods => "local_compatibility",
            Self::External => "external",
            Self::Remote(_) => REMOTE_HTTP,
        }
    }

    fn note(&self) -> &'static str {
        match self {
            Self::Embedded => "this service runs the workers as its own child processes",
            Self::LocalPods => "a read-only view of workers that others run on this machine",
            Self::External => "workers that run elsewhere and connect in",
            Self::Remote(_) => "another service, asked over HTTP whenever it is needed",
        }
    }
}

/// A runtime, how it is seen, and what it can do. A past view is what the log knows.
pub(super) fn runtime_shape(
    app: &App,
    id: &RuntimeId,
    runtime: &RuntimeState,
    at: past::At,
    host_ids: &[&HostId],
) -> Value {
    let source = Source::of(runtime);
    let seen = match (&source, at) {
        (Source::Remote(address), past::At::Now) => Some(app.remotes.seen(id, address)),
        _ => None,
    };
    let (status, usable) = match &seen {
        Some(seen) => remote_status(seen.as_ref()),
        None => (status_of(runtime.status), runtime.status == RuntimeStatus::Running),
    };
    let diagnostics = match &seen {
        Some(Some(Seen { problem: Some(problem), .. })) => {
            vec![diagnostic(problem.code(), "error", format!("runtime `{id}`: {problem}"))]
        }
        _ if at == past::At::Now => own_diagnostics(app, id),
        _ => Vec::new(),
    };
    json!({
        "runtime_id": id,
        "label": runtime.label,
        "kind": runtime.kind,
        "status": status,
        "source": {
            "kind": source.kind(),
            "status": "active",
            "identity_authority": "runtime_registry_projection",
            "note": source.note(),
        },
        "host_ids": host_ids,
        "templates": runtime.templates,
        "capabilities": capabilities(&source, usable),
        "diagnostics": diagnostics,
    })
}

fn own_diagnostics(app: &App, id: &RuntimeId) -> Vec<Value> {
    if *id != app.runtime {
        return Vec::new();
    }
    let problem = app.manifest_problem.read().clone();
    problem
        .map(|problem| diagnostic("manifest_unreadable", "warning", problem))
        .into_iter()
        .collect()
}

fn status_of(status: RuntimeStatus) -> &'static str {
    match status {
        RuntimeStatus::Running => "running",
        RuntimeStatus::Stopped => "stopped",
    }
}

/// What is not known yet is not promised either.
pub(super) fn remote_status(seen: Option<&Seen>) -> (&'static str, bool) {
    match seen {
        None => ("unknown", false),
        Some(Seen { problem: Some(_), .. }) => ("unavailable", false),
        Some(Seen { running: true, .. }) => ("running", true),
        Some(Seen { running: false, .. }) => ("stopped", false),
    }
}

/// What a runtime, or a host of it, can do. `usable` is whether it takes work.
pub(super) fn capabilities(source: &Source, usable: bool) -> Value {
    let remote = matches!(source, Source::Remote(_));
    let local = matches!(source, Source::LocalPods);
    // Another service can be read as long as it is there, and is not told apart further.
    let readable = usable || !remote;
    json!({
        "can_list_hosts": true,
        "can_list_workers": readable,
        "can_get_worker": readable,
        "can_spawn_worker": usable && matches!(source, Source::Embedded | Source::Remote(_)),
        "can_stop_worker": usable && !local,
        "can_accept_input": usable && !local,
        "can_stream_events": readable && !local,
        "can_read_bounded_transcript": readable && !local,
        "has_workspace_fs": false,
        "has_shell": false,
        "has_git": false,
        "supports_worktrees": false,
        "supports_backend_internal_tools": matches!(source, Source::Embedded),
        "local_pod_inspection": if local { "available" } else { "not_applicable" },
        "workspace_scope": if local { "current_workspace" } else { "backend_internal" },
        "max_workers": WORKERS_MAX,
        "os": if remote { "unknown" } else { std::env::consts::OS },
        "arch": if remote { "unknown" } else { std::env::consts::ARCH },
    })
}

/// Something that a person should know.
pub(super) fn diagnostic(code: &str, severity: &str, message: impl Into<String>) -> Value {
    json!({"code": code, "severity": severity, "message": message.into()})
}

/// A worker as it is shown to those who list several sources: nothing of its texts, its process
/// or the places of the machine it runs on.
#[derive(Debug, Serialize)]
pub(super) struct WorkerSummary {
    runtime_id: RuntimeId,
    pub(super) worker_id: WorkerId,
    host_id: HostId,
    label: String,
    role: Option<String>,
    profile: Option<String>,
    workspace: Workspace,
    state: RunState,
    status: Value,
    last_seen_at: Option<Timestamp>,
    implementation: Implementation,
    capabilities: WorkerCapabilities,
    diagnostics: Vec<Value>,
}

#[derive(Debug, Serialize)]
struct Workspace {
    visibility: &'static str,
    identity: &'static str,
}

#[derive(Debug, Serialize)]
struct Implementation {
    kind: &'static str,
    display_hint: String,
}

#[derive(Debug, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "the shape of the contract")]
struct WorkerCapabilities {
    can_accept_input: bool,
    can_stream_events: bool,
    can_stop: bool,
    can_spawn_followup: bool,
    can_read_bounded_transcript: bool,
}

const INTERNAL: Workspace =
    Workspace { visibility: "backend_internal", identity: "runtime_registry_worker" };

impl WorkerSummary {
    /// A worker of this service's log. A worker that runs nowhere is shown on `here`.
    pub(super) fn of(
        worker: &WorkerState,
        source: &Source,
        runtime_runs: bool,
        here: &HostId,
    ) -> Self {
        let spec = &worker.spec;
        let alive = worker.status == WorkerStatus::Running;
        let external = *source == Source::External;
        let startable = spec.template.is_some() || external;
        Self {
            runtime_id: worker.runtime.clone(),
            worker_id: worker.worker.clone(),
            host_id: spec.host.clone().unwrap_or_else(|| here.clone()),
            label: worker.worker.to_string(),
            role: role(&spec.intent),
            profile: Some(profile(&spec.profile)),
            workspace: INTERNAL,
            state: worker.run_state(),
            status: json!(worker.status),
            last_seen_at: Some(worker.last_at),
            implementation: Implementation {
                kind: if external { "external" } else { "embedded_worker_runtime" },
                display_hint: match &worker.external {
                    // What runs it is not known here; whether anything does is.
                    Some(agent) => agent.presence.as_str().into(),
                    None => display_hint(spec.template.as_deref().unwrap_or("unconnected")),
                },
            },
            capabilities: WorkerCapabilities {
                can_accept_input: alive && startable && runtime_runs,
                can_stream_events: true,
                can_stop: alive,
                can_spawn_followup: runtime_runs && !external,
                can_read_bounded_transcript: true,
            },
            diagnostics: failure(worker),
        }
    }

    /// A worker of another service, under the alias of its runtime.
    pub(super) fn of_remote(worker: RemoteWorker, runtime: &RuntimeId) -> Self {
        let alive = worker.status == crate::remote::RemoteStatus::Running;
        let connected = worker.execution.backend == "connected";
        Self {
            runtime_id: runtime.clone(),
            host_id: acta_projections::remote_host(runtime),
            label: worker.worker_id.to_string(),
            worker_id: worker.worker_id,
            role: role(&worker.intent.into()),
            profile: Some(profile(&worker.profile)),
            workspace: INTERNAL,
            state: worker.execution.run_state,
            status: json!(worker.status),
            last_seen_at: None,
            implementation: Implementation {
                kind: REMOTE_HTTP,
                display_hint: display_hint(worker.template.as_deref().unwrap_or("unconnected")),
            },
            capabilities: WorkerCapabilities {
                can_accept_input: alive && connected,
                can_stream_events: true,
                can_stop: alive,
                can_spawn_followup: true,
                can_read_bounded_transcript: true,
            },
            diagnostics: Vec::new(),
        }
    }
}

fn role(intent: &IntentKind) -> Option<String> {
    match intent {
        IntentKind::Role { role } => Some(display_hint(role)),
        IntentKind::Assistant | IntentKind::Task => None,
    }
}

fn profile(profile: &ProfileSelector) -> String {
    match profile {
        ProfileSelector::RuntimeDefault => "runtime_default".into(),
        ProfileSelector::Builtin(value) | ProfileSelector::Named(value) => display_hint(value),
    }
}

/// That something went wrong, not how: what the system said may name a place of the machine.
fn failure(worker: &WorkerState) -> Vec<Value> {
    let last = worker.last_result.as_ref().filter(|last| last.message.is_some());
    let failed = last.map(|last| {
        let operation = serde_json::to_value(last.operation).unwrap_or_default();
        let message = format!(
            "the last {} of this worker failed; `acta show worker {}` tells why",
            operation.as_str().unwrap_or("operation"),
            worker.worker
        );
        diagnostic("worker_last_operation_failed", "warning", message)
    });
    failed.into_iter().collect()
}
