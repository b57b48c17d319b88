//! Dispatch over a real engine, with a backend that does what a test tells it.

use super::{DispatchOwner, Kills, Surroundings};
use crate::{
    backend::{Backend, Ended, ExecSpec, Inlet, LeftoverEnd, Outlet, Report, StopMode},
    command::{Command, Outcome, Request},
    engine::{
        Engine, QueueLimits, SystemClock,
        tests::history::{create, id, input, memory_log, register, request, worker},
    },
    log::Log,
    manifest::Manifest,
};
use acta_events::{Event, ProcessRef, WorkerRef};
use acta_projections::{Child, WorkerState};
use parking_lot::{Mutex, RwLock};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::watch;

const DEADLINE: Duration = Duration::from_secs(60);
const GRACE_MS: u64 = 40_000;
const STUBBORN: u32 = 1_000;

/// What is asked of it, and what it does then.
#[derive(Clone, Default)]
struct Stage(Arc<Mutex<Scene>>);

#[derive(Default)]
struct Scene {
    /// The workers that are run now.
    running: BTreeSet<String>,
    /// Of which processes the end was asked for, with the grace.
    asked: Vec<(u32, Duration)>,
    /// The next run ends in a panic.
    panics: bool,
}

/// A worker that is run, until this is dropped.
struct OnStage(Stage, String);

impl Drop for OnStage {
    fn drop(&mut self) {
        self.0.0.lock().running.remove(&self.1);
    }
}

impl Backend for Stage {
    async fn run(
        &self,
        spec: ExecSpec,
        first_turn: u64,
        mut inlet: impl Inlet,
        mut outlet: impl Outlet,
        mut stop: watch::Receiver<Option<StopMode>>,
    ) -> Ended {
        let name = spec.work_dir.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(self.0.lock().running.insert(name.clone()), "{name} is run twice");
        let _on_stage = OnStage(self.clone(), name);
        let process = Some(process(1));
        outlet.report(vec![Report::Connected { process: process.clone() }]).await.unwrap();
        for turn in first_turn.. {
            let input = tokio::select! {
                _ = stop.wait_for(Option::is_some) => break,
                input = inlet.next() => input.unwrap(),
            };
            let process = process.clone();
            let dispatching = Report::Dispatching { input: input.seq, turn, process };
            outlet.report(vec![dispatching]).await.unwrap();
            assert!(!std::mem::take(&mut self.0.lock().panics), "as the test wants it");
            let result = acta_events::TurnResult::Finished;
            outlet.report(vec![Report::TurnEnded { turn, result, exit: None }]).await.unwrap();
        }
        Ended::Stopped
    }

    async fn end_leftover(&self, process: &ProcessRef, grace: Duration) -> LeftoverEnd {
        self.0.lock().asked.push((process.pid, grace));
        match process.pid {
            STUBBORN => {
                tokio::time::sleep(grace).await;
                LeftoverEnd::Killed
            }
            _ => LeftoverEnd::Gone,
        }
    }
}

fn process(pid: u32) -> ProcessRef {
    ProcessRef { pid, started_ticks: 1, boot: "test".into() }
}

struct Service {
    log: Arc<Log>,
    engine: Engine,
    stage: Stage,
    around: Surroundings<Stage>,
}

impl Service {
    fn new() -> Self {
        let log = memory_log();
        let engine = Engine::start(Arc::clone(&log), QueueLimits::default(), SystemClock).unwrap();
        let stage = Stage::default();
        let manifest = format!(
            r#"{{"workspace_templates": [{{"name": "echo",
                "exec": {{"argv": ["echo"], "mode": "session", "stop_grace_ms": {GRACE_MS}}}}}]}}"#
        );
        let around = Surroundings {
            backend: stage.clone(),
            log: Arc::clone(&log),
            engine: engine.handle(),
            manifest: Arc::new(RwLock::new(Arc::new(Manifest::parse(&manifest).unwrap()))),
            runtime: id("r"),
            work_dir: "nowhere".into(),
            kills: Kills::default(),
            stop_grace: Duration::from_millis(100),
        };
        Self { log, engine, stage, around }
    }

    async fn submit(&self, command: Command) {
        self.engine.handle().submit(request(command)).await.unwrap();
    }

    async fn report(&self, worker: WorkerRef, outcomes: Vec<Outcome>) {
        let report = Request::service(Command::Report { worker, outcomes });
        self.engine.handle().submit(report).await.unwrap();
    }

    /// A worker whose process was serving an input when the service was lost.
    async fn left_over(&self, n: u8, pid: u32) {
        self.submit(create(n)).await;
        let process = Some(process(pid));
        let connected = Outcome::Connected { backend: "process", process: process.clone() };
        self.report(worker(n), vec![connected]).await;
        self.submit(input(n, "work")).await;
        let given = self.log.head();
        self.report(worker(n), vec![Outcome::Dispatching { input: given, turn: 1 }]).await;
    }

    fn state(&self, n: u8) -> Arc<WorkerState> {
        self.log.views().worker(&id("r"), &worker(n).worker_id).unwrap()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "never: {what}");
    }

    fn asked(&self) -> Vec<(u32, Duration)> {
        self.stage.0.lock().asked.clone()
    }

    async fn close(self) {
        tokio::task::spawn_blocking(move || self.engine.close()).await.unwrap();
    }
}

