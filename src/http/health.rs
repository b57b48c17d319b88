//! Whether the service is alive, and whether it takes commands. No token is needed, and no
//! more is said than that.

use super::App;
use crate::engine::Health;
use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

pub(super) async fn readyz(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let health = app.engine.health();
    if app.shutdown.is_begun() {
        let reason = Health::Closed.reason();
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"status": "not_ready", "reason": reason})),
        );
    }
    match health {
        Health::Ready => (StatusCode::OK, Json(json!({"status": "ready"}))),
        not => {
            let body = json!({"status": "not_ready", "reason": not.reason()});
            (StatusCode::SERVICE_UNAVAILABLE, Json(body))
        }
    }
}
