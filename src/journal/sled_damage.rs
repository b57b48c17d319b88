//! Damage to the files of sled. Whatever is done to them: the log is refused with an error that
//! tells what to do, or reads name the sequences they cannot return, or everything is read as
//! it was written. Never a panic, never less history without a word.

use super::{
    EncodedBlock, Head, Journal, OpenError, ReadError, ReadLimits, SledJournal, head_file,
    seal::SealLimits,
    sled::VERIFIED_RECORDS,
    sled_store::{RealDisk, Store},
    sled_tests::closed_log,
    test_blocks::{assert_same, block_after, blocks_after, end_of, log},
};
use crate::data_dir::DataDir;
use acta_events::Sequence;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

/// Rounds of random damage; `ACTA_DAMAGE_ROUNDS` sets another number, `ACTA_DAMAGE_SEED` the
/// seed of the first.
const ROUNDS: u64 = 40;

#[derive(Debug, PartialEq)]
enum Outcome {
    Refused(String),
    ReadDamaged,
    Intact,
}

/// Opens what is there and checks that nothing is missing without a word.
fn examine(data: &DataDir, written: &[EncodedBlock], verified_records: u64) -> Outcome {
    let end = end_of(&written[written.len() - 1]);
    let journal = match SledJournal::open_on(
        data,
        Arc::new(RealDisk),
        verified_records,
        SealLimits::default(),
    ) {
        Ok(journal) => journal,
        Err(error) => {
            if let OpenError::Damaged(ReadError::Damaged { first, last, .. }) = &error {
                assert!(Sequence::ZERO < *first && first <= last && *last <= end.seq, "{error}");
            }
            assert!(error.to_string().contains("Restore the data directory"), "{error}");
            return Outcome::Refused(error.to_string());
        }
    };
    assert_eq!(journal.head(), end);
    let damaged = read_around_damage(&journal, written);
    if damaged.is_empty() { Outcome::Intact } else { Outcome::ReadDamaged }
}

/// Reads everything that can be read, compares it, and returns the ranges that cannot. A range
/// that is named covers whole blocks and none that could be read.
fn read_around_damage(journal: &dyn Journal, written: &[EncodedBlock]) -> Vec<(u64, u64)> {
    let limits = ReadLimits { blocks: 5, bytes: usize::MAX };
    let mut after = Sequence::ZERO;
    let mut damaged = Vec::new();
    while after < journal.head().seq {
        match journal.read(after, limits) {
            Ok(blocks) => {
                let at = written.iter().position(|block| block.first == after.next()).unwrap();
                assert!(!blocks.is_empty());
                assert_same(&blocks, &written[at..at + blocks.len()]);
                after = blocks[blocks.len() - 1].last();
            }
            Err(ReadError::Damaged { first, last, .. }) => {
                assert_eq!(first, after.next());
                assert!(first <= last && last <= journal.head().seq);
                assert!(written.iter().any(|block| block.last == last), "{first} to {last}");
                damaged.push((first.0, last.0));
                after = last;
            }
            Err(error) => panic!("{error}"),
        }
    }
    damaged
}

/// Small, medium and large blocks over many leaves, in more than one segment of sled.
fn mixed_blocks() -> Vec<EncodedBlock> {
    let mut written = blocks_after(Head::empty(log()), 120, 40);
    for n in 0..300 {
        let end = end_of(&written[written.len() - 1]);
        written.push(block_after(end, 1 + n % 2, 200 * (n % 150) as usize));
    }
    written
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The length without the padding at the end, where damage does nothing.
fn used_bytes(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    let padding = bytes[bytes.len() - 1];
    bytes.iter().rposition(|byte| *byte != padding).map_or(0, |last| last as u64 + 1)
}

fn flip(file: &File, offset: u64, bit: u8) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << bit)], offset).unwrap();
}

