//! A model of dispatch and its backends: what it does, and when, is decided by dice, but by the
//! rules of the real one. It is woken by the log, knows nothing but the views, reports by commands, has one
//! report of a worker under way at a time, and settles what a crash left before anything else.

use super::super::history::{id, text};
use crate::{
    command::{Command, Outcome},
    feed::{Filter, Follower},
    log::Log,
};
use acta_events::{
    Event, OutputKind, ProcessRef, Record, RuntimeId, Sequence, TurnResult, WorkerId, WorkerRef,
};
use acta_projections::{Child, WorkerState, WorkerStatus};
use rand::{Rng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Its workers are in a runtime of their own, in which no other command of a run meddles.
pub(super) const RUNTIME: &str = "dispatched";

fn worker(n: u8) -> WorkerRef {
    WorkerRef { runtime_id: id(RUNTIME), worker_id: id(&format!("d{n}")) }
}

pub(super) fn create(n: u8) -> Command {
    let created = Box::new(super::super::history::created(Some("echo")));
    Command::CreateWorker { worker: worker(n), created, texts: None }
}

pub(super) fn input(n: u8, words: usize) -> Command {
    let content = text(&"word ".repeat(words + 1));
    Command::Input { worker: worker(n), kind: acta_events::InputKind::User, content }
}

pub(super) struct Dispatch {
    follower: Follower,
    /// Workers about which there was news and that are not known to be done.
    awake: BTreeSet<WorkerId>,
    /// What the last run left behind.
    to_settle: BTreeSet<WorkerId>,
    /// Reports under way, by the number of their command.
    under_way: BTreeMap<usize, Reporting>,
    /// Of whom the next command tells.
    reporting: Option<Reporting>,
}

struct Reporting {
    worker: WorkerId,
    settles: bool,
}

fn follower(log: &Arc<Log>, after: Sequence) -> Follower {
    let filter = Filter { runtime: Some(id(RUNTIME)), ..Filter::default() };
    Follower::new(Arc::clone(log), filter, None, after)
}

fn states(log: &Log) -> Vec<Arc<WorkerState>> {
    log.views().read().workers.of(&id::<RuntimeId>(RUNTIME), None).cloned().collect()
}

impl Dispatch {
    pub(super) fn new(log: &Arc<Log>) -> Self {
        Self {
            follower: follower(log, Sequence::ZERO),
            awake: BTreeSet::new(),
            to_settle: BTreeSet::new(),
            under_way: BTreeMap::new(),
            reporting: None,
        }
    }

    /// The service starts: from the views, and from the head on.
    pub(super) fn restart(&mut self, log: &Arc<Log>) {
        *self = Self { follower: follower(log, log.head()), ..Self::new(log) };
        for state in states(log) {
            self.to_settle.insert(state.worker.clone());
            self.awake.insert(state.worker.clone());
        }
    }

    /// Reads on.
    pub(super) async fn look(&mut self) {
        while !self.follower.caught_up() {
            for logged in self.follower.read().await.unwrap() {
                self.awake.extend(logged.record.header.worker.clone());
            }
        }
    }

    pub(super) fn gave(&mut self, n: usize) {
        let reporting = self.reporting.take().expect("somebody reports");
        self.under_way.insert(n, reporting);
    }

    pub(super) fn answered(&mut self, n: usize) {
        self.under_way.remove(&n);
    }

    /// The outcome is unknown, or nothing was written: the views tell what is left to do.
    pub(super) fn lost(&mut self, n: usize) {
        if let Some(Reporting { worker, settles }) = self.under_way.remove(&n) {
            if settles {
                self.to_settle.insert(worker.clone());
            }
            self.awake.insert(worker);
        }
    }

    /// The next report of one of those that are awake.
    pub(super) async fn next(&mut self, log: &Arc<Log>, dice: &mut StdRng) -> Option<Command> {
        let busy = self.under_way.values().map(|reporting| reporting.worker.clone()).collect();
        let awake: Vec<_> = self.awake.difference(&busy).cloned().collect();
        let worker_id = awake.get(dice.random_range(0..awake.len().max(1)))?.clone();
        let state = log.views().worker(&id(RUNTIME), &worker_id)?;
        let settles = self.to_settle.remove(&worker_id) && is_left_over(&state);
        let outcomes = if settles { settled(&state) } else { proceeds(log, &state, dice).await };
        if outcomes.is_empty() {
            self.awake.remove(&worker_id);
            return None;
        }
        self.reporting = Some(Reporting { worker: worker_id.clone(), settles });
        let worker = WorkerRef { runtime_id: id(RUNTIME), worker_id };
        Some(Command::Report { worker, outcomes })
    }

    /// Nothing is left to do, and nobody was forgotten.
    pub(super) fn is_idle(&self, log: &Log) -> bool {
        let idle = |state: &WorkerState| state.pending == 0 && state.open_turn.is_none();
        self.awake.is_empty()
            && self.under_way.is_empty()
            && self.follower.caught_up()
            && states(log).iter().all(|state| idle(state))
    }
}

fn is_left_over(state: &WorkerState) -> bool {
    state.process.is_some() || state.open_turn.is_some() || state.child == Child::Ready
}

/// What a service records of a worker that was at work when the one before it ended.
fn settled(state: &WorkerState) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    if let Some(open) = state.open_turn
        && state.open_text.is_some()
    {
        outcomes.push(Outcome::TextDone { turn: open.turn });
    }
    outcomes.push(Outcome::Interrupted { reason: "service_lost", again: false });
    outcomes
}

