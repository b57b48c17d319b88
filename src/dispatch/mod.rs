//! Dispatch: from durable events to work in the world.
//!
//! One task follows the log. A worker that has something to do gets an actor, which runs its
//! backend and turns what the backend reports into commands. An intent is in the log before
//! anything happens, and how far it has been acted upon is in the log too: dispatch has no
//! state of its own that could be lost, and after a crash it begins with the views.

mod actor;
mod preview;
mod reconcile;
mod reports;
#[cfg(test)]
mod tests;
mod traced;

pub use preview::{Intent, Preview, preview};

use crate::{
    backend::{Backend, StopMode},
    command::{Command, Request},
    engine::EngineHandle,
    feed::{Filter, Follower},
    log::Log,
    manifest::Manifest,
};
use acta_events::{Event, Record, RuntimeId, Sequence, WorkerRef};
use acta_projections::{Child, WorkerState, WorkerStatus};
use parking_lot::RwLock;
use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::{JoinError, JoinSet},
};

/// What dispatch works with.
#[derive(Clone)]
pub struct Surroundings<B> {
    /// What runs workers.
    pub backend: B,
    /// The durable log.
    pub log: Arc<Log>,
    /// Where outcomes go.
    pub engine: EngineHandle,
    /// What workers can be made from.
    pub manifest: Arc<RwLock<Arc<Manifest>>>,
    /// The runtime whose workers are run here.
    pub runtime: RuntimeId,
    /// Where the working directories of children are made.
    pub work_dir: PathBuf,
    /// Who wants workers ended at once.
    pub kills: Kills,
    /// Time between SIGTERM and SIGKILL, where the template does not say.
    pub stop_grace: Duration,
}

/// Ends workers that were stopped without their grace period. What is wished for is not kept: a
/// child that outlives the service is killed by the next start anyway.
#[derive(Clone, Debug)]
pub struct Kills(broadcast::Sender<WorkerRef>);

impl Default for Kills {
    fn default() -> Self {
        Self(broadcast::channel(KILLS_WAITING_MAX).0)
    }
}

impl Kills {
    /// Kills what runs a worker that was stopped.
    pub fn force(&self, worker: &WorkerRef) {
        // Nobody listens only when the service is ending, which stops everything.
        drop(self.0.send(worker.clone()));
    }
}

/// How many wishes may wait; of more, the oldest get their grace period.
const KILLS_WAITING_MAX: usize = 1_024;

/// How many records of one worker are looked at in one go.
const MARKS_PER_READ: usize = 256;

struct Actor {
    task: tokio::task::Id,
    inputs: watch::Sender<Sequence>,
    stop: watch::Sender<Option<StopMode>>,
}

/// The task that follows the log.
pub struct Dispatch<B> {
    around: Surroundings<B>,
    actors: HashMap<WorkerRef, Actor>,
    tasks: JoinSet<WorkerRef>,
    /// Workers that got an input or were created while their last actor was ending.
    again: HashMap<WorkerRef, Sequence>,
}

/// Ends dispatch, with all children.
#[derive(Debug)]
pub struct DispatchOwner {
    shutdown: mpsc::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl DispatchOwner {
    /// Reconciles what was running when the service last ended, then follows the log.
    pub fn start<B: Backend>(around: Surroundings<B>) -> Self {
        let (shutdown, stopped) = mpsc::channel(1);
        Self { shutdown, task: tokio::spawn(Dispatch::new(around).run(stopped)) }
    }

    /// Stops all children, gracefully, then by force, and ends.
    pub async fn close(self) {
        drop(self.shutdown);
        if self.task.await.is_err() {
            tracing::error!("dispatch ended in a panic");
        }
    }
}

impl<B: Backend> Dispatch<B> {
    pub(crate) fn new(around: Surroundings<B>) -> Self {
        Self { around, actors: HashMap::new(), tasks: JoinSet::new(), again: HashMap::new() }
    }

