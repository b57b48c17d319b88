//! Sealing with a disk that fails, and with a process that ends, at each of its steps.

use super::{
    super::{
        Journal, OpenError, ReadError, ReadLimits, SledJournal, head_file,
        segments::DIRECTORY,
        sled::VERIFIED_RECORDS,
        sled_damage::copy_dir,
        sled_store::RealDisk,
        sled_tests::{FailingDisk, new_data},
        test_blocks::{ALL, append_each, assert_same, block_after, blocks_after, end_of},
    },
    *,
};
use crate::data_dir::DataDir;
use acta_events::block::Block;
use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
};
use tempfile::TempDir;

const STEPS: [SealStep; 8] = [
    SealStep::Create,
    SealStep::Write,
    SealStep::Sync,
    SealStep::Rename,
    SealStep::SyncDirectory,
    SealStep::FreshStore,
    SealStep::Switch,
    SealStep::RemoveStore,
];

pub(in crate::journal) fn limits() -> SealLimits {
    SealLimits { records: 20, bytes: 1 << 30, retry: Duration::from_millis(1) }
}

pub(in crate::journal) fn open(data: &DataDir, disk: Arc<dyn Disk>) -> SledJournal {
    SledJournal::open_on(data, disk, VERIFIED_RECORDS, limits()).unwrap()
}

fn names(dir: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with(prefix));
    names.sort();
    names
}

pub(in crate::journal) fn segments(data: &DataDir) -> Vec<String> {
    names(&data.path().join(DIRECTORY), "")
}

#[track_caller]
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// All of it, read as readers do: a read may return less when a store is replaced meanwhile.
fn read_all(journal: &SledJournal) -> Vec<Arc<Block>> {
    let mut found: Vec<Arc<Block>> = Vec::new();
    loop {
        let after = found.last().map_or(Sequence::ZERO, |block| block.last());
        let more = journal.read(after, ALL).unwrap();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// A sealed log of these blocks, closed.
pub(in crate::journal) fn sealed_log(
    count: u64,
    content_bytes: usize,
) -> (TempDir, DataDir, Vec<EncodedBlock>) {
    let (dir, data) = new_data();
    let journal = open(&data, Arc::new(RealDisk));
    let written = blocks_after(journal.head(), count, content_bytes);
    for batch in written.chunks(5) {
        journal.append(journal.head().seq, batch).unwrap();
        wait_for("nothing to be left to seal", || {
            journal.head().seq.0 - journal.sealed().0 < limits().records
        });
    }
    wait_for("one store", || names(data.path(), "log-").len() == 1);
    journal.close().unwrap();
    (dir, data, written)
}

#[test]
fn what_is_sealed_leaves_the_store() {
    let (_dir, data, written) = sealed_log(100, 60);
    let end = written[99].last.0;
    let spans: Vec<_> = segments(&data)
        .iter()
        .map(|name| super::super::segment::parse_name(name).unwrap())
        .collect();
    assert!(spans.len() >= 4, "{spans:?}");
    let mut next = Sequence(1);
    for (first, last) in &spans {
        assert_eq!(*first, next);
        next = last.next();
    }
    assert!(end - spans[spans.len() - 1].1.0 < limits().records);
    let journal = open(&data, Arc::new(RealDisk));
    assert_same(&read_all(&journal), &written);
    let store = journal.live_store().unwrap();
    let (oldest, _) = store.ceiling(Sequence::ZERO).unwrap().unwrap();
    assert_eq!(oldest, next, "only the tail is in the store");
    append_each(&journal, &blocks_after(journal.head(), 30, 0));
}

/// A reader goes through the log again and again while it is sealed under its hands.
#[test]
fn readers_do_not_notice() {
    let (_dir, data) = new_data();
    let journal = open(&data, Arc::new(RealDisk));
    let written = blocks_after(journal.head(), 400, 30);
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for blocks in [3, usize::MAX] {
            let (journal, written, done) = (&journal, &written, &done);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let head = journal.head().seq;
                    let (mut after, mut at) = (Sequence::ZERO, 0);
                    while after < head {
                        let limits = ReadLimits { blocks, bytes: usize::MAX };
                        let read = journal.read(after, limits).unwrap();
                        assert!(!read.is_empty());
                        assert_same(&read, &written[at..at + read.len()]);
                        at += read.len();
                        after = read[read.len() - 1].last();
                    }
                }
            });
        }
        for batch in written.chunks(3) {
            journal.append(journal.head().seq, batch).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    wait_for("segments", || segments(&data).len() > 5);
}

/// Copies the data directory at each step, the first time: what a process leaves that is killed there.
struct Killed {
    home: std::path::PathBuf,
    left: Mutex<Vec<(SealStep, TempDir)>>,
}

