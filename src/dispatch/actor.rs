//! One worker's actor: its backend between the log and the engine.

use super::{
    MARKS_PER_READ, Surroundings, is_left_over, reconcile, reports, traced::Turns, wants_actor,
};
use crate::{
    backend::{self, Backend, Closed, Ended, ExecSpec, Inlet, Input, Outlet, Report, StopMode},
    command::Outcome,
    log::Log,
    manifest,
};
use acta_events::{Event, MediaType, OutputKind, Sequence, WorkerRef};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tracing::Instrument as _;

/// Silence after which the turn of a text session is over, where the template does not say.
const TURN_IDLE: Duration = Duration::from_millis(250);

/// Settles what an earlier actor left behind, then runs the worker until it ends, is stopped, or the
/// service ends.
pub(super) async fn run<B: Backend>(
    around: &Surroundings<B>,
    worker: &WorkerRef,
    inputs: watch::Receiver<Sequence>,
    stop: watch::Receiver<Option<StopMode>>,
) {
    let state = || around.log.views().worker(&worker.runtime_id, &worker.worker_id);
    if let Some(left) = state().filter(|state| is_left_over(state)) {
        reconcile::settle(around, &left, stop.clone()).await;
    }
    let Some(state) = state().filter(|state| wants_actor(state)) else { return };
    if stop.borrow().is_some() {
        return;
    }
    let turns = Turns::default();
    let outlet = LogOutlet { around: around.clone(), worker: worker.clone(), turns: turns.clone() };
    let spec = match spec_of(around, worker, state.spec.template.as_deref()) {
        Ok(spec) => spec,
        Err(message) => {
            let failed = vec![
                Outcome::SpawnFailed { message: message.clone() },
                Outcome::AllInputsFailed { message },
            ];
            let _ = outlet.submit(failed).await;
            return;
        }
    };
    let inlet = LogInlet {
        log: Arc::clone(&around.log),
        worker: state.ordinal,
        taken: state.settled,
        turns,
        inputs,
    };
    let ended = around.backend.run(spec, state.turn + 1, inlet, outlet.clone(), stop).await;
    tracing::debug!(worker = %worker.worker_id, ?ended, "a backend ended");
    let over = "the worker ended before this input could be given to it";
    let last = match ended {
        Ended::SpawnFailed | Ended::Exited(_) => Outcome::AllInputsFailed { message: over.into() },
        Ended::Stopped | Ended::Closed => {
            Outcome::Interrupted { reason: "service_stopped", again: false }
        }
    };
    let _ = outlet.submit(vec![last]).await;
}

fn spec_of<B>(
    around: &Surroundings<B>,
    worker: &WorkerRef,
    template: Option<&str>,
) -> Result<ExecSpec, String> {
    let name = template.ok_or("the worker has no template")?;
    let exec = around.manifest.read().exec_of(name).cloned().ok_or_else(|| {
        format!("template `{name}` cannot be started any more: the manifest has no `exec` for it")
    })?;
    Ok(ExecSpec {
        argv: exec.argv.clone(),
        mode: exec.mode.into(),
        framing: exec.framing.into(),
        env: exec.env.clone(),
        work_dir: around.work_dir.join(worker.worker_id.as_str()),
        turn_idle: exec.turn_idle_ms.map_or(TURN_IDLE, Duration::from_millis),
        stop_grace: exec.stop_grace_ms.map_or(around.stop_grace, Duration::from_millis),
    })
}

/// Reads a worker's accepted inputs from the log, in order.
struct LogInlet {
    log: Arc<Log>,
    worker: u32,
    taken: Sequence,
    turns: Turns,
    inputs: watch::Receiver<Sequence>,
}

