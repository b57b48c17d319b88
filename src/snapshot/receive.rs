//! Writes what a service sends, and takes its digests.

use super::{
    CONTENT, Manifest, Part, Snapshot, SnapshotError, at,
    claim::claim,
    parent,
    plan::{Ending, Opening},
    sync_directories, unfinished,
};
use acta_events::{Digest, Sequence};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// The longest line between two parts.
const LINE_MAX: usize = 64 << 20;
/// What a snapshot in one file begins with, and ends with behind the length of its manifest.
pub(super) const FILE_BEGIN: &[u8; 16] = b"acta-snapshot 1\n";
pub(super) const FILE_END: &[u8; 8] = b"ACTASNAP";

/// Where a snapshot is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file for each part.
    Directory,
    /// All parts in one file.
    File,
}

impl Target {
    /// A name that ends with `.acta` is one of a file.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension == "acta" => Self::File,
            _ => Self::Directory,
        }
    }
}

/// A snapshot that is complete.
#[derive(Clone, Debug)]
pub struct Received {
    /// What is in it.
    pub manifest: Manifest,
    /// How many bytes were sent for it.
    pub sent: u64,
    /// How many parts the base had.
    pub in_base: usize,
}

enum State {
    Line(Vec<u8>),
    Part { part: Box<Part>, left: u64, hasher: Sha256, out: BufWriter<File> },
    Complete,
}

/// Takes pieces in as they come.
pub struct Receiver {
    target: PathBuf,
    stage: PathBuf,
    kind: Target,
    /// The stage, which is nobody else's for as long as this is open.
    claim: File,
    written: u64,
    base: Option<Snapshot>,
    opening: Option<Opening>,
    parts: Vec<Part>,
    sent: u64,
    in_base: usize,
    state: State,
    /// It is where it belongs.
    is_done: bool,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.is_done {
            // The next attempt says so if it is in the way.
            let _ = discard(&self.stage);
        }
    }
}

impl Receiver {
    /// Begins to write beside a target that is not there yet. What an earlier attempt left there is
    /// removed.
    pub fn new(target: &Path, base: Option<Snapshot>) -> Result<Self, SnapshotError> {
        if target.exists() {
            return Err(SnapshotError::Exists(target.into()));
        }
        let (stage, kind) = (unfinished(target)?, Target::of(target));
        if base.as_ref().is_some_and(|base| base.manifest().parts.iter().any(|part| part.in_base)) {
            let why = "it has only what another one before it lacks, and cannot be read alone";
            return Err(SnapshotError::Base(why.into()));
        }
        let mut claim = claim(&stage, target, kind)?;
        if target.exists() {
            return Err(SnapshotError::Exists(target.into()));
        }
        if kind == Target::File {
            at(&stage, claim.write_all(FILE_BEGIN))?;
        }
        Ok(Self {
            target: target.into(),
            stage,
            kind,
            claim,
            written: FILE_BEGIN.len() as u64,
            base,
            opening: None,
            parts: Vec::new(),
            sent: 0,
            in_base: 0,
            state: State::Line(Vec::new()),
            is_done: false,
        })
    }

    /// The last record of what is being sent, once that is known.
    pub fn sequence(&self) -> Option<Sequence> {
        self.opening.as_ref().map(|opening| opening.manifest.sequence)
    }

    /// How many bytes have come, and about how many there are, once that is known.
    pub fn progress(&self) -> (u64, Option<u64>) {
        (self.sent, self.opening.as_ref().map(|opening| opening.bytes))
    }

