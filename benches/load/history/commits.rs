//! Commands behind a long log and behind an empty one, in turns.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Subject;
use crate::{
    client::Client,
    generator::{self, Plan},
    machine,
    report::{Figure, Report, Target, number},
    service::Service,
};

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 64;
const WARM_UP: Duration = Duration::from_millis(500);

/// A service, with workers that are busy.
struct Side {
    service: Service,
    workers: Vec<String>,
    rates: Vec<f64>,
}

impl Side {
    fn new(service: Service) -> Result<Self> {
        let mut client: Client = service.client()?;
        let workers = service.busy_workers(&mut client, CONNECTIONS)?;
        Ok(Self { service, workers, rates: Vec::new() })
    }

    fn measure(&mut self, round: usize, window: Duration) -> Result<()> {
        let outcome = generator::run(&Plan {
            address: self.service.address,
            token: &self.service.token,
            workers: &self.workers,
            connections: CONNECTIONS,
            warm_up: WARM_UP,
            window,
            key_prefix: &format!("history-{round}-"),
        })?;
        let error = outcome.first_error.as_deref().unwrap_or("");
        ensure!(outcome.errors == 0, "{} errors, the first: {error}", outcome.errors);
        self.rates.push(outcome.rate);
        Ok(())
    }
}

/// Both run all the time, and are measured by turns, so that a slow moment of the machine meets both.
pub(super) fn compare(subject: &Subject<'_>, long: Service, report: &mut Report) -> Result<()> {
    println!("history: commands behind it, and behind an empty log");
    let options = subject.options;
    let window = Duration::from_secs_f64(options.seconds / 4.0);
    let empty = Service::start(&options.binary, &options.directory, options.lines)?;
    let (mut long, mut empty) = (Side::new(long)?, Side::new(empty)?);
    for round in 0..ROUNDS {
        long.measure(round, window)?;
        empty.measure(round, window)?;
    }
    let rate = machine::percentile(&mut long.rates, 0.5);
    let bare = machine::percentile(&mut empty.rates, 0.5);
    long.service.stop()?;
    empty.service.stop()?;
    report.add(
        Figure::new("history: durable commands behind it, 64 conn.", rate, "/s")
            .target(Target::RatioAtLeast(0.9))
            .against("behind an empty log", bare)
            .note(format!(
                "medians of {ROUNDS} windows of {} s each, in turns",
                number(window.as_secs_f64())
            )),
    );
    Ok(())
}
