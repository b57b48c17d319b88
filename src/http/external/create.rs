//! Making a worker that an agent connects in for. The answer holds, once, all that the agent needs.

use super::{
    super::{App, access::Caller, body, error::Reply, query::Around, workers},
    presence, snippets,
};
use crate::{
    agents::external_runtime,
    auth::{Permission, new_token, token_digest},
    command::{Ack, Command, NewExternal, worker_id},
    error::{Code, Rejection, shown},
};
use acta_events::{
    IntentKind, ProfileSelector, Role, TokenId, TokenIssued, WorkerCreated, WorkerRef,
};
use acta_projections::EXTERNAL_RUNTIME;
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use rand::Rng as _;
use serde::Deserialize;
use serde_json::json;

/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 120;

#[derive(Deserialize)]
struct CreateWorkspace {
    name: Option<String>,
    runtime: Option<String>,
    #[serde(default)]
    external: bool,
    url: Option<String>,
}

fn plain() -> WorkerCreated {
    WorkerCreated {
        intent: IntentKind::Assistant,
        profile: ProfileSelector::RuntimeDefault,
        template: None,
        host: None,
        config_bundle: None,
        requested_capabilities: Vec::new(),
        workspace_refs: Vec::new(),
        mount_refs: Vec::new(),
    }
}

fn fresh_id() -> acta_events::WorkerId {
    worker_id(jiff::Timestamp::now().as_millisecond(), rand::rng().random())
}

/// Makes a worker: an external one, or one of this service's own runtime from a template.
pub(super) async fn create(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let around = Around::of(&request)?;
    let headers = request.headers().clone();
    let asked: CreateWorkspace = body::json(&app, request).await?;
    let label = asked.name.filter(|name| !name.trim().is_empty());
    let fits = label.as_ref().is_none_or(|name| {
        name.chars().count() <= NAME_CHARS_MAX && !name.chars().any(char::is_control)
    });
    if !fits {
        let message = format!("`name` has at most {NAME_CHARS_MAX} characters, none of control");
        return Err(Rejection::invalid(message));
    }
    let template = asked.runtime.filter(|_| !asked.external);
    match template.as_deref().map(str::trim) {
        None if !asked.external => {
            Err(Rejection::invalid("`runtime` is missing: `external`, or a template's name"))
        }
        Some(template) if template != EXTERNAL_RUNTIME => {
            embedded(&caller, &app, around, template).await
        }
        _ => {
            let url = match asked.url.as_deref().filter(|url| !url.is_empty()) {
                None => None,
                url => Some(presence::checked_url(&app, url).await?),
            };
            external(&caller, &app, around, &headers, label, url).await
        }
    }
}

async fn external(
    caller: &Caller,
    app: &App,
    around: Around,
    headers: &HeaderMap,
    label: Option<String>,
    url: Option<String>,
) -> Reply<Response> {
    if headers.contains_key("idempotency-key") {
        let message = "the answer holds a token that is shown once and never again, so this cannot \
                       be repeated under an Idempotency-Key; create another worker and delete the \
                       lost one";
        return Err(Rejection::invalid(message));
    }
    let platform = platform_url(app, headers)?;
    let worker = WorkerRef { runtime_id: external_runtime(), worker_id: fresh_id() };
    let token = new_token();
    let id = format!("t-{:016x}", rand::rng().random::<u64>());
    let issued = TokenIssued {
        token: TokenId::parse(&id).map_err(|error| Rejection::invalid(error.to_string()))?,
        digest: token_digest(&token),
        role: Role::Worker,
        label: None,
        worker: Some(worker.clone()),
        host: None,
    };
    let (is_entered, id) = (url.is_some(), worker.worker_id.clone());
    let new = NewExternal { created: plain(), label, url, token: (!is_entered).then_some(issued) };
    let command = Command::CreateExternal { worker, new: Box::new(new) };
    let actor = caller.0.actor.clone();
    app.engine.submit(super::super::query::command(actor, around, None, command)).await?;
    let mut answer = json!({
        "id": id,
        "external": true,
        "status": if is_entered { "online" } else { "awaiting_agent" },
    });
    if !is_entered {
        answer["connection"] = snippets::connection(id.as_str(), &platform, &token);
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// A worker that this service runs itself.
async fn embedded(caller: &Caller, app: &App, around: Around, template: &str) -> Reply<Response> {
    let mut created = plain();
    let chosen = app.manifest.read().choose(Some(template), &created.profile)?;
    let key = around.key(&(&created, template), None)?;
    created.host = chosen.is_some().then(|| app.host.clone());
    created.template = chosen;
    let worker = WorkerRef { runtime_id: app.runtime.clone(), worker_id: fresh_id() };
    let command = Command::CreateWorker { worker, created: Box::new(created), texts: None };
    let actor = caller.0.actor.clone();
    let command = super::super::query::command(actor, around, key, command);
    let Ack::Recorded { first, replayed } = app.engine.submit(command).await? else {
        return Err(Rejection::new(Code::Internal, "the worker was not recorded"));
    };
    let answer = json!({
        "id": first.header.worker,
        "external": false,
        "status": "provisioning",
    });
    let mut response = workers::answer(replayed, answer);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// How agents reach this service: as configured, else as the request says.
fn platform_url(app: &App, headers: &HeaderMap) -> Reply<String> {
    if let Some(url) = &app.agents.platform_url {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        // Of several proxies the first one is the one that the client spoke to.
        value.map(|value| value.split(',').next().unwrap_or_default().trim().to_owned())
    };
    let scheme = header("x-forwarded-proto").unwrap_or_else(|| "http".into());
    let host = header("x-forwarded-host")
        .or_else(|| header(header::HOST.as_str()))
        .ok_or_else(|| Rejection::invalid("the request has no Host header"))?;
    // Both end up in what a person runs in a shell.
    let is_host = !host.is_empty()
        && host.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
        });
    if !is_host || !matches!(scheme.as_str(), "http" | "https") {
        let message = format!("`{}://{}` is no address of a service", shown(&scheme), shown(&host));
        return Err(Rejection::invalid(message));
    }
    Ok(format!("{scheme}://{host}"))
}
