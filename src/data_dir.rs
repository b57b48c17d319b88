//! The data directory: whose it is, what lies where, and that only one process has it open.
//!
//! ```text
//! <data>/lock         held exclusively (flock) while the service runs
//! <data>/acta.json    {"format":3,"log_id":"…","created":"…","acta":"…"}, written last at creation
//! <data>/HEAD         how far the log goes, see journal/head_file.rs
//! <data>/commit-<n>   the newest blocks, see journal/commit_file.rs
//! <data>/log-<n>/     what came before, as its engine keeps it, see journal/sled.rs
//! <data>/segments/    history, see journal/segment.rs
//! <data>/content/     contents that are too large for a block
//! ```
//!
//! Creation writes acta.json last. A crash before that leaves a directory that holds only
//! what creation writes; it is taken for new. Anything else without acta.json is refused.

mod migrate;

pub(crate) use migrate::remove_ways_back;

use crate::journal::{Head, head_file};
use acta_events::{LogId, Sequence, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use uuid::{Builder, Uuid};

/// The format of the data directory that this build reads and writes.
pub const DATA_FORMAT: u32 = 3;

const IDENTITY: &str = "acta.json";
const IDENTITY_TEMPORARY: &str = "acta.json.new";
const LOCK: &str = "lock";
/// A process that is just ending holds its lock for a moment longer.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it open.
    #[error(
        "another process uses the data directory {path}. Stop it first, or give this one a \
         directory of its own"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It holds something else.
    #[error(
        "{path} is not an Acta data directory: it holds `{found}` and has no acta.json. Give an \
         empty directory or one that does not exist yet"
    )]
    NotADataDirectory {
        /// The directory.
        path: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// It held a log, and what says which one is gone.
    #[error(
        "the file acta.json is missing from {path}, which holds `{found}` of a log. Restore the \
         data directory from a snapshot or a backup"
    )]
    IdentityMissing {
        /// The directory.
        path: PathBuf,
        /// What shows that it held a log.
        found: String,
    },
    /// acta.json cannot be understood.
    #[error(
        "the file acta.json in {path} is malformed: {why}. Restore it from a snapshot or a backup"
    )]
    IdentityMalformed {
        /// The directory.
        path: PathBuf,
        /// What did not fit.
        why: String,
    },
    /// A newer version wrote it.
    #[error(
        "the data directory {path} has format {format}, and this version of Acta reads up to format \
         {DATA_FORMAT}. It takes {needs}, or a newer one"
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The version of Acta that gave it that format.
        needs: String,
    },
    /// There is no log, and none is to be made.
    #[error("{path} is not an Acta data directory: it has no acta.json")]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// A log was to be created where there is one.
    #[error("the data directory {path} already holds log {log}")]
    Exists {
        /// The directory.
        path: PathBuf,
        /// The log in it.
        log: LogId,
    },
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Identity {
    format: u32,
    log_id: LogId,
    created: Timestamp,
    /// The version of Acta that gave it this format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acta: Option<String>,
}

#[derive(Deserialize)]
struct IdentityFormat {
    format: u32,
    #[serde(default)]
    acta: Option<String>,
}

const ACTA: &str = env!("CARGO_PKG_VERSION");

/// An open data directory. The lock is held until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    log: LogId,
    created: Timestamp,
    /// Holds the lock by being open.
    _lock: File,
}

