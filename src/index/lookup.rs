//! Looking things up: in memory first, under the lock, then in runs, without it.

use super::{Index, IndexError, Posting, memory::Memory, run::Run};
use acta_events::Sequence;
use std::sync::Arc;

impl Index {
    /// Sequence of a key; of several entries with one digest the newest counts.
    pub fn find_key(&self, digest: &[u8; 16]) -> Result<Option<Sequence>, IndexError> {
        self.find_key_above(digest, Sequence::ZERO)
    }

    /// Like [`Index::find_key`], but only above `above`: for a caller that has looked at the
    /// runs below before, on another thread. Reads no file when `above` is at or past
    /// [`Index::flushed_through`].
    pub fn find_key_above(
        &self,
        digest: &[u8; 16],
        above: Sequence,
    ) -> Result<Option<Sequence>, IndexError> {
        let above = above.max(self.expired());
        let (recent, runs) = {
            let state = self.state.read();
            let frozen = || state.frozen.as_ref().and_then(|part| part.key(digest));
            (state.active.key(digest).or_else(frozen), Arc::clone(&state.keys))
        };
        if recent.is_some() {
            return Ok(recent.filter(|&seq| seq > above));
        }
        for run in runs.iter().rev().take_while(|run| run.last() > above) {
            if let Some(seq) = run.key(digest)? {
                return Ok(Some(seq).filter(|&seq| seq > above));
            }
        }
        Ok(None)
    }

