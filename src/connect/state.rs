//! What survives a SIGKILL of this side: one small file a worker.
//!
//! A message passes through it in three steps, each durable before the next begins: the backend's
//! outcome (`pending`), its delivery, and the cursor together with the key of the message
//! (`answered`). So a crash at any moment either runs the backend again, if it died before its
//! outcome was recorded, or sends the same reply again, under the same key.

use acta_events::ProcessRef;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Keys of answered messages that are remembered. A server gives a message again only while
/// the cursor behind it has not reached it, so the last page would do.
const ANSWERED_MAX: usize = 1000;
/// Answers that are remembered whole, for a platform that brings a message again because it
/// did not get the answer. It brings one at a time.
const GIVEN_MAX: usize = 4;
/// A file beyond this was not written by this program.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The state cannot be read or written. The messages name the file.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Reading or writing failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "the state file {} cannot be understood ({reason}); restore it, or remove it to begin \
         anew, which may answer messages a second time",
        path.display()
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two processes would answer every message twice.
    #[error("another acta connect runs for this worker ({} is locked)", path.display())]
    InUse {
        /// The lock.
        path: PathBuf,
    },
}

/// What the backend made of a message, until it is delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// The row that this is about.
    pub(super) row_id: String,
    /// The key of its message.
    pub(super) key: String,
    pub(super) outcome: Outcome,
}

/// A request to be made until it is taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The reply to a worker.
    Reply { to: String, body: Value },
    /// The reply to a person.
    Notice { body: Value },
    /// There is none, and why.
    Failure { body: Value },
}

/// The answer to a message that was brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Given {
    pub(super) key: String,
    pub(super) body: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Stored {
    workspace_id: String,
    #[serde(default)]
    last_since_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<Pending>,
    /// A process that may have outlived this side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<ProcessRef>,
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    answered: VecDeque<String>,
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    given: VecDeque<Given>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    push_secret: String,
    /// What a later version has to say.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// The state of one worker, held by one process.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    stored: Stored,
    /// Locked for as long as this exists; the kernel releases it after a SIGKILL too.
    _lock: File,
}

impl State {
    /// Reads the state of a worker, whose id is plain enough for a file name. Without a file
    /// it is empty.
    pub(super) fn open(directory: &Path, worker_id: &str) -> Result<Self, StateError> {
        let path = directory.join(format!("{worker_id}.json"));
        make_directory(directory).map_err(failed("cannot make the directory", directory))?;
        let lock = lock(&directory.join(format!("{worker_id}.lock")))?;
        let partial = temporary(&path);
        remove(&partial).map_err(failed("cannot remove", &partial))?;
        let stored = read(&path, worker_id)?;
        Ok(Self { path, stored, _lock: lock })
    }

    /// The row after which to go on; none at the beginning.
    pub(super) fn cursor(&self) -> Option<&str> {
        Some(self.stored.last_since_id.as_str()).filter(|id| !id.is_empty())
    }

    pub(super) fn pending(&self) -> Option<&Pending> {
        self.stored.pending.as_ref()
    }

    pub(super) fn running(&self) -> Option<&ProcessRef> {
        self.stored.running.as_ref()
    }

    pub(super) fn was_answered(&self, key: &str) -> bool {
        self.stored.answered.iter().any(|answered| answered == key)
    }

    /// The answer that a message got that was brought.
    pub(super) fn given(&self, key: &str) -> Option<&Value> {
        self.stored.given.iter().find(|given| given.key == key).map(|given| &given.body)
    }

    /// What makes the address of this side hard to guess, the same at each start.
    pub(super) async fn push_secret(&mut self, fresh: String) -> Result<String, StateError> {
        if self.stored.push_secret.is_empty() {
            self.stored.push_secret = fresh;
            self.save().await?;
        }
        Ok(self.stored.push_secret.clone())
    }

    /// A process works on a message, or none does any more.
    pub(super) async fn set_running(
        &mut self,
        process: Option<ProcessRef>,
    ) -> Result<(), StateError> {
        if self.stored.running == process {
            return Ok(());
        }
        self.stored.running = process;
        self.save().await
    }

    /// The backend has done its work.
    pub(super) async fn set_pending(&mut self, pending: Pending) -> Result<(), StateError> {
        self.stored.running = None;
        self.stored.pending = Some(pending);
        self.save().await
    }

    /// The outcome has arrived: the message is over, and so is its row.
    pub(super) async fn settle_pending(&mut self) -> Result<(), StateError> {
        let Some(Pending { row_id, key, .. }) = self.stored.pending.take() else { return Ok(()) };
        self.answered(key);
        self.stored.last_since_id = row_id;
        self.save().await
    }

    /// A message that was brought has its answer.
    pub(super) async fn settle_given(&mut self, given: Given) -> Result<(), StateError> {
        self.stored.running = None;
        self.answered(given.key.clone());
        self.stored.given.push_back(given);
        while self.stored.given.len() > GIVEN_MAX {
            self.stored.given.pop_front();
        }
        self.save().await
    }

    /// Goes past a row about which nothing is to be done.
    pub(super) async fn pass(&mut self, row_id: &str) -> Result<(), StateError> {
        row_id.clone_into(&mut self.stored.last_since_id);
        self.save().await
    }

    /// The server does not know the cursor any more.
    pub(super) async fn reset_cursor(&mut self) -> Result<(), StateError> {
        self.stored.last_since_id.clear();
        self.save().await
    }

    fn answered(&mut self, key: String) {
        if !self.was_answered(&key) {
            self.stored.answered.push_back(key);
        }
        while self.stored.answered.len() > ANSWERED_MAX {
            self.stored.answered.pop_front();
        }
    }

    async fn save(&self) -> Result<(), StateError> {
        let failed = failed("cannot write the state file", &self.path);
        let text = serde_json::to_vec(&self.stored).map_err(io::Error::other);
        let path = self.path.clone();
        let writing = tokio::task::spawn_blocking(move || replace(&path, &text?));
        writing.await.map_err(io::Error::other).and_then(|result| result).map_err(failed)
    }
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StateError + 'a {
    move |source| StateError::Io { what, path: path.to_owned(), source }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// For its owner only, the parents as usual.
fn make_directory(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
        }
        other => other,
    }
}

fn lock(path: &Path) -> Result<File, StateError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(failed("cannot open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed("cannot lock", path)(error)),
    }
}

fn read(path: &Path, worker_id: &str) -> Result<Stored, StateError> {
    let corrupt = |reason: String| StateError::Corrupt { path: path.to_owned(), reason };
    let text = match fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(corrupt("it is too large".into())),
        _ => fs::read(path),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Stored { workspace_id: worker_id.into(), ..Stored::default() });
        }
        Err(error) => return Err(failed("cannot read the state file", path)(error)),
    };
    let stored: Stored =
        serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
    if stored.workspace_id != worker_id {
        return Err(corrupt("it is about another worker".into()));
    }
    Ok(stored)
}

/// Temporary file, sync, rename, sync of the directory: after a crash there is either the old
/// text or the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let partial = temporary(path);
    remove(&partial)?;
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    })();
    if written.is_err() {
        // What is half written is of no use; the error that led here is the one to tell.
        let _ = fs::remove_file(&partial);
    }
    written?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
