//! The index against a plain list: whatever is applied, frozen, flushed, merged, interrupted
//! and reopened, every look-up answers the same.

use super::{Index, IndexError, KeyEntry, Posting, PostingKind};
use acta_events::Sequence;
use proptest::prelude::*;
use std::{collections::BTreeMap, ffi::OsString, fs, ops::RangeInclusive, path::Path};

/// SplitMix64: small, and the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The digest of a key, uniformly distributed.
pub(super) fn digest(key: u64) -> [u8; 16] {
    let mut random = Random(key);
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&random.next().to_be_bytes());
    digest[8..].copy_from_slice(&random.next().to_be_bytes());
    digest
}

const WORKERS: u64 = 4;
const KEYS: u64 = 3_000;

/// Everything that was applied, as plainly as possible.
#[derive(Debug, Default)]
pub(super) struct Model {
    postings: Vec<Posting>,
    keys: Vec<KeyEntry>,
    pub(super) position: u64,
    items: BTreeMap<u32, u32>,
}

impl Model {
    /// Makes up `count` further records, most of them of one worker, few completing an item.
    pub(super) fn grow(&mut self, count: u64, random: &mut Random) {
        for seq in self.position + 1..=self.position + count {
            if random.below(4) > 0 {
                let worker = random.below(WORKERS).saturating_sub(random.below(WORKERS)) as u32;
                let kind = match random.below(40) {
                    0 => PostingKind::Item,
                    1 => PostingKind::TextDone,
                    2..6 => PostingKind::Other,
                    _ => PostingKind::Delta,
                };
                let items = self.items.entry(worker).or_default();
                *items += u32::from(kind.completes_item());
                let (items, run) = (*items, random.next() as u8);
                self.postings.push(Posting { worker, seq: Sequence(seq), items, kind, run });
            }
            if random.below(3) > 0 {
                let digest = digest(random.below(KEYS));
                self.keys.push(KeyEntry { digest, seq: Sequence(seq) });
            }
        }
        self.position += count;
    }

    /// Gives the index a range of the log.
    pub(super) fn apply(
        &self,
        index: &Index,
        range: RangeInclusive<u64>,
    ) -> Result<(), IndexError> {
        let seqs = Sequence(*range.start())..=Sequence(*range.end());
        let postings: Vec<_> =
            self.postings.iter().filter(|entry| seqs.contains(&entry.seq)).copied().collect();
        let keys: Vec<_> =
            self.keys.iter().filter(|entry| seqs.contains(&entry.seq)).copied().collect();
        index.apply(*seqs.start(), *seqs.end(), &postings, &keys)
    }

    /// What a start does: applies from the log what the runs do not cover.
    pub(super) fn replay(&self, index: &Index) {
        assert!(index.flushed_through().0 <= self.position);
        assert_eq!(index.position(), index.flushed_through());
        self.apply(index, index.flushed_through().0 + 1..=self.position).unwrap();
    }

    /// Asks one random question of each kind. `Ok(false)` when the index refused one because a
    /// file is damaged; any other answer has to be right.
    pub(super) fn ask(&self, index: &Index, random: &mut Random) -> bool {
        let worker = random.below(WORKERS + 1) as u32;
        let mut seq = || Sequence(random.below(self.position + 2));
        let (after, through) = (seq(), seq());
        let limit = [0, 1, 3, 256, usize::MAX][random.below(5) as usize];
        let last = self.items.get(&worker).copied().unwrap_or_default();
        let item = random.below(u64::from(last) + 3) as u32;
        let digest = digest(random.below(KEYS + 10));

        let of_worker = || self.postings.iter().filter(|posting| posting.worker == worker);
        let forward: Vec<Posting> = of_worker()
            .filter(|posting| after < posting.seq && posting.seq <= through)
            .take(limit)
            .copied()
            .collect();
        let backward: Vec<Posting> = of_worker()
            .rev()
            .filter(|posting| posting.seq <= through)
            .take(limit)
            .copied()
            .collect();
        let items: Vec<Posting> = of_worker()
            .filter(|posting| posting.kind.completes_item())
            .filter(|posting| posting.items >= item && posting.seq <= through)
            .take(limit)
            .copied()
            .collect();
        let key = self.keys.iter().rev().find(|key| key.digest == digest).map(|key| key.seq);
        let key_above = key.filter(|&seq| seq > after);

        let right = [
            answers(index.after(worker, after, through, limit), &forward),
            answers(index.before(worker, through, limit), &backward),
            answers(index.items(worker, item, limit, through), &items),
            answers(index.find_key(&digest), &key),
            answers(index.find_key_above(&digest, after), &key_above),
        ];
        !right.contains(&false)
    }
}

/// Whether there was an answer, which then must be the expected one.
fn answers<T: PartialEq + std::fmt::Debug>(answer: Result<T, IndexError>, expected: &T) -> bool {
    match answer {
        Ok(answer) => assert_eq!(answer, *expected),
        Err(IndexError::Damaged { .. }) => return false,
        Err(error) => panic!("{error}"),
    }
    true
}

