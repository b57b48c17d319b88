//! What workers look like to clients.

use super::App;
use crate::log::{ReadFault, RedactionNote};
use acta_events::{
    BundleRef, DegradedReason, DeliveryMode, IntentKind, NamedRef, ProfileSelector, Record,
    Revision, RuntimeId, Sequence, Version, WorkerId, WorkerRef, WorkerTexts,
};
use acta_projections::{Execution, External, Presence, WorkerSpec, WorkerState, WorkerStatus};
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Intent {
    Assistant {
        #[serde(skip_serializing_if = "Option::is_none")]
        purpose: Option<String>,
    },
    Task {
        objective: String,
    },
    Role {
        role: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        purpose: Option<String>,
    },
}

#[derive(Serialize)]
struct Capability {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What detail and summary share.
#[derive(Serialize)]
struct Common {
    worker_ref: WorkerRef,
    runtime_id: RuntimeId,
    worker_id: WorkerId,
    status: WorkerStatus,
    execution: Execution,
    intent: Intent,
    profile: ProfileSelector,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    transcript_len: u64,
    last_event_id: Sequence,
    version: Version,
    revision: Revision,
    sequence: Sequence,
    /// Who erased its free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted: Option<RedactionNote>,
    /// Its free text went with the record that created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    texts_expired: Option<bool>,
}

/// A worker with everything about it.
#[derive(Serialize)]
pub(super) struct WorkerDetail {
    #[serde(flatten)]
    common: Common,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_bundle: Option<BundleRef>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    requested_capabilities: Vec<Capability>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    workspace_refs: Vec<NamedRef>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mount_refs: Vec<NamedRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Agent>,
}

/// How the agent is that connects in for a worker.
#[derive(Serialize)]
struct Agent {
    name: Option<String>,
    presence: Presence,
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<DegradedReason>,
    delivery_mode: DeliveryMode,
    waiting_messages: usize,
    undelivered_messages: usize,
}

impl Agent {
    fn of(external: &External) -> Self {
        Self {
            name: external.label.clone(),
            presence: external.presence,
            degraded: external.degraded,
            delivery_mode: external.delivery.mode,
            waiting_messages: external.waiting.len(),
            undelivered_messages: external.undelivered.len(),
        }
    }
}

/// A worker in a list.
#[derive(Serialize)]
pub(super) struct WorkerSummary {
    #[serde(flatten)]
    common: Common,
    requested_capability_count: usize,
    has_config_bundle: bool,
}

fn common(
    app: &App,
    state: &WorkerState,
    texts: &WorkerTexts,
    redacted: Option<RedactionNote>,
) -> Common {
    let texts_expired = state.spec.texts.is_some() && app.log.has_expired(state.spec.seq);
    let intent = match &state.spec.intent {
        IntentKind::Assistant => Intent::Assistant { purpose: texts.purpose.clone() },
        IntentKind::Task => Intent::Task { objective: texts.objective.clone().unwrap_or_default() },
        IntentKind::Role { role } => {
            Intent::Role { role: role.clone(), purpose: texts.purpose.clone() }
        }
    };
    Common {
        worker_ref: WorkerRef {
            runtime_id: state.runtime.clone(),
            worker_id: state.worker.clone(),
        },
        runtime_id: state.runtime.clone(),
        worker_id: state.worker.clone(),
        status: state.status,
        execution: state.execution(),
        intent,
        profile: state.spec.profile.clone(),
        template: state.spec.template.clone(),
        transcript_len: state.items,
        last_event_id: state.last_seq,
        version: state.version,
        revision: state.revision,
        sequence: state.last_seq,
        redacted,
        texts_expired: texts_expired.then_some(true),
    }
}

/// A worker with everything about it, its free text read from the log.
pub(super) async fn detail(app: &App, state: &WorkerState) -> Result<WorkerDetail, ReadFault> {
    let (texts, redacted) = texts_of(app, &state.spec).await?;
    let spec = &state.spec;
    let capabilities = spec.requested_capabilities.iter().enumerate();
    Ok(WorkerDetail {
        common: common(app, state, &texts, redacted),
        config_bundle: spec.config_bundle.clone(),
        requested_capabilities: capabilities
            .map(|(n, name)| Capability {
                name: name.clone(),
                reason: texts.capability_reasons.get(&n).cloned(),
            })
            .collect(),
        workspace_refs: spec.workspace_refs.clone(),
        mount_refs: spec.mount_refs.clone(),
        agent: state.external.as_deref().map(Agent::of),
    })
}

/// A worker as it was right after the record that created it.
pub(super) async fn created(app: &App, record: &Record) -> Result<Option<WorkerDetail>, ReadFault> {
    match WorkerState::create(record, 0) {
        Some(state) => detail(app, &state).await.map(Some),
        None => Ok(None),
    }
}

/// A worker in a list.
pub(super) async fn summary(app: &App, state: &WorkerState) -> Result<WorkerSummary, ReadFault> {
    let (texts, redacted) = texts_of(app, &state.spec).await?;
    Ok(WorkerSummary {
        common: common(app, state, &texts, redacted),
        requested_capability_count: state.spec.requested_capabilities.len(),
        has_config_bundle: state.spec.config_bundle.is_some(),
    })
}

async fn texts_of(
    app: &App,
    spec: &Arc<WorkerSpec>,
) -> Result<(WorkerTexts, Option<RedactionNote>), ReadFault> {
    let nothing = (WorkerTexts::default(), None);
    if spec.texts.is_none() {
        return Ok(nothing);
    }
    let Some(logged) = app.log.record(spec.seq).await? else { return Ok(nothing) };
    let Some(content) = app.log.content(&logged.record).await? else {
        return Ok((WorkerTexts::default(), app.log.note(spec.seq).await?));
    };
    // What was written by a version with other texts is shown as absent.
    Ok((serde_json::from_slice(&content).unwrap_or_default(), None))
}
