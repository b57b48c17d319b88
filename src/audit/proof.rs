//! Roots and proofs, computed from tiles.

use super::tree::{TILE_HEIGHT, Tree, TreeError};
use parking_lot::Mutex;
use tlog_tiles::{
    Error, Hash, HashReader, RecordProof, Tile, TreeProof, check_record, check_tree, prove_record,
    prove_tree, record_hash, tree_hash,
};

/// A record is in a tree.
#[derive(Clone, Debug)]
pub struct Inclusion {
    /// The size of the tree.
    pub size: u64,
    /// The place of the record, from 0.
    pub index: u64,
    /// Its leaf hash.
    pub leaf: Hash,
    /// From the leaf upwards.
    pub proof: RecordProof,
}

impl Inclusion {
    /// Whether it proves that a tree with that root has the record.
    pub fn holds(&self, root: Hash) -> bool {
        check_record(&self.proof, self.size, root, self.index, self.leaf).is_ok()
    }
}

/// A tree begins with another.
#[derive(Clone, Debug)]
pub struct Consistency {
    /// The size of the smaller tree.
    pub from: u64,
    /// The size of the larger tree.
    pub to: u64,
    /// The root of the smaller tree.
    pub from_root: Hash,
    /// The root of the larger tree.
    pub to_root: Hash,
    /// In the order of RFC 6962.
    pub proof: TreeProof,
}

impl Consistency {
    /// Whether it proves what it says.
    pub fn holds(&self) -> bool {
        match (self.from, self.to) {
            (0, _) => self.proof.is_empty(),
            (from, to) if from == to => self.proof.is_empty() && self.from_root == self.to_root,
            (from, to) => check_tree(&self.proof, to, self.to_root, from, self.from_root).is_ok(),
        }
    }
}

/// Reads single nodes. What went wrong is kept, since the library has no place for it.
struct Reader<'a> {
    tree: &'a Tree,
    failed: Mutex<Option<TreeError>>,
}

impl HashReader for Reader<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let read = |index: &u64| {
            let tile = Tile::from_index(TILE_HEIGHT, *index);
            let first = tile.level_index() << TILE_HEIGHT;
            match self.tree.hashes(tile.level(), first, u64::from(tile.width())) {
                Ok(bytes) => tile.hash_at_index(&bytes, *index),
                Err(error) => {
                    *self.failed.lock() = Some(error);
                    Err(Error::IndexesNotInTree)
                }
            }
        };
        indexes.iter().map(read).collect()
    }
}

impl Tree {
    fn ask<T>(&self, ask: impl FnOnce(&Reader<'_>) -> Result<T, Error>) -> Result<T, TreeError> {
        let reader = Reader { tree: self, failed: Mutex::default() };
        ask(&reader).map_err(|error| {
            let failed = reader.failed.lock().take();
            failed.unwrap_or_else(|| std::io::Error::other(error.to_string()).into())
        })
    }

    fn within(&self, wanted: u64) -> Result<(), TreeError> {
        let size = self.size();
        if wanted <= size { Ok(()) } else { Err(TreeError::Beyond { size, wanted }) }
    }

    /// The root at a size, now or in the past.
    pub fn root(&self, size: u64) -> Result<Hash, TreeError> {
        self.within(size)?;
        if size == 0 {
            return Ok(super::tree::EMPTY_ROOT);
        }
        self.ask(|reader| tree_hash(size, reader))
    }

    /// The leaf hash at an index.
    pub fn leaf(&self, index: u64) -> Result<Hash, TreeError> {
        let bytes = self.hashes(0, index, 1)?;
        let damaged = TreeError::Damaged { level: 0, tile: index >> TILE_HEIGHT };
        bytes.try_into().map(Hash).map_err(|_| damaged)
    }

    /// That the tree of a size has the record at an index.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Inclusion, TreeError> {
        self.within(size.max(index.saturating_add(1)))?;
        if index >= size {
            return Err(TreeError::Beyond { size, wanted: index.saturating_add(1) });
        }
        let proof = self.ask(|reader| prove_record(size, index, reader))?;
        Ok(Inclusion { size, index, leaf: self.leaf(index)?, proof })
    }

    /// That the tree of one size begins with that of another.
    pub fn consistency(&self, from: u64, to: u64) -> Result<Consistency, TreeError> {
        self.within(to)?;
        if from > to {
            return Err(TreeError::Beyond { size: to, wanted: from });
        }
        let proof = match from {
            0 => TreeProof::new(),
            _ => self.ask(|reader| prove_tree(to, from, reader))?,
        };
        let (from_root, to_root) = (self.root(from)?, self.root(to)?);
        Ok(Consistency { from, to, from_root, to_root, proof })
    }
}

/// The leaf hash of a record.
pub fn leaf_of(record: acta_events::Digest) -> Hash {
    record_hash(&record.0)
}
