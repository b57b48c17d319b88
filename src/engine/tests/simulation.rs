//! The path of a command under faults, one seed a run: random commands, writes that are slow, torn,
//! refused or of unknown outcome, crashes and restarts, snapshots and restores, with followers and a
//! dispatch that have to come through all of it. After each step the invariants of DESIGN §1, 4, 7, 8 and 9 hold, and a
//! seed gives the same run twice.
//!
//! Real are deciding (`Core`), the log with views, index and ring, the read loop, the cursors, and dispatch with
//! its actors. A model stands in for what has threads or processes: for the writer's loop ([`World::commit`],
//! which goes further than the writer in that it decides behind a batch that is still being
//! written), for the disk ([`Faulty`]), for the machine that workers run on ([`machine`]), for the files of a
//! snapshot ([`restarts`]), and for the clock, which stands still unless everybody waits. `faults.rs` and
//! the tests of `tests/acta` have the real ones.
//!
//! `ACTA_SIMULATION_SECONDS=3600 cargo test --lib simulation` runs for longer, from a seed that
//! it prints; `ACTA_SIMULATION_SEED=7 cargo test --lib simulation` runs one.

mod dispatch;
mod followers;
mod invariants;
mod machine;
mod restarts;

use self::{dispatch::Dispatch, followers::Watcher, machine::Machine, restarts::Snapshot};
use super::{
    faulty::{Fate, Faulty},
    history::{LOG, create, make, moment, records, register, request, seen},
};
use crate::{
    command::Request,
    engine::core::{Batch, Core, Decided, Submission},
    index::Index,
    log::{Contents, Log},
};
use acta_events::{Digest, Sequence};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the suite simulates, and how many seeds in any case.
const SECONDS: u64 = 3;
const SEEDS_MIN: u64 = 5;
/// Steps of a run, before it is left to come to rest.
const STEPS: usize = 150;

/// Workers of dispatch at any time.
const DISPATCHED: u8 = 3;

/// Waits until nobody has anything to do at this moment.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Everything of one run.
struct World {
    dice: StdRng,
    disk: Arc<Faulty>,
    log: Arc<Log>,
    core: Core<usize>,
    in_flight: Option<Batch<usize>>,
    /// Commands that cannot be decided before something else is durable.
    backlog: VecDeque<Box<Submission<usize>>>,
    /// All commands, by number.
    requests: Vec<Request>,
    /// Those of clients.
    of_clients: Vec<Request>,
    /// Those that were not acknowledged and may be asked again under their key.
    unsure: BTreeSet<usize>,
    /// What was acknowledged: it has to stay.
    acknowledged: BTreeMap<u64, Digest>,
    watchers: Vec<Watcher>,
    machine: Machine,
    dispatch: Dispatch,
    /// How many workers dispatch has had.
    dispatched: u8,
    snapshots: Vec<Snapshot>,
    /// Where what all runs begin with ends.
    setting: u64,
    /// No further faults.
    at_rest: bool,
    /// All that is to be seen from outside, in order.
    trace: Vec<String>,
}

