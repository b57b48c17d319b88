//! The entries of the two tables, and how each is written in a run file.

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

/// The bytes an entry sorts by come first in it, and a fence is the first 16 of them.
pub(super) const FENCE_BYTES: usize = 16;

/// The first 16 bytes of an entry: `worker, seq, items` of a posting, the digest of a key.
pub(super) type Fence = [u8; FENCE_BYTES];

/// A fixed-width entry of a table.
pub(super) trait Entry: Copy + Send + Sync + 'static {
    /// The table's name in file names.
    const TABLE: &'static str;
    /// The table's number in files.
    const TABLE_CODE: u16;
    /// Bytes per entry.
    const WIDTH: usize;

    /// Appends exactly `WIDTH` bytes, which compare like the entries do.
    fn encode(&self, out: &mut Vec<u8>);

    /// From exactly `WIDTH` bytes; `None` for bytes that no entry is written as.
    fn decode(bytes: &[u8]) -> Option<Self>;

    /// The first bytes of the entry.
    fn fence(&self) -> Fence;
}

/// Takes `N` bytes at `at`.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

impl Entry for Posting {
    const TABLE: &'static str = "postings";
    const TABLE_CODE: u16 = 1;
    const WIDTH: usize = 18;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.fence());
        out.extend_from_slice(&[self.kind as u8, self.run]);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            worker: u32::from_be_bytes(array(bytes, 0)?),
            seq: Sequence(u64::from_be_bytes(array(bytes, 4)?)),
            items: u32::from_be_bytes(array(bytes, 12)?),
            kind: PostingKind::from_byte(*bytes.get(16)?)?,
            run: *bytes.get(17)?,
        })
    }

    fn fence(&self) -> Fence {
        let mut fence = [0; FENCE_BYTES];
        fence[..4].copy_from_slice(&self.worker.to_be_bytes());
        fence[4..12].copy_from_slice(&self.seq.0.to_be_bytes());
        fence[12..].copy_from_slice(&self.items.to_be_bytes());
        fence
    }
}

impl Entry for KeyEntry {
    const TABLE: &'static str = "keys";
    const TABLE_CODE: u16 = 2;
    const WIDTH: usize = 24;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&self.seq.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            digest: array(bytes, 0)?,
            seq: Sequence(u64::from_be_bytes(array(bytes, 16)?)),
        })
    }

    fn fence(&self) -> Fence {
        self.digest
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<E: Entry + PartialEq + std::fmt::Debug>(entry: E) {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert_eq!(bytes.len(), E::WIDTH);
        assert_eq!(bytes[..FENCE_BYTES], entry.fence());
        assert_eq!(E::decode(&bytes), Some(entry));
        assert_eq!(E::decode(&bytes[1..]), None);
    }

    proptest! {
        /// Whatever is encoded is decoded again, and starts with its fence.
        #[test]
        fn entries_round_trip(
            worker: u32, seq: u64, items: u32, run: u8, kind in 0u8..4, digest: [u8; 16],
        ) {
            let kind = PostingKind::from_byte(kind).unwrap();
            check(Posting { worker, seq: Sequence(seq), items, kind, run });
            check(KeyEntry { digest, seq: Sequence(seq) });
        }
    }

    #[test]
    fn an_unknown_kind_is_not_decoded() {
        let mut bytes = vec![0; Posting::WIDTH];
        bytes[16] = 4;
        assert_eq!(Posting::decode(&bytes), None);
    }
}
