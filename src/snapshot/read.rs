//! Reads a snapshot, whether it is a directory or one file.
//!
//! ```text
//! "acta-snapshot 1\n" · parts · manifest · length of the manifest u64 · "ACTASNAP"
//! ```

use super::{
    Manifest, Part, SnapshotError, at, parent,
    receive::{FILE_BEGIN, FILE_END},
};
use acta_events::Digest;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read as _, Write},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// How much is read at once.
const CHUNK: u64 = 1 << 20;
/// No manifest is larger.
const MANIFEST_MAX: u64 = 1 << 30;

/// A snapshot whose manifest was read and matches its digest. Its parts are checked as they are
/// read.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    manifest: Manifest,
    /// Of a snapshot in one file.
    file: Option<File>,
    base: Option<Box<Self>>,
}

impl Snapshot {
    /// Opens one.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        if at(path, fs::metadata(path))?.is_dir() {
            let manifest = path.join(Manifest::NAME);
            if !manifest.exists() {
                let why = format!("it has no {}", Manifest::NAME);
                return Err(SnapshotError::NotOne { path: path.into(), why });
            }
            let manifest = Manifest::decode(&at(&manifest, fs::read(&manifest))?)?;
            return Ok(Self { path: path.into(), manifest, file: None, base: None });
        }
        let file = at(path, File::open(path))?;
        let manifest = Manifest::decode(&manifest_of(path, &file)?)?;
        Ok(Self { path: path.into(), manifest, file: Some(file), base: None })
    }

    /// Opens one that was taken on top of another, if it was.
    pub fn open_on(path: &Path, base: Option<&Path>) -> Result<Self, SnapshotError> {
        let mut snapshot = Self::open(path)?;
        if let Some(base) = base {
            snapshot.base = Some(Box::new(Self::open(base)?));
        }
        Ok(snapshot)
    }

    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The directory that it is, if it is one.
    pub fn directory(&self) -> Option<&Path> {
        self.file.is_none().then_some(&*self.path)
    }

    /// The file of a part, if it has one of its own.
    pub(super) fn file_of(&self, part: &Part) -> Option<PathBuf> {
        self.file.is_none().then(|| self.path.join(&part.name))
    }

    /// Whether there is as much of a part as there should be. What it says is not looked at.
    pub(super) fn look_for(&self, part: &Part) -> Result<(), SnapshotError> {
        let found = match &self.file {
            Some(file) => at(&self.path, file.metadata())?
                .len()
                .checked_sub(part.at.unwrap_or(0))
                .is_some_and(|rest| rest >= part.bytes),
            None => {
                let is_whole = |it: fs::Metadata| it.is_file() && it.len() == part.bytes;
                fs::symlink_metadata(self.path.join(&part.name)).is_ok_and(is_whole)
            }
        };
        let (name, path) = (&part.name, self.path.display());
        found.then_some(()).ok_or_else(|| {
            SnapshotError::Damaged(format!("part {name} of {path} is missing, or cut short"))
        })
    }

    /// Copies a part, and checks that it is what was written.
    pub fn copy(&self, part: &Part, out: &mut impl Write) -> Result<(), SnapshotError> {
        if part.in_base {
            let base = self.base.as_ref();
            let there = base.and_then(|base| {
                let same = |it: &&Part| it.sha256 == part.sha256 && it.bytes == part.bytes;
                Some((base, base.manifest.parts.iter().find(same)?))
            });
            let (base, found) = there.ok_or_else(|| SnapshotError::NeedsBase(part.name.clone()))?;
            return base.copy(found, out);
        }
        let damaged = |why: &str| SnapshotError::Damaged(format!("part {} {why}", part.name));
        let path = self.path.join(&part.name);
        let own = match &self.file {
            Some(_) => None,
            None if fs::metadata(&path).is_ok_and(|there| !there.is_file()) => {
                return Err(damaged("is not a file"));
            }
            None => match File::open(&path) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(damaged("is missing"));
                }
                Err(error) => return Err(SnapshotError::Io { path, error }),
            },
        };
        let file = own.as_ref().or(self.file.as_ref()).ok_or_else(|| damaged("is missing"))?;
        let begin = if own.is_some() { 0 } else { part.at.unwrap_or(0) };
        if own.is_some() && at(&path, file.metadata())?.len() != part.bytes {
            return Err(damaged("has another length than it should"));
        }
        let mut hasher = Sha256::new();
        let mut chunk = Vec::new();
        let mut done = 0;
        while done < part.bytes {
            let wanted = CHUNK.min(part.bytes - done);
            chunk.resize(usize::try_from(wanted).unwrap_or(0), 0);
            file.read_exact_at(&mut chunk, begin.saturating_add(done)).map_err(
                |error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => damaged("is cut short"),
                    _ => SnapshotError::Io { path: self.path.clone(), error },
                },
            )?;
            hasher.update(&chunk);
            out.write_all(&chunk)?;
            done += wanted;
        }
        if part.sha256 != Some(Digest(hasher.finalize().into())) {
            return Err(damaged("does not match its SHA-256"));
        }
        Ok(())
    }

    /// Copies all parts into a directory, each checked on the way, and synced. `each` hears how many
    /// bytes were copied.
    pub fn unpack(&self, dir: &Path, mut each: impl FnMut(u64)) -> Result<(), SnapshotError> {
        let mut done = 0;
        for part in &self.manifest.parts {
            let path = dir.join(&part.name);
            let into = parent(&path);
            at(into, DirBuilder::new().recursive(true).mode(0o700).create(into))?;
            let mut file =
                at(&path, OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path))?;
            self.copy(part, &mut file)?;
            at(&path, file.sync_all())?;
            done += part.bytes;
            each(done);
        }
        Ok(())
    }

    /// Checks all parts, and returns what is wrong with each that is.
    pub fn check(&self, mut each: impl FnMut(u64)) -> Result<Vec<String>, SnapshotError> {
        let mut wrong = Vec::new();
        let mut done = 0;
        for part in &self.manifest.parts {
            match self.copy(part, &mut std::io::sink()) {
                Ok(()) => {}
                Err(SnapshotError::Damaged(why)) => wrong.push(why),
                Err(error) => return Err(error),
            }
            done += part.bytes;
            each(done);
        }
        Ok(wrong)
    }
}

/// The manifest at the end of a file.
fn manifest_of(path: &Path, file: &File) -> Result<Vec<u8>, SnapshotError> {
    let not_one = |why: &str| SnapshotError::NotOne { path: path.into(), why: why.into() };
    let mut begin = [0; FILE_BEGIN.len()];
    if (&*file).read_exact(&mut begin).is_err() || begin != *FILE_BEGIN {
        return Err(not_one("it does not begin as one does"));
    }
    let len = at(path, file.metadata())?.len();
    let short = || SnapshotError::Damaged("it is cut short".into());
    let mut end = [0; 16];
    let end_at = len.checked_sub(16).ok_or_else(short)?;
    at(path, file.read_exact_at(&mut end, end_at))?;
    if &end[8..] != FILE_END {
        return Err(short());
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&end[..8]);
    let bytes = u64::from_be_bytes(bytes);
    let begins = end_at.checked_sub(bytes).filter(|_| bytes <= MANIFEST_MAX).ok_or_else(short)?;
    let mut manifest = vec![0; usize::try_from(bytes).unwrap_or(0)];
    at(path, file.read_exact_at(&mut manifest, begins))?;
    Ok(manifest)
}
