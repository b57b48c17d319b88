//! Refusals as answers.

use crate::error::{Code, Rejection, shown};
use axum::{
    Json,
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// What handlers give back: an answer or a refusal.
pub(super) type Reply<T> = Result<T, Rejection>;

#[derive(Serialize)]
struct Body<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    code: &'static str,
    message: &'a str,
}

/// Seconds after which a retry makes sense.
const RETRY_AFTER_SECS: &str = "1";

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        // Every status in the table is a valid one; 500 stands in for a defect there.
        let status =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = Body { error: Detail { code: self.code.as_str(), message: &self.message } };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(
                    header::RETRY_AFTER,
                    header::HeaderValue::from_static(RETRY_AFTER_SECS),
                );
            }
            StatusCode::UNAUTHORIZED => {
                let bearer = header::HeaderValue::from_static("Bearer");
                headers.insert(header::WWW_AUTHENTICATE, bearer);
            }
            _ => {}
        }
        response
    }
}

pub(super) async fn not_found(method: Method, uri: Uri) -> Rejection {
    let message = format!("there is no route {method} {}", shown(uri.path()));
    Rejection::new(Code::NotFound, message)
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Rejection {
    let message = format!("{} does not take {method}", shown(uri.path()));
    Rejection::new(Code::MethodNotAllowed, message)
}
