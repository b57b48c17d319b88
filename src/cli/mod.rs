//! The command line: one file per subcommand.
//!
//! `serve` and `demo` run the service; everything else talks to a running one over HTTP and
//! WebSocket, as any other client does. A usage error ends with 2, any other error with 1.
//! When whoever reads standard output goes away, the command ends quietly with 0.

// The build without tests still denies it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod archive;
mod bench;
mod bundle;
mod client;
mod completions;
mod config;
mod config_file;
mod connect;
pub mod credentials;
mod cursor;
mod delivery;
mod demo;
mod diff;
mod doctor;
mod drill;
mod export;
mod follower;
mod host;
mod import;
mod interrupted;
mod key;
mod lifecycle;
mod log;
mod ls;
mod manifest;
mod observed;
mod output;
mod progress;
mod rebuild;
mod receipt;
mod redact;
mod redactions;
mod replay;
mod restore;
mod resume;
mod runtime;
mod segments;
mod send;
mod serve;
pub mod serve_agents;
pub mod serve_args;
mod serve_local_pods;
mod serve_manifest;
pub mod serve_retention;
mod serve_snapshots;
mod short_ids;
mod show;
mod snapshot;
mod spawn;
mod status;
mod tail;
mod telemetry;
mod timeline;
mod token;
mod transcript;
mod verify;
mod worker_address;

#[cfg(test)]
mod tests;

use crate::trust::Trust;
use acta_events::{Sequence, Timestamp};
use anyhow::Context;
use clap::{ArgMatches, Args, Parser, Subcommand, parser::ValueSource};
use client::Client;
use credentials::{Search, Secret, SecretParser};
use output::{Format, Output, OutputClosed, note, with_causes};
use reqwest::Url;
use std::{ffi::OsString, future::Future, path::PathBuf, process::ExitCode, time::Duration};
use tokio::runtime::{Builder, Runtime};

const HELP: &str = "\
Examples:
  acta serve &
  worker=$(acta spawn --template echo)
  acta send $worker --wait hello
  acta tail --from start
  acta ls -o json | jq

Worker ids may be cut to a beginning that only one worker has; RUNTIME/ID is a worker of any
runtime, also of another service that is registered here. Times are UTC.
Exit codes: 0 done, 1 an error, 2 a command that was not understood.";

