//! A long history: what it takes on disk and in memory, what reading in it costs, and what it costs those who
//! write behind it.
//!
//! It is generated, or a directory that was generated before is copied; the copy is measured upon and removed.
//! Bare limits are measured in the same run: an empty request beside look-ups, an empty log beside the long one, a
//! copy of the same files beside snapshot and restore.

mod commits;
mod copies;
mod lookups;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Options, machine,
    report::{Figure, Report, Target, number},
    service::Service,
};

/// What generating takes at most, for a million records.
const GENERATE_PER_MILLION: Duration = Duration::from_secs(300);
const READY_MAX: Duration = Duration::from_secs(60);
/// What one command of the binary takes at most, for a million records, and in any case.
const COMMAND_PER_MILLION: Duration = Duration::from_secs(60);
const COMMAND_MAX: Duration = Duration::from_secs(120);

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Look-ups of what workers did last.
    Lookups,
    /// Snapshots, and the way back from one.
    Snapshots,
    /// Commands behind the history.
    Commands,
}

/// What all parts need to know.
struct Subject<'a> {
    options: &'a Options,
    records: u64,
    /// Bytes of the log as lines of JSON.
    json_bytes: f64,
}

impl Subject<'_> {
    /// Runs a command of the binary against a running service, and returns the JSON it prints.
    fn command(&self, service: Option<&Service>, args: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.options.binary);
        command.args(["-o", "json"]).args(args).stdin(Stdio::null());
        if let Some(service) = service {
            command.env("ACTA_URL", format!("http://{}", service.address));
            command.env("ACTA_TOKEN", &service.token);
        }
        let most = COMMAND_MAX + COMMAND_PER_MILLION.mul_f64(self.records as f64 / 1e6);
        output_of(&mut command, most).with_context(|| format!("acta {}", args.join(" ")))
    }
}

/// The JSON that a command prints, if it ends in time.
fn output_of(command: &mut Command, most: Duration) -> Result<Value> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = child.stdout.take().context("no standard output")?;
    let reading = std::thread::spawn(move || std::io::read_to_string(stdout));
    let deadline = Instant::now() + most;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {} s", most.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = reading.join().map_err(|_| anyhow::anyhow!("reading panicked"))??;
    ensure!(status.success(), "it ended with {status}: {text}");
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text:?}"))
}

/// Measures everything that is promised of a long history.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("acta-load-").tempdir_in(&options.directory)?;
    let data = directory.path().join("data");
    match &options.data {
        Some(from) => copy(from, &data)?,
        None => generate(options, &data)?,
    }
    let disk = parts(&data)?;
    machine::drop_cached(&data)?;
    let begun = Instant::now();
    let service = Service::start_in(&options.binary, directory, options.lines)?;
    let mut client = service.client()?;
    while client.get("/readyz")?.status != 200 {
        ensure!(begun.elapsed() < READY_MAX, "the service does not get ready");
        std::thread::sleep(Duration::from_millis(5));
    }
    let ready = begun.elapsed().as_secs_f64();
    let idle = machine::peak_memory_mib(service.pid())?;
    let wants = |part| options.parts.is_empty() || options.parts.contains(&part);
    let lookups = match wants(Part::Lookups) {
        true => Some(lookups::ask(&service, &data)?),
        false => None,
    };
    let begun = Instant::now();
    let (lines, bytes) =
        client.count_lines("/v1/events?follow=0&watching=1", "application/x-ndjson")?;
    let exported = begun.elapsed().as_secs_f64();
    let memory = machine::peak_memory_mib(service.pid())?;
    let subject = Subject { options, records: lines, json_bytes: bytes as f64 };
    add_disk(report, &subject, &disk);
    report.add(
        Figure::new("history: ready after the start, from disk", ready, "s")
            .target(Target::ValueAtMost(2.0)),
    );
    report.add(
        Figure::new("history: memory after reading all of it", memory, "MiB")
            .target(Target::ValueAtMost(256.0))
            .against("before anything was read", idle)
            .note(format!("read at {} MB/s of JSON", number(bytes as f64 / exported / 1e6))),
    );
    if let Some(asked) = lookups {
        lookups::add(report, &mut client, asked)?;
    }
    if wants(Part::Snapshots) {
        let snapshot = copies::snapshots(&subject, &service, report)?;
        copies::restore(&subject, &snapshot, report)?;
    }
    if wants(Part::Commands) {
        commits::compare(&subject, service, report)?;
    }
    Ok(())
}

fn generate(options: &Options, data: &Path) -> Result<()> {
    println!("history: generating {} records", number(options.records as f64));
    let mut command = Command::new(&options.binary);
    command.args(["-o", "json", "bench", "generate"]).arg(data);
    command.args(["--records", &options.records.to_string()]).stdin(Stdio::null());
    let most = COMMAND_MAX + GENERATE_PER_MILLION.mul_f64(options.records as f64 / 1e6);
    let answer = output_of(&mut command, most)?;
    println!("    in {} s", number(answer["seconds"].as_f64().unwrap_or(f64::NAN)));
    Ok(())
}

/// A copy to write upon. Files that are never written to again get a further name.
fn copy(from: &Path, to: &Path) -> Result<()> {
    println!("history: {}", from.display());
    for (path, _) in files(from)? {
        let target = to.join(path.strip_prefix(from)?);
        fs::create_dir_all(target.parent().context("a file is in a directory")?)?;
        let is_final = path.extension().is_some_and(|end| end == "seg" || end == "idx");
        if !is_final || fs::hard_link(&path, &target).is_err() {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// All files below a directory, with their sizes.
fn files(dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("{}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(found)
}

/// Bytes of each part of a data directory: `segments`, `tree`, and so on.
fn parts(data: &Path) -> Result<BTreeMap<String, u64>> {
    let mut parts = BTreeMap::new();
    for (path, bytes) in files(data)? {
        let path = path.strip_prefix(data)?;
        let mut names = path.components();
        let first = names.next().context("a file has a name")?.as_os_str().to_string_lossy();
        let part = match names.next() {
            None => "files",
            Some(_) => first.split('-').next().unwrap_or(&first),
        };
        *parts.entry(part.to_owned()).or_default() += bytes;
    }
    Ok(parts)
}

fn add_disk(report: &mut Report, subject: &Subject<'_>, disk: &BTreeMap<String, u64>) {
    let share = |bytes: u64| 100.0 * bytes as f64 / subject.json_bytes;
    let parts = disk.iter().map(|(part, bytes)| format!("{part} {:.2}", share(*bytes)));
    report.condition("records of the history", number(subject.records as f64));
    report.add(
        Figure::new("history: disk, of its lines of JSON", share(disk.values().sum()), "%")
            .target(Target::ValueAtMost(30.0))
            .note(format!(
                "{}; JSON {} MB",
                parts.collect::<Vec<_>>().join(", "),
                number(subject.json_bytes / 1e6)
            )),
    );
}

/// A place of its own for copies, removed with what is in it.
fn aside(options: &Options) -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("acta-load-aside-").tempdir_in(&options.directory)?)
}
