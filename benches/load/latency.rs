//! One command at a time, against the least that a durable answer over HTTP can cost: a bare
//! write and sync, and an empty request.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Options;
use crate::ceiling;
use crate::client::post_request;
use crate::generator::CONTENT_BYTES;
use crate::machine::{durable_appends, percentile};
use crate::report::{Figure, Report, Target};
use crate::service::Service;

/// The parts take turns, so that a slow moment of the disk meets all of them.
const ROUNDS: u32 = 5;
const SAMPLES_MAX: usize = 2_000;
const RECORD_BYTES: usize = 600;

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    println!("latency: one connection, one command at a time");
    let service = Service::start(&options.binary, &options.directory, options.lines)?;
    let mut client = service.client()?;
    let workers = service.busy_workers(&mut client, 1)?;
    let path = format!("/v1/workers/{}/input", workers[0]);
    let slice = Duration::from_secs_f64(options.seconds / f64::from(ROUNDS * 2));
    let (mut commands, mut appends, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        appends.extend(durable_appends(&options.directory, RECORD_BYTES, SAMPLES_MAX, slice)?);
        requests.extend(ceiling::empty_request_us(&mut client, SAMPLES_MAX)?);
        let start = Instant::now();
        for sample in 0..SAMPLES_MAX {
            if start.elapsed() > slice {
                break;
            }
            let content = format!("{sample:0width$}", width = CONTENT_BYTES);
            let body = json!({"kind": "user", "content": content}).to_string();
            let key = format!("latency-{round}-{sample}");
            let authority = service.address.to_string();
            let request = post_request(&authority, &service.token, &path, &key, &body);
            let at = Instant::now();
            let answer = client.exchange(request.as_bytes())?;
            commands.push(at.elapsed().as_secs_f64() * 1e6);
            ensure!(answer.status == 200, "a command was answered {}", answer.status);
        }
    }
    service.stop()?;
    let append = percentile(&mut appends, 0.5);
    let request = percentile(&mut requests, 0.5);
    let command = percentile(&mut commands, 0.5);
    let count = commands.len();
    report.add(
        Figure::new("latency, 1 conn.: median", command, "us")
            .target(Target::RatioAtMost(2.0))
            .against("pwrite + fdatasync + empty request", append + request)
            .note(format!("{count} commands; bare append {append:.0} us, request {request:.0} us")),
    );
    report.add(Figure::new("latency, 1 conn.: p99", percentile(&mut commands, 0.99), "us"));
    Ok(())
}