const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// The event-sourced control plane for agent workers
#[derive(Debug, Parser)]
#[command(name = "acta", version, after_help = HELP, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach a service. Accepted before and after the name of the subcommand; `serve` has
/// options of its own under three of these names.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connection and output")]
struct Connection {
    /// Where the service listens
    #[arg(
        long,
        global = true,
        env = "ACTA_URL",
        default_value = URL_DEFAULT,
        value_parser = parse_url
    )]
    url: Url,

    /// The token to show; otherwise the operator token of a service on this machine is found by
    /// itself
    #[arg(
        long,
        global = true,
        env = "ACTA_TOKEN",
        hide_env_values = true,
        // One in 64 begins with a dash.
        allow_hyphen_values = true,
        value_parser = SecretParser
    )]
    token: Option<Secret>,

    /// The data directory in which to look for the operator token [default: ./acta-data]
    #[arg(long, global = true, value_name = "DIR", env = "ACTA_DATA")]
    data: Option<PathBuf>,

    /// A file with certificates of further authorities, in PEM, to trust over https
    #[arg(long, global = true, value_name = "FILE", env = "ACTA_CA")]
    ca: Option<PathBuf>,

    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the service
    Serve(Box<serve_args::ServeArgs>),
    /// Run the main job from end to end on a temporary service, and check that it holds
    Demo(demo::DemoArgs),
    /// Compute the views of a stopped service again, from its log alone
    Rebuild(rebuild::RebuildArgs),
    /// Check a log, or a receipt, without believing whoever has it
    Verify(verify::VerifyArgs),
    /// Make a data directory from an archive, which is verified on the way
    Import(import::ImportArgs),
    /// Prove that a record is in the log, to keep
    Receipt(receipt::ReceiptArgs),
    /// Show the key that the log is verified with
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Be the agent of an external worker: answer its messages on this machine
    Connect(Box<connect::ConnectArgs>),
    /// Ask for a new worker
    Spawn(spawn::SpawnArgs),
    /// Send a worker an input
    Send(send::SendArgs),
    /// Stop a worker for good
    Stop(lifecycle::LifecycleArgs),
    /// Cancel a worker for good
    Cancel(lifecycle::LifecycleArgs),
    /// List workers, runtimes or hosts
    Ls(ls::LsArgs),
    /// Show a worker, a runtime, a host, a token, a bundle or a cursor
    Show(show::ShowArgs),
    /// Print what was said to and by a worker
    Transcript(transcript::TranscriptArgs),
    /// Follow a worker, or everything
    Tail(tail::TailArgs),
    /// Look back over what happened: who did what, when, by which command
    Log(log::LogArgs),
    /// Write the log a record a line, for other tools
    Export(export::ExportArgs),
    /// Compare a worker at two moments
    #[command(subcommand)]
    Diff(diff::DiffCommand),
    /// Rebuild the views up to a moment and show them
    Replay(replay::ReplayArgs),
    /// Remember by name how far a consumer has read
    #[command(subcommand)]
    Cursor(cursor::CursorCommand),
    /// See and repeat what could not be delivered to an agent
    #[command(subcommand)]
    Delivery(delivery::DeliveryCommand),
    /// Erase the content of a record for good, and keep the proof that it was there
    Redact(redact::RedactArgs),
    /// List what was erased, and erase it again elsewhere
    #[command(subcommand)]
    Redactions(redactions::RedactionsCommand),
    /// Issue, list and revoke tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Store and check config bundles
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Act on the service's own runtime
    #[command(subcommand)]
    Runtime(runtime::RuntimeCommand),
    /// Take snapshots of a running service, list and verify them
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Make a data directory from a snapshot, in a new epoch of the log
    Restore(Box<restore::RestoreArgs>),
    /// Find out whether a snapshot of a running service can be restored
    Drill(drill::DrillArgs),
    /// Have a restored service do what its log asks for
    Resume(resume::ResumeArgs),
    /// Show how the service is, on one screen
    Status,
    /// List the sealed history in a data directory
    Segments,
    /// Make something to measure upon
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Register hosts, and say that they are there
    #[command(subcommand)]
    Host(host::HostCommand),
    /// Find out what is wrong with data, configuration, clock and surroundings
    Doctor(doctor::DoctorArgs),
    /// See how the service is configured
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Check the file that says what workers can be made from
    #[command(subcommand)]
    Manifest(manifest::ManifestCommand),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
}

/// The arguments were each right, but not together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Parses the arguments of the process, runs the command, and tells how it ended.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let (mut cli, matches) = match config::parse(&arguments) {
        Ok(parsed) => parsed,
        Err(config::Unparsed::File(error)) => {
            note(&format!("error: {}", with_causes(&error)));
            return ExitCode::from(2);
        }
        Err(config::Unparsed::Arguments(error)) => {
            // Nobody is left to be told that printing failed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    ask_the_service(&mut cli, &matches);
    match run(cli, really_given(&matches), &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<OutputClosed>() => ExitCode::SUCCESS,
        Err(error) if error.is::<UsageError>() => {
            note(&format!("error: {error}\n\nFor more information, try '--help'."));
            ExitCode::from(2)
        }
        Err(error) => {
            note(&format!("error: {}", with_causes(&error)));
            if let Some(verify::Unverified { code, .. }) = error.downcast_ref() {
                return ExitCode::from(*code);
            }
            if error.is::<rebuild::Unequal>() {
                return ExitCode::from(rebuild::UNEQUAL_CODE);
            }
            ExitCode::FAILURE
        }
    }
}

/// What of the arguments was really said: a default address, or an operator's token from the
/// environment, is not for an agent.
fn really_given(matches: &ArgMatches) -> connect::Given {
    let mut given = connect::Given::default();
    if let Some((_, said)) = matches.subcommand() {
        let source = |name| said.value_source(name);
        if source("url").is_some_and(|source| source != ValueSource::DefaultValue) {
            given.url = said.get_one("url").cloned();
        }
        if source("token") == Some(ValueSource::CommandLine) {
            given.token = said.get_one("token").cloned();
        }
    }
    given
}

