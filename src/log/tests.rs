//! Readers of the log, while it is written and long after.

use super::{Contents, Log};
use crate::{
    checkpoint::Checkpoints,
    command::{Command, Outcome},
    engine::tests::history::{
        Drive, LOG, create, id, input, memory_log, rebuilt, records, register, request, text,
        worker,
    },
    feed::{CursorProblem, Filter, Follower, Resume, cursor_at, resolve},
    index::Index,
    journal::{EncodedBlock, Journal, MemoryJournal},
};
use acta_events::{
    Actor, Digest, Epoch, Event, Header, LogForked, LogId, OutputKind, Record, Sequence,
    ServiceStopped, Timestamp, block::BlockBuilder, cursor::Cursor,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(60);

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

/// Three workers that say more than the ring of recent records holds.
fn write_much(drive: &mut Drive, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for n in 0..4200 {
        let about = random.random_range(0..3);
        let content = text(&"x".repeat(5000));
        let command = match random.random_range(0..10) {
            0 => input(about, "hello"),
            1 => Command::CommitCursor {
                name: id("c"),
                cursor: format!("{n}"),
                position: Sequence(n),
                steps: true,
            },
            _ => {
                let output = Outcome::Output { turn: 1, kind: OutputKind::TextDelta, content };
                Command::Report { worker: worker(about), outcomes: vec![output] }
            }
        };
        drive.submit(10 + n as usize, request(command));
        if random.random_range(0..12) == 0 {
            drive.commit();
        }
    }
    drive.commit();
    drive.commit();
}

fn random_filter(random: &mut StdRng) -> (Filter, Option<u32>) {
    let mut filter = Filter { watching: random.random(), ..Filter::default() };
    let kinds = ["worker_output", "worker_input_accepted", "cursor_committed"];
    for kind in kinds {
        if random.random_range(0..4) == 0 {
            filter.types.push(kind.into());
        }
    }
    let ordinal = random.random_range(0..6_u32);
    match ordinal {
        0..3 => {
            filter.runtime = Some(id("r"));
            filter.worker = Some(worker(ordinal as u8).worker_id);
            (filter, Some(ordinal))
        }
        3 => {
            filter.worker = Some(worker(1).worker_id);
            (filter, None)
        }
        _ => (filter, None),
    }
}

/// Follows from a random place until the end, with random pauses and limits.
async fn follow(log: Arc<Log>, seed: u64, done: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(seed);
    let (filter, ordinal) = random_filter(&mut random);
    let after = Sequence(random.random_range(0..=log.head().0));
    let mut follower = Follower::new(Arc::clone(&log), filter.clone(), ordinal, after);
    let mut seen = Vec::new();
    loop {
        let finished = done.load(Ordering::SeqCst);
        if follower.caught_up() && finished {
            break;
        }
        let (through, limit) = match random.random_range(0..4) {
            0 => (Sequence(u64::MAX), 100),
            1 => (follower.head(), random.random_range(1..50)),
            _ => (follower.head(), 256),
        };
        let before = follower.position();
        let records = follower.read_through(through, limit).await.unwrap();
        assert!(follower.position() <= log.head() && records.len() <= limit);
        assert!(records.iter().all(|logged| {
            before < logged.record.seq() && logged.record.seq() <= follower.position()
        }));
        seen.extend(records.iter().map(|logged| (logged.record.seq(), logged.record.digest)));
        if random.random_range(0..50) == 0 {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..30))).await;
        }
        if follower.caught_up() {
            // The end wakes nobody, so do not wait for ever.
            let _ = tokio::time::timeout(Duration::from_millis(5), follower.wait()).await;
        }
    }
    let expected: Vec<_> = records(&log)
        .iter()
        .filter(|record| record.seq() > after && filter.wants(record))
        .map(|record| (record.seq(), record.digest))
        .collect();
    assert!(seen == expected, "seed {seed}: {} of {}", seen.len(), expected.len());
}

