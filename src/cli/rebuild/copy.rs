//! A copy of the log of a stopped service: of what the log consists of, in a directory beside the
//! data or, where that cannot be written or has no room, in the directory for temporary files.
//! Contents that lie in files of their own are not copied, since records know them by their digests.
//!
//! It is gone when it is dropped, and when a signal ends the process. What a process left that was
//! killed is removed by the next that makes a copy there: the lock on a directory that is in use is
//! held.

use crate::{
    base::DIRECTORY as BASES, cli::interrupted::remove_when_interrupted, journal::SEGMENTS,
};
use anyhow::{Context as _, Result, bail};
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const PREFIX: &str = ".acta-rebuild-";
/// How often it is tried to make a directory that nobody takes for a leftover meanwhile.
const TRIES: u32 = 8;

pub(super) struct Copy {
    dir: TempDir,
    /// Holds the lock by being open.
    _lock: File,
}

impl Copy {
    /// Copies what the log consists of.
    pub(super) fn of(data: &Path) -> Result<Self> {
        let data = fs::canonicalize(data)?;
        let beside = data.parent().unwrap_or(Path::new("/")).to_owned();
        let mut refused = Vec::new();
        for place in [beside, std::env::temp_dir()] {
            let copy = match Self::begin(&place) {
                Ok(copy) => copy,
                Err(error) => {
                    refused.push(format!("{}: {error}", place.display()));
                    continue;
                }
            };
            match fill(&data, copy.path()) {
                Ok(()) => return Ok(copy),
                Err((_, error)) if is_full(&error) => {
                    refused.push(format!("{}: {error}", place.display()));
                }
                Err((path, error)) => {
                    return Err(error)
                        .with_context(|| format!("{} cannot be copied", path.display()));
                }
            }
        }
        bail!(
            "there is nowhere to copy the log to ({}); set TMPDIR to a directory with room for it",
            refused.join("; ")
        )
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// An empty directory, for its owner alone.
    fn begin(place: &Path) -> io::Result<Self> {
        sweep(place);
        for _ in 0..TRIES {
            let mut builder = tempfile::Builder::new();
            builder.prefix(PREFIX).permissions(Permissions::from_mode(0o700));
            let dir = builder.tempdir_in(place)?;
            let lock = File::open(dir.path())?;
            // Before it is locked, somebody may take it for a leftover.
            if lock.try_lock().is_ok() && dir.path().exists() {
                remove_when_interrupted(dir.path())?;
                return Ok(Self { dir, _lock: lock });
            }
        }
        Err(io::Error::other("every directory that is made there is removed at once"))
    }
}

/// Removes what is left of processes that were killed.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_copy = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !is_copy || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Ok(left) = File::open(entry.path())
            && left.try_lock().is_ok()
        {
            // What is somebody else's stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether it may go better elsewhere.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// What could not be copied is told with why not.
fn fill(data: &Path, to: &Path) -> Result<(), (PathBuf, io::Error)> {
    let of_data = |error| (data.to_owned(), error);
    for entry in fs::read_dir(data).map_err(of_data)? {
        let entry = entry.map_err(of_data)?;
        let name = entry.file_name();
        let immutable = name == SEGMENTS || name == BASES;
        let of_the_log = immutable
            || name == "acta.json"
            || name == "HEAD"
            || name
                .to_str()
                .is_some_and(|name| name.starts_with("log-") || name.starts_with("commit-"));
        if of_the_log {
            copy(&entry.path(), &to.join(&name), immutable)
                .map_err(|error| (entry.path(), error))?;
        }
    }
    Ok(())
}

/// A file that is never written to again need not be copied where it can have another name.
fn copy(from: &Path, to: &Path, immutable: bool) -> io::Result<()> {
    if !fs::metadata(from)?.is_dir() {
        if immutable && fs::hard_link(from, to).is_ok() {
            return Ok(());
        }
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()), immutable)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_private_and_what_was_left_of_others_goes() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("HEAD"), "x").unwrap();
        fs::write(data.join("log.key"), "secret").unwrap();
        let left = place.path().join(format!("{PREFIX}left"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("HEAD"), "x").unwrap();
        let first = Copy::of(&data).unwrap();
        assert!(!left.exists(), "nobody uses it");
        let mode = fs::metadata(first.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(first.path().starts_with(place.path()) && !first.path().join("log.key").exists());
        let second = Copy::of(&data).unwrap();
        assert!(first.path().join("HEAD").exists(), "it is in use");
        drop((first, second));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
