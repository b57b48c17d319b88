//! I/O errors, and a full disk: every read, write, sync and rename of a journal at work fails
//! once, and the room runs out at any moment.
//!
//! Whatever fails: nothing is acknowledged that is not there, nothing is called damaged that is
//! not, and once the disk works again so does the journal, without being opened anew. At
//! the end a power cut shows what of it was durable.

use super::{
    AppendError, EncodedBlock, EraseError, Head, Journal, ReadError, RecoverError, Refusal,
    SledJournal,
    power_loss::{LIMITS, empty_log, open},
    test_blocks::{ALL, block_after, end_of, log},
};
use crate::data_dir::DataDir;
use acta_events::Sequence;
use acta_test_disk::{Disk, Image, Loss, Operation};
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// So long an operation is tried again at most. Each try but one or two should do.
const PATIENCE: Duration = Duration::from_secs(30);

/// A journal at work, with what is known of it.
struct Work<'a> {
    disk: &'a Disk,
    journal: SledJournal,
    acknowledged: Vec<EncodedBlock>,
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what} takes too long");
        thread::sleep(Duration::from_millis(1));
    }
}

impl Work<'_> {
    fn end(&self) -> Head {
        self.acknowledged.last().map_or(Head::empty(log()), end_of)
    }

    /// The disk works again from here on, if it was full.
    fn mend(&self) {
        if self.disk.is_full() {
            self.look();
            self.disk.set_room(None);
        }
    }

    /// Reads everything. Nobody may be told that it is damaged.
    fn look(&self) -> bool {
        match self.journal.read(Sequence::ZERO, ALL) {
            Ok(found) => {
                let found: Vec<_> = found.iter().map(|block| block.digest).collect();
                let written: Vec<_> = self.acknowledged.iter().map(|block| block.digest).collect();
                assert_eq!(found, written);
                true
            }
            Err(ReadError::Io { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn recover(&self) {
        let before = self.end();
        wait_for("recovering", || match self.journal.recover() {
            Ok(head) => {
                assert_eq!(head, before, "an append of unknown outcome did not happen");
                true
            }
            Err(RecoverError::Io { .. } | RecoverError::Busy) => {
                self.mend();
                false
            }
            Err(error) => panic!("{error}"),
        });
    }

    /// Appends, for as often as it takes.
    fn append(&mut self, records: u64, bytes: usize) {
        let block = block_after(self.end(), records, bytes);
        let expected = self.end().seq;
        wait_for("appending", || {
            match self.journal.append(expected, std::slice::from_ref(&block)) {
                Ok(head) => {
                    assert_eq!(head, end_of(&block));
                    return true;
                }
                Err(AppendError::Unknown { .. }) => self.recover(),
                Err(AppendError::Refused(Refusal::Storage { .. })) => self.mend(),
                Err(error) => panic!("{error}"),
            }
            assert_eq!(self.journal.head().seq, expected);
            false
        });
        self.acknowledged.push(block);
    }

    /// What failed behind an append is noticed or tried again at the next one.
    fn until(&mut self, what: &str, is_so: impl Fn(&SledJournal) -> bool) {
        let until = Instant::now() + PATIENCE;
        for look in 1_u32.. {
            if is_so(&self.journal) {
                return;
            }
            assert!(Instant::now() < until, "{what} takes too long");
            let in_trouble = self.disk.failed().is_some() || self.disk.ran_out();
            if in_trouble && look.is_multiple_of(30) {
                self.append(1, 0);
            }
            self.mend();
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn erase(&mut self, seq: u64) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.journal.erase(&[Sequence(seq)].into()) {
                Ok(()) => return,
                Err(EraseError::Io { .. } | EraseError::Busy) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < until, "erasing takes too long");
            self.mend();
            if self.journal.store_fault().is_some() {
                self.append(1, 0);
            }
        }
    }

    /// A bit of everything that a journal does.
    fn everything(&mut self) {
        for n in 0..4 {
            self.append(2, n * 900);
        }
        self.journal.ask_for_sync();
        let synced = self.end().seq;
        self.until("a sync of the store", |journal| journal.store_synced() >= synced);
        self.append(2, 5_000);
        self.append(LIMITS.records, 100);
        self.until("sealing", |journal| journal.sealed() >= synced);
        self.append(3, 300);
        self.erase(self.end().seq.0);
        self.append(1, 0);
        let until = Instant::now() + PATIENCE;
        while !self.look() {
            assert!(Instant::now() < until, "reading takes too long");
            self.mend();
            self.append(1, 0);
        }
    }
}

/// Opens the log, for as often as it takes.
fn opened(disk: &Disk, data: &DataDir) -> SledJournal {
    let until = Instant::now() + PATIENCE;
    loop {
        match open(data) {
            Ok(journal) => return journal,
            Err(why) => {
                let is_failed = disk.failed().is_some() || disk.ran_out();
                assert!(is_failed, "it does not open on a sound disk: {why}");
                assert!(Instant::now() < until, "opening takes too long: {why}");
                disk.set_room(None);
            }
        }
    }
}

/// Runs everything on a disk that fails as `trouble` has it, and cuts the power at the end. Returns
/// whether it came to the failure.
fn run(at: &Path, image: &Image, what: &str, trouble: impl Fn(&Disk)) -> bool {
    let disk = Disk::mount(at, image.clone());
    let data = DataDir::open(&at.join("data")).unwrap();
    trouble(&disk);
    let journal = opened(&disk, &data);
    let mut work = Work { disk: &disk, journal, acknowledged: Vec::new() };
    work.everything();
    let (failed, ran_out) = (disk.failed(), disk.ran_out());
    disk.set_room(None);
    let Work { journal, acknowledged, .. } = work;
    drop((journal, data));
    let rest = disk.end(Loss::Unsynced);

    let _disk = Disk::mount(at, rest);
    let data = DataDir::open(&at.join("data")).unwrap();
    let journal = open(&data).unwrap_or_else(|why| panic!("{what}, {failed:?}: {why}"));
    let found = journal.read(Sequence::ZERO, ALL).unwrap();
    let found: Vec<_> = found.iter().map(|block| block.digest).collect();
    let written: Vec<_> = acknowledged.iter().map(|block| block.digest).collect();
    assert_eq!(found, written, "{what}, {failed:?}");
    failed.is_some() || ran_out
}

/// Each operation of a kind fails in a run of its own.
fn each_fails_once(kind: Operation) {
    let at = tempfile::tempdir().unwrap();
    let image = empty_log(at.path());
    let mut failed = 0;
    for nth in 0.. {
        let what = format!("{kind:?} {nth}");
        println!("{what}");
        if !run(at.path(), &image, &what, |disk| disk.fail_once(kind, nth)) {
            break;
        }
        failed += 1;
    }
    println!("{failed} failed");
    assert!(failed > 2, "only {failed} operations of this kind");
}

#[test]
fn each_write_fails_once() {
    each_fails_once(Operation::Write);
}

#[test]
fn each_sync_fails_once() {
    each_fails_once(Operation::Sync);
}

#[test]
fn each_rename_fails_once() {
    each_fails_once(Operation::Rename);
}

#[test]
fn each_read_fails_once() {
    each_fails_once(Operation::Read);
}

#[test]
fn each_creation_fails_once() {
    each_fails_once(Operation::Create);
}

#[test]
fn the_disk_is_full_at_any_moment() {
    let at = tempfile::tempdir().unwrap();
    let image = empty_log(at.path());
    let (mut pages, mut runs) = (0, 0);
    while run(at.path(), &image, &format!("{pages} pages"), |disk| disk.set_room(Some(pages))) {
        runs += 1;
        // Close together at first, where the start and the first append are.
        pages += 1 + pages / 6;
    }
    println!("{runs} runs");
    assert!(runs > 10, "only {runs} runs");
}
