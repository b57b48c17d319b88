//! What is particular to the journal in sled: failing syncs, what opening refuses, and what
//! sled does on its own.

use super::{
    AppendError, EncodedBlock, Head, HeadError, Journal, OpenError, RecoverError, Refusal,
    SledJournal, head_file,
    sled::VERIFIED_RECORDS,
    sled_store::Disk,
    test_blocks::{ALL, append_each, assert_same, block_after, blocks_after, end_of, log},
};
use crate::data_dir::DataDir;
use acta_events::{LogId, Sequence, Timestamp};
use parking_lot::Mutex;
use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::Arc,
};
use tempfile::TempDir;
use uuid::Uuid;

pub(super) fn new_data() -> (TempDir, DataDir) {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path(), log(), Timestamp(0)).unwrap();
    (dir, data)
}

/// A log of these blocks, closed.
pub(super) fn closed_log(blocks: &[EncodedBlock]) -> (TempDir, DataDir) {
    let (dir, data) = new_data();
    let journal = SledJournal::open(&data).unwrap();
    append_each(&journal, blocks);
    journal.close().unwrap();
    (dir, data)
}

fn open_error(data: &DataDir) -> OpenError {
    match SledJournal::open(data) {
        Ok(journal) => panic!("opened at {:?}", journal.head()),
        Err(error) => error,
    }
}

fn stores(data: &DataDir) -> Vec<String> {
    let names = fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("log-"));
    names
}

/// Which of the next calls fail: inserts and syncs are counted down to it.
#[derive(Default)]
struct FailingDisk {
    inserts_left: Mutex<Option<u32>>,
    syncs_left: Mutex<Option<u32>>,
}

fn count_down(left: &Mutex<Option<u32>>) -> io::Result<()> {
    match &mut *left.lock() {
        Some(0) => Err(io::Error::other("no space left on device")),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

impl Disk for FailingDisk {
    fn before_insert(&self) -> io::Result<()> {
        count_down(&self.inserts_left)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        count_down(&self.syncs_left)?;
        file.sync_data()
    }
}

/// The append reported `Unknown`; all of it, some of it or nothing is there. Either way the
/// log goes on from what was found, on a store of its own.
#[test]
fn after_an_unknown_outcome_the_log_goes_on_from_what_is_there() {
    // Inserts and syncs before the failure, and how many of the three blocks are kept.
    let rows = [(None, Some(0), 3), (Some(0), None, 0), (Some(1), None, 1), (Some(2), None, 2)];
    for (inserts, syncs, kept) in rows {
        let (_dir, data) = new_data();
        let disk = Arc::new(FailingDisk::default());
        let journal = SledJournal::open_on(&data, disk.clone(), VERIFIED_RECORDS).unwrap();
        let written = blocks_after(journal.head(), 8, 500);
        append_each(&journal, &written[..5]);
        let before = journal.head();
        assert_eq!(journal.recover(), Ok(before), "there is nothing to recover from");

        *disk.inserts_left.lock() = inserts;
        *disk.syncs_left.lock() = syncs;
        let result = journal.append(before.seq, &written[5..]);
        assert!(matches!(result, Err(AppendError::Unknown { .. })), "{result:?}");
        assert_eq!(journal.head(), before);
        assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written[..5]);
        let next = journal.append(before.seq, &written[5..]);
        assert_eq!(next, Err(AppendError::Refused(Refusal::RecoverFirst)));
        for _ in 0..2 {
            let result = journal.recover();
            assert!(matches!(result, Err(RecoverError::Io { .. })), "{result:?}");
            assert_eq!(stores(&data), ["log-1"], "an incomplete copy is removed");
            assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written[..5]);
        }

        *disk.inserts_left.lock() = None;
        *disk.syncs_left.lock() = None;
        let found = journal.recover().unwrap();
        assert_eq!(found, end_of(&written[4 + kept]));
        assert_eq!(journal.head(), found);
        assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written[..5 + kept]);
        append_each(&journal, &written[5 + kept..]);
        assert_ne!(stores(&data), ["log-1"], "the storage that failed is not gone on with");
        drop(journal);
        let journal = SledJournal::open(&data).unwrap();
        assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
    }
}

/// The sync failed, then the process ended. What the next one reads may be in memory only,
/// and its own sync would succeed without writing it. So it must not go on with that file.
#[test]
fn blocks_beyond_head_are_copied_before_they_count() {
    let (_dir, data) = new_data();
    let disk = Arc::new(FailingDisk::default());
    let journal = SledJournal::open_on(&data, disk.clone(), VERIFIED_RECORDS).unwrap();
    let written = blocks_after(journal.head(), 6, 0);
    append_each(&journal, &written[..5]);
    *disk.syncs_left.lock() = Some(0);
    journal.append(journal.head().seq, &written[5..]).unwrap_err();
    drop(journal);
    let journal = SledJournal::open(&data).unwrap();
    assert_eq!(journal.head(), end_of(&written[5]));
    assert_eq!(stores(&data), ["log-2"]);
    assert_eq!(head_file::read(data.path()).unwrap().head, journal.head());
    assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
}