impl Disk for Killed {
    fn before_insert(&self) -> io::Result<()> {
        Ok(())
    }
    fn sync_store(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
    fn before_commit(&self) -> io::Result<()> {
        Ok(())
    }
    fn sync_commit(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
    fn before_seal(&self, step: SealStep) -> io::Result<()> {
        let mut left = self.left.lock();
        if !left.iter().any(|(at, _)| *at == step) {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(&self.home, copy.path());
            left.push((step, copy));
        }
        Ok(())
    }
}

#[test]
fn a_process_may_end_at_every_step() {
    let (_dir, data) = new_data();
    let disk = Arc::new(Killed { home: data.path().into(), left: Mutex::default() });
    let journal = open(&data, disk.clone());
    let written = blocks_after(journal.head(), 60, 300);
    // Some before the batch that makes it due, and a tail behind.
    journal.append(journal.head().seq, &written[..8]).unwrap();
    journal.append(journal.head().seq, &written[8..]).unwrap();
    wait_for("every step", || disk.left.lock().len() == STEPS.len());
    let mut left = disk.left.lock();
    for (step, copy) in left.drain(..) {
        let data = DataDir::open(copy.path()).unwrap();
        for _ in 0..2 {
            let journal = open(&data, Arc::new(RealDisk));
            assert_eq!(journal.head(), end_of(&written[59]), "{step:?}");
            assert_same(&read_all(&journal), &written);
            assert_eq!(names(data.path(), "log-").len(), 1, "{step:?}");
        }
        let unfinished = segments(&data).iter().filter(|name| name.ends_with(".new")).count();
        assert_eq!(unfinished, 0, "{step:?}");
        let journal = open(&data, Arc::new(RealDisk));
        let more = blocks_after(journal.head(), 20, 0);
        append_each(&journal, &more);
        wait_for("sealing to go on", || {
            journal.head().seq.0 - journal.sealed().0 < limits().records
        });
        let all: Vec<_> = written.iter().chain(&more).cloned().collect();
        assert_same(&read_all(&journal), &all);
    }
}

/// The disk is full, or fails, at each step: appends go on and everything can be read; when it works
/// again, sealing does too.
#[test]
fn a_disk_that_fails_at_a_step_loses_nothing() {
    for step in STEPS {
        let (_dir, data) = new_data();
        let disk = Arc::new(FailingDisk::default());
        let journal = open(&data, disk.clone());
        *disk.seal_fails.lock() = Some(step);
        let written = blocks_after(journal.head(), 60, 300);
        for batch in written.chunks(6) {
            while let Err(error) = journal.append(journal.head().seq, batch) {
                // Not being able to say which store counts is a fault of the store.
                assert_eq!(step, SealStep::Switch, "{error}");
                journal.recover().unwrap();
            }
        }
        assert_same(&read_all(&journal), &written);
        // Some attempts may still come from what was appended; any further ones do not. What cannot be removed is
        // left to the next start, and a fault to the recovery.
        if !matches!(step, SealStep::RemoveStore | SealStep::Switch) {
            let failures = || disk.seal_failures.load(Ordering::Relaxed);
            let before = failures();
            wait_for("further attempts", || failures() > before + 3);
        }
        *disk.seal_fails.lock() = None;
        // Nothing is appended meanwhile.
        wait_for("sealing to go on", || {
            if journal.store_fault().is_some() {
                journal.recover().unwrap();
            }
            let rest = journal.head().seq.0 - journal.sealed().0;
            // What was not removed then is at the next start.
            let is_one = names(data.path(), "log-").len() == 1;
            rest < limits().records && (is_one || step == SealStep::RemoveStore)
        });
        assert_same(&read_all(&journal), &written);
        drop(journal);
        let journal = open(&data, Arc::new(RealDisk));
        assert_same(&read_all(&journal), &written);
        assert_eq!(names(data.path(), "log-").len(), 1, "{step:?}");
    }
}

/// Reads all that can be read and compares it; returns what cannot.
fn unreadable(journal: &SledJournal, written: &[EncodedBlock]) -> Vec<(Sequence, Sequence)> {
    let mut after = Sequence::ZERO;
    let mut damaged = Vec::new();
    while after < journal.head().seq {
        match journal.read(after, ReadLimits { blocks: 4, bytes: usize::MAX }) {
            Ok(blocks) => {
                let at = written.iter().position(|block| block.first == after.next()).unwrap();
                assert_same(&blocks, &written[at..at + blocks.len()]);
                after = blocks[blocks.len() - 1].last();
            }
            Err(ReadError::Damaged { first, last, .. }) => {
                assert_eq!(first, after.next());
                assert!(written.iter().any(|block| block.last == last), "{first} to {last}");
                damaged.push((first, last));
                after = last;
            }
            Err(error) => panic!("{error}"),
        }
    }
    damaged
}

/// A record by itself is what was written, or an error; and an error only where a range has one too.
fn single_records_are_sound(
    journal: &SledJournal,
    written: &[EncodedBlock],
    damaged: &[(Sequence, Sequence)],
) {
    for block in written.iter().step_by(3) {
        match journal.records(&[block.last]) {
            Ok(found) => {
                let expected = Block::decode(block.bytes.clone()).unwrap();
                let expected = &expected.records[expected.records.len() - 1];
                assert_eq!(found.len(), 1, "{}", block.last);
                assert_eq!(
                    (&found[0].json, &found[0].content),
                    (&expected.json, &expected.content)
                );
            }
            Err(ReadError::Damaged { .. }) => {
                let is_known = |(from, to): &_| *from <= block.last && block.last <= *to;
                assert!(damaged.iter().any(is_known), "{} of {damaged:?}", block.last);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// One bit of a segment, or its end, is gone: reads name exactly what they cannot return.
#[test]
fn damage_of_a_segment_is_noticed() {
    let (_dir, data, written) = sealed_log(120, 18_000);
    let home = data.path().to_owned();
    drop(data);
    let victim = names(&home.join(DIRECTORY), "")[1].clone();
    let (first, last) = super::super::segment::parse_name(&victim).unwrap();
    let whole = fs::read(home.join(DIRECTORY).join(&victim)).unwrap();
    let mut frames_lost = 0;
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&home, copy.path());
        let mut bytes = whole.clone();
        if at % 5 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 4;
        }
        fs::write(copy.path().join(DIRECTORY).join(&victim), bytes).unwrap();
        let data = DataDir::open(copy.path()).unwrap();
        // As if it were older than what a start looks at.
        let journal =
            SledJournal::open_on(&data, Arc::new(RealDisk), 1, SealLimits::default()).unwrap();
        let damaged = unreadable(&journal, &written);
        assert!(!damaged.is_empty(), "a change at {at} goes unnoticed");
        assert!(damaged.iter().all(|(from, to)| first <= *from && *to <= last), "{damaged:?}");
        single_records_are_sound(&journal, &written, &damaged);
        frames_lost += usize::from(damaged != [(first, last)]);
        drop(journal);
        match SledJournal::open(&data) {
            Err(OpenError::Damaged(_)) => {}
            other => panic!("a start verifies the last records: {:?}", other.map(|j| j.head())),
        }
    }
    assert!(frames_lost > 10, "mostly one frame is lost, not a segment");
}

#[test]
fn a_segment_that_is_missing_is_named() {
    let (_dir, data, written) = sealed_log(120, 0);
    let home = data.path().to_owned();
    drop(data);
    let all = names(&home.join(DIRECTORY), "");
    for victim in &all {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&home, copy.path());
        fs::remove_file(copy.path().join(DIRECTORY).join(victim)).unwrap();
        let (first, last) = super::super::segment::parse_name(victim).unwrap();
        let data = DataDir::open(copy.path()).unwrap();
        match SledJournal::open(&data) {
            Err(OpenError::Damaged(ReadError::Damaged { first: from, last: to, .. })) => {
                assert_eq!((from, to), (first, last));
            }
            other => panic!("{:?}", other.map(|journal| journal.head())),
        }
    }
    // Without any, the store does not make up for it.
    fs::remove_dir_all(home.join(DIRECTORY)).unwrap();
    let data = DataDir::open(&home).unwrap();
    match SledJournal::open(&data) {
        Err(OpenError::Damaged(ReadError::Damaged { first, .. })) => {
            assert_eq!(first, Sequence(1));
        }
        other => panic!("{:?}", other.map(|journal| journal.head())),
    }
    assert_eq!(head_file::read(&home).unwrap().head, end_of(&written[119]));
}

/// A log from before there were segments: all of it is in one store.
#[test]
fn a_long_tail_becomes_segments() {
    let (_dir, data) = new_data();
    let journal = SledJournal::open(&data).unwrap();
    let mut written = blocks_after(journal.head(), 300, 100);
    append_each(&journal, &written);
    journal.close().unwrap();
    drop(journal);
    assert!(segments(&data).is_empty());
    let journal = open(&data, Arc::new(RealDisk));
    let block = block_after(journal.head(), 1, 0);
    append_each(&journal, std::slice::from_ref(&block));
    written.push(block);
    wait_for("segments", || {
        journal.head().seq.0 - journal.sealed().0 < limits().records
            && names(data.path(), "log-") == ["log-2"]
    });
    assert_same(&read_all(&journal), &written);
    drop(journal);
    let journal = open(&data, Arc::new(RealDisk));
    assert_same(&read_all(&journal), &written);
}
