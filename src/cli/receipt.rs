//! `acta receipt SEQ`: the proof that a record is in the log, to be kept.

use super::{
    client::{Call, Client},
    output::{Format, Output},
};
use anyhow::{Context as _, Result};
use clap::Args;

const HELP: &str = "\
The receipt is printed: redirect it to a file, by custom <name>.tlog-proof. It holds the record
without its content, the proof, and a signed checkpoint. `acta verify receipt FILE --key KEY`
checks it without any service; so does any other tool that knows c2sp.org/tlog-proof.";

/// Options of `acta receipt`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ReceiptArgs {
    /// The sequence of the record, which every acknowledgement has
    #[arg(value_name = "SEQUENCE", value_parser = clap::value_parser!(u64).range(1..))]
    sequence: u64,
}

pub(super) async fn run(args: ReceiptArgs, client: &Client, out: &mut Output) -> Result<()> {
    let call = Call::get(&["proofs", "inclusion"]).query("seq", Some(args.sequence));
    let answer = client.send(call).await?;
    match out.format {
        Format::Json => out.json(&answer),
        Format::Table => {
            if answer["expired"] == true {
                anyhow::bail!(
                    "record {} has expired, and a receipt holds the record: whoever got one keeps \
                     it. That the log had it is proven by `-o json`",
                    args.sequence
                );
            }
            let receipt = answer["receipt"].as_str();
            out.text(receipt.context("the service answered without a receipt")?)
        }
    }
}
