//! Local workers as the registry shows them. They are seen only: nothing can be done with them here.

use crate::local_pods;
use acta_events::{HostId, LocalPodProblem, LocalPodsState, RuntimeId, WorkerId};
use acta_projections::{LocalWorkerState, Projections};
use serde_json::{Value, json};

/// A page of the local workers of a runtime, or of those on one of its hosts, by id, with what is to
/// be said of the others.
pub(super) fn list(
    views: &Projections,
    runtime: &RuntimeId,
    host: Option<&HostId>,
    after: Option<&WorkerId>,
    limit: usize,
) -> Value {
    let all = views.local_workers.of(runtime, after);
    let here = all.filter(|(_, worker)| host.is_none_or(|host| worker.found.host == *host));
    let items: Vec<_> = here.take(limit).map(|(id, worker)| shape(runtime, id, worker)).collect();
    json!({"items": items, "diagnostics": diagnostics(views, runtime, host)})
}

/// One local worker.
pub(super) fn worker(views: &Projections, runtime: &RuntimeId, id: &WorkerId) -> Option<Value> {
    views.local_workers.get(runtime, id).map(|worker| shape(runtime, id, worker))
}

fn shape(runtime: &RuntimeId, id: &WorkerId, worker: &LocalWorkerState) -> Value {
    let found = &worker.found;
    json!({
        "runtime_id": runtime,
        "worker_id": id,
        "host_id": found.host,
        "label": found.label,
        "role": found.role,
        "profile": found.profile,
        "workspace": {"visibility": "current_workspace", "identity": "runtime_workspace"},
        "state": if found.status.is_active() { "active" } else { "metadata_only" },
        "status": found.status,
        "last_seen_at": worker.changed_at,
        "implementation": {"kind": "local_pod", "display_hint": found.hint},
        "capabilities": {
            "can_accept_input": false,
            "can_stream_events": false,
            "can_stop": false,
            "can_spawn_followup": false,
            "can_read_bounded_transcript": false,
        },
        "diagnostics": [],
    })
}

/// Whether the pods of a runtime can be looked into.
fn is_available(views: &Projections, runtime: &RuntimeId) -> bool {
    let inspected = views.local_workers.inspected(runtime);
    inspected.is_some_and(|inspected| inspected.state == LocalPodsState::Available)
}

/// Adds to a runtime of local pods, or to a host of it, what was seen of the pods: what can be done
/// depends on it, and a host whose pods cannot be looked into is `degraded`.
pub(super) fn refine(
    views: &Projections,
    runtime: &RuntimeId,
    host: Option<&HostId>,
    shape: &mut Value,
) {
    let kind = views.runtimes.get(runtime).map(|runtime| runtime.kind.as_str());
    if kind != Some(local_pods::RUNTIME_KIND) {
        return;
    }
    let is_available = is_available(views, runtime);
    shape["capabilities"]["local_pod_inspection"] =
        if is_available { "available" } else { "unavailable" }.into();
    if host.is_some() && !is_available && shape["status"] == "online" {
        shape["status"] = "degraded".into();
    }
    if let Some(all) = shape["diagnostics"].as_array_mut() {
        all.extend(diagnostics(views, runtime, host));
    }
}

/// What is to be said of a runtime's pods; of one host's, if one is named.
pub(super) fn diagnostics(
    views: &Projections,
    runtime: &RuntimeId,
    host: Option<&HostId>,
) -> Vec<Value> {
    let Some(inspected) = views.local_workers.inspected(runtime) else { return Vec::new() };
    if host.is_some_and(|host| inspected.host != *host) {
        return Vec::new();
    }
    let diagnostic = |code: &str, severity: &str, message: String| json!({"code": code, "severity": severity, "message": message});
    let state = match inspected.state {
        LocalPodsState::Available => None,
        LocalPodsState::Unavailable => Some((
            "local_pod_registry_unavailable",
            "it is not known where local pods are; start the service with --pods-dir",
        )),
        LocalPodsState::Unreadable => Some((
            "local_pod_registry_unreadable",
            "the directory of local pods cannot be read; what is shown is what was seen last",
        )),
    };
    let state = state.map(|(code, message)| diagnostic(code, "warning", message.into()));
    let problems = inspected.problems.iter().map(|(problem, count)| {
        let (code, severity, what) = explained(*problem);
        let pods = if *count == 1 { "1 pod is".into() } else { format!("{count} pods are") };
        diagnostic(
            code,
            severity,
            match problem {
                LocalPodProblem::TooMany => what.into(),
                _ => format!("{pods} not shown: {what}"),
            },
        )
    });
    state.into_iter().chain(problems).collect()
}

/// Code, severity, and what is wrong.
fn explained(problem: LocalPodProblem) -> (&'static str, &'static str, &'static str) {
    match problem {
        LocalPodProblem::MetadataUnreadable => (
            "local_pod_metadata_unreadable",
            "warning",
            "there is no metadata that could be read, or it is larger than 1 MiB",
        ),
        LocalPodProblem::MetadataInvalid => {
            ("local_pod_metadata_invalid", "warning", "the metadata is no JSON with a worker_name")
        }
        LocalPodProblem::WorkspaceRootMissing => {
            ("local_pod_workspace_root_missing", "warning", "the metadata names no workspace_root")
        }
        LocalPodProblem::WorkspaceNotVisible => {
            ("local_pod_workspace_not_visible", "info", "the metadata is that of another workspace")
        }
        LocalPodProblem::TooMany => (
            "local_pod_registry_cut",
            "warning",
            "there are more pods than the 4096 that are looked at; the first by name are shown",
        ),
    }
}
