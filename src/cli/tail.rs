//! `acta tail`.

use super::client::{Call, Client};
use super::follower::{Filter, Follower, Frame, Start};
use super::observed::Lines;
use super::output::{Format, Output, OutputClosed, note};
use super::timeline::{RecordView, Timeline};
use super::worker_address::{Found, WorkerAddress};
use super::{parse_sequence, usage};
use acta_events::{Event, RuntimeId, Sequence, cursor::Cursor};
use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
Examples:
  acta tail                                  what happens from now on
  acta tail 0193e4 --from start              a worker's history, then live
  acta tail berlin/0193e4                    a worker of another runtime
  acta tail --no-follow                      all history, then the end
  acta tail --from 120 --type worker_created,worker_stopped
  acta tail --json --from <cursor> | jq -c 'select(.type == \"worker_output\")'

It reconnects by itself and goes on where it was: no event is missing and none comes twice.
When it ends, the cursor to resume from is printed on standard error. Times are UTC. Of a worker of
another service its frames are shown, which have no time; sequences and cursors are that service's.";

/// Options of `acta tail`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct TailArgs {
    /// A worker, or the beginning of its id; RUNTIME/ID for one of another runtime; everything if
    /// left out
    worker: Option<WorkerAddress>,

    /// start (of what has not expired), now, a sequence (what comes after it), or a cursor [default: now; with
    /// --no-follow: start]
    #[arg(long, value_name = "WHERE", value_parser = parse_start)]
    from: Option<Start>,

    /// Go on with what happens while watching; this is the default
    #[arg(short, long, conflicts_with = "no_follow")]
    follow: bool,

    /// End when everything up to the present has been printed
    #[arg(long)]
    no_follow: bool,

    /// One record a line, as the service tells it; the same as -o json
    #[arg(long)]
    json: bool,

    /// Only events with these names
    #[arg(long = "type", value_name = "NAME", value_delimiter = ',', value_parser = parse_type)]
    types: Vec<String>,

    /// Only events of this runtime
    #[arg(long, value_name = "ID", value_parser = RuntimeId::parse)]
    runtime: Option<RuntimeId>,
}

pub(super) async fn run(
    args: TailArgs,
    client: &Client,
    out: &mut Output,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop);
    let worker = match &args.worker {
        None => None,
        Some(given) => Some(given.find(client).await?),
    };
    let start = args.from.clone().unwrap_or(match args.no_follow {
        true => Start::After(Sequence::ZERO),
        false => Start::Now,
    });
    if args.no_follow && start == Start::Now {
        return Err(usage("--no-follow from now on would print nothing"));
    }
    let runtime = args.runtime.as_ref().map(RuntimeId::to_string);
    let through = worker.as_ref().and_then(|found| found.through.clone());
    if through.is_some() && (runtime.is_some() || !args.types.is_empty()) {
        return Err(usage("--type and --runtime choose events of this service's own log"));
    }
    let start = match through {
        None => beginning(start, worker.as_ref().map(|found| &*found.id), client).await?,
        Some(_) => start,
    };
    let lines = worker.as_ref().filter(|_| through.is_some()).map(|it| Lines::of(it, out.paint));
    let worker = worker.map(|Found { id, .. }| id);
    let filter = Filter { types: args.types.clone(), runtime, worker, through };
    let follower = Follower::new(client, start, filter);
    let mut tail = Tail {
        json: args.json || out.format == Format::Json,
        timeline: Timeline::new(out.paint),
        lines,
        out,
        written: None,
        resume: None,
    };
    let ended = tail.print_until(follower, args.no_follow, &mut stop).await;
    if let Err(error) = &ended
        && error.is::<OutputClosed>()
    {
        return ended;
    }
    if let Some(cursor) = &tail.resume {
        note(&format!("resume from: {cursor}"));
    }
    ended
}

#[derive(Deserialize)]
struct Standing {
    /// Up to where history has expired.
    #[serde(default)]
    expired_through: Sequence,
}

/// The start is where history begins now.
async fn beginning(start: Start, worker: Option<&str>, client: &Client) -> anyhow::Result<Start> {
    if start != Start::After(Sequence::ZERO) {
        return Ok(start);
    }
    let call = Call::get(&["events"]).query("limit", Some(0)).query("worker", worker);
    let Standing { expired_through } = client.send_as(call).await?;
    if expired_through > Sequence::ZERO {
        note(&format!("records 1 to {expired_through} have expired"));
    }
    Ok(Start::After(expired_through))
}

/// Ends at the first signal that asks the process to end.
pub(super) async fn interrupted() {
    let wait = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            // The default action of the signal ends the process as well.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

struct Tail<'a> {
    json: bool,
    timeline: Timeline,
    /// How the frames of a worker of another service are shown, if that is what is followed.
    lines: Option<Lines>,
    out: &'a mut Output,
    /// The cursor after the last line that is at least in the buffer.
    written: Option<String>,
    /// The cursor after the last line that has been handed on.
    resume: Option<String>,
}

impl Tail<'_> {
    async fn print_until(
        &mut self,
        mut follower: Follower<'_>,
        caught_up_is_end: bool,
        stop: &mut (impl Future<Output = ()> + Unpin),
    ) -> anyhow::Result<()> {
        loop {
            // What is there is printed; the buffer is handed on when nothing more is.
            let frame = tokio::select! {
                biased;
                () = &mut *stop => return self.flush(),
                frame = follower.next() => frame,
                () = std::future::ready(()), if self.written.is_some() => {
                    self.flush()?;
                    continue;
                }
            };
            let cursor = match frame {
                Ok(Frame::Event { cursor, record }) => {
                    self.print(record.get())?;
                    cursor
                }
                Ok(Frame::CaughtUp { cursor }) => {
                    self.written = Some(cursor);
                    if caught_up_is_end {
                        return self.flush();
                    }
                    continue;
                }
                Ok(Frame::Heartbeat { cursor }) => cursor,
                Err(error) => {
                    self.flush()?;
                    return Err(error.into());
                }
            };
            self.written = Some(cursor);
        }
    }

    fn print(&mut self, record: &str) -> anyhow::Result<()> {
        if self.json {
            return self.out.line(record);
        }
        if let Some(lines) = &mut self.lines {
            return match lines.line(record)? {
                Some(line) => self.out.line(&line),
                None => Ok(()),
            };
        }
        let record: RecordView<'_> =
            serde_json::from_str(record).context("a record was not understood")?;
        let line = self.timeline.line(&record);
        self.out.line(&line)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush()?;
        if let Some(cursor) = self.written.take() {
            self.resume = Some(cursor);
        }
        Ok(())
    }
}

pub(super) fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "start" => Ok(Start::After(Sequence::ZERO)),
        "now" => Ok(Start::Now),
        _ => match (parse_sequence(text), text.parse::<Cursor>()) {
            (Some(seq), _) => Ok(Start::After(seq)),
            (None, Ok(_)) => Ok(Start::Cursor(text.into())),
            (None, Err(error)) => Err(format!("neither start, now nor a sequence, and {error}")),
        },
    }
}

/// A name that this build does not know would never match anything that it writes.
pub(super) fn parse_type(text: &str) -> Result<String, String> {
    match Event::KINDS.iter().any(|(name, _)| *name == text) {
        true => Ok(text.into()),
        false => Err("no event has this name".into()),
    }
}
