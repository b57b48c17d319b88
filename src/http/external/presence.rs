//! Register and heartbeat: that an agent is there.

use super::{
    super::{App, access::Caller, body, error::Reply},
    address, change, external, own, worker,
};
use crate::{
    command::{AgentHealth, ExternalChange},
    error::{Code, Rejection, shown},
};
use acta_events::{DegradedReason, Delivery, DeliveryMode, MediaType};
use acta_projections::{Presence, WorkerStatus};
use axum::{
    Json,
    body::Body,
    extract::{Request, State},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

/// The largest agent card, in bytes.
const CARD_BYTES_MAX: usize = 64 << 10;

/// How much of an example of what fails is kept, in characters.
const SAMPLE_CHARS_MAX: usize = 4_096;

#[derive(Deserialize)]
struct Registration {
    id: String,
    agent_card: Option<Value>,
    delivery_mode: Option<String>,
    url: Option<String>,
}

impl Registration {
    fn mode(&self) -> Reply<DeliveryMode> {
        let has_url = self.url.as_ref().is_some_and(|url| !url.is_empty());
        match self.delivery_mode.as_deref() {
            Some("poll") => Ok(DeliveryMode::Poll),
            Some("push") => Ok(DeliveryMode::Push),
            None | Some("") if has_url => Ok(DeliveryMode::Push),
            None | Some("") => Ok(DeliveryMode::Poll),
            Some(other) => {
                let message =
                    format!("`delivery_mode` is `poll` or `push`, not `{}`", shown(other));
                Err(Rejection::invalid(message))
            }
        }
    }
}

/// Reads an agent's URL, and refuses one that messages are not posted to.
pub(super) async fn checked_url(app: &App, url: Option<&str>) -> Reply<String> {
    let refused =
        |error: crate::agents::UrlRefused| Rejection::new(Code::UrlRefused, error.to_string());
    let text = url.filter(|url| !url.is_empty()).ok_or_else(|| {
        Rejection::invalid("delivery by push needs a `url` that messages are posted to")
    })?;
    if text.len() > 2_048 {
        return Err(Rejection::invalid("`url` has more than 2048 bytes"));
    }
    let url = app.agents.addresses.parse(text).map_err(refused)?;
    app.agents.addresses.resolve(&url).await.map_err(refused)?;
    Ok(url.into())
}

/// An agent is there.
pub(super) async fn register(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Json<Value>> {
    let asked: Registration = body::json(&app, request).await?;
    let address = address(&asked.id)?;
    own(&caller, &address)?;
    worker(&app, &address)?;
    let mode = asked.mode()?;
    let url = match mode {
        DeliveryMode::Poll => None,
        DeliveryMode::Push => Some(checked_url(&app, asked.url.as_deref()).await?),
    };
    let card = match asked.agent_card {
        None | Some(Value::Null) => None,
        Some(card) => {
            let bytes = Bytes::from(card.to_string());
            if bytes.len() > CARD_BYTES_MAX {
                let message = format!("`agent_card` is larger than {CARD_BYTES_MAX} bytes");
                return Err(Rejection::new(Code::PayloadTooLarge, message));
            }
            Some(app.log.keep(MediaType::Json, bytes).await?)
        }
    };
    let registration = ExternalChange::Register { delivery: Delivery { mode, url }, card };
    app.engine.submit(change(&caller.0.actor, &address, registration)).await?;
    app.agents.leases.beaten(&address.worker_id);
    Ok(Json(json!({"status": "registered", "delivery_mode": mode})))
}

#[derive(Deserialize)]
struct Heartbeat {
    workspace_id: String,
    #[serde(default)]
    runtime_state: Option<String>,
    #[serde(default)]
    error_rate: Option<f64>,
    #[serde(default)]
    sample_error: Option<String>,
}

impl Heartbeat {
    fn health(&self) -> AgentHealth {
        let state = self.runtime_state.as_deref().unwrap_or_default();
        let rate = self.error_rate.unwrap_or_default();
        if state == "wedged" {
            AgentHealth::Bad(DegradedReason::Wedged)
        } else if rate >= 0.5 {
            AgentHealth::Bad(DegradedReason::ErrorRate)
        } else if rate < 0.1 && matches!(state, "" | "ok") {
            AgentHealth::Good
        } else {
            AgentHealth::Fair
        }
    }
}

/// An agent is still there.
pub(super) async fn heartbeat(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Json<Value>> {
    let beat: Heartbeat = body::json(&app, request).await?;
    let address = address(&beat.workspace_id)?;
    own(&caller, &address)?;
    let state = worker(&app, &address)?;
    let agent = external(&state)?;
    let health = beat.health();
    let at_ease = state.status == WorkerStatus::Running
        && agent.presence == Presence::Online
        && agent.leased
        && !matches!(health, AgentHealth::Bad(_));
    // What changes nothing needs no decision: a fleet at rest costs the writer nothing.
    if !at_ease {
        let is_new = matches!(health, AgentHealth::Bad(reason) if agent.degraded != Some(reason));
        let sample = match beat.sample_error.filter(|sample| is_new && !sample.is_empty()) {
            None => None,
            Some(sample) => {
                let cut: String = sample.chars().take(SAMPLE_CHARS_MAX).collect();
                Some(app.log.keep(MediaType::Text, cut.into()).await?)
            }
        };
        let beat = ExternalChange::Beat { health, sample };
        app.engine.submit(change(&caller.0.actor, &address, beat)).await?;
    }
    app.agents.leases.beaten(&address.worker_id);
    Ok(Json(json!({"status": "ok"})))
}
