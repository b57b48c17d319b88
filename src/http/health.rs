//! Whether the service is alive, and whether it takes commands. No token is needed, and no
//! more is said than that.

use super::App;
use crate::engine::Health;
use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Why it is not ready, or `ready`.
pub(super) fn reason(app: &App) -> &'static str {
    let health = if app.shutdown.is_begun() { Health::Closed } else { app.engine.health() };
    match health {
        Health::Ready if app.log.views().read().lineage.is_paused() => "dispatch_paused",
        health => health.reason(),
    }
}

pub(super) async fn readyz(State(app): State<App>) -> (StatusCode, Json<Value>) {
    match reason(&app) {
        "ready" => (StatusCode::OK, Json(json!({"status": "ready"}))),
        reason => {
            let body = json!({"status": "not_ready", "reason": reason});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body))
        }
    }
}
