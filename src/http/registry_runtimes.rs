//! Registering runtimes of other services, and retiring them.

use super::{
    App,
    access::Caller,
    body,
    error::Reply,
    query::{self, Around},
    registry, workers,
};
use crate::{
    auth::Permission,
    command::Command,
    error::{Code, Rejection, shown},
};
use acta_events::{RemoteAddress, RemoteRuntimeRegistered};
use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use serde::Deserialize;
use serde_json::json;

/// The longest label and address, in characters.
const TEXT_CHARS_MAX: usize = 2_048;

#[derive(Deserialize)]
struct RegisterRequest {
    runtime_id: String,
    kind: String,
    label: Option<String>,
    url: String,
    token_env: Option<String>,
}

impl RegisterRequest {
    fn check(&self) -> Reply<RemoteRuntimeRegistered> {
        if self.kind != acta_projections::REMOTE_HTTP {
            let message = format!(
                "`kind` is `{}`; only `remote_http` runtimes are registered, the others are this \
                 service's own",
                shown(&self.kind)
            );
            return Err(Rejection::invalid(message));
        }
        let label = self.label.as_deref().map_or(self.runtime_id.as_str(), str::trim);
        if label.chars().count() > TEXT_CHARS_MAX || label.chars().any(char::is_control) {
            return Err(Rejection::invalid("`label` is too long, or has control characters"));
        }
        let url = address(&self.url)?;
        let token_env = self.token_env.as_deref().map(variable).transpose()?;
        let remote = RemoteAddress { url, token_env };
        Ok(RemoteRuntimeRegistered { label: label.to_owned(), remote })
    }
}

/// An address without anything secret in it, and without a trailing slash.
fn address(text: &str) -> Reply<String> {
    let refuse = |why: &str| {
        Err(Rejection::invalid(format!(
            "`url` {why}; give it as in https://acta.example or http://10.0.0.7:7421"
        )))
    };
    if text.len() > TEXT_CHARS_MAX {
        return refuse("is too long");
    }
    let Ok(url) = reqwest::Url::parse(text.trim()) else { return refuse("is no address") };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("begins with neither http:// nor https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("has a user or a password in it; name the variable with the token instead");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("has a query or a fragment");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The name of an environment variable.
fn variable(text: &str) -> Reply<String> {
    let named = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let begins = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if named && begins && text.len() <= 120 {
        return Ok(text.to_owned());
    }
    // What was given may be the token itself, so it is not repeated.
    Err(Rejection::invalid(
        "`token_env` is the name of an environment variable of this service, as in REMOTE_TOKEN; \
         never the token itself",
    ))
}

/// Makes a runtime of another service known under an alias.
pub(super) async fn register(
    caller: Caller,
    State(app): State<App>,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let around = Around::of(&request)?;
    let asked: RegisterRequest = body::json(&app, request).await?;
    let runtime = query::runtime_id(&asked.runtime_id)?;
    let registered = asked.check()?;
    let key = around.key(&(&runtime, &registered), None)?;
    let remote = registered.remote.clone();
    let command = Command::RegisterRemote { runtime: runtime.clone(), registered };
    let request = query::command(caller.0.actor.clone(), around, key, command);
    let ack = app.engine.submit(request).await?;
    // Whoever registers one wants to know whether it is there.
    app.remotes.look(&runtime, &remote).await;
    let shape = registry::one(&app, &runtime).ok_or_else(|| {
        let message = format!("runtime `{runtime}` was registered and retired since");
        Rejection::new(Code::UnknownRuntime, message)
    })?;
    Ok(workers::answer(ack.is_replayed(), json!({ "runtime": shape })))
}

/// Forgets a runtime of another service. What it does there goes on.
pub(super) async fn retire(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    request: Request<Body>,
) -> Reply<Response> {
    caller.may(Permission::Command)?;
    let runtime = query::runtime_id(&id)?;
    let around = Around::of(&request)?;
    let key = around.key(&(), None)?;
    let command = Command::RetireRuntime { runtime: runtime.clone() };
    let request = query::command(caller.0.actor.clone(), around, key, command);
    let ack = app.engine.submit(request).await?;
    Ok(workers::answer(ack.is_replayed(), json!({ "retired": runtime })))
}

#[cfg(test)]
mod tests {
    use super::{address, variable};

    #[test]
    fn an_address_has_nothing_secret_in_it() {
        for (text, expected) in [
            ("http://10.0.0.7:7421", Some("http://10.0.0.7:7421")),
            (" http://[::1]:7421/acta/ ", Some("http://[::1]:7421/acta")),
            ("https://a.example", Some("https://a.example")),
            ("wss://a.example", None),
            ("ftp://a.example", None),
            ("http://user@a.example", None),
            ("http://:secret@a.example", None),
            ("http://a.example?token=x", None),
            ("http://a.example#x", None),
            ("a.example:80", None),
            ("", None),
        ] {
            assert_eq!(address(text).ok().as_deref(), expected, "{text}");
        }
        assert!(address(&format!("http://{}", "a".repeat(3_000))).is_err());
    }

    #[test]
    fn a_token_is_not_taken_for_the_name_of_a_variable_nor_repeated() {
        assert!(variable("REMOTE_TOKEN").is_ok() && variable("_x1").is_ok());
        for text in ["", "1X", "acta-secret-token", "A B", "A=B", &"A".repeat(121)] {
            let refused = variable(text).unwrap_err();
            assert!(
                text.is_empty() || !refused.message.contains(text) || text.len() < 4,
                "{refused}"
            );
        }
    }
}