/// The files of a directory.
pub(super) fn files(dir: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Apply(u64),
    /// From so far below the position, and so many new ones.
    ApplyOverlapping(u64, u64),
    Gap,
    Freeze,
    DropFrozen,
    Flush,
    /// A flush that cannot create the temporary file of one of the tables.
    FailingFlush(bool),
    Reopen,
    /// Reopens with what a crash during a flush may leave: all files from before it and some
    /// from after it, or the other way round, and temporary files.
    CrashDuringFlush(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u64..5).prop_map(Step::Apply),
        4 => (1u64..700).prop_map(Step::Apply),
        2 => (0u64..100, 0u64..100).prop_map(|(old, new)| Step::ApplyOverlapping(old, new)),
        1 => Just(Step::Gap),
        3 => Just(Step::Freeze),
        1 => Just(Step::DropFrozen),
        5 => Just(Step::Flush),
        1 => any::<bool>().prop_map(Step::FailingFlush),
        2 => Just(Step::Reopen),
        2 => any::<bool>().prop_map(Step::CrashDuringFlush),
    ];
    prop::collection::vec(step, 1..40)
}

struct Bench {
    dir: tempfile::TempDir,
    fence_bytes_max: u64,
    index: Index,
    frozen: Option<super::Frozen>,
    model: Model,
    random: Random,
}

impl Bench {
    fn reopen(&mut self) {
        self.frozen = None;
        self.index = Index::open_with(self.dir.path(), self.fence_bytes_max).unwrap();
        self.model.replay(&self.index);
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        match self.frozen.take().or_else(|| self.index.freeze()) {
            Some(frozen) => self.index.flush(frozen),
            None => Ok(()),
        }
    }

    fn failing_flush(&mut self, keys: bool) {
        let (position, flushed) = (self.model.position, self.index.flushed_through().0);
        let Some(frozen) = self.frozen.take().or_else(|| self.index.freeze()) else { return };
        let through = frozen.part.last.0;
        assert!(flushed < through && through <= position);
        let table = if keys { "keys" } else { "postings" };
        let name = format!("{table}-{:020}-{through:020}.idx.tmp", flushed + 1);
        fs::create_dir(self.dir.path().join(&name)).unwrap();
        assert!(matches!(self.index.flush(frozen), Err(IndexError::Io { .. })));
        fs::remove_dir(self.dir.path().join(&name)).unwrap();
        assert_eq!(self.index.flushed_through().0, flushed);
    }

    fn crash_during_flush(&mut self, early: bool) {
        let dir = self.dir.path().to_owned();
        let before = files(&dir);
        self.flush().unwrap();
        let after = files(&dir);
        let (kept, partly) = if early { (before, after) } else { (after, before) };
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
        for (name, bytes) in partly.iter().filter(|_| self.random.below(2) == 0) {
            fs::write(dir.join(name), bytes).unwrap();
        }
        for (name, bytes) in &kept {
            fs::write(dir.join(name), bytes).unwrap();
            let mut temporary = name.clone();
            temporary.push(".tmp");
            fs::write(dir.join(temporary), &bytes[..bytes.len() / 2]).unwrap();
        }
        self.reopen();
        let left = files(&dir);
        assert!(left.keys().all(|name| !name.to_string_lossy().ends_with(".tmp")));
        assert_eq!(left.len(), self.index.stats().runs, "leftovers are removed");
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Apply(count) => {
                self.model.grow(count, &mut self.random);
                self.model
                    .apply(&self.index, self.model.position - count + 1..=self.model.position)
                    .unwrap();
            }
            Step::ApplyOverlapping(old, new) => {
                let first = self.model.position.saturating_sub(old) + 1;
                self.model.grow(new, &mut self.random);
                if first <= self.model.position {
                    self.model.apply(&self.index, first..=self.model.position).unwrap();
                }
            }
            Step::Gap => {
                let first = Sequence(self.model.position + 2);
                let refused = self.index.apply(first, first, &[], &[]);
                assert!(matches!(refused, Err(IndexError::Gap { .. })));
            }
            Step::Freeze => {
                let frozen = self.index.freeze();
                assert!(self.frozen.is_none() || frozen.is_none(), "one part at a time");
                self.frozen = self.frozen.take().or(frozen);
            }
            Step::DropFrozen => self.frozen = None,
            Step::Flush => self.flush().unwrap(),
            Step::FailingFlush(keys) => self.failing_flush(keys),
            Step::Reopen => self.reopen(),
            Step::CrashDuringFlush(early) => self.crash_during_flush(early),
        }
        assert_eq!(self.index.position().0, self.model.position);
        for _ in 0..8 {
            assert!(self.model.ask(&self.index, &mut self.random));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_index_answers_like_a_list(steps in steps(), seed: u64, by_group: bool) {
        let dir = tempfile::tempdir().unwrap();
        let fence_bytes_max = if by_group { 0 } else { super::FENCE_BYTES_MAX };
        let index = Index::open_with(dir.path(), fence_bytes_max).unwrap();
        let (model, random) = (Model::default(), Random(seed));
        let mut bench = Bench { dir, fence_bytes_max, index, frozen: None, model, random };
        for step in &steps {
            bench.step(step);
        }
    }

    #[test]
    fn without_a_directory_it_answers_the_same(batches in prop::collection::vec(1u64..200, 1..10), seed: u64) {
        let (index, mut model, mut random) = (Index::in_memory(), Model::default(), Random(seed));
        for count in batches {
            model.grow(count, &mut random);
            model.apply(&index, model.position - count + 1..=model.position).unwrap();
            prop_assert!(index.freeze().is_none());
            prop_assert!(model.ask(&index, &mut random));
        }
    }
}
