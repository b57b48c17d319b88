//! Who asks, and whether they may.

use super::{
    App,
    error::Reply,
    reads::{NothingRead, Read, what},
};
use crate::{
    auth::{Access, Issued, Permission},
    error::{Code, Rejection},
};
use acta_events::Role;
use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use std::sync::Arc;

/// Before anything else is said, even about whether the route exists.
pub(super) async fn authenticate(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Response {
    let supplied = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let access = {
        let views = app.log.views().read();
        app.authenticator.authenticate(supplied, |digest| {
            let (id, token) = views.tokens.valid(digest)?;
            Some(Issued {
                token: id.clone(),
                role: token.role,
                worker: token.worker.clone(),
                host: token.host.clone(),
            })
        })
    };
    match access {
        Ok(access) => {
            let access = Arc::new(access);
            request.extensions_mut().insert(Caller(Arc::clone(&access)));
            let read = read(&app, &access, &request);
            if let Some(read) = read.clone() {
                request.extensions_mut().insert(read);
            }
            let response = next.run(request).await;
            let (status, extensions) = (response.status(), response.extensions());
            let is_done = status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS;
            if let Some(read) = read
                && is_done
                && extensions.get::<NothingRead>().is_none()
            {
                read.note(app.log.head());
            }
            response
        }
        Err(rejection) => rejection.into_response(),
    }
}

/// What is about to be read, if it is an auditor that reads and that is to be recorded. One's own
/// cursors are one's own notes; and watching how the service is must not change how it is.
fn read(app: &App, access: &Access, request: &Request) -> Option<Read> {
    let reads = app.reads.clone()?;
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    let is_read = access.role == Role::Auditor && request.method() == Method::GET;
    let unnoted = ["/v1/cursors", "/v1/status", "/metrics"];
    let noted = is_read && !unnoted.iter().any(|unnoted| path.starts_with(unnoted));
    noted.then(|| Read { reads, actor: access.actor.clone(), what: what(request.uri()) })
}

/// Keeps pages of other origins, and names that resolve here by somebody else's doing, out.
pub(super) async fn check_host(State(app): State<App>, request: Request, next: Next) -> Response {
    match host_verdict(&app, request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(rejection) => rejection.into_response(),
    }
}

fn host_verdict(app: &App, headers: &HeaderMap, uri: &Uri) -> Reply<()> {
    // What is not text is no host that we know.
    let header = |name: HeaderName| {
        headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("\u{fffd}"))
    };
    let host = header(header::HOST).or_else(|| uri.authority().map(|host| host.as_str()));
    app.hosts.check(host, header(header::ORIGIN))
}

/// Whoever gave a request.
#[derive(Clone)]
pub(super) struct Caller(pub(super) Arc<Access>);

impl Caller {
    /// Refuses unless the caller's role allows it.
    pub(super) fn may(&self, permission: Permission) -> Reply<()> {
        self.0.require(permission)
    }

    /// Whether the token is still good: an open stream of a revoked one is closed.
    pub(super) fn is_valid(&self, app: &App) -> bool {
        self.0.token.as_ref().is_none_or(|id| {
            app.log.views().read().tokens.get(id).is_some_and(|token| token.revoked_at.is_none())
        })
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Rejection> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            Rejection::new(Code::Unauthorized, "send `Authorization: Bearer <token>`")
        })
    }
}
