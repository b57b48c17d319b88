//! What makes the history provable to somebody who trusts neither the operator nor the machine.
//!
//! A Merkle tree grows with the log. Its root at a size, signed, is a *checkpoint*: it commits to
//! every record up to there. A record is proven to be in a checkpoint, and a checkpoint to
//! continue an earlier one, by a few hashes, with tools that are not ours: hashing is that of
//! RFC 6962 and RFC 9162, checkpoints, keys, tiles and receipts are those of C2SP (`tlog-checkpoint`,
//! `signed-note`, `tlog-tiles`, `tlog-proof`).
//!
//! ```text
//! leaf of record s   index s − 1, entry: the 32 bytes of the record digest
//! leaf hash          SHA-256(0x00 ‖ record digest)
//! node hash          SHA-256(0x01 ‖ left ‖ right)
//! ```
//!
//! The tree is derived data: without it, it is computed again from the log. The newest
//! checkpoint and the key that signs are not.

mod archive;
mod checkpoint;
mod files;
mod key;
mod notary;
mod proof;
mod receipt;
mod tile_path;
mod tree;
mod verify;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests;

pub use archive::{
    ArchiveError, ArchiveReader, ArchiveSink, ArchiveWriter, frame, look_at as look_at_content,
    read as read_archive, read_frame,
};
pub use checkpoint::{CheckpointError, SignedCheckpoint};
pub use key::{KeyError, LogKey, VerifierKey, VerifierKeyError};
pub(crate) use notary::read as read_checkpoint;
pub use notary::{Notary, NotaryError, NotaryOwner};
pub use proof::{Consistency, Inclusion, leaf_of};
pub use receipt::{Proven, Receipt, ReceiptError};
pub use tile_path::{TileKind, TilePath};
pub use tree::{StoredTiles, TILE_WIDTH, Tree, TreeError, each_leaf};
pub(crate) use verify::Erasures;
pub use verify::{Erasure, Held, Kind, Problem, Verdict, Verification};

/// The name of the directory with the tree, in the data directory.
pub const TREE: &str = "tree";
/// The name of the file with the newest signed checkpoint, in the data directory.
pub const CHECKPOINT: &str = "checkpoint";
/// The name of the directory with the last words of earlier epochs, in the data directory.
pub const ANCESTORS: &str = "ancestors";
/// The name of the file with the key that signs, in the data directory.
pub const KEY: &str = "log.key";