impl DataDir {
    /// Opens a data directory, or makes one, with a log of its own, where there is nothing.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let lock = prepare(path)?;
        match read_identity(path)? {
            Some(identity) => Ok(Self::from_parts(path, upgraded(path, identity)?, lock)),
            None => Self::found(path, LogId(random_uuid()), now(), lock),
        }
    }

    /// Makes a data directory for a given log; there must be nothing there yet.
    pub fn create(path: &Path, log: LogId, created: Timestamp) -> Result<Self, DataDirError> {
        let lock = prepare(path)?;
        match read_identity(path)? {
            Some(identity) => Err(DataDirError::Exists { path: path.into(), log: identity.log_id }),
            None => Self::found(path, log, created, lock),
        }
    }

    /// Opens the data directory of a stopped service to look at it. Nothing in it is changed, not
    /// even by making the lock file: where there is none, no service has ever been.
    pub fn inspect(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.into(), source };
        let nothing = || DataDirError::Nothing { path: path.into() };
        let identity = read_identity(path)?.ok_or_else(nothing)?;
        let lock = match File::open(path.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::open(path.join(IDENTITY)).map_err(io)?
            }
            other => other.map_err(io)?,
        };
        let lock = hold(lock, path)?;
        Ok(Self::from_parts(path, identity, lock))
    }

    fn found(
        path: &Path,
        log: LogId,
        created: Timestamp,
        lock: File,
    ) -> Result<Self, DataDirError> {
        let identity =
            Identity { format: DATA_FORMAT, log_id: log, created, acta: Some(ACTA.into()) };
        let head = head_file::Entry::new(log, 1, Head::empty(log));
        head_file::replace(path, head)
            .and_then(|()| write_identity(path, &identity))
            .map_err(|source| DataDirError::Io { path: path.into(), source })?;
        Ok(Self::from_parts(path, identity, lock))
    }

    /// Which log a data directory holds, without taking it: a service may run on it.
    pub fn log_of(path: &Path) -> Result<LogId, DataDirError> {
        match read_identity(path)? {
            Some(identity) => Ok(identity.log_id),
            None => Err(DataDirError::Nothing { path: path.into() }),
        }
    }

    /// When the log of a data directory was made, without taking it.
    pub fn created_of(path: &Path) -> Result<Timestamp, DataDirError> {
        match read_identity(path)? {
            Some(identity) => Ok(identity.created),
            None => Err(DataDirError::Nothing { path: path.into() }),
        }
    }

    fn from_parts(path: &Path, identity: Identity, lock: File) -> Self {
        let Identity { log_id, created, .. } = identity;
        Self { path: path.into(), log: log_id, created, _lock: lock }
    }

    /// The log that it holds.
    pub fn log_id(&self) -> LogId {
        self.log
    }

    /// When the log was made.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where contents are that are too large for a block.
    pub fn content_path(&self) -> PathBuf {
        self.path.join("content")
    }

    /// Where something of that name lies in it.
    pub fn subpath(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Makes the directory if need be, looks whether it is ours before touching it, and locks it.
fn prepare(path: &Path) -> Result<File, DataDirError> {
    let io = |source| DataDirError::Io { path: path.into(), source };
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent).and_then(|dir| dir.sync_all()).map_err(io)?;
        }
    }
    // Before the lock file is made, so that a foreign directory is left as it is; and again
    // under the lock, because another process may have been creating it.
    refuse_foreign(path)?;
    let lock = lock(path)?;
    refuse_foreign(path)?;
    Ok(lock)
}

fn refuse_foreign(path: &Path) -> Result<(), DataDirError> {
    let io = |source| DataDirError::Io { path: path.into(), source };
    let mut names = Vec::<OsString>::new();
    for entry in fs::read_dir(path).map_err(io)? {
        names.push(entry.map_err(io)?.file_name());
    }
    if names.iter().any(|name| name == IDENTITY) {
        return Ok(());
    }
    let mut foreign = None;
    for name in names {
        let name = name.to_string_lossy().into_owned();
        match name.as_str() {
            LOCK | IDENTITY_TEMPORARY | head_file::TEMPORARY => {}
            // Creation writes a HEAD at zero. Nothing was ever acknowledged by its log.
            head_file::NAME
                if head_file::read(path).is_ok_and(|entry| entry.head.seq == Sequence::ZERO) => {}
            _ if is_of_a_log(&name) => {
                return Err(DataDirError::IdentityMissing { path: path.into(), found: name });
            }
            _ => foreign = Some(name),
        }
    }
    match foreign {
        Some(found) => Err(DataDirError::NotADataDirectory { path: path.into(), found }),
        None => Ok(()),
    }
}

fn is_of_a_log(name: &str) -> bool {
    matches!(name, head_file::NAME | "log" | "content" | "segments")
        || name.starts_with("log-")
        || name.starts_with("commit-")
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let lock_path = path.join(LOCK);
    let io = |source| DataDirError::Io { path: lock_path.clone(), source };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(io)?;
    hold(file, path)
}

fn hold(file: File, path: &Path) -> Result<File, DataDirError> {
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => {
                return Err(DataDirError::Io { path: path.join(LOCK), source });
            }
        }
    }
    Err(DataDirError::Locked { path: path.into() })
}

