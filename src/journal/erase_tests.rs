//! What erasing leaves in the files, and what it does when they fail.

use super::{
    AppendError, EraseError, Journal, SledJournal,
    seal::SealLimits,
    sled::VERIFIED_RECORDS,
    sled_store::{RealDisk, SealStep},
    sled_tests::{FailingDisk, new_data},
    test_blocks::{ALL, append_each, block_after, blocks_after, end_of},
};
use crate::data_dir::DataDir;
use acta_events::{ContentBody, Sequence, block::Block};
use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Files that are removed while they are looked for hold nothing.
fn files_hold(dir: &Path, needle: &[u8]) -> bool {
    fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return files_hold(&path, needle);
        }
        match fs::read(&path) {
            Ok(bytes) => bytes.windows(needle.len()).any(|window| window == needle),
            // Files come and go behind what is read; what is gone holds nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    })
}

/// Salt and content of a record, as they stand in a block that does not compress.
fn secret_of(stored: &super::EncodedBlock, seq: u64) -> Vec<u8> {
    let block = Block::decode(stored.bytes.clone()).unwrap();
    let record = block.records.iter().find(|record| record.seq().0 == seq).unwrap();
    let Some(ContentBody::Inline { salt, bytes }) = record.content.as_ref().map(|it| &it.body)
    else {
        panic!("{record:?}")
    };
    [&salt[..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn erased(seq: u64) -> BTreeSet<Sequence> {
    [Sequence(seq)].into()
}

/// Segments of six records.
fn limits() -> SealLimits {
    SealLimits { records: 6, bytes: u64::MAX, retry: Duration::from_millis(10) }
}

fn sealed(journal: &SledJournal, through: u64) {
    let until = Instant::now() + Duration::from_secs(60);
    while journal.sealed().0 < through {
        assert!(Instant::now() < until, "it was never sealed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn neither_content_nor_salt_is_left_in_any_file() {
    let (_dir, data) = new_data();
    let disk = Arc::new(RealDisk);
    let journal = SledJournal::open_on(&data, disk, VERIFIED_RECORDS, limits()).unwrap();
    let blocks = blocks_after(journal.head(), 12, 20_000);
    append_each(&journal, &blocks);
    sealed(&journal, 6);
    // From a segment, and from commit files and store.
    for block in [&blocks[1], &blocks[11]] {
        let seq = block.first.0;
        let secret = secret_of(block, seq);
        // Nothing makes it smaller, so the test finds what is there.
        assert!(files_hold(data.path(), &secret[20..60]), "{seq}");
        assert!(files_hold(data.path(), &secret[..16]), "{seq}");
        journal.erase(&erased(seq)).unwrap();
        assert!(!files_hold(data.path(), &secret[20..60]), "{seq}");
        assert!(!files_hold(data.path(), &secret[..16]), "{seq}");
    }
    let later = block_after(journal.head(), 3, 5_000);
    append_each(&journal, &[later]);
    journal.close().unwrap();
}

/// At each step the disk refuses: then nothing is lost, and the next attempt succeeds.
#[test]
fn a_disk_that_fails_delays_it_and_loses_nothing() {
    use SealStep::{Create, RemoveStore, Rename, Switch, Sync, SyncDirectory, Write};
    let steps = [Create, Write, Sync, Rename, SyncDirectory, Switch, RemoveStore];
    let steps = steps.into_iter().map(Some).chain([None]);
    for (step, inserts, syncs) in steps.map(|step| (step, None, None)).chain([
        (None, Some(0), None),
        (None, Some(2), None),
        (None, None, Some(0)),
    ]) {
        let (_dir, data) = new_data();
        let disk = Arc::new(FailingDisk::default());
        let journal =
            SledJournal::open_on(&data, disk.clone(), VERIFIED_RECORDS, limits()).unwrap();
        let blocks = blocks_after(journal.head(), 9, 3_000);
        append_each(&journal, &blocks);
        sealed(&journal, 6);
        let wanted = [Sequence(2), Sequence(17)].into();
        *disk.seal_fails.lock() = step;
        *disk.inserts_left.lock() = inserts;
        *disk.store_syncs_left.lock() = syncs;
        let first = journal.erase(&wanted);
        *disk.seal_fails.lock() = None;
        *disk.inserts_left.lock() = None;
        *disk.store_syncs_left.lock() = None;
        let what = format!("{step:?} {inserts:?} {syncs:?}: {first:?}");
        assert!(matches!(first, Ok(()) | Err(EraseError::Io { .. } | EraseError::Busy)), "{what}");
        go_on(&journal, &blocks);
        journal.erase(&wanted).unwrap();
        for (block, seq) in [(&blocks[1], 2), (&blocks[8], 17)] {
            let secret = secret_of(block, seq);
            assert!(!files_hold(data.path(), &secret[20..60]), "{seq} {what}");
        }
        journal.close().unwrap();
        reopened(&data, &blocks);
    }
}

/// Another block goes in, at once or after a recovery.
fn go_on(journal: &SledJournal, blocks: &[super::EncodedBlock]) {
    let end = end_of(&blocks[8]);
    let next = block_after(end, 1, 100);
    match journal.append(end.seq, std::slice::from_ref(&next)) {
        Ok(_) => {}
        Err(AppendError::Unknown { .. }) => {
            assert_eq!(journal.recover().unwrap(), end);
            journal.append(end.seq, &[next]).unwrap();
        }
        Err(error) => panic!("{error}"),
    }
}

fn reopened(data: &DataDir, blocks: &[super::EncodedBlock]) {
    let journal = SledJournal::open(data).unwrap();
    let read = journal.read(Sequence::ZERO, ALL).unwrap();
    assert_eq!(read.len(), blocks.len() + 1);
    assert!(read.iter().zip(blocks).all(|(read, written)| read.digest == written.digest));
    let names = fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let stores = names.filter(|name| name.to_string_lossy().starts_with("log-"));
    assert_eq!(stores.count(), 1);
}

/// A failure after which only a recovery leads on, while nobody appends: the next attempt does it.
#[test]
fn it_does_not_wait_for_somebody_to_append() {
    let (_dir, data) = new_data();
    let disk = Arc::new(FailingDisk::default());
    let journal = SledJournal::open_on(&data, disk.clone(), VERIFIED_RECORDS, limits()).unwrap();
    let blocks = blocks_after(journal.head(), 9, 3_000);
    append_each(&journal, &blocks);
    sealed(&journal, 6);
    *disk.seal_fails.lock() = Some(SealStep::Switch);
    let first = journal.erase(&erased(17));
    assert!(matches!(first, Err(EraseError::Io { .. })), "{first:?}");
    *disk.seal_fails.lock() = None;
    journal.erase(&erased(17)).unwrap();
    let secret = secret_of(&blocks[8], 17);
    assert!(!files_hold(data.path(), &secret[20..60]));
    go_on(&journal, &blocks);
    journal.close().unwrap();
    reopened(&data, &blocks);
}

#[test]
fn a_sync_of_the_directory_that_failed_is_owed() {
    let (_dir, data) = new_data();
    let disk = Arc::new(FailingDisk::default());
    let journal = SledJournal::open_on(&data, disk.clone(), VERIFIED_RECORDS, limits()).unwrap();
    append_each(&journal, &blocks_after(journal.head(), 9, 3_000));
    sealed(&journal, 6);
    *disk.seal_fails.lock() = Some(SealStep::SyncDirectory);
    for _ in 0..2 {
        let result = journal.erase(&erased(2));
        assert!(matches!(result, Err(EraseError::Io { .. })), "{result:?}");
    }
    *disk.seal_fails.lock() = None;
    journal.erase(&erased(2)).unwrap();
    journal.close().unwrap();
}

/// Of three segments one is damaged: the others lose their contents all the same.
#[test]
fn a_damaged_segment_keeps_no_other_from_being_erased() {
    let (_dir, data) = new_data();
    let disk = Arc::new(RealDisk);
    let journal = SledJournal::open_on(&data, disk, VERIFIED_RECORDS, limits()).unwrap();
    let blocks = blocks_after(journal.head(), 12, 3_000);
    append_each(&journal, &blocks);
    sealed(&journal, 18);
    let path = data.path().join(super::SEGMENTS).join(format!("{:020}-{:020}.seg", 7, 12));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2_000].fill(0);
    fs::write(&path, bytes).unwrap();
    let wanted: BTreeSet<_> = (1..=18).map(Sequence).collect();
    let mut left = wanted.clone();
    let mut damaged = Vec::new();
    // As whoever ordered it does: again, without what is said to be damaged.
    while let Err(error) = journal.erase(&left) {
        let EraseError::Damaged(super::ReadError::Damaged { first, last, .. }) = &error else {
            panic!("{error}")
        };
        damaged.extend(left.range(first..=last).copied());
        let before = left.len();
        left.retain(|seq| seq < first || seq > last);
        assert!(left.len() < before, "{error} names none of them");
    }
    assert!(!damaged.is_empty() && damaged.iter().all(|seq| (7..=12).contains(&seq.0)));
    for block in
        blocks.iter().filter(|block| block.last.0 <= 6 || (13..=18).contains(&block.first.0))
    {
        let secret = secret_of(block, block.first.0);
        assert!(!files_hold(data.path(), &secret[20..60]), "{}", block.first);
    }
    journal.close().unwrap();
}
