//! What every journal does, whichever engine keeps it.

use super::{
    AppendError, EraseError, Head, Journal, MemoryJournal, ReadError, ReadLimits, RecoverError,
    Refusal, SledJournal,
    seal::SealLimits,
    sled_store::RealDisk,
    test_blocks::{ALL, append_each, assert_same, block_after, blocks_after, end_of, log},
};
use crate::data_dir::DataDir;
use acta_events::{Digest, Record, Sequence, Timestamp, block::Block};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Makes an empty journal, and opens it again if it outlives the value.
trait Factory {
    type Journal: Journal;
    fn make(&mut self) -> Self::Journal;
    fn reopen(&mut self) -> Option<Self::Journal>;
}

struct Memory;

impl Factory for Memory {
    type Journal = MemoryJournal;
    fn make(&mut self) -> MemoryJournal {
        MemoryJournal::new(log())
    }
    fn reopen(&mut self) -> Option<MemoryJournal> {
        None
    }
}

#[derive(Default)]
struct Sled(Option<(tempfile::TempDir, DataDir)>);

impl Factory for Sled {
    type Journal = SledJournal;
    fn make(&mut self) -> SledJournal {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path(), log(), Timestamp(0)).unwrap();
        let journal = SledJournal::open(&data).unwrap();
        self.0 = Some((dir, data));
        journal
    }
    fn reopen(&mut self) -> Option<SledJournal> {
        self.0.as_ref().map(|(_, data)| SledJournal::open(data).unwrap())
    }
}

/// Seals every few records, so that reads go through segments.
#[derive(Default)]
struct Sealing(Option<(tempfile::TempDir, DataDir)>);

impl Sealing {
    fn open(data: &DataDir) -> SledJournal {
        let limits = SealLimits { records: 7, ..SealLimits::default() };
        SledJournal::open_on(data, Arc::new(RealDisk), 20, limits).unwrap()
    }
}

impl Factory for Sealing {
    type Journal = SledJournal;
    fn make(&mut self) -> SledJournal {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path(), log(), Timestamp(0)).unwrap();
        let journal = Self::open(&data);
        self.0 = Some((dir, data));
        journal
    }
    fn reopen(&mut self) -> Option<SledJournal> {
        self.0.as_ref().map(|(_, data)| Self::open(data))
    }
}

fn an_empty_log(mut factory: impl Factory) {
    let journal = factory.make();
    assert_eq!(journal.head(), Head::empty(log()));
    for after in [0, 1, u64::MAX] {
        assert!(journal.read(Sequence(after), ALL).unwrap().is_empty());
    }
    assert_eq!(journal.recover(), Ok(Head::empty(log())));
    journal.close().unwrap();
    drop(journal);
    if let Some(journal) = factory.reopen() {
        assert_eq!(journal.head(), Head::empty(log()));
    }
}

fn what_is_appended_is_read(mut factory: impl Factory) {
    let journal = factory.make();
    let mut written = blocks_after(journal.head(), 40, 20);
    append_each(&journal, &written[..25]);
    // The rest as one commit.
    let head = journal.append(written[24].last, &written[25..]).unwrap();
    assert_eq!(head, end_of(&written[39]));
    let large = block_after(head, 2, 31_000);
    assert!(large.bytes.len() > 62_000);
    append_each(&journal, std::slice::from_ref(&large));
    written.push(large);
    assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
    journal.close().unwrap();
    drop(journal);
    for _ in 0..2 {
        let Some(journal) = factory.reopen() else { return };
        assert_eq!(journal.head(), end_of(&written[written.len() - 1]));
        assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
        let next = blocks_after(journal.head(), 3, 0);
        append_each(&journal, &next);
        written.extend(next);
    }
}

fn a_read_begins_with_the_block_that_holds_the_next(mut factory: impl Factory) {
    let journal = factory.make();
    let written = blocks_after(journal.head(), 20, 10);
    append_each(&journal, &written);
    let end = journal.head().seq.0;
    for after in 0..end {
        let wanted = Sequence(after + 1);
        let at = written.iter().position(|block| block.last >= wanted).unwrap();
        assert_same(&journal.read(Sequence(after), ALL).unwrap(), &written[at..]);
    }
    for after in [end, end + 1, u64::MAX] {
        assert!(journal.read(Sequence(after), ALL).unwrap().is_empty());
    }
}

