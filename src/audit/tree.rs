//! The Merkle tree over the log, in tiles of 256 hashes.
//!
//! Of its nodes those are kept whose height is a multiple of eight; what lies between is
//! computed from them when it is asked for. A record costs two hashes on the average. The newest
//! tiles are in memory until [`Tree::flush`] writes them, which happens together with the
//! checkpoints of the projections, so that a start has as little to take in again as of these.

use super::files::{Files, PIECE_BYTES, State};
use crate::{
    base::Begin,
    error::{Code, Rejection},
};
use acta_events::{Digest, Sequence, block::Block};
use parking_lot::{Mutex, RwLock};
use std::{io, path::Path};
use tlog_tiles::{EMPTY_HASH, HASH_SIZE, Hash, Tile, record_hash};

/// How many hashes a full tile holds.
pub const TILE_WIDTH: u64 = 256;
/// The height of a tile: two to this power is its width.
pub(super) const TILE_HEIGHT: u8 = 8;
const TILE_BYTES: usize = TILE_WIDTH as usize * HASH_SIZE;

/// The tree cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A tile is not what it should be.
    #[error(
        "tile {tile} of level {level} of the tree is missing or damaged. Stop the service and \
         remove the directory `tree`: it is made anew from the log, unless a part of that has \
         expired; then restore it from a snapshot or a backup"
    )]
    Damaged {
        /// The level of tiles, from 0.
        level: u8,
        /// Its number in the level.
        tile: u64,
    },
    /// What has expired is in no other place.
    #[error(
        "the directory `tree` lacks what is known of records 1 to {through}, which have expired, \
         or does not match the base. Restore it from a snapshot or a backup"
    )]
    Lost {
        /// The last record that expired.
        through: u64,
    },
    /// The tree does not go that far.
    #[error("the tree has {size} records, not {wanted}")]
    Beyond {
        /// Its size.
        size: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// A block does not follow what the tree has.
    #[error("the tree ends at {size}; a block that begins with {first} does not follow")]
    Gap {
        /// Its size.
        size: u64,
        /// The first sequence of the block.
        first: u64,
    },
    /// The file system said no.
    #[error("the tree cannot be read or written: {0}")]
    Io(#[from] io::Error),
}

impl From<TreeError> for Rejection {
    fn from(error: TreeError) -> Self {
        let code = match &error {
            TreeError::Damaged { .. } | TreeError::Lost { .. } => Code::StoreCorrupt,
            TreeError::Beyond { .. } => Code::NotFound,
            TreeError::Gap { .. } => Code::Internal,
            TreeError::Io(_) => Code::StoreIo,
        };
        if code != Code::NotFound {
            tracing::error!(%error, "the tree failed");
        }
        Self::new(code, error.to_string())
    }
}

/// The tiles of one level that are not in files yet, from the first incomplete one on.
#[derive(Debug, Default)]
struct Level {
    /// How many hashes are in front of them; whole tiles.
    base: u64,
    hashes: Vec<u8>,
}

impl Level {
    fn count(&self) -> u64 {
        self.base + (self.hashes.len() / HASH_SIZE) as u64
    }
}

#[derive(Debug)]
struct Nodes {
    size: u64,
    /// The digest of the block that ends there; none at the beginning.
    block: Digest,
    levels: Vec<Level>,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { size: 0, block: Digest::ZERO, levels: Vec::new() }
    }
}

impl Nodes {
    fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Level::default());
            }
            let hashes = &mut self.levels[level].hashes;
            hashes.extend_from_slice(&hash.0);
            if !hashes.len().is_multiple_of(TILE_BYTES) {
                break;
            }
            hash = Tile::subtree_hash(&hashes[hashes.len() - TILE_BYTES..]);
        }
        self.size += 1;
    }
}

/// The tree. One writer applies, in order; anybody reads.
#[derive(Debug)]
pub struct Tree {
    /// None of a memory journal: everything stays in memory.
    files: Option<Files>,
    nodes: RwLock<Nodes>,
    /// Held by the one who writes files.
    flushing: Mutex<()>,
}

impl Tree {
    /// Opens the tree in a directory, which is made if there is none. What cannot be trusted is
    /// passed over: the tree is then empty. Blocking.
    pub fn open(dir: &Path) -> Result<Self, TreeError> {
        Self::open_behind(dir, None)
    }

    /// The same of a log whose beginning has expired: what cannot be trusted is passed over down to
    /// there, and what is known of the beginning has to be there.
    pub fn open_behind(dir: &Path, begin: Option<&Begin>) -> Result<Self, TreeError> {
        let files = Files::new(dir)?;
        let state = files.state();
        let nodes = match &state {
            Some(state) => load(&files, state),
            None => Ok(Nodes::default()),
        };
        let tree = match nodes {
            Ok(nodes) => Self::new(Some(files), nodes),
            Err(TreeError::Io(error)) => return Err(error.into()),
            Err(_) => Self::new(Some(files), Nodes::default()),
        };
        let is_whole = state.is_none_or(|state| tree.has_root(state.size, state.root));
        match begin {
            Some(begin) if !is_whole || !tree.has_root(begin.seq.0, Hash(begin.root.0)) => {
                tree.rewind(begin)?;
            }
            None if !is_whole => {
                tracing::warn!("the tree does not match its own root; it is made anew");
                tree.reset()?;
            }
            _ => {}
        }
        Ok(tree)
    }

