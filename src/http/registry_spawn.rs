//! Making workers by way of the registry: by what they are for, never by a path or a program.

use super::{
    App,
    access::Caller,
    body,
    error::Reply,
    query::{self, Around},
    registry_operations::{runtime_diagnostic, source},
    registry_remote,
    registry_source::{Source, WorkerSummary, diagnostic},
    workers,
};
use crate::{
    auth::Permission,
    create_request::CreateRequest,
    error::{Rejection, shown},
    object,
};
use acta_events::{RuntimeId, WorkerRef};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
struct SpawnRequest {
    #[serde(deserialize_with = "object::object")]
    intent: SpawnIntent,
    #[serde(default)]
    requested_worker_name: Option<String>,
    #[serde(deserialize_with = "object::object")]
    acceptance: Acceptance,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum SpawnIntent {
    WorkspaceCompanion,
    WorkspaceOrchestrator,
    TicketRole { ticket_id: String, role: TicketRole },
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TicketRole {
    Intake,
    Orchestrator,
    Coder,
    Reviewer,
}

impl TicketRole {
    fn name(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Orchestrator => "orchestrator",
            Self::Coder => "coder",
            Self::Reviewer => "reviewer",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Acceptance {
    SocketReady,
    RunAccepted { expected_segments: u64 },
}

/// The longest id of a ticket, in characters.
const TICKET_CHARS_MAX: usize = 120;

impl SpawnIntent {
    /// The same in the words of the runtime API.
    fn create_request(&self) -> Reply<Value> {
        let (role, purpose, profile) = match self {
            Self::WorkspaceCompanion => (
                "workspace_companion",
                "companion of the people in the workspace".to_owned(),
                json!({"kind": "runtime_default"}),
            ),
            Self::WorkspaceOrchestrator => (
                "workspace_orchestrator",
                "orchestration of the work in the workspace".to_owned(),
                json!({"kind": "runtime_default"}),
            ),
            Self::TicketRole { ticket_id, role } => {
                let plain =
                    !ticket_id.trim().is_empty() && !ticket_id.chars().any(char::is_control);
                if !plain || ticket_id.chars().count() > TICKET_CHARS_MAX {
                    return Err(Rejection::invalid(format!(
                        "`intent.ticket_id` is `{}`; it has 1 to {TICKET_CHARS_MAX} characters",
                        shown(ticket_id)
                    )));
                }
                let profile =
                    json!({"kind": "builtin", "value": format!("builtin:{}", role.name())});
                (role.name(), format!("ticket {ticket_id}"), profile)
            }
        };
        let intent = json!({"kind": "role", "role": role, "purpose": purpose});
        Ok(json!({"intent": intent, "profile": profile}))
    }
}

/// Makes a worker in a runtime.
pub(super) async fn spawn(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let runtime = query::runtime_id(&id)?;
    let source = source(&app, &runtime)?;
    let around = Around::of(&request)?;
    let asked: SpawnRequest = body::json(&app, request).await?;
    let create = asked.intent.create_request()?;
    if matches!(source, Source::LocalPods | Source::External) {
        let message = match source {
            Source::External => {
                "external workers are created by `POST /workspaces` and connect in; nothing is \
                 started for them"
            }
            _ => "the workers of this runtime are only looked at here; who runs them starts them",
        };
        let pending = diagnostic("worker_spawn_resolver_pending", "info", message);
        return Ok(not_spawned("unsupported", vec![pending]));
    }
    if let Acceptance::SocketReady = asked.acceptance {
        let message = "workers of this runtime have no address of their own to wait for; ask for \
                       `run_accepted`";
        let none = diagnostic("embedded_runtime_no_socket", "warning", message);
        return Ok(not_spawned("rejected", vec![none]));
    }
    let mut diagnostics = Vec::new();
    if asked.requested_worker_name.is_some() {
        let message = "ids are given out by the runtime; the requested name was not used";
        diagnostics.push(diagnostic("embedded_worker_name_ignored", "info", message));
    }
    if let Acceptance::RunAccepted { expected_segments: 1.. } = asked.acceptance {
        let message = "the worker begins without segments; they come with its inputs";
        diagnostics.push(diagnostic("embedded_runtime_tools_less", "info", message));
    }
    match source {
        Source::Remote(address) => {
            registry_remote::spawn(&caller, &app, &runtime, &address, around, create, diagnostics)
                .await
        }
        _ => embedded(&caller, &app, &runtime, around, create, diagnostics).await,
    }
}

/// An answer without a worker.
pub(super) fn not_spawned(state: &str, diagnostics: Vec<Value>) -> Response {
    Json(json!({"state": state, "acceptance_evidence": [], "diagnostics": diagnostics}))
        .into_response()
}

/// An answer with one.
pub(super) fn spawned(worker: &WorkerSummary, replayed: bool, diagnostics: &[Value]) -> Response {
    let answer = json!({
        "state": "accepted",
        "worker": worker,
        "acceptance_evidence": [
            {
                "kind": "embedded_runtime_worker_created",
                "detail": "the runtime has recorded the worker",
            },
            {
                "kind": "embedded_runtime_backend_internal_projection",
                "detail": "the worker is known by its runtime and its id, and by nothing else",
            },
        ],
        "diagnostics": diagnostics,
    });
    workers::answer(replayed, answer)
}

async fn embedded(
    caller: &Caller,
    app: &App,
    runtime: &RuntimeId,
    around: Around,
    create: Value,
    mut diagnostics: Vec<Value>,
) -> Reply<Response> {
    let asked: CreateRequest =
        serde_json::from_value(create).map_err(|error| Rejection::invalid(error.to_string()))?;
    let made = workers::make(caller, app, around, asked.check()?).await;
    let (record, replayed) = match made {
        Ok(made) => made,
        Err(refused) => {
            diagnostics.push(runtime_diagnostic(refused)?);
            return Ok(not_spawned("rejected", diagnostics));
        }
    };
    let worker_id = record.header.worker.clone().ok_or_else(workers::unexpected)?;
    let worker = WorkerRef { runtime_id: runtime.clone(), worker_id };
    let state = app.log.views().worker(&worker.runtime_id, &worker.worker_id);
    let state = state.ok_or_else(workers::unexpected)?;
    let summary = WorkerSummary::of(&state, &Source::Embedded, true, &app.host);
    Ok(spawned(&summary, replayed, &diagnostics))
}
