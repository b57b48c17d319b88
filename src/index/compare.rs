//! Compares the runs of an index with the log that they were made from, run by run, without a
//! look-up: what follows from the log for the sequences that a run covers has to be what the run holds.
//!
//! Both sides are a number of entries and a sum of hashes of them, so that neither has to be sorted
//! or kept. The hashes have a key that is drawn at random for each comparison: nobody can choose
//! entries that add up to the same.

use super::{
    Entry, KeyEntry, Posting,
    error::IndexError,
    files::{self, RunName},
    run::Run,
};
use acta_events::Sequence;
use std::{
    hash::{BuildHasher as _, RandomState},
    path::Path,
};

/// Runs beside the log. Reads only: nothing of the directory is changed.
#[derive(Debug)]
pub struct Comparison {
    key: RandomState,
    postings: Table<Posting>,
    keys: Table<KeyEntry>,
    misfits: Vec<Misfit>,
}

/// A run that does not fit the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What its file is called.
    pub file: String,
    /// The first sequence that it covers.
    pub first: Sequence,
    /// The last sequence that it covers.
    pub last: Sequence,
    /// What is wrong with it.
    pub what: String,
}

#[derive(Debug)]
struct Table<E> {
    /// Oldest first, each with what follows from the log for it.
    runs: Vec<(Run<E>, Sum)>,
    /// The run that the log has come to.
    at: usize,
    /// The last record that is not compared, because it has expired.
    expired: Sequence,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    count: u64,
    hashes: u64,
}

impl Sum {
    fn add(&mut self, key: &RandomState, entry: &impl Entry) {
        self.count += 1;
        self.hashes = self.hashes.wrapping_add(key.hash_one(entry.bits()));
    }
}

impl Comparison {
    /// The runs that a service would take into use; none where there is no directory.
    pub fn open(dir: &Path) -> Result<Self, IndexError> {
        let chosen = files::chosen(dir)?;
        let mut misfits = Vec::new();
        let postings = Table::open(dir, &chosen.postings, &mut misfits)?;
        let keys = Table::open(dir, &chosen.keys, &mut misfits)?;
        Ok(Self { key: RandomState::new(), postings, keys, misfits })
    }

    /// The records up to there have expired: what a run still has of them is not compared.
    pub fn begin_behind(&mut self, expired: Sequence) {
        (self.postings.expired, self.keys.expired) = (expired, expired);
    }

    /// Takes in what follows from a record. Records come in order.
    pub fn take_in(&mut self, posting: Option<&Posting>, key: Option<&KeyEntry>) {
        if let Some(posting) = posting {
            self.postings.take_in(&self.key, posting);
        }
        if let Some(key) = key {
            self.keys.take_in(&self.key, key);
        }
    }

    /// How many runs were compared, and which do not fit, the log being read up to a sequence: to
    /// its end, or to where it is damaged. Runs behind that are not compared.
    pub fn finish(
        mut self,
        through: Sequence,
        to_the_end: bool,
    ) -> Result<(u64, Vec<Misfit>), IndexError> {
        let mut compared = self.misfits.len() as u64;
        compared += self.postings.finish(&self.key, (through, to_the_end), &mut self.misfits)?;
        compared += self.keys.finish(&self.key, (through, to_the_end), &mut self.misfits)?;
        Ok((compared, self.misfits))
    }
}

impl<E: Entry> Table<E> {
    fn open(dir: &Path, names: &[RunName], misfits: &mut Vec<Misfit>) -> Result<Self, IndexError> {
        let mut runs = Vec::new();
        for name in names {
            match Run::open(dir, name, super::FENCE_BYTES_MAX) {
                Ok(run) => runs.push((run, Sum::default())),
                Err(error) => misfits.push(misfit::<E>(*name, damage(error)?)),
            }
        }
        Ok(Self { runs, at: 0, expired: Sequence::ZERO })
    }

    fn take_in(&mut self, key: &RandomState, entry: &E) {
        let seq = entry.seq();
        while let Some((run, sum)) = self.runs.get_mut(self.at) {
            if seq <= run.last() {
                if run.first() <= seq {
                    sum.add(key, entry);
                }
                break;
            }
            self.at += 1;
        }
    }

    fn finish(
        &self,
        key: &RandomState,
        (through, to_the_end): (Sequence, bool),
        misfits: &mut Vec<Misfit>,
    ) -> Result<u64, IndexError> {
        let mut compared = 0;
        for (run, expected) in &self.runs {
            if run.last() > through && !to_the_end {
                continue;
            }
            compared += 1;
            if let Some(what) = difference(run, key, *expected, (self.expired, through))? {
                misfits.push(misfit::<E>(run.name(), what));
            }
        }
        Ok(compared)
    }
}

fn difference<E: Entry>(
    run: &Run<E>,
    key: &RandomState,
    expected: Sum,
    (expired, through): (Sequence, Sequence),
) -> Result<Option<String>, IndexError> {
    if run.last() > through {
        return Ok(Some(format!("it goes beyond the log, which ends at {through}")));
    }
    let mut found = Sum::default();
    let each = |entry: &E| {
        if entry.seq() > expired {
            found.add(key, entry);
        }
    };
    if let Err(error) = run.each(each) {
        return damage(error).map(Some);
    }
    Ok(if found.count != expected.count {
        Some(format!("it has {} entries, where the log has {}", found.count, expected.count))
    } else if found != expected {
        Some("its entries are not those of the log".into())
    } else {
        None
    })
}

fn misfit<E: Entry>(name: RunName, what: String) -> Misfit {
    Misfit { file: name.file_name::<E>(), first: name.first, last: name.last, what }
}

