//! The base of a log whose beginning has expired, for whoever verifies the rest.

use super::{App, access::Caller, error::Reply};
use crate::{
    auth::Permission,
    base::Bases,
    error::{Code, Rejection},
    log::{ReadFault, blocking},
};
use acta_events::Sequence;
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};

/// The base as it is stored.
pub(super) async fn show(caller: Caller, State(app): State<App>) -> Reply<Response> {
    caller.may(Permission::ReadAll)?;
    let nothing = || {
        let message = "nothing has expired: the log begins with record 1, and has no base";
        Rejection::new(Code::NotFound, message)
    };
    let data = app.data.clone().ok_or_else(nothing)?;
    let through = app.log.expired_through();
    if through == Sequence::ZERO {
        return Err(nothing());
    }
    let bytes = blocking(move || Bases::of(&data).bytes(through).map_err(ReadFault::from)).await?;
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, bytes).into_response())
}
