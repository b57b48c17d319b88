//! Observers of the whole log, who come back with what they have seen.

use std::io::{ErrorKind, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Soak, locked};
use crate::websocket::{self, Kind};

/// How many there are.
const OBSERVERS: usize = 4;
/// A connection is given up now and then, by whoever observes.
const STAY: Duration = Duration::from_secs(40);

/// What was seen, by all of them: a hash of each record's frame.
#[derive(Default)]
pub(super) struct Records {
    hashes: Mutex<Vec<u64>>,
    reached: [std::sync::atomic::AtomicU64; OBSERVERS],
    closed: AtomicBool,
}

impl Records {
    /// They may go.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether a record is what others saw in its place. Erasing changes a frame.
    fn agrees(&self, seq: u64, frame: &[u8]) -> bool {
        let hash = u64::from(crc32fast::hash(frame)) << 32 | frame.len() as u64 & 0xffff_ffff;
        let mut hashes = locked(&self.hashes);
        match hashes.get(seq as usize - 1) {
            Some(known) => *known == hash || find(frame, b"\"redacted\":"),
            None => {
                hashes.push(hash);
                true
            }
        }
    }
}

fn find(frame: &[u8], needle: &[u8]) -> bool {
    crate::client::find(frame, needle).is_some()
}

pub(super) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    soak: &'scope Soak,
    records: &'scope Records,
) -> Vec<ScopedJoinHandle<'scope, ()>> {
    (0..OBSERVERS).map(|n| scope.spawn(move || observe(soak, records, n))).collect()
}

/// Waits until all have seen everything up to a record.
pub(super) fn wait_for(soak: &Soak, records: &Records, end: u64, within: Duration) -> Result<()> {
    let until = Instant::now() + within;
    while records.reached.iter().any(|reached| reached.load(Ordering::Relaxed) < end) {
        ensure!(Instant::now() < until, "an observer has not seen record {end} in time");
        ensure!(locked(&soak.problems).len() < 1_000, "too much is wrong");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn observe(soak: &Soak, records: &Records, n: usize) {
    let mut last = 0;
    while !records.closed.load(Ordering::Relaxed) {
        let stay = Instant::now() + STAY.mul_f64(rand::random_range(0.2..1.0));
        if let Err(error) = session(soak, records, &mut last, stay, n)
            && format!("{error:#}").contains("NOT")
        {
            soak.problem(format!("observer {n}: {error:#}"));
        }
        // A service that was killed is away for a moment.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One connection.
fn session(soak: &Soak, records: &Records, last: &mut u64, stay: Instant, n: usize) -> Result<()> {
    let address = *locked(&soak.address);
    let path = format!("/v1/events/ws?after={last}&watching=1");
    let (mut stream, mut buffer) = websocket::connect(address, &soak.token, &path)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut chunk = vec![0; 1 << 16];
    while Instant::now() < stay && !records.closed.load(Ordering::Relaxed) {
        let mut at = 0;
        while let Some(frame) = websocket::frame(&buffer[at..])? {
            let payload = &buffer[at + frame.from..at + frame.to];
            match frame.kind {
                Kind::Text => {
                    *last = seen(records, payload, *last)?;
                    records.reached[n].store(*last, Ordering::Relaxed);
                    soak.observed.fetch_add(1, Ordering::Relaxed);
                }
                Kind::Ping => stream.write_all(&websocket::pong(payload))?,
                Kind::Close => bail!("closed: {}", websocket::close_reason(payload)),
                Kind::Other => {}
            }
            at += frame.to;
        }
        buffer.drain(..at);
        match stream.read(&mut chunk) {
            Ok(0) => bail!("the connection ended"),
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn seen(records: &Records, payload: &[u8], last: u64) -> Result<u64> {
    let frame: Value = serde_json::from_slice(payload).context("NOT a frame")?;
    if frame["kind"] != "event" {
        return Ok(last);
    }
    let seq = frame["record"]["seq"].as_u64().with_context(|| format!("NOT a record: {frame}"))?;
    ensure!(seq == last + 1, "record {seq} came behind {last}, which is NOT the next");
    ensure!(records.agrees(seq, payload), "record {seq} is NOT what another saw: {frame}");
    Ok(seq)
}
