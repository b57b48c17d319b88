//! Pages and look-ups of the registry, with many workers and with few.
//!
//! No route makes workers on the hosts of other runtimes, so the log is written through the library;
//! it is read over HTTP, one request at a time, from the release binary that was started upon it.

use std::{path::Path, sync::Arc, time::Instant};

use acta::{
    data_dir::DataDir,
    journal::{EncodedBlock, Journal, SledJournal},
};
use acta_events::{
    Actor, Digest, Epoch, Event, Header, HostCapabilities, HostId, HostRegistered, IntentKind,
    LogId, ProfileSelector, Record, RuntimeId, RuntimeRegistered, Sequence, Timestamp, Version,
    WorkerCreated, WorkerId,
    block::{BlockBuilder, genesis},
};
use anyhow::{Context, Result, ensure};

use crate::{
    Options,
    client::Client,
    machine,
    report::{Figure, Report, Target, number},
    service::Service,
};

const PAGE: usize = 256;
const SAMPLES: u64 = 400;
const PER_BLOCK: usize = 64;

/// How much there is. Hosts have 100 workers each in both, and runtimes more than a page.
struct Size {
    runtimes: u64,
    hosts: u64,
    workers: u64,
}

const MANY: Size = Size { runtimes: 10, hosts: 1_000, workers: 100_000 };
const FEW: Size = Size { runtimes: 2, hosts: 10, workers: 1_000 };

/// What is asked: its name, its target in ms, and the path for a number.
struct Question {
    name: &'static str,
    most_ms: f64,
    path: fn(&Size, u64) -> String,
}

const QUESTIONS: [Question; 6] = [
    Question {
        name: "page of a runtime's workers",
        most_ms: 5.0,
        path: |size, n| {
            let worker = n % size.workers;
            let runtime = runtime_of(size, worker);
            format!("/v1/runtimes/{runtime}/workers?limit={PAGE}&after={}", worker_id(worker / 2))
        },
    },
    Question {
        name: "page of a host's workers",
        most_ms: 5.0,
        path: |size, n| format!("/v1/hosts/{}/workers?limit={PAGE}", host_id(n % size.hosts)),
    },
    Question {
        name: "page of hosts",
        most_ms: 5.0,
        path: |size, n| format!("/v1/hosts?limit={PAGE}&after={}", host_id(n % size.hosts / 2)),
    },
    Question {
        name: "page of runtimes",
        most_ms: 5.0,
        path: |_, _| format!("/v1/runtimes?limit={PAGE}"),
    },
    Question {
        name: "look-up of a worker",
        most_ms: 1.0,
        path: |size, n| {
            let worker = n % size.workers;
            format!("/v1/runtimes/{}/workers/{}", runtime_of(size, worker), worker_id(worker))
        },
    },
    Question {
        name: "look-up of a host",
        most_ms: 1.0,
        path: |size, n| format!("/v1/hosts/{}", host_id(n % size.hosts)),
    },
];

fn runtime_id(n: u64) -> String {
    format!("runtime-{n:02}")
}

fn host_id(n: u64) -> String {
    format!("host-{n:04}")
}

fn worker_id(n: u64) -> String {
    format!("w-{n:06}")
}

fn host_of(size: &Size, worker: u64) -> u64 {
    worker % size.hosts
}

fn runtime_of(size: &Size, worker: u64) -> String {
    runtime_id(host_of(size, worker) % size.runtimes)
}

/// Measures both sizes.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let few = medians(options, &FEW)?;
    let many = medians(options, &MANY)?;
    for ((question, many), few) in QUESTIONS.iter().zip(many).zip(few) {
        let name = format!("{}, {} workers: median", question.name, number(MANY.workers as f64));
        report.add(
            Figure::new(name, many, "ms")
                .target(Target::ValueAtMost(question.most_ms))
                .against(format!("the same with {} workers", number(FEW.workers as f64)), few)
                .note(format!("{SAMPLES} requests, one at a time, pages of {PAGE}")),
        );
    }
    Ok(())
}