/// A data directory that only the environment names is where a token is found. To be replayed
/// without a service it has to be said.
fn ask_the_service(cli: &mut Cli, matches: &ArgMatches) {
    if let Command::Replay(args) = &mut cli.command
        && let Some((_, said)) = matches.subcommand()
        && said.value_source("data") != Some(ValueSource::CommandLine)
    {
        args.data = None;
    }
}

fn run(cli: Cli, given: connect::Given, arguments: &[OsString]) -> anyhow::Result<()> {
    let Cli { connection, command } = cli;
    let output = connection.output;
    match command {
        Command::Serve(args) => {
            args.operator_tokens().map_err(|error| UsageError(error.to_string()))?;
            let telemetry = telemetry::Telemetry::begin(args.log, args.otlp_endpoint.as_ref())?;
            let ran = block_on(&mut Builder::new_multi_thread(), serve::run(*args));
            telemetry.end();
            ran
        }
        Command::Demo(args) => {
            let mut out = connection.stdout();
            block_on(&mut Builder::new_multi_thread(), demo::run(args, &mut out))
        }
        Command::Connect(args) => {
            let mut out = connection.stdout();
            let trust = Trust::new(connection.ca.as_deref())?;
            block_on(
                &mut Builder::new_current_thread(),
                Box::pin(connect::run(*args, given, &trust, &mut out)),
            )
        }
        Command::Rebuild(args) => {
            rebuild::run(&args, connection.data.as_deref(), &mut connection.stdout())
        }
        Command::Replay(args) if args.data.is_some() => {
            let data = args.data.clone().unwrap_or_default();
            replay::run_stopped(&args, &data, &mut connection.stdout())
        }
        Command::Manifest(command) => {
            let mut out = connection.stdout();
            manifest::run(&command, &mut out)?;
            out.flush()
        }
        Command::Config(config::ConfigCommand::Show(args)) => {
            config::show(arguments, &args, &mut connection.stdout())
        }
        Command::Doctor(args) => {
            doctor::run(&args, connection.data.as_deref(), &mut connection.stdout())
        }
        Command::Completions(args) => completions::run(&args, &mut connection.stdout()),
        Command::Verify(args) => match args.url()? {
            None => verify::run(&args, &mut connection.stdout()),
            Some(url) => {
                let client = Connection { url, ..connection }.client()?;
                let mut out = Output::stdout(output);
                block_on(
                    &mut Builder::new_current_thread(),
                    verify::run_remote(&args, &client, &mut out),
                )
            }
        },
        Command::Import(args) => {
            import::run(&args, connection.data.as_deref(), &mut connection.stdout())
        }
        Command::Key(key::KeyCommand::Show) => {
            key::show(connection.data.as_deref(), &mut connection.stdout())
        }
        Command::Bench(command) => bench::run(&command, &mut connection.stdout()),
        Command::Segments => segments::run(connection.data.as_deref(), &mut connection.stdout()),
        Command::Redactions(redactions::RedactionsCommand::Apply { file }) => {
            redactions::run_apply(&file, connection.data.as_deref(), &mut connection.stdout())
        }
        Command::Snapshot(
            command @ (snapshot::SnapshotCommand::Ls { .. } | snapshot::SnapshotCommand::Verify(_)),
        ) => snapshot::run(&command, &mut connection.stdout()),
        Command::Restore(args) => {
            restore::run(&args, connection.data.as_deref(), &mut connection.stdout())
        }
        Command::Token(token::TokenCommand::Reset) => {
            token::reset(connection.data.as_deref(), &mut connection.stdout())
        }
        command => {
            let client = connection.client()?;
            let mut out = connection.stdout();
            block_on(&mut Builder::new_current_thread(), async {
                Box::pin(talk(command, &client, &mut out)).await?;
                out.flush()
            })
        }
    }
}