fn open(disk: &Arc<Faulty>) -> (Arc<Log>, Core<usize>) {
    let (index, contents) = (Index::in_memory(), Contents::in_memory());
    let (log, _) = Log::open(LOG, disk.clone(), index, contents, None).unwrap();
    let log = Arc::new(log);
    disk.watch(&log);
    let core = Core::new(Arc::clone(log.views()), Arc::clone(log.index()), log.end());
    (log, core)
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = Faulty::new(LOG);
        let (log, core) = open(&disk);
        let watchers = followers::all(&log);
        let machine = Machine::new(seed);
        let dispatch = Dispatch::start(&log, &machine);
        let mut world = Self {
            dice: StdRng::seed_from_u64(seed),
            disk,
            log,
            core,
            in_flight: None,
            backlog: VecDeque::new(),
            requests: Vec::new(),
            of_clients: Vec::new(),
            unsure: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            watchers,
            machine,
            dispatch,
            dispatched: DISPATCHED,
            snapshots: Vec::new(),
            setting: 0,
            at_rest: true,
            trace: Vec::new(),
        };
        let setting = [register("r"), create(0), create(1), register(dispatch::RUNTIME)];
        for command in setting.into_iter().chain((0..DISPATCHED).map(dispatch::create)) {
            world.give_as_client(request(command));
            world.commit();
        }
        world.setting = world.log.head().0;
        world.at_rest = false;
        world
    }

    fn heads(&mut self, of_hundred: u32) -> bool {
        self.dice.random_range(0..100) < of_hundred
    }

    fn note(&mut self, what: String) {
        self.trace.push(what);
    }

    async fn step(&mut self) {
        match self.dice.random_range(0..100) {
            0..30 => {
                let made = make(self.dice.random(), &self.log, &self.of_clients);
                self.give_as_client(made);
            }
            30..36 => {
                let (worker, words) = (self.one_dispatched(), self.dice.random_range(0..9));
                self.give_as_client(request(dispatch::input(worker, words)));
            }
            36..38 => {
                let worker = self.one_dispatched();
                self.give_as_client(request(dispatch::stop(worker)));
                self.give_as_client(request(dispatch::create(self.dispatched)));
                self.dispatched += 1;
            }
            38..43 => self.ask_again(),
            43..50 => self.hand_over(),
            50..70 => self.commit(),
            70..86 => self.follow().await,
            86..95 => self.dispatch_step().await,
            95 => self.take_snapshot(),
            96 => self.resume_dispatch(),
            97 => self.restore().await,
            _ => self.crash().await,
        }
        quiet().await;
    }

    /// One of the newest workers of dispatch.
    fn one_dispatched(&mut self) -> u8 {
        self.dice.random_range(self.dispatched - DISPATCHED..self.dispatched)
    }

    fn give_as_client(&mut self, request: Request) {
        self.of_clients.push(request.clone());
        self.give(request);
    }

    /// Gives a command.
    fn give(&mut self, request: Request) {
        let key_checked = self.log.index().flushed_through();
        self.give_checked(request, key_checked);
    }

    fn give_checked(&mut self, request: Request, key_checked: Sequence) {
        let n = self.requests.len();
        self.requests.push(request.clone());
        self.backlog.push_back(Box::new(Submission { request, key_checked, reply: n }));
        self.decide();
    }

    /// Decides what can be decided.
    fn decide(&mut self) {
        while !self.core.is_full()
            && let Some(submission) = self.backlog.pop_front()
        {
            let n = submission.reply;
            if let Some(waits) = self.core.submit(submission, moment(n)) {
                self.backlog.push_front(waits);
                return;
            }
        }
    }

    /// A client that does not know what became of its command asks again under the same key.
    fn ask_again(&mut self) {
        let Some(n) = self.unsure.pop_first() else { return };
        let request = self.requests[n].clone();
        self.give(request);
    }

    /// A batch is on its way to the disk; what comes meanwhile is decided on top of it.
    fn hand_over(&mut self) {
        if self.in_flight.is_none() && self.core.has_work() {
            self.in_flight = Some(self.core.take_batch());
        }
    }

    fn fate(&mut self, blocks: usize) -> Fate {
        let blocks_written = self.dice.random_range(0..=blocks);
        match self.dice.random_range(0..100) {
            _ if self.at_rest => Fate::Done,
            0..70 => Fate::Done,
            70..80 => Fate::Refused,
            80..97 => Fate::Unknown { blocks_written },
            _ => Fate::Conflict,
        }
    }

    /// What is on its way arrives at the disk, in one way or another.
    fn commit(&mut self) {
        self.hand_over();
        let Some(Batch { after, blocks, decided }) = self.in_flight.take() else { return };
        let (blocks, encoded): (Vec<_>, Vec<_>) = blocks.into_iter().unzip();
        let before = self.log.head();
        if !encoded.is_empty() {
            let fate = self.fate(encoded.len());
            self.disk.once(fate);
            self.note(format!("append after {after}: {fate:?}"));
            if self.disk_append(after, &encoded, fate) {
                self.log.publish(&blocks).unwrap();
            } else {
                return self.failed(fate, before, decided);
            }
        }
        self.core.committed(self.log.head());
        for decided in decided {
            self.answer(&decided);
        }
        self.check();
        self.decide();
    }

    fn disk_append(
        &self,
        after: Sequence,
        encoded: &[crate::journal::EncodedBlock],
        fate: Fate,
    ) -> bool {
        let appended = self.log.journal().append(after, encoded);
        assert_eq!(appended.is_ok(), fate == Fate::Done, "{appended:?}");
        appended.is_ok()
    }

    /// A write did not go through, or nobody knows whether it did.
    fn failed(&mut self, fate: Fate, before: Sequence, decided: Vec<Decided<usize>>) {
        if fate != Fate::Refused {
            let failures = self.dice.random_range(0..3);
            self.disk.fail_recoveries(failures);
            while self.log.journal().recover().is_err() {}
            self.log.catch_up().unwrap();
        }
        if matches!(fate, Fate::Refused | Fate::Conflict) {
            assert_eq!(self.log.head(), before, "of this nothing is written");
        }
        let again = self.core.rolled_back(self.log.end());
        for submission in again.into_iter().rev() {
            self.backlog.push_front(submission);
        }
        for decided in decided {
            self.lost(decided.submission.reply, fate == Fate::Refused);
        }
        self.check();
        self.decide();
    }

    /// Whoever asked hears an error, or nothing at all.
    fn lost(&mut self, n: usize, certainly: bool) {
        self.note(format!("{n}: {}", if certainly { "refused" } else { "unknown" }));
        self.dispatch.lost(n, certainly);
        if self.requests[n].key.is_some() {
            self.unsure.insert(n);
        }
    }

    fn answer(&mut self, decided: &Decided<usize>) {
        let (n, request) = (decided.submission.reply, &decided.submission.request);
        self.check_answer(&decided.answer);
        let seen = seen(&self.log, request, &decided.answer);
        self.note(format!("{n}: {seen}"));
        self.dispatch.answered(n, &decided.answer);
    }

    async fn follow(&mut self) {
        let which = self.dice.random_range(0..self.watchers.len());
        if self.heads(25) {
            self.watchers[which].resume(&self.log).await;
        }
        let limit = self.dice.random_range(1..12);
        self.watchers[which].read(limit).await;
    }

    /// Time goes by, and what dispatch gave meanwhile is taken to be decided.
    async fn dispatch_step(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.dice.random_range(0..300))).await;
        for submission in self.dispatch.commands() {
            let Submission { request, key_checked, reply } = submission;
            self.dispatch.waits(self.requests.len(), reply);
            self.give_checked(request, key_checked);
        }
    }

    /// No more faults: everything comes to its end.
    async fn rest(&mut self) {
        self.at_rest = true;
        while !self.unsure.is_empty() {
            self.ask_again();
            self.commit();
        }
        while self.in_flight.is_some() || self.core.has_work() || !self.backlog.is_empty() {
            self.commit();
        }
        self.resume_dispatch();
        self.commit();
        // Two looks in a row: between two reports of a worker nobody waits.
        let mut idle = 0;
        for _ in 0..10_000 {
            self.dispatch_step().await;
            self.commit();
            quiet().await;
            idle = if self.dispatch.at_work(&self.log).is_none() { idle + 1 } else { 0 };
            if idle == 20 {
                break;
            }
        }
        assert_eq!(self.dispatch.at_work(&self.log), None, "it does not come to an end");
        for watcher in &mut self.watchers {
            watcher.catch_up().await;
        }
    }

    /// All that came of it, line by line.
    fn outcome(self) -> Vec<String> {
        let mut outcome = self.trace;
        let headers = records(&self.log).into_iter().map(|record| record.json.clone());
        outcome.extend(headers.map(|json| String::from_utf8_lossy(&json).into_owned()));
        outcome.push(self.log.views().read().digest().to_string());
        outcome
    }
}

