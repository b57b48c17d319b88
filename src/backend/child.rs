//! A running child: its pipes, its group, its end.

use super::{
    Framing, REPORT_BYTES_MAX, Report, STDERR_BYTES_MAX,
    group::Group,
    lines::Lines,
    payload, process,
    stdio::{Decoder, Feed, Source, split},
    stopper::Signal,
    turns::Turns,
};
use acta_events::{ExitStatus, ProcessRef, Sequence};
use std::{future::pending, io, os::unix::process::ExitStatusExt, time::Duration};
use tokio::{
    process::{Child, ChildStderr, ChildStdout},
    time::{Instant, sleep_until, timeout},
};

/// Read at a time: what fits into two deltas even when each ends short of a character, so
/// that one read is one vector of reports.
const READ_BYTES_MAX: usize = REPORT_BYTES_MAX - 16;
/// How long the pipes of an ended child may stay open before its group is killed.
const DRAIN_WAIT: Duration = Duration::from_millis(500);
/// After that, how long a pipe that somebody outside the group holds may be silent.
const LAST_WAIT: Duration = Duration::from_millis(100);
/// And how much is still read: as much as a pipe can hold.
const LAST_BYTES_MAX: usize = 1024 * 1024;
/// How long a killed child is waited for.
const REAP_WAIT: Duration = Duration::from_secs(5);

/// What a child did.
pub(super) enum Happened {
    /// It wrote so many bytes to standard output; see [`Running::hear`].
    Stdout(usize),
    /// It wrote so many bytes to standard error; see [`Running::diagnose`].
    Stderr(usize),
    /// It was given its input.
    Written,
    /// It does not take its input.
    Refused(Sequence, io::Error),
    /// It ended, everything that it said was told, and nothing is left of its group.
    Gone(ExitStatus),
}

/// How far the end of a child has come.
enum Ending {
    NotYet,
    /// It ended; its pipes are read until they end or this moment comes.
    Draining(Instant),
    /// Its group was killed; what is left in the pipes is read.
    Last {
        until: Instant,
        bytes_left: usize,
    },
}

/// A child and everything that belongs to it. Dropping it kills the group.
pub(super) struct Running {
    /// First, so that the group is killed while the child still holds its number.
    group: Group,
    child: Child,
    /// Its identity, if the kernel tells.
    pub(super) process: Option<ProcessRef>,
    /// Its standard input.
    pub(super) feed: Feed,
    stdout: Source<ChildStdout>,
    stderr: Source<ChildStderr>,
    speech: Speech,
    complaint: Decoder,
    exit: Option<ExitStatus>,
    ending: Ending,
}

enum Speech {
    Text(Decoder),
    Jsonl(Lines),
}

impl Running {
    /// Takes charge of a child that leads its own group and whose pipes are all ours.
    pub(super) fn new(mut child: Child, framing: Framing) -> io::Result<Self> {
        let missing = || io::Error::other("the child has no pipes");
        let pid = child.id().ok_or_else(missing)?;
        let group = Group::new(pid);
        let feed = Feed::new(child.stdin.take().ok_or_else(missing)?);
        let stdout = Source::new(child.stdout.take().ok_or_else(missing)?, READ_BYTES_MAX);
        let stderr = Source::new(child.stderr.take().ok_or_else(missing)?, STDERR_BYTES_MAX);
        let speech = match framing {
            Framing::Text => Speech::Text(Decoder::default()),
            Framing::Jsonl => Speech::Jsonl(Lines::default()),
        };
        Ok(Self {
            group,
            child,
            process: process::identify(pid),
            feed,
            stdout,
            stderr,
            speech,
            complaint: Decoder::default(),
            exit: None,
            ending: Ending::NotYet,
        })
    }

    /// Whether the child itself has ended; its pipes may still hold something.
    pub(super) fn has_exited(&self) -> bool {
        self.exit.is_some()
    }

