//! `acta stop` and `acta cancel`.

use super::CommandOptions;
use super::client::{Call, Client};
use super::output::{Format, Output, cell_at};
use super::worker_address::WorkerAddress;
use clap::Args;
use serde_json::json;

const HELP: &str = "\
Both are final, and the first one wins: a later one changes nothing and answers the same.
  acta stop $worker --reason \"done for today\"
  acta stop berlin/$worker                   of another runtime";

/// Options of `acta stop` and `acta cancel`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct LifecycleArgs {
    /// The worker, or the beginning of its id; RUNTIME/ID for one of another runtime
    worker: WorkerAddress,

    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    #[command(flatten)]
    options: CommandOptions,
}

pub(super) async fn run(
    what: &str,
    args: LifecycleArgs,
    client: &Client,
    out: &mut Output,
) -> anyhow::Result<()> {
    let worker = args.worker.find(client).await?;
    let body = args.reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let call = Call::post(&worker.path(what), body)
        .key(args.options.idempotency_key.as_ref())
        .if_revision(args.options.if_revision);
    let answer = client.send(call).await?;
    if out.format == Format::Json {
        out.json(&answer)?;
        return worker.accepted(&answer);
    }
    worker.accepted(&answer)?;
    let status = match worker.through {
        None => cell_at(&answer, "ack.status"),
        // The first end wins, so it may have been another one.
        Some(_) => "ended".into(),
    };
    out.line(&format!("{} is {status}", worker.shown()))
}
