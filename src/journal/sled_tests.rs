//! What is particular to the journal in sled: failing syncs, what opening refuses, and what
//! sled does on its own.

use super::{
    AppendError, EncodedBlock, Head, HeadError, Journal, OpenError, ReadError, RecoverError,
    Refusal, SledJournal,
    commit_file::{self, CommitFiles},
    head_file,
    seal::SealLimits,
    sled::VERIFIED_RECORDS,
    sled_damage::copy_dir,
    sled_store::{Disk, RealDisk, SealStep},
    test_blocks::{ALL, append_each, assert_same, block_after, blocks_after, end_of, log},
};
use crate::data_dir::DataDir;
use acta_events::{LogId, Sequence, Timestamp, block::Block};
use parking_lot::Mutex;
use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
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

/// Which of the next calls fail: each kind is counted down to it.
#[derive(Default)]
pub(super) struct FailingDisk {
    pub(super) inserts_left: Mutex<Option<u32>>,
    pub(super) store_syncs_left: Mutex<Option<u32>>,
    commits_left: Mutex<Option<u32>>,
    commit_syncs_left: Mutex<Option<u32>>,
    /// Fails at this step of sealing.
    pub(super) seal_fails: Mutex<Option<SealStep>>,
    /// How often it has.
    pub(super) seal_failures: AtomicU64,
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

    fn sync_store(&self, file: &File) -> io::Result<()> {
        count_down(&self.store_syncs_left)?;
        file.sync_data()
    }

    fn before_commit(&self) -> io::Result<()> {
        count_down(&self.commits_left)
    }

    fn sync_commit(&self, file: &File) -> io::Result<()> {
        count_down(&self.commit_syncs_left)?;
        file.sync_data()
    }

    fn before_seal(&self, step: SealStep) -> io::Result<()> {
        if *self.seal_fails.lock() == Some(step) {
            self.seal_failures.fetch_add(1, Ordering::Relaxed);
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }
}

/// Opens on a disk that can be told to fail, and writes five of eight blocks.
fn begun(data: &DataDir) -> (Arc<FailingDisk>, SledJournal, Vec<EncodedBlock>) {
    let disk = Arc::new(FailingDisk::default());
    let journal =
        SledJournal::open_on(data, disk.clone(), VERIFIED_RECORDS, SealLimits::default()).unwrap();
    let written = blocks_after(journal.head(), 8, 500);
    append_each(&journal, &written[..5]);
    (disk, journal, written)
}

fn wait_for_fault(journal: &SledJournal) {
    let begun = Instant::now();
    while journal.store_fault().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the keeper has not noticed");
        thread::yield_now();
    }
}

/// Opens what is there and reads it.
fn reread(data: &DataDir) -> Vec<Arc<Block>> {
    SledJournal::open(data).unwrap().read(Sequence::ZERO, ALL).unwrap()
}

/// What has no room is refused before anything is written, and the next one goes through.
#[test]
fn a_refused_frame_leaves_nothing_behind() {
    let (_dir, data) = new_data();
    let (disk, journal, written) = begun(&data);
    let before = journal.head();
    *disk.commits_left.lock() = Some(0);
    for _ in 0..2 {
        let result = journal.append(before.seq, &written[5..]);
        let storage = matches!(result, Err(AppendError::Refused(Refusal::Storage { .. })));
        assert!(storage, "{result:?}");
        assert_eq!(journal.head(), before);
        assert!(matches!(journal.probe(), Err(Refusal::Storage { .. })));
    }
    *disk.commits_left.lock() = None;
    assert_eq!(journal.probe(), Ok(()));
    append_each(&journal, &written[5..]);
    drop(journal);
    assert_same(&reread(&data), &written);
}

