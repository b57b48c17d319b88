//! Contents that are too large for a block: a file each, named by the content digest.
//!
//! ```text
//! <content>/<first 2 hex digits>/<64 hex digits>     salt [16] · content
//! ```
//!
//! A content is durable before the record that names it is appended. If the append then does
//! not happen, or the machine stops in between, a file is left that no record names. It does
//! no harm, so unlike an append a failed [`ContentStore::put`] needs no distinction between
//! "not written" and "unknown": the caller refuses the command and nothing refers to the file.

use acta_events::{Content, Digest, record::SALT_BYTES, sha256};
use bytes::{Buf, Bytes};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

/// How much of a content that is copied is in memory at once.
const COPY_BYTES: usize = 64 * 1024;

/// A content cannot be kept or read. No path of the server is told.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// There is no such file.
    #[error("content {digest} is missing")]
    Missing {
        /// The content digest.
        digest: Digest,
    },
    /// The file does not hold what its name says.
    #[error("content {digest} is damaged: {why}")]
    Damaged {
        /// The content digest.
        digest: Digest,
        /// What does not fit.
        why: &'static str,
    },
    /// The file system said no.
    #[error("content {digest}: {source}")]
    Io {
        /// The content digest.
        digest: Digest,
        /// Why not.
        source: io::Error,
    },
}

/// The files, in one directory that nobody else writes to. Every call blocks.
#[derive(Debug)]
pub struct ContentStore {
    dir: PathBuf,
    /// Tells the temporary files of concurrent calls apart.
    puts: AtomicU64,
    /// What is older and unfinished belongs to an earlier process.
    opened: SystemTime,
}

impl ContentStore {
    /// Nothing is read or written before the first call.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), puts: AtomicU64::new(0), opened: SystemTime::now() }
    }

    /// Keeps a content; `Ok` means that it survives power loss. One that is there already is
    /// replaced by itself, which also repairs it.
    pub fn put(&self, content: &Content) -> Result<(), ContentError> {
        let digest = content.digest();
        self.write(digest, |file| {
            file.write_all(&content.salt)?;
            file.write_all(&content.bytes)
        })
        .map_err(|source| ContentError::Io { digest, source })
    }

    /// Keeps a content that comes from elsewhere as it is stored, salt in front, without having it
    /// in memory as a whole. One that does not match its digest is not kept.
    pub fn put_stored(&self, digest: Digest, stored: &mut dyn Read) -> Result<(), ContentError> {
        let mut matches = true;
        let copied = self.write(digest, |file| {
            matches = copy_hashed(stored, file)? == digest;
            if matches { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
        });
        match copied {
            Err(_) if !matches => {
                Err(ContentError::Damaged { digest, why: "it does not match its digest" })
            }
            copied => copied.map_err(|source| ContentError::Io { digest, source }),
        }
    }

    /// The content of that digest and length, without its salt, verified.
    pub fn read(&self, digest: Digest, expected_len: u64) -> Result<Bytes, ContentError> {
        let mut bytes = self.read_salted(digest, expected_len)?;
        bytes.advance(SALT_BYTES);
        Ok(bytes)
    }

    /// As [`Self::read`], with the salt in front.
    pub fn read_salted(&self, digest: Digest, expected_len: u64) -> Result<Bytes, ContentError> {
        let io = |source| ContentError::Io { digest, source };
        let damaged = |why| ContentError::Damaged { digest, why };
        let mut file = match File::open(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ContentError::Missing { digest });
            }
            other => other.map_err(io)?,
        };
        // Asked before reading, so that a wrong file costs no memory.
        let stored_len = expected_len.saturating_add(SALT_BYTES as u64);
        if file.metadata().map_err(io)?.len() != stored_len {
            return Err(damaged("it has another length than its record says"));
        }
        let mut stored = Vec::new();
        file.read_to_end(&mut stored).map_err(io)?;
        if sha256(&[&stored]) != digest {
            return Err(damaged("it does not match its digest"));
        }
        Ok(stored.into())
    }

    /// Takes a content away for good; one that is not there is fine.
    pub fn remove(&self, digest: Digest) -> Result<(), ContentError> {
        let path = self.path(digest);
        let fine = |done: io::Result<()>| match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        let dir = path.parent().unwrap_or(&self.dir);
        // Synced even where there is nothing: an attempt whose sync failed may have removed it.
        let synced = fine(fs::remove_file(&path))
            .and_then(|()| fine(File::open(dir).and_then(|dir| dir.sync_all())));
        synced.map_err(|source| ContentError::Io { digest, source })
    }

    /// The digests of files that hold the same content under another salt.
    pub fn twins(&self, digest: Digest, len: u64) -> Result<Vec<Digest>, ContentError> {
        let content = match self.read(digest, len) {
            Ok(content) => content,
            // Then there is nothing to compare with.
            Err(ContentError::Missing { .. } | ContentError::Damaged { .. }) => return Ok(vec![]),
            Err(error) => return Err(error),
        };
        let mut twins = Vec::new();
        self.each_file(|path, metadata| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Ok(other) = Digest::parse(&name) else { return Ok(()) };
            if other != digest
                && metadata.len() == len.saturating_add(SALT_BYTES as u64)
                && fs::read(path)?.get(SALT_BYTES..) == Some(&content[..])
            {
                twins.push(other);
            }
            Ok(())
        })
        .map_err(|source| ContentError::Io { digest, source })?;
        Ok(twins)
    }

    /// Removes what earlier processes began to write and did not finish.
    pub fn remove_stale_temporaries(&self) -> Result<(), ContentError> {
        self.each_file(|path, metadata| {
            let unfinished = path.extension().is_some_and(|extension| extension == "new");
            if unfinished && metadata.modified()? < self.opened {
                fs::remove_file(path)?;
            }
            Ok(())
        })
        .map_err(|source| ContentError::Io { digest: Digest::ZERO, source })
    }

    fn each_file(
        &self,
        mut visit: impl FnMut(&Path, &fs::Metadata) -> io::Result<()>,
    ) -> io::Result<()> {
        let dirs = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for dir in dirs {
            for file in fs::read_dir(dir?.path())? {
                let file = file?;
                match file.metadata() {
                    // Another thread may have finished with it meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    metadata => visit(&file.path(), &metadata?)?,
                }
            }
        }
        Ok(())
    }

    /// The file of a content.
    pub fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir.join(&name[..2]).join(name)
    }

    /// Write, fsync, rename, fsync of the directory.
    fn write(
        &self,
        digest: Digest,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.path(digest);
        let dir = path.parent().unwrap_or(&self.dir);
        make_dir(&self.dir)?;
        make_dir(dir)?;
        // The process id keeps clear of what an earlier process left behind.
        let number = self.puts.fetch_add(1, Ordering::Relaxed);
        let temporary = dir.join(format!("{}-{number}.new", std::process::id()));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        let written = fill(&mut file)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            // It is in the way of nobody; what matters is the first error.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        File::open(dir)?.sync_all()
    }
}

