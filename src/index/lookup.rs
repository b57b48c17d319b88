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
        self.oldest_first(
            (Sequence::ZERO, through),
            limit,
            |run, found| run.items(worker, (from_item, through), limit, found),
            |part, found| {
                found.extend(part.items(worker, from_item, through).take(limit - found.len()));
            },
        )
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
        for run in runs.iter().rev().filter(|run| run.first() <= at) {
            if found.len() >= limit {
                break;
            }
            run.before(worker, at, limit, &mut found)?;
        }
        Ok(found)
    }
}

fn head(postings: &[Posting], limit: usize) -> &[Posting] {
    &postings[..limit.min(postings.len())]
}
