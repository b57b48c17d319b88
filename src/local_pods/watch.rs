//! The task that keeps the log up to date with a directory of pods.

use super::{Scan, Source, runtime_id, scan};
use crate::{
    command::{Command, Request},
    engine::EngineHandle,
    error::Rejection,
    log::Log,
};
use acta_events::{LocalPodsInspected, LocalPodsState, LocalWorkerFound, RuntimeId, WorkerId};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle};

/// Looks into a directory of pods again and again.
pub struct LocalPods {
    source: Arc<Source>,
    runtime: RuntimeId,
    log: Arc<Log>,
    engine: EngineHandle,
    /// Workers that the last look did not find. They are lost if the next one does not either: a
    /// file that is being replaced is no loss.
    missed: BTreeSet<WorkerId>,
    /// What the last look saw other than workers.
    seen: Option<LocalPodsInspected>,
    is_failing: bool,
}

/// The task; its owner ends it.
pub struct LocalPodsOwner {
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl LocalPods {
    /// Begins to look every so often.
    pub fn start(
        source: Source,
        log: Arc<Log>,
        engine: EngineHandle,
        every: Duration,
    ) -> LocalPodsOwner {
        let (end, ended) = watch::channel(false);
        let pods = Self {
            source: Arc::new(source),
            runtime: runtime_id(),
            log,
            engine,
            missed: BTreeSet::new(),
            seen: None,
            is_failing: false,
        };
        LocalPodsOwner { end, task: tokio::spawn(pods.run(every, ended)) }
    }

    async fn run(mut self, every: Duration, mut ended: watch::Receiver<bool>) {
        loop {
            let source = Arc::clone(&self.source);
            if let Ok(found) = tokio::task::spawn_blocking(move || scan(&source)).await {
                let recorded = self.record(found, &ended).await;
                self.note(recorded.err().as_ref());
            }
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    async fn record(
        &mut self,
        found: Scan,
        ended: &watch::Receiver<bool>,
    ) -> Result<(), Rejection> {
        for command in self.news(found) {
            if *ended.borrow() {
                return Ok(());
            }
            self.engine.submit(Request::service(command)).await?;
        }
        Ok(())
    }

    /// What is to be recorded. A directory that cannot be read says nothing of who is in it.
    fn news(&mut self, found: Scan) -> Vec<Command> {
        let mut commands = Vec::new();
        let is_first = self.seen.is_none();
        let is_settled = self.seen.as_ref() == Some(&found.inspected);
        self.seen = Some(found.inspected.clone());
        let views = self.log.views().read();
        if views.runtimes.get(&self.runtime).is_none() {
            return commands;
        }
        let is_news = views.local_workers.inspected(&self.runtime) != Some(&found.inspected);
        if is_news && (is_first || is_settled) {
            let (runtime, inspected) = (self.runtime.clone(), Box::new(found.inspected.clone()));
            commands.push(Command::InspectLocalPods { runtime, inspected });
        }
        if found.inspected.state == LocalPodsState::Unreadable {
            return commands;
        }
        let known = |worker: &LocalWorkerFound| {
            let known = views.local_workers.get(&self.runtime, &worker.worker);
            known.is_some_and(|known| known.found == *worker)
        };
        let missing = views.local_workers.of(&self.runtime, None);
        let missing = missing.filter(|(id, _)| !found.workers.contains_key(*id));
        let missing: BTreeSet<WorkerId> = missing.map(|(id, _)| id.clone()).collect();
        let runtime = || self.runtime.clone();
        let lost = missing.intersection(&self.missed);
        commands.extend(
            lost.map(|id| Command::LoseLocalWorker { runtime: runtime(), worker: id.clone() }),
        );
        let news = found.workers.values().filter(|worker| !known(worker));
        commands.extend(news.map(|worker| Command::FindLocalWorker {
            runtime: runtime(),
            found: Box::new(worker.clone()),
        }));
        drop(views);
        self.missed = missing;
        commands
    }

    fn note(&mut self, error: Option<&Rejection>) {
        if let Some(error) = error
            && !self.is_failing
        {
            tracing::warn!(%error, "what was found of local pods could not be recorded; trying again");
        }
        self.is_failing = error.is_some();
    }
}

impl LocalPodsOwner {
    /// Ends the task. What it is recording is waited for.
    pub async fn close(self) {
        self.end.send_replace(true);
        if self.task.await.is_err() {
            tracing::error!("the task that looks for local pods has failed");
        }
    }
}