#[test]
fn head_tells_what_is_missing() {
    let written = blocks_after(Head::empty(log()), 10, 0);
    let (_dir, data) = closed_log(&written);
    let at = head_file::read(data.path()).unwrap();
    let end = at.head.seq.0;
    let rows = [
        // HEAD claims more than there is.
        (
            end_of(&block_after(at.head, 30, 0)),
            format!("records {} to {} are damaged or missing", end + 1, end + 30),
        ),
        // HEAD names another block at the end, or in the middle, or the middle of a block.
        (Head { block: end_of(&written[3]).block, ..at.head }, "another history".into()),
        (Head { seq: written[3].last, ..at.head }, "another history".into()),
        (Head { seq: written[2].first, block: written[2].digest }, "another history".into()),
        (Head { seq: Sequence::ZERO, ..at.head }, String::new()),
    ];
    for (head, expected) in rows {
        head_file::replace(data.path(), head_file::Entry::new(log(), 1, head)).unwrap();
        match SledJournal::open(&data) {
            Err(error) => {
                let error = error.to_string();
                assert!(!expected.is_empty() && error.contains(&expected), "{error}");
                assert!(error.contains("Restore the data directory"), "{error}");
            }
            Ok(journal) => assert!(expected.is_empty(), "{expected}: {:?}", journal.head()),
        }
    }
}

#[test]
fn what_opening_refuses() {
    type Damage = fn(&DataDir);
    let rows: &[(&str, Damage, &str)] = &[
        ("no HEAD", |data| fs::remove_file(data.path().join("HEAD")).unwrap(), "HEAD is missing"),
        (
            "both slots",
            |data| fs::write(data.path().join("HEAD"), [7; 8192]).unwrap(),
            "both slots of the file HEAD are damaged",
        ),
        (
            "an empty HEAD",
            |data| fs::write(data.path().join("HEAD"), []).unwrap(),
            "both slots of the file HEAD are damaged",
        ),
        (
            "another log's HEAD",
            |data| {
                let other = LogId(Uuid::from_u128(1));
                let entry = head_file::Entry::new(other, 1, Head::empty(other));
                head_file::replace(data.path(), entry).unwrap();
            },
            "belongs to log",
        ),
        (
            "no log",
            |data| fs::remove_dir_all(data.path().join("log-1")).unwrap(),
            "records 1 to 19 are damaged or missing: the files of the log are gone",
        ),
        (
            "no db",
            |data| fs::remove_file(data.path().join("log-1/db")).unwrap(),
            "records 1 to 19 are damaged or missing: the files of the log are gone",
        ),
        ("an empty db", |data| fs::write(data.path().join("log-1/db"), []).unwrap(), "1 to 19"),
    ];
    let written = blocks_after(Head::empty(log()), 10, 0);
    assert_eq!(written[9].last, Sequence(19));
    for (name, damage, expected) in rows {
        let (_dir, data) = closed_log(&written);
        damage(&data);
        for _ in 0..2 {
            let error = open_error(&data).to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}

#[test]
fn one_damaged_slot_does_no_harm() {
    let written = blocks_after(Head::empty(log()), 10, 0);
    for offset in [50, 4096 + 50] {
        let (_dir, data) = closed_log(&written);
        let path = data.path().join("HEAD");
        let mut bytes = fs::read(&path).unwrap();
        bytes[offset] ^= 1;
        fs::write(&path, bytes).unwrap();
        let journal = SledJournal::open(&data).unwrap();
        assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
        append_each(&journal, &blocks_after(journal.head(), 1, 0));
    }
}

#[test]
fn an_unfinished_snapshot_of_the_engine_is_moved_aside() {
    let written = blocks_after(Head::empty(log()), 10, 0);
    let (_dir, data) = closed_log(&written);
    let store: PathBuf = data.path().join("log-1");
    let planted = store.join("snap.00000000000FFFFF.generating");
    fs::write(&planted, b"half of a snap").unwrap();
    let journal = SledJournal::open(&data).unwrap();
    assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
    assert!(!planted.exists());
    assert!(store.join("generating-00000000000FFFFF.aside").exists());
}

#[test]
fn a_log_that_is_open_is_not_opened_twice() {
    let (_dir, data) = new_data();
    let journal = SledJournal::open(&data).unwrap();
    append_each(&journal, &blocks_after(journal.head(), 1, 0));
    assert!(matches!(open_error(&data), OpenError::Locked));
    drop(journal);
    SledJournal::open(&data).unwrap();
}

#[test]
fn head_of_another_process_that_vanished_is_not_made_up() {
    let (_dir, data) = new_data();
    fs::remove_file(data.path().join("HEAD")).unwrap();
    assert!(matches!(open_error(&data), OpenError::Head(HeadError::Missing)));
}

/// sled splits a leaf by number of values and moves a leaf above a quarter of its segment to a
/// file that it never syncs. With its default segments this test finds some.
#[test]
fn no_block_ends_up_in_a_file_that_is_never_synced() {
    let (_dir, data) = new_data();
    let journal = SledJournal::open(&data).unwrap();
    let mut written = Vec::new();
    for _ in 0..200 {
        let block = block_after(journal.head(), 2, 32_000);
        append_each(&journal, std::slice::from_ref(&block));
        written.push(block);
        assert_eq!(fs::read_dir(data.path().join("log-1/blobs")).unwrap().count(), 0);
    }
    assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
    drop(journal);
    let journal = SledJournal::open(&data).unwrap();
    assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
}
