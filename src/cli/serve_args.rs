//! What `acta serve` can be told.

use super::credentials::{Secret, SecretParser};
use crate::journal::SealLimits;
use clap::{Args, ValueEnum};
use reqwest::Url;
use std::{env, ffi::OsString, net::SocketAddr, path::PathBuf};

/// Where the data is, unless it is said.
pub const DATA_DEFAULT: &str = "./acta-data";

/// How the service writes its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for programs.
    Json,
    /// For people.
    Text,
}

/// Where the log of events is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// On disk; every acknowledgement survives power loss.
    Sled,
    /// In memory; gone with the process.
    Memory,
}

const SERVE_HELP: &str = "\
Examples:
  acta serve
  acta serve --data /var/lib/acta --listen 0.0.0.0:8080 --allowed-host acta.example.org
  acta serve --listen 127.0.0.1:0 --store memory --log json

When it listens, one JSON line is printed on standard output:
  {\"listening\":\"http://127.0.0.1:8080\",\"log_id\":\"…\",\"epoch\":1,\"head\":0}

The first start writes an operator token to <data>/operator.token; the other commands find it
by themselves on the same machine. Every option has an environment variable too. SIGINT and SIGTERM end the service in good order.";

/// Options of `acta serve`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SERVE_HELP)]
pub struct ServeArgs {
    /// A file with these options, in TOML: `event-page-max = 100`. Flags and environment win over
    /// it; `acta config show` tells what comes from where
    #[arg(long, value_name = "FILE", env = "ACTA_CONFIG")]
    pub config: Option<PathBuf>,

    /// Where the log, the contents and the operator token are kept
    #[arg(long, value_name = "DIR", env = "ACTA_DATA", default_value = DATA_DEFAULT)]
    pub data: PathBuf,

    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "ACTA_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The templates that workers are made from. Otherwise WORKSPACE_MANIFEST_PATH,
    /// /app/manifest.json, or manifest.json here, one or two directories up
    #[arg(long, value_name = "FILE", env = "ACTA_MANIFEST")]
    pub manifest: Option<PathBuf>,

    /// Where events are kept
    #[arg(long, value_enum, env = "ACTA_STORE", default_value_t = Store::Sled)]
    pub store: Store,

    /// How the service writes its own log, on standard error
    #[arg(long, value_enum, env = "ACTA_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log: LogFormat,

    /// Where traces are sent, over OTLP, as in http://127.0.0.1:4318; for builds with the feature
    /// `otlp`. The variables OTEL_TRACES_SAMPLER and OTEL_EXPORTER_OTLP_PROTOCOL count
    #[arg(long, value_name = "URL", env = "ACTA_OTLP_ENDPOINT", value_parser = super::parse_http_url)]
    pub otlp_endpoint: Option<Url>,

    /// Identity of this service's own runtime
    #[arg(
        long,
        value_name = "ID",
        env = "ACTA_RUNTIME_ID",
        default_value = "embedded-worker-runtime",
        value_parser = acta_events::RuntimeId::parse
    )]
    pub runtime_id: acta_events::RuntimeId,

    /// What people see instead of the runtime's identity
    #[arg(long, value_name = "TEXT", env = "ACTA_DISPLAY_NAME")]
    pub display_name: Option<String>,

    /// Agents that connect in.
    #[command(flatten)]
    pub agents: super::serve_agents::AgentArgs,

    /// A file with certificates of further authorities, in PEM, to trust when this service connects to
    /// others over TLS: runtimes of other services, agents' URLs
    #[arg(long, value_name = "FILE", env = "ACTA_CA", help_heading = "Access")]
    pub ca: Option<PathBuf>,

    /// A token with the role operator, beside the generated one; may be repeated
    #[arg(
        long,
        value_name = "TOKEN",
        env = "ACTA_TOKEN",
        hide_env_values = true,
        allow_hyphen_values = true,
        value_parser = SecretParser,
        action = clap::ArgAction::Append,
        help_heading = "Access"
    )]
    pub token: Vec<Secret>,

    /// Name of an environment variable that holds such a token; may be repeated
    #[arg(long, value_name = "NAME", help_heading = "Access")]
    pub token_env: Vec<String>,

    /// Ask nobody for a token; only on a loopback address
    #[arg(long, help_heading = "Access")]
    pub no_auth: bool,

    /// A host name that browsers and WebSocket clients may use for this service; may be repeated
    #[arg(long, value_name = "HOST", help_heading = "Access")]
    pub allowed_host: Vec<String>,

    /// Let everybody read checkpoints and tiles (/checkpoint, /tile/…), which say how much there is
    /// in the log and the digests of it; nothing else
    #[arg(long, env = "ACTA_PUBLIC_LOG", help_heading = "Access")]
    pub public_log: bool,

    /// Record what auditors read, as events
    #[arg(
        long,
        env = "ACTA_AUDIT_READS",
        value_parser = clap::builder::FalseyValueParser::new(),
        help_heading = "Access"
    )]
    pub audit_reads: bool,

    /// Workers of this machine that others run.
    #[command(flatten)]
    pub local_pods: LocalPodArgs,

    /// Snapshots by the clock.
    #[command(flatten)]
    pub snapshots: super::serve_snapshots::SnapshotArgs,

    /// How much history is kept.
    #[command(flatten)]
    pub retention: super::serve_retention::RetentionArgs,

    /// The limits of the service.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Which local pods `acta serve` shows.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Local pods")]
