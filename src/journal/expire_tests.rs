//! Expiring with a disk that fails, and with a process that ends, at each of its steps.

use super::{
    Journal, OpenError, ReadError, SledJournal,
    expire::ExpireError,
    seal::tests::{limits, open, sealed_log, segments},
    segment::parse_name,
    sled::VERIFIED_RECORDS,
    sled_damage::copy_dir,
    sled_store::{Disk, RealDisk, SealStep},
    sled_tests::FailingDisk,
    test_blocks::{ALL, append_each, assert_same, blocks_after},
};
use crate::{
    base::{Bases, Begin, BlockEnd},
    data_dir::DataDir,
    journal::EncodedBlock,
};
use acta_events::{Digest, Epoch, Sequence, block::Block};
use acta_projections::Projections;
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    sync::Arc,
};
use tempfile::TempDir;

/// The last sequences of all segments.
fn seams(data: &DataDir) -> Vec<Sequence> {
    segments(data).iter().map(|name| parse_name(name).unwrap().1).collect()
}

/// A base behind a record, as the log has it.
fn base_at(data: &DataDir, written: &[EncodedBlock], through: Sequence) -> Begin {
    let mut views = Projections::default();
    let mut last = Digest::ZERO;
    for block in written.iter().take_while(|block| block.last <= through) {
        let block = Block::decode(block.bytes.clone()).unwrap();
        block.records.iter().for_each(|record| views.apply(record).unwrap());
        last = block.digest;
    }
    assert_eq!(views.position(), through);
    let end = BlockEnd { digest: last, epoch: Epoch(1), root: Digest([7; 32]) };
    Bases::of(data.path()).write(data.log_id(), &views, end).unwrap()
}

/// A log with a base behind its second segment, and what comes after that.
fn with_base() -> (TempDir, DataDir, Vec<EncodedBlock>, Begin) {
    let (dir, data, written) = sealed_log(100, 60);
    let seams = seams(&data);
    assert!(seams.len() >= 4, "{seams:?}");
    let begin = base_at(&data, &written, seams[1]);
    (dir, data, written, begin)
}

fn behind<'a>(written: &'a [EncodedBlock], begin: &Begin) -> &'a [EncodedBlock] {
    let at = written.iter().position(|block| block.first > begin.seq).unwrap();
    &written[at..]
}

/// Either everything is there, or what is behind the base; and what is to expire still can.
fn check(data: &DataDir, written: &[EncodedBlock], begin: &Begin) {
    let journal = open(data, Arc::new(RealDisk));
    match journal.begin() {
        None => assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), written),
        Some(found) => {
            assert_eq!(found, *begin);
            assert_same(&journal.read(begin.seq, ALL).unwrap(), behind(written, begin));
        }
    }
    journal.expire(begin, &mut |_| Ok(())).unwrap();
    assert_same(&journal.read(begin.seq, ALL).unwrap(), behind(written, begin));
    append_each(&journal, &blocks_after(journal.head(), 30, 0));
    journal.close().unwrap();
    let first = parse_name(&segments(data)[0]).unwrap().0;
    assert_eq!(first, begin.seq.next());
}

#[test]
fn what_has_expired_is_gone_and_the_rest_goes_on() {
    let (_dir, data, written, begin) = with_base();
    let journal = open(&data, Arc::new(RealDisk));
    assert_eq!(journal.begin(), None, "a base alone does nothing");
    let sealed = Journal::sealed(&journal);
    assert_eq!(sealed.iter().map(|it| it.last).collect::<Vec<_>>(), seams(&data));
    let mut shown = Vec::new();
    let mut show = |bytes: bytes::Bytes| {
        shown.push(Block::decode(bytes).unwrap().digest);
        Ok(())
    };
    journal.expire(&begin, &mut show).unwrap();
    let gone = written.len() - behind(&written, &begin).len();
    let expected: Vec<_> = written[..gone].iter().map(|block| block.digest).collect();
    assert_eq!(shown, expected, "each block that goes is shown, in order");
    for after in [0, 1, begin.seq.0 - 1] {
        let read = journal.read(Sequence(after), ALL);
        assert!(matches!(read, Err(ReadError::Damaged { .. })), "after {after}: {read:?}");
    }
    assert_same(&journal.read(begin.seq, ALL).unwrap(), behind(&written, &begin));
    journal.erase(&BTreeSet::from([Sequence(1), begin.seq])).unwrap();
    journal.close().unwrap();
    drop(journal);
    check(&data, &written, &begin);
    // And once more, further on.
    let all = {
        let journal = open(&data, Arc::new(RealDisk));
        let more = blocks_after(journal.head(), 40, 10);
        append_each(&journal, &more);
        journal.close().unwrap();
        let journal = open(&data, Arc::new(RealDisk));
        assert_eq!(journal.base().unwrap().unwrap().begin, begin);
        journal.read(begin.seq, ALL).unwrap()
    };
    assert_eq!(all[0].previous, begin.block);
}