fn limits_hold_but_one_block_always_comes(mut factory: impl Factory) {
    let journal = factory.make();
    let written = blocks_after(journal.head(), 10, 100);
    append_each(&journal, &written);
    let two = written[0].bytes.len() + written[1].bytes.len();
    let rows = [
        (0, 0, 1),
        (1, usize::MAX, 1),
        (3, usize::MAX, 3),
        (usize::MAX, 0, 1),
        (usize::MAX, two - 1, 1),
        (usize::MAX, two, 2),
        (2, usize::MAX, 2),
    ];
    for (blocks, bytes, expected) in rows {
        let read = journal.read(Sequence::ZERO, ReadLimits { blocks, bytes }).unwrap();
        assert_same(&read, &written[..expected]);
    }
}

fn a_conflict_tells_the_head_and_writes_nothing(mut factory: impl Factory) {
    let journal = factory.make();
    let written = blocks_after(journal.head(), 3, 0);
    append_each(&journal, &written);
    let head = journal.head();
    let next = block_after(head, 1, 0);
    for expected in [0, head.seq.0 - 1, head.seq.0 + 1] {
        let result = journal.append(Sequence(expected), std::slice::from_ref(&next));
        assert_eq!(result, Err(AppendError::Conflict { head }));
    }
    assert_eq!(journal.head(), head);
    assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
    append_each(&journal, &[next]);
}

fn blocks_that_do_not_follow_are_refused(mut factory: impl Factory) {
    let journal = factory.make();
    append_each(&journal, &blocks_after(journal.head(), 2, 0));
    let head = journal.head();
    let good = block_after(head, 2, 0);
    let first = good.first;
    let misplaced = AppendError::Refused(Refusal::Misplaced { first });
    let elsewhere = block_after(Head { block: Digest::ZERO, ..head }, 1, 0);
    let gap = block_after(Head { seq: head.seq.next(), ..head }, 1, 0);
    let mut backwards = good.clone();
    backwards.last = head.seq;
    let mut cut = good.clone();
    cut.bytes.truncate(good.bytes.len() - 1);
    let mut huge = good.clone();
    huge.bytes = vec![0; 65_537].into();
    let gap_first = gap.first;
    let rows = [
        (vec![], AppendError::Refused(Refusal::Empty)),
        (vec![elsewhere], misplaced.clone()),
        (vec![gap], AppendError::Refused(Refusal::Misplaced { first: gap_first })),
        (vec![backwards], misplaced.clone()),
        (vec![cut], misplaced.clone()),
        (vec![huge], AppendError::Refused(Refusal::TooLarge { bytes: 65_537 })),
        (vec![good.clone(), good.clone()], misplaced),
    ];
    for (blocks, expected) in rows {
        assert_eq!(journal.append(head.seq, &blocks), Err(expected));
        assert_eq!(journal.head(), head, "a refused commit leaves nothing behind");
    }
    append_each(&journal, &[good]);
}

