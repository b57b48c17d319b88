//! A worker as it is named on the command line, and where it is spoken to.
//!
//! A bare id is one of this service's own workers. `RUNTIME/ID` is one of any runtime, as the
//! registry has it. Either id may be the beginning of one, if only one worker has it.

use super::client::{Call, Client, ClientError};
use super::output::{cell_at, one_line};
use super::short_ids::{Choice, choose, resolve_worker};
use acta_events::{RuntimeId, WorkerId};
use anyhow::bail;
use serde_json::Value;
use std::str::FromStr;

/// Enough of a list to find one worker in it, or to show that there are several.
const PAGE_ITEMS: u64 = 16;

/// What a person wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerAddress {
    runtime: Option<RuntimeId>,
    worker: WorkerId,
}

impl FromStr for WorkerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (runtime, worker) = match text.split_once('/') {
            None => (None, text),
            Some((runtime, worker)) => {
                let runtime = RuntimeId::parse(runtime);
                let runtime = runtime.map_err(|error| format!("before the slash: {error}"))?;
                (Some(runtime), worker)
            }
        };
        let worker = WorkerId::parse(worker).map_err(|error| error.to_string())?;
        Ok(Self { runtime, worker })
    }
}

/// A worker that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its whole id.
    pub(super) id: String,
    /// The runtime by whose routes it is spoken to; none if it is in this service's own log.
    pub(super) through: Option<RuntimeId>,
    /// What it was doing, where the registry tells.
    state: String,
}

impl WorkerAddress {
    /// The runtime, if one was named.
    pub(super) fn runtime(&self) -> Option<&RuntimeId> {
        self.runtime.as_ref()
    }

    /// The id as it was written.
    pub(super) fn given(&self) -> &str {
        self.worker.as_str()
    }

    /// Looks for the worker.
    pub(super) async fn find(&self, client: &Client) -> anyhow::Result<Found> {
        let Some(runtime) = &self.runtime else {
            let id = resolve_worker(client, self.given()).await?;
            return Ok(Found { id, through: None, state: String::new() });
        };
        let summary = self.summary(client, runtime, None).await?;
        let Some(id) = summary["worker_id"].as_str() else {
            return Err(client.not_acta("a worker without an id").into());
        };
        // What runs here, or connects in, has its whole history in this service's log.
        let kind = cell_at(&summary, "implementation.kind");
        let elsewhere = matches!(kind.as_str(), "remote_http" | "local_pod");
        let through = elsewhere.then(|| runtime.clone());
        Ok(Found { id: id.into(), through, state: cell_at(&summary, "state") })
    }

    /// Looks for a worker whose history is in this service's own log; its whole id.
    pub(super) async fn find_here(&self, client: &Client) -> anyhow::Result<String> {
        let found = self.find(client).await?;
        if found.through.is_some() {
            let shown = found.shown();
            bail!(
                "the history of {shown} is not in the log of this service; `acta tail {shown} --from \
                 start` shows it"
            );
        }
        Ok(found.id)
    }

    /// The worker as the registry shows it, now or at a past moment.
    pub(super) async fn summary(
        &self,
        client: &Client,
        runtime: &RuntimeId,
        at: Option<&String>,
    ) -> anyhow::Result<Value> {
        let (runtime, given) = (runtime.as_str(), self.given());
        let call = Call::get(&["runtimes", runtime, "workers", given]).query("at", at);
        let missing = match client.send(call).await {
            Ok(mut answer) => return Ok(answer["worker"].take()),
            Err(error) if error.code() == Some("unknown_worker") => error,
            Err(error) => return Err(error.into()),
        };
        // In a list by id, the ids that begin so are the next ones after their beginning.
        let call = Call::get(&["runtimes", runtime, "workers"])
            .query("after", Some(given))
            .query("limit", Some(PAGE_ITEMS))
            .query("at", at);
        let mut page = client.send(call).await?;
        let items = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        match choose(given, &items) {
            Choice::One(id) => {
                let mut items = items.into_iter();
                let found = items.find(|item| item["worker_id"].as_str() == Some(&id));
                found.ok_or_else(|| missing.into())
            }
            Choice::None => Err(told(missing, &page).into()),
            Choice::Several(candidates) => {
                bail!("`{given}` is the beginning of several workers of {runtime}:\n{candidates}")
            }
        }
    }
}

/// A list that could not be had says why; that a worker is not in it says nothing then.
fn told(missing: ClientError, page: &Value) -> ClientError {
    let diagnostic = &page["diagnostics"][0];
    match (diagnostic["code"].as_str(), diagnostic["message"].as_str()) {
        (Some(code), Some(message)) => {
            ClientError::Api { status: 404, code: code.into(), message: message.into() }
        }
        _ => missing,
    }
}

impl Found {
    /// What is asked of the worker, as a path after `/v1`.
    pub(super) fn path<'a>(&'a self, what: &'a str) -> Vec<&'a str> {
        match &self.through {
            None => vec!["workers", &self.id, what],
            Some(runtime) => vec!["runtimes", runtime.as_str(), "workers", &self.id, what],
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match &self.through {
            None => self.id.clone(),
            Some(runtime) => format!("{runtime}/{}", self.id),
        }
    }

    /// Whether it is known to have work in hand.
    pub(super) fn is_busy(&self) -> bool {
        self.state == "busy"
    }

    /// Refuses an answer of the registry that says that nothing was done.
    pub(super) fn accepted(&self, answer: &Value) -> anyhow::Result<()> {
        let state = match answer["state"].as_str() {
            Some(state) if self.through.is_some() && state != "accepted" => state,
            _ => return Ok(()),
        };
        let why: Vec<_> = answer["diagnostics"].as_array().into_iter().flatten().collect();
        let why: Vec<_> = why
            .into_iter()
            .map(|each| {
                let text = |name| one_line(&cell_at(each, name), 300);
                format!("{} ({})", text("message"), text("code"))
            })
            .collect();
        bail!("{state}: {}", why.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_worker_is_named_by_its_id_or_behind_a_runtime() {
        let check = |text: &str, expected: Option<(Option<&str>, &str)>| {
            let parsed = text.parse::<WorkerAddress>().ok();
            let parsed = parsed
                .as_ref()
                .map(|address| (address.runtime().map(RuntimeId::as_str), address.given()));
            assert_eq!(parsed, expected, "{text}");
        };
        check("w-01", Some((None, "w-01")));
        check("berlin/w-01", Some((Some("berlin"), "w-01")));
        for wrong in ["", "/", "berlin/", "/w-01", "a/b/c", "../secret", "a b", "berlin/a b"] {
            check(wrong, None);
        }
    }

    #[test]
    fn an_answer_that_says_no_is_an_error_with_its_reasons() {
        let found = |through: Option<&str>| Found {
            id: "w".into(),
            through: through.map(|id| RuntimeId::parse(id).unwrap()),
            state: String::new(),
        };
        let no = json!({"state": "rejected", "diagnostics": [{"code": "c", "message": "m"}]});
        let error = found(Some("berlin")).accepted(&no).unwrap_err();
        assert_eq!(error.to_string(), "rejected: m (c)");
        assert!(found(Some("berlin")).accepted(&json!({"state": "accepted"})).is_ok());
        assert!(found(None).accepted(&json!({"ack": {}})).is_ok());
        assert_eq!(found(None).path("stop"), ["workers", "w", "stop"]);
        let path = ["runtimes", "berlin", "workers", "w", "stop"];
        assert_eq!(found(Some("berlin")).path("stop"), path);
    }
}
