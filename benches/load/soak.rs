//! An hour of everything at once, with kills: workers that come, are talked to and go, agents that
//! connect in, observers, readers, erasing and drills, while the service is killed now and then.
//!
//! What was acknowledged has to be there once and in its order, observers have to see every record
//! once, and nothing may grow: memory, open files, threads, processes, latency.

mod load;
mod observer;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::Options;
use crate::client::Client;
use crate::machine::{self, Holdings};
use crate::report::{Figure, Report, Target, number};
use crate::service::{Service, Stopped, head};

/// How often is looked at what the service holds.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long everybody has to come to an end.
const END_DEADLINE: Duration = Duration::from_secs(120);
/// Growth from the first third to the last that is taken for noise.
const GROWTH_MAX: f64 = 1.25;

/// Where the service is at present, and what has been found out about it.
pub(super) struct Soak {
    address: Mutex<SocketAddr>,
    token: String,
    stop: AtomicBool,
    /// Milliseconds that commands took, with when they did.
    taken: Mutex<Vec<(Instant, f64)>>,
    acknowledged: AtomicU64,
    observed: AtomicU64,
    problems: Mutex<Vec<String>>,
}

impl Soak {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn client(&self) -> Result<Client> {
        Client::connect(*locked(&self.address), &self.token)
    }

    fn problem(&self, text: String) {
        eprintln!("  soak: {text}");
        locked(&self.problems).push(text);
    }

    /// Sleeps, unless it is over before.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_over() && Instant::now() < until {
            std::thread::sleep(time.min(Duration::from_millis(100)));
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the service held at one moment.
struct Look {
    at: Instant,
    life: usize,
    holdings: Holdings,
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    println!("soak: {:.0} minutes, a kill every {:.0} s", options.minutes, options.kill_every);
    let service = Service::start(&options.binary, &options.directory, options.lines)?;
    let soak = Soak {
        address: Mutex::new(service.address),
        token: service.token.clone(),
        stop: AtomicBool::new(false),
        taken: Mutex::default(),
        acknowledged: AtomicU64::new(0),
        observed: AtomicU64::new(0),
        problems: Mutex::default(),
    };
    let records = observer::Records::default();
    let begun = Instant::now();
    let (service, looks, ready) = std::thread::scope(|scope| {
        let workers = load::start(scope, &soak, &options.binary, &options.directory);
        let observers = observer::start(scope, &soak, &records);
        let lived = live(options, &soak, service, begun + length);
        soak.stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a part of the load panicked"))?;
        }
        let lived = lived?;
        let end = head(&mut soak.client()?)?;
        observer::wait_for(&soak, &records, end, END_DEADLINE)?;
        records.close();
        for observer in observers {
            observer.join().map_err(|_| anyhow!("an observer panicked"))?;
        }
        anyhow::Ok(lived)
    })?;
    let records = head(&mut service.client()?)?;
    let data = service.stop()?;
    verified(&options.binary, &data)?;
    figures(report, &soak, &looks, begun, length);
    report.add(Figure::new("soak: records", records as f64, "").note(format!(
        "{} commands acknowledged, {} frames seen by observers, {} kills; ready again within {:.1} s",
        number(soak.acknowledged.load(Ordering::Relaxed) as f64),
        number(soak.observed.load(Ordering::Relaxed) as f64),
        ready.len(),
        ready.iter().copied().fold(0.0, f64::max)
    )));
    let problems = locked(&soak.problems);
    let note = problems.first().cloned().unwrap_or_default();
    report.add(
        Figure::new("soak: lost, repeated or altered", problems.len() as f64, "")
            .target(Target::ValueAtMost(0.0))
            .note(note),
    );
    Ok(())
}

/// Looks at the service, and kills it now and then.
fn live(
    options: &Options,
    soak: &Soak,
    mut service: Service,
    until: Instant,
) -> Result<(Service, Vec<Look>, Vec<f64>)> {
    let (mut looks, mut ready): (Vec<Look>, Vec<f64>) = (Vec::new(), Vec::new());
    let every = Duration::from_secs_f64(options.kill_every);
    let (mut born, mut told) = (Instant::now(), Instant::now());
    while Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
        let holdings = machine::holdings(service.pid()).context("the service is gone")?;
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            let now = head(&mut service.client()?)?;
            println!(
                "  life {}: {} records, {:.0} MiB, {} files, {} threads, {} processes",
                ready.len() + 1,
                number(now as f64),
                holdings.memory_mib,
                holdings.files,
                holdings.threads,
                holdings.processes
            );
        }
        looks.push(Look { at: Instant::now(), life: ready.len(), holdings });
        // The last life ends by itself, in good order.
        if born.elapsed() > every && Instant::now() + every < until {
            let stopped = service.kill()?;
            let restarted = Instant::now();
            service = stopped.start(&options.binary, options.lines)?;
            ready.push(restarted.elapsed().as_secs_f64());
            *locked(&soak.address) = service.address;
            born = Instant::now();
        }
    }
    Ok((service, looks, ready))
}

/// Whoever trusts nobody finds nothing wrong with what is left.
fn verified(binary: &Path, stopped: &Stopped) -> Result<()> {
    let ran = Command::new(binary)
        .arg("verify")
        .arg(stopped.data())
        .stdin(Stdio::null())
        .output()
        .context("running acta verify")?;
    ensure!(ran.status.success(), "acta verify: {}", String::from_utf8_lossy(&ran.stdout));
    Ok(())
}

/// The first and the last third, held against each other.
fn figures(report: &mut Report, soak: &Soak, looks: &[Look], begun: Instant, length: Duration) {
    let (first, last) = (begun + length / 3, begun + length * 2 / 3);
    // A life begins with little in memory; of the others, what they came to.
    let settled = |look: &&Look| {
        let end = looks.iter().rev().find(|other| other.life == look.life);
        end.is_some_and(|end| end.at.duration_since(look.at) < Duration::from_secs(60))
    };
    let held = |what: fn(&Holdings) -> f64| {
        let of = |is_in: &dyn Fn(Instant) -> bool| {
            let mut values: Vec<f64> = looks
                .iter()
                .filter(settled)
                .filter(|look| is_in(look.at))
                .map(|look| what(&look.holdings))
                .collect();
            machine::percentile(&mut values, 0.5)
        };
        (of(&|at| at < first), of(&|at| at > last))
    };
    let mut compared = |name: &str, unit, (early, late): (f64, f64)| {
        report.add(
            Figure::new(format!("soak: {name}"), late, unit)
                .target(Target::RatioAtMost(GROWTH_MAX))
                .against("the same in the first third", early),
        );
    };
    compared("memory at the end of a life", "MiB", held(|h| h.memory_mib));
    compared("open files", "", held(|h| h.files as f64));
    compared("threads", "", held(|h| h.threads as f64));
    compared("processes of workers", "", held(|h| h.processes as f64));
    let taken = locked(&soak.taken);
    let latency = |is_in: &dyn Fn(Instant) -> bool, share: f64| {
        let of = taken.iter().filter(|(at, _)| is_in(*at)).map(|(_, ms)| *ms);
        machine::percentile(&mut of.collect::<Vec<f64>>(), share)
    };
    for (name, share) in [("command, median", 0.5), ("command, p99", 0.99)] {
        let (early, late) = (latency(&|at| at < first, share), latency(&|at| at > last, share));
        let figure = Figure::new(format!("soak: {name}"), late, "ms")
            .against("the same in the first third", early);
        report.add(if share < 0.9 {
            figure.target(Target::RatioAtMost(GROWTH_MAX))
        } else {
            figure
        });
    }
}