/// The sync of a frame failed, so that it may be there or not. It is made not to be: it is not
/// found later, not even if the process ends at once, and the log goes on without it.
#[test]
fn a_frame_whose_sync_failed_is_taken_back() {
    for killed in [false, true] {
        let (_dir, data) = new_data();
        let (disk, journal, written) = begun(&data);
        let before = journal.head();
        assert_eq!(journal.recover(), Ok(before), "there is nothing to recover from");
        *disk.commit_syncs_left.lock() = Some(0);
        let result = journal.append(before.seq, &written[5..]);
        assert!(matches!(result, Err(AppendError::Unknown { .. })), "{result:?}");
        assert_eq!(journal.head(), before);
        assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written[..5]);
        let next = journal.append(before.seq, &written[5..]);
        assert_eq!(next, Err(AppendError::Refused(Refusal::RecoverFirst)));
        *disk.commit_syncs_left.lock() = None;
        assert_eq!(journal.recover(), Ok(before));
        assert_eq!(commit_file::load(data.path()).unwrap().len(), 0, "no trace of the frame");
        assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written[..5]);
        if killed {
            drop(journal);
            assert_same(&reread(&data), &written[..5]);
            continue;
        }
        // Another history from here on.
        let other = block_after(before, 4, 9);
        append_each(&journal, std::slice::from_ref(&other));
        drop(journal);
        let found = reread(&data);
        assert_eq!(found[found.len() - 1].digest, other.digest);
    }
}

/// The store failed behind acknowledged appends: inserts, or its sync. All of them are there after
/// the recovery, on a store of its own, and after the next start.
#[test]
fn a_store_that_failed_is_not_gone_on_with() {
    // Inserts and syncs of the store before the failure.
    for (inserts, syncs) in [(Some(0), None), (Some(2), None), (None, Some(0))] {
        let (_dir, data) = new_data();
        let (disk, journal, written) = begun(&data);
        *disk.inserts_left.lock() = inserts;
        *disk.store_syncs_left.lock() = syncs;
        // As one, since the keeper may notice before a second one comes.
        journal.append(journal.head().seq, &written[5..]).unwrap();
        let before = journal.head();
        if syncs.is_some() {
            journal.ask_for_sync();
        }
        wait_for_fault(&journal);
        let next = block_after(before, 1, 0);
        let result = journal.append(before.seq, std::slice::from_ref(&next));
        assert!(matches!(result, Err(AppendError::Unknown { .. })), "{result:?}");
        for _ in 0..2 {
            let result = journal.recover();
            assert!(matches!(result, Err(RecoverError::Io { .. })), "{result:?}");
            assert_eq!(stores(&data), ["log-1"], "an incomplete copy is removed");
            assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
        }
        *disk.inserts_left.lock() = None;
        *disk.store_syncs_left.lock() = None;
        assert_eq!(journal.recover(), Ok(before));
        assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
        append_each(&journal, std::slice::from_ref(&next));
        assert_ne!(stores(&data), ["log-1"], "the storage that failed is not gone on with");
        drop(journal);
        assert_eq!(reread(&data).len(), 9);
    }
}

/// The sync of the store failed, then the process ended. What the next one reads of the store may
/// be in memory only, and its own sync would succeed without writing it.
#[test]
fn a_process_that_ended_while_its_store_was_synced_leaves_word_of_it() {
    let (_dir, data) = new_data();
    let (disk, journal, written) = begun(&data);
    *disk.store_syncs_left.lock() = Some(0);
    journal.ask_for_sync();
    wait_for_fault(&journal);
    drop(journal);
    assert_same(&reread(&data), &written[..5]);
    assert_eq!(stores(&data), ["log-2"]);
    assert_same(&reread(&data), &written[..5]);
    assert_eq!(stores(&data), ["log-2"], "once is enough");
}

/// Acknowledged, not in the store, and the process ends: the frames are all there is.
#[test]
fn blocks_that_the_store_never_got_are_in_the_commit_files() {
    let (_dir, data) = new_data();
    let disk = Arc::new(FailingDisk::default());
    let journal =
        SledJournal::open_on(&data, disk.clone(), VERIFIED_RECORDS, SealLimits::default()).unwrap();
    *disk.inserts_left.lock() = Some(2);
    let written = blocks_after(journal.head(), 8, 500);
    append_each(&journal, &written[..2]);
    let end = journal.append(journal.head().seq, &written[2..]).unwrap();
    wait_for_fault(&journal);
    drop(journal);
    assert_eq!(head_file::read(data.path()).unwrap().head, end);
    assert_same(&reread(&data), &written);
    assert_eq!(commit_file::load(data.path()).unwrap().len(), 0, "the store has them now");
    assert_same(&reread(&data), &written);
}

