//! Filters: tell of most keys that a run does not have them, without reading it.
//!
//! A blocked Bloom filter: a key has one block of 512 bits, chosen by the first half of its digest, and seven
//! bits in it, chosen by the second. Digests are uniformly distributed, so that nothing is hashed again. At
//! twelve bits a key, one key in some 150 that a run does not have is looked up all the same.
//!
//! **Invariant.** Of a key that the run has, a filter never says that it has not.

use super::{
    entry::{FENCE_BYTES, Fence},
    page::BODY_BYTES,
};

const BITS_PER_KEY: u64 = 12;
const BLOCK_BYTES: usize = 64;
const BITS_OF_KEY: u32 = 7;
/// A block has two to the power of this many bits.
const BLOCK_BITS_LOG: u32 = 9;
/// Blocks in one page.
const BLOCKS_PER_PAGE: usize = BODY_BYTES / BLOCK_BYTES;
/// A filter takes at most so many pages, which is 4 MiB and 2.7 million keys. A larger run has none.
const PAGES_MAX: u64 = 1_024;

type Block = [u8; BLOCK_BYTES];

/// The filter of one run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter {
    blocks: Vec<Block>,
}

impl Filter {
    /// An empty one for so many keys at most; none if it would be too large, or there are none.
    pub(super) fn for_keys(keys: u64) -> Option<Self> {
        let page_bits = (BLOCKS_PER_PAGE * BLOCK_BYTES * 8) as u64;
        let pages = keys.checked_mul(BITS_PER_KEY)?.div_ceil(page_bits);
        let blocks = usize::try_from(pages).ok()? * BLOCKS_PER_PAGE;
        (1..=PAGES_MAX).contains(&pages).then(|| Self { blocks: vec![[0; BLOCK_BYTES]; blocks] })
    }

    /// From the bodies of its pages, in order.
    pub(super) fn of_pages(bodies: impl Iterator<Item = [u8; BODY_BYTES]>) -> Self {
        let mut blocks = Vec::new();
        for body in bodies {
            blocks.extend_from_slice(&body.as_chunks().0[..BLOCKS_PER_PAGE]);
        }
        Self { blocks }
    }

    /// What its pages hold, in order.
    pub(super) fn pages(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.blocks.chunks(BLOCKS_PER_PAGE).map(<[Block]>::as_flattened)
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.as_flattened().len()
    }

    pub(super) fn insert(&mut self, key: &Fence) {
        let (block, bits) = self.place(key);
        let block = &mut self.blocks[block];
        bits.for_each(|bit| block[bit / 8] |= 1 << (bit % 8));
    }

    /// Whether the run may have the key.
    pub(super) fn may_have(&self, key: &Fence) -> bool {
        let (block, mut bits) = self.place(key);
        let block = &self.blocks[block];
        bits.all(|bit| block[bit / 8] & 1 << (bit % 8) != 0)
    }

    fn place(&self, key: &Fence) -> (usize, impl Iterator<Item = usize> + use<>) {
        let number = u128::from_be_bytes(*key);
        let (high, low) = ((number >> 64) as u64, number as u64);
        let block = (u128::from(high) * self.blocks.len() as u128) >> 64;
        let mask = (1 << BLOCK_BITS_LOG) - 1;
        let bits = (0..BITS_OF_KEY).map(move |n| (low >> (n * BLOCK_BITS_LOG) & mask) as usize);
        (block as usize, bits)
    }
}

const _: () = assert!(FENCE_BYTES == 16 && BITS_OF_KEY * BLOCK_BITS_LOG <= 64);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use acta_events::sha256;

    fn key(number: u64) -> Fence {
        *sha256(&[&number.to_be_bytes()]).0.first_chunk().unwrap()
    }

    #[test]
    fn what_is_in_it_is_never_denied_and_what_is_not_mostly() {
        for keys in [1, 40, 5_000, 65_536] {
            let mut filter = Filter::for_keys(keys).unwrap();
            (0..keys).for_each(|number| filter.insert(&key(number)));
            assert!((0..keys).all(|number| filter.may_have(&key(number))), "{keys}");
            let others = 20_000;
            let wrong = (keys..keys + others).filter(|number| filter.may_have(&key(*number)));
            let wrong = wrong.count() as u64;
            assert!(wrong < others / 80, "{wrong} of {others} with {keys}");
        }
    }

    #[test]
    fn extreme_digests_have_a_place() {
        let mut filter = Filter::for_keys(1_000).unwrap();
        for key in [[0; 16], [0xff; 16]] {
            assert!(!filter.may_have(&key));
            filter.insert(&key);
            assert!(filter.may_have(&key));
        }
    }

    #[test]
    fn it_comes_back_from_its_pages_and_has_bounds() {
        let mut filter = Filter::for_keys(10_000).unwrap();
        (0..10_000).for_each(|number| filter.insert(&key(number)));
        let bodies: Vec<[u8; BODY_BYTES]> = filter
            .pages()
            .map(|page| {
                let mut body = [0; BODY_BYTES];
                body[..page.len()].copy_from_slice(page);
                body
            })
            .collect();
        assert_eq!(bodies.len(), filter.pages().len());
        assert_eq!(Filter::of_pages(bodies.into_iter()), filter);
        assert_eq!(Filter::for_keys(0), None);
        assert_eq!(Filter::for_keys(u64::MAX), None);
        assert!(Filter::for_keys(2_700_000).unwrap().bytes() <= 4 << 20);
        assert_eq!(Filter::for_keys(3_000_000), None);
    }
}
