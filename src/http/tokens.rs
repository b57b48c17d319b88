//! Issuing, listing and revoking tokens. A token itself is shown once, when it is issued.

use super::{
    App,
    access::Caller,
    body,
    error::Reply,
    past,
    query::{self, Around},
};
use crate::{
    auth::{Permission, new_token, token_digest},
    command::{Ack, Command},
    error::{Code, Rejection},
    object,
};
use acta_events::{HostId, Role, TokenId, TokenIssued, WorkerRef};
use acta_projections::TokenState;
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::Uri,
};
use rand::Rng as _;
use serde::Deserialize;
use serde_json::{Value, json};

/// The longest label, in characters.
const LABEL_CHARS_MAX: usize = 120;

fn shape(id: &TokenId, state: &TokenState) -> Value {
    json!({
        "id": id,
        "role": state.role,
        "label": state.label,
        "worker": state.worker,
        "host": state.host,
        "issued_at": state.issued_at,
        "revoked_at": state.revoked_at,
    })
}

/// All tokens, without the tokens themselves.
pub(super) async fn list(caller: Caller, State(app): State<App>, uri: Uri) -> Reply<Json<Value>> {
    caller.may(Permission::ReadAll)?;
    let at = past::of_query(&app, &uri).await?;
    let tokens: Vec<_> = past::with_projections(&app, at, |views| {
        views.tokens.iter().map(|(id, state)| shape(id, state)).collect()
    })
    .await?;
    Ok(Json(json!({ "tokens": tokens })))
}

#[derive(Deserialize)]
struct IssueRequest {
    role: Role,
    label: Option<String>,
    #[serde(default, deserialize_with = "object::object_or_null")]
    worker: Option<WorkerRef>,
    host: Option<HostId>,
}

/// Issues a token.
pub(super) async fn issue(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Json<Value>> {
    caller.may(Permission::Tokens)?;
    let around = Around::of(&request)?;
    if request.headers().contains_key("idempotency-key") {
        let message = "a token is shown once and never again, so issuing one cannot be repeated \
                       under an Idempotency-Key; issue another and revoke the lost one";
        return Err(Rejection::invalid(message));
    }
    let asked: IssueRequest = body::json(&app, request).await?;
    let label_fits = asked.label.as_ref().is_none_or(|label| {
        label.chars().count() <= LABEL_CHARS_MAX && !label.chars().any(char::is_control)
    });
    if !label_fits {
        let message = format!("`label` has at most {LABEL_CHARS_MAX} characters, none of control");
        return Err(Rejection::invalid(message));
    }
    let token = new_token();
    let id = format!("t-{:016x}", rand::rng().random::<u64>());
    let issued = TokenIssued {
        token: TokenId::parse(&id).map_err(|error| Rejection::invalid(error.to_string()))?,
        digest: token_digest(&token),
        role: asked.role,
        label: asked.label,
        worker: asked.worker,
        host: asked.host,
    };
    let command = Command::IssueToken(Box::new(issued.clone()));
    let request = query::command(caller.0.actor.clone(), around, None, command);
    let Ack::Recorded { first, .. } = app.engine.submit(request).await? else {
        return Err(Rejection::new(Code::Internal, "the token was not recorded"));
    };
    Ok(Json(json!({"token": {
        "id": issued.token,
        "token": token,
        "role": issued.role,
        "label": issued.label,
        "worker": issued.worker,
        "host": issued.host,
        "issued_at": first.header.time,
        "event_id": first.seq(),
    }})))
}

/// Revokes a token; its open streams are closed.
pub(super) async fn revoke(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    request: Request<Body>,
) -> Reply<Json<Value>> {
    caller.may(Permission::Tokens)?;
    let token = TokenId::parse(&id)
        .map_err(|error| Rejection::new(Code::InvalidIdentifier, error.to_string()))?;
    let around = Around::of(&request)?;
    let key = around.key(&(), None)?;
    let command = Command::RevokeToken { token: token.clone() };
    app.engine.submit(query::command(caller.0.actor.clone(), around, key, command)).await?;
    let views = app.log.views().read();
    let state = views.tokens.get(&token);
    Ok(Json(json!({ "token": state.map(|state| shape(&token, state)) })))
}