    /// Until it is told to end. Should this be dropped, everything ends at once.
    pub(crate) async fn run(mut self, mut shutdown: mpsc::Receiver<()>) {
        let log = Arc::clone(&self.around.log);
        tokio::select! {
            biased;
            _ = shutdown.recv() => return,
            () = log.until_resumed() => {}
        }
        let head = self.around.log.head();
        let mut kills = self.around.kills.0.subscribe();
        self.take_over(head);
        let log = Arc::clone(&self.around.log);
        let filter = Filter { runtime: Some(self.around.runtime.clone()), ..Filter::default() };
        let mut follower = Follower::new(log, filter, None, head).holding();
        loop {
            match follower.read().await {
                Ok(records) => {
                    for logged in records {
                        self.take_in(&logged.record);
                    }
                }
                Err(error) => {
                    // What is durable and recent is in memory; this is damage on the disk.
                    tracing::error!(%error, "dispatch cannot read the log; it tries again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            self.around.engine.metrics().dispatched(follower.position());
            if !follower.caught_up() {
                continue;
            }
            // What is rare comes first, so that a busy log does not keep it waiting.
            tokio::select! {
                biased;
                _ = shutdown.recv() => break,
                Ok(worker) = kills.recv() => self.kill(&worker),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    self.actor_ended(ended);
                }
                more = follower.wait() => if !more { break },
            }
        }
        self.stop_all().await;
    }

    /// Goes on with what the last run of the service left behind. A worker whose process takes its time to end
    /// keeps no other one waiting.
    fn take_over(&mut self, head: Sequence) {
        let workers: Vec<WorkerRef> = {
            let views = self.around.log.views().read();
            let of = views.workers.of(&self.around.runtime, None);
            of.filter(|worker| worker.spec.template.is_some())
                .filter(|worker| is_left_over(worker) || wants_actor(worker))
                .map(|worker| address(worker))
                .collect()
        };
        for worker in workers {
            self.begin(&worker, head);
        }
    }

    fn take_in(&mut self, record: &Arc<Record>) {
        let (Some(runtime_id), Some(worker_id)) = (&record.header.runtime, &record.header.worker)
        else {
            if let Event::RuntimeStopped(_) = record.header.event {
                self.stop_runtime();
            }
            return;
        };
        let worker = || WorkerRef { runtime_id: runtime_id.clone(), worker_id: worker_id.clone() };
        match &record.header.event {
            Event::WorkerCreated(created) if created.template.is_some() => {
                self.begin(&worker(), record.seq());
            }
            Event::WorkerInputAccepted(_) => self.begin(&worker(), record.seq()),
            Event::WorkerStopped(_) | Event::WorkerCancelled(_) => {
                if let Some(actor) = self.actors.get(&worker()) {
                    actor.stop.send_if_modified(|stop| {
                        stop.is_none() && stop.replace(StopMode::Graceful).is_none()
                    });
                }
            }
            _ => {}
        }
    }

    /// The stop is in the log before anybody wishes for this; nothing else is killed.
    fn kill(&self, worker: &WorkerRef) {
        let state = self.around.log.views().worker(&worker.runtime_id, &worker.worker_id);
        let stopped = state.is_some_and(|state| state.status != WorkerStatus::Running);
        if let Some(actor) = self.actors.get(worker).filter(|_| stopped) {
            actor.stop.send_replace(Some(StopMode::Force));
        }
    }

    /// Makes sure that the worker has an actor that knows of records up to `seq`.
    fn begin(&mut self, worker: &WorkerRef, seq: Sequence) {
        if let Some(actor) = self.actors.get(worker) {
            // An actor that is about to end may not look any more, so it is remembered too.
            self.again.insert(worker.clone(), seq);
            actor.inputs.send_replace(seq);
            return;
        }
        let (inputs, inputs_seen) = watch::channel(seq);
        let (stop, stop_seen) = watch::channel(None);
        let (around, of) = (self.around.clone(), worker.clone());
        let task = self.tasks.spawn(async move {
            actor::run(&around, &of, inputs_seen, stop_seen).await;
            of
        });
        self.actors.insert(worker.clone(), Actor { task: task.id(), inputs, stop });
    }

    /// What an actor that ended in a panic left behind is settled by the next one.
    fn actor_ended(&mut self, ended: Result<WorkerRef, JoinError>) {
        let worker = match ended {
            Ok(worker) => worker,
            Err(error) => {
                let of = |(_, actor): &(&WorkerRef, &Actor)| actor.task == error.id();
                let Some((worker, _)) = self.actors.iter().find(of) else { return };
                let worker = worker.clone();
                tracing::error!(worker = %worker.worker_id, %error, "an actor ended in a panic; its worker goes on with its next input");
                worker
            }
        };
        self.actors.remove(&worker);
        let Some(seq) = self.again.remove(&worker) else { return };
        let views = self.around.log.views();
        let state = views.worker(&worker.runtime_id, &worker.worker_id);
        if state.is_some_and(|state| wants_actor(&state)) {
            self.begin(&worker, seq);
        }
    }

    /// Stops every worker of a runtime that takes no more work.
    fn stop_runtime(&self) {
        let around = self.around.clone();
        let running: Vec<WorkerRef> = {
            let views = around.log.views().read();
            let of = views.workers.of(&around.runtime, None);
            of.filter(|worker| worker.status == WorkerStatus::Running)
                .map(|worker| address(worker))
                .collect()
        };
        tokio::spawn(async move {
            for worker in running {
                let stop = Request::service(Command::Stop { worker, reason: None });
                if let Err(error) = around.engine.submit_patiently(stop).await {
                    tracing::error!(%error, "a worker of a stopped runtime could not be stopped");
                }
            }
        });
    }

    async fn stop_all(&mut self) {
        for actor in self.actors.values() {
            actor.stop.send_if_modified(|stop| {
                stop.is_none() && stop.replace(StopMode::Graceful).is_none()
            });
        }
        let deadline = tokio::time::sleep(self.around.stop_grace + Duration::from_secs(2));
        tokio::pin!(deadline);
        let mut forced = false;
        while !self.tasks.is_empty() {
            tokio::select! {
                _ = self.tasks.join_next() => {}
                () = &mut deadline, if !forced => {
                    forced = true;
                    for actor in self.actors.values() {
                        actor.stop.send_replace(Some(StopMode::Force));
                    }
                }
            }
        }
    }
}

/// Whether a worker that has no actor was left as if it had one: at work, at hand, or with inputs that
/// nobody will take any more.
fn is_left_over(state: &WorkerState) -> bool {
    let running = state.status == WorkerStatus::Running;
    let at_hand = running && state.child == Child::Ready;
    let inputs_are_left = running && state.pending > 0 && is_over(state.child);
    state.process.is_some() || state.open_turn.is_some() || at_hand || inputs_are_left
}

fn is_over(child: Child) -> bool {
    matches!(child, Child::Failed | Child::Finished | Child::Broken)
}

/// Whether there is anything to do for a worker that has no actor.
fn wants_actor(state: &WorkerState) -> bool {
    state.status == WorkerStatus::Running
        && match state.child {
            Child::Starting => true,
            Child::Lost | Child::Ready => state.pending > 0,
            Child::Unconnected | Child::Failed | Child::Finished | Child::Broken => false,
        }
}

fn address(worker: &WorkerState) -> WorkerRef {
    WorkerRef { runtime_id: worker.runtime.clone(), worker_id: worker.worker.clone() }
}
