//! `acta runtime`.

use super::client::{Call, Client};
use super::output::{Format, Output, cell_at};
use clap::Subcommand;
use serde_json::json;

/// The subcommands of `acta runtime`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RuntimeCommand {
    /// Stop the runtime and all its active workers; reading goes on
    Stop,
}

pub(super) async fn run(
    command: &RuntimeCommand,
    client: &Client,
    out: &mut Output,
) -> anyhow::Result<()> {
    let RuntimeCommand::Stop = command;
    let answer = client.send(Call::post(&["runtime", "stop"], json!({}))).await?;
    if out.format == Format::Json {
        return out.json(&answer);
    }
    match cell_at(&answer, "runtime.runtime_id").as_str() {
        "" => out.line("the runtime is stopped"),
        id => out.line(&format!("runtime {id} is stopped")),
    }
}
