//! The base: where a log begins whose oldest records have expired.
//!
//! A base stands for everything up to its sequence: what rebuilds begin with, and what the chain
//! and the tree go on from. It holds no contents.
//!
//! ```text
//! <data>/base/<seq>.base
//!   line 1   {"format":1,"log_id":…,"seq":…,"record":<digest at seq>,"block":…,"epoch":…,
//!             "time":…,"root":<of the tree at seq>,"views":<SHA-256 of line 2>}
//!   line 2   the projections, as JSON
//! ```
//!
//! **Invariants.** History expires in this order, each step durable before the next:
//!
//! 1. the base, written aside, synced, renamed, read again and compared;
//! 2. the record `history_expired`, which holds the SHA-256 of the base and the root of the tree;
//! 3. content files, segment by segment the file, the oldest first; then older bases.
//!
//! Killed before 2, there is a base that nothing names, which the next start removes. From
//! 2 on nobody is given what has expired, and a start finishes 3. Segments that begin above 1 without
//! a base, or with one that no record names, are damage. Of the tree nothing expires, so from then
//! on its leaves are in no other place.

use acta_events::{Digest, Epoch, LogId, Sequence, Timestamp, sha256};
use acta_projections::Projections;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// The directory of bases, in the data directory.
pub(crate) const DIRECTORY: &str = "base";
pub(crate) const SUFFIX: &str = ".base";
const UNFINISHED: &str = ".base.new";
const FORMAT: u32 = 1;

/// A base cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// There is none.
    #[error("there is no base at {0}. Restore the data directory from a snapshot or a backup")]
    Missing(Sequence),
    /// It is not what was written.
    #[error(
        "the base at {seq} is damaged: {why}. Restore the data directory from a snapshot or a backup"
    )]
    Damaged {
        /// Where the log is to begin.
        seq: Sequence,
        /// What was found.
        why: String,
    },
    /// The file system said no.
    #[error("the base: {0}")]
    Io(#[from] io::Error),
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    format: u32,
    log_id: LogId,
    seq: Sequence,
    record: Digest,
    block: Digest,
    epoch: Epoch,
    time: Timestamp,
    root: Digest,
    views: Digest,
}

/// Where a log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The last record that expired.
    pub seq: Sequence,
    /// Its digest.
    pub record: Digest,
    /// The digest of the block that ends with it.
    pub block: Digest,
    /// The incarnation of the log then.
    pub epoch: Epoch,
    /// When it was decided.
    pub time: Timestamp,
    /// The root of the Merkle tree over everything that expired.
    pub root: Digest,
    /// SHA-256 of the whole base.
    pub digest: Digest,
}

/// A base with what it holds.
#[derive(Clone, Debug)]
pub struct Base {
    /// Where the log begins.
    pub begin: Begin,
    /// All projections at that sequence.
    pub views: Projections,
}

/// The end of what is to expire, as far as it does not follow from the views.
#[derive(Clone, Copy, Debug)]
pub struct BlockEnd {
    /// The digest of the last block.
    pub digest: Digest,
    /// Its epoch.
    pub epoch: Epoch,
    /// The root of the tree at its end.
    pub root: Digest,
}

/// The bases of a data directory. Every call blocks.
#[derive(Clone, Debug)]
pub struct Bases {
    dir: PathBuf,
}

impl Bases {
    /// Those of a data directory; there may be none.
    pub fn of(data: &Path) -> Self {
        Self { dir: data.join(DIRECTORY) }
    }

    /// The file of a base.
    pub fn path(&self, seq: Sequence) -> PathBuf {
        self.dir.join(format!("{:020}{SUFFIX}", seq.0))
    }

    /// Writes one durably, over what an earlier attempt left, and reads it again.
    pub fn write(
        &self,
        log: LogId,
        views: &Projections,
        end: BlockEnd,
    ) -> Result<Begin, BaseError> {
        let seq = views.position();
        let record = views.tip.digest.ok_or(BaseError::Missing(seq))?;
        let body = serde_json::to_vec(views).map_err(io::Error::other)?;
        let line = Line {
            format: FORMAT,
            log_id: log,
            seq,
            record,
            block: end.digest,
            epoch: end.epoch,
            time: views.tip.time,
            root: end.root,
            views: sha256(&[&body]),
        };
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => File::open(self.dir.parent().unwrap_or(Path::new("/")))?.sync_all()?,
        }
        let aside = self.dir.join(format!("{:020}{UNFINISHED}", seq.0));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(&serde_json::to_vec(&line).map_err(io::Error::other)?)?;
        file.write_all(b"\n")?;
        file.write_all(&body)?;
        file.sync_all()?;
        fs::rename(&aside, self.path(seq))?;
        File::open(&self.dir)?.sync_all()?;
        // What was written is what is read, or nothing expires upon it.
        let read = self.read(seq, log)?;
        if read.views.digest() != views.digest() {
            let why = "it leads to other views than it was made of".into();
            return Err(BaseError::Damaged { seq, why });
        }
        Ok(read.begin)
    }

    /// The sequences of all bases, oldest first.
    pub fn positions(&self) -> io::Result<Vec<Sequence>> {
        let mut positions = Vec::new();
        match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entries => {
                for entry in entries? {
                    let name = entry?.file_name();
                    let seq =
                        name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok());
                    positions.extend(seq.map(Sequence));
                }
            }
        }
        positions.sort_unstable();
        Ok(positions)
    }

    /// Where a log begins with a base; the views in it are compared with their digest, and not
    /// looked into.
    pub fn begin(&self, seq: Sequence, log: LogId) -> Result<Begin, BaseError> {
        let bytes = self.bytes(seq)?;
        split(&bytes, log, Some(seq)).map(|(begin, _)| begin)
    }

    /// One with its views.
    pub fn read(&self, seq: Sequence, log: LogId) -> Result<Base, BaseError> {
        understand(&self.bytes(seq)?, log, Some(seq))
    }

    /// One as it is stored.
    pub fn bytes(&self, seq: Sequence) -> Result<Vec<u8>, BaseError> {
        match fs::read(self.path(seq)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BaseError::Missing(seq)),
            other => Ok(other?),
        }
    }

    /// Removes those before the one that counts; with `strays`, those behind it too, and what was not
    /// finished. One that is being recorded is among these.
    pub fn keep_only(&self, counts: Sequence, strays: bool) -> io::Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let mut removed = false;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let seq = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok());
            let seq = seq.map(Sequence);
            if seq.is_some_and(|seq| seq < counts) || (strays && seq != Some(counts)) {
                fs::remove_file(entry.path())?;
                removed = true;
            }
        }
        if removed { File::open(&self.dir)?.sync_all() } else { Ok(()) }
    }
}

