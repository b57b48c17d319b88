//! `acta redact SEQ --reason TEXT`: erase what somebody wrote, and keep the proof.

use super::{
    CommandOptions,
    client::{Call, Client},
    output::{Format, Output, cell_at, note},
};
use anyhow::Result;
use clap::Args;
use serde_json::json;

const HELP: &str = "\
The content of the record, and its salt, are taken out of all files of the service; its header and
digests stay, so that everything still verifies. It cannot be undone. The reason stays in the log.
Whoever has read or exported the content before still has it, and so have older snapshots: keep
the output of `acta redactions export` with them.
  acta redact 4711 --reason 'a password was pasted'";

/// Options of `acta redact`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct RedactArgs {
    /// The sequence of the record
    #[arg(value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(1..))]
    sequence: u64,

    /// Why; it must not repeat what is erased
    #[arg(long, value_name = "TEXT")]
    reason: String,

    #[command(flatten)]
    options: CommandOptions,
}

pub(super) async fn run(args: RedactArgs, client: &Client, out: &mut Output) -> Result<()> {
    let body = json!({"sequence": args.sequence, "reason": args.reason});
    let call = Call::post(&["redactions"], body)
        .key(args.options.idempotency_key.as_ref())
        .if_revision(args.options.if_revision);
    let answer = client.send(call).await?;
    if answer["erased"] == false {
        note(
            "the order is recorded and nobody is shown the content any more, but the files are \
              still being rewritten; the log of the service tells when that is done",
        );
    }
    if out.format == Format::Json {
        return out.json(&answer);
    }
    let redaction = &answer["redaction"];
    out.line(&format!(
        "record {} redacted, by {} at {}, in record {}: {}",
        cell_at(redaction, "record"),
        cell_at(redaction, "by"),
        cell_at(redaction, "at"),
        cell_at(redaction, "sequence"),
        cell_at(redaction, "reason"),
    ))
}
