//! The load bench: the five figures that Acta promises, measured on the release binary from
//! outside, each beside a bare limit or a baseline of the same run.
//!
//! `cargo bench --bench load -- [commands latency output observers audit registry external history
//! replay postgres]`, and by name only `soak`: mixed load with kills, for an hour unless told otherwise.
//!
//! Everything is on loopback and on a real disk, every scenario has a deadline, and only
//! processes started here are ended here.

mod audit;
mod ceiling;
mod client;
mod commands;
mod external;
mod fleet;
mod generator;
mod history;
mod latency;
mod link;
mod machine;
mod observers;
mod output;
mod postgres;
mod registry;
mod replay;
mod report;
mod service;
mod soak;
mod watchers;
mod websocket;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use crate::report::Report;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// One durable command per request, closed loop.
    Commands,
    /// One command at a time against a bare write, sync and request.
    Latency,
    /// Lines of one child, durable and seen by an observer.
    Output,
    /// Many observers of one worker.
    Observers,
    /// What the proof costs: tree, proofs, verification.
    Audit,
    /// Pages and look-ups of the registry, with many workers and with few.
    Registry,
    /// Agents that connect in: a fleet at rest, and a message to one that waits.
    External,
    /// A long history: disk, start, memory, look-ups, snapshots, restore, commands behind it.
    History,
    /// Decode, verify and apply the whole log, offline.
    Replay,
    /// The PostgreSQL baseline of the commands.
    Postgres,
    /// Mixed load with kills for an hour; only when named.
    Soak,
}

#[derive(Debug, Parser)]
#[command(name = "load", about = "Measures a release build of Acta from outside")]
struct Options {
    /// What to measure; everything when none is named.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Length of each timed window.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Connections of the commands scenario; 64 and then 256 when not given.
    #[arg(long)]
    connections: Option<usize>,
    /// Observers of the observers scenario.
    #[arg(long, default_value_t = 1_000)]
    observers: usize,
    /// Agents of the external scenario.
    #[arg(long, default_value_t = 10_000)]
    workers: usize,
    /// Lines that the child of the output scenario prints.
    #[arg(long, default_value_t = 5_000_000)]
    lines: u64,
    /// Length of the soak scenario, in minutes.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// How often the soak scenario kills the service, in seconds.
    #[arg(long, default_value_t = 300.0)]
    kill_every: f64,
    /// Records of the history scenario.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// A directory that `acta bench generate` made, for the history scenario; a copy is measured.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Measure these parts of the history scenario only.
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<history::Part>,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measure this binary and not the one that cargo built.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_acta"))]
    binary: PathBuf,
    /// Where data directories are created; must be a real disk.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    /// Cargo passes this; it has no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, scenario: Scenario) -> bool {
        self.scenarios.is_empty() || self.scenarios.contains(&scenario)
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    std::fs::create_dir_all(&options.directory).context("creating the directory of the bench")?;
    machine::raise_open_files(options.observers as u64 * 2 + 1_024)?;
    let mut report = Report::new(machine::conditions(&options.directory));
    report.print_conditions();

    run(&options, &mut report);

    report.print();
    if let Some(file) = &options.json {
        report.write_json(file)?;
    }
    if report.failed() {
        std::process::exit(1);
    }
    Ok(())
}

/// Runs the chosen scenarios in turn; one that cannot run is a failed figure and does not keep
/// the others from running.
fn run(options: &Options, report: &mut Report) {
    if options.scenarios.contains(&Scenario::Soak) {
        soak::run(options, report).unwrap_or_else(|error| report.broken("soak", &error));
    }
    let mut postgres_rate = None;
    if options.wants(Scenario::Postgres) {
        match postgres::run(options, report) {
            Ok(rate) => postgres_rate = rate,
            Err(error) => report.broken("postgres", &error),
        }
    }
    let mut filled = None;
    if options.wants(Scenario::Commands) {
        match commands::run(options, report, postgres_rate) {
            Ok(stopped) => filled = Some(stopped),
            Err(error) => report.broken("commands", &error),
        }
    }
    if options.wants(Scenario::Latency) {
        latency::run(options, report).unwrap_or_else(|error| report.broken("latency", &error));
    }
    if options.wants(Scenario::Output) {
        output::run(options, report).unwrap_or_else(|error| report.broken("output", &error));
    }
    if options.wants(Scenario::Observers) {
        observers::run(options, report).unwrap_or_else(|error| report.broken("observers", &error));
    }
    if options.wants(Scenario::Audit) {
        audit::run(options, report).unwrap_or_else(|error| report.broken("audit", &error));
    }
    if options.wants(Scenario::Registry) {
        registry::run(options, report).unwrap_or_else(|error| report.broken("registry", &error));
    }
    if options.wants(Scenario::External) {
        external::run(options, report).unwrap_or_else(|error| report.broken("external", &error));
    }
    if options.wants(Scenario::History) {
        history::run(options, report).unwrap_or_else(|error| report.broken("history", &error));
    }
    if options.wants(Scenario::Replay) {
        let result = match filled {
            Some(stopped) => replay::run(&options.binary, stopped.data(), report),
            None => commands::fill(options)
                .and_then(|stopped| replay::run(&options.binary, stopped.data(), report)),
        };
        result.unwrap_or_else(|error| report.broken("replay", &error));
    }
}