fn readers_see_durable_blocks_in_order(mut factory: impl Factory) {
    let journal = factory.make();
    let written = blocks_after(journal.head(), 150, 300);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for limit in [1, 7, usize::MAX] {
            let (journal, done, written) = (&journal, &done, &written);
            scope.spawn(move || {
                let mut read = Vec::new();
                let mut after = Sequence::ZERO;
                while read.len() < written.len() {
                    let finished = done.load(Ordering::SeqCst);
                    let limits = ReadLimits { blocks: limit, bytes: usize::MAX };
                    let more = journal.read(after, limits).unwrap();
                    assert!(!(finished && more.is_empty()), "the rest was not found");
                    after = more.last().map_or(after, |block| block.last());
                    assert!(after <= journal.head().seq);
                    read.extend(more);
                }
                assert_same(&read, written);
            });
        }
        for pair in written.chunks(2) {
            journal.append(journal.head().seq, pair).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
}

fn single_records_are_found(mut factory: impl Factory) {
    let journal = factory.make();
    let written = blocks_after(journal.head(), 60, 300);
    append_each(&journal, &written);
    let head = journal.head().seq.0;
    let decoded = written.iter().map(|block| Block::decode(block.bytes.clone()).unwrap());
    let all: Vec<_> = decoded.flat_map(|block| block.records).collect();
    let check = |journal: &dyn Journal| {
        for (first, step) in [(1, 1), (1, 2), (3, 7), (head, 1), (head + 1, 1), (40, 200)] {
            let wanted: Vec<_> = (first..head + 20).step_by(step).map(Sequence).collect();
            let found = journal.records(&wanted).unwrap();
            let expected = all.iter().filter(|record| wanted.contains(&record.seq()));
            let seen = |record: &Arc<Record>| (record.json.clone(), record.content.clone());
            assert_eq!(
                found.iter().map(seen).collect::<Vec<_>>(),
                expected.map(seen).collect::<Vec<_>>()
            );
        }
        assert!(journal.records(&[]).unwrap().is_empty());
    };
    check(&journal);
    journal.close().unwrap();
    assert!(matches!(journal.records(&[Sequence(1)]), Err(ReadError::Io { .. })));
    drop(journal);
    if let Some(journal) = factory.reopen() {
        check(&journal);
    }
}

fn a_closed_log_refuses(mut factory: impl Factory) {
    let journal = factory.make();
    append_each(&journal, &blocks_after(journal.head(), 2, 0));
    let next = block_after(journal.head(), 1, 0);
    journal.close().unwrap();
    journal.close().unwrap();
    let refused = journal.append(journal.head().seq, &[next]);
    assert_eq!(refused, Err(AppendError::Refused(Refusal::Closed)));
    assert!(matches!(journal.read(Sequence::ZERO, ALL), Err(ReadError::Io { .. })));
    assert_eq!(journal.recover(), Err(RecoverError::Closed));
}

fn what_is_erased_is_gone_and_all_else_stays(mut factory: impl Factory) {
    let journal = factory.make();
    let written = blocks_after(journal.head(), 60, 400);
    append_each(&journal, &written[..40]);
    let wanted: BTreeSet<_> = [1, 2, 41, 79, 10_000].map(Sequence).into();
    thread::scope(|scope| {
        scope.spawn(|| append_each(&journal, &written[40..]));
        journal.erase(&wanted).unwrap();
    });
    let check = |journal: &dyn Journal| {
        let read = journal.read(Sequence::ZERO, ALL).unwrap();
        assert_eq!(read.len(), written.len());
        for (read, written) in read.iter().zip(&written) {
            let expected = Block::decode(written.bytes.clone()).unwrap();
            assert_eq!((read.digest, read.previous), (expected.digest, expected.previous));
            for (read, expected) in read.records.iter().zip(&expected.records) {
                let erased = expected.erased().filter(|it| wanted.contains(&it.seq()));
                let expected = erased.as_ref().unwrap_or(expected);
                assert_eq!((&read.json, &read.content), (&expected.json, &expected.content));
                assert_eq!(read.digest, expected.digest);
            }
        }
    };
    check(&journal);
    for _ in 0..2 {
        journal.erase(&wanted).unwrap();
        check(&journal);
    }
    journal.close().unwrap();
    assert_eq!(journal.erase(&wanted), Err(EraseError::Closed));
    drop(journal);
    if let Some(journal) = factory.reopen() {
        check(&journal);
    }
}

macro_rules! conformance {
    ($($name:ident)*) => {
        mod memory {
            $(#[test] fn $name() { super::$name(super::Memory); })*
        }
        mod sled {
            $(#[test] fn $name() { super::$name(super::Sled::default()); })*
        }
        mod sealing {
            $(#[test] fn $name() { super::$name(super::Sealing::default()); })*
        }
    };
}

conformance! {
    an_empty_log
    what_is_appended_is_read
    a_read_begins_with_the_block_that_holds_the_next
    limits_hold_but_one_block_always_comes
    a_conflict_tells_the_head_and_writes_nothing
    blocks_that_do_not_follow_are_refused
    readers_see_durable_blocks_in_order
    what_is_erased_is_gone_and_all_else_stays
    single_records_are_found
    a_closed_log_refuses
}
