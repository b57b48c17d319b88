//! Which runs to merge, and merging them.

use super::{
    entry::{Entry, FENCE_BYTES},
    error::IndexError,
    files::{self, RunName},
    run::{Place, Reader, Run},
    writer::RunWriter,
};
use acta_events::Sequence;
use std::{path::Path, sync::Arc};

/// The size class of a run: the binary logarithm of the sequences it covers.
fn level(span: u64) -> u32 {
    span.checked_ilog2().unwrap_or(0)
}

/// How many of the newest runs to merge into one, 1 for none. Afterwards every run is of a
/// higher class than the next newer one, like the digits of a binary counter, so that there
/// are at most 64 runs, and of `n` flushes of one size at most `log2(n) + 1`. An entry is
/// written again only when its run rises by a class.
fn newest_to_merge(spans: &[u64]) -> usize {
    let mut spans = spans.iter().rev();
    let Some(mut total) = spans.next().copied() else { return 0 };
    let joins = spans.take_while(|&&older| {
        let joins = level(older) <= level(total);
        total = total.saturating_add(if joins { older } else { 0 });
        joins
    });
    1 + joins.count()
}

/// The runs that are to become one now, oldest first; `None` when none are.
pub(super) fn due<E: Entry>(runs: &[Arc<Run<E>>]) -> Option<Vec<Arc<Run<E>>>> {
    let spans: Vec<u64> = runs.iter().map(|run| run.last().0 - run.first().0 + 1).collect();
    let count = newest_to_merge(&spans);
    (count > 1).then(|| runs[runs.len() - count..].to_vec())
}

/// Writes the entries of adjacent runs, oldest first, as one run, durably. Of entries that
/// sort alike the newest stays. What has expired is left out. Holds one page of each run, and the filter.
pub(super) fn merge<E: Entry>(
    dir: &Path,
    parts: &[Arc<Run<E>>],
    fence_bytes_max: u64,
    expired: Sequence,
) -> Result<Run<E>, IndexError> {
    let ends = parts.first().zip(parts.last());
    let (oldest, newest) = ends.expect("runs to merge are at least two");
    let name = RunName { first: oldest.first(), last: newest.last() };
    let mut heads = parts.iter().map(|run| Head::of(run)).collect::<Result<Vec<_>, _>>()?;
    let count_max = parts.iter().map(|run| run.count()).sum();
    let mut writer = RunWriter::create(dir, name, count_max)?;
    while let Some((bytes, entry)) = least(&heads) {
        if entry.seq() > expired {
            writer.push(&entry)?;
        }
        for head in &mut heads {
            if head.entry.is_some_and(|(head_bytes, _)| head_bytes == bytes) {
                head.advance()?;
            }
        }
    }
    writer.finish()?;
    files::sync(dir)?;
    Run::open(dir, &name, fence_bytes_max)
}

/// The next entry of one run, with the bytes it sorts by.
struct Head<'a, E> {
    reader: Reader<'a, E>,
    place: Place,
    entry: Option<([u8; FENCE_BYTES], E)>,
}

impl<'a, E: Entry> Head<'a, E> {
    fn of(run: &'a Run<E>) -> Result<Self, IndexError> {
        let mut head = Self { reader: run.reader(), place: Place::default(), entry: None };
        head.read()?;
        Ok(head)
    }

    fn advance(&mut self) -> Result<(), IndexError> {
        self.place = self.reader.next(self.place)?;
        self.read()
    }

    fn read(&mut self) -> Result<(), IndexError> {
        self.entry = self.reader.get(self.place)?.map(|entry| (entry.fence(), entry));
        Ok(())
    }
}

/// The least of the heads; of equal ones the last, which is the newest.
fn least<E: Entry>(heads: &[Head<'_, E>]) -> Option<([u8; FENCE_BYTES], E)> {
    heads.iter().rev().filter_map(|head| head.entry).min_by_key(|(bytes, _)| *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_flushes_merge_like_a_binary_counter() {
        let mut spans: Vec<u64> = Vec::new();
        for flush in 1u64..=1024 {
            spans.push(65_536);
            let merged = spans.split_off(spans.len() - newest_to_merge(&spans));
            spans.push(merged.iter().sum());
            assert_eq!(spans.len(), flush.count_ones() as usize, "after {flush} flushes");
        }
    }

    proptest! {
        /// Whatever the sizes, every run is of a higher class than the next newer one.
        #[test]
        fn classes_fall(flushes in prop::collection::vec(1u64..100_000, 0..200)) {
            let mut spans: Vec<u64> = Vec::new();
            for span in flushes {
                spans.push(span);
                let merged = spans.split_off(spans.len() - newest_to_merge(&spans));
                spans.push(merged.iter().sum());
                prop_assert!(spans.is_sorted_by(|older, newer| level(*older) > level(*newer)));
            }
        }
    }
}