/// One kind of damage to one file of the store, told in words.
fn damage_at_random(store: &Path, random: &mut StdRng) -> String {
    let mut files: Vec<_> = fs::read_dir(store)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.path())
        .collect();
    files.sort();
    // Mostly the file with the data.
    let path = match random.random_range(0..4) {
        0 => files[random.random_range(0..files.len())].clone(),
        _ => store.join("db"),
    };
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    if len == 0 {
        return format!("nothing: {name} is empty");
    }
    let offset = random.random_range(0..used_bytes(&path).max(1));
    match random.random_range(0..10) {
        0..5 => {
            let bit = random.random_range(0..8);
            flip(&file, offset, bit);
            format!("{name} of {len}: bit {bit} of {offset}")
        }
        5..7 => {
            let page = offset / 4096 * 4096;
            let end = len.min(page + 4096);
            file.write_all_at(&vec![0; (end - page) as usize], page).unwrap();
            format!("{name} of {len}: zeroed page at {page}")
        }
        7 => {
            let end = len.min(offset + random.random_range(1..9000));
            let noise: Vec<u8> = (offset..end).map(|_| random.random()).collect();
            file.write_all_at(&noise, offset).unwrap();
            format!("{name} of {len}: noise from {offset} to {end}")
        }
        8 => {
            file.set_len(offset).unwrap();
            format!("{name} of {len}: cut at {offset}")
        }
        _ => {
            fs::remove_file(&path).unwrap();
            format!("{name} of {len}: removed")
        }
    }
}

#[test]
fn random_damage_is_noticed() {
    let number = |name, default| {
        std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(default)
    };
    let rounds = number("ACTA_DAMAGE_ROUNDS", ROUNDS);
    let first_seed = number("ACTA_DAMAGE_SEED", 1);
    let written = mixed_blocks();
    let (_dir, data) = closed_log(&written);
    // Once more, so that sled has written a snapshot of its own.
    drop(SledJournal::open(&data).unwrap());
    let original = data.path().to_owned();
    drop(data);
    let mut counts = [0; 3];
    for seed in first_seed..first_seed + rounds {
        let mut random = StdRng::seed_from_u64(seed);
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&original, copy.path());
        let what = damage_at_random(&copy.path().join("log-1"), &mut random);
        let data = DataDir::open(copy.path()).unwrap();
        let window = if random.random() { VERIFIED_RECORDS } else { 1 };
        println!("seed {seed}, verified {window}: {what}");
        let outcome = examine(&data, &written, window);
        println!("    {outcome:?}");
        counts[match outcome {
            Outcome::Refused(_) => 0,
            Outcome::ReadDamaged => 1,
            Outcome::Intact => 2,
        }] += 1;
    }
    println!("refused, damaged reads, intact: {counts:?}");
    if rounds >= ROUNDS {
        assert!(counts[0] > 0 && counts[2] > 0, "{counts:?}: the damage does not vary");
    }
}

/// Changes single values as only damage can, and looks for the exact sequences.
#[test]
fn damaged_reads_name_the_sequences() {
    type Damage = fn(&sled::Db, &[EncodedBlock]);
    let written = mixed_blocks();
    let range = |from: usize, to: usize| vec![(written[from].first.0, written[to].last.0)];
    type Ranges = Vec<(u64, u64)>;
    let rows: &[(&str, Damage, Ranges)] = &[
        ("nothing", |_, _| {}, vec![]),
        ("a block is gone", |db, all| remove(db, &all[30..31]), range(30, 30)),
        ("three are gone", |db, all| remove(db, &all[30..33]), range(30, 32)),
        ("the first are gone", |db, all| remove(db, &all[..3]), range(0, 2)),
        ("a bit", |db, all| replace(db, &all[50], |bytes| bytes[100] ^= 4), range(50, 50)),
        ("its digest", |db, all| replace(db, &all[50], |bytes| flip_last(bytes)), range(50, 50)),
        ("its number", |db, all| replace(db, &all[50], |bytes| bytes[19] ^= 1), range(50, 50)),
        ("cut", |db, all| replace(db, &all[50], |bytes| bytes.truncate(60)), range(50, 50)),
        ("empty", |db, all| replace(db, &all[50], Vec::clear), range(50, 50)),
        (
            "two blocks in each other's place",
            |db, all| {
                put(db, &all[61], &all[63].bytes);
                put(db, &all[63], &all[61].bytes);
            },
            [range(61, 61), range(63, 63)].concat(),
        ),
        (
            "a sound block of another history",
            |db, all| {
                let other = Head { block: all[3].digest, ..end_of(&all[69]) };
                let count = all[70].last.0 - all[69].last.0;
                put(db, &all[70], &block_after(other, count, 5).bytes);
            },
            // It does not follow; and what is after it follows the one that is gone.
            [range(70, 70), range(71, 71)].concat(),
        ),
    ];
    for (name, damage, expected) in rows {
        let (_dir, data) = closed_log(&written);
        let config = sled::Config::new().path(data.path().join("log-1")).segment_size(1 << 23);
        let db = config.open().unwrap();
        damage(&db, &written);
        db.flush().unwrap();
        drop(db);
        let journal =
            SledJournal::open_on(&data, Arc::new(RealDisk), 1, SealLimits::default()).unwrap();
        assert_eq!(&read_around_damage(&journal, &written), expected, "{name}");
        drop(journal);
        // With the usual window it does not even open.
        match (SledJournal::open(&data), expected.first()) {
            (Ok(_), None) => {}
            (Err(OpenError::Damaged(ReadError::Damaged { first, last, .. })), Some(range)) => {
                assert_eq!((first.0, last.0), *range, "{name}");
            }
            (result, _) => panic!("{name}: {:?}", result.err()),
        }
    }
}