#[test]
fn followers_see_every_record_once_whatever_they_ask_for() {
    run(async {
        let mut drive = Drive::new();
        drive.submit(0, request(register("r")));
        (0..3).for_each(|n| drive.submit(1 + usize::from(n), request(create(n))));
        drive.commit();
        drive.commit();
        let log = Arc::clone(&drive.log);
        let done = Arc::new(AtomicBool::new(false));
        let follow = |seed| tokio::spawn(follow(Arc::clone(&log), seed, Arc::clone(&done)));
        let mut followers: Vec<_> = (0..8).map(follow).collect();
        let writer = tokio::task::spawn_blocking(move || {
            write_much(&mut drive, 99);
            drive
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        followers.extend((8..16).map(follow));
        drop(writer.await.unwrap());
        assert!(log.ring.read().get(Sequence(100)).is_none(), "the ring still holds everything");
        done.store(true, Ordering::SeqCst);
        followers.extend((16..40).map(follow));
        for follower in followers {
            follower.await.unwrap();
        }
        let live = log.views().read().digests();
        assert_eq!(rebuilt(&records(&log)).digests(), live);
    });
}

#[test]
fn the_ring_and_the_journal_read_the_same() {
    run(async {
        let mut drive = Drive::new();
        drive.submit(0, request(register("r")));
        (0..3).for_each(|n| drive.submit(1 + usize::from(n), request(create(n))));
        write_much(&mut drive, 1);
        let (log, _) = drive.finish();
        let head = log.head().0;
        let expected = records(&log);
        let in_ring = (1..=head).find(|seq| log.ring.read().get(Sequence(*seq)).is_some()).unwrap();
        assert!(in_ring > 10 && in_ring < head);
        for after in [0, in_ring - 2, in_ring - 1, in_ring, head - 1, head, head + 1, u64::MAX] {
            for through in [0, in_ring - 1, in_ring, head, head + 5, u64::MAX] {
                for limit in [0, 1, 7, 100] {
                    let read = log.read(Sequence(after), Sequence(through), limit).await.unwrap();
                    let read: Vec<_> = read.iter().map(|logged| logged.record.digest).collect();
                    let end = through.min(head) as usize;
                    let wanted = expected.get(after.min(head) as usize..end).unwrap_or_default();
                    let wanted: Vec<_> = wanted.iter().take(limit).map(|r| r.digest).collect();
                    assert!(read == wanted, "{limit} of {after}..{through}");
                }
            }
        }
        assert!(log.record(Sequence(head + 1)).await.unwrap().is_none());
        assert_eq!(log.record(Sequence(1)).await.unwrap().unwrap().record.seq(), Sequence(1));
    });
}

/// A follower that looked past the head used to take what was not there yet for seen.
#[test]
fn looking_past_the_head_skips_nothing() {
    run(async {
        let mut drive = Drive::new();
        let log = Arc::clone(&drive.log);
        let mut follower = Follower::new(Arc::clone(&log), Filter::default(), None, Sequence::ZERO);
        assert!(follower.read_through(Sequence(1000), 10).await.unwrap().is_empty());
        assert_eq!(follower.position(), Sequence::ZERO);
        drive.submit(0, request(register("r")));
        drive.submit(1, request(create(0)));
        drive.commit();
        drive.commit();
        let mut one = Follower::new(Arc::clone(&log), Filter::default(), Some(0), Sequence::ZERO);
        one.read_through(Sequence(1000), 10).await.unwrap();
        drive.submit(2, request(input(0, "a")));
        drive.commit();
        assert!(follower.wait().await);
        assert_eq!(follower.read_through(Sequence(1000), 10).await.unwrap().len(), 3);
        assert_eq!(one.read_through(Sequence(1000), 10).await.unwrap().len(), 1);
    });
}

fn append(log: &Log, epoch: u32, event: Event) {
    let end = log.end();
    let header = Header {
        seq: end.seq.next(),
        id: uuid::Uuid::nil(),
        time: Timestamp(0),
        runtime: None,
        worker: None,
        version: None,
        actor: Actor::service(),
        command: None,
        trace: None,
        event,
    };
    let mut builder = BlockBuilder::new(Epoch(epoch), end.block);
    builder.push(Arc::new(Record::new(header, None).unwrap()));
    let (block, bytes) = builder.finish().unwrap();
    let encoded = EncodedBlock::new(&block, bytes);
    log.journal().append(end.seq, &[encoded]).unwrap();
    log.publish([&block]).unwrap();
}

/// Records 1 to 10 in epoch 1, and 11 to 15 in epoch 2, which forked off after 10.
fn forked_log() -> Arc<Log> {
    let log = memory_log();
    for n in 1..=15 {
        let event = match n {
            11 => LogForked {
                epoch: Epoch(2),
                parent: Epoch(1),
                fork: Sequence(10),
                digest: Digest::ZERO,
                root: None,
            }
            .into(),
            _ => ServiceStopped { reason: n.to_string() }.into(),
        };
        append(&log, if n < 11 { 1 } else { 2 }, event);
    }
    log
}

#[test]
fn every_cursor_has_its_answer() {
    run(async {
        let log = forked_log();
        let digest = |seq: u64| records(&log)[seq as usize - 1].digest;
        let cursor = |epoch, seq, digest| Cursor::new(LOG, Epoch(epoch), Sequence(seq), digest);
        let own = |epoch, seq| cursor(epoch, seq, digest(seq));
        let resume = |seq, epoch_changed| Ok(Resume { after: Sequence(seq), epoch_changed });
        let back = Some((Sequence(10), own(1, 10)));
        let diverged = |back| Err(CursorProblem::Diverged { back });
        let ahead = |seq| Err(CursorProblem::Ahead { seq: Sequence(seq), head: Sequence(15) });
        let other = LogId(uuid::Uuid::from_u128(1));
        let foreign = Cursor::new(other, Epoch(2), Sequence(15), digest(15));
        let rows = [
            (own(2, 15), resume(15, false)),
            (own(2, 11), resume(11, false)),
            (own(2, 3), resume(3, false)),
            (Cursor::beginning(LOG, Epoch(2)), resume(0, false)),
            (Cursor::beginning(LOG, Epoch(1)), resume(0, true)),
            (foreign, Err(CursorProblem::Foreign)),
            (cursor(2, 16, Digest::ZERO), ahead(16)),
            (cursor(2, u64::MAX, Digest::ZERO), ahead(u64::MAX)),
            (own(1, 10), resume(10, true)),
            (own(1, 1), resume(1, true)),
            (cursor(1, 11, Digest::ZERO), diverged(back)),
            (cursor(1, 1000, Digest::ZERO), diverged(back)),
            (cursor(2, 15, digest(14)), diverged(None)),
            (cursor(1, 10, digest(9)), diverged(None)),
            (own(3, 15), diverged(None)),
        ];
        for (cursor, expected) in rows {
            assert_eq!(resolve(&log, &cursor.to_string()).await, expected, "{cursor:?}");
        }
        for text in ["", "x", "0", "7", &own(2, 15).to_string()[1..]] {
            assert_eq!(resolve(&log, text).await, Err(CursorProblem::Malformed), "{text}");
        }
        // What is given out can be resumed, at every record.
        for seq in 0..=15 {
            let cursor = cursor_at(&log, Sequence(seq)).await.unwrap().unwrap();
            let epoch_changed = seq <= 10;
            assert_eq!(resolve(&log, &cursor.to_string()).await, resume(seq, epoch_changed));
        }
        assert_eq!(cursor_at(&log, Sequence(16)).await.unwrap(), None);
    });
}

/// Opening replays what the newest checkpoint does not know, and comes to the same state.
#[test]
fn a_log_that_is_opened_again_is_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(MemoryJournal::new(LOG));
    let checkpoints = Checkpoints::new(dir.path().join("checkpoints"));
    let open = || {
        let index = Index::open(&dir.path().join("index")).unwrap();
        let kept = Some(checkpoints.clone());
        let journal: Arc<dyn Journal> = journal.clone();
        Log::open(LOG, journal, index, Contents::in_memory(), kept).unwrap()
    };
    let mut expected = Vec::new();
    for (round, from) in [(0_u64, 0), (1, 0), (2, 31), (3, 51), (4, 71)] {
        let (log, replayed) = open();
        assert_eq!(log.views().read().digests(), rebuilt(&records(&log)).digests());
        assert_eq!(log.index().position(), log.head());
        assert_eq!((replayed.from.0, replayed.head.0), (from, round * 20));
        if round > 0 {
            assert_eq!(log.views().read().digests(), expected);
        }
        for n in 0..20 {
            append(&log, 1, ServiceStopped { reason: format!("{round} {n}") }.into());
            // In the middle of a round, so that there is a tail.
            if round > 0 && n == 10 {
                log.checkpoint_now().unwrap().run();
                assert_eq!(log.index().flushed_through(), log.head());
            }
        }
        expected = log.views().read().digests();
    }
    // Without any checkpoint, and without an index.
    std::fs::remove_dir_all(dir.path().join("checkpoints")).unwrap();
    let (log, replayed) = open();
    assert_eq!(replayed.from, Sequence::ZERO);
    assert_eq!(log.views().read().digests(), expected);
    drop(log);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (log, _) = open();
    assert_eq!(log.views().read().digests(), expected);
    assert_eq!(log.index().position(), log.head());
}