    /// Waits for what happens next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Happened {
        loop {
            if let Some(exit) = self.is_gone() {
                self.group.settle();
                return Happened::Gone(exit);
            }
            tokio::select! {
                len = self.stdout.fill() => {
                    self.count(len);
                    if len > 0 { return Happened::Stdout(len) }
                }
                len = self.stderr.fill() => {
                    self.count(len);
                    if len > 0 { return Happened::Stderr(len) }
                }
                outcome = self.feed.write() => return match outcome {
                    Ok(()) => Happened::Written,
                    Err((input, error)) => Happened::Refused(input, error),
                },
                exit = ended(&mut self.child, self.exit.is_some()) => {
                    self.group.leader_reaped();
                    self.exit = Some(exit);
                    self.ending = Ending::Draining(Instant::now() + DRAIN_WAIT);
                }
                () = due(&self.ending) => {
                    // Somebody holds the pipes of an ended child open.
                    self.group.settle();
                    self.ending = match self.ending {
                        Ending::Last { until, .. } => Ending::Last { until, bytes_left: 0 },
                        Ending::NotYet | Ending::Draining(_) => Ending::Last {
                            until: Instant::now() + LAST_WAIT,
                            bytes_left: LAST_BYTES_MAX,
                        },
                    };
                }
            }
        }
    }

    fn is_gone(&self) -> Option<ExitStatus> {
        let drained = !self.stdout.is_open() && !self.stderr.is_open();
        let enough = matches!(self.ending, Ending::Last { bytes_left: 0, .. });
        self.exit.filter(|_| drained || enough)
    }

    fn count(&mut self, len: usize) {
        if let Ending::Last { until, bytes_left } = &mut self.ending {
            *until = Instant::now() + LAST_WAIT;
            *bytes_left = bytes_left.saturating_sub(len);
        }
    }

    /// What the `len` bytes that it just said mean.
    pub(super) fn hear(&mut self, len: usize, turns: &mut Turns) -> Vec<Report> {
        let mut out = Vec::new();
        let bytes = self.stdout.bytes(len);
        match &mut self.speech {
            Speech::Text(decoder) => turns.text(&decoder.decode(bytes), &mut out),
            Speech::Jsonl(lines) => {
                lines.feed(bytes, |line| payload::hear(&line, turns, &mut out));
            }
        }
        out
    }

    /// The `len` bytes that it just wrote to standard error.
    pub(super) fn diagnose(&mut self, len: usize) -> Vec<Report> {
        let mut out = Vec::new();
        complain(&self.complaint.decode(self.stderr.bytes(len)), &mut out);
        out
    }

    /// What it left unfinished when it ended.
    pub(super) fn last_words(&mut self, turns: &mut Turns) -> Vec<Report> {
        let mut out = Vec::new();
        match &mut self.speech {
            Speech::Text(decoder) => turns.text(decoder.finish(), &mut out),
            Speech::Jsonl(lines) => lines.finish(|line| payload::hear(&line, turns, &mut out)),
        }
        complain(self.complaint.finish(), &mut out);
        out
    }

    /// Does what is due.
    pub(super) fn act(&mut self, signal: Signal) {
        match signal {
            Signal::Terminate => {
                self.feed.close();
                self.group.terminate();
            }
            Signal::Kill => {
                self.feed.close();
                self.kill();
            }
            Signal::GiveUp => {}
        }
    }

    /// The child itself may have moved to another group.
    fn kill(&mut self) {
        self.group.kill();
        if self.exit.is_none() {
            // An error means that it ended already; it is reaped either way.
            let _ = self.child.start_kill();
        }
    }

    /// Makes sure that nothing is left of it.
    pub(super) async fn end(mut self) {
        if self.exit.is_none() {
            self.kill();
            // A process that the kernel cannot end is reaped by the runtime when it does.
            if let Ok(Ok(_)) = timeout(REAP_WAIT, self.child.wait()).await {
                self.group.leader_reaped();
            }
        }
    }
}

fn complain(mut text: &str, out: &mut Vec<Report>) {
    while !text.is_empty() {
        let (head, rest) = split(text, STDERR_BYTES_MAX);
        out.push(Report::Diagnosed { source: "stderr", text: head.to_owned() });
        text = rest;
    }
}

async fn ended(child: &mut Child, known: bool) -> ExitStatus {
    if known {
        return pending().await;
    }
    match child.wait().await {
        Ok(status) => ExitStatus { code: status.code(), signal: status.signal() },
        // Somebody else reaped it: that it ended is all that can be known.
        Err(_) => ExitStatus { code: None, signal: None },
    }
}

async fn due(ending: &Ending) {
    match ending {
        Ending::NotYet => pending().await,
        Ending::Draining(until) | Ending::Last { until, .. } => sleep_until(*until).await,
    }
}
