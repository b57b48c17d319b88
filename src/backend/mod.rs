//! Backends run workers. The process backend has one actor per worker that runs child processes and
//! reports what they say.
//!
//! The actor knows neither the engine nor the journal. Inputs come from an [`Inlet`], what
//! happens goes to an [`Outlet`], and a [`StopMode`] arrives over a watch channel. Nothing is
//! queued here beyond one read of a pipe: while a report is being made durable no more is
//! read, so a child that says too much is slowed down by its own pipe.
//!
//! A child runs in its own process group, with a short environment, and never through a
//! shell that its template did not ask for. Whatever way [`Backend::run`] ends, and also when its
//! future is dropped, the group is killed. A descendant that leaves the group (`setsid`) is
//! out of reach.

mod child;
mod group;
mod launch;
mod lines;
mod payload;
mod per_input;
mod process;
mod session;
mod stdio;
mod stopper;
mod turns;
mod worker;

#[cfg(test)]
mod tests;

use acta_events::{ExitStatus, InputKind, OutputKind, ProcessRef, Sequence, TurnResult};
use bytes::Bytes;
use serde::Deserialize;
use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};

pub(crate) use group::Group;
pub use process::{LeftoverEnd, end_leftover, identify, is_alive};

/// Text of one [`OutputKind::TextDelta`], at most.
pub const DELTA_BYTES_MAX: usize = 16 * 1024;
/// Text between two [`Report::TextDone`]s, at most.
pub const SPAN_BYTES_MAX: usize = 64 * 1024;
/// Content of one vector of reports, at most, unless a single report is larger by itself.
pub const REPORT_BYTES_MAX: usize = 32 * 1024;
/// Reports in one vector, at most.
pub const REPORTS_MAX: usize = 32;
/// A line of a `jsonl` child, at most; a longer one is skipped with a diagnosis.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Text of one [`Report::Diagnosed`] from standard error, at most.
pub const STDERR_BYTES_MAX: usize = 8 * 1024;
/// Text of one [`Report::Diagnosed`] about a bad line, at most.
pub const FRAMING_BYTES_MAX: usize = 2 * 1024;

/// How long a worker's processes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One process for the whole worker.
    Session,
    /// One process per input, one at a time.
    PerInput,
}

/// How a child speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Plain text on standard input and output.
    Text,
    /// One JSON object a line, both ways.
    Jsonl,
}

/// What to run and how; everything in it comes from the manifest.
#[derive(Clone, Debug)]
pub struct ExecSpec {
    /// The program and its arguments. A relative path with a slash is relative to the
    /// working directory of the service.
    pub argv: Vec<String>,
    /// How long its processes live.
    pub mode: Mode,
    /// How they speak.
    pub framing: Framing,
    /// Names of variables that are passed on from the environment of the service, beside
    /// `PATH`, `HOME`, `LANG`, `LC_ALL`, `TZ`, `TMPDIR` and `USER`.
    pub env: Vec<String>,
    /// The working directory of the child. It is made, and removed if nothing is left in it.
    pub work_dir: PathBuf,
    /// Silence after which the turn of a `text` session is over.
    pub turn_idle: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
}

/// An accepted input.
#[derive(Clone, Debug)]
pub struct Input {
    /// The sequence of its record.
    pub seq: Sequence,
    /// An id that a `jsonl` child can tell a repeat by.
    pub message_id: String,
    /// Who it speaks for.
    pub kind: InputKind,
    /// Its text, UTF-8.
    pub content: Bytes,
}

/// Where inputs come from, in order.
pub trait Inlet: Send {
    /// The next input after the last one that was returned; waits for it. `None`: there will
    /// be no more, because the worker is terminal or the service stops; the actor then stops
    /// as if asked to gracefully. The future is often dropped unfinished and must not lose
    /// an input by that.
    fn next(&mut self) -> impl Future<Output = Option<Input>> + Send;
}

/// Where reports go.
pub trait Outlet: Send {
    /// Resolves when the reports are durable, in order; they become the records of one
    /// block. No two calls overlap. After a forced stop it is waited for a few seconds only.
    ///
    /// # Errors
    /// [`Closed`]: nothing more will be taken and the worker must end now.
    fn report(&mut self, reports: Vec<Report>) -> impl Future<Output = Result<(), Closed>> + Send;
}

/// Nobody takes reports any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody takes reports any more")]
pub struct Closed;

