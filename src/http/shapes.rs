//! What workers look like to clients.

use super::{App, error::Reply};
use crate::{
    error::{Code, Rejection},
    log::{Logged, ReadFault, RedactionNote},
};
use acta_events::{
    BundleRef, DegradedReason, DeliveryMode, IntentKind, NamedRef, ProfileSelector, Record,
    Revision, RuntimeId, Sequence, Version, WorkerId, WorkerRef, WorkerTexts,
};
use acta_projections::{Execution, External, Presence, WorkerState, WorkerStatus};
use serde::Serialize;
use std::{collections::HashMap, sync::Arc};

/// What a worker in a list mostly takes at most.
const SUMMARY_BYTES: usize = 1_024;

/// How many workers of a list are looked up together.
const RECORDS_AT_ONCE: usize = 256;

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
    let spec = &state.spec;
    let created = if spec.texts.is_some() { app.log.record(spec.seq).await? } else { None };
    let (texts, redacted) = texts_in(app, created.as_deref()).await?;
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

/// The answer to who asks for a list of workers: there may be very many, so that all of them together are
/// nothing but its text. Their own texts are in the records that created them, which are read in the order of the log.
pub(super) async fn summaries(app: &App, states: &[Arc<WorkerState>]) -> Reply<String> {
    let with_texts = states.iter().filter(|state| state.spec.texts.is_some());
    let mut wanted: Vec<_> = with_texts.map(|state| state.spec.seq).collect();
    wanted.sort_unstable();
    let mut texts = HashMap::with_capacity(wanted.len());
    for wanted in wanted.chunks(RECORDS_AT_ONCE) {
        for created in app.log.records_at(wanted.to_vec()).await? {
            texts.insert(created.record.seq(), texts_in(app, Some(&created)).await?);
        }
    }
    let mut summaries = String::with_capacity(64 + states.len() * SUMMARY_BYTES);
    summaries.push_str(r#"{"workers":["#);
    for state in states {
        let (texts, redacted) = texts.remove(&state.spec.seq).unwrap_or_default();
        let summary = WorkerSummary {
            common: common(app, state, &texts, redacted),
            requested_capability_count: state.spec.requested_capabilities.len(),
            has_config_bundle: state.spec.config_bundle.is_some(),
        };
        if !summaries.ends_with('[') {
            summaries.push(',');
        }
        let summary = serde_json::to_string(&summary);
        summaries.push_str(&summary.map_err(|why| {
            Rejection::new(Code::Internal, format!("a worker could not be written: {why}"))
        })?);
    }
    summaries.push_str("]}");
    Ok(summaries)
}

/// The texts of a worker, from the record that created it; none if it has none, or has expired.
async fn texts_in(
    app: &App,
    created: Option<&Logged>,
) -> Result<(WorkerTexts, Option<RedactionNote>), ReadFault> {
    let Some(Logged { record, .. }) = created else { return Ok((WorkerTexts::default(), None)) };
    let content = match app.log.content(record).await {
        Err(ReadFault::Expired { .. }) => return Ok((WorkerTexts::default(), None)),
        content => content?,
    };
    let Some(content) = content else {
        return Ok((WorkerTexts::default(), app.log.note(record.seq()).await?));
    };
    // What was written by a version with other texts is shown as absent.
    Ok((serde_json::from_slice(&content).unwrap_or_default(), None))
}
