//! `acta redactions`: what was erased, as a list that erases it again elsewhere.

use super::{
    client::{Call, Client},
    output::{Format, Output, note},
    serve,
    serve_args::DATA_DEFAULT,
};
use crate::redaction_list::{ListedRedaction, apply};
use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

const EXPORT_HELP: &str = "\
A JSON object a line, on standard output. Keep the list with your snapshots: one that is older
still has what was erased since.
  acta redactions export > redactions.ndjson";

const APPLY_HELP: &str = "\
Works on the directory given by --data, without the service: erases what is in the list and in the
log. Each order that the log lacks is recorded anew, with whoever gave it first. Records that the
log does not have are passed over. It may be repeated.
  acta redactions apply --data /var/lib/acta redactions.ndjson";

/// The subcommands of `acta redactions`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RedactionsCommand {
    /// List what was erased: which record, by whom, when and why
    #[command(after_help = EXPORT_HELP)]
    Export,
    /// Erase what is in a list, in the data directory of a stopped service
    #[command(after_help = APPLY_HELP)]
    Apply {
        /// What `acta redactions export` printed
        file: PathBuf,
    },
}

/// All of them, as a list that can be applied.
pub(super) async fn fetch_list(client: &Client) -> Result<Vec<ListedRedaction>> {
    let mut list = Vec::new();
    each(client, |item| {
        list.push(serde_json::from_value(item).map_err(|error| client.not_acta(error))?);
        Ok(())
    })
    .await?;
    Ok(list)
}

/// Prints all of them, a page at a time.
pub(super) async fn export(client: &Client, out: &mut Output) -> Result<()> {
    each(client, |item| out.line(&item.to_string())).await
}

async fn each(client: &Client, mut take: impl FnMut(Value) -> Result<()>) -> Result<()> {
    let mut after = None::<u64>;
    loop {
        let answer = client.send(Call::get(&["redactions"]).query("after", after)).await?;
        for item in answer["redactions"].as_array().into_iter().flatten() {
            take(item.clone())?;
        }
        match answer["next_after"].as_u64() {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// A list as it was exported.
pub(super) fn read_list(file: &Path) -> Result<Vec<ListedRedaction>> {
    let shown = file.display();
    let input = BufReader::new(File::open(file).with_context(|| format!("{shown}"))?);
    let mut list = Vec::<ListedRedaction>::new();
    for (n, line) in input.lines().enumerate() {
        let line = line.with_context(|| {
            format!("{shown}, line {}: no list as `acta redactions export` prints it", n + 1)
        })?;
        if line.trim().is_empty() {
            continue;
        }
        let item = serde_json::from_str(&line);
        list.push(item.with_context(|| format!("{shown}, line {}: not a redaction", n + 1))?);
    }
    Ok(list)
}

/// Erases what is in a list.
pub(super) fn run_apply(file: &Path, data: Option<&Path>, out: &mut Output) -> Result<()> {
    let list = read_list(file)?;
    let opened = serve::open_stopped(data.unwrap_or(Path::new(DATA_DEFAULT)))?;
    let applied = apply(&opened.log, list);
    let closed = opened.close();
    let applied = applied?;
    closed?;
    if applied.absent > 0 {
        note(&format!("{} records are not in this log", applied.absent));
    }
    match out.format {
        Format::Json => out.json(&json!(applied))?,
        Format::Table => out.line(&format!(
            "{} erased, {} had been erased before",
            applied.erased, applied.already
        ))?,
    }
    out.flush()
}