pub struct LocalPodArgs {
    /// Identity of the workspace whose local pods are shown, read-only, as the runtime
    /// local-worker-runtime
    #[arg(long, value_name = "TEXT", env = "ACTA_WORKSPACE_ID", requires = "workspace_root")]
    pub workspace_id: Option<String>,

    /// Root of that workspace: pods of other workspaces are not shown
    #[arg(long, value_name = "DIR", env = "ACTA_WORKSPACE_ROOT", requires = "workspace_id")]
    pub workspace_root: Option<PathBuf>,

    /// The directory with a directory per pod, each with a metadata.json
    #[arg(long, value_name = "DIR", env = "ACTA_PODS_DIR", requires = "workspace_id")]
    pub pods_dir: Option<PathBuf>,

    /// How long to wait between two looks for pods
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = at_least(50))]
    pub pods_scan_ms: u64,
}

/// Limits of `acta serve`, units in the names.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// How long a worker's process group has between SIGTERM and SIGKILL
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    pub stop_grace_ms: u64,

    /// How long an observer may read nothing before it is closed with its resume cursor
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = at_least(1))]
    pub observer_idle_ms: u64,

    /// Largest content of one event
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = at_least(1))]
    pub content_bytes_max: u64,

    /// Largest body of one request
    #[arg(long, value_name = "BYTES", default_value_t = 17 << 20, value_parser = at_least(1))]
    pub body_bytes_max: u64,

    /// Most items in one answer about a transcript
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least(1))]
    pub transcript_page_max: u64,

    /// Most records in one answer about events
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = at_least(1))]
    pub event_page_max: u64,

    /// How long a host may be silent before it is lost
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = at_least(100))]
    pub host_lease_ms: u64,

    /// How long what auditors read is gathered before it is recorded
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = at_least(1))]
    pub audit_reads_interval_ms: u64,

    /// Most commands that wait to be decided; more are answered 503
    #[arg(long, value_name = "N", default_value_t = 4_096, value_parser = at_least(1))]
    pub queued_commands_max: u64,

    /// Most bytes of commands that wait to be decided
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = at_least(1))]
    pub queued_bytes_max: u64,

    /// Most records in one segment of sealed history
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = at_least(16))]
    pub segment_records_max: u64,

    /// Most bytes of blocks in one segment, before compression
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = at_least(1 << 16))]
    pub segment_bytes_max: u64,
}

impl LimitArgs {
    /// When what was recorded is sealed.
    pub(super) fn seal(&self) -> SealLimits {
        let (records, bytes) = (self.segment_records_max, self.segment_bytes_max);
        SealLimits { records, bytes, ..SealLimits::default() }
    }
}

