//! Compares tiles that lie in a data directory with the log.
//!
//! Tiles are derived, so a difference may be damage of theirs alone. But where they agree with
//! what was signed and the log does not, they tell which record was altered.

use super::{
    super::{
        checkpoint::SignedCheckpoint,
        files::Files,
        tree::{TILE_WIDTH, Tree, TreeError},
    },
    Kind, Problem,
};
use acta_events::Sequence;
use std::path::Path;
use tlog_tiles::HASH_SIZE;

/// What is wrong with the tiles in a directory, in the order of records.
pub(super) fn compare(
    dir: &Path,
    tree: &Tree,
    signed: Option<&SignedCheckpoint>,
) -> Result<Vec<Problem>, TreeError> {
    let damaged = |what: String| Problem { kind: Kind::Damaged, first: None, last: None, what };
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let files = Files::at(dir);
    let Some(state) = files.state() else {
        let what = "the tree has no readable state; it is made anew at the next start";
        return Ok(if files.has_state() { vec![damaged(what.into())] } else { Vec::new() });
    };
    if state.size > tree.size() {
        let what = format!("the tree has {} records, the log {}", state.size, tree.size());
        return Ok(vec![damaged(what)]);
    }
    let mut problems = Vec::new();
    if tree.root(state.size)? != state.root {
        problems.push(damaged(format!(
            "the root of the tree at {} is not that of the log",
            state.size
        )));
    }
    let mut count = state.size;
    for level in 0.. {
        if count == 0 {
            break;
        }
        let Some(at) = first_difference(&files, tree, level, count)? else {
            count /= TILE_WIDTH;
            continue;
        };
        let what =
            format!("tile {} of level {level} of the tree is not of this log", at / TILE_WIDTH);
        let mut problem = damaged(what);
        if level == 0 && is_signed(dir, signed) {
            let seq = Sequence(at + 1);
            problem.kind = Kind::Contradicted;
            (problem.first, problem.last) = (Some(seq), Some(seq));
            problem.what = "it is not the record that was signed".into();
        }
        problems.push(problem);
        break;
    }
    Ok(problems)
}

/// Where a level in files differs from what it should be; its end where it is shorter.
fn first_difference(
    files: &Files,
    tree: &Tree,
    level: u8,
    count: u64,
) -> Result<Option<u64>, TreeError> {
    let mut first = 0;
    while first < count {
        let width = TILE_WIDTH.min(count - first);
        let ours = tree.hashes(level, first, width)?;
        let theirs = match files.read(level, first, width as usize) {
            Ok(bytes) => bytes,
            Err(TreeError::Damaged { .. }) => return Ok(Some(first)),
            Err(error) => return Err(error),
        };
        if ours != theirs {
            let differs = ours.chunks(HASH_SIZE).zip(theirs.chunks(HASH_SIZE));
            let at = differs.take_while(|(ours, theirs)| ours == theirs).count();
            return Ok(Some(first + at as u64));
        }
        first += width;
    }
    Ok(None)
}

/// Whether the tiles are what was signed, computed from the leaves alone.
fn is_signed(dir: &Path, signed: Option<&SignedCheckpoint>) -> bool {
    let Some(signed) = signed else { return false };
    let files = Files::at(dir);
    let tree = Tree::in_memory();
    for index in 0..signed.size() {
        let leaf = files.read(0, index, 1).ok().and_then(|bytes| bytes.try_into().ok());
        let Some(leaf) = leaf else { return false };
        tree.push(tlog_tiles::Hash(leaf));
    }
    tree.root(signed.size()).is_ok_and(|root| root == signed.root())
}
