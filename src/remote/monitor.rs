//! Looks after the other services: one question each, every few seconds, none waiting for another.

use super::{
    LOOK_INTERVAL, Remotes, Seen,
    call::{Asked, RemoteError},
    wire::RuntimeAnswer,
};
use crate::log::Log;
use acta_events::{RemoteAddress, RuntimeId};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::oneshot, time::MissedTickBehavior};

/// Ends the looking.
#[derive(Debug)]
pub struct MonitorOwner {
    shutdown: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl MonitorOwner {
    /// Looks at every other service that the log knows of.
    pub fn start(remotes: Remotes, log: Arc<Log>) -> Self {
        let (shutdown, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = run(remotes, log) => {}
                _ = stopped => {}
            }
        });
        Self { shutdown, task }
    }

    /// No question is asked any more.
    pub async fn close(self) {
        drop(self.shutdown);
        if self.task.await.is_err() {
            tracing::error!("the task that looks after other services ended in a panic");
        }
    }
}

async fn run(remotes: Remotes, log: Arc<Log>) {
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let known = known(&log);
        remotes.seen.write().retain(|runtime, _| known.contains_key(runtime));
        let looks: FuturesUnordered<_> =
            known.iter().map(|(runtime, address)| remotes.look(runtime, address)).collect();
        looks.collect::<()>().await;
    }
}

fn known(log: &Log) -> BTreeMap<RuntimeId, RemoteAddress> {
    let views = log.views().read();
    let remote = |(id, runtime): (&RuntimeId, &acta_projections::RuntimeState)| {
        runtime.remote.clone().map(|remote| (id.clone(), remote))
    };
    views.runtimes.iter().filter_map(remote).collect()
}

impl Remotes {
    /// Asks a service how its runtime is, and remembers it.
    pub(crate) async fn look(&self, runtime: &RuntimeId, address: &RemoteAddress) {
        let seen = match self.ask::<RuntimeAnswer>(address, Asked::get(&["runtime"])).await {
            Ok(answer) => {
                let there = answer.body.runtime;
                let running = there.status == "running";
                Seen { runtime: Some(there.runtime_id), running, problem: None }
            }
            Err(problem) => Seen { runtime: None, running: false, problem: Some(problem) },
        };
        self.note(runtime, address, seen);
    }

    /// What an operation has found out, so that the lists tell without waiting for the next look.
    pub(crate) fn found(&self, runtime: &RuntimeId, address: &RemoteAddress, error: &RemoteError) {
        if !error.is_refusal() {
            let problem = Some(error.clone());
            self.note(runtime, address, Seen { runtime: None, running: false, problem });
        }
    }

    fn note(&self, runtime: &RuntimeId, address: &RemoteAddress, mut now: Seen) {
        let mut seen = self.seen.write();
        let before = seen.get(runtime).filter(|(at, _)| at == address).map(|(_, seen)| seen);
        if let Some(before) = before {
            if before.problem.is_some() != now.problem.is_some() {
                match &now.problem {
                    Some(problem) => tracing::warn!(%runtime, %problem, "a runtime is unavailable"),
                    None => tracing::info!(%runtime, "a runtime is available again"),
                }
            }
            now.runtime = now.runtime.or_else(|| before.runtime.clone());
        }
        seen.insert(runtime.clone(), (address.clone(), now));
    }
}
