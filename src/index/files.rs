//! The directory of the index: file names, and which of the files count.

use super::{
    entry::{Entry, KeyEntry, Posting},
    error::IndexError,
};
use acta_events::Sequence;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
};

const RUN: &str = ".idx";
const TEMPORARY: &str = ".idx.tmp";
/// What runs of format 1 were called: they are removed, and what they held is read from the log.
const FORMAT_1: [&str; 2] = [".run", ".run.tmp"];

/// What a run file covers, which is what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RunName {
    /// First sequence covered.
    pub(super) first: Sequence,
    /// Last sequence covered.
    pub(super) last: Sequence,
}

impl RunName {
    /// Its name in the directory, for example
    /// `keys-00000000000000000001-00000000000000065536.idx`.
    pub(super) fn file_name<E: Entry>(&self) -> String {
        format!("{}-{:020}-{:020}{RUN}", E::TABLE, self.first.0, self.last.0)
    }

    /// Its name while it is being written.
    pub(super) fn temporary<E: Entry>(&self) -> String {
        format!("{}.tmp", self.file_name::<E>())
    }

    /// `None` for any other file.
    fn parse<E: Entry>(file_name: &str) -> Option<Self> {
        let range = file_name.strip_prefix(E::TABLE)?.strip_prefix('-')?.strip_suffix(RUN)?;
        let (first, last) = range.split_once('-')?;
        let name =
            Self { first: Sequence(first.parse().ok()?), last: Sequence(last.parse().ok()?) };
        let valid = Sequence::ZERO < name.first && name.first <= name.last;
        (valid && name.file_name::<E>() == file_name).then_some(name)
    }
}

/// The runs to open, in order and without a gap from sequence 1, both tables up to `through`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chains {
    pub(super) postings: Vec<RunName>,
    pub(super) keys: Vec<RunName>,
    pub(super) through: Sequence,
}

/// For each sequence that a gapless chain of the runs from sequence 1 can end at, the shortest
/// such chain: with a merged run and its parts both there, the merged one counts.
fn chains(mut names: Vec<RunName>) -> BTreeMap<Sequence, Vec<RunName>> {
    names.sort_unstable();
    let mut ends = BTreeMap::from([(Sequence::ZERO, Vec::new())]);
    for name in names {
        // All runs that end before this one begin have come already.
        let Some(before) = ends.get(&Sequence(name.first.0 - 1)) else { continue };
        if ends.get(&name.last).is_none_or(|known| before.len() + 1 < known.len()) {
            let chain = before.iter().copied().chain([name]).collect();
            ends.insert(name.last, chain);
        }
    }
    ends
}

impl Chains {
    /// Takes the furthest end that both tables reach. What is beyond it in one of them is of a
    /// flush that was interrupted.
    fn choose(postings: Vec<RunName>, keys: Vec<RunName>) -> Self {
        let (mut postings, mut keys) = (chains(postings), chains(keys));
        let through =
            postings.keys().rev().find(|end| keys.contains_key(end)).copied().unwrap_or_default();
        Self {
            postings: postings.remove(&through).unwrap_or_default(),
            keys: keys.remove(&through).unwrap_or_default(),
            through,
        }
    }
}

/// Makes the directory if there is none, chooses the runs in it, and removes what an
/// interrupted flush or merge left behind. Files that are not of the index stay.
pub(super) fn settle(dir: &Path) -> Result<Chains, IndexError> {
    fs::create_dir_all(dir).map_err(|error| IndexError::io(".", error))?;
    let (chosen, leftover) = look(dir)?;
    for name in &leftover {
        fs::remove_file(dir.join(name)).map_err(|error| IndexError::io(name, error))?;
    }
    if !leftover.is_empty() {
        sync(dir)?;
    }
    Ok(chosen)
}

/// The runs in a directory that [`settle`] would choose; none if there is no directory.
pub(super) fn chosen(dir: &Path) -> Result<Chains, IndexError> {
    if dir.exists() { look(dir).map(|(chosen, _)| chosen) } else { Ok(Chains::default()) }
}

