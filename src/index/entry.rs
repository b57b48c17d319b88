//! The entries of the two tables, and how each is written in a page of a run file.

use crate::varint;
use acta_events::Sequence;

/// What a record means for the transcript of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PostingKind {
    /// Neither of the others.
    Other = 0,
    /// An input, which is a transcript item by itself.
    Item = 1,
    /// A piece of text, part of an item that a later record completes.
    Delta = 2,
    /// Completes an assistant's transcript item.
    TextDone = 3,
}

impl PostingKind {
    /// Whether a record of this kind completes a transcript item.
    pub fn completes_item(self) -> bool {
        matches!(self, Self::Item | Self::TextDone)
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Other, Self::Item, Self::Delta, Self::TextDone].get(usize::from(byte)).copied()
    }
}

/// One record of one worker. Sorted by worker, then sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// Ordinal of the worker.
    pub worker: u32,
    /// Position of the record in the log.
    pub seq: Sequence,
    /// Transcript items of the worker up to and including this record. Never falls; a record
    /// that completes an item raises it.
    pub items: u32,
    /// What the record means for the transcript.
    pub kind: PostingKind,
    /// Run status of the worker after the record; opaque here.
    pub run: u8,
}

/// One idempotency key. Sorted by digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyEntry {
    /// Uniformly distributed digest of the key and whatever scopes it.
    pub digest: [u8; 16],
    /// Position of the record the key belongs to.
    pub seq: Sequence,
}

/// Bytes of a fence: what an entry sorts by, so that fences compare like entries do.
pub(super) const FENCE_BYTES: usize = 16;

/// `worker, seq, items` of a posting, the digest of a key.
pub(super) type Fence = [u8; FENCE_BYTES];

/// An entry of a table. Within a page each is written as what differs from the one before.
pub(super) trait Entry: Copy + Send + Sync + 'static {
    /// The table's name in file names.
    const TABLE: &'static str;
    /// The table's number in files.
    const TABLE_CODE: u16;
    /// Bytes that an entry takes at most.
    const BYTES_MAX: usize;
    /// Whether its runs have a filter. Then what it sorts by is uniformly distributed.
    const IS_FILTERED: bool;

    /// Appends the entry, as the one that follows `previous` or as the first of a page.
    fn encode(&self, previous: Option<&Self>, out: &mut Vec<u8>);

    /// Takes the entry that follows `previous` off the front of the bytes; `None` for bytes
    /// that no entry is written as.
    fn decode(previous: Option<&Self>, bytes: &mut &[u8]) -> Option<Self>;

    /// What the entry sorts by.
    fn fence(&self) -> Fence;

    /// The record that it is of.
    fn seq(&self) -> Sequence;

    /// All of it, for a comparison.
    fn bits(&self) -> [u64; 3];
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// What the first byte of a posting says, beside its kind in the lowest two bits.
mod flag {
    /// It is of the worker of the posting before; sequence and items are what they rose by.
    pub(super) const SAME_WORKER: u8 = 0x04;
    /// The run status follows; without, it is that of the posting before.
    pub(super) const RUN: u8 = 0x08;
    /// Items rose by one.
    pub(super) const ITEM: u8 = 0x10;
    /// What items rose by follows.
    pub(super) const ITEMS: u8 = 0x20;
    pub(super) const KIND: u8 = 0x03;
    pub(super) const ALL: u8 = 0x3f;
}

/// Takes `N` bytes at `at`.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

impl Entry for Posting {
    const TABLE: &'static str = "postings";
    const TABLE_CODE: u16 = 1;
    const BYTES_MAX: usize = 1 + 5 + 10 + 5 + 1;
    const IS_FILTERED: bool = false;

    fn encode(&self, previous: Option<&Self>, out: &mut Vec<u8>) {
        let follows = |before: &&Self| {
            before.worker == self.worker && before.seq <= self.seq && before.items <= self.items
        };
        let Some(before) = previous.filter(follows) else {
            out.push(self.kind as u8 | flag::RUN);
            varint::put(u64::from(self.worker), out);
            varint::put(self.seq.0, out);
            varint::put(u64::from(self.items), out);
            return out.push(self.run);
        };
        let rose_by = self.items - before.items;
        let mut flags = self.kind as u8 | flag::SAME_WORKER;
        flags |= [0, flag::ITEM, flag::ITEMS][rose_by.min(2) as usize];
        flags |= if self.run == before.run { 0 } else { flag::RUN };
        out.push(flags);
        varint::put(self.seq.0 - before.seq.0, out);
        if flags & flag::ITEMS != 0 {
            varint::put(u64::from(rose_by), out);
        }
        if flags & flag::RUN != 0 {
            out.push(self.run);
        }
    }

