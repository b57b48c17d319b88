//! Signs how far the log has come, and holds the log to what was signed before.
//!
//! The newest checkpoint is written to its file before anybody sees it, so that what was once
//! shown to somebody is known at the next start. A checkpoint is signed once a second if the log
//! has grown, at the end of the service, and when somebody asks for the proof of a record that
//! the newest does not cover.

use super::{
    checkpoint::{CheckpointError, SignedCheckpoint},
    files,
    key::{KeyError, LogKey, VerifierKey},
    tree::{Tree, TreeError},
};
use parking_lot::{Mutex, RwLock};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

/// How often a checkpoint is signed while the log grows.
const SIGN_EVERY: Duration = Duration::from_secs(1);

/// The log is not what was signed, or nothing can be said about it.
#[derive(Debug, thiserror::Error)]
pub enum NotaryError {
    /// Records are gone that were signed.
    #[error(
        "the log ends at {head}, but a checkpoint that was signed covers {signed} records: \
         records {} to {signed} are missing. Restore the data directory from a newer snapshot or \
         backup", head + 1
    )]
    Shorter {
        /// Where the log ends.
        head: u64,
        /// What was signed.
        signed: u64,
    },
    /// Records are not those that were signed.
    #[error(
        "the first {signed} records of the log are not those that were signed: it is another \
         history, or records were altered. `acta verify` tells what is intact; restore the data \
         directory from a snapshot or a backup"
    )]
    Different {
        /// What was signed.
        signed: u64,
    },
    /// The file with the newest checkpoint cannot be believed.
    #[error(
        "the file checkpoint in the data directory cannot be used: {0}. Restore it from a backup \
         or a copy that somebody else has"
    )]
    Checkpoint(#[from] CheckpointError),
    /// The file with the newest checkpoint is gone.
    #[error(
        "the file checkpoint, with what was signed last, is missing from the data directory, so \
         that whether records are missing too cannot be told. Put it back from a backup or a copy \
         that somebody else has; `acta verify` tells what the log holds. To go on without, remove \
         log.key as well: the log is then signed with a new key, which whoever knows the old one notices"
    )]
    Missing,
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The tree cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The file system said no.
    #[error("the file checkpoint: {0}")]
    Io(#[from] io::Error),
}

/// Signs checkpoints of one tree. Shared; every call but [`Self::latest`] blocks.
#[derive(Debug)]
pub struct Notary {
    key: LogKey,
    tree: Arc<Tree>,
    /// None of a log in memory.
    file: Option<PathBuf>,
    latest: RwLock<Arc<SignedCheckpoint>>,
    /// Held while one is signed, so that sizes never go back.
    signing: Mutex<()>,
}

impl Notary {
    /// Reads the newest checkpoint, and holds the tree to it: what was signed has to be there.
    pub fn open(key: LogKey, tree: Arc<Tree>, file: Option<&Path>) -> Result<Self, NotaryError> {
        let kept = match file {
            Some(file) => read(file, key.verifier())?,
            None => None,
        };
        if let Some(kept) = &kept {
            hold(&tree, kept)?;
        }
        let latest = match kept {
            Some(kept) => kept,
            // From the beginning on there is something to hold the next start to.
            None => {
                let size = tree.size();
                let first = SignedCheckpoint::sign(&key, size, tree.root(size)?);
                if let Some(file) = file {
                    files::replace(file, first.text().as_bytes())?;
                }
                first
            }
        };
        Ok(Self {
            key,
            tree,
            file: file.map(Path::to_owned),
            latest: RwLock::new(Arc::new(latest)),
            signing: Mutex::default(),
        })
    }

    /// The tree that it signs.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// What verifies its signatures.
    pub fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// The newest checkpoint.
    pub fn latest(&self) -> Arc<SignedCheckpoint> {
        Arc::clone(&self.latest.read())
    }

    /// A checkpoint of at least that size, signed now if the newest is smaller.
    pub fn covering(&self, size: u64) -> Result<Arc<SignedCheckpoint>, NotaryError> {
        let latest = self.latest();
        if latest.size() >= size { Ok(latest) } else { self.sign() }
    }

    /// Signs how far the tree has come, which is never more than what is durable.
    pub fn sign(&self) -> Result<Arc<SignedCheckpoint>, NotaryError> {
        let _alone = self.signing.lock();
        let (size, _) = self.tree.end();
        let latest = self.latest();
        if size <= latest.size() {
            return Ok(latest);
        }
        let signed = Arc::new(SignedCheckpoint::sign(&self.key, size, self.tree.root(size)?));
        if let Some(file) = &self.file {
            files::replace(file, signed.text().as_bytes())?;
        }
        *self.latest.write() = Arc::clone(&signed);
        Ok(signed)
    }
}

/// The checkpoint in a file; none if there is no file.
pub(crate) fn read(
    file: &Path,
    key: &VerifierKey,
) -> Result<Option<SignedCheckpoint>, NotaryError> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(CheckpointError::Malformed.into())
        }
        other => Ok(Some(SignedCheckpoint::verify(&other?, key)?)),
    }
}

/// Refuses a tree that does not hold what was signed.
pub(crate) fn hold(tree: &Tree, signed: &SignedCheckpoint) -> Result<(), NotaryError> {
    let (head, signed_size) = (tree.size(), signed.size());
    if head < signed_size {
        return Err(NotaryError::Shorter { head, signed: signed_size });
    }
    if tree.root(signed_size)? != signed.root() {
        return Err(NotaryError::Different { signed: signed_size });
    }
    Ok(())
}

/// Owns the thread that signs while the log grows.
#[derive(Debug)]
pub struct NotaryOwner {
    notary: Arc<Notary>,
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl NotaryOwner {
    /// Starts to sign.
    pub fn start(notary: Arc<Notary>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let signing = Arc::clone(&notary);
        let thread = std::thread::Builder::new().name("acta-notary".into()).spawn(move || {
            while stopped.recv_timeout(SIGN_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                if let Err(error) = signing.sign() {
                    tracing::error!(%error, "a checkpoint could not be signed");
                }
            }
        })?;
        Ok(Self { notary, stop, thread })
    }

    /// Ends the thread, and signs the end of the log, which nobody appends to any more. Blocking.
    pub fn close(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that signs ended in a panic");
        }
        if let Err(error) = self.notary.sign() {
            tracing::error!(%error, "the last checkpoint could not be signed");
        }
    }
}