/// The runs to open, and the files of the index that are none of them.
fn look(dir: &Path) -> Result<(Chains, Vec<String>), IndexError> {
    let failed = |error: io::Error| IndexError::io(".", error);
    let (mut postings, mut keys, mut leftover) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(failed)? {
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
        let is_old = FORMAT_1.iter().any(|ending| name.ends_with(ending));
        if name.ends_with(TEMPORARY) || is_old {
            leftover.push(name);
        } else if let Some(run) = RunName::parse::<Posting>(&name) {
            postings.push(run);
        } else if let Some(run) = RunName::parse::<KeyEntry>(&name) {
            keys.push(run);
        }
    }
    let chosen = Chains::choose(postings.clone(), keys.clone());
    let superseded = |chain: &[RunName], run: &RunName| !chain.contains(run);
    postings.retain(|run| superseded(&chosen.postings, run));
    keys.retain(|run| superseded(&chosen.keys, run));
    leftover.extend(postings.iter().map(RunName::file_name::<Posting>));
    leftover.extend(keys.iter().map(RunName::file_name::<KeyEntry>));
    Ok((chosen, leftover))
}

/// Makes renames and removals in the directory durable.
pub(super) fn sync(dir: &Path) -> Result<(), IndexError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| IndexError::io(".", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(ranges: &[(u64, u64)]) -> Vec<RunName> {
        let name =
            |&(first, last): &(u64, u64)| RunName { first: Sequence(first), last: Sequence(last) };
        ranges.iter().map(name).collect()
    }

    type Ranges<'a> = &'a [(u64, u64)];

    #[test]
    fn both_tables_end_where_the_shorter_chain_does() {
        // postings there, keys there, postings chosen, keys chosen
        let rows: &[(Ranges, Ranges, Ranges, Ranges)] = &[
            (&[], &[], &[], &[]),
            (&[(1, 5)], &[(1, 5)], &[(1, 5)], &[(1, 5)]),
            (&[(1, 5)], &[], &[], &[]),
            (&[(2, 5)], &[(2, 5)], &[], &[]),
            (&[(1, 5), (6, 9)], &[(1, 5)], &[(1, 5)], &[(1, 5)]),
            (&[(1, 5), (7, 9)], &[(1, 5), (7, 9)], &[(1, 5)], &[(1, 5)]),
            // Merged, with the parts still there.
            (&[(1, 9), (1, 5), (6, 9)], &[(1, 5), (6, 9)], &[(1, 9)], &[(1, 5), (6, 9)]),
            (
                &[(1, 4), (5, 6), (7, 8), (5, 8), (1, 8), (9, 9)],
                &[(1, 8), (9, 9)],
                &[(1, 8), (9, 9)],
                &[(1, 8), (9, 9)],
            ),
            // A removed run that came back does not hide a whole chain.
            (&[(1, 5), (6, 30), (6, 9)], &[(1, 5), (6, 9)], &[(1, 5), (6, 9)], &[(1, 5), (6, 9)]),
            (&[(1, 9)], &[(1, 5)], &[], &[]),
        ];
        for (postings, keys, postings_chosen, keys_chosen) in rows {
            let chosen = Chains::choose(names(postings), names(keys));
            assert_eq!(chosen.postings, names(postings_chosen), "{postings:?} {keys:?}");
            assert_eq!(chosen.keys, names(keys_chosen), "{postings:?} {keys:?}");
        }
    }

    #[test]
    fn only_exact_names_are_runs() {
        let name = RunName { first: Sequence(1), last: Sequence(65_536) };
        let text = name.file_name::<KeyEntry>();
        assert_eq!(text, "keys-00000000000000000001-00000000000000065536.idx");
        assert_eq!(RunName::parse::<KeyEntry>(&text), Some(name));
        for other in [
            name.file_name::<Posting>().as_str(),
            name.temporary::<KeyEntry>().as_str(),
            "keys-1-65536.idx",
            "keys-00000000000000000000-00000000000000065536.idx",
            "keys-00000000000000000009-00000000000000000008.idx",
            "notes.txt",
        ] {
            assert_eq!(RunName::parse::<KeyEntry>(other), None, "{other}");
        }
    }
}