fn read_identity(path: &Path) -> Result<Option<Identity>, DataDirError> {
    let bytes = match fs::read(path.join(IDENTITY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataDirError::Io { path: path.join(IDENTITY), source }),
        Ok(bytes) => bytes,
    };
    let malformed = |error: serde_json::Error| DataDirError::IdentityMalformed {
        path: path.into(),
        why: error.to_string(),
    };
    // A newer format may have other fields; its number is all that is read of it.
    let IdentityFormat { format, acta } = serde_json::from_slice(&bytes).map_err(malformed)?;
    if format > DATA_FORMAT {
        let needs =
            acta.map_or("the version of Acta that wrote it".into(), |acta| format!("Acta {acta}"));
        return Err(DataDirError::NewerFormat { path: path.into(), format, needs });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(malformed)
}

/// Format 1 had no commit files. An older version would not look for them, so that it has to be
/// kept from opening the log.
fn upgraded(path: &Path, identity: Identity) -> Result<Identity, DataDirError> {
    if identity.format == DATA_FORMAT {
        return Ok(identity);
    }
    migrate::keep_way_back(path, identity.format)?;
    let identity = Identity { format: DATA_FORMAT, acta: Some(ACTA.into()), ..identity };
    write_identity(path, &identity)
        .map_err(|source| DataDirError::Io { path: path.into(), source })?;
    Ok(identity)
}

/// Write, fsync, rename, fsync of the directory: it is there as a whole or not at all.
fn write_identity(path: &Path, identity: &Identity) -> io::Result<()> {
    let temporary = path.join(IDENTITY_TEMPORARY);
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    let mut json = serde_json::to_vec(identity)?;
    json.push(b'\n');
    file.write_all(&json)?;
    file.sync_all()?;
    fs::rename(&temporary, path.join(IDENTITY))?;
    File::open(path)?.sync_all()
}

fn random_uuid() -> Uuid {
    Builder::from_random_bytes(rand::random()).into_uuid()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_made_once_and_found_again() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let (log, created) = (first.log_id(), first.created());
        drop(first);
        let second = DataDir::open(&path).unwrap();
        assert_eq!((second.log_id(), second.created()), (log, created));
        drop(second);
        let again = DataDir::create(&path, log, created);
        assert!(matches!(again, Err(DataDirError::Exists { log: found, .. }) if found == log));
    }

    #[test]
    fn a_directory_of_an_older_format_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let log = DataDir::open(dir.path()).unwrap().log_id();
        let path = dir.path().join(IDENTITY);
        let now = fs::read_to_string(&path).unwrap();
        fs::write(&path, now.replace("\"format\":3", "\"format\":2")).unwrap();
        assert_eq!(DataDir::open(dir.path()).unwrap().log_id(), log);
        assert_eq!(fs::read_to_string(&path).unwrap(), now);
        let before = dir.path().join("before-format-2");
        let kept = fs::read_to_string(before.join(IDENTITY)).unwrap();
        assert_eq!(kept, now.replace("\"format\":3", "\"format\":2"));
        assert_eq!(
            fs::read(before.join("HEAD")).unwrap(),
            fs::read(dir.path().join("HEAD")).unwrap()
        );
        remove_ways_back(dir.path()).unwrap();
        assert!(!before.exists() && path.exists());
    }

    #[test]
    fn a_second_one_is_told_to_wait_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Locked { .. }), "{error}");
        assert!(error.to_string().contains("Stop it first"));
        drop(held);
        DataDir::open(dir.path()).unwrap();
    }

    /// Each row puts files there; what is said of them, or nothing if it opens.
    #[test]
    fn what_is_there_decides() {
        let newer = br#"{"format":4,"name":"x"}"#.as_slice();
        let named = br#"{"format":4,"acta":"9.1.0"}"#.as_slice();
        type Files<'a> = &'a [(&'a str, &'a [u8])];
        let rows: &[(Files<'_>, Option<&str>)] = &[
            (&[], None),
            (&[("lock", b"")], None),
            (&[("lock", b""), ("acta.json.new", b"{\"for"), ("HEAD.new", b"AC")], None),
            (&[("notes.txt", b"x")], Some("is not an Acta data directory: it holds `notes.txt`")),
            (&[("lock", b""), ("x", b"x")], Some("is not an Acta data directory: it holds `x`")),
            (&[("HEAD", b"x")], Some("acta.json is missing")),
            (&[("log-1/db", b"x")], Some("acta.json is missing")),
            (&[("commit-7", b"x")], Some("acta.json is missing")),
            (&[("content/ab/x", b"x"), ("lock", b"")], Some("acta.json is missing")),
            (&[("log/db", b"x"), ("x", b"x")], Some("acta.json is missing")),
            (&[("acta.json", b"{")], Some("acta.json in")),
            (&[("acta.json", b"")], Some("is malformed")),
            (&[("acta.json", b"{\"format\":1,\"log_id\":\"x\"}")], Some("is malformed")),
            (
                &[("acta.json", newer)],
                Some("has format 4, and this version of Acta reads up to format 3"),
            ),
            (&[("acta.json", named)], Some("It takes Acta 9.1.0, or a newer one")),
        ];
        for (files, expected) in rows {
            let dir = tempfile::tempdir().unwrap();
            for (name, bytes) in *files {
                let path = dir.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            match (DataDir::open(dir.path()), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(text)) => {
                    assert!(error.to_string().contains(text), "{files:?}: {error}");
                }
                (found, _) => panic!("{files:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn looking_at_it_changes_nothing_and_keeps_the_service_out() {
        let dir = tempfile::tempdir().unwrap();
        let error = DataDir::inspect(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Nothing { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let log = DataDir::open(dir.path()).unwrap().log_id();
        let seen = DataDir::inspect(dir.path()).unwrap();
        assert_eq!(seen.log_id(), log);
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Locked { .. }), "{error}");
        drop(seen);
        let held = DataDir::open(dir.path()).unwrap();
        let error = DataDir::inspect(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Locked { .. }), "{error}");
        drop(held);
    }

    #[test]
    fn a_foreign_directory_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "x").unwrap();
        DataDir::open(dir.path()).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_crash_before_acta_json_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap().log_id();
        fs::rename(dir.path().join(IDENTITY), dir.path().join(IDENTITY_TEMPORARY)).unwrap();
        let second = DataDir::open(dir.path()).unwrap().log_id();
        assert_ne!(first, second, "HEAD at zero of a log that never was is no hindrance");
        assert_eq!(head_file::read(dir.path()).unwrap().log, second);
    }
}
