//! The last events of workers, in no order of theirs.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use rand::{SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    ceiling,
    client::Client,
    machine,
    report::{Figure, Report, Target, number},
    service::Service,
};

const WORKERS: usize = 200;
const EVENTS: usize = 256;
const EMPTY_REQUESTS: usize = 200;

/// What was asked, and how long each took, in ms.
pub(super) struct Asked {
    workers: Vec<String>,
    samples: Vec<f64>,
}

/// Asks with nothing of the directory in the page cache at the beginning, and then the same again.
pub(super) fn ask(service: &Service, data: &Path) -> Result<[Asked; 2]> {
    let cold = ask_cold(service, data)?;
    let warm = ask_for(&mut service.client()?, cold.workers.clone())?;
    Ok([cold, warm])
}

fn ask_cold(service: &Service, data: &Path) -> Result<Asked> {
    println!("history: the last {EVENTS} events of {WORKERS} workers");
    let mut client = service.client()?;
    let all = client.get("/v1/workers")?.json()?;
    let all = all["workers"].as_array().context("no list of workers")?;
    let ids: Vec<&str> = all.iter().filter_map(|worker| worker["worker_id"].as_str()).collect();
    ensure!(!ids.is_empty(), "no worker has an id: {:?}", all.first());
    let mut random = StdRng::seed_from_u64(7);
    let workers = ids.choose_multiple(&mut random, WORKERS).map(|id| (*id).to_owned()).collect();
    machine::drop_cached(data)?;
    ask_for(&mut client, workers)
}

fn ask_for(client: &mut Client, workers: Vec<String>) -> Result<Asked> {
    let mut samples = Vec::with_capacity(workers.len());
    for worker in &workers {
        let path = format!("/v1/events?worker={worker}&order=newest&limit={EVENTS}");
        let begun = Instant::now();
        let answer = client.get(&path)?;
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
        let answer = answer.json()?;
        let events = answer["events"].as_array().context("no events")?;
        let of_it = events.iter().filter(|event| event["worker"] == worker.as_str()).count();
        ensure!(of_it == events.len() && of_it > 0, "{path}: {of_it} of {}", events.len());
        // Only one that has just begun has less.
        ensure!(of_it == EVENTS || answer["before"].is_null(), "{path}: {of_it} events");
    }
    Ok(Asked { workers, samples })
}

pub(super) fn add(
    report: &mut Report,
    client: &mut Client,
    [mut cold, mut warm]: [Asked; 2],
) -> Result<()> {
    let mut empty = ceiling::empty_request_us(client, EMPTY_REQUESTS)?;
    let empty = machine::percentile(&mut empty, 0.5) / 1e3;
    for (what, asked) in [("from disk", &mut cold), ("again", &mut warm)] {
        let median = machine::percentile(&mut asked.samples, 0.5);
        let p99 = machine::percentile(&mut asked.samples, 0.99);
        report.add(
            Figure::new(
                format!("history: last {EVENTS} events of a worker, {what}: median"),
                median,
                "ms",
            )
            .target(Target::ValueAtMost(10.0))
            .against("an empty request", empty)
            .note(format!(
                "{} workers, 99th percentile {} ms",
                asked.workers.len(),
                number(p99)
            )),
        );
    }
    Ok(())
}
