//! Verifies what was unpacked: believes nothing of it but the key, if one is given.

use super::{CHECKPOINTS, CONTENT, Manifest, SnapshotError, TAIL, VERIFIER};
use crate::{
    audit::{
        self, CheckpointError, Kind, Problem, SignedCheckpoint, TreeError, Verdict, Verification,
        VerifierKey, read_frame,
    },
    base::{BaseError, Bases},
    checkpoint::Checkpoints,
    content::ContentStore,
    journal::{self, ListedSegment, SEGMENTS},
};
use acta_events::{Epoch, Event, Sequence, block::Block};
use bytes::Bytes;
use std::{
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

/// How many blocks wait to be looked at.
const BLOCKS_AHEAD: usize = 64;

/// What is verified, block by block.
pub type Passed<'a> = &'a mut dyn FnMut(&Block);

/// What a verification found.
#[derive(Debug)]
pub struct Checked {
    /// As `acta verify` has it.
    pub verdict: Verdict,
    /// What signed it.
    pub verifier: Option<VerifierKey>,
}

struct Walk<'a> {
    verification: Verification,
    contents: ContentStore,
    /// Where each later epoch forked off.
    forks: Vec<(Epoch, Sequence)>,
    passed: Passed<'a>,
}

/// Verifies the parts of a snapshot in a directory. `passed` is shown each block that matches its
/// own digest, in order.
pub fn verify(
    dir: &Path,
    manifest: &Manifest,
    key: Option<&VerifierKey>,
    passed: Passed<'_>,
) -> Result<Checked, SnapshotError> {
    let stored = Checkpoints::new(dir.join(CHECKPOINTS));
    let mut walk = Walk {
        verification: Verification::new(manifest.log_id, Some(stored))?,
        contents: ContentStore::new(dir.join(CONTENT)),
        forks: Vec::new(),
        passed,
    };
    let (verifier, mut signed) = signed(dir, key, &mut walk.verification)?;
    walk.begin(dir, manifest)?;
    walk.segments(dir, manifest)?;
    walk.tail(dir)?;
    let position = walk.verification.position();
    if position < manifest.sequence {
        let why = "the snapshot has no blocks with them";
        walk.verification.unreadable(position.next(), manifest.sequence, why);
    } else if position > manifest.sequence {
        let what = format!("it goes up to {position}, and should up to {}", manifest.sequence);
        walk.tell(Kind::Damaged, what);
    }
    if let Some((_, newest)) = signed.iter().find(|(which, _)| *which == "newest") {
        walk.verification.ends_with(newest);
    }
    signed.extend(walk.ancestors(dir)?);
    let verdict = walk.verification.finish(&signed, Some(&dir.join(audit::TREE)))?;
    Ok(Checked { verdict, verifier })
}

