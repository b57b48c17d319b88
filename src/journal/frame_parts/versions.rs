//! The newest version of each worker in some blocks.
//!
//! Most workers are new in a frame and are asked for once or twice in it, so that a general map spends
//! its time with hashing and with an allocation for each. This one hashes cheaply: what an evil file
//! can make of that is a slow look-up within one frame, which has at most some thousand records.

/// Versions by worker.
#[derive(Default)]
pub(super) struct Versions {
    /// A power of two of them, at most half in use.
    slots: Vec<Option<Slot>>,
    used: usize,
    /// The workers, one behind the other.
    names: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Slot {
    hash: u64,
    /// Where its name begins, and ends.
    name: (usize, usize),
    version: u64,
}

const SLOTS_MIN: usize = 64;

impl Versions {
    /// What is known of a worker.
    pub(super) fn get_mut(&mut self, worker: &[u8]) -> Option<&mut u64> {
        if self.slots.is_empty() {
            return None;
        }
        let at = self.find(hash(worker), worker);
        self.slots[at].as_mut().map(|slot| &mut slot.version)
    }

    /// Takes in a worker, or a new version of one.
    pub(super) fn insert(&mut self, worker: &[u8], version: u64) {
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        let hash = hash(worker);
        let at = self.find(hash, worker);
        if let Some(slot) = &mut self.slots[at] {
            slot.version = version;
            return;
        }
        let begin = self.names.len();
        self.names.extend_from_slice(worker);
        self.slots[at] = Some(Slot { hash, name: (begin, self.names.len()), version });
        self.used += 1;
    }

    /// The slot of a worker, or the one that it would get. There is always one that is not in use.
    fn find(&self, hash: u64, worker: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while let Some(slot) = &self.slots[at] {
            if slot.hash == hash && &self.names[slot.name.0..slot.name.1] == worker {
                break;
            }
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(SLOTS_MIN);
        let before = std::mem::replace(&mut self.slots, vec![None; len]);
        for slot in before.into_iter().flatten() {
            let mut at = slot.hash as usize & (len - 1);
            while self.slots[at].is_some() {
                at = (at + 1) & (len - 1);
            }
            self.slots[at] = Some(slot);
        }
    }
}

fn hash(worker: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let words = worker.chunks_exact(8);
    let rest = words.remainder().iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let hash = words.fold(worker.len() as u64, |hash, word| {
        mix(hash, word.try_into().map_or(0, u64::from_le_bytes))
    });
    let hash = mix(hash, rest);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Whatever comes, it knows what a general map knows.
        #[test]
        fn it_is_a_map(workers in prop::collection::vec(("[a-c]{0,9}|w-[0-9]{1,3}", any::<u64>()), 0..400)) {
            let (mut versions, mut model) = (Versions::default(), HashMap::new());
            for (worker, version) in &workers {
                let known = versions.get_mut(worker.as_bytes()).copied();
                prop_assert_eq!(known, model.get(worker.as_str()).copied());
                versions.insert(worker.as_bytes(), *version);
                model.insert(worker.as_str(), *version);
                if let Some(version) = versions.get_mut(worker.as_bytes()) {
                    *version = version.wrapping_add(1);
                }
                *model.get_mut(worker.as_str()).unwrap() = version.wrapping_add(1);
            }
            for (worker, version) in &model {
                prop_assert_eq!(versions.get_mut(worker.as_bytes()).copied(), Some(*version));
            }
        }
    }
}
