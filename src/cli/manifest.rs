//! `acta manifest`.

use super::output::{Format, Output};
use crate::manifest::{Manifest, ManifestError, Problems};
use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;

/// The subcommands of `acta manifest`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Read a manifest as the service would, and tell what can be started or what is wrong
    Check {
        /// The file; otherwise the one that `acta serve` would take here
        file: Option<PathBuf>,
    },
}

pub(super) fn run(command: &ManifestCommand, out: &mut Output) -> Result<()> {
    let ManifestCommand::Check { file } = command;
    let path = Manifest::locate(file.as_deref())
        .context("there is no manifest here; name one, as in `acta manifest check FILE`")?;
    let manifest = match Manifest::read(&path) {
        // Each on a line of its own.
        Err(ManifestError::Malformed { path, problems: Problems(problems) }) => {
            let count = problems.len();
            let told = problems.join("\n  ");
            bail!("the manifest {} has {count} problem(s):\n  {told}", path.display());
        }
        read => read?,
    };
    let templates = manifest.templates();
    if out.format == Format::Json {
        return out.json(&json!({"path": path, "templates": templates}));
    }
    for template in &templates {
        let can = if template.startable { "can be started" } else { "is known, no exec" };
        out.line(&format!("{:<24} {can}", template.name))?;
    }
    out.line(&format!("{} is a manifest", path.display()))
}
