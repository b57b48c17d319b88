//! The machine that workers run on: children that do what dice tell them, of which some outlive a crash of
//! the service. What they were given is known here, whatever the log says.

use crate::backend::{
    Backend, Closed, Ended, ExecSpec, Inlet, LeftoverEnd, Outlet, Report, StopMode,
};
use acta_events::{ExitStatus, OutputKind, ProcessRef, Sequence, TurnResult};
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;

const BOOT: &str = "simulated";

#[derive(Clone)]
pub(super) struct Machine(Arc<Mutex<State>>);

struct State {
    seed: u64,
    /// Children that are alive, by number, with their worker.
    alive: BTreeMap<u32, Child>,
    /// How many children each worker had.
    started: BTreeMap<String, u32>,
    /// What the children of each worker were given, in order, in this history of the log.
    given: BTreeMap<String, Vec<Sequence>>,
    /// The service is being killed: its children are not.
    is_killed: bool,
    /// All that happened, in no order that means anything.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

struct Child {
    worker: String,
    has_input: bool,
}

/// A child of this life of the service. It ends with whoever runs it.
struct Running {
    machine: Machine,
    process: ProcessRef,
    worker: String,
    dice: StdRng,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.machine.0.lock();
        if !state.is_killed {
            state.alive.remove(&self.process.pid);
        }
    }
}

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            seed,
            alive: BTreeMap::new(),
            started: BTreeMap::new(),
            given: BTreeMap::new(),
            is_killed: false,
            counts: BTreeMap::new(),
        })))
    }

    /// The service is about to be killed, or has been.
    pub(super) fn killing(&self, is_killed: bool) {
        self.0.lock().is_killed = is_killed;
    }

    /// The log goes on from an earlier record on another machine, of which this is known there.
    pub(super) fn replaced(&self, dispatched: BTreeMap<String, Vec<Sequence>>) {
        let mut state = self.0.lock();
        state.alive.clear();
        state.given = dispatched;
    }

    /// What the children of a worker were given.
    pub(super) fn given(&self) -> BTreeMap<String, Vec<Sequence>> {
        self.0.lock().given.clone()
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().counts.clone()
    }

    fn start(&self, worker: &str) -> Running {
        let mut state = self.0.lock();
        let at_work = state.alive.values().any(|child| child.worker == worker && child.has_input);
        assert!(!at_work, "a child of {worker} that was given something is still alive");
        // One that was given nothing notices that nobody talks to it any more.
        state.alive.retain(|_, child| child.worker != worker);
        let count = state.started.entry(worker.to_owned()).or_default();
        *count += 1;
        let worker_number: u32 = worker.trim_start_matches('d').parse().expect("a number");
        let pid = (worker_number + 1) * 100_000 + *count;
        let child = Child { worker: worker.to_owned(), has_input: false };
        state.alive.insert(pid, child);
        *state.counts.entry("started").or_default() += 1;
        let dice = StdRng::seed_from_u64(state.seed ^ u64::from(pid) << 20);
        let process = ProcessRef { pid, started_ticks: u64::from(pid), boot: BOOT.into() };
        Running { machine: self.clone(), process, worker: worker.to_owned(), dice }
    }
}

impl Running {
    fn is_given(&self, input: Sequence) {
        let mut state = self.machine.0.lock();
        let given = state.given.entry(self.worker.clone()).or_default();
        assert!(given.last().is_none_or(|last| *last < input), "{input} after {given:?}");
        given.push(input);
        if let Some(child) = state.alive.get_mut(&self.process.pid) {
            child.has_input = true;
        }
    }

    fn count(&self, what: &'static str) {
        *self.machine.0.lock().counts.entry(what).or_default() += 1;
    }

    async fn serve(
        &mut self,
        first_turn: u64,
        mut inlet: impl Inlet,
        mut outlet: impl Outlet,
        mut stop: watch::Receiver<Option<StopMode>>,
    ) -> Result<Ended, Closed> {
        let process = Some(self.process.clone());
        outlet.report(vec![Report::Connected { process: process.clone() }]).await?;
        for turn in first_turn.. {
            let input = tokio::select! {
                biased;
                () = stopped(&mut stop) => return Ok(Ended::Stopped),
                input = inlet.next() => input,
            };
            let Some(input) = input else { return Ok(Ended::Stopped) };
            let process = process.clone();
            outlet.report(vec![Report::Dispatching { input: input.seq, turn, process }]).await?;
            self.is_given(input.seq);
            let end = Report::TurnEnded { turn, result: TurnResult::Finished, exit: None };
            let mut said = false;
            for _ in 0..self.dice.random_range(0..6) {
                let pause = Duration::from_millis(self.dice.random_range(1..400));
                tokio::select! {
                    biased;
                    () = stopped(&mut stop) => {
                        self.count("stopped within a turn");
                        let done = said.then_some(Report::TextDone { turn });
                        outlet.report(done.into_iter().chain([end]).collect()).await?;
                        return Ok(Ended::Stopped);
                    }
                    () = tokio::time::sleep(pause) => {}
                }
                let content = "x".repeat(self.dice.random_range(1..600)).into();
                let kind = OutputKind::TextDelta;
                outlet.report(vec![Report::Output { turn, kind, content }]).await?;
                said = true;
            }
            let done = said.then_some(Report::TextDone { turn });
            outlet.report(done.into_iter().chain([end]).collect()).await?;
            if self.dice.random_ratio(1, 25) {
                self.count("exited");
                let exit = ExitStatus { code: Some(0), signal: None };
                outlet.report(vec![Report::Exited { exit }]).await?;
                return Ok(Ended::Exited(exit));
            }
        }
        Ok(Ended::Stopped)
    }
}

async fn stopped(stop: &mut watch::Receiver<Option<StopMode>>) {
    // Whoever owned the worker may be gone, which means the same.
    drop(stop.wait_for(Option::is_some).await);
}

impl Backend for Machine {
    async fn run(
        &self,
        spec: ExecSpec,
        first_turn: u64,
        inlet: impl Inlet,
        outlet: impl Outlet,
        stop: watch::Receiver<Option<StopMode>>,
    ) -> Ended {
        let worker = spec.work_dir.file_name().and_then(|name| name.to_str()).expect("a worker");
        let mut running = self.start(worker);
        running.serve(first_turn, inlet, outlet, stop).await.unwrap_or(Ended::Closed)
    }

    async fn end_leftover(&self, process: &ProcessRef, grace: Duration) -> LeftoverEnd {
        // It takes its time.
        tokio::time::sleep(grace / 2).await;
        let mut state = self.0.lock();
        *state.counts.entry("left over").or_default() += 1;
        match state.alive.remove(&process.pid) {
            Some(_) => LeftoverEnd::Terminated,
            None => LeftoverEnd::Gone,
        }
    }
}