/// The commands that talk to a service.
async fn talk(command: Command, client: &Client, out: &mut Output) -> anyhow::Result<()> {
    match command {
        Command::Spawn(args) => spawn::run(args, client, out).await,
        Command::Send(args) => send::run(args, client, out).await,
        Command::Stop(args) => lifecycle::run("stop", args, client, out).await,
        Command::Cancel(args) => lifecycle::run("cancel", args, client, out).await,
        Command::Ls(args) => ls::run(args, client, out).await,
        Command::Show(args) => show::run(args, client, out).await,
        Command::Transcript(args) => transcript::run(args, client, out).await,
        Command::Receipt(args) => receipt::run(args, client, out).await,
        Command::Delivery(command) => delivery::run(command, client, out).await,
        Command::Redact(args) => redact::run(args, client, out).await,
        Command::Redactions(_) => redactions::export(client, out).await,
        Command::Tail(args) => tail::run(args, client, out, tail::interrupted()).await,
        Command::Log(args) => log::run(args, client, out).await,
        Command::Export(args) => export::run(args, client, out).await,
        Command::Diff(command) => diff::run(command, client, out).await,
        Command::Replay(args) => replay::run(args, client, out).await,
        Command::Cursor(command) => cursor::run(command, client, out).await,
        Command::Token(command) => token::run(command, client, out).await,
        Command::Bundle(command) => bundle::run(command, client, out).await,
        Command::Runtime(command) => runtime::run(&command, client, out).await,
        Command::Snapshot(snapshot::SnapshotCommand::Create { target, base }) => {
            snapshot::create(&target, base.as_deref(), client, out).await
        }
        Command::Drill(args) => drill::run(&args, client, out).await,
        Command::Resume(args) => resume::run(&args, client, out).await,
        Command::Status => status::run(client, out).await,
        Command::Host(command) => host::run(command, client, out).await,
        Command::Serve(_)
        | Command::Demo(_)
        | Command::Connect(_)
        | Command::Rebuild(_)
        | Command::Verify(_)
        | Command::Import(_)
        | Command::Key(_)
        | Command::Segments
        | Command::Snapshot(_)
        | Command::Restore(_)
        | Command::Bench(_)
        | Command::Manifest(_)
        | Command::Config(_)
        | Command::Doctor(_)
        | Command::Completions(_) => Ok(()),
    }
}

fn block_on<T>(
    builder: &mut Builder,
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let runtime: Runtime = builder.enable_all().build().context("cannot start")?;
    let result = runtime.block_on(future);
    // A thread that still reads standard input must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

impl Connection {
    fn client(&self) -> anyhow::Result<Client> {
        let found = Search::here(self.token.as_ref(), self.data.as_deref(), &self.url)?;
        Client::new(self.url.clone(), found, &Trust::new(self.ca.as_deref())?)
    }

    fn stdout(&self) -> Output {
        Output::stdout(self.output)
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}, as in http://127.0.0.1:8080"))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some() => Ok(url),
        _ => {
            Err("an address is written as in http://127.0.0.1:8080 or https://acta.example".into())
        }
    }
}

/// For who is spoken to without TLS.
fn parse_http_url(text: &str) -> Result<Url, String> {
    match parse_url(text)? {
        url if url.scheme() == "http" => Ok(url),
        _ => Err("https is not spoken there; use a collector on this machine".into()),
    }
}

/// A past moment, as `?at=` takes it.
fn parse_moment(text: &str) -> Result<String, String> {
    let sequence = text.parse::<u64>().is_ok();
    if sequence || Timestamp::parse(text).is_ok() {
        return Ok(text.into());
    }
    Err("a moment is a sequence or a time as in 2026-11-20T19:14:00Z".into())
}

fn parse_sequence(text: &str) -> Option<Sequence> {
    text.parse().ok().map(Sequence)
}

/// Shared by all commands that change something.
#[derive(Args, Clone, Debug, Default)]
struct CommandOptions {
    /// Makes a repeated command recognisable: it happens once. A fresh one unless given
    #[arg(long, value_name = "KEY", value_parser = acta_events::IdempotencyKey::parse)]
    idempotency_key: Option<acta_events::IdempotencyKey>,

    /// Only if the worker is still at this revision
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
}

fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}
