//! Damage, refusals, and what only shows with many entries, many runs or many threads.

use super::{
    Frozen, Index, IndexError, KeyEntry, Posting, PostingKind,
    model::{Model, Random, digest, files},
};
use acta_events::Sequence;
use proptest::prelude::*;
use std::{fs, path::Path, thread};

/// Applies and flushes so many records at a time, so many times.
fn fill(index: &Index, model: &mut Model, random: &mut Random, flushes: &[u64]) {
    for &count in flushes {
        model.grow(count, random);
        model.apply(index, model.position - count + 1..=model.position).unwrap();
        index.flush(index.freeze().unwrap()).unwrap();
    }
}

/// Changes a file the way a disk might, so that it differs.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let before = bytes.clone();
    while *bytes == before {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => bytes.extend_from_slice(&before[at..]),
            3 => {
                let page = at / 4096 * 4096;
                let end = bytes.len().min(page + 4096);
                bytes[page..end].fill(0);
            }
            // A page in the place of another one.
            _ => {
                let pages = bytes.len() as u64 / 4096;
                let [from, to] = [(); 2].map(|()| random.below(pages) as usize * 4096);
                bytes.copy_within(from..from + 4096, to);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// With any one file damaged, opening or a look-up says so, or the answer is right.
    #[test]
    fn damage_is_never_a_wrong_answer(seed: u64, by_group: bool) {
        let dir = tempfile::tempdir().unwrap();
        let fence_bytes_max = if by_group { 0 } else { super::FENCE_BYTES_MAX };
        let (mut model, mut random) = (Model::default(), Random(seed));
        let index = Index::open(dir.path()).unwrap();
        fill(&index, &mut model, &mut random, &[1500, 600, 100]);
        drop(index);
        let files = files(dir.path());
        prop_assert_eq!(files.len(), 6);
        let (name, bytes) = files.iter().nth(random.below(6) as usize).unwrap();
        let mut bytes = bytes.clone();
        damage(&mut bytes, &mut random);
        fs::write(dir.path().join(name), bytes).unwrap();
        match Index::open_with(dir.path(), fence_bytes_max) {
            Ok(index) => {
                model.replay(&index);
                for _ in 0..20 {
                    model.ask(&index, &mut random);
                }
            }
            Err(IndexError::Damaged { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every byte of a file is covered by a checksum: a look-up of everything notices any change.
#[test]
fn damage_anywhere_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut model, mut random) = (Model::default(), Random(7));
    fill(&Index::open(dir.path()).unwrap(), &mut model, &mut random, &[1000]);
    for (name, bytes) in files(dir.path()) {
        let path = dir.path().join(&name);
        for at in (0..bytes.len()).step_by(61).chain(bytes.len() - 52..bytes.len()) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            let read_all = Index::open_with(dir.path(), 0).and_then(|index| {
                for worker in 0..5 {
                    index.after(worker, Sequence::ZERO, Sequence(1000), usize::MAX)?;
                }
                (0..3000).try_for_each(|key| index.find_key(&digest(key)).map(drop))
            });
            let file = name.to_string_lossy();
            match read_all {
                Err(IndexError::Damaged { file: named, .. }) => assert_eq!(named, file),
                other => panic!("byte {at} of {file}: {other:?}"),
            }
        }
        fs::write(&path, bytes).unwrap();
    }
}

/// A file of another index that bears a fitting name, and one that was cut short while open.
#[test]
fn a_file_that_is_not_the_one_written_is_damaged() {
    let [dir, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (mut model, mut random) = (Model::default(), Random(7));
    let index = Index::open(dir.path()).unwrap();
    fill(&index, &mut model, &mut random, &[1000]);
    let name = |table: &str, last: u64| format!("{table}-{:020}-{last:020}.idx", 1);
    for table in ["postings", "keys"] {
        let from = dir.path().join(name(table, 1000));
        fs::copy(from, other.path().join(name(table, 999))).unwrap();
    }
    let refused = Index::open(other.path()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "the index file `{}` is damaged (another file or format): stop the service and \
             remove the `index` directory; it is rebuilt from the log at the next start",
            name("postings", 999)
        )
    );
    let keys = fs::OpenOptions::new().write(true).open(dir.path().join(name("keys", 1000)));
    keys.unwrap().set_len(0).unwrap();
    let refused = (0..3000).find_map(|key| index.find_key(&digest(key)).err());
    assert!(matches!(refused, Some(IndexError::Damaged { .. })), "{refused:?}");
    assert!(index.after(0, Sequence::ZERO, Sequence(1000), 9).is_ok(), "the other table is whole");
}

fn posting(worker: u32, seq: u64, items: u32, kind: PostingKind) -> Posting {
    Posting { worker, seq: Sequence(seq), items, kind, run: 0 }
}

#[test]
fn a_disordered_batch_leaves_nothing_behind() {
    use PostingKind::{Delta, Item};
    let rows: &[(&str, &[Posting], &[u64])] = &[
        ("posting before the batch", &[posting(1, 3, 1, Item)], &[]),
        ("posting after the batch", &[posting(1, 4, 1, Item), posting(1, 7, 1, Delta)], &[]),
        ("key before the batch", &[posting(1, 4, 1, Item)], &[3]),
        ("key after the batch", &[posting(1, 4, 1, Item)], &[7]),
        ("sequence repeats", &[posting(1, 4, 1, Item), posting(1, 4, 2, Item)], &[4]),
        ("sequence falls", &[posting(1, 5, 1, Item), posting(1, 4, 1, Delta)], &[4]),
        ("items fall", &[posting(0, 4, 8, Delta)], &[4]),
        ("items do not rise", &[posting(1, 4, 1, Item), posting(1, 5, 1, Item)], &[4]),
    ];
    for (what, postings, keys) in rows {
        let index = Index::in_memory();
        let before = [posting(0, 1, 9, Item), posting(0, 2, 9, Delta)];
        index.apply(Sequence(1), Sequence(3), &before, &[]).unwrap();
        let key = |&seq: &u64| KeyEntry { digest: digest(seq), seq: Sequence(seq) };
        let keys: Vec<_> = keys.iter().map(key).collect();
        let refused = index.apply(Sequence(4), Sequence(6), postings, &keys);
        assert!(matches!(refused, Err(IndexError::Disordered { .. })), "{what}");
        assert_eq!(index.position(), Sequence(3), "{what}");
        let all = |worker| index.after(worker, Sequence::ZERO, Sequence(9), 9).unwrap();
        assert_eq!((all(0), all(1)), (before.to_vec(), vec![]), "{what}");
        assert_eq!(index.find_key(&digest(4)).unwrap(), None, "{what}");
    }
}

#[test]
fn a_log_whose_beginning_expired_starts_with_an_empty_batch() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    index.apply(Sequence(1), Sequence(1_000_000), &[], &[]).unwrap();
    let first = posting(3, 1_000_001, 7, PostingKind::Item);
    index.apply(first.seq, first.seq, &[first], &[]).unwrap();
    index.flush(index.freeze().unwrap()).unwrap();
    assert!(index.freeze().is_none(), "nothing more to flush");
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(index.position(), first.seq);
    assert_eq!(index.items(3, 1, 9, first.seq).unwrap(), [first]);
}

#[test]
fn only_the_part_that_was_frozen_is_flushed() {
    let [one, two] = [(); 2].map(|()| {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        index.apply(Sequence(1), Sequence(5), &[], &[]).unwrap();
        (dir, index)
    });
    let frozen: Frozen = one.1.freeze().unwrap();
    assert!(matches!(two.1.flush(frozen), Err(IndexError::NotFrozen)));
    one.1.flush(one.1.freeze().expect("handed out again")).unwrap();
    assert_eq!(one.1.flushed_through(), Sequence(5));
    assert_eq!(two.1.flushed_through(), Sequence::ZERO);
}

/// A merge that fails costs nothing but the merge, and the next flush makes up for it.
#[test]
fn a_failed_merge_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let (mut model, mut random) = (Model::default(), Random(3));
    let index = Index::open(dir.path()).unwrap();
    fill(&index, &mut model, &mut random, &[64]);
    model.grow(64, &mut random);
    model.apply(&index, 65..=128).unwrap();
    let in_the_way = dir.path().join(format!("keys-{:020}-{:020}.idx.tmp", 1, 128));
    fs::create_dir(&in_the_way).unwrap();
    assert!(matches!(index.flush(index.freeze().unwrap()), Err(IndexError::Io { .. })));
    assert_eq!((index.flushed_through(), index.stats().runs), (Sequence(128), 3));
    fs::remove_dir(&in_the_way).unwrap();
    assert!((0..200).all(|_| model.ask(&index, &mut random)));
    fill(&index, &mut model, &mut random, &[64]);
    assert_eq!(index.stats().runs, 3, "one more run of postings, all keys in one");
    assert!((0..200).all(|_| model.ask(&index, &mut random)));
}

/// Runs of several groups, of which a look-up finds the right one with the fences in memory or
/// in the file; the number of runs is that of the digits of a binary counter.
#[test]
fn large_runs_are_found_by_group() {
    const FLUSHES: u64 = 11;
    let dir = tempfile::tempdir().unwrap();
    let (mut model, mut random) = (Model::default(), Random(11));
    let index = Index::open(dir.path()).unwrap();
    let flushes = [16_384; FLUSHES as usize];
    fill(&index, &mut model, &mut random, &flushes);
    let runs = 2 * FLUSHES.count_ones() as usize;
    assert_eq!((index.stats().runs, files(dir.path()).len()), (runs, runs));
    for fence_bytes_max in [super::FENCE_BYTES_MAX, 0] {
        let index = Index::open_with(dir.path(), fence_bytes_max).unwrap();
        assert_eq!(index.flushed_through().0, FLUSHES * 16_384);
        assert_eq!(index.stats().fence_bytes < 1024, fence_bytes_max == 0);
        assert!((0..200).all(|_| model.ask(&index, &mut random)));
    }
}

/// Runs of version 2, which have no filter, are read beside those that have one.
#[test]
fn runs_of_the_version_before_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut model, mut random) = (Model::default(), Random(3));
    let index = Index::open(dir.path()).unwrap();
    fill(&index, &mut model, &mut random, &[1000]);
    assert!(index.stats().filter_bytes > 1000);
    drop(index);
    for (name, mut bytes) in files(dir.path()) {
        let footer_at = bytes.len() - 52;
        let filter_pages: u16 = bytes[footer_at + 15].into();
        let mut footer = bytes.split_off(footer_at);
        bytes.truncate(bytes.len() - usize::from(filter_pages) * 4096);
        footer[9] = 2;
        footer[14..16].fill(0);
        let checksum = crc32fast::hash(&footer[..48]);
        footer[48..].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(footer);
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(index.stats().filter_bytes, 0);
    assert!((0..200).all(|_| model.ask(&index, &mut random)));
    fill(&index, &mut model, &mut random, &[500]);
    assert!(index.stats().filter_bytes > 500);
    assert!((0..200).all(|_| model.ask(&index, &mut random)));
}

