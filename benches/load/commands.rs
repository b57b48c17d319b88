//! Durable commands per second, and the proof that what was acknowledged is in the log.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::Options;
use crate::ceiling;
use crate::client::Client;
use crate::generator::{self, Outcome, Plan};
use crate::machine;
use crate::report::{Figure, Report, Target, number};
use crate::service::{Service, Stopped, head};

const WORKERS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);
const PAGE: u64 = 1_000;
/// What a record of such a command is thought to take on disk, for the bare limit.
const RECORD_BYTES: usize = 600;

#[derive(Deserialize)]
struct Page {
    events: Vec<Record>,
    head: u64,
}

#[derive(Deserialize)]
struct Record {
    seq: u64,
    #[serde(rename = "type")]
    kind: String,
    command: Option<CommandOf>,
}

#[derive(Deserialize)]
struct CommandOf {
    key: Option<String>,
}

/// Measures 64 and then 256 connections, or what was asked for; returns the stopped service,
/// whose log the replay scenario reads.
pub(crate) fn run(
    options: &Options,
    report: &mut Report,
    postgres_rate: Option<f64>,
) -> Result<Stopped> {
    println!("commands: {WORKERS} workers, one command per request, closed loop");
    let window = Duration::from_secs_f64(options.seconds);
    let bare = bare_group_commit(options)?;
    let service = Service::start(&options.binary, &options.directory, options.lines)?;
    let mut client = service.client()?;
    let workers = service.busy_workers(&mut client, WORKERS)?;
    let all = options.connections.map_or(vec![64, 256], |connections| vec![connections]);
    for connections in all {
        let ceiling = ceiling::requests(connections, window.min(Duration::from_secs(3)))?;
        let before = head(&mut client)?;
        let cpu = machine::cpu_seconds(service.pid());
        let prefix = format!("load-{connections}-{:08x}-", rand::random::<u32>());
        let mut outcome = generator::run(&Plan {
            address: service.address,
            token: &service.token,
            workers: &workers,
            connections,
            warm_up: WARM_UP,
            window,
            key_prefix: &prefix,
        })?;
        let cpu = machine::cpu_seconds(service.pid()) - cpu;
        let counted = verify(&mut client, before, &outcome, &prefix);
        add_figures(report, connections, &mut outcome, cpu, &ceiling, bare, postgres_rate);
        let error = outcome.first_error.as_deref().unwrap_or("");
        ensure!(outcome.errors == 0, "{} errors, the first: {error}", outcome.errors);
        println!("    {}", counted?);
    }
    service.stop()
}

fn add_figures(
    report: &mut Report,
    connections: usize,
    outcome: &mut Outcome,
    cpu: f64,
    ceiling: &Outcome,
    bare: f64,
    postgres_rate: Option<f64>,
) {
    let name = |what: &str| format!("commands, {connections} conn.: {what}");
    let mut rate = Figure::new(name("rate"), outcome.rate, "/s").note(format!(
        "CPU per command: service {:.1} us, generator {:.1} us",
        cpu * 1e6 / outcome.acknowledged.max(1) as f64,
        outcome.cpu_us
    ));
    if connections == 64 {
        rate = rate.target(Target::RatioAtLeast(2.0));
    }
    if let Some(postgres) = postgres_rate {
        rate = rate.against("PostgreSQL, 64 clients", postgres);
    }
    report.add(rate);
    report.add(
        Figure::new(name("of the HTTP ceiling"), outcome.rate, "/s")
            .against("HTTP ceiling", ceiling.rate)
            .note(format!("generator CPU at the ceiling {:.1} us", ceiling.cpu_us)),
    );
    report.add(
        Figure::new(name("of bare group commit"), outcome.rate, "/s")
            .against("64 records per pwrite + fdatasync", bare),
    );
    for (what, share) in [("median", 0.5), ("p99", 0.99)] {
        let value = machine::percentile(&mut outcome.latencies_us, share);
        report.add(Figure::new(name(what), value, "us"));
    }
    report.add(
        Figure::new(name("errors"), outcome.errors as f64, "").target(Target::ValueAtMost(0.0)),
    );
}

/// Records per second when 64 of them are written and synced at a time, and nothing else done.
fn bare_group_commit(options: &Options) -> Result<f64> {
    let time_max = Duration::from_secs(2);
    let taken = machine::durable_appends(&options.directory, 64 * RECORD_BYTES, 20_000, time_max)?;
    Ok(64.0 * taken.len() as f64 / (taken.iter().sum::<f64>() / 1e6))
}

/// Reads what was added to the log: it is gapless, and every acknowledged key is there once.
fn verify(client: &mut Client, before: u64, outcome: &Outcome, prefix: &str) -> Result<String> {
    let mut seen = vec![false; usize::try_from(outcome.sent)?];
    let (mut accepted, mut others) = (0, 0);
    let mut after = before;
    loop {
        let answer = client.get(&format!("/v1/events?after={after}&limit={PAGE}"))?;
        ensure!(answer.status == 200, "/v1/events answered {}", answer.status);
        let page: Page = serde_json::from_slice(&answer.body).context("a page of the log")?;
        for record in &page.events {
            ensure!(record.seq == after + 1, "sequence {} follows {after}", record.seq);
            after = record.seq;
            if record.kind != "worker_input_accepted" {
                others += 1;
                continue;
            }
            accepted += 1;
            let key = record.command.as_ref().and_then(|command| command.key.as_deref());
            let key = key.with_context(|| format!("no key in record {after}"))?;
            let digits = key.strip_prefix(prefix).with_context(|| format!("foreign key {key}"))?;
            let number = usize::from_str_radix(digits, 16)?;
            let slot = seen.get_mut(number).with_context(|| format!("key {key} was not sent"))?;
            ensure!(!*slot, "key {key} is in the log twice");
            *slot = true;
        }
        if after >= page.head || page.events.is_empty() {
            ensure!(after == page.head, "the log ends at {after}, its head is {}", page.head);
            break;
        }
    }
    ensure!(
        accepted == outcome.acknowledged,
        "{} acknowledged, {accepted} worker_input_accepted in the log",
        outcome.acknowledged
    );
    Ok(format!(
        "verified: {} acknowledged = {} in the log, each key once, no gap, {others} other records",
        number(outcome.acknowledged as f64),
        number(accepted as f64)
    ))
}

/// Only fills a log, for a replay that runs alone.
pub(crate) fn fill(options: &Options) -> Result<Stopped> {
    println!("filling a log for the replay");
    let service = Service::start(&options.binary, &options.directory, options.lines)?;
    let mut client = service.client()?;
    let workers = service.busy_workers(&mut client, WORKERS)?;
    generator::run(&Plan {
        address: service.address,
        token: &service.token,
        workers: &workers,
        connections: 256,
        warm_up: Duration::ZERO,
        window: Duration::from_secs_f64(options.seconds),
        key_prefix: "fill-",
    })?;
    service.stop()
}