/// What happened to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The child of a session was started, or a `per_input` worker is ready.
    Connected {
        /// The child of a session.
        process: Option<ProcessRef>,
    },
    /// The worker cannot run; the actor ends.
    SpawnFailed {
        /// Why, for people; no path and no value of a variable.
        message: String,
    },
    /// An input is about to be given to a child, as a new turn. The child sees nothing of it
    /// before this is durable; a `per_input` child is not even started.
    Dispatching {
        /// The input.
        input: Sequence,
        /// The turn that it starts.
        turn: u64,
        /// The child of a session.
        process: Option<ProcessRef>,
    },
    /// A `per_input` child was started. It is given its input when this is durable, so that
    /// after a crash every child that has seen an input can be found.
    Started {
        /// The turn that it serves.
        turn: u64,
        /// The child.
        process: ProcessRef,
    },
    /// The child said something.
    Output {
        /// The turn that it belongs to. What is not part of a turn (usage, status, a warning)
        /// bears the number of the last one, or 0 before the first.
        turn: u64,
        /// What it is; never `text_done`.
        kind: OutputKind,
        /// Of a text delta the text, otherwise the payload's data as JSON, empty if the
        /// payload has none.
        content: Bytes,
    },
    /// The text since the last one of these is complete.
    TextDone {
        /// The turn that it belongs to.
        turn: u64,
    },
    /// A turn is over.
    TurnEnded {
        /// The turn.
        turn: u64,
        /// How it ended.
        result: TurnResult,
        /// How the child of this turn ended, if it had its own.
        exit: Option<ExitStatus>,
    },
    /// Standard error, or a line that is not of the agreed form.
    Diagnosed {
        /// `stderr` or `framing`.
        source: &'static str,
        /// The text.
        text: String,
    },
    /// An input could not be given to a child.
    InputFailed {
        /// The input.
        input: Sequence,
        /// Why, for people.
        message: String,
    },
    /// The child of a session ended by itself.
    Exited {
        /// How.
        exit: ExitStatus,
    },
}

impl Report {
    /// The bytes of content in it.
    pub fn content_bytes(&self) -> usize {
        match self {
            Self::Output { content, .. } => content.len(),
            Self::Diagnosed { text, .. } => text.len(),
            Self::Connected { .. }
            | Self::SpawnFailed { .. }
            | Self::Dispatching { .. }
            | Self::Started { .. }
            | Self::TextDone { .. }
            | Self::TurnEnded { .. }
            | Self::InputFailed { .. }
            | Self::Exited { .. } => 0,
        }
    }
}

/// How a worker is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Close its standard input, SIGTERM, wait for `stop_grace`, SIGKILL.
    Graceful,
    /// SIGKILL at once.
    Force,
}

/// What runs workers.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Runs one worker until it ends. `first_turn` is the number of its first turn. `stop` may go
    /// from nothing to graceful to forced; when its sender is dropped the worker has no owner any
    /// more and is stopped gracefully.
    fn run(
        &self,
        spec: ExecSpec,
        first_turn: u64,
        inlet: impl Inlet,
        outlet: impl Outlet,
        stop: watch::Receiver<Option<StopMode>>,
    ) -> impl Future<Output = Ended> + Send;

    /// Ends what an earlier life of the service left behind, if it is still there.
    fn end_leftover(
        &self,
        process: &ProcessRef,
        grace: Duration,
    ) -> impl Future<Output = LeftoverEnd> + Send;
}

/// How many leftovers are waited for at the same time. Each of them takes a thread, and a look at all processes
/// every now and then.
const LEFTOVERS_AT_ONCE: usize = 32;

/// Runs workers as child processes.
#[derive(Clone, Debug)]
pub struct Processes {
    leftovers: Arc<Semaphore>,
}

impl Default for Processes {
    fn default() -> Self {
        Self { leftovers: Arc::new(Semaphore::new(LEFTOVERS_AT_ONCE)) }
    }
}

impl Backend for Processes {
    async fn run(
        &self,
        spec: ExecSpec,
        first_turn: u64,
        inlet: impl Inlet,
        mut outlet: impl Outlet,
        stop: watch::Receiver<Option<StopMode>>,
    ) -> Ended {
        let work_dir = spec.work_dir.clone();
        if let Err(error) = tokio::fs::create_dir_all(&work_dir).await {
            let message = format!("its working directory could not be made: {}", error.kind());
            let told = outlet.report(vec![Report::SpawnFailed { message }]).await;
            return told.map_or(Ended::Closed, |()| Ended::SpawnFailed);
        }
        let ended = run(spec, first_turn, inlet, outlet, stop).await;
        // What is not empty stays, and that is the only reason why this fails.
        drop(tokio::fs::remove_dir(work_dir).await);
        ended
    }

    async fn end_leftover(&self, process: &ProcessRef, grace: Duration) -> LeftoverEnd {
        let _permit = self.leftovers.acquire().await;
        end_leftover(process, grace).await
    }
}

/// How the actor ended. In every case its process groups were killed and its children reaped,
/// unless the kernel could not end one within five seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It could not start; [`Report::SpawnFailed`] was reported.
    SpawnFailed,
    /// The child of a session ended by itself; [`Report::Exited`] was reported.
    Exited(ExitStatus),
    /// It was stopped, or the inlet ended. An open turn was reported as ended.
    Stopped,
    /// The outlet closed, or did not answer in time after a kill.
    Closed,
}

/// Runs one worker, whose working directory is there, until it ends.
async fn run(
    spec: ExecSpec,
    first_turn: u64,
    inlet: impl Inlet,
    outlet: impl Outlet,
    stop: watch::Receiver<Option<StopMode>>,
) -> Ended {
    let mode = spec.mode;
    let worker = worker::Worker::new(spec, first_turn, outlet, stop);
    match mode {
        Mode::Session => session::run(worker, inlet).await,
        Mode::PerInput => per_input::run(worker, inlet).await,
    }
}
