//! Reading request bodies: bounded in size and time, and JSON of the expected shape.

use super::{App, error::Reply};
use crate::{
    error::{Code, Rejection, shown},
    object::Object,
};
use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, Request, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

/// Reads the whole body.
pub(super) async fn read(app: &App, body: Body) -> Reply<Bytes> {
    let limit = app.limits.body_bytes;
    let too_large = || {
        let message = format!("the body is larger than {limit} bytes");
        Rejection::new(Code::PayloadTooLarge, message)
    };
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large());
    }
    let collect = async {
        let mut stream = body.into_data_stream();
        // The usual body comes in one piece, which is then taken as it is.
        let Some(first) = stream.next().await.transpose().map_err(broken)? else {
            return Ok(Bytes::new());
        };
        let mut whole = None::<BytesMut>;
        while let Some(next) = stream.next().await.transpose().map_err(broken)? {
            let whole = whole.get_or_insert_with(|| BytesMut::from(&first[..]));
            if whole.len() + next.len() > limit {
                return Err(too_large());
            }
            whole.extend_from_slice(&next);
        }
        let whole = whole.map_or(first, BytesMut::freeze);
        if whole.len() > limit { Err(too_large()) } else { Ok(whole) }
    };
    tokio::time::timeout(app.limits.body_timeout, collect).await.unwrap_or_else(|_| {
        let secs = app.limits.body_timeout.as_secs();
        Err(Rejection::invalid(format!("the body did not arrive within {secs} seconds")))
    })
}

fn broken(error: axum::Error) -> Rejection {
    Rejection::invalid(format!("the body did not arrive whole: {}", shown(&error.to_string())))
}

/// Reads a JSON object of a known shape. Unknown fields are ignored.
pub(super) async fn json<T: DeserializeOwned>(app: &App, request: Request<Body>) -> Reply<T> {
    if !is_json(request.headers()) {
        let message = "the body must be JSON, sent with `Content-Type: application/json`";
        return Err(Rejection::new(Code::UnsupportedMediaType, message));
    }
    parse(&read(app, request.into_body()).await?)
}

/// Reads a JSON object of a known shape, whatever type it is announced as; an empty one is the
/// default.
pub(super) async fn optional_json<T: DeserializeOwned + Default>(
    app: &App,
    request: Request<Body>,
) -> Reply<T> {
    let body = read(app, request.into_body()).await?;
    if body.iter().all(u8::is_ascii_whitespace) { Ok(T::default()) } else { parse(&body) }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Reply<T> {
    let read = serde_json::from_slice::<Object<T>>(body);
    read.map(|Object(inner)| inner).map_err(|error| {
        let message = format!("the body is not what it should be: {}", shown(&error.to_string()));
        Rejection::new(Code::InvalidJson, message)
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5 && essence.to_ascii_lowercase().ends_with("+json"))
}