fn at_least(least: u64) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(least..)
}

/// Options that contradict each other or the environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeArgsError {
    /// Anybody on the network could give commands.
    #[error(
        "--no-auth is accepted on a loopback address only; {0} can be reached from other machines"
    )]
    NoAuthNotLoopback(SocketAddr),
    /// It is unclear what was meant.
    #[error("--no-auth contradicts --token, --token-env and ACTA_TOKEN; leave one of them out")]
    NoAuthWithToken,
    /// `--token-env` names nothing.
    #[error("--token-env names {0}, which is not set, empty, or not text")]
    TokenEnvMissing(String),
    /// There is nothing that a snapshot could be taken of.
    #[error(
        "--store memory keeps nothing that a snapshot could be taken of; leave --snapshot-dir out"
    )]
    SnapshotOfMemory,
}

impl ServeArgs {
    /// The configured operator tokens, after a check of what clap cannot see. An error is a
    /// usage error.
    pub fn operator_tokens(&self) -> Result<Vec<Secret>, ServeArgsError> {
        self.operator_tokens_from(|name| env::var_os(name))
    }

    fn operator_tokens_from(
        &self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Vec<Secret>, ServeArgsError> {
        if self.store == Store::Memory && self.snapshots.snapshot_dir.is_some() {
            return Err(ServeArgsError::SnapshotOfMemory);
        }
        let mut tokens = self.token.clone();
        for name in &self.token_env {
            let value = variable(name).and_then(|value| value.into_string().ok());
            let token = value.and_then(|value| Secret::parse(&value).ok());
            tokens.push(token.ok_or_else(|| ServeArgsError::TokenEnvMissing(name.clone()))?);
        }
        if self.no_auth && !tokens.is_empty() {
            return Err(ServeArgsError::NoAuthWithToken);
        }
        if self.no_auth && !self.listen.ip().is_loopback() {
            return Err(ServeArgsError::NoAuthNotLoopback(self.listen));
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn serve(arguments: &[&str]) -> ServeArgs {
        let cli = Cli::try_parse_from(["acta", "serve"].iter().chain(arguments)).unwrap();
        let Command::Serve(args) = cli.command else { panic!("not serve") };
        *args
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let check = |arguments: &[&str], expected: Result<Vec<&str>, ServeArgsError>| {
            let variable = |name: &str| match name {
                "GOOD" => Some("from-env".into()),
                "EMPTY" => Some("".into()),
                _ => None,
            };
            let mut args = serve(arguments);
            // The machine that runs the tests may have one.
            args.token.retain(|token| token.expose().starts_with("t-"));
            let tokens = args.operator_tokens_from(variable);
            let tokens = tokens.as_ref().map(|tokens| tokens.iter().map(Secret::expose).collect());
            assert_eq!(tokens, expected.as_ref().map(Clone::clone), "{arguments:?}");
        };
        check(&[], Ok(vec![]));
        check(&["--token", "t-a", "--token=t-b"], Ok(vec!["t-a", "t-b"]));
        check(&["--token-env", "GOOD"], Ok(vec!["from-env"]));
        for name in ["EMPTY", "ABSENT"] {
            check(&["--token-env", name], Err(ServeArgsError::TokenEnvMissing(name.into())));
        }
        check(&["--no-auth"], Ok(vec![]));
        check(&["--no-auth", "--listen", "[::1]:0"], Ok(vec![]));
        check(&["--no-auth", "--token", "t-a"], Err(ServeArgsError::NoAuthWithToken));
        check(
            &["--no-auth", "--listen=0.0.0.0:80"],
            Err(ServeArgsError::NoAuthNotLoopback("0.0.0.0:80".parse().unwrap())),
        );
    }

    #[test]
    fn debug_output_never_shows_a_token() {
        let args = serve(&["--token", "t-canary"]);
        assert!(!format!("{args:?}").contains("canary"));
    }
}
