//! Both threads of the engine, over a journal that fails.

use super::{
    faulty::{Fate, Faulty},
    history::{LOG, create, input, keyed, rebuilt, records, register, request, worker},
};
use crate::{
    command::{Ack, Answer, Request},
    engine::{Clock, Engine, EngineHandle, Health, QueueLimits},
    error::Code,
    index::Index,
    log::{Contents, Log},
};
use acta_events::{Sequence, Timestamp};
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Long enough for a slow machine, and not for ever.
const DEADLINE: Duration = Duration::from_secs(60);

/// Counts; nothing waits for it.
struct Ticks(AtomicI64);

impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        Timestamp(1_795_000_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed))
    }
}

struct Service {
    journal: Arc<Faulty>,
    log: Arc<Log>,
    engine: Engine,
    handle: EngineHandle,
}

impl Service {
    /// A runtime and worker 0 are there.
    async fn start(commands: usize, bytes: usize) -> Self {
        let journal = Faulty::new(LOG);
        let (log, _) =
            Log::open(LOG, journal.clone(), Index::in_memory(), Contents::in_memory(), None)
                .unwrap();
        let log = Arc::new(log);
        journal.watch(&log);
        let limits = QueueLimits { commands, bytes };
        let engine = Engine::start(Arc::clone(&log), limits, Ticks(AtomicI64::new(0))).unwrap();
        let handle = engine.handle();
        for command in [register("r"), create(0)] {
            handle.submit(request(command)).await.unwrap();
        }
        Self { journal, log, engine, handle }
    }

    fn give(&self, request: Request) -> tokio::task::JoinHandle<Answer> {
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.submit(request).await })
    }

    async fn until(&self, health: Health) {
        let waiting = async {
            while self.handle.health() != health {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, waiting).await;
        assert!(waited.is_ok(), "{:?}, never {health:?}", self.handle.health());
    }

    /// The views are a fold of the log; nothing is missing and nothing is in it twice.
    fn check_log(&self) -> Vec<Arc<acta_events::Record>> {
        let records = records(&self.log);
        for (n, record) in (1..).zip(&records) {
            assert_eq!(record.seq(), Sequence(n));
        }
        assert_eq!(self.log.views().read().digests(), rebuilt(&records).digests());
        assert_eq!(self.log.head().0, records.len() as u64);
        records
    }

    async fn close(self) -> Arc<Log> {
        let log = Arc::clone(&self.log);
        tokio::task::spawn_blocking(move || self.engine.close()).await.unwrap();
        log
    }
}

fn code(answer: &Answer) -> Option<Code> {
    answer.as_ref().err().map(|rejection| rejection.code)
}

fn recorded(answer: &Answer) -> (u64, bool) {
    match answer {
        Ok(Ack::Recorded { first, replayed }) => (first.seq().0, *replayed),
        other => panic!("not recorded: {other:?}"),
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, test).await.expect("it takes for ever");
    });
}

#[test]
fn a_refused_write_leaves_nothing_and_the_next_one_goes_on() {
    run(async {
        let service = Service::start(100, 1 << 20).await;
        service.journal.once(Fate::Refused);
        let first = keyed("operator", "k", input(0, "a"));
        let answer = service.handle.submit(first.clone()).await;
        assert_eq!(code(&answer), Some(Code::StoreIo));
        assert_eq!(service.handle.health(), Health::Refusing);
        assert_eq!(service.check_log().len(), 2);
        assert_eq!(recorded(&service.handle.submit(first).await), (3, false));
        assert_eq!(service.handle.health(), Health::Ready);
        assert_eq!(service.check_log().len(), 3);
        service.close().await;
    });
}

/// Both kinds of an unknown outcome: a repeat with the key settles it.
fn an_unknown_outcome(fate: Fate, expected: (u64, bool)) {
    run(async move {
        let service = Service::start(100, 1 << 20).await;
        service.journal.fail_recoveries(2);
        service.journal.once(fate);
        let first = keyed("operator", "k", input(0, "a"));
        let answer = service.handle.submit(first.clone()).await;
        assert_eq!(code(&answer), Some(Code::OutcomeUnknown));
        service.until(Health::Ready).await;
        assert_eq!(recorded(&service.handle.submit(first).await), expected);
        assert_eq!(service.check_log().len(), 3);
        service.close().await;
    });
}

#[test]
fn an_unknown_outcome_that_was_written_is_replayed() {
    an_unknown_outcome(Fate::Unknown { blocks_written: 1 }, (3, true));
}

#[test]
fn an_unknown_outcome_that_was_not_written_is_decided_again() {
    an_unknown_outcome(Fate::Unknown { blocks_written: 0 }, (3, false));
}

#[test]
fn a_conflict_is_read_up_to_and_decided_again() {
    an_unknown_outcome(Fate::Conflict, (3, false));
}