    /// Takes in the next piece.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        self.sent += bytes.len() as u64;
        while !bytes.is_empty() {
            match &mut self.state {
                State::Complete => {
                    return Err(SnapshotError::Protocol("it goes on behind its end".into()));
                }
                State::Part { left, hasher, out, .. } => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let (now, later) = bytes.split_at(n);
                    hasher.update(now);
                    out.write_all(now)?;
                    (*left, bytes) = (*left - n as u64, later);
                }
                State::Line(line) => {
                    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                        line.extend_from_slice(bytes);
                        if line.len() > LINE_MAX {
                            return Err(SnapshotError::Protocol("a line has no end".into()));
                        }
                        return Ok(());
                    };
                    line.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    let line = std::mem::take(line);
                    self.line(&line)?;
                }
            }
            if matches!(self.state, State::Part { left: 0, .. }) {
                self.end_part()?;
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), SnapshotError> {
        let malformed = |error: serde_json::Error| SnapshotError::Protocol(error.to_string());
        if self.opening.is_none() {
            let opening: Opening = serde_json::from_slice(line).map_err(malformed)?;
            if opening.manifest.format > super::FORMAT {
                return Err(SnapshotError::Newer(opening.manifest.format));
            }
            let on_base = opening.on_base;
            self.opening = Some(opening);
            return if on_base { self.take_contents_of_base() } else { Ok(()) };
        }
        if let Ok(ending) = serde_json::from_slice::<Ending>(line) {
            return match ending {
                Ending::Complete(_) => {
                    self.state = State::Complete;
                    Ok(())
                }
                Ending::Again(why) => Err(SnapshotError::Again(why)),
            };
        }
        let part: Part = serde_json::from_slice(line).map_err(malformed)?;
        if !part.has_fair_name() {
            return Err(SnapshotError::Protocol("a part has a name that no part has".into()));
        }
        if part.in_base {
            let known = self.base.as_ref().and_then(|base| base.manifest().part(&part.name));
            let known = known.cloned().ok_or_else(|| {
                SnapshotError::Protocol(format!("{} is not in the base", part.name))
            })?;
            return self.take_from_base(known);
        }
        let out = match self.kind {
            Target::File => self.claim.try_clone()?,
            Target::Directory => self.make(&part.name)?,
        };
        let (left, hasher) = (part.bytes, Sha256::new());
        self.state = State::Part { part: Box::new(part), left, hasher, out: BufWriter::new(out) };
        Ok(())
    }

    fn make(&self, name: &str) -> Result<File, SnapshotError> {
        let path = self.stage.join(name);
        let dir = parent(&path);
        at(dir, DirBuilder::new().recursive(true).mode(0o700).create(dir))?;
        at(&path, create(&path))
    }

    fn end_part(&mut self) -> Result<(), SnapshotError> {
        let state = std::mem::replace(&mut self.state, State::Line(Vec::new()));
        let State::Part { mut part, hasher, out, .. } = state else { return Ok(()) };
        let file = out.into_inner().map_err(|error| SnapshotError::Files(error.into_error()))?;
        part.sha256 = Some(Digest(hasher.finalize().into()));
        match self.kind {
            Target::Directory => file.sync_all()?,
            Target::File => {
                part.at = Some(self.written);
                self.written += part.bytes;
            }
        }
        self.parts.push(*part);
        Ok(())
    }

    fn take_contents_of_base(&mut self) -> Result<(), SnapshotError> {
        let (Some(base), Some(opening)) = (&self.base, &self.opening) else {
            return Err(SnapshotError::Protocol("it rests upon a base that nobody named".into()));
        };
        let is_kept = |part: &&Part| {
            let digest = part.name.strip_prefix(CONTENT).and_then(|name| name.rsplit('/').next());
            let digest = digest.and_then(|name| Digest::parse(name).ok());
            digest.is_some_and(|digest| !opening.dropped.contains(&digest))
        };
        let kept: Vec<Part> = base.manifest().parts.iter().filter(is_kept).cloned().collect();
        kept.into_iter().try_for_each(|part| self.take_from_base(part))
    }

    /// A part that is in the base: in a directory a further name of its file, or a copy.
    fn take_from_base(&mut self, known: Part) -> Result<(), SnapshotError> {
        self.in_base += 1;
        let mut part = Part { at: None, in_base: self.kind == Target::File, ..known.clone() };
        if let Some(base) = &self.base {
            // Whether its bytes are what was written, only `acta snapshot verify` looks at.
            base.look_for(&known)?;
            if self.kind == Target::Directory {
                part.in_base = false;
                let path = self.stage.join(&part.name);
                let dir = parent(&path);
                at(dir, DirBuilder::new().recursive(true).mode(0o700).create(dir))?;
                let linked =
                    base.file_of(&known).is_some_and(|file| fs::hard_link(file, &path).is_ok());
                if !linked {
                    let mut file = at(&path, create(&path))?;
                    base.copy(&known, &mut file)?;
                    at(&path, file.sync_all())?;
                }
            }
        }
        self.parts.push(part);
        Ok(())
    }

    /// Whether all of it has come.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// Puts it where it belongs, if all of it has come.
    pub fn finish(mut self) -> Result<Received, SnapshotError> {
        if !self.is_complete() {
            return Err(SnapshotError::Protocol("it ends before it is complete".into()));
        }
        let opening = self.opening.take();
        let Some(Opening { mut manifest, .. }) = opening else {
            return Err(SnapshotError::Protocol("it is empty".into()));
        };
        manifest.parts = std::mem::take(&mut self.parts);
        let encoded = manifest.encode().map_err(|error| io::Error::other(error.to_string()))?;
        match self.kind {
            Target::File => {
                let file = &mut self.claim;
                file.write_all(&encoded)?;
                file.write_all(&(encoded.len() as u64).to_be_bytes())?;
                file.write_all(FILE_END)?;
                at(&self.stage, file.sync_all())?;
            }
            Target::Directory => {
                let path = self.stage.join(Manifest::NAME);
                let mut file = at(&path, create(&path))?;
                at(&path, file.write_all(&encoded).and_then(|()| file.sync_all()))?;
                at(&self.stage, sync_directories(&self.stage))?;
            }
        }
        if self.target.exists() {
            return Err(SnapshotError::Exists(self.target.clone()));
        }
        at(&self.target, fs::rename(&self.stage, &self.target))?;
        self.is_done = true;
        let dir = parent(&self.target);
        at(dir, File::open(dir).and_then(|dir| dir.sync_all()))?;
        Ok(Received { manifest, sent: self.sent, in_base: self.in_base })
    }

    /// Removes what has been written so far, and gives the base back for another attempt.
    pub fn abandon(mut self) -> Option<Snapshot> {
        self.base.take()
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

pub(super) fn discard(stage: &Path) -> Result<(), SnapshotError> {
    let removed = match fs::symlink_metadata(stage) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(stage),
        Ok(_) => fs::remove_file(stage),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    at(stage, removed)
}
