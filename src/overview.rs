//! All views at one moment, as one document: what a rebuild shows.
//!
//! The running service and the tools that work without one make it from the same projections, so
//! that the two can be compared.

use acta_events::{RuntimeId, Sequence, WorkerId};
use acta_projections::{LocalWorkerState, Projections, WorkerState, WorkerStatus};
use serde_json::{Value, json};

/// Which workers are shown. The counts are of all that match; each list has at most `limit`, that of
/// erased contents too.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of this runtime.
    pub runtime: Option<RuntimeId>,
    /// With an id that begins so.
    pub worker: Option<String>,
    /// With this status.
    pub status: Option<WorkerStatus>,
    /// How many at most.
    pub limit: usize,
}

impl Wanted {
    fn wants(&self, state: &WorkerState) -> bool {
        self.names(&state.runtime, &state.worker)
            && self.status.is_none_or(|status| state.status == status)
    }

    /// A local worker is merely seen: it has none of the statuses that can be asked for.
    fn wants_local(&self, runtime: &RuntimeId, worker: &WorkerId) -> bool {
        self.names(runtime, worker) && self.status.is_none()
    }

    fn names(&self, runtime: &RuntimeId, worker: &WorkerId) -> bool {
        self.runtime.as_ref().is_none_or(|wanted| runtime == wanted)
            && self.worker.as_ref().is_none_or(|id| worker.as_str().starts_with(&**id))
    }
}

/// The status that a word stands for.
pub fn parse_status(text: &str) -> Result<WorkerStatus, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "a status is one of: running, stopped, cancelled".into())
}

/// What the projections hold, without user content.
pub fn overview(views: &Projections, wanted: &Wanted) -> Value {
    let runtimes = views.runtimes.iter().map(|(id, state)| {
        json!({"runtime_id": id, "kind": state.kind, "label": state.label, "status": state.status})
    });
    let hosts = views.hosts.iter().map(|(id, state)| {
        json!({"host_id": id, "runtime_id": state.runtime, "kind": state.kind, "label": state.label, "status": state.status})
    });
    let mut total = 0_u64;
    let mut workers = Vec::new();
    for state in views.workers.iter().filter(|state| wanted.wants(state)) {
        total += 1;
        if workers.len() < wanted.limit {
            workers.push(worker(state));
        }
    }
    let mut local_total = 0_u64;
    let mut local = Vec::new();
    let all = views.local_workers.iter();
    for (runtime, worker, state) in all.filter(|(runtime, id, _)| wanted.wants_local(runtime, id)) {
        local_total += 1;
        if local.len() < wanted.limit {
            local.push(local_worker(runtime, worker, state));
        }
    }
    let bundles = views.bundles.iter().map(|state| {
        let stored = &state.stored;
        json!({
            "id": stored.bundle.id, "digest": stored.bundle.digest, "revision": stored.revision,
            "sequence": state.seq,
        })
    });
    let tokens = views.tokens.iter().map(|(id, state)| {
        json!({
            "id": id, "role": state.role, "label": state.label,
            "issued_at": state.issued_at, "revoked_at": state.revoked_at,
        })
    });
    let cursors = views.cursors.iter().map(
        |(owner, name, state)| json!({"owner": owner, "name": name, "position": state.position}),
    );
    let redactions = views.redactions.iter().take(wanted.limit).map(|(record, redaction)| {
        json!({
            "record": record, "by": redaction.by, "at": redaction.at, "sequence": redaction.seq,
        })
    });
    let position = views.position();
    json!({
        "sequence": position,
        "time": (position > Sequence::ZERO).then_some(views.tip.time),
        "epoch": views.lineage.current(),
        "runtimes": runtimes.collect::<Vec<_>>(),
        "hosts": hosts.collect::<Vec<_>>(),
        "workers": {"total": total, "items": workers},
        "local_workers": {"total": local_total, "items": local},
        "bundles": bundles.collect::<Vec<_>>(),
        "tokens": tokens.collect::<Vec<_>>(),
        "cursors": cursors.collect::<Vec<_>>(),
        "redactions": {
            "total": views.redactions.iter().count(),
            "items": redactions.collect::<Vec<_>>(),
        },
        "digest": views.digest(),
        "digests": views.digests(),
    })
}

fn local_worker(runtime: &RuntimeId, worker: &WorkerId, state: &LocalWorkerState) -> Value {
    let found = &state.found;
    json!({
        "runtime_id": runtime,
        "worker_id": worker,
        "host_id": found.host,
        "label": found.label,
        "role": found.role,
        "profile": found.profile,
        "status": found.status,
        "found_at": state.found_at,
        "changed_at": state.changed_at,
    })
}

fn worker(state: &WorkerState) -> Value {
    json!({
        "runtime_id": state.runtime,
        "worker_id": state.worker,
        "status": state.status,
        "run_state": state.run_state(),
        "template": state.spec.template,
        "turn": state.turn,
        "transcript_len": state.items,
        "revision": state.revision,
        "version": state.version,
        "sequence": state.last_seq,
    })
}