impl LogInlet {
    /// The next accepted input that is in the log; none if there is none yet. Remembers how far
    /// it has looked, so that output in between is passed over once.
    async fn look(&mut self) -> Option<Input> {
        loop {
            let head = self.log.head();
            if self.taken >= head {
                return None;
            }
            let read = self.log.worker_records(self.worker, self.taken, head, MARKS_PER_READ);
            let slice = match read.await {
                Ok(slice) => slice,
                Err(error) => {
                    tracing::error!(%error, "a worker's inputs cannot be read; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let next = slice.records.iter().find_map(|logged| match &logged.record.header.event {
                Event::WorkerInputAccepted(accepted) => Some((accepted.kind, &logged.record)),
                _ => None,
            });
            let Some((kind, record)) = next else {
                self.taken = slice.through;
                continue;
            };
            let content = match self.log.content(record).await {
                Ok(content) => content.unwrap_or_default(),
                Err(error) => {
                    tracing::error!(%error, "an input cannot be read; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let (seq, message_id) = (record.seq(), record.header.id.to_string());
            self.taken = seq;
            self.turns.taken(record);
            return Some(Input { seq, message_id, kind, content });
        }
    }
}

impl Inlet for LogInlet {
    async fn next(&mut self) -> Option<Input> {
        loop {
            // Marked as seen before looking, so that what comes in between wakes it again.
            self.inputs.mark_unchanged();
            if let Some(input) = self.look().await {
                return Some(input);
            }
            self.inputs.changed().await.ok()?;
        }
    }
}

/// Turns a backend's reports into commands, and waits until they are durable.
#[derive(Clone)]
struct LogOutlet<B> {
    around: Surroundings<B>,
    worker: WorkerRef,
    turns: Turns,
}

impl<B: Backend> LogOutlet<B> {
    async fn submit(&self, outcomes: Vec<Outcome>) -> Result<(), Closed> {
        let span = self.turns.of(&outcomes);
        reports::submit(&self.around, &self.worker, outcomes).instrument(span).await
    }

    async fn outcome(&self, report: Report) -> Result<Outcome, Closed> {
        Ok(match report {
            Report::Connected { process } => Outcome::Connected { backend: "process", process },
            Report::SpawnFailed { message } => Outcome::SpawnFailed { message },
            Report::Dispatching { input, turn, .. } => Outcome::Dispatching { input, turn },
            Report::Started { turn, process } => Outcome::Started { turn, process },
            Report::Output { turn, kind, content } => {
                let media = match kind {
                    OutputKind::TextDelta => MediaType::Text,
                    _ => MediaType::Json,
                };
                let content = self.keep(media, content).await?;
                Outcome::Output { turn, kind, content }
            }
            Report::TextDone { turn } => Outcome::TextDone { turn },
            Report::TurnEnded { turn, result, exit } => Outcome::TurnEnded { turn, result, exit },
            Report::Diagnosed { source, text } => {
                let content = self.keep(MediaType::Text, text.into()).await?;
                Outcome::Diagnosed { source, content }
            }
            Report::InputFailed { input, message } => Outcome::InputFailed { input, message },
            Report::Exited { exit } => Outcome::Exited { exit },
        })
    }

    async fn keep(
        &self,
        media: MediaType,
        bytes: Bytes,
    ) -> Result<acta_events::StoredContent, Closed> {
        loop {
            match self.around.log.keep(media, bytes.clone()).await {
                Ok(content) => return Ok(content),
                Err(_) if self.around.engine.is_closed() => return Err(Closed),
                // It has been logged; the worker waits until there is room again.
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }
}

impl<B: Backend> Outlet for LogOutlet<B> {
    async fn report(&mut self, reports: Vec<Report>) -> Result<(), Closed> {
        let mut outcomes = Vec::with_capacity(reports.len());
        for report in reports {
            outcomes.push(self.outcome(report).await?);
        }
        self.submit(outcomes).await
    }
}

impl From<manifest::Mode> for backend::Mode {
    fn from(mode: manifest::Mode) -> Self {
        match mode {
            manifest::Mode::Session => Self::Session,
            manifest::Mode::PerInput => Self::PerInput,
        }
    }
}

impl From<manifest::Framing> for backend::Framing {
    fn from(framing: manifest::Framing) -> Self {
        match framing {
            manifest::Framing::Text => Self::Text,
            manifest::Framing::Jsonl => Self::Jsonl,
        }
    }
}