/// All turns of this worker that were interrupted.
async fn interrupted(service: &Service, n: u8) -> usize {
    let (log, state) = (&service.log, service.state(n));
    let records = log.worker_records(state.ordinal, acta_events::Sequence::ZERO, log.head(), 100);
    let records = records.await.unwrap().records;
    let is_one = |event: &Event| matches!(event, Event::WorkerInterrupted(_));
    records.iter().filter(|logged| is_one(&logged.record.header.event)).count()
}

/// One process that takes its time to end delays neither what is new nor the other leftovers; it gets
/// the grace of its template, and none once it is to be killed.
#[tokio::test]
async fn a_leftover_keeps_nobody_waiting() {
    let service = Service::new();
    service.submit(register("r")).await;
    service.left_over(0, STUBBORN).await;
    service.left_over(1, 1_001).await;
    let dispatch = DispatchOwner::start(service.around.clone());
    service.submit(create(2)).await;
    service.submit(input(2, "hello")).await;
    let is_done = |service: &Service, n| {
        let state = service.state(n);
        state.pending == 0 && state.open_turn.is_none() && state.turn > 0
    };
    service.until("the new one has served its input", |service| is_done(service, 2)).await;
    service.until("the other is settled", |service| service.state(1).child == Child::Lost).await;
    assert_eq!(interrupted(&service, 1).await, 1);
    assert!(service.state(0).process.is_some(), "it has {GRACE_MS} ms to end");

    service.submit(input(0, "more")).await;
    service.submit(Command::Stop { worker: worker(0), reason: None }).await;
    service.around.kills.force(&worker(0));
    service.until("it is killed", |service| service.state(0).process.is_none()).await;
    let (grace, none) = (Duration::from_millis(GRACE_MS), Duration::ZERO);
    let mut asked = service.asked();
    asked.sort();
    assert_eq!(asked, [(STUBBORN, none), (STUBBORN, grace), (1_001, grace)]);
    assert!(!service.stage.0.lock().running.contains("w0"), "it was stopped meanwhile");
    dispatch.close().await;
    service.close().await;
}

/// The end of the service does not wait for the whole grace of a leftover, and starts nothing.
#[tokio::test]
async fn the_end_of_the_service_is_not_kept_waiting_either() {
    let service = Service::new();
    service.submit(register("r")).await;
    service.left_over(0, STUBBORN).await;
    service.submit(input(0, "more")).await;
    let dispatch = DispatchOwner::start(service.around.clone());
    service.until("it is settled", |service| !service.asked().is_empty()).await;
    let closed = tokio::time::timeout(Duration::from_millis(GRACE_MS / 2), dispatch.close()).await;
    assert!(closed.is_ok(), "it waits for the grace");
    assert_eq!(interrupted(&service, 0).await, 1);
    assert_eq!(service.state(0).pending, 1, "the next start gives it");
    service.close().await;
}

/// A defect in what runs a worker ends that run only.
#[tokio::test]
async fn a_worker_goes_on_after_a_panic() {
    let service = Service::new();
    service.submit(register("r")).await;
    let dispatch = DispatchOwner::start(service.around.clone());
    service.submit(create(0)).await;
    service.stage.0.lock().panics = true;
    service.submit(input(0, "one")).await;
    service.until("it panics", |service| !service.stage.0.lock().panics).await;
    service.until("it is over", |service| service.stage.0.lock().running.is_empty()).await;
    service.submit(input(0, "two")).await;
    let all_done = |service: &Service| {
        let state = service.state(0);
        state.pending == 0 && state.open_turn.is_none() && state.turn == 2
    };
    service.until("the second input is served", all_done).await;
    assert_eq!(interrupted(&service, 0).await, 1);
    assert_eq!(service.asked().len(), 1, "its process is looked for");
    dispatch.close().await;
    service.close().await;
}
