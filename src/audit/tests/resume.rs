//! The tree on disk: what a start finds is what was there, or nothing.

use super::{leaf, tree_of};
use crate::audit::{StoredTiles, TILE_WIDTH, Tree, TreeError};
use acta_events::sha256;
use std::{fs, path::Path};
use tempfile::tempdir;

/// As many leaves as that, written in parts.
fn written(dir: &Path, parts: &[u64]) -> Tree {
    let tree = Tree::open(dir).unwrap();
    for part in parts {
        let from = tree.size();
        (from..from + part).for_each(|index| tree.push(leaf(index)));
        tree.flush().unwrap();
    }
    tree
}

#[test]
fn however_it_is_written_it_is_found_again() {
    let parts: [&[u64]; 6] =
        [&[1], &[255, 1], &[256], &[257, 300, 1], &[1, 1, 1, 65_536], &[100, 70_000, 3]];
    for parts in parts {
        let dir = tempdir().unwrap();
        let size: u64 = parts.iter().sum();
        let expected = tree_of(size + 300);
        let before = written(dir.path(), parts);
        let found = Tree::open(dir.path()).unwrap();
        for tree in [before, found] {
            assert_eq!(tree.size(), size, "{parts:?}");
            // It also grows as if it had never been away.
            (size..size + 300).for_each(|index| tree.push(leaf(index)));
            for at in [0, 1, size / 2, size - 1, size, size + 1, size + 300] {
                assert_eq!(tree.root(at).unwrap(), expected.root(at).unwrap(), "{parts:?} {at}");
            }
            for (level, number, width) in
                [(0, 0, 1), (0, size / TILE_WIDTH, 1), (0, (size + 299) / TILE_WIDTH - 1, 256)]
            {
                let tile = |tree: &Tree| tree.tile(level, number, width).unwrap();
                assert_eq!(tile(&tree), tile(&expected), "{parts:?} {level} {number}");
            }
            assert!(matches!(tree.tile(0, 400, 1), Err(TreeError::Beyond { .. })));
            assert!(matches!(tree.tile(9, 0, 1), Err(TreeError::Beyond { .. })));
            assert!(matches!(tree.tile(0, u64::MAX, 256), Err(TreeError::Beyond { .. })));
        }
    }
}

#[test]
fn what_was_not_flushed_is_gone_and_what_was_is_not() {
    let dir = tempdir().unwrap();
    let tree = written(dir.path(), &[300]);
    (300..700).for_each(|index| tree.push(leaf(index)));
    drop(tree);
    let tree = Tree::open(dir.path()).unwrap();
    assert_eq!(tree.size(), 300);
    assert_eq!(tree.root(300).unwrap(), tree_of(300).root(300).unwrap());
}

#[test]
fn what_is_damaged_is_not_believed() {
    let sizes = [300_u64, 70_000];
    type Damage = (&'static str, fn(&mut Vec<u8>));
    let damage: [Damage; 6] = [
        ("state", |bytes| bytes[20] ^= 1),
        ("state", Vec::clear),
        ("state", |bytes| bytes.truncate(50)),
        ("newest", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("newest", |bytes| bytes.truncate(bytes.len() - 1)),
        ("level-1-00000000", Vec::clear),
    ];
    for size in sizes {
        for (n, (name, damage)) in damage.iter().enumerate() {
            let dir = tempdir().unwrap();
            drop(written(dir.path(), &[size]));
            let newest = format!("level-0-{:08}", size / 65_536);
            let path = dir.path().join(if *name == "newest" { &newest } else { *name });
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let tree = Tree::open(dir.path()).unwrap();
            assert_eq!(tree.size(), 0, "damage {n} of {size}");
            // It is made anew in the same place.
            (0..size).for_each(|index| tree.push(leaf(index)));
            tree.flush().unwrap();
            let tree = Tree::open(dir.path()).unwrap();
            assert_eq!(tree.root(size).unwrap(), tree_of(size).root(size).unwrap());
        }
    }
}

/// As it was stored before: each level in one file.
fn in_format_1(dir: &Path) {
    for level in 0..3 {
        let mut whole = Vec::new();
        for piece in 0.. {
            let path = dir.join(format!("level-{level}-{piece:08}"));
            let Ok(bytes) = fs::read(&path) else { break };
            whole.extend(bytes);
            fs::remove_file(path).unwrap();
        }
        fs::write(dir.join(format!("level-{level}")), whole).unwrap();
    }
    let mut state = fs::read(dir.join("state")).unwrap();
    state[5] = 1;
    let end = state.len() - 32;
    let checksum = sha256(&[&state[..end]]);
    state[end..].copy_from_slice(&checksum.0);
    fs::write(dir.join("state"), state).unwrap();
}

#[test]
fn one_of_the_format_before_is_taken_over() {
    let size = 140_000;
    let expected = tree_of(size);
    for interrupted in [false, true] {
        let dir = tempdir().unwrap();
        drop(written(dir.path(), &[70_000, 70_000]));
        let pieces = || fs::read_dir(dir.path()).unwrap().count();
        let before = pieces();
        let third = fs::read(dir.path().join("level-0-00000002")).unwrap();
        in_format_1(dir.path());
        if interrupted {
            fs::write(dir.path().join("level-0-00000000"), b"half of a pie").unwrap();
        }
        let stored = StoredTiles::in_directory(dir.path()).unwrap();
        assert_eq!(stored.levels[0], ("level-0".into(), size * 32), "it is read as it is");
        let tree = Tree::open(dir.path()).unwrap();
        assert_eq!(tree.root(size).unwrap(), expected.root(size).unwrap());
        for at in [0, 65_535, 65_536, 139_999] {
            assert!(tree.inclusion(at, size).unwrap().holds(expected.root(size).unwrap()), "{at}");
        }
        assert_eq!(pieces(), before);
        assert_eq!(fs::read(dir.path().join("level-0-00000002")).unwrap(), third);
    }
}

#[test]
fn a_damaged_tile_within_is_named() {
    let dir = tempdir().unwrap();
    drop(written(dir.path(), &[1000]));
    let path = dir.path().join("level-0-00000000");
    let mut bytes = fs::read(&path).unwrap();
    bytes[300 * 32] ^= 1;
    fs::write(&path, bytes).unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    assert_eq!(tree.size(), 1000, "a start reads the edge only");
    assert!(matches!(tree.tile(0, 1, 256), Err(TreeError::Damaged { level: 0, tile: 1 })));
    tree.tile(0, 0, 256).unwrap();
    let root = tree.root(1000).unwrap();
    assert!(!tree.inclusion(301, 1000).unwrap().holds(root), "no false proof convinces");
}