/// Look-ups go on, and stay right, while parts are frozen, flushed and merged.
#[test]
fn look_ups_and_flushes_go_side_by_side() {
    fn shared<T: Send + Sync>(value: T) -> T {
        value
    }
    let dir = tempfile::tempdir().unwrap();
    let index = shared(Index::open(dir.path()).unwrap());
    let (mut model, mut random) = (Model::default(), Random(5));
    model.grow(20_000, &mut random);
    model.apply(&index, 1..=100).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for first in (101..=20_000).step_by(100) {
                model.apply(&index, first..=first + 99).unwrap();
                if let Some(frozen) = index.freeze() {
                    scope.spawn(|| index.flush(frozen).unwrap());
                }
            }
        });
        let mut seen = 0;
        while !writer.is_finished() {
            let position = index.position();
            let all = index.after(0, Sequence::ZERO, position, usize::MAX).unwrap();
            assert!(all.is_sorted_by_key(|posting| posting.seq) && all.len() >= seen);
            let newest = index.before(0, position, usize::MAX).unwrap();
            assert!(newest.into_iter().rev().eq(all.iter().copied()), "up to {position}");
            seen = all.len();
        }
    });
    if let Some(frozen) = index.freeze() {
        index.flush(frozen).unwrap();
    }
    assert!((0..200).all(|_| model.ask(&index, &mut random)));
    check_directory(dir.path(), &index);
}

fn check_directory(dir: &Path, index: &Index) {
    assert_eq!(files(dir).len(), index.stats().runs);
    let reopened = Index::open(dir).unwrap();
    assert_eq!(reopened.stats().run_entries, index.stats().run_entries);
}