    fn decode(previous: Option<&Self>, bytes: &mut &[u8]) -> Option<Self> {
        let flags = take_byte(bytes)?;
        if flags & !flag::ALL != 0 {
            return None;
        }
        let kind = PostingKind::from_byte(flags & flag::KIND)?;
        if flags & flag::SAME_WORKER == 0 {
            let worker = u32::try_from(varint::take(bytes)?).ok()?;
            let seq = Sequence(varint::take(bytes)?);
            let items = u32::try_from(varint::take(bytes)?).ok()?;
            return Some(Self { worker, seq, items, kind, run: take_byte(bytes)? });
        }
        let before = previous?;
        let seq = Sequence(before.seq.0.checked_add(varint::take(bytes)?)?);
        let rose_by = match flags & (flag::ITEM | flag::ITEMS) {
            0 => 0,
            flag::ITEM => 1,
            flag::ITEMS => u32::try_from(varint::take(bytes)?).ok()?,
            _ => return None,
        };
        let items = before.items.checked_add(rose_by)?;
        let run = if flags & flag::RUN == 0 { before.run } else { take_byte(bytes)? };
        Some(Self { worker: before.worker, seq, items, kind, run })
    }

    fn fence(&self) -> Fence {
        let mut fence = [0; FENCE_BYTES];
        fence[..4].copy_from_slice(&self.worker.to_be_bytes());
        fence[4..12].copy_from_slice(&self.seq.0.to_be_bytes());
        fence[12..].copy_from_slice(&self.items.to_be_bytes());
        fence
    }

    fn seq(&self) -> Sequence {
        self.seq
    }

    fn bits(&self) -> [u64; 3] {
        let worker_items = u64::from(self.worker) << 32 | u64::from(self.items);
        [self.seq.0, worker_items, u64::from(self.kind as u8) << 8 | u64::from(self.run)]
    }
}

impl Entry for KeyEntry {
    const TABLE: &'static str = "keys";
    const TABLE_CODE: u16 = 2;
    const BYTES_MAX: usize = 16 + 10;
    const IS_FILTERED: bool = true;

    fn encode(&self, _: Option<&Self>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest);
        varint::put(self.seq.0, out);
    }

    fn decode(_: Option<&Self>, bytes: &mut &[u8]) -> Option<Self> {
        let (digest, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self { digest: *digest, seq: Sequence(varint::take(bytes)?) })
    }

    fn fence(&self) -> Fence {
        self.digest
    }

    fn seq(&self) -> Sequence {
        self.seq
    }

    fn bits(&self) -> [u64; 3] {
        let digest = u128::from_be_bytes(self.digest);
        [self.seq.0, (digest >> 64) as u64, digest as u64]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<E: Entry + PartialEq + std::fmt::Debug>(previous: Option<E>, entry: E) {
        let mut bytes = Vec::new();
        entry.encode(previous.as_ref(), &mut bytes);
        assert!(bytes.len() <= E::BYTES_MAX);
        for cut in 0..bytes.len() {
            assert_eq!(E::decode(previous.as_ref(), &mut &bytes[..cut]), None, "{cut} bytes of it");
        }
        bytes.extend_from_slice(b"more");
        let mut rest = &bytes[..];
        assert_eq!(E::decode(previous.as_ref(), &mut rest), Some(entry));
        assert_eq!(rest, b"more");
    }

    fn postings() -> impl Strategy<Value = Posting> {
        let parts = (any::<u32>(), any::<u64>(), any::<u32>(), 0u8..4, any::<u8>());
        parts.prop_map(|(worker, seq, items, kind, run)| {
            let kind = PostingKind::from_byte(kind).unwrap();
            Posting { worker, seq: Sequence(seq), items, kind, run }
        })
    }

    proptest! {
        /// Whatever is encoded is decoded again, whatever came before, and nothing else is taken.
        #[test]
        fn entries_round_trip(
            before in postings(), after in postings(), digest: [u8; 16], seq: u64,
            near in (0u64..300, 0u32..4, any::<bool>()),
        ) {
            check(None, after);
            check(Some(before), after);
            let (seqs, items, same_run) = near;
            let follows = Posting {
                worker: before.worker,
                seq: Sequence(before.seq.0.saturating_add(seqs)),
                items: before.items.saturating_add(items),
                run: if same_run { before.run } else { after.run },
                ..after
            };
            check(Some(before), follows);
            check(None, KeyEntry { digest, seq: Sequence(seq) });
        }
    }

    /// Most records of a worker at work: pieces of text, some of them far apart.
    #[test]
    fn a_usual_posting_takes_two_or_three_bytes() {
        let before = Posting {
            worker: 7,
            seq: Sequence(20_000_000),
            items: 900,
            kind: PostingKind::Delta,
            run: 1,
        };
        for (apart, bytes) in [(1, 2), (127, 2), (128, 3), (16_000, 3)] {
            let mut out = Vec::new();
            let next = Posting { seq: Sequence(before.seq.0 + apart), ..before };
            next.encode(Some(&before), &mut out);
            assert_eq!(out.len(), bytes, "{apart} apart");
        }
    }

    #[test]
    fn what_no_posting_is_written_as_is_not_decoded() {
        let first = [flag::RUN, 1, 1, 1, 1];
        assert!(Posting::decode(None, &mut &first[..]).is_some());
        let flags_unknown = [0x40 | flag::RUN, 1, 1, 1, 1];
        let follows_nothing = [flag::SAME_WORKER, 1, 0, 0, 0];
        let worker_too_large = [flag::RUN, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 1, 1];
        for bytes in [&flags_unknown[..], &follows_nothing, &worker_too_large] {
            assert_eq!(Posting::decode(None, &mut &*bytes), None, "{bytes:?}");
        }
    }
}
