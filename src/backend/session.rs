//! Mode `session`: one child for the whole worker.

use super::{
    Closed, Ended, Framing, Inlet, Input, Outlet, Report,
    child::{Happened, Running},
    launch, payload,
    stopper::Signal,
    worker::Worker,
};
use acta_events::{ExitStatus, Sequence};
use bytes::Bytes;
use std::{future::pending, io};
use tokio::time::{Instant, sleep_until};

enum Next {
    Signal(Signal),
    Child(Happened),
    Input(Option<Input>),
    Silence,
}

/// Runs the child until it ends or is stopped.
pub(super) async fn run<O: Outlet>(mut worker: Worker<O>, mut inlet: impl Inlet) -> Ended {
    if worker.stopper.is_stopping() {
        return Ended::Stopped;
    }
    let started = match launch::resolve(&worker.spec).await {
        Ok(program) => launch::spawn(&worker.spec, &program),
        Err(message) => Err(message),
    };
    let mut running = match started {
        Ok(running) => running,
        Err(message) => return worker.spawn_failed(message).await,
    };
    let ended = converse(&mut worker, &mut running, &mut inlet).await;
    running.end().await;
    ended.unwrap_or(Ended::Closed)
}

async fn converse<O: Outlet>(
    worker: &mut Worker<O>,
    running: &mut Running,
    inlet: &mut impl Inlet,
) -> Result<Ended, Closed> {
    let connected = Report::Connected { process: running.process.clone() };
    worker.tell(Some(running), vec![connected]).await?;
    let mut quiet_since = Instant::now();
    loop {
        let takes = takes_input(worker, running);
        let idle_at = (worker.spec.framing == Framing::Text
            && worker.turns.is_open()
            && !running.feed.is_writing())
        .then(|| quiet_since + worker.spec.turn_idle);
        // Silence comes last: it is none while there is something to read.
        let next = tokio::select! {
            biased;
            signal = worker.stopper.step() => Next::Signal(signal),
            next = attend(running, inlet, takes) => next,
            () = silence(idle_at) => Next::Silence,
        };
        match next {
            Next::Signal(Signal::GiveUp) => return Ok(Ended::Stopped),
            Next::Signal(signal) => running.act(signal),
            Next::Input(None) => {
                if let Some(signal) = worker.stopper.begin() {
                    running.act(signal);
                }
            }
            Next::Input(Some(input)) => {
                deliver(worker, running, input).await?;
                quiet_since = Instant::now();
            }
            Next::Child(Happened::Stdout(len)) => {
                let reports = running.hear(len, &mut worker.turns);
                worker.tell(Some(running), reports).await?;
                quiet_since = Instant::now();
            }
            Next::Child(Happened::Stderr(len)) => {
                let reports = running.diagnose(len);
                worker.tell(Some(running), reports).await?;
            }
            Next::Child(Happened::Written) => quiet_since = Instant::now(),
            Next::Child(Happened::Refused(input, error)) => {
                let message = refusal(&error);
                worker.tell(Some(running), vec![Report::InputFailed { input, message }]).await?;
                quiet_since = Instant::now();
            }
            Next::Child(Happened::Gone(exit)) => return farewell(worker, running, exit).await,
            Next::Silence => {
                let mut reports = Vec::new();
                worker.turns.end(None, &mut reports);
                worker.tell(Some(running), reports).await?;
            }
        }
    }
}

/// A `jsonl` child says itself when it is ready for the next input. One that closed its
/// standard input will get none, and each further input fails at once.
fn takes_input<O: Outlet>(worker: &Worker<O>, running: &Running) -> bool {
    let ready = match worker.spec.framing {
        Framing::Text => true,
        Framing::Jsonl => !worker.turns.is_open() || running.feed.is_closed(),
    };
    let busy = running.feed.is_writing() || running.has_exited();
    ready && !busy && !worker.stopper.is_stopping()
}

/// Whichever comes first; when both are there, chance decides, so that neither a child that
/// never stops talking nor a long queue of inputs keeps the other waiting.
async fn attend(running: &mut Running, inlet: &mut impl Inlet, takes: bool) -> Next {
    tokio::select! {
        happened = running.next() => Next::Child(happened),
        input = inlet.next(), if takes => Next::Input(input),
    }
}

async fn silence(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

async fn deliver<O: Outlet>(
    worker: &mut Worker<O>,
    running: &mut Running,
    input: Input,
) -> Result<(), Closed> {
    if running.feed.is_closed() {
        let message = refusal(&io::ErrorKind::BrokenPipe.into());
        let failed = Report::InputFailed { input: input.seq, message };
        return worker.tell(Some(running), vec![failed]).await;
    }
    let mut reports = Vec::new();
    let turn = worker.turns.begin(&mut reports);
    let process = running.process.clone();
    reports.push(Report::Dispatching { input: input.seq, turn, process });
    worker.tell(Some(running), reports).await?;
    let content = match worker.spec.framing {
        Framing::Text => input.content,
        Framing::Jsonl => payload::input_line(&input),
    };
    running.feed.give(input.seq, content, Bytes::from_static(b"\n"));
    Ok(())
}

async fn farewell<O: Outlet>(
    worker: &mut Worker<O>,
    running: &mut Running,
    exit: ExitStatus,
) -> Result<Ended, Closed> {
    let reports = running.last_words(&mut worker.turns);
    worker.tell(Some(running), reports).await?;
    let mut reports = Vec::new();
    if let Some(input) = running.feed.take_unwritten() {
        reports.push(unread(input));
    }
    worker.turns.end(None, &mut reports);
    let stopped = worker.stopper.is_stopping();
    if !stopped {
        reports.push(Report::Exited { exit });
    }
    worker.tell(Some(running), reports).await?;
    Ok(if stopped { Ended::Stopped } else { Ended::Exited(exit) })
}

fn unread(input: Sequence) -> Report {
    let message = "the process ended before it had read the whole input".into();
    Report::InputFailed { input, message }
}

fn refusal(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe => "the process has closed its standard input (EPIPE)".into(),
        kind => format!("the input could not be written to the process: {kind}"),
    }
}