impl Walk<'_> {
    fn tell(&mut self, kind: Kind, what: String) {
        self.verification.problem(Problem { kind, first: None, last: None, what });
    }

    /// Begins with the base, if the beginning has expired.
    fn begin(&mut self, dir: &Path, manifest: &Manifest) -> Result<(), SnapshotError> {
        let expired = manifest.expired();
        if expired == Sequence::ZERO {
            return Ok(());
        }
        let base = match Bases::of(dir).read(expired, manifest.log_id) {
            Err(BaseError::Io(error)) => return Err(error.into()),
            Err(error) => {
                self.tell(Kind::Damaged, error.to_string());
                return Ok(());
            }
            Ok(base) => base,
        };
        let tree = dir.join(audit::TREE);
        let leaf = |leaf| self.verification.expired_leaf(leaf);
        match audit::each_leaf(&tree, base.begin.seq.0, leaf) {
            // What is missing is told of when the leaves are compared with the base.
            Ok(()) | Err(TreeError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.verification.begin_behind(base)?)
    }

    /// Segments are read and decompressed on a thread of their own.
    fn segments(&mut self, dir: &Path, manifest: &Manifest) -> Result<(), SnapshotError> {
        let segments = journal::segments(dir, manifest.log_id)?;
        thread::scope(|scope| {
            let (sender, blocks) = sync_channel(BLOCKS_AHEAD);
            let segments = &segments;
            let reading = scope.spawn(move || read_segments(segments, &sender));
            for read in blocks {
                match read {
                    FromSegments::Block(bytes) => self.block(bytes)?,
                    FromSegments::Unreadable(from, last, why) => {
                        self.verification.unreadable(from, last, &why);
                    }
                    FromSegments::Problem(problem) => self.verification.problem(problem),
                }
            }
            reading.join().map_err(|_| io::Error::other("a thread panicked"))??;
            Ok(())
        })
    }

    fn tail(&mut self, dir: &Path) -> Result<(), SnapshotError> {
        for path in tail_files(dir)? {
            let mut input = BufReader::new(File::open(&path)?);
            loop {
                match read_frame(&mut input) {
                    Ok(Some(bytes)) => self.block(bytes)?,
                    Ok(None) => break,
                    Err(error) => {
                        let next = self.verification.position().next();
                        self.verification.unreadable(next, next, &error.to_string());
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, bytes: Bytes) -> Result<(), SnapshotError> {
        match Block::decode(bytes) {
            Ok(block) => {
                for record in &block.records {
                    if let Event::LogForked(forked) = &record.header.event {
                        self.forks.push((forked.epoch, forked.fork));
                    }
                }
                (self.passed)(&block);
                self.verification.take_in(&block, Some(&self.contents))?;
            }
            Err(error) => {
                let next = self.verification.position().next();
                self.verification.unreadable(next, next, &error.to_string());
            }
        }
        Ok(())
    }

    /// What earlier epochs signed. Of what they signed beyond the fork, only they can tell.
    fn ancestors(
        &mut self,
        dir: &Path,
    ) -> Result<Vec<(&'static str, SignedCheckpoint)>, SnapshotError> {
        let mut signed = Vec::new();
        for (epoch, dir) in ancestors(&dir.join(audit::ANCESTORS))? {
            let found = read_signed(&dir, None);
            let checkpoint = match found {
                Ok((_, checkpoint)) => checkpoint,
                Err(Unsigned::Io(error)) => return Err(error.into()),
                Err(Unsigned::Problem(kind, what)) => {
                    self.tell(kind, format!("what epoch {epoch} signed: {what}"));
                    continue;
                }
            };
            let fork = self.forks.iter().filter(|(later, _)| *later > epoch);
            let fork = fork.map(|(_, fork)| *fork).min();
            if fork.is_some_and(|fork| checkpoint.size() <= fork.0) {
                signed.push(("ancestor", checkpoint));
            }
        }
        Ok(signed)
    }
}

/// What is found in segments, in order.
enum FromSegments {
    Block(Bytes),
    /// From which record to which, and why.
    Unreadable(Sequence, Sequence, String),
    Problem(Problem),
}

/// Reads segments until nobody listens any more.
fn read_segments(segments: &[ListedSegment], found: &SyncSender<FromSegments>) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let tell = |what| found.send(what).map_err(gone);
    for segment in segments {
        let (first, last) = (segment.first, segment.last);
        let bad = segment.each_block(|bytes| tell(FromSegments::Block(bytes)))?;
        if let Some((from, why)) = bad {
            let why = format!("{SEGMENTS}/{}: {why}", segment.name());
            tell(FromSegments::Unreadable(from, last, why))?;
        } else if let Some(why) = segment.verify()? {
            let (first, last) = (Some(first), Some(last));
            let what = format!("their segment: {why}; their blocks are intact");
            tell(FromSegments::Problem(Problem { kind: Kind::Damaged, first, last, what }))?;
        }
    }
    Ok(())
}

/// The files with the blocks behind the segments, in order.
pub(super) fn tail_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    match fs::read_dir(dir.join(TAIL)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                files.push(entry?.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The directories of earlier epochs.
pub(super) fn ancestors(dir: &Path) -> io::Result<Vec<(Epoch, PathBuf)>> {
    let mut found = Vec::new();
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let epoch = name.strip_prefix("epoch-").and_then(|epoch| epoch.parse().ok());
                found.extend(epoch.map(|epoch| (Epoch(epoch), path.clone())));
            }
        }
    }
    found.sort();
    Ok(found)
}

enum Unsigned {
    Problem(Kind, String),
    Io(io::Error),
}

/// A checkpoint and the key that it is believed with: the one that is given, or the one beside it.
fn read_signed(
    dir: &Path,
    key: Option<&VerifierKey>,
) -> Result<(VerifierKey, SignedCheckpoint), Unsigned> {
    let read = |name: &str| match fs::read(dir.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Unsigned::Problem(Kind::Damaged, format!("{name} is missing")))
        }
        other => Ok(String::from_utf8_lossy(&other.map_err(Unsigned::Io)?).into_owned()),
    };
    let key = match key {
        Some(key) => key.clone(),
        None => read(VERIFIER)?
            .trim()
            .parse()
            .map_err(|_| Unsigned::Problem(Kind::Damaged, format!("{VERIFIER} holds no key")))?,
    };
    let checkpoint =
        SignedCheckpoint::verify(&read(audit::CHECKPOINT)?, &key).map_err(|error| {
            let kind = match error {
                CheckpointError::Malformed => Kind::Damaged,
                _ => Kind::Contradicted,
            };
            Unsigned::Problem(kind, format!("the checkpoint: {error}"))
        })?;
    Ok((key, checkpoint))
}

type Signed = Vec<(&'static str, SignedCheckpoint)>;

fn signed(
    dir: &Path,
    key: Option<&VerifierKey>,
    verification: &mut Verification,
) -> Result<(Option<VerifierKey>, Signed), SnapshotError> {
    match read_signed(dir, key) {
        Ok((key, checkpoint)) => Ok((Some(key), vec![("newest", checkpoint)])),
        Err(Unsigned::Io(error)) => Err(error.into()),
        Err(Unsigned::Problem(kind, what)) => {
            verification.problem(Problem { kind, first: None, last: None, what });
            Ok((None, Signed::new()))
        }
    }
}