    /// Postings of a worker with `after < seq <= through`, oldest first, at most `limit`.
    pub fn after(
        &self,
        worker: u32,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> Result<Vec<Posting>, IndexError> {
        let after = after.max(self.expired());
        if after >= through || limit == 0 {
            return Ok(Vec::new());
        }
        self.oldest_first(
            (after, through),
            limit,
            |run, found| run.after(worker, (after, through), limit, found),
            |part, found| {
                found.extend(head(part.after(worker, after, through), limit - found.len()))
            },
        )
    }

    /// Postings of a worker that complete its transcript items `from_item` (from 1) and on, in
    /// order, at most `limit`, all with `seq <= through`.
    pub fn items(
        &self,
        worker: u32,
        from_item: u32,
        limit: usize,
        through: Sequence,
    ) -> Result<Vec<Posting>, IndexError> {
        let expired = self.expired();
        let from_item = match self.first_item(worker, through)? {
            _ if expired == Sequence::ZERO => from_item,
            Some(first) => from_item.max(first),
            None => return Ok(Vec::new()),
        };
        self.oldest_first(
            (expired, through),
            limit,
            |run, found| run.items(worker, (from_item, through), limit, found),
            |part, found| {
                found.extend(part.items(worker, from_item, through).take(limit - found.len()));
            },
        )
    }

    /// The first transcript item of a worker that has not expired, complete or not; none if nothing of
    /// the worker is left, up to `through`.
    pub fn first_item(&self, worker: u32, through: Sequence) -> Result<Option<u32>, IndexError> {
        if self.expired() == Sequence::ZERO {
            return Ok(Some(1));
        }
        let first = self.after(worker, Sequence::ZERO, through, 1)?;
        let item = |first: &Posting| match first.kind.completes_item() {
            true => first.items,
            false => first.items + 1,
        };
        Ok(first.first().map(item))
    }

    /// Collects from all that overlaps `after < seq <= through`, from the oldest run to the
    /// active memory.
    fn oldest_first(
        &self,
        (after, through): (Sequence, Sequence),
        limit: usize,
        from_run: impl Fn(&Run<Posting>, &mut Vec<Posting>) -> Result<(), IndexError>,
        from_memory: impl Fn(&Memory, &mut Vec<Posting>),
    ) -> Result<Vec<Posting>, IndexError> {
        let mut recent = Vec::new();
        let runs = {
            let state = self.state.read();
            for part in state.frozen.as_deref().into_iter().chain([&state.active]) {
                from_memory(part, &mut recent);
            }
            Arc::clone(&state.postings)
        };
        let mut found = Vec::new();
        let overlapping = runs.iter().filter(|run| run.last() > after && run.first() <= through);
        for run in overlapping {
            if found.len() >= limit {
                break;
            }
            from_run(run, &mut found)?;
        }
        found.extend_from_slice(head(&recent, limit - found.len()));
        Ok(found)
    }

    /// Postings of a worker with `seq <= at`, newest first, at most `limit`.
    pub fn before(
        &self,
        worker: u32,
        at: Sequence,
        limit: usize,
    ) -> Result<Vec<Posting>, IndexError> {
        let mut found = Vec::new();
        let runs = {
            let state = self.state.read();
            for part in [&state.active].into_iter().chain(state.frozen.as_deref()) {
                let newest_first = part.after(worker, Sequence::ZERO, at).iter().rev();
                found.extend(newest_first.take(limit - found.len()));
            }
            Arc::clone(&state.postings)
        };
        let expired = self.expired();
        let overlapping = runs.iter().filter(|run| run.last() > expired && run.first() <= at);
        for run in overlapping.rev() {
            if found.len() >= limit {
                break;
            }
            run.before(worker, at, limit, &mut found)?;
        }
        found.retain(|posting| posting.seq > expired);
        Ok(found)
    }
}

fn head(postings: &[Posting], limit: usize) -> &[Posting] {
    &postings[..limit.min(postings.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{KeyEntry, PostingKind};

    fn digest(seq: u64) -> [u8; 16] {
        let mut digest = [7; 16];
        digest[0] = seq as u8;
        digest
    }

    /// A record of worker 0, with a key; every other one is a transcript item.
    fn apply(index: &Index, seq: u64) {
        let is_item = seq.is_multiple_of(2);
        let posting = Posting {
            worker: 0,
            seq: Sequence(seq),
            items: (seq / 2) as u32,
            kind: if is_item { PostingKind::Item } else { PostingKind::Other },
            run: 0,
        };
        let key = KeyEntry { digest: digest(seq), seq: Sequence(seq) };
        index.apply(Sequence(seq), Sequence(seq), &[posting], &[key]).unwrap();
    }

    #[track_caller]
    fn check(index: &Index) {
        let seqs = |found: Vec<Posting>| found.iter().map(|it| it.seq.0).collect::<Vec<_>>();
        let (zero, end) = (Sequence::ZERO, Sequence(30));
        assert_eq!(seqs(index.after(0, zero, end, 3).unwrap()), [9, 10, 11]);
        let newest_first = seqs(index.before(0, end, 99).unwrap());
        assert_eq!(newest_first, (9..=20).rev().collect::<Vec<_>>());
        assert_eq!(seqs(index.before(0, Sequence(8), 99).unwrap()), Vec::<u64>::new());
        assert_eq!(seqs(index.items(0, 1, 2, end).unwrap()), [10, 12]);
        assert_eq!(seqs(index.items(0, 7, 2, end).unwrap()), [14, 16]);
        assert_eq!(index.first_item(0, end).unwrap(), Some(5));
        assert_eq!(index.first_item(0, Sequence(8)).unwrap(), None);
        assert_eq!(index.find_key(&digest(8)).unwrap(), None);
        assert_eq!(index.find_key(&digest(9)).unwrap(), Some(Sequence(9)));
    }

    #[test]
    fn of_what_has_expired_nothing_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        for seq in 1..=16 {
            apply(&index, seq);
            if seq.is_multiple_of(4) {
                index.flush(index.freeze().unwrap()).unwrap();
            }
        }
        assert_eq!(index.find_key(&digest(8)).unwrap(), Some(Sequence(8)));
        index.begin_behind(Sequence(8)).unwrap();
        (17..=20).for_each(|seq| apply(&index, seq));
        check(&index);
        // Merged runs leave it out, which changes no answer.
        let before = index.stats().run_entries;
        for seq in 21..=32 {
            index.apply(Sequence(seq), Sequence(seq), &[], &[]).unwrap();
        }
        index.flush(index.freeze().unwrap()).unwrap();
        assert!(index.stats().run_entries < before + 8, "{:?}", index.stats());
        check(&index);
        drop(index);
        let index = Index::open(dir.path()).unwrap();
        index.begin_behind(Sequence(8)).unwrap();
        check(&index);
    }

    #[test]
    fn one_that_is_made_anew_begins_where_the_log_does() {
        let index = Index::in_memory();
        index.begin_behind(Sequence(8)).unwrap();
        assert_eq!(index.position(), Sequence(8));
        (9..=20).for_each(|seq| apply(&index, seq));
        check(&index);
    }
}
