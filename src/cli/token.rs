//! `acta token`.

use super::client::{Call, Client};
use super::credentials::{OPERATOR_TOKEN_FILE, write_private};
use super::output::{Format, Output, cell_at, note, table};
use super::parse_moment;
use super::serve_args::DATA_DEFAULT;
use acta_events::{HostId, RuntimeId, TokenId, WorkerId, WorkerRef};
use anyhow::{Context, bail};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use std::path::Path;

const ISSUE_HELP: &str = "\
Prints the token on standard output, this once; the service keeps its digest only.
  acta token issue --role observer --label dashboard > dashboard.token
  acta token issue --role host --host build-7
  acta token issue --role worker --worker external/0193e4a2-7c3b";

const RESET_HELP: &str = "\
Works on the directory given by --data, without the service: writes a new <data>/operator.token.
A service that is running has read the old one at its start: restart it.
  acta token reset --data /var/lib/acta";

/// The subcommands of `acta token`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Issue a token
    #[command(after_help = ISSUE_HELP)]
    Issue {
        /// What its holder may do
        #[arg(long, value_enum)]
        role: RoleArg,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
        /// Of role worker: which one
        #[arg(
            long,
            value_name = "RUNTIME/WORKER",
            value_parser = parse_worker,
            required_if_eq("role", "worker")
        )]
        worker: Option<WorkerRef>,
        /// Of role host: which one
        #[arg(long, value_name = "ID", required_if_eq("role", "host"))]
        host: Option<HostId>,
    },
    /// List the tokens, without showing them
    Ls {
        /// As it was: a sequence, or a time as in 2026-11-20T19:14:00Z
        #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
        at: Option<String>,
    },
    /// Revoke a token; its open streams are closed
    Revoke {
        /// Its id, as `acta token ls` shows it
        id: TokenId,
    },
    /// Replace a lost operator token
    #[command(after_help = RESET_HELP)]
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Everything
    Operator,
    /// Reads everything; its own cursors; no other command
    Auditor,
    /// Reads workers and their events; its own cursors
    Observer,
    /// Registers itself and beats
    Host,
    /// Its own worker, and messages to others
    Worker,
}

impl RoleArg {
    fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Observer => "observer",
            Self::Host => "host",
            Self::Worker => "worker",
        }
    }
}

fn parse_worker(text: &str) -> Result<WorkerRef, String> {
    let Some((runtime, worker)) = text.split_once('/') else {
        return Err("a worker's full address is <runtime>/<worker>".into());
    };
    let runtime_id = RuntimeId::parse(runtime).map_err(|error| error.to_string())?;
    let worker_id = WorkerId::parse(worker).map_err(|error| error.to_string())?;
    Ok(WorkerRef { runtime_id, worker_id })
}

pub(super) async fn run(
    command: TokenCommand,
    client: &Client,
    out: &mut Output,
) -> anyhow::Result<()> {
    let call = match &command {
        TokenCommand::Issue { role, label, worker, host } => {
            if worker.is_some() && *role != RoleArg::Worker {
                return Err(super::usage("--worker is for --role worker"));
            }
            if host.is_some() && *role != RoleArg::Host {
                return Err(super::usage("--host is for --role host"));
            }
            let mut body = json!({ "role": role.name() });
            if let Some(host) = host {
                body["host"] = json!(host);
            }
            if let Some(label) = label {
                body["label"] = label.as_str().into();
            }
            if let Some(worker) = worker {
                body["worker"] = json!(worker);
            }
            // The token is shown in the one answer only, which no repetition brings back.
            Call::post(&["tokens"], body).once()
        }
        TokenCommand::Ls { at } => Call::get(&["tokens"]).query("at", at.as_ref()),
        TokenCommand::Revoke { id } => Call::delete(&["tokens", id.as_str()]),
        TokenCommand::Reset => return Ok(()),
    };
    let answer = client.send(call).await?;
    if out.format == Format::Json {
        return out.json(&answer);
    }
    match command {
        TokenCommand::Issue { .. } => {
            let token = &answer["token"];
            out.line(&cell_at(token, "token"))?;
            out.flush()?;
            let (id, role) = (cell_at(token, "id"), cell_at(token, "role"));
            note(&format!("token {id} with role {role}; it is not shown again"));
            Ok(())
        }
        TokenCommand::Ls { .. } => {
            let tokens = answer["tokens"].as_array().into_iter().flatten();
            let row = |token| {
                let [id, role, label, runtime, worker] =
                    ["id", "role", "label", "worker.runtime_id", "worker.worker_id"]
                        .map(|path| cell_at(token, path));
                let worker = if worker.is_empty() { worker } else { format!("{runtime}/{worker}") };
                vec![id, role, label, worker]
            };
            let rows: Vec<Vec<String>> = tokens.map(row).collect();
            out.text(&table(&["TOKEN", "ROLE", "LABEL", "WORKER"], &rows))
        }
        TokenCommand::Revoke { id } => out.line(&format!("token {id} is revoked")),
        TokenCommand::Reset => Ok(()),
    }
}

/// Replaces the operator token of a data directory, without the service.
pub(super) fn reset(data: Option<&Path>, out: &mut Output) -> anyhow::Result<()> {
    let data = data.unwrap_or(Path::new(DATA_DEFAULT));
    if !data.is_dir() {
        bail!("{} is not a data directory; name one with --data", data.display());
    }
    let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let path = data.join(OPERATOR_TOKEN_FILE);
    write_private(&path, &token)
        .with_context(|| format!("cannot replace the operator token in {}", data.display()))?;
    match out.format {
        Format::Json => out.json(&json!({ "operator_token_file": path }))?,
        Format::Table => out.line(&format!(
            "{} is new. A service that is running on this directory still takes the old one: \
             restart it.",
            path.display()
        ))?,
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io, os::unix::fs::PermissionsExt};

    #[test]
    fn a_reset_token_is_new_private_and_complete() {
        let data = tempfile::tempdir().unwrap();
        let mut out = Output::to(io::sink(), Format::Table);
        let path = data.path().join(OPERATOR_TOKEN_FILE);
        // What a crash left, readable by everybody, must not become the token file.
        fs::write(data.path().join("operator.token.tmp"), "old").unwrap();
        let mut seen = Vec::new();
        for _ in 0..2 {
            reset(Some(data.path()), &mut out).unwrap();
            let token = fs::read_to_string(&path).unwrap();
            assert_eq!(token.len(), 43);
            assert_eq!(URL_SAFE_NO_PAD.decode(&token).unwrap().len(), 32);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            seen.push(token);
        }
        assert_ne!(seen[0], seen[1]);
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
        assert!(reset(Some(&data.path().join("absent")), &mut out).is_err());
    }
}