async fn simulate(seed: u64) -> Vec<String> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step().await;
    }
    world.rest().await;
    world.check();
    let records = records(&world.log);
    for watcher in &world.watchers {
        watcher.check(&records);
    }
    world.outcome()
}

/// One thread, beside one for reads, and a clock that stands still unless everybody waits.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).max_blocking_threads(1).build().unwrap()
}

fn twice(seed: u64) {
    let run = || runtime().block_on(simulate(seed));
    let outcomes = catch_unwind(AssertUnwindSafe(|| (run(), run())));
    let replay = format!("again: ACTA_SIMULATION_SEED={seed} cargo test --lib simulation");
    match outcomes {
        Ok((first, second)) => {
            let differs = first.iter().zip(&second).find(|(first, second)| first != second);
            assert_eq!(differs, None, "two runs of a seed differ\n{replay}");
            assert_eq!(first.len(), second.len(), "one of two runs goes on\n{replay}");
        }
        Err(panic) => {
            eprintln!("{replay}");
            resume_unwind(panic);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn whatever_happens_the_invariants_hold() {
    let one = number("ACTA_SIMULATION_SEED");
    let longer = number("ACTA_SIMULATION_SECONDS");
    let until = Instant::now() + Duration::from_secs(longer.unwrap_or(SECONDS));
    let first = one.unwrap_or_else(|| longer.map_or(0, |_| rand::random_range(0..1 << 40)));
    println!("from seed {first}");
    for seed in first.. {
        twice(seed);
        if one.is_some() || (seed - first + 1 >= SEEDS_MIN && Instant::now() >= until) {
            println!("{} seeds", seed - first + 1);
            break;
        }
    }
}

/// A simulation in which nothing happens would hold all invariants.
#[test]
fn a_bit_of_everything_happens() {
    let runtime = runtime();
    let mut trace = String::new();
    let mut counts = BTreeMap::<_, u64>::new();
    for seed in 0..16 {
        let world = runtime.block_on(async {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step().await;
            }
            world.rest().await;
            world
        });
        for (what, count) in world.machine.counts() {
            *counts.entry(what).or_default() += count;
        }
        let names = records(&world.log);
        trace.extend(names.iter().map(|record| format!("{}\n", record.header.event.name())));
        trace.extend(world.trace);
    }
    for what in [
        "crash",
        ": Done",
        ": Refused",
        ": Conflict",
        "Unknown { blocks_written: 0 }",
        "Unknown { blocks_written: 1 }",
        " true ",
        "restore up to",
        "in epoch 2",
        "log_forked",
        "dispatch_resumed",
        "worker_input_dispatched",
        "worker_turn_ended",
        "worker_interrupted",
    ] {
        assert!(trace.contains(what), "never: {what}");
    }
    for what in ["started", "stopped within a turn", "exited", "left over"] {
        assert!(counts.contains_key(what), "never: {what}");
    }
}
