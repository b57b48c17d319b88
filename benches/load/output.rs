//! Lines of one child: durable, and seen by an observer exactly as they were printed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Options;
use crate::machine;
use crate::report::{Figure, Report, Target, number};
use crate::service::{COUNT, Service, send};
use crate::websocket::{self, Kind};

const DEADLINE: Duration = Duration::from_secs(150);

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    envelope: Option<Envelope<'a>>,
    #[serde(borrow)]
    diagnostic: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    payload: Payload<'a>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    event: &'a str,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta {
    text: String,
}

/// Compares a stream of bytes with the lines 1, 2, 3, … as it comes.
struct Lines {
    /// The line that is expected now, with its newline.
    line: Vec<u8>,
    matched: usize,
    complete: u64,
}

impl Lines {
    fn new() -> Self {
        Self { line: b"1\n".to_vec(), matched: 0, complete: 0 }
    }

    fn feed(&mut self, mut text: &[u8]) -> Result<()> {
        while !text.is_empty() {
            let rest = &self.line[self.matched..];
            let count = rest.len().min(text.len());
            if rest[..count] != text[..count] {
                let shown = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
                bail!("after line {} came {shown:?}", self.complete);
            }
            text = &text[count..];
            self.matched += count;
            if self.matched == self.line.len() {
                self.advance();
            }
        }
        Ok(())
    }

    fn advance(&mut self) {
        self.complete += 1;
        self.matched = 0;
        let digits = self.line.len() - 1;
        for digit in self.line[..digits].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
        self.line.insert(0, b'1');
    }
}

struct Observer {
    stream: TcpStream,
    buffer: Vec<u8>,
    at: usize,
}

impl Observer {
    /// The next text frame; pings are answered on the way.
    fn next(&mut self, deadline: Instant) -> Result<&[u8]> {
        loop {
            if let Some(frame) = websocket::frame(&self.buffer[self.at..])? {
                let (from, to) = (self.at + frame.from, self.at + frame.to);
                self.at = to;
                match frame.kind {
                    Kind::Text => return Ok(&self.buffer[from..to]),
                    Kind::Ping => {
                        self.stream.write_all(&websocket::pong(&self.buffer[from..to]))?;
                    }
                    Kind::Close => {
                        bail!("closed: {}", websocket::close_reason(&self.buffer[from..to]))
                    }
                    Kind::Other => {}
                }
                continue;
            }
            ensure!(Instant::now() < deadline, "out of time");
            self.buffer.drain(..self.at);
            self.at = 0;
            let length = self.buffer.len();
            self.buffer.resize(length + (1 << 18), 0);
            let count = self.stream.read(&mut self.buffer[length..]).context("waiting")?;
            ensure!(count > 0, "closed without a close frame");
            self.buffer.truncate(length + count);
        }
    }
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    println!("output: one child prints {} lines, one observer", number(options.lines as f64));
    let bare = bare_pipe(options.lines, &options.directory)?;
    let service = Service::start(&options.binary, &options.directory, options.lines)?;
    let mut client = service.client()?;
    let worker = service.create_worker(&mut client, COUNT)?;
    let path = format!("/v1/workers/{worker}/events/ws");
    let (stream, buffer) = websocket::connect(service.address, &service.token, &path)?;
    let mut observer = Observer { stream, buffer, at: 0 };
    let deadline = Instant::now() + DEADLINE;
    // The snapshot comes first; whatever follows is after it, so nothing can be missed.
    let snapshot = observer.next(deadline)?;
    let message: Message<'_> = serde_json::from_slice(snapshot)?;
    let event = message.envelope.map(|envelope| envelope.payload.event);
    ensure!(event == Some("snapshot"), "the first frame is {event:?}");

    let cpu = machine::cpu_seconds(service.pid());
    let start = Instant::now();
    send(&mut client, &worker, "count")?;
    let mut lines = Lines::new();
    let result = watch(&mut observer, &mut lines, options.lines, deadline);
    let taken = start.elapsed().as_secs_f64();
    let cpu = machine::cpu_seconds(service.pid()) - cpu;
    let memory = machine::peak_memory_mib(service.pid())?;
    let frames = result
        .with_context(|| format!("{} lines came in {taken:.1} s", number(lines.complete as f64)))?;
    service.stop()?;
    report.add(
        Figure::new("output, 1 child: lines", lines.complete as f64 / taken, "/s")
            .target(Target::ValueAtLeast(150_000.0))
            .against("pipe, pwrite + fdatasync per 32 KiB", bare)
            .note(format!(
                "all {} lines in order, {frames} deltas, {taken:.1} s, service CPU {cpu:.1} s",
                number(lines.complete as f64)
            )),
    );
    report.add(Figure::new("output, 1 child: peak memory", memory, "MiB"));
    Ok(())
}

/// Reads until the last line, and then until the end of the turn: nothing may follow.
fn watch(observer: &mut Observer, lines: &mut Lines, count: u64, deadline: Instant) -> Result<u64> {
    let mut deltas = 0;
    while lines.complete < count {
        let message: Message<'_> = serde_json::from_slice(observer.next(deadline)?)?;
        if let Some(diagnostic) = message.diagnostic {
            bail!("diagnostic {diagnostic}");
        }
        let Some(envelope) = message.envelope else { continue };
        match (envelope.payload.event, envelope.payload.data) {
            ("text_delta", Some(data)) => {
                let delta: Delta = serde_json::from_str(data.get())?;
                lines.feed(delta.text.as_bytes())?;
                deltas += 1;
            }
            ("error", data) => bail!("the worker reports {data:?}"),
            _ => {}
        }
    }
    ensure!(lines.matched == 0, "something follows the last line");
    Ok(deltas)
}

/// The bare limit: the same child into a pipe, and what it printed into a synced file.
fn bare_pipe(lines: u64, directory: &Path) -> Result<f64> {
    let path = directory.join(format!("bare-{:016x}", rand::random::<u64>()));
    let mut file = std::fs::File::create_new(&path)?;
    let start = Instant::now();
    let mut child = Command::new("seq")
        .args(["1", &lines.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdout.take().context("no pipe")?;
    let mut block = vec![0; 32 << 10];
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match pipe.read(&mut block[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            break;
        }
        file.write_all(&block[..filled])?;
        file.sync_data()?;
    }
    child.wait()?;
    let taken = start.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(lines as f64 / taken)
}
