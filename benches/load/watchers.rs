//! Many observers on one thread, each checked frame by frame.
//!
//! Every observer of a worker must get the same frames, so the first that gets the frame of
//! event `n` leaves its bytes as a reference and the others only compare bytes. Which event a
//! frame is about is told by the number with which the content of each input begins; it is
//! looked up once per event, and wherever bytes differ.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::Value;

use crate::websocket::{self, Kind};

struct Watcher {
    stream: TcpStream,
    /// The start of a frame that is not complete yet.
    rest: Vec<u8>,
    /// The event that must come next.
    next: usize,
    open: bool,
}

pub(crate) struct Watchers {
    poll: Poll,
    events: Events,
    watchers: Vec<Watcher>,
    reference: Vec<Option<Box<[u8]>>>,
    scratch: Vec<u8>,
    pub(crate) tally: Tally,
}

/// What was seen by all observers together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) snapshots: u64,
    pub(crate) missing: u64,
    pub(crate) twice: u64,
    /// The right event under another cursor than the other observers got.
    pub(crate) foreign: u64,
    /// Frames that are neither inputs nor snapshots.
    pub(crate) other: u64,
    pub(crate) closed: u64,
    pub(crate) first_problem: Option<String>,
}

impl Tally {
    fn problem(&mut self, text: impl FnOnce() -> String) {
        self.first_problem.get_or_insert_with(text);
    }
}

enum About {
    Input { number: usize, cursor: String },
    Snapshot,
    Other,
}

/// The content of input `number`: what `about` reads.
pub(crate) fn content(number: usize) -> String {
    let mut text = format!("{number:012} ");
    while text.len() < crate::generator::CONTENT_BYTES {
        text.push_str("observed ");
    }
    text.truncate(crate::generator::CONTENT_BYTES);
    text
}

fn about(payload: &[u8]) -> Result<About> {
    let message: Value = serde_json::from_slice(payload).context("a frame")?;
    ensure!(message["kind"] == "event", "not an event: {message}");
    let envelope = &message["envelope"];
    match envelope["payload"]["event"].as_str() {
        Some("snapshot") => Ok(About::Snapshot),
        Some("user_message") => {
            let segment = &envelope["payload"]["data"]["segments"][0]["content"];
            let number = segment.as_str().and_then(|text| text.get(..12)?.parse().ok());
            let cursor = envelope["cursor"].as_str().context("no cursor")?.to_owned();
            Ok(number.map_or(About::Other, |number| About::Input { number, cursor }))
        }
        _ => Ok(About::Other),
    }
}

