//! Leases: who was heard of when. In memory; only what changes is an event.
//!
//! One task looks at all leases, several times in a lease. After a start every agent that
//! counted as online has one full lease before it is declared lost.

use crate::{
    command::{Command, ExternalChange, Request},
    engine::EngineHandle,
    log::Log,
};
use acta_events::{RuntimeId, WorkerId, WorkerRef};
use acta_projections::{EXTERNAL_RUNTIME, External, Presence, WorkerStatus};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// How many leases may pass without a poll, while messages wait, before an agent counts as deaf.
const DEAF_AFTER_LEASES: u32 = 3;

/// How often leases are looked at, at most and at least.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How many changes are submitted at once.
const CHANGES_AT_ONCE: usize = 64;

/// The runtime of the workers that agents connect in for.
pub fn external_runtime() -> RuntimeId {
    RuntimeId::parse(EXTERNAL_RUNTIME).expect("a word is an identifier")
}

#[derive(Clone, Copy)]
struct Heard {
    beat: Instant,
    poll: Instant,
    waiting_since: Option<Instant>,
}

impl Heard {
    fn at(now: Instant) -> Self {
        Self { beat: now, poll: now, waiting_since: None }
    }
}

/// When each agent was heard of last. Cheap to clone.
#[derive(Clone)]
pub struct Leases {
    lease: Duration,
    heard: Arc<Mutex<HashMap<WorkerId, Heard>>>,
}

impl Leases {
    /// Nobody was heard of yet.
    pub fn new(lease: Duration) -> Self {
        Self { lease, heard: Arc::default() }
    }

    /// An agent has beaten, or registered.
    pub fn beaten(&self, worker: &WorkerId) {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        match heard.get_mut(worker) {
            Some(heard) => heard.beat = now,
            None => drop(heard.insert(worker.clone(), Heard::at(now))),
        }
    }

    /// An agent has asked for what waits.
    pub fn polled(&self, worker: &WorkerId) {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        match heard.get_mut(worker) {
            Some(heard) => heard.poll = now,
            None => drop(heard.insert(worker.clone(), Heard::at(now))),
        }
    }

    /// What has changed by nothing but time going by.
    fn overdue(&self, log: &Log, runtime: &RuntimeId) -> Vec<(WorkerId, ExternalChange)> {
        let now = Instant::now();
        let views = log.views().read();
        let mut heard = self.heard.lock();
        let mut overdue = Vec::new();
        let mut before = std::mem::take(&mut *heard);
        for worker in views.workers.of(runtime, None) {
            let Some(external) = &worker.external else { continue };
            if worker.status != WorkerStatus::Running || !external.leased {
                continue;
            }
            let (id, mut state) = before
                .remove_entry(&worker.worker)
                .unwrap_or_else(|| (worker.worker.clone(), Heard::at(now)));
            if external.waiting.is_empty() {
                state.waiting_since = None;
            } else {
                state.waiting_since.get_or_insert(now);
            }
            if let Some(change) = self.change(external, &state, now) {
                overdue.push((id.clone(), change));
            }
            heard.insert(id, state);
        }
        overdue
    }

    fn change(&self, external: &External, heard: &Heard, now: Instant) -> Option<ExternalChange> {
        if external.presence == Presence::AwaitingAgent {
            return None;
        }
        if now.saturating_duration_since(heard.beat) > self.lease {
            return Some(ExternalChange::Lost);
        }
        let silent_since = heard.poll.max(heard.waiting_since?);
        let is_deaf = external.delivery.url.is_none()
            && external.presence == Presence::Online
            && now.saturating_duration_since(silent_since) > self.lease * DEAF_AFTER_LEASES;
        is_deaf.then_some(ExternalChange::WentDeaf)
    }

    /// Whether a worker that was found lost still is.
    fn is_lost(&self, worker: &WorkerId) -> bool {
        self.heard.lock().get(worker).is_none_or(|heard| heard.beat.elapsed() > self.lease)
    }
}

/// Ends the task that looks at the leases.
#[derive(Debug)]
pub struct LeaseOwner {
    shutdown: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl LeaseOwner {
    /// Grants every agent a lease, and declares lost whose lease runs out.
    pub fn start(leases: Leases, log: Arc<Log>, engine: EngineHandle) -> Self {
        let (shutdown, stopped) = mpsc::channel(1);
        Self { shutdown, task: tokio::spawn(look(leases, log, engine, stopped)) }
    }

    /// Declares nobody lost any more.
    pub async fn close(self) {
        drop(self.shutdown);
        if self.task.await.is_err() {
            tracing::error!("the task that looks at leases ended in a panic");
        }
    }
}

async fn look(
    leases: Leases,
    log: Arc<Log>,
    engine: EngineHandle,
    mut shutdown: mpsc::Receiver<()>,
) {
    let runtime = external_runtime();
    let pause = (leases.lease / 10).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
    loop {
        let changes = leases.overdue(&log, &runtime);
        let submit = stream::iter(changes).for_each_concurrent(CHANGES_AT_ONCE, |(id, change)| {
            let (runtime_id, engine, leases) = (runtime.clone(), &engine, &leases);
            async move {
                if matches!(change, ExternalChange::Lost) && !leases.is_lost(&id) {
                    return;
                }
                let worker = WorkerRef { runtime_id, worker_id: id };
                let command = Command::External { worker, change: Box::new(change) };
                // What could not be recorded is noticed again at the next look.
                if let Err(error) = engine.submit_patiently(Request::service(command)).await {
                    tracing::warn!(%error, "a change of presence could not be recorded");
                }
            }
        });
        tokio::select! {
            () = submit => {}
            _ = shutdown.recv() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = shutdown.recv() => return,
        }
    }
}
