//! `acta verify`: checks what somebody says of a log, without believing them.

use super::output::{Format, Output};
use crate::audit::{CheckpointError, Receipt, ReceiptError, VerifierKey};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{fs, path::PathBuf};

/// The exit code where something does not match its own digest, or is not in its own form.
pub(super) const DAMAGED_CODE: u8 = 3;
/// The exit code where something contradicts a signature.
pub(super) const CONTRADICTED_CODE: u8 = 4;

const HELP: &str = "\
Exit codes: 0 intact, 3 damaged, 4 contradicts a signature, 1 another error.";

/// Options of `acta verify`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP, arg_required_else_help = true)]
pub(crate) struct VerifyArgs {
    #[command(subcommand)]
    command: Option<VerifyCommand>,
}

#[derive(Clone, Debug, Subcommand)]
enum VerifyCommand {
    /// Check a receipt of `acta receipt`, without any service
    Receipt {
        /// The receipt
        file: PathBuf,
        /// The verifier key of the log, as `acta key show` prints it
        #[arg(long, value_name = "KEY")]
        key: VerifierKey,
    },
}

/// What was checked is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Unverified {
    pub(super) message: String,
    pub(super) code: u8,
}

pub(super) fn run(args: VerifyArgs, out: &mut Output) -> Result<()> {
    match args.command {
        Some(VerifyCommand::Receipt { file, key }) => {
            let text = fs::read(&file).with_context(|| format!("{}", file.display()))?;
            receipt(&text, &key, out)
        }
        None => Err(super::usage("say what is to be verified")),
    }
}

fn receipt(bytes: &[u8], key: &VerifierKey, out: &mut Output) -> Result<()> {
    let text = std::str::from_utf8(bytes).map_err(|_| ReceiptError::Malformed("it is not text"));
    let proven = text.and_then(Receipt::parse).and_then(|receipt| receipt.verify(key));
    let proven = proven.map_err(|error| {
        let malformed = matches!(
            error,
            ReceiptError::Malformed(_) | ReceiptError::Checkpoint(CheckpointError::Malformed)
        );
        let code = if malformed { DAMAGED_CODE } else { CONTRADICTED_CODE };
        Unverified { message: error.to_string(), code }
    })?;
    match out.format {
        Format::Json => out.json(&json!({
            "sequence": proven.seq,
            "record_digest": proven.record,
            "content_digest": proven.content,
            "header": proven.header,
            "log": proven.checkpoint.origin(),
            "size": proven.checkpoint.size(),
            "root": proven.checkpoint.root().to_string(),
        }))?,
        Format::Table => {
            out.line(&format!(
                "record {} is in {}, as signed at {} records",
                proven.seq,
                proven.checkpoint.origin(),
                proven.checkpoint.size()
            ))?;
            out.foreign(&proven.header)?;
            out.text("\n")?;
            if let Some(content) = proven.content {
                out.line(&format!("its content, with its salt in front, has SHA-256 {content}"))?;
            }
        }
    }
    out.flush()
}