    fn has_root(&self, size: u64, root: Hash) -> bool {
        matches!(self.root(size), Ok(found) if found == root)
    }

    /// Goes back to where the log begins: what was taken in since is of another history, or cannot be
    /// trusted.
    pub(crate) fn rewind(&self, begin: &Begin) -> Result<(), TreeError> {
        let root = Hash(begin.root.0);
        let state = State { size: begin.seq.0, block: begin.block, root };
        match self.go_back(&state) {
            Err(TreeError::Io(error)) => return Err(error.into()),
            Err(_) => return Err(TreeError::Lost { through: begin.seq.0 }),
            Ok(()) => {}
        }
        tracing::warn!(begin = %begin.seq, "the tree goes back to where the log begins");
        Ok(())
    }

    /// Ends with an earlier block of the same log, durably. Does nothing if it does not go beyond that.
    pub(crate) fn end_with(&self, seq: Sequence, block: Digest) -> Result<(), TreeError> {
        if seq == Sequence::ZERO {
            return self.reset();
        }
        if self.size() <= seq.0 {
            return Ok(());
        }
        let root = self.root(seq.0)?;
        self.go_back(&State { size: seq.0, block, root })
    }

    /// What is in memory is taken from the files, which go at least as far. Unless they lead to that root, what
    /// they say of themselves stays.
    fn go_back(&self, state: &State) -> Result<(), TreeError> {
        let damaged = TreeError::Damaged { level: 0, tile: state.size / TILE_WIDTH };
        let _alone = self.flushing.lock();
        let Some(files) = &self.files else { return Err(damaged) };
        *self.nodes.write() = load(files, state)?;
        if !self.has_root(state.size, state.root) {
            return Err(damaged);
        }
        Ok(files.replace_state(state)?)
    }

    /// One that is computed in an empty directory to be compared with another, and not kept: nothing of
    /// it survives a power loss.
    pub(super) fn scratch(dir: &Path) -> Result<Self, TreeError> {
        Ok(Self::new(Some(Files::scratch(dir)?), Nodes::default()))
    }

    /// Without a directory.
    pub fn in_memory() -> Self {
        Self::new(None, Nodes::default())
    }

    fn new(files: Option<Files>, nodes: Nodes) -> Self {
        Self { files, nodes: RwLock::new(nodes), flushing: Mutex::default() }
    }

    /// How many records it has.
    pub fn size(&self) -> u64 {
        self.nodes.read().size
    }

    /// How many records it has, and the digest of the block that ends there.
    pub fn end(&self) -> (u64, Digest) {
        let nodes = self.nodes.read();
        (nodes.size, nodes.block)
    }

    /// Begins again with nothing: the log is not the one that it was made from.
    pub(crate) fn reset(&self) -> Result<(), TreeError> {
        let _alone = self.flushing.lock();
        if let Some(files) = &self.files {
            files.forget()?;
        }
        *self.nodes.write() = Nodes::default();
        Ok(())
    }

    /// Takes in the records of a durable block that follows. One that it has already is ignored.
    pub fn apply(&self, block: &Block) -> Result<(), TreeError> {
        let (first, last) = (block.first().0, block.last().0);
        let mut nodes = self.nodes.write();
        if last <= nodes.size {
            return Ok(());
        }
        if first != nodes.size + 1 {
            return Err(TreeError::Gap { size: nodes.size, first });
        }
        for record in &block.records {
            nodes.push(record_hash(&record.digest.0));
        }
        nodes.block = block.digest;
        Ok(())
    }

    /// Takes in a leaf hash, for a tree that is computed beside a log.
    pub fn push(&self, leaf: Hash) {
        self.push_all([leaf]);
    }

    /// The same for some of them.
    pub fn push_all(&self, leaves: impl IntoIterator<Item = Hash>) {
        let mut nodes = self.nodes.write();
        leaves.into_iter().for_each(|leaf| nodes.push(leaf));
    }

