//! What can go wrong with the index.

use acta_events::Sequence;
use std::io;

/// The index could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A file is not what was written. Nothing was answered from it.
    #[error(
        "the index file `{file}` is damaged ({what}): stop the service and remove the `index` \
         directory; it is rebuilt from the log at the next start"
    )]
    Damaged {
        /// Name of the file, without its directory.
        file: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The system refused to read or write a file.
    #[error("the index file `{file}` could not be read or written: {source}")]
    Io {
        /// Name of the file, without its directory; `.` for the directory itself.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A batch does not follow what was applied. Nothing of it was applied.
    #[error("the index is at {position}, so a batch from {first} leaves a gap")]
    Gap {
        /// Last sequence that was applied.
        position: Sequence,
        /// First sequence of the batch.
        first: Sequence,
    },
    /// A batch holds an entry outside its range, or postings of a worker that do not ascend.
    /// Nothing of it was applied.
    #[error("the batch for the index is out of order at {seq}")]
    Disordered {
        /// Sequence of the first entry that is out of order.
        seq: Sequence,
    },
    /// A part was handed back that this index did not freeze.
    #[error("the part of the index to flush is not the one that was frozen")]
    NotFrozen,
}

impl IndexError {
    /// Reading past the end of a file means that it was cut short after it was written.
    pub(super) fn reading(file: &str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            Self::damaged(file, "cut short")
        } else {
            Self::io(file, source)
        }
    }

    pub(super) fn io(file: &str, source: io::Error) -> Self {
        Self::Io { file: file.to_owned(), source }
    }

    pub(super) fn damaged(file: &str, what: &'static str) -> Self {
        Self::Damaged { file: file.to_owned(), what }
    }
}
