//! `acta runtime`.

use super::client::{Call, Client};
use super::output::{Format, Output, cell_at, note, one_line};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

const ADD_HELP: &str = "\
The variable is one of the service, not of this command: the token itself is never sent or kept.

Examples:
  acta runtime add berlin http://10.0.0.7:7421 --token-env BERLIN_TOKEN
  acta ls workers --runtime berlin";

/// The subcommands of `acta runtime`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RuntimeCommand {
    /// Stop the runtime and all its active workers; reading goes on
    Stop,
    /// Make the runtime of another service known here, under an alias
    Add(AddArgs),
    /// Forget the runtime of another service; its workers go on there
    Rm {
        /// Its alias here
        id: String,
    },
}

/// Options of `acta runtime add`.
#[derive(Args, Clone, Debug)]
#[command(after_help = ADD_HELP)]
pub(crate) struct AddArgs {
    /// What it is called here: 1 to 120 letters, digits, `-`, `_` and `:`
    id: String,
    /// Where it is, as in http://10.0.0.7:7421
    #[arg(value_name = "URL")]
    address: String,
    /// The environment variable of this service that has the other one's token
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// For people
    #[arg(long)]
    label: Option<String>,
}

pub(super) async fn run(
    command: &RuntimeCommand,
    client: &Client,
    out: &mut Output,
) -> anyhow::Result<()> {
    match command {
        RuntimeCommand::Stop => {
            let answer = client.send(Call::post(&["runtime", "stop"], json!({}))).await?;
            if out.format == Format::Json {
                return out.json(&answer);
            }
            match cell_at(&answer, "runtime.runtime_id").as_str() {
                "" => out.line("the runtime is stopped"),
                id => out.line(&format!("runtime {id} is stopped")),
            }
        }
        RuntimeCommand::Add(args) => {
            let body = json!({
                "runtime_id": args.id,
                "kind": "remote_http",
                "label": args.label,
                "url": args.address,
                "token_env": args.token_env,
            });
            let answer = client.send(Call::post(&["runtimes"], body)).await?;
            if out.format == Format::Json {
                return out.json(&answer);
            }
            let status = cell_at(&answer, "runtime.status");
            out.line(&format!("runtime {} is registered and {status}", args.id))?;
            for diagnostic in diagnostics(&answer["runtime"]) {
                note(&diagnostic);
            }
            Ok(())
        }
        RuntimeCommand::Rm { id } => {
            let answer = client.send(Call::delete(&["runtimes", id])).await?;
            if out.format == Format::Json {
                return out.json(&answer);
            }
            out.line(&format!("runtime {id} is forgotten here"))
        }
    }
}

/// What an answer says beside its items, a line each.
pub(super) fn diagnostics(answer: &Value) -> Vec<String> {
    let all = answer["diagnostics"].as_array().into_iter().flatten();
    all.map(|diagnostic| {
        let text = |name| one_line(&cell_at(diagnostic, name), 300);
        format!("{}: {} ({})", text("severity"), text("message"), text("code"))
    })
    .collect()
}
