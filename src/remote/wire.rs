//! What is understood of the answers of another service. Ids that are none make the whole answer
//! one that is not understood: they would be passed on as ours.

use acta_events::{IntentKind, ProfileSelector, RuntimeId, WorkerId};
use serde::Deserialize;

/// `GET /v1/runtime`.
#[derive(Debug, Deserialize)]
pub(super) struct RuntimeAnswer {
    pub(super) runtime: RemoteRuntime,
}

/// The runtime of another service.
#[derive(Debug, Deserialize)]
pub(super) struct RemoteRuntime {
    pub(super) runtime_id: RuntimeId,
    pub(super) status: String,
}

/// `GET /v1/workers`.
#[derive(Debug, Deserialize)]
pub(crate) struct WorkersAnswer {
    pub(crate) workers: Vec<RemoteWorker>,
}

/// `GET /v1/workers/{id}` and `POST /v1/workers`.
#[derive(Debug, Deserialize)]
pub(crate) struct WorkerAnswer {
    pub(crate) worker: RemoteWorker,
}

/// A worker of another service, in full or in short.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RemoteWorker {
    pub(crate) worker_id: WorkerId,
    pub(crate) status: RemoteStatus,
    pub(crate) execution: RemoteExecution,
    pub(crate) intent: RemoteIntent,
    pub(crate) profile: ProfileSelector,
    #[serde(default)]
    pub(crate) template: Option<String>,
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RemoteStatus {
    Running,
    Stopped,
    Cancelled,
}

/// What it does.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RemoteExecution {
    pub(crate) backend: String,
    pub(crate) run_state: acta_projections::RunState,
}

/// What it is for, as far as that is shown.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum RemoteIntent {
    Assistant {},
    Task {},
    Role { role: String },
}

impl From<RemoteIntent> for IntentKind {
    fn from(intent: RemoteIntent) -> Self {
        match intent {
            RemoteIntent::Assistant {} => Self::Assistant,
            RemoteIntent::Task {} => Self::Task,
            RemoteIntent::Role { role } => Self::Role { role },
        }
    }
}

/// The answer to an input, a stop or a cancel.
#[derive(Debug, Deserialize)]
pub(crate) struct AckAnswer {
    pub(crate) ack: RemoteAck,
}

/// What was acknowledged.
#[derive(Debug, Deserialize)]
pub(crate) struct RemoteAck {
    #[serde(default)]
    pub(crate) transcript_sequence: Option<u64>,
    pub(crate) event_id: u64,
}

/// `GET /v1/workers/{id}/transcript`.
#[derive(Debug, Deserialize)]
pub(crate) struct TranscriptAnswer {
    pub(crate) transcript: RemoteTranscript,
}

/// A page of a transcript.
#[derive(Debug, Deserialize)]
pub(crate) struct RemoteTranscript {
    pub(crate) start: u64,
    pub(crate) limit: u64,
    pub(crate) total_items: u64,
    pub(crate) items: Vec<RemoteItem>,
    pub(crate) next_start: Option<u64>,
}

/// One thing that was said.
#[derive(Debug, Deserialize, serde::Serialize)]
pub(crate) struct RemoteItem {
    pub(crate) sequence: u64,
    pub(crate) role: RemoteRole,
    pub(crate) content: String,
    pub(crate) event_id: u64,
}

/// Who said it.
#[derive(Debug, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RemoteRole {
    User,
    Assistant,
    System,
}
