mod foreign;
mod keys;
mod paths;
mod resume;
mod vectors;

use super::Tree;
use tlog_tiles::{Hash, record_hash};

/// The leaf input at an index: as long as a record digest.
fn entry(index: u64) -> [u8; 32] {
    let mut entry = [0; 32];
    entry[..8].copy_from_slice(&index.to_be_bytes());
    entry
}

fn leaf(index: u64) -> Hash {
    record_hash(&entry(index))
}

fn tree_of(size: u64) -> Tree {
    let tree = Tree::in_memory();
    (0..size).for_each(|index| tree.push(leaf(index)));
    tree
}