/// What a backend does next.
async fn proceeds(log: &Arc<Log>, state: &WorkerState, dice: &mut StdRng) -> Vec<Outcome> {
    if state.status != WorkerStatus::Running {
        return Vec::new();
    }
    match (state.child, state.open_turn) {
        (Child::Lost, _) if state.pending == 0 => Vec::new(),
        (Child::Starting | Child::Lost, _) => {
            let process = ProcessRef { pid: 7, started_ticks: 1, boot: "boot".into() };
            vec![Outcome::Connected { backend: "simulated", process: Some(process) }]
        }
        (Child::Ready, Some(open)) if dice.random() => {
            let content = text(&"x".repeat(dice.random_range(1..600)));
            vec![Outcome::Output { turn: open.turn, kind: OutputKind::TextDelta, content }]
        }
        (Child::Ready, Some(open)) => {
            let mut outcomes = Vec::new();
            if state.open_text.is_some() {
                outcomes.push(Outcome::TextDone { turn: open.turn });
            }
            let result = TurnResult::Finished;
            outcomes.push(Outcome::TurnEnded { turn: open.turn, result, exit: None });
            outcomes
        }
        (Child::Ready, None) => match next_input(log, state).await {
            Some(input) => vec![Outcome::Dispatching { input, turn: state.turn + 1 }],
            None => Vec::new(),
        },
        (Child::Unconnected | Child::Failed | Child::Finished | Child::Broken, _) => Vec::new(),
    }
}

/// The first accepted input after those that were dispatched, from the log.
async fn next_input(log: &Arc<Log>, state: &WorkerState) -> Option<Sequence> {
    let mut after = state.settled;
    while after < log.head() {
        let slice = log.worker_records(state.ordinal, after, log.head(), 16).await.unwrap();
        let is_input =
            |record: &Record| matches!(record.header.event, Event::WorkerInputAccepted(_));
        if let Some(found) = slice.records.iter().find(|logged| is_input(&logged.record)) {
            return Some(found.record.seq());
        }
        after = slice.through;
    }
    None
}

/// An input is dispatched once, after it was accepted, and in order; and between a fork and the word
/// of an operator nothing is done.
pub(super) fn check(records: &[Arc<Record>]) {
    let mut is_paused = false;
    let mut accepted: BTreeMap<&WorkerId, Vec<Sequence>> = BTreeMap::new();
    let mut dispatched: BTreeMap<&WorkerId, Vec<Sequence>> = BTreeMap::new();
    for record in records {
        let header = &record.header;
        match &header.event {
            Event::LogForked(_) => is_paused = true,
            Event::DispatchResumed(_) => is_paused = false,
            _ => {}
        }
        let Some(worker) = header.worker.as_ref() else { continue };
        if header.runtime.as_ref().is_none_or(|runtime| runtime.as_str() != RUNTIME) {
            continue;
        }
        match &header.event {
            Event::WorkerInputAccepted(_) => accepted.entry(worker).or_default().push(record.seq()),
            Event::WorkerInputDispatched(given) => {
                assert!(!is_paused, "{} is done while dispatch is paused", record.seq());
                dispatched.entry(worker).or_default().push(given.input);
            }
            _ => {}
        }
    }
    for (worker, dispatched) in dispatched {
        assert!(accepted[worker].starts_with(&dispatched), "{worker}: {dispatched:?}");
    }
}