#[test]
fn while_the_log_is_opened_again_nobody_waits() {
    run(async {
        let service = Service::start(100, 1 << 20).await;
        service.journal.shut_recovery(true);
        service.journal.shut(true);
        service.journal.once(Fate::Unknown { blocks_written: 1 });
        let first = service.give(keyed("operator", "a", input(0, "a")));
        tokio::task::block_in_place(|| service.journal.wait_for_append());
        // Decided upon what is on its way to the disk, or not decided yet: not recorded either way.
        let second = service.give(keyed("operator", "b", input(0, "b")));
        let refused = service.give(request(input(7, "nobody")));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!refused.is_finished(), "a refusal rests upon what is not durable");
        service.journal.shut(false);
        assert_eq!(code(&first.await.unwrap()), Some(Code::OutcomeUnknown));
        for answer in [second, refused] {
            let code = code(&answer.await.unwrap());
            assert!(matches!(code, Some(Code::OutcomeUnknown | Code::NotReady)), "{code:?}");
        }
        assert_eq!(service.handle.health(), Health::Recovering);
        assert_eq!(service.handle.health().reason(), "journal_recovering");
        let late = service.handle.submit(request(input(0, "c"))).await;
        assert_eq!(code(&late), Some(Code::NotReady));
        assert_eq!(service.log.head(), Sequence(2), "what may be durable is not shown");
        service.journal.shut_recovery(false);
        service.until(Health::Ready).await;
        let again = service.handle.submit(keyed("operator", "b", input(0, "b"))).await;
        assert_eq!(recorded(&again), (4, false));
        let again = service.handle.submit(keyed("operator", "a", input(0, "a"))).await;
        assert_eq!(recorded(&again), (3, true));
        service.check_log();
        service.close().await;
    });
}

#[test]
fn two_at_once_under_one_key_are_one_decision() {
    run(async {
        let service = Service::start(100, 1 << 20).await;
        service.journal.shut(true);
        let before = service.give(request(input(0, "before")));
        tokio::task::block_in_place(|| service.journal.wait_for_append());
        let twins: Vec<_> =
            (0..8).map(|_| service.give(keyed("operator", "k", input(0, "once")))).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(twins.iter().all(|twin| !twin.is_finished()));
        service.journal.shut(false);
        before.await.unwrap().unwrap();
        let mut answers = Vec::new();
        for twin in twins {
            answers.push(recorded(&twin.await.unwrap()));
        }
        assert!(answers.iter().all(|(seq, _)| *seq == 4));
        assert_eq!(answers.iter().filter(|(_, replayed)| !replayed).count(), 1);
        assert_eq!(service.check_log().len(), 4);
        service.close().await;
    });
}

#[test]
fn what_comes_while_a_block_is_written_makes_one_block() {
    run(async {
        let service = Service::start(100, 1 << 20).await;
        service.journal.shut(true);
        let first = service.give(request(input(0, "first")));
        tokio::task::block_in_place(|| service.journal.wait_for_append());
        let appends = service.journal.appends();
        let rest: Vec<_> = (0..30).map(|_| service.give(request(input(0, "x")))).collect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        service.journal.shut(false);
        first.await.unwrap().unwrap();
        for answer in rest {
            answer.await.unwrap().unwrap();
        }
        assert_eq!(service.journal.appends() - appends, 2);
        service.close().await;
    });
}

#[test]
fn closing_answers_what_is_in_flight_and_ends_both_threads() {
    run(async {
        let service = Service::start(100, 1 << 20).await;
        let handle = service.handle.clone();
        let journal = Arc::clone(&service.journal);
        journal.shut(true);
        let mut given = vec![service.give(request(input(0, "first")))];
        tokio::task::block_in_place(|| journal.wait_for_append());
        given.extend((0..20).map(|n| service.give(request(input(0, &n.to_string())))));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let closing = tokio::spawn(service.close());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!closing.is_finished() && given.iter().all(|answer| !answer.is_finished()));
        let late = handle.submit(request(input(0, "late"))).await;
        assert_eq!(code(&late), Some(Code::NotReady));
        journal.shut(false);
        let log = closing.await.unwrap();
        for answer in given {
            recorded(&answer.await.unwrap());
        }
        assert_eq!(records(&log).len(), 2 + 21);
        assert_eq!(handle.health(), Health::Closed);
        assert_eq!(code(&handle.submit(request(input(0, "later"))).await), Some(Code::NotReady));
        // The threads have let go of the log.
        drop((handle, journal));
        assert_eq!(Arc::strong_count(&log), 1);
    });
}

#[test]
fn closing_ends_a_recovery_that_does_not_succeed() {
    run(async {
        let service = Service::start(100, 1 << 20).await;
        service.journal.fail_recoveries(u32::MAX);
        service.journal.once(Fate::Unknown { blocks_written: 0 });
        let answer = service.handle.submit(request(input(0, "a"))).await;
        assert_eq!(code(&answer), Some(Code::OutcomeUnknown));
        service.close().await;
    });
}