/// What is wrong with a run, unless it could not be read at all.
fn damage(error: IndexError) -> Result<String, IndexError> {
    match error {
        IndexError::Damaged { what, .. } => Ok(format!("it is damaged ({what})")),
        other => Err(other),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::{
        super::{
            Index,
            entry::PostingKind,
            page::{Checksum, FOOTER_BYTES, PAGE_BYTES},
        },
        *,
    };
    use std::{fs, path::PathBuf};

    /// Of each record a posting of one of five workers, and of every third a key.
    fn entries(seq: u64) -> (Posting, Option<KeyEntry>) {
        let (worker, items) = ((seq % 5) as u32, (seq / 5) as u32 + 1);
        let kind = PostingKind::Item;
        let posting = Posting { worker, seq: Sequence(seq), items, kind, run: (seq % 2) as u8 };
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&seq.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        (posting, seq.is_multiple_of(3).then_some(KeyEntry { digest, seq: Sequence(seq) }))
    }

    /// An index over records in three runs of each table.
    fn written(dir: &Path) {
        let index = Index::open(dir).unwrap();
        let mut first = 1;
        for last in [4_000, 5_000, 5_200] {
            let (postings, keys): (Vec<_>, Vec<_>) = (first..=last).map(entries).unzip();
            let keys: Vec<_> = keys.into_iter().flatten().collect();
            index.apply(Sequence(first), Sequence(last), &postings, &keys).unwrap();
            index.flush(index.freeze().unwrap()).unwrap();
            first = last + 1;
        }
    }

    fn compared(dir: &Path, records: u64, to_the_end: bool) -> (u64, Vec<Misfit>) {
        let mut comparison = Comparison::open(dir).unwrap();
        for seq in 1..=records {
            let (posting, key) = entries(seq);
            comparison.take_in(Some(&posting), key.as_ref());
        }
        comparison.finish(Sequence(records), to_the_end).unwrap()
    }

    /// The largest run of a table.
    fn run(dir: &Path, table: &str) -> PathBuf {
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let of_table =
            |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(table);
        files.filter(of_table).max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
    }

    #[test]
    fn an_index_fits_the_log_that_it_was_made_from() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(compared(&dir.path().join("none"), 10, true), (0, vec![]));
        assert!(!dir.path().join("none").exists());
        written(dir.path());
        assert_eq!(compared(dir.path(), 5_200, true), (6, vec![]));
        assert_eq!(compared(dir.path(), 6_000, true), (6, vec![]));
        let (count, misfits) = compared(dir.path(), 5_100, true);
        assert_eq!(count, 6);
        assert_eq!(misfits.len(), 2, "the last run of each table: {misfits:?}");
        assert!(misfits[0].what.contains("beyond the log"), "{misfits:?}");
        assert_eq!(compared(dir.path(), 5_100, false), (4, vec![]), "as far as it can be told");
    }

    /// An entry that is altered, and its page with a checksum that is right again.
    #[test]
    fn an_entry_that_is_altered_under_a_right_checksum_is_found() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        for (table, at) in
            [("postings", 20), ("postings", 2), ("keys", 2 + 7), ("keys", 2 + 17 + 16)]
        {
            let path = run(dir.path(), table);
            let before = fs::read(&path).unwrap();
            let mut bytes = before.clone();
            let mut page = bytes[..PAGE_BYTES - 4].to_vec();
            page[at] ^= 1;
            let (first, last) = (Sequence(1), Sequence(4_000));
            match table {
                "keys" => Checksum::of_file::<KeyEntry>(first, last).seal(&mut page, 0),
                _ => Checksum::of_file::<Posting>(first, last).seal(&mut page, 0),
            }
            bytes[..PAGE_BYTES].copy_from_slice(&page);
            fs::write(&path, &bytes).unwrap();
            let (_, misfits) = compared(dir.path(), 5_200, true);
            let [misfit] = &misfits[..] else { panic!("{table} {at}: {misfits:?}") };
            assert_eq!((misfit.first, misfit.last), (first, last), "{table} {at}");
            assert!(misfit.file.starts_with(table), "{misfit:?}");
            fs::write(&path, &before).unwrap();
        }
        assert_eq!(compared(dir.path(), 5_200, true).1, vec![]);
    }

    #[test]
    fn what_has_expired_is_not_compared_and_what_follows_is() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let misfits = |expired: u64, log_begins_at: u64| {
            let mut comparison = Comparison::open(dir.path()).unwrap();
            comparison.begin_behind(Sequence(expired));
            for seq in log_begins_at..=5_200 {
                let (posting, key) = entries(seq);
                comparison.take_in(Some(&posting), key.as_ref());
            }
            comparison.finish(Sequence(5_200), true).unwrap().1.len()
        };
        assert_eq!(misfits(1_500, 1_501), 0);
        assert_eq!(misfits(4_000, 4_001), 0);
        assert_eq!(misfits(1_500, 1_512), 2, "a run of each table has more than the log");
    }

    #[test]
    fn a_damaged_file_is_one_misfit_and_the_others_are_compared() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        for at in [0, FOOTER_BYTES] {
            let path = run(dir.path(), "keys");
            let before = fs::read(&path).unwrap();
            let mut bytes = before.clone();
            let place = if at == 0 { 100 } else { bytes.len() - at };
            bytes[place] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let (count, misfits) = compared(dir.path(), 5_200, true);
            assert_eq!((count, misfits.len()), (6, 1), "{misfits:?}");
            assert!(misfits[0].what.contains("it is damaged"), "{misfits:?}");
            fs::write(&path, &before).unwrap();
        }
    }
}
