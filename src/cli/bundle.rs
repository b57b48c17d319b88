//! `acta bundle`.

use super::client::{Call, Client};
use super::output::{Format, Output, cell_at, outline, table};
use super::parse_moment;
use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};
use std::{fs, io::Read, path::PathBuf};

const PUT_HELP: &str = "\
The file holds {\"metadata\":…,\"profiles\":…,\"declarations\":…}, alone or as \"bundle\" of an object.
  acta bundle put team.json
  generate-bundle | acta bundle put -";

/// The subcommands of `acta bundle`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Store a config bundle
    #[command(after_help = PUT_HELP)]
    Put {
        /// A JSON file; `-` is standard input
        file: PathBuf,
    },
    /// List the config bundles
    Ls {
        /// As it was: a sequence, or a time as in 2026-11-20T19:14:00Z
        #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
        at: Option<String>,
    },
    /// Check that a config bundle is there; exits 1 if it is not
    Check {
        /// Its id
        id: String,
        /// Its digest
        digest: String,
    },
}

pub(super) async fn run(
    command: BundleCommand,
    client: &Client,
    out: &mut Output,
) -> anyhow::Result<()> {
    let call = match &command {
        BundleCommand::Put { file } => Call::post(&["config-bundles"], read(file)?),
        BundleCommand::Ls { at } => Call::get(&["config-bundles"]).query("at", at.as_ref()),
        BundleCommand::Check { id, digest } => {
            Call::get(&["config-bundles", id, "availability"]).query("digest", Some(digest))
        }
    };
    let answer = client.send(call).await?;
    if out.format == Format::Json {
        return out.json(&answer);
    }
    let reference =
        |value: &Value| format!("{}@{}", cell_at(value, "id"), cell_at(value, "digest"));
    match command {
        BundleCommand::Put { .. } => out.line(&reference(&answer["availability"]["reference"])),
        BundleCommand::Check { .. } => out.text(&outline(&answer["availability"]["summary"])),
        BundleCommand::Ls { .. } => {
            let head = ["BUNDLE", "REVISION", "WORKSPACE", "PROFILES", "DECLARATIONS", "CREATED"];
            let columns =
                ["revision", "workspace_id", "profile_count", "declaration_count", "created_at"];
            let bundles = answer["bundles"].as_array().into_iter().flatten();
            let rows: Vec<Vec<String>> = bundles
                .map(|bundle| {
                    let cells = columns.iter().map(|path| cell_at(bundle, path));
                    std::iter::once(reference(bundle)).chain(cells).collect()
                })
                .collect();
            out.text(&table(&head, &rows))
        }
    }
}

fn read(file: &PathBuf) -> anyhow::Result<Value> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    Ok(if value.get("bundle").is_some() { value } else { json!({ "bundle": value }) })
}
