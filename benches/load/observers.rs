//! A thousand observers of one worker: frames per second, none missing, none twice.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Options;
use crate::client::Client;
use crate::machine;
use crate::report::{Figure, Report, Target, number};
use crate::service::{Service, send};
use crate::watchers::{Watchers, content};
use crate::websocket;

const FRAMES_MIN: u64 = 2_000_000;
/// How far the feed may run ahead of the slowest observer.
const AHEAD_MAX: usize = 256;
const DEADLINE: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(20);

/// What the feeding thread and the observing one tell each other.
#[derive(Default)]
struct Feed {
    slowest: AtomicUsize,
    stop: AtomicBool,
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    println!("observers: {} of one worker", options.observers);
    let bare = bare_broadcast(options.observers)?;
    let service = Service::start(&options.binary, &options.directory, options.lines)?;
    let mut client = service.client()?;
    let worker = service.busy_workers(&mut client, 1)?.remove(0);
    let mut watchers = Watchers::new()?;
    let path = format!("/v1/workers/{worker}/events/ws");
    for _ in 0..options.observers {
        let (stream, rest) = websocket::connect(service.address, &service.token, &path)?;
        watchers.add(stream, rest)?;
    }
    await_snapshots(&mut watchers, options.observers)?;

    let cpu = machine::cpu_seconds(service.pid());
    let own_cpu = machine::thread_cpu_seconds();
    let start = Instant::now();
    let sent = feed_and_watch(&mut watchers, client, &worker, options, start)?;
    let taken = start.elapsed().as_secs_f64();
    watchers.finish(sent)?;
    let cpu = machine::cpu_seconds(service.pid()) - cpu;
    let own_cpu = machine::thread_cpu_seconds() - own_cpu;
    let memory = machine::peak_memory_mib(service.pid())?;
    let tally = &watchers.tally;
    report.add(
        Figure::new("observers: frames", tally.frames as f64 / taken, "/s")
            .target(Target::ValueAtLeast(100_000.0))
            .against("one bare write per frame", bare)
            .note(format!(
                "{} frames of {sent} events in {taken:.1} s, CPU per frame: service {:.1} us, \
                 observers {:.1} us",
                number(tally.frames as f64),
                cpu * 1e6 / tally.frames.max(1) as f64,
                own_cpu * 1e6 / tally.frames.max(1) as f64
            )),
    );
    let none = Target::ValueAtMost(0.0);
    report.add(Figure::new("observers: missing", tally.missing as f64, "").target(none));
    report.add(Figure::new("observers: twice", tally.twice as f64, "").target(none));
    report.add(
        Figure::new("observers: peak memory", memory, "MiB").target(Target::ValueAtMost(300.0)),
    );
    let problem = tally.first_problem.as_deref().unwrap_or("");
    ensure!(tally.closed + tally.foreign == 0 && problem.is_empty(), "{problem} ({tally:?})");
    service.stop()?;
    Ok(())
}

fn await_snapshots(watchers: &mut Watchers, observers: usize) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while watchers.tally.snapshots < observers as u64 {
        let problem = watchers.tally.first_problem.as_deref().unwrap_or("out of time");
        ensure!(
            Instant::now() < deadline && watchers.open() == observers,
            "{} of {observers} snapshots: {problem}",
            watchers.tally.snapshots
        );
        watchers.turn(TURN)?;
    }
    Ok(())
}

/// Inputs in a closed loop beside the observers; returns how many were acknowledged.
fn feed_and_watch(
    watchers: &mut Watchers,
    client: Client,
    worker: &str,
    options: &Options,
    start: Instant,
) -> Result<usize> {
    let feed = Arc::new(Feed::default());
    let feeding = {
        let (feed, worker) = (Arc::clone(&feed), worker.to_owned());
        std::thread::spawn(move || feed_inputs(client, &worker, &feed))
    };
    let window = Duration::from_secs_f64(options.seconds);
    let observers = options.observers as u64;
    let watching = loop {
        if let Err(error) = watchers.turn(TURN) {
            break Err(error);
        }
        let slowest = watchers.slowest();
        feed.slowest.store(slowest, Ordering::Relaxed);
        let enough = slowest as u64 * observers >= FRAMES_MIN && start.elapsed() >= window;
        if enough || start.elapsed() > DEADLINE || watchers.open() < options.observers {
            break Ok(());
        }
        if feeding.is_finished() {
            break Ok(());
        }
    };
    feed.stop.store(true, Ordering::Relaxed);
    let sent = loop {
        if feeding.is_finished() {
            break feeding.join().map_err(|_| anyhow::anyhow!("the feed panicked"))??;
        }
        watchers.turn(TURN)?;
    };
    watching?;
    let deadline = Instant::now() + DEADLINE;
    while watchers.slowest() < sent && watchers.open() > 0 && Instant::now() < deadline {
        watchers.turn(TURN)?;
    }
    Ok(sent)
}

fn feed_inputs(mut client: Client, worker: &str, feed: &Feed) -> Result<usize> {
    let mut sent = 0;
    while !feed.stop.load(Ordering::Relaxed) {
        if sent >= feed.slowest.load(Ordering::Relaxed) + AHEAD_MAX {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        send(&mut client, worker, &content(sent)).context("feeding")?;
        sent += 1;
    }
    Ok(sent)
}

/// The bare limit: one thread writes each frame to each socket, the same observers read.
fn bare_broadcast(observers: usize) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut watchers = Watchers::new()?;
    let mut sockets: Vec<TcpStream> = Vec::with_capacity(observers);
    for _ in 0..observers {
        watchers.add(TcpStream::connect(address)?, Vec::new())?;
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    let start = Instant::now();
    let writing = std::thread::spawn(move || -> Result<usize> {
        let mut sent = 0;
        while start.elapsed() < Duration::from_secs(2) {
            let message = serde_json::json!({"kind": "event", "envelope": {
                "cursor": format!("v1.0123456789abcdef.1.{sent}.0123456789abcdef"),
                "event_id": format!("v1.0123456789abcdef.1.{sent}.0123456789abcdef"),
                "worker_id": "worker-0123456789abcdef", "payload": {"event": "user_message",
                "data": {"segments": [{"kind": "text", "content": content(sent)}]}}}});
            let frame = websocket::text_frame(message.to_string().as_bytes());
            for socket in &mut sockets {
                socket.write_all(&frame)?;
            }
            sent += 1;
        }
        Ok(sent)
    });
    while watchers.open() > 0 && start.elapsed() < DEADLINE {
        watchers.turn(TURN)?;
    }
    let taken = start.elapsed().as_secs_f64();
    writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    Ok(watchers.tally.frames as f64 / taken)
}