#[test]
fn the_newest_segment_does_not_expire_nor_what_is_no_whole_one() {
    let (_dir, data, written, _) = with_base();
    let journal = open(&data, Arc::new(RealDisk));
    let newest = *seams(&data).last().unwrap();
    let inside = written[1].last;
    for through in [newest, inside] {
        let begin = base_at(&data, &written, through);
        let refused = journal.expire(&begin, &mut |_| Ok(()));
        assert!(matches!(refused, Err(ExpireError::NotASeam(seq)) if seq == through));
    }
    assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &written);
}

/// Copies the data directory at each step: what a process leaves that is killed there.
struct Killed {
    home: std::path::PathBuf,
    left: Mutex<Vec<TempDir>>,
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

    fn before_seal(&self, _: SealStep) -> io::Result<()> {
        let left = tempfile::tempdir().unwrap();
        copy_dir(&self.home, left.path());
        self.left.lock().push(left);
        Ok(())
    }
}

#[test]
fn a_process_killed_at_any_step_leaves_all_of_it_or_what_is_behind_the_base() {
    let (_dir, data, written, begin) = with_base();
    let killed = Arc::new(Killed { home: data.path().into(), left: Mutex::default() });
    let journal = SledJournal::open_on(&data, killed.clone(), VERIFIED_RECORDS, limits()).unwrap();
    let (home, left) = (data.path().to_owned(), &killed.left);
    // Also where contents are being removed.
    let mut show = |_: bytes::Bytes| {
        let mut left = left.lock();
        if left.len() < 20 {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(&home, copy.path());
            left.push(copy);
        }
        Ok(())
    };
    journal.expire(&begin, &mut show).unwrap();
    journal.close().unwrap();
    let left = std::mem::take(&mut *killed.left.lock());
    assert!(left.len() >= 6, "{}", left.len());
    for copy in left {
        let data = DataDir::open(copy.path()).unwrap();
        check(&data, &written, &begin);
    }
}

#[test]
fn a_disk_that_fails_leaves_it_to_the_next_attempt() {
    let (_dir, data, written, begin) = with_base();
    let disk = Arc::new(FailingDisk::default());
    let journal = SledJournal::open_on(&data, disk.clone(), VERIFIED_RECORDS, limits()).unwrap();
    for step in [SealStep::Expire, SealStep::SyncDirectory] {
        *disk.seal_fails.lock() = Some(step);
        let failed = journal.expire(&begin, &mut |_| Ok(()));
        assert!(matches!(failed, Err(ExpireError::Io(_))), "{step:?}");
        // Nobody is given what is on its way out.
        assert!(journal.read(Sequence::ZERO, ALL).is_err());
        assert_same(&journal.read(begin.seq, ALL).unwrap(), behind(&written, &begin));
    }
    *disk.seal_fails.lock() = None;
    let failed = journal.expire(&begin, &mut |_| Err(io::Error::other("contents stay")));
    assert!(matches!(failed, Err(ExpireError::Io(_))), "a segment waits for its contents");
    journal.close().unwrap();
    drop(journal);
    check(&data, &written, &begin);
}

#[test]
fn a_beginning_that_is_missing_without_its_base_is_damage() {
    let (_dir, data, written, begin) = with_base();
    let (path, names) = (data.path().join("segments"), segments(&data));
    let refused = |what: &str| {
        let opened = SledJournal::open_on(&data, Arc::new(RealDisk), VERIFIED_RECORDS, limits());
        match opened.map(drop) {
            Err(OpenError::Damaged(ReadError::Damaged { why, .. })) => why,
            other => panic!("{what}: {other:?}"),
        }
    };
    fs::remove_file(path.join(&names[0])).unwrap();
    fs::remove_file(path.join(&names[1])).unwrap();
    let base = Bases::of(data.path()).path(begin.seq);
    let whole = fs::read(&base).unwrap();
    fs::write(&base, &whole[..whole.len() - 2]).unwrap();
    assert!(refused("a damaged base").contains("is damaged"));
    fs::remove_file(&base).unwrap();
    assert!(refused("no base").contains("there is no base"));
    // One of an earlier place leaves a gap.
    base_at(&data, &written, parse_name(&names[0]).unwrap().1);
    assert!(refused("an earlier base").contains("there is no base"));
    fs::write(&base, &whole).unwrap();
    check(&data, &written, &begin);
    // One that the log does not follow.
    drop(Bases::of(data.path()).keep_only(Sequence::ZERO, true));
    let end = BlockEnd { digest: Digest([9; 32]), epoch: Epoch(1), root: Digest([7; 32]) };
    let mut projections = Projections::default();
    for block in written.iter().take_while(|block| block.last <= begin.seq) {
        let block = Block::decode(block.bytes.clone()).unwrap();
        block.records.iter().for_each(|record| projections.apply(record).unwrap());
    }
    Bases::of(data.path()).write(data.log_id(), &projections, end).unwrap();
    assert!(refused("another base").contains("does not follow the base"));
}
