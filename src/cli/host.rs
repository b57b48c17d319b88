//! `acta host`: the machines that workers run on.

use super::client::{Call, Client, ClientError};
use super::output::{Format, Output, cell_at, note};
use super::tail::interrupted;
use acta_events::{HostId, RuntimeId};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::time::Duration;

const ADD_HELP: &str = "\
Registering again changes what is known of a host, or nothing. A machine does that itself with a token
of its own:
  acta token issue --role host --host build-7 > build-7.token
  ACTA_TOKEN=$(cat build-7.token) acta host add build-7 --has shell,git --max-workers 8
  ACTA_TOKEN=$(cat build-7.token) acta host beat build-7";

const BEAT_HELP: &str = "\
A host that does not beat for longer than its lease (60 s unless the service says otherwise) is lost,
which is an event, and found again with its next beat.
  acta host beat build-7
  acta host beat build-7 --every 10s
  acta host beat build-7 --once";

/// The subcommands of `acta host`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Register a host, or bring what is known of it up to date
    #[command(after_help = ADD_HELP)]
    Add(AddArgs),
    /// Say again and again that a host is there, until interrupted
    #[command(after_help = BEAT_HELP)]
    Beat(BeatArgs),
}

/// Options of `acta host add`.
#[derive(Args, Clone, Debug)]
pub(crate) struct AddArgs {
    /// The host
    id: HostId,
    /// The runtime it belongs to; the service's own unless given
    #[arg(long, value_name = "ID")]
    runtime: Option<RuntimeId>,
    /// What people see instead of its id
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// What kind of host it is
    #[arg(long, value_name = "NAME")]
    kind: Option<String>,
    /// Its operating system
    #[arg(long, value_name = "NAME", default_value = std::env::consts::OS)]
    os: String,
    /// Its processor architecture
    #[arg(long, value_name = "NAME", default_value = std::env::consts::ARCH)]
    arch: String,
    /// What its workers have
    #[arg(long, value_enum, value_delimiter = ',')]
    has: Vec<Has>,
    /// How many workers it runs at most
    #[arg(long, value_name = "N")]
    max_workers: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Has {
    /// The files of a workspace
    WorkspaceFs,
    /// A shell
    Shell,
    /// Git
    Git,
    /// A worktree each, if they want one
    Worktrees,
}

/// Options of `acta host beat`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BeatArgs {
    /// The host
    id: HostId,
    /// How long to wait between two beats; a third of its lease unless given
    #[arg(long, value_name = "TIME", value_parser = parse_pause)]
    every: Option<Duration>,
    /// Beat once
    #[arg(long, conflicts_with = "every")]
    once: bool,
}

fn parse_pause(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let pause = parsed.and_then(|pause| Duration::try_from(pause).ok());
    let pause = pause.filter(|pause| *pause >= Duration::from_millis(100));
    pause.ok_or_else(|| "a time is written as in 30s or 1m, and is at least 100ms".into())
}

pub(super) async fn run(
    command: HostCommand,
    client: &Client,
    out: &mut Output,
) -> anyhow::Result<()> {
    match command {
        HostCommand::Add(args) => add(args, client, out).await,
        HostCommand::Beat(args) => beat(&args, client, out).await,
    }
}

async fn add(args: AddArgs, client: &Client, out: &mut Output) -> anyhow::Result<()> {
    let has = |what| args.has.contains(&what);
    let mut body = json!({
        "host_id": args.id,
        "capabilities": {
            "os": args.os,
            "arch": args.arch,
            "has_workspace_fs": has(Has::WorkspaceFs),
            "has_shell": has(Has::Shell),
            "has_git": has(Has::Git),
            "supports_worktrees": has(Has::Worktrees),
            "max_workers": args.max_workers,
        },
    });
    let runtime = args.runtime.map(|runtime| runtime.to_string());
    for (name, value) in [("runtime_id", runtime), ("label", args.label), ("kind", args.kind)] {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    let answer = client.send(Call::post(&["hosts"], body)).await?;
    if out.format == Format::Json {
        return out.json(&answer);
    }
    out.line(&format!(
        "host {} of runtime {} is {}; its lease is {}",
        cell_at(&answer, "host_id"),
        cell_at(&answer, "runtime_id"),
        match cell_at(&answer, "state").as_str() {
            "unchanged" => "registered, as before".into(),
            state => state.to_owned(),
        },
        lease(&answer).map_or("not known".into(), |lease| format!("{} s", lease.as_secs_f64()))
    ))
}

fn lease(answer: &serde_json::Value) -> Option<Duration> {
    answer["lease_ms"].as_u64().map(Duration::from_millis)
}

async fn beat(args: &BeatArgs, client: &Client, out: &mut Output) -> anyhow::Result<()> {
    let mut end = std::pin::pin!(interrupted());
    let mut pause = args.every.unwrap_or(Duration::from_secs(1));
    let mut is_failing = false;
    loop {
        // A beat is harmless to repeat, and the next one is not far.
        let call = Call::post(&["hosts", args.id.as_str(), "heartbeat"], json!({})).once();
        let sent = tokio::select! {
            sent = client.send(call) => sent,
            () = &mut end => return Ok(()),
        };
        match sent {
            Ok(answer) => {
                say(args, &answer, is_failing, out)?;
                is_failing = false;
                let of_lease = lease(&answer).map(|lease| lease / 3);
                pause = args.every.or(of_lease).unwrap_or(pause);
            }
            Err(error) if args.once || !may_pass(&error) => return Err(error.into()),
            Err(error) => {
                if !is_failing {
                    note(&format!("{error}; going on"));
                }
                is_failing = true;
            }
        }
        if args.once {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut end => return Ok(()),
        }
    }
}

fn say(
    args: &BeatArgs,
    answer: &serde_json::Value,
    was_failing: bool,
    out: &mut Output,
) -> anyhow::Result<()> {
    if out.format == Format::Json {
        out.json(answer)?;
        return out.flush();
    }
    if args.once {
        return out.line(&format!("host {} is {}", args.id, cell_at(answer, "status")));
    }
    if was_failing {
        note(&format!("host {} is heard again", args.id));
    }
    Ok(())
}

/// Whether trying again later may help: a service that is away or not ready, not one that says no.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Api { status, .. } => *status >= 500,
        ClientError::NoService { .. } | ClientError::Unknown { .. } => true,
        ClientError::Unauthorized { .. }
        | ClientError::Mistrusted { .. }
        | ClientError::NotActa { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_time_of_some_length() {
        let rows = [
            ("30s", Some(30_000)),
            ("1m", Some(60_000)),
            ("250ms", Some(250)),
            ("0s", None),
            ("-5s", None),
            ("30", None),
            ("", None),
            ("soon", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_pause(text).ok(), expected.map(Duration::from_millis), "{text}");
        }
    }
}