fn remove(db: &sled::Db, blocks: &[EncodedBlock]) {
    for block in blocks {
        db.remove(block.first.0.to_be_bytes()).unwrap().unwrap();
    }
}

fn put(db: &sled::Db, place: &EncodedBlock, bytes: &[u8]) {
    db.insert(place.first.0.to_be_bytes(), bytes).unwrap().unwrap();
}

fn replace(db: &sled::Db, block: &EncodedBlock, change: fn(&mut Vec<u8>)) {
    let mut bytes = block.bytes.to_vec();
    change(&mut bytes);
    put(db, block, &bytes);
}

fn flip_last(bytes: &mut [u8]) {
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
}

/// What follows HEAD and does not verify was never acknowledged, but nothing explains it.
#[test]
fn what_does_not_verify_beyond_head_is_refused() {
    let written = blocks_after(Head::empty(log()), 10, 0);
    let (_dir, data) = closed_log(&written);
    let end = end_of(&written[9]);
    let stray = block_after(Head { block: written[2].digest, ..end }, 2, 0);
    let store = Store::open(&data.path().join("log-1"), false, Arc::new(RealDisk)).unwrap();
    store.insert(stray.first, &stray.bytes).unwrap();
    store.sync().unwrap();
    drop(store);
    match SledJournal::open(&data) {
        Err(OpenError::Damaged(ReadError::Damaged { first, last, .. })) => {
            assert_eq!((first, last), (stray.first, stray.last));
        }
        other => panic!("{:?}", other.err()),
    }
}

/// The log of last week, put in the place of today's, is sound in itself.
#[test]
fn an_older_log_in_its_place_is_refused() {
    let written = blocks_after(Head::empty(log()), 40, 0);
    let (_old_dir, old) = closed_log(&written[..30]);
    let (_dir, data) = closed_log(&written);
    fs::remove_dir_all(data.path().join("log-1")).unwrap();
    copy_dir(&old.path().join("log-1"), &data.path().join("log-1"));
    match SledJournal::open(&data) {
        Err(OpenError::Damaged(ReadError::Damaged { first, last, why })) => {
            assert_eq!((first, last), (written[30].first, written[39].last));
            let (ends, durable) = (written[29].last, written[39].last);
            assert_eq!(why, format!("the log ends at {ends}, but {durable} was durable"));
        }
        other => panic!("{:?}", other.err()),
    }
    assert_eq!(head_file::read(data.path()).unwrap().head, end_of(&written[39]));
    // A log of its own that has the same length is not taken for this one either.
    let (_other_dir, other) = closed_log(&blocks_after(Head::empty(log()), 40, 9));
    fs::remove_dir_all(data.path().join("log-1")).unwrap();
    copy_dir(&other.path().join("log-1"), &data.path().join("log-1"));
    assert!(SledJournal::open(&data).err().unwrap().to_string().contains("another history"));
}
