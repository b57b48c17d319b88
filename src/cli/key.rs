//! `acta key show`: what checkpoints of a log are verified with.

use super::{
    output::{Format, Output},
    serve_args::DATA_DEFAULT,
};
use crate::audit::{self, LogKey};
use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::json;
use std::path::Path;

/// Subcommands of `acta key`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print the verifier key of the log in a data directory: <name>+<hash>+<key>. It is no secret;
    /// give it to whoever is to verify this log
    Show,
}

/// Reads the key of a data directory, whether its service runs or not.
pub(super) fn show(data: Option<&Path>, out: &mut Output) -> Result<()> {
    let data = data.unwrap_or(Path::new(DATA_DEFAULT));
    let key = LogKey::load(&data.join(audit::KEY))
        .with_context(|| format!("the key of {} cannot be shown", data.display()))?;
    match out.format {
        Format::Json => {
            let verifier = key.verifier();
            out.json(&json!({ "name": verifier.name(), "verifier_key": verifier.to_string() }))?;
        }
        Format::Table => out.line(&key.verifier().to_string())?,
    }
    out.flush()
}