/// Copies all that there is to read; the digest over it.
pub fn copy_hashed(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(Digest(hasher.finalize().into())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
    }
}

/// Makes a directory and its name durable. The parent is synced in any case: who made the
/// directory a moment ago may not have come to syncing it.
fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use acta_events::MediaType;

    fn content(len: usize) -> Content {
        let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
        Content::new([7; SALT_BYTES], MediaType::Text, bytes.into())
    }

    #[test]
    fn what_is_put_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::new(dir.path().join("content"));
        for len in [0, 1, 100_000] {
            let content = content(len);
            for _ in 0..2 {
                store.put(&content).unwrap();
                assert_eq!(store.read(content.digest(), len as u64).unwrap(), content.bytes);
            }
            let kept = fs::read_dir(store.path(content.digest()).parent().unwrap()).unwrap();
            assert_eq!(kept.count(), 1, "no temporary file is left");
        }
    }

    #[test]
    fn what_comes_from_elsewhere_is_kept_if_it_is_what_it_should_be() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::new(dir.path().join("content"));
        let content = content(150_000);
        let digest = content.digest();
        let stored = [&content.salt[..], &content.bytes].concat();
        for bad in [&stored[1..], &stored[..stored.len() - 1], &[]] {
            let error = store.put_stored(digest, &mut &*bad).unwrap_err();
            assert!(matches!(error, ContentError::Damaged { .. }), "{error}");
            assert!(matches!(store.read(digest, 150_000), Err(ContentError::Missing { .. })));
        }
        store.put_stored(digest, &mut &*stored).unwrap();
        assert_eq!(store.read(digest, 150_000).unwrap(), content.bytes);
        assert_eq!(store.read_salted(digest, 150_000).unwrap(), stored);
        let kept = fs::read_dir(store.path(digest).parent().unwrap()).unwrap();
        assert_eq!(kept.count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_is_wrong_is_told_without_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::new(dir.path());
        let content = content(1000);
        let digest = content.digest();
        let check = |expected: &str| {
            let error = store.read(digest, 1000).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains(&digest.to_string()));
            assert!(!error.contains(dir.path().to_str().unwrap()), "{error}");
        };
        check("is missing");
        store.put(&content).unwrap();
        let path = store.path(digest);
        let good = fs::read(&path).unwrap();
        for at in [0, SALT_BYTES, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            check("does not match its digest");
        }
        for bad in [&good[..good.len() - 1], &[&good[..], &[0]].concat(), &[]] {
            fs::write(&path, bad).unwrap();
            check("another length");
        }
        store.put(&content).unwrap();
        assert_eq!(store.read(digest, 1000).unwrap(), content.bytes);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(store.put(&content), Err(ContentError::Io { .. })));
    }
}
