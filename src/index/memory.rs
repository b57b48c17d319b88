//! The part of the index that is not in run files yet.

use super::{
    entry::{KeyEntry, Posting},
    error::IndexError,
};
use acta_events::Sequence;
use std::collections::HashMap;

/// Entries of the sequences `first..=last`; none when `last` is below `first`.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    postings: HashMap<u32, Vec<Posting>>,
    keys: HashMap<[u8; 16], Sequence>,
}

impl Memory {
    /// Empty, to follow `position`.
    pub(super) fn following(position: Sequence) -> Self {
        Self {
            first: position.next(),
            last: position,
            postings: HashMap::new(),
            keys: HashMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// All or nothing of a batch that reaches up to `through`, leaving out what is at or
    /// below the position.
    pub(super) fn apply(
        &mut self,
        first: Sequence,
        through: Sequence,
        postings: &[Posting],
        keys: &[KeyEntry],
    ) -> Result<(), IndexError> {
        let position = self.last;
        let in_range = |seq: Sequence| first <= seq && seq <= through;
        if let Some(key) = keys.iter().find(|key| !in_range(key.seq)) {
            return Err(IndexError::Disordered { seq: key.seq });
        }
        for (done, posting) in postings.iter().enumerate() {
            if in_range(posting.seq) && (posting.seq <= position || self.push(posting)) {
                continue;
            }
            for posting in postings[..done].iter().filter(|done| done.seq > position) {
                self.postings.get_mut(&posting.worker).and_then(Vec::pop);
            }
            return Err(IndexError::Disordered { seq: posting.seq });
        }
        for key in keys.iter().filter(|key| key.seq > position) {
            let newest = self.keys.entry(key.digest).or_insert(key.seq);
            *newest = key.seq.max(*newest);
        }
        self.last = through;
        Ok(())
    }

    /// Whether the posting could follow the last one of its worker.
    fn push(&mut self, posting: &Posting) -> bool {
        let of_worker = self.postings.entry(posting.worker).or_default();
        let follows = of_worker.last().is_none_or(|last| {
            let raised = posting.items > last.items;
            let same = posting.items == last.items && !posting.kind.completes_item();
            last.seq < posting.seq && (raised || same)
        });
        if follows {
            of_worker.push(*posting);
        }
        follows
    }

    fn of_worker(&self, worker: u32) -> &[Posting] {
        self.postings.get(&worker).map_or(&[], Vec::as_slice)
    }

    /// Postings of a worker in `after < seq <= through`, oldest first.
    pub(super) fn after(&self, worker: u32, after: Sequence, through: Sequence) -> &[Posting] {
        let postings = self.of_worker(worker);
        let start = postings.partition_point(|posting| posting.seq <= after);
        let len = postings[start..].partition_point(|posting| posting.seq <= through);
        &postings[start..start + len]
    }

    /// Postings of a worker with `seq <= through` that complete an item from `from_item` on.
    pub(super) fn items(
        &self,
        worker: u32,
        from_item: u32,
        through: Sequence,
    ) -> impl Iterator<Item = &Posting> {
        let postings = self.after(worker, Sequence::ZERO, through);
        let start = postings.partition_point(|posting| posting.items < from_item);
        postings[start..].iter().filter(|posting| posting.kind.completes_item())
    }

    /// The newest sequence of a key.
    pub(super) fn key(&self, digest: &[u8; 16]) -> Option<Sequence> {
        self.keys.get(digest).copied()
    }

    /// Everything, as a run file has it.
    pub(super) fn sorted_postings(&self) -> impl Iterator<Item = Posting> {
        let mut workers: Vec<_> = self.postings.iter().collect();
        workers.sort_unstable_by_key(|(worker, _)| **worker);
        workers.into_iter().flat_map(|(_, postings)| postings.iter().copied())
    }

    /// Everything, as a run file has it.
    pub(super) fn sorted_keys(&self) -> Vec<KeyEntry> {
        let entry = |(digest, seq): (&[u8; 16], &Sequence)| KeyEntry { digest: *digest, seq: *seq };
        let mut keys: Vec<_> = self.keys.iter().map(entry).collect();
        keys.sort_unstable_by_key(|key| key.digest);
        keys
    }
}
