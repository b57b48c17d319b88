//! `acta show`.

use super::client::{Call, Client, ClientError};
use super::output::{Format, Output, outline};
use super::runtime::diagnostics;
use super::short_ids::resolve_worker;
use super::worker_address::WorkerAddress;
use super::{parse_moment, usage};
use clap::Args;
use serde_json::{Value, json};

const HELP: &str = "\
Examples:
  acta show 0193e4
  acta show worker 0193e4 --at 120
  acta show worker berlin/w-0193e4           of another runtime
  acta show runtime                          the service's own
  acta show runtime external
  acta show host <host id>
  acta show token <token id> --at 2026-11-20T19:14:00Z
  acta show bundle <bundle id>
  acta show cursor <name>";

/// Options of `acta show`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = HELP,
    override_usage = "acta show [OPTIONS] <WORKER>\n       acta show [OPTIONS] <worker|host|runtime|token|bundle|cursor> <ID>\n       acta show [OPTIONS] runtime"
)]
pub(crate) struct ShowArgs {
    /// A worker or the beginning of its id, of another runtime as RUNTIME/ID; or one of worker,
    /// runtime, host, token, bundle, cursor
    #[arg(value_name = "WHAT")]
    what: String,

    /// The id or name, after what it is of
    id: Option<String>,

    /// As it was: a sequence, or a time as in 2026-11-20T19:14:00Z
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    at: Option<String>,
}

pub(super) async fn run(args: ShowArgs, client: &Client, out: &mut Output) -> anyhow::Result<()> {
    let at = args.at.as_ref();
    let answer = match (args.what.as_str(), args.id.as_deref()) {
        ("runtime", Some(id)) => client.send(Call::get(&["runtimes", id]).query("at", at)).await?,
        ("runtime", None) => client.send(Call::get(&["runtime"]).query("at", at)).await?,
        ("cursor", Some(name)) => {
            client.send(Call::get(&["cursors", name]).query("at", at)).await?
        }
        (what @ ("host" | "worker" | "token" | "bundle" | "cursor"), None) => {
            return Err(usage(format!("which {what}?")));
        }
        ("host", Some(id)) => client.send(Call::get(&["hosts", id]).query("at", at)).await?,
        ("token", Some(id)) => one_of(client, &TOKENS, id, at).await?,
        ("bundle", Some(id)) => one_of(client, &BUNDLES, id, at).await?,
        ("worker", Some(address)) | (address, None) => {
            let address: WorkerAddress = address.parse().map_err(usage)?;
            match address.runtime() {
                Some(runtime) => json!({"worker": address.summary(client, runtime, at).await?}),
                None => worker(client, address.given(), at).await?,
            }
        }
        (what, Some(_)) => {
            return Err(usage(format!(
                "`{what}` is none of worker, runtime, host, token, bundle and cursor"
            )));
        }
    };
    if out.format == Format::Json {
        return out.json(&answer);
    }
    out.text(&outline(&for_people(body(&answer))))
}

/// With diagnostics as sentences.
fn for_people(shown: &Value) -> Value {
    let mut shown = shown.clone();
    let told = diagnostics(&shown);
    if let Some(field) = shown.get_mut("diagnostics").filter(|_| !told.is_empty()) {
        *field = told.into();
    }
    shown
}

async fn worker(client: &Client, id: &str, at: Option<&String>) -> anyhow::Result<Value> {
    // One that is there by this very id needs no look-up; neither does one that was there then.
    match client.send(Call::get(&["workers", id]).query("at", at)).await {
        Err(ClientError::Api { status: 404, .. }) => {}
        result => return Ok(result?),
    }
    let id = resolve_worker(client, id).await?;
    Ok(client.send(Call::get(&["workers", &id]).query("at", at)).await?)
}

/// A list of few things that have no route of their own.
struct Few {
    what: &'static str,
    path: &'static str,
    list: &'static str,
    id: &'static str,
    missing: &'static str,
}

const TOKENS: Few =
    Few { what: "token", path: "tokens", list: "tokens", id: "id", missing: "unknown_token" };
const BUNDLES: Few = Few {
    what: "bundle",
    path: "config-bundles",
    list: "bundles",
    id: "id",
    missing: "config_bundle_missing",
};

async fn one_of(
    client: &Client,
    few: &Few,
    id: &str,
    at: Option<&String>,
) -> anyhow::Result<Value> {
    let answer = client.send(Call::get(&[few.path]).query("at", at)).await?;
    let mut items = answer[few.list].as_array().into_iter().flatten();
    match items.find(|item| item[few.id].as_str() == Some(id)) {
        Some(item) => Ok(json!({ few.what: item })),
        None => Err(ClientError::Api {
            status: 404,
            code: few.missing.into(),
            message: format!(
                "there is no {} `{id}`{}",
                few.what,
                if at.is_some() { " at that moment" } else { "" }
            ),
        }
        .into()),
    }
}

/// What is inside `{"worker": …}`.
fn body(answer: &Value) -> &Value {
    match answer.as_object().map(|fields| (fields.len(), fields.values().next())) {
        Some((1, Some(inner))) if inner.is_object() => inner,
        _ => answer,
    }
}