fn medians(options: &Options, size: &Size) -> Result<Vec<f64>> {
    println!(
        "registry: {} workers on {} hosts in {} runtimes",
        number(size.workers as f64),
        size.hosts,
        size.runtimes
    );
    let directory = tempfile::Builder::new().prefix("acta-load-").tempdir_in(&options.directory)?;
    write(&directory.path().join("data"), size)?;
    let service = Service::start_in(&options.binary, directory, options.lines)?;
    let mut client = service.client()?;
    let medians = QUESTIONS.iter().map(|question| median(&mut client, question, size)).collect();
    service.stop()?;
    medians
}

fn median(client: &mut Client, question: &Question, size: &Size) -> Result<f64> {
    let mut samples = Vec::new();
    for n in 0..SAMPLES {
        let path = (question.path)(size, n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16);
        let begun = Instant::now();
        let answer = client.get(&path)?;
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.status == 200, "{path} was answered {}", answer.status);
        if n == 0 {
            let found = answer.json()?;
            let is_empty = found["items"].as_array().is_some_and(Vec::is_empty);
            ensure!(!is_empty, "{path} has nothing in it");
        }
    }
    Ok(machine::percentile(&mut samples, 0.5))
}

/// A log in which all that was registered and created, block by block.
fn write(path: &Path, size: &Size) -> Result<()> {
    let data = DataDir::create(path, LogId(uuid::Uuid::from_u128(7)), Timestamp(0))?;
    let journal = SledJournal::open(&data)?;
    let mut previous = genesis(data.log_id());
    let mut seq = 0;
    let mut pending = Vec::new();
    let flush = |pending: &mut Vec<Record>, previous: &mut Digest| -> Result<()> {
        let mut builder = BlockBuilder::new(Epoch(1), *previous);
        let before = pending.first().context("a block has records")?.header.seq.0 - 1;
        for record in pending.drain(..) {
            builder.push(Arc::new(record));
        }
        let (block, bytes) = builder.finish().context("a block with records")?;
        *previous = block.digest;
        journal.append(Sequence(before), &[EncodedBlock::new(&block, bytes)])?;
        Ok(())
    };
    for (runtime, worker, event) in events(size)? {
        seq += 1;
        let header = Header {
            seq: Sequence(seq),
            id: uuid::Uuid::from_u128(u128::from(seq)),
            time: Timestamp(1_800_000_000_000_000 + seq as i64),
            runtime: Some(runtime),
            version: worker.as_ref().map(|_| Version(1)),
            worker,
            actor: Actor::service(),
            command: None,
            trace: None,
            event,
        };
        pending.push(Record::new(header, None)?);
        if pending.len() == PER_BLOCK {
            flush(&mut pending, &mut previous)?;
        }
    }
    if !pending.is_empty() {
        flush(&mut pending, &mut previous)?;
    }
    journal.close()?;
    Ok(())
}

type Told = (RuntimeId, Option<WorkerId>, Event);

fn events(size: &Size) -> Result<Vec<Told>> {
    let mut told: Vec<Told> = Vec::new();
    for n in 0..size.runtimes {
        let registered = RuntimeRegistered {
            kind: "external".into(),
            label: format!("Runtime {n}"),
            templates: Vec::new(),
        };
        told.push((RuntimeId::parse(&runtime_id(n))?, None, registered.into()));
    }
    for n in 0..size.hosts {
        let registered = HostRegistered {
            host: HostId::parse(&host_id(n))?,
            kind: "worker-host".into(),
            label: format!("Host {n}"),
            capabilities: HostCapabilities::of_machine("linux", "x86_64"),
        };
        told.push((RuntimeId::parse(&runtime_id(n % size.runtimes))?, None, registered.into()));
    }
    for n in 0..size.workers {
        let created = WorkerCreated {
            intent: IntentKind::Assistant,
            profile: ProfileSelector::RuntimeDefault,
            template: None,
            host: Some(HostId::parse(&host_id(host_of(size, n)))?),
            config_bundle: None,
            requested_capabilities: Vec::new(),
            workspace_refs: Vec::new(),
            mount_refs: Vec::new(),
        };
        let worker = WorkerId::parse(&worker_id(n))?;
        told.push((RuntimeId::parse(&runtime_of(size, n))?, Some(worker), created.into()));
    }
    Ok(told)
}