    /// Writes what is not in files yet. Blocking; does nothing without a directory.
    pub fn flush(&self) -> Result<(), TreeError> {
        let Some(files) = &self.files else { return Ok(()) };
        let _alone = self.flushing.lock();
        let (size, block, parts) = {
            let nodes = self.nodes.read();
            let part = |level: &Level| (level.base, level.hashes.clone());
            let parts: Vec<_> = nodes.levels.iter().map(part).collect();
            (nodes.size, nodes.block, parts)
        };
        if size == 0 || files.state().is_some_and(|state| state.size == size) {
            return Ok(());
        }
        for (level, (base, hashes)) in (0..).zip(&parts) {
            files.write(level, *base, hashes)?;
        }
        files.replace_state(&State { size, block, root: self.root(size)? })?;
        let mut nodes = self.nodes.write();
        for (level, (_, written)) in nodes.levels.iter_mut().zip(&parts) {
            let whole = written.len() / TILE_BYTES;
            level.hashes.drain(..whole * TILE_BYTES);
            level.hashes.shrink_to(TILE_BYTES);
            level.base += whole as u64 * TILE_WIDTH;
        }
        Ok(())
    }

    /// The first `width` hashes of a tile.
    pub fn tile(&self, level: u8, tile: u64, width: u64) -> Result<Vec<u8>, TreeError> {
        let bytes = self.hashes(level, tile.saturating_mul(TILE_WIDTH), width)?;
        if width == TILE_WIDTH {
            // A full tile can be told from a damaged one by the node above it.
            let above = self.hashes(level + 1, tile, 1)?;
            if Tile::subtree_hash(&bytes).0 != *above {
                return Err(TreeError::Damaged { level, tile });
            }
        }
        Ok(bytes)
    }

    /// `count` hashes of a level of tiles, from the `first` on: of files, of memory, or of both.
    pub(super) fn hashes(&self, level: u8, first: u64, count: u64) -> Result<Vec<u8>, TreeError> {
        let wanted = first.saturating_add(count);
        let (on_disk, in_memory) = {
            let nodes = self.nodes.read();
            let beyond = TreeError::Beyond {
                size: nodes.size,
                wanted: wanted.checked_shl(u32::from(level * TILE_HEIGHT)).unwrap_or(u64::MAX),
            };
            let Some(kept) = nodes.levels.get(usize::from(level)) else { return Err(beyond) };
            if wanted > kept.count() {
                return Err(beyond);
            }
            let from = first.max(kept.base);
            let bytes = |at: u64| (at.saturating_sub(kept.base)) as usize * HASH_SIZE;
            let in_memory = kept.hashes[bytes(from)..bytes(wanted.max(from))].to_vec();
            (count - (in_memory.len() / HASH_SIZE) as u64, in_memory)
        };
        match (&self.files, on_disk) {
            (_, 0) => Ok(in_memory),
            (Some(files), _) => {
                let mut bytes = files.read(level, first, on_disk as usize)?;
                bytes.extend_from_slice(&in_memory);
                Ok(bytes)
            }
            (None, _) => Err(TreeError::Damaged { level, tile: first / TILE_WIDTH }),
        }
    }
}

/// What of a directory with tiles belongs to a tree of one size; it only grows.
#[derive(Clone, Debug)]
pub struct StoredTiles {
    /// How many records.
    pub size: u64,
    /// What the file `state` holds.
    pub state: Vec<u8>,
    /// Names of files, and how many bytes of each count.
    pub levels: Vec<(String, u64)>,
}

impl StoredTiles {
    /// Those in a directory that a service has opened; none if there are none, or none that can be trusted.
    /// Blocking.
    pub fn in_directory(dir: &Path) -> Option<Self> {
        let files = Files::at(dir);
        let state = files.state()?;
        Some(Self { size: state.size, state: state.encode(), levels: files.names(state.size) })
    }

    /// Whether a file of that many bytes is one that does not change any more.
    pub fn is_full(bytes: u64) -> bool {
        bytes == PIECE_BYTES
    }
}

/// Gives the first leaf hashes of a tree in a directory to `each`. Blocking.
pub fn each_leaf(
    dir: &Path,
    size: u64,
    mut each: impl FnMut(Hash) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let files = Files::at(dir);
    let mut first = 0;
    while first < size {
        let width = TILE_WIDTH.min(size - first);
        let bytes = files.read(0, first, width as usize)?;
        for leaf in bytes.chunks_exact(HASH_SIZE) {
            let damaged = TreeError::Damaged { level: 0, tile: first / TILE_WIDTH };
            each(Hash(leaf.try_into().map_err(|_| damaged)?))?;
        }
        first += width;
    }
    Ok(())
}

/// What is in memory of a tree whose files go that far: of each level the incomplete tile.
fn load(files: &Files, state: &State) -> Result<Nodes, TreeError> {
    let mut levels = Vec::new();
    let mut count = state.size;
    while count > 0 {
        let level = levels.len() as u8;
        let rest = count % TILE_WIDTH;
        let base = count - rest;
        levels.push(Level { base, hashes: files.read(level, base, rest as usize)? });
        count /= TILE_WIDTH;
    }
    Ok(Nodes { size: state.size, block: state.block, levels })
}

/// The root of the tree without records.
pub(super) const EMPTY_ROOT: Hash = EMPTY_HASH;
