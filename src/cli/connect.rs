//! `acta connect`.

use super::{credentials::Secret, output::Output, serve_args::LogFormat, telemetry, usage};
use crate::{
    connect::{
        self, ConnectError, Stopping,
        backend::Backend,
        backends,
        options::{BackendOptions, Mode, Options},
        wire::{Token, Wire},
    },
    trust::Trust,
};
use acta_events::WorkerId;
use clap::{Args, ValueEnum};
use reqwest::Url;
use std::{env, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The variables that may hold the token of a worker, in this order.
const TOKEN_VARIABLES: [&str; 2] = ["ACTA_WORKER_TOKEN", "MOLECULE_WORKSPACE_TOKEN"];
/// The variable that may hold the address, where neither `--url` nor `ACTA_URL` says it.
const URL_VARIABLE: &str = "MOLECULE_API_URL";
const SINCE_SECS_MAX: u32 = 2_592_000;

const HELP: &str = "\
Backends and their options:
  claude-code  bin=claude  args=  timeout=5m  pass_meta=true
  exec         cmd=…  timeout=60s  pass_meta=false
  a2a          url=…  timeout=5m  stream=false (message/stream in place of message/send)
  mock         reply='echo: %s'

exec runs cmd by the shell for each message: the message is its standard input, what it prints is
the answer. With pass_meta it finds ACTA_WORKER_ID, ACTA_CALLER_ID, ACTA_MESSAGE_ID, ACTA_TASK_ID
and ACTA_METHOD in its environment; the token never. A message that is given again after a crash
has the same ACTA_MESSAGE_ID.

Examples:
  export ACTA_URL=http://acta.example:8080 ACTA_WORKER_TOKEN=…
  acta connect 0193e4a2-7c3b
  acta connect 0193e4a2-7c3b --backend exec --backend-opt cmd='tr a-z A-Z'
  acta connect 0193e4a2-7c3b --backend mock --dry-run

SIGINT and SIGTERM end it in good order: the message in hand is finished within 5 s or left for
the next start. What was answered is kept in the state directory, so that nothing is answered
twice. Exit codes: 0 stopped, 1 an error, 2 a command that was not understood.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    Poll,
    Push,
}

/// Options of `acta connect`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ConnectArgs {
    /// The worker to attach this process to
    #[arg(value_name = "WORKER", value_parser = WorkerId::parse)]
    worker: WorkerId,

    /// What answers the messages
    #[arg(long, value_name = "NAME", default_value = "claude-code")]
    backend: String,

    /// An option of the backend; may be repeated
    #[arg(long = "backend-opt", value_name = "KEY=VALUE")]
    backend_options: Vec<String>,

    /// Whether messages are asked for, or brought by the service
    #[arg(long, value_enum, default_value = "poll")]
    mode: ModeArg,

    /// Between two polls of a service that does not hold its answer back until there is one
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(10..=3_600_000)
    )]
    interval_ms: u64,

    /// Skip messages that are older
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SINCE_SECS_MAX)))]
    since_secs: Option<u32>,

    /// Check the options, say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Where to remember what was answered [default: acta/state in the user's config directory]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// With --mode push: where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// With --mode push: the address at which the service reaches this one [default: that of
    /// --listen]
    #[arg(long, value_name = "URL", value_parser = super::parse_url)]
    public_url: Option<Url>,

    /// How it tells what it does, on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
}

/// What was said before the name of the subcommand or after it.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The address; none if it was left to the default.
    pub(super) url: Option<Url>,
    /// `--token`, not its variable, which is for another one.
    pub(super) token: Option<Secret>,
}

/// Everything that was said, understood.
struct Plan {
    options: Options,
    wire: Wire,
    backend: Arc<dyn Backend>,
    dry_run: bool,
    log: LogFormat,
}

/// Understands the arguments, without any I/O.
fn plan(args: &ConnectArgs, given: Given, trust: &Trust) -> anyhow::Result<Plan> {
    let backend_options =
        BackendOptions::parse(args.backend_options.iter().map(String::as_str)).map_err(usage)?;
    let backend = backends::registry().build(&args.backend, &backend_options, trust);
    let backend = backend.map_err(usage)?;
    let token = match given.token {
        Some(token) => Some(token.expose().to_owned()),
        None => TOKEN_VARIABLES.into_iter().find_map(variable),
    };
    let Some(token) = token else {
        return Err(usage(format!(
            "the worker's token is missing: give --token, or set {}",
            TOKEN_VARIABLES.join(" or ")
        )));
    };
    let token = Token::parse(&token).ok_or_else(|| {
        usage("the worker's token holds characters that no token has, such as blanks")
    })?;
    let url = match (given.url, variable(URL_VARIABLE)) {
        (Some(url), _) => url,
        (None, Some(text)) => {
            super::parse_url(&text).map_err(|error| usage(format!("{URL_VARIABLE}: {error}")))?
        }
        (None, None) => super::parse_url(super::URL_DEFAULT).map_err(usage)?,
    };
    let state_dir = match args.state_dir.clone().or_else(state_directory) {
        Some(directory) => directory,
        None => {
            return Err(usage(
                "there is no place for the state: give --state-dir, or set HOME or XDG_CONFIG_HOME",
            ));
        }
    };
    let options = Options {
        worker_id: args.worker.to_string(),
        backend: args.backend.clone(),
        mode: match args.mode {
            ModeArg::Poll => Mode::Poll,
            ModeArg::Push => Mode::Push,
        },
        interval: Duration::from_millis(args.interval_ms),
        since_secs: args.since_secs,
        state_dir,
        listen: args.listen,
        public_url: args.public_url.clone(),
    };
    let wire = Wire::new(url, args.worker.as_str(), token, trust)?;
    Ok(Plan { options, wire, backend, dry_run: args.dry_run, log: args.log })
}

/// Attaches this process to a worker until it is told to stop.
pub(super) async fn run(
    args: ConnectArgs,
    given: Given,
    trust: &Trust,
    out: &mut Output,
) -> anyhow::Result<()> {
    let Plan { options, wire, backend, dry_run, log } = plan(&args, given, trust)?;
    if dry_run {
        backend.close().await;
        out.line(&summary(&options, &wire))?;
        return out.flush();
    }
    telemetry::begin_logging(log)?;
    let stopping = Stopping::default();
    let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let watching = tokio::spawn(watch(signals, stopping.clone()));
    let result = connect::run(&options, &wire, &*backend, &stopping).await;
    watching.abort();
    result.map_err(|error: ConnectError| error.into())
}

/// The first signal asks, the second insists.
async fn watch((mut interrupt, mut terminate): (Signal, Signal), stopping: Stopping) {
    for token in [&stopping.soft, &stopping.hard] {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        tracing::info!(signal = name, "stopping");
        token.cancel();
    }
}

fn summary(options: &Options, wire: &Wire) -> String {
    let Options { worker_id, backend, mode, interval, state_dir, .. } = options;
    let since = match options.since_secs {
        Some(secs) => format!(", skipping what is older than {secs} s"),
        None => String::new(),
    };
    format!(
        "would connect worker {worker_id} at {} to backend {backend} (mode {}, every {} ms{since}; \
         state in {})",
        wire.shown(),
        mode.as_str(),
        interval.as_millis(),
        state_dir.display(),
    )
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// `$XDG_CONFIG_HOME`, else `~/.config`; none on a machine without either.
fn state_directory() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(config.join("acta/state"))
}