#[test]
fn a_full_queue_refuses_at_once() {
    run(async {
        for (commands, bytes, fitting) in [(3, 1 << 20, 3), (100, 1600, 2)] {
            let service = Service::start(commands, bytes).await;
            service.journal.shut(true);
            let mut given: Vec<_> = Vec::new();
            for _ in 0..fitting {
                given.push(service.give(request(input(0, &"x".repeat(100)))));
                tokio::task::block_in_place(|| service.journal.wait_for_append());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let answer = service.handle.submit(request(input(0, &"x".repeat(100)))).await;
            assert_eq!(code(&answer), Some(Code::Overloaded), "{commands} commands, {bytes} bytes");
            let patient = service.handle.clone();
            let patient =
                tokio::spawn(async move { patient.submit_patiently(request(input(0, "p"))).await });
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!patient.is_finished());
            service.journal.shut(false);
            for answer in given {
                recorded(&answer.await.unwrap());
            }
            recorded(&patient.await.unwrap());
            recorded(&service.handle.submit(request(input(0, "room again"))).await);
            service.close().await;
        }
    });
}

/// One client of the storm: its commands in order, each repeated until it is acknowledged.
async fn client(service: Arc<Service>, n: u8, commands: usize, acked: Arc<Acked>) {
    for k in 0..commands {
        // A worker of its own at first, and then mostly the one that all share.
        let command = match k {
            0 => create(n),
            _ if k % 3 == 0 => input(n, &format!("{n} {k}")),
            _ => input(0, &format!("{n} {k}")),
        };
        let key = format!("{n}-{k}");
        let request = keyed("operator", &key, command);
        let before = acked.last.load(Ordering::SeqCst);
        let seq = loop {
            match service.handle.submit(request.clone()).await {
                Ok(Ack::Recorded { first, .. }) => {
                    let command = first.header.command.as_ref().unwrap();
                    assert_eq!(command.key.as_str(), key, "somebody else's answer");
                    break first.seq();
                }
                Err(rejection) => {
                    use Code::{NotReady, OutcomeUnknown, Overloaded, StoreIo};
                    let retryable = [NotReady, OutcomeUnknown, Overloaded, StoreIo];
                    assert!(retryable.contains(&rejection.code), "{rejection}");
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
                other => panic!("{other:?}"),
            }
        };
        assert!(seq.0 > before, "{seq} was given after {before} had been acknowledged");
        assert!(service.log.head() >= seq, "acknowledged, but not to be seen");
        let about = worker(if k == 0 || k % 3 == 0 { n } else { 0 });
        let state = service.log.views().worker(&about.runtime_id, &about.worker_id).unwrap();
        assert!(state.last_seq >= seq);
        assert!(service.log.record(seq).await.unwrap().is_some());
        acked.last.fetch_max(seq.0, Ordering::SeqCst);
        assert_eq!(acked.by_key.lock().insert(key, seq), None);
    }
}

#[derive(Default)]
struct Acked {
    last: AtomicU64,
    by_key: Mutex<HashMap<String, Sequence>>,
}

async fn storm(seed: u64) {
    const CLIENTS: u8 = 12;
    const COMMANDS: usize = 40;
    let service = Arc::new(Service::start(8, 1 << 20).await);
    let mut random = StdRng::seed_from_u64(seed);
    service.journal.fate(move |blocks| match random.random_range(0..100) {
        0..70 => Fate::Done,
        70..82 => Fate::Refused,
        82..84 => Fate::Conflict,
        _ => Fate::Unknown { blocks_written: random.random_range(0..=blocks) },
    });
    let acked = Arc::new(Acked::default());
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|n| tokio::spawn(client(Arc::clone(&service), n, COMMANDS, Arc::clone(&acked))))
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    service.journal.fate(|_| Fate::Done);
    service.until_writable().await;
    let mut by_key = std::mem::take(&mut *acked.by_key.lock());
    assert_eq!(by_key.len(), usize::from(CLIENTS) * COMMANDS);
    for record in service.check_log() {
        if let Some(command) = &record.header.command {
            let acked = by_key.remove(command.key.as_str());
            assert_eq!(acked, Some(record.seq()), "{} is there twice, or elsewhere", command.key);
        }
    }
    assert!(by_key.is_empty(), "acknowledged and not there: {by_key:?}");
    let service = Arc::into_inner(service).unwrap();
    service.close().await;
}

impl Service {
    async fn until_writable(&self) {
        while self.handle.submit(request(input(0, "last"))).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.handle.health(), Health::Ready);
    }
}

/// Every acknowledged command is in the log exactly once, whatever the disk does.
#[test]
fn nothing_acknowledged_is_lost_or_doubled_in_a_storm() {
    for seed in 0..12 {
        let outcome = std::panic::catch_unwind(|| run(storm(seed)));
        assert!(outcome.is_ok(), "with seed {seed}");
    }
}