/// Understands a base as it is stored.
pub fn understand(bytes: &[u8], log: LogId, seq: Option<Sequence>) -> Result<Base, BaseError> {
    let (begin, body) = split(bytes, log, seq)?;
    let damaged = |why: String| BaseError::Damaged { seq: begin.seq, why };
    let views: Projections =
        serde_json::from_slice(body).map_err(|error| damaged(error.to_string()))?;
    let fits = views.position() == begin.seq
        && views.tip.digest == Some(begin.record)
        && views.tip.time == begin.time;
    if !fits {
        return Err(damaged("its views stand elsewhere".into()));
    }
    Ok(Base { begin, views })
}

fn split(
    bytes: &[u8],
    log: LogId,
    expected: Option<Sequence>,
) -> Result<(Begin, &[u8]), BaseError> {
    let damaged = |why: &str| BaseError::Damaged {
        seq: expected.unwrap_or(Sequence::ZERO),
        why: why.to_owned(),
    };
    let at = bytes.iter().position(|byte| *byte == b'\n').ok_or(damaged("it is cut short"))?;
    let (line, body) = (&bytes[..at], &bytes[at + 1..]);
    let line: Line = serde_json::from_slice(line).map_err(|error| damaged(&error.to_string()))?;
    if line.format != FORMAT {
        return Err(damaged(&format!("it has format {}, not {FORMAT}", line.format)));
    }
    if line.log_id != log {
        return Err(damaged("it is of another log"));
    }
    if line.views != sha256(&[body]) {
        return Err(damaged("it does not match its digest"));
    }
    if line.seq == Sequence::ZERO || expected.is_some_and(|expected| expected != line.seq) {
        return Err(damaged("it stands elsewhere"));
    }
    let Line { seq, record, block, epoch, time, root, .. } = line;
    let begin = Begin { seq, record, block, epoch, time, root, digest: sha256(&[bytes]) };
    Ok((begin, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Head, test_blocks};
    use acta_events::block::Block;

    fn end() -> BlockEnd {
        BlockEnd { digest: Digest([1; 32]), epoch: Epoch(2), root: Digest([3; 32]) }
    }

    fn views() -> Projections {
        let mut views = Projections::default();
        let log = test_blocks::log();
        for block in test_blocks::blocks_after(Head::empty(log), 3, 100) {
            let block = Block::decode(block.bytes).unwrap();
            block.records.iter().for_each(|record| views.apply(record).unwrap());
        }
        views
    }

    #[test]
    fn a_base_is_read_as_it_was_written_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (bases, log, views) = (Bases::of(dir.path()), test_blocks::log(), views());
        assert!(bases.positions().unwrap().is_empty());
        let begin = bases.write(log, &views, end()).unwrap();
        let seq = views.position();
        assert_eq!((begin.seq, begin.block, begin.root), (seq, end().digest, end().root));
        assert_eq!(begin.digest, sha256(&[&bases.bytes(seq).unwrap()]));
        assert_eq!(bases.positions().unwrap(), [seq]);
        assert_eq!(bases.begin(seq, log).unwrap(), begin);
        let read = bases.read(seq, log).unwrap();
        assert_eq!((read.begin, read.views.digest()), (begin, views.digest()));
        // Written again, it is the same to the letter.
        assert_eq!(bases.write(log, &views, end()).unwrap(), begin);
        let other = LogId(uuid::Uuid::from_u128(99));
        assert!(matches!(bases.begin(seq, other), Err(BaseError::Damaged { .. })));
        let whole = bases.bytes(seq).unwrap();
        for at in [0, 20, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(bases.path(seq), &bytes).unwrap();
            let read = bases.begin(seq, log);
            assert!(read.is_err() || read.unwrap().digest != begin.digest, "byte {at}");
        }
        fs::write(bases.path(Sequence(seq.0 + 9)), &whole).unwrap();
        assert!(bases.begin(Sequence(seq.0 + 9), log).is_err(), "it stands elsewhere");
        bases.keep_only(seq, false).unwrap();
        assert_eq!(bases.positions().unwrap(), [seq, Sequence(seq.0 + 9)], "it may be recorded");
        bases.keep_only(seq, true).unwrap();
        assert_eq!(bases.positions().unwrap(), [seq]);
        bases.keep_only(Sequence::ZERO, true).unwrap();
        assert!(matches!(bases.begin(seq, log), Err(BaseError::Missing(_))));
    }
}
