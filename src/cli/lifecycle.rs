//! `acta stop` and `acta cancel`.

use super::CommandOptions;
use super::client::{Call, Client};
use super::output::{Format, Output, cell_at};
use super::short_ids::resolve_worker;
use acta_events::WorkerId;
use clap::Args;
use serde_json::json;

const HELP: &str = "\
Both are final, and the first one wins: a later one changes nothing and answers the same.
  acta stop $worker --reason \"done for today\"";

/// Options of `acta stop` and `acta cancel`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct LifecycleArgs {
    /// The worker, or the beginning of its id
    worker: WorkerId,

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
    let worker = resolve_worker(client, args.worker.as_str()).await?;
    let body = args.reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let call = Call::post(&["workers", &worker, what], body)
        .key(args.options.idempotency_key.as_ref())
        .if_revision(args.options.if_revision);
    let answer = client.send(call).await?;
    if out.format == Format::Json {
        return out.json(&answer);
    }
    out.line(&format!("{worker} is {}", cell_at(&answer, "ack.status")))
}