impl Watchers {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            watchers: Vec::new(),
            reference: Vec::new(),
            scratch: vec![0; 1 << 18],
            tally: Tally::default(),
        })
    }

    /// Takes over an upgraded socket and what was already read from it.
    pub(crate) fn add(&mut self, stream: std::net::TcpStream, rest: Vec<u8>) -> Result<()> {
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let index = self.watchers.len();
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        self.watchers.push(Watcher { stream, rest, next: 0, open: true });
        // What came with the upgrade raises no edge of its own.
        self.read(index, false);
        Ok(())
    }

    /// Events that every open observer has.
    pub(crate) fn slowest(&self) -> usize {
        self.watchers.iter().filter(|watcher| watcher.open).map(|w| w.next).min().unwrap_or(0)
    }

    pub(crate) fn open(&self) -> usize {
        self.watchers.iter().filter(|watcher| watcher.open).count()
    }

    /// Waits once and takes whatever has come.
    pub(crate) fn turn(&mut self, wait: Duration) -> Result<()> {
        self.poll.poll(&mut self.events, Some(wait))?;
        let ready: Vec<(usize, bool)> =
            self.events.iter().map(|event| (event.token().0, event.is_read_closed())).collect();
        for (index, ended) in ready {
            if self.watchers[index].open {
                self.read(index, ended);
            }
        }
        Ok(())
    }

    /// Counts what never came, and checks that no two events have one cursor.
    pub(crate) fn finish(&mut self, expected: usize) -> Result<()> {
        for watcher in &self.watchers {
            self.tally.missing += expected.saturating_sub(watcher.next) as u64;
        }
        let mut cursors = HashSet::new();
        for payload in self.reference.iter().flatten() {
            let About::Input { cursor, .. } = about(payload)? else { bail!("not an input") };
            ensure!(cursors.insert(cursor), "two events have one cursor");
        }
        Ok(())
    }

    /// Takes what has come for one observer. A short read means that its socket is empty, except
    /// that the end of the stream may have come with the same edge (`ended`).
    fn read(&mut self, index: usize, ended: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self.read_into(index, ended, &mut scratch);
        self.scratch = scratch;
        if let Err(error) = result {
            self.watchers[index].open = false;
            self.tally.closed += 1;
            self.tally.problem(|| format!("observer {index}: {error:#}"));
        }
    }

    fn read_into(&mut self, index: usize, ended: bool, scratch: &mut [u8]) -> Result<()> {
        loop {
            let watcher = &mut self.watchers[index];
            let kept = watcher.rest.len();
            ensure!(kept < scratch.len() / 2, "a frame of more than {} bytes", scratch.len() / 2);
            scratch[..kept].copy_from_slice(&watcher.rest);
            watcher.rest.clear();
            let (count, drained) = match watcher.stream.read(&mut scratch[kept..]) {
                Ok(0) => bail!("closed without a close frame"),
                Ok(count) => (count, !ended && kept + count < scratch.len()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => (0, true),
                Err(error) => return Err(error.into()),
            };
            self.tally.bytes += count as u64;
            let filled = &scratch[..kept + count];
            let mut at = 0;
            while let Some(frame) = websocket::frame(&filled[at..])? {
                let payload = &filled[at + frame.from..at + frame.to];
                at += frame.to;
                match frame.kind {
                    Kind::Text => self.text(index, payload)?,
                    Kind::Ping => {
                        let pong = websocket::pong(payload);
                        let _ = self.watchers[index].stream.write(&pong);
                    }
                    Kind::Close => bail!("closed: {}", websocket::close_reason(payload)),
                    Kind::Other => {}
                }
            }
            self.watchers[index].rest.extend_from_slice(&filled[at..]);
            if drained {
                return Ok(());
            }
        }
    }

    fn text(&mut self, index: usize, payload: &[u8]) -> Result<()> {
        let next = self.watchers[index].next;
        if self.reference.get(next).and_then(Option::as_deref) == Some(payload) {
            self.watchers[index].next += 1;
            self.tally.frames += 1;
            return Ok(());
        }
        match about(payload)? {
            About::Snapshot => self.tally.snapshots += 1,
            About::Other => self.tally.other += 1,
            About::Input { number, cursor } => self.input(index, number, &cursor, payload)?,
        }
        Ok(())
    }

    /// A frame that is the first of its event, or not the one that was expected.
    fn input(&mut self, index: usize, number: usize, cursor: &str, payload: &[u8]) -> Result<()> {
        let watcher = &mut self.watchers[index];
        let next = watcher.next;
        self.tally.frames += 1;
        if number < next {
            self.tally.twice += 1;
            self.tally.problem(|| format!("observer {index} got {number} after {next}"));
            return Ok(());
        }
        if number > next {
            self.tally.missing += (number - next) as u64;
            self.tally.problem(|| format!("observer {index} got {number}, not {next}"));
        }
        watcher.next = number + 1;
        ensure!(number < self.reference.len() + (1 << 20), "event {number} was never sent");
        if self.reference.len() <= number {
            self.reference.resize(number + 1, None);
        }
        match &self.reference[number] {
            None => self.reference[number] = Some(payload.into()),
            Some(first) => {
                let About::Input { cursor: first, .. } = about(first)? else { bail!("no input") };
                if first != cursor {
                    self.tally.foreign += 1;
                    self.tally.problem(|| format!("event {number}: cursors {first} and {cursor}"));
                }
            }
        }
        Ok(())
    }
}
