//! Mode `per_input`: one child per input, one at a time.

use super::{
    Closed, Ended, Framing, Inlet, Input, Outlet, Report,
    child::{Happened, Running},
    launch, payload,
    stopper::Signal,
    worker::Worker,
};
use acta_events::ExitStatus;
use bytes::Bytes;

/// Serves inputs until there are no more.
pub(super) async fn run<O: Outlet>(mut worker: Worker<O>, mut inlet: impl Inlet) -> Ended {
    if worker.stopper.is_stopping() {
        return Ended::Stopped;
    }
    if let Err(message) = launch::resolve(&worker.spec).await {
        return worker.spawn_failed(message).await;
    }
    let connected = vec![Report::Connected { process: None }];
    if worker.tell(None, connected).await.is_err() {
        return Ended::Closed;
    }
    while !worker.stopper.is_stopping() {
        let input = tokio::select! {
            biased;
            _ = worker.stopper.step() => None,
            input = inlet.next() => input,
        };
        let Some(input) = input else { break };
        if serve(&mut worker, input).await.is_err() {
            return Ended::Closed;
        }
    }
    Ended::Stopped
}

/// Announces the input, starts a child for it and sees the child to its end.
async fn serve<O: Outlet>(worker: &mut Worker<O>, input: Input) -> Result<(), Closed> {
    let mut reports = Vec::new();
    let turn = worker.turns.begin(&mut reports);
    reports.push(Report::Dispatching { input: input.seq, turn, process: None });
    worker.tell(None, reports).await?;
    // Looked up again: what was there at the beginning may have been replaced or removed.
    let program = launch::resolve(&worker.spec).await;
    if worker.stopper.is_stopping() {
        return end_turn(worker, None, Vec::new(), None).await;
    }
    match program.and_then(|program| launch::spawn(&worker.spec, &program)) {
        Ok(mut running) => {
            let outcome = attend(worker, &mut running, turn, input).await;
            running.end().await;
            outcome
        }
        Err(message) => {
            let failed = vec![Report::InputFailed { input: input.seq, message }];
            end_turn(worker, None, failed, None).await
        }
    }
}

async fn attend<O: Outlet>(
    worker: &mut Worker<O>,
    running: &mut Running,
    turn: u64,
    input: Input,
) -> Result<(), Closed> {
    if let Some(process) = running.process.clone() {
        worker.tell(Some(running), vec![Report::Started { turn, process }]).await?;
    }
    let (content, end) = match worker.spec.framing {
        Framing::Text => (input.content, Bytes::new()),
        Framing::Jsonl => (payload::input_line(&input), Bytes::from_static(b"\n")),
    };
    running.feed.give(input.seq, content, end);
    running.feed.close_when_written();
    loop {
        let happened = tokio::select! {
            biased;
            signal = worker.stopper.step() => {
                if signal == Signal::GiveUp {
                    return Ok(());
                }
                running.act(signal);
                continue;
            }
            happened = running.next() => happened,
        };
        let reports = match happened {
            Happened::Stdout(len) => running.hear(len, &mut worker.turns),
            Happened::Stderr(len) => running.diagnose(len),
            // A program need not read all of its input, or any; its exit tells the rest.
            Happened::Written | Happened::Refused(..) => Vec::new(),
            Happened::Gone(exit) => {
                let reports = running.last_words(&mut worker.turns);
                worker.tell(Some(running), reports).await?;
                return end_turn(worker, Some(running), Vec::new(), Some(exit)).await;
            }
        };
        worker.tell(Some(running), reports).await?;
    }
}

async fn end_turn<O: Outlet>(
    worker: &mut Worker<O>,
    running: Option<&mut Running>,
    mut reports: Vec<Report>,
    exit: Option<ExitStatus>,
) -> Result<(), Closed> {
    worker.turns.end(exit, &mut reports);
    worker.tell(running, reports).await
}