/// A frame that was synced, but the process ended before HEAD was written.
#[test]
fn frames_beyond_head_count() {
    let (_dir, data) = new_data();
    let (_disk, journal, written) = begun(&data);
    let behind = head_file::read(data.path()).unwrap();
    journal.append(journal.head().seq, &written[5..]).unwrap();
    drop(journal);
    head_file::replace(data.path(), behind).unwrap();
    assert_same(&reread(&data), &written);
    assert_eq!(head_file::read(data.path()).unwrap().head, end_of(&written[7]));
}

/// Damage of the files that hold what the store has not got yet: either all is there, because a
/// copy was elsewhere, or the log is refused and the missing sequences are named.
#[test]
fn damage_of_a_commit_file_is_noticed() {
    let written = blocks_after(Head::empty(log()), 9, 900);
    let (_dir, data) = closed_log(&written[..2]);
    let mut frames = CommitFiles::new(data.path(), Arc::new(RealDisk));
    for block in &written[2..] {
        frames.write(std::slice::from_ref(block)).unwrap();
    }
    let entry = head_file::Entry::new(log(), 1, end_of(&written[8]));
    head_file::replace(data.path(), entry).unwrap();
    let home = data.path().to_owned();
    drop(data);
    let files = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> =
        files.filter(|name| name.to_str().unwrap().starts_with("commit-")).collect();
    let [commit] = names.as_slice() else { panic!("{names:?}") };
    let whole = fs::read(home.join(commit)).unwrap();
    let in_use = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut refused = 0;
    for at in (0..in_use).step_by(331) {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&home, copy.path());
        let mut bytes = whole.clone();
        match at % 3 {
            0 => bytes[at] ^= 1,
            1 => bytes.truncate(at),
            _ => bytes[at / 4096 * 4096..][..4096].fill(0),
        }
        fs::write(copy.path().join(commit), bytes).unwrap();
        let data = DataDir::open(copy.path()).unwrap();
        match SledJournal::open(&data) {
            Ok(journal) => assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written),
            Err(OpenError::Damaged(ReadError::Damaged { first, last, .. })) => {
                refused += 1;
                assert!(first >= written[2].first && last <= written[8].last && first <= last);
                // The first two blocks are in the store, and everything before the damage.
                assert!(written.iter().any(|block| block.first == first));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 10);
    fs::remove_file(home.join(commit)).unwrap();
    let data = DataDir::open(&home).unwrap();
    let error = open_error(&data).to_string();
    assert!(error.contains(&format!("records {} to", written[2].first)), "{error}");
}

/// Many times what the commit files hold goes through them.
#[test]
fn files_are_written_again_and_again() {
    let (_dir, data) = new_data();
    let journal = SledJournal::open(&data).unwrap();
    let mut count = 0;
    while count < 16 * 4 * 5 * 3 {
        let mut batch = Vec::new();
        let mut end = journal.head();
        for _ in 0..16 {
            let block = block_after(end, 2, 32_000);
            end = end_of(&block);
            batch.push(block);
        }
        journal.append(journal.head().seq, &batch).unwrap();
        count += 16;
    }
    let files = fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let commits = files.filter(|name| name.to_str().unwrap().starts_with("commit-")).count();
    assert!(commits <= 4, "{commits} commit files");
    let end = journal.head();
    drop(journal);
    let journal = SledJournal::open(&data).unwrap();
    assert_eq!(journal.head(), end);
    let blocks = journal.read(Sequence::ZERO, ALL).unwrap();
    assert_eq!(blocks.len(), count);
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
