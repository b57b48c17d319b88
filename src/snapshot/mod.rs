//! Snapshots: a whole log at one sequence, taken while the service runs, and put back elsewhere.
//!
//! ```text
//! checkpoint, verifier.key        what was signed at exactly that sequence, and by whom
//! ancestors/epoch-<n>/…           the same of earlier epochs
//! segments/<first>-<last>.seg     sealed history, as it is
//! tail/<first>.blocks             the blocks behind it: frames as in an archive
//! content/<xx>/<digest>           contents in files of their own
//! checkpoints/<seq>.ckpt          the projections
//! tree/…                          the Merkle tree
//! base/<seq>.base                 where the log begins, if its oldest records have expired
//! manifest.json                   which of these there are, each with its SHA-256
//! ```
//!
//! A snapshot is a directory with these files, or one file that holds them one behind the other
//! (`read`). The service sends what it has planned (`plan`); whoever receives it writes
//! (`receive`). Neither keys that sign nor tokens are sent, and nothing that was erased: an order
//! that is recorded is waited for, and one that comes meanwhile makes the whole thing begin again.
//!
//! A snapshot on top of an earlier one gets only what that lacks. In a directory, the rest are
//! further names of the same files, so that either can be removed without the other; in a file, it
//! is named, and needed again to restore.

mod claim;
mod indexing;
mod list;
mod manifest;
mod plan;
mod read;
mod receive;
mod restore;
mod schedule;
#[cfg(test)]
mod tests;
mod verify;

pub use list::{Listed, list};
pub use manifest::{Manifest, Part};
pub use plan::{Base, Plan, created, settled};
pub use read::Snapshot;
pub use receive::{Received, Receiver, Target};
#[cfg(test)]
pub(crate) use restore::kept_through;
pub use restore::{Cut, Staged, stage};
pub use schedule::{Newest, Schedule, ScheduleOwner};
pub use verify::{Checked, Passed, verify};

use crate::{
    audit::TreeError, base::BaseError, data_dir::DataDirError, journal::OpenError, log::ReadFault,
};
use acta_events::Sequence;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// A snapshot was not taken, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is something already.
    #[error("{0} is there already; name a place where there is nothing yet")]
    Exists(PathBuf),
    /// Nothing can be made beside it.
    #[error("{0} is no name that something can be made under; give the whole path, in UTF-8")]
    Nameless(PathBuf),
    /// It is none.
    #[error("{path} is not a snapshot: {why}")]
    NotOne {
        /// What was opened.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version made it.
    #[error(
        "the snapshot has format {0}; this version of Acta reads up to {FORMAT}. Use a newer one"
    )]
    Newer(u32),
    /// It is not what was written.
    #[error("the snapshot is damaged: {0}")]
    Damaged(String),
    /// It rests upon another one.
    #[error(
        "part {0} is not in this snapshot: it was taken on top of an earlier one; name that with \
         --base"
    )]
    NeedsBase(String),
    /// What was sent is no snapshot.
    #[error("what the service sends is not a snapshot: {0}")]
    Protocol(String),
    /// It has to begin again.
    #[error("{0}")]
    Again(String),
    /// The base is of something else.
    #[error("the earlier snapshot cannot be built upon: {0}. Take one without --base")]
    Base(String),
    /// There is no such moment in it.
    #[error("the snapshot has records {first} to {last}, and {asked} is none of these moments")]
    Moment {
        /// The first record that it has, or, if others have expired, the last of these: what the log was
        /// right after it is known.
        first: Sequence,
        /// Its last record.
        last: Sequence,
        /// What was asked for.
        asked: String,
    },
    /// Another process is at it.
    #[error(
        "another process is making {0} at the moment; wait until it is done, or name another place"
    )]
    Busy(PathBuf),
    /// A data directory cannot be made.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// A log cannot be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// The base cannot be read.
    #[error(transparent)]
    LogBase(#[from] BaseError),
    /// A tree cannot be computed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file system said no, and it is not known of what.
    #[error(transparent)]
    Files(#[from] io::Error),
}

/// The format of snapshots that this build writes.
pub const FORMAT: u32 = 1;

/// Part names.
pub(crate) const VERIFIER: &str = "verifier.key";
pub(crate) const TAIL: &str = "tail";
pub(crate) const CONTENT: &str = "content";
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// The directory of the index in a data directory; it is in no snapshot.
pub(crate) const INDEX: &str = "index";

pub(crate) fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, SnapshotError> {
    result.map_err(|error| SnapshotError::Io { path: path.into(), error })
}

/// What stands beside a target until it is complete.
pub(crate) fn unfinished(target: &Path) -> Result<PathBuf, SnapshotError> {
    let name = target.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| SnapshotError::Nameless(target.into()))?;
    Ok(target.with_file_name(format!(".{name}.unfinished")))
}

/// The directory that something is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes names in a directory, and in all below it, durable.
pub(crate) fn sync_directories(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}
