//! A data directory that is made from the blocks and contents of a log that lies elsewhere.
//!
//! It is made beside the place where it is to be, under another name, and takes its name when it
//! is complete and durable, so that nobody ever finds half of a log. What is written is not
//! verified but for each block to follow the one before it: that is for whoever reads it.

use super::{
    AppendError, CloseError, EncodedBlock, Head, Journal as _, OpenError, Refusal, SledJournal,
};
use crate::{
    content::{ContentError, ContentStore},
    data_dir::{DataDir, DataDirError},
};
use acta_events::{Digest, LogId, Sequence, Timestamp, block::Block};
use bytes::Bytes;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How much is gathered before it is appended, and made durable.
const APPENDED_BYTES: usize = 4 << 20;
/// How long the store may stay behind what was appended.
const PATIENCE: Duration = Duration::from_secs(120);

/// A data directory was not made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum FreshLogError {
    /// Something is there.
    #[error(
        "{path} is there already and is not an empty directory; nothing is written over. Name \
         another place"
    )]
    Occupied {
        /// Where it was to be.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A block was not written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A content was not written.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Its log was not closed.
    #[error(transparent)]
    Close(#[from] CloseError),
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// What was being written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A data directory in the making. Dropped before it is finished, it leaves nothing.
pub struct FreshLog {
    target: PathBuf,
    // In this order: the log is closed before its files go.
    journal: SledJournal,
    data: DataDir,
    staged: TempDir,
    contents: ContentStore,
    waiting: Vec<EncodedBlock>,
    waiting_bytes: usize,
    end: Head,
}

impl FreshLog {
    /// Begins one, which will be at `target`. There has to be nothing yet, or an empty directory.
    pub fn create(target: &Path, log: LogId, created: Timestamp) -> Result<Self, FreshLogError> {
        refuse_occupied(target)?;
        let io = |source| FreshLogError::Io { path: target.into(), source };
        let target = std::path::absolute(target).map_err(io)?;
        let parent = target.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(io)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let staged = tempfile::Builder::new().prefix(&format!(".{name}-")).tempdir_in(parent);
        let staged = staged.map_err(io)?;
        let data = DataDir::create(staged.path(), log, created)?;
        let journal = SledJournal::open(&data)?;
        let contents = ContentStore::new(data.content_path());
        let end = Head::empty(log);
        let (waiting, waiting_bytes) = (Vec::new(), 0);
        Ok(Self { target, journal, data, staged, contents, waiting, waiting_bytes, end })
    }

    /// The end of what was pushed.
    pub fn end(&self) -> Head {
        self.end
    }

    /// A content in a file of its own, its salt in front.
    pub fn content(&self, digest: Digest, stored: &mut dyn Read) -> Result<(), ContentError> {
        self.contents.put_stored(digest, stored)
    }

    /// The next block, as it is stored.
    pub fn push(&mut self, block: &Block, stored: Bytes) -> Result<(), FreshLogError> {
        let block = EncodedBlock::new(block, stored);
        self.waiting_bytes += block.bytes.len();
        self.end = Head { seq: block.last, block: block.digest };
        self.waiting.push(block);
        if self.waiting_bytes >= APPENDED_BYTES { self.append() } else { Ok(()) }
    }

    fn append(&mut self) -> Result<(), FreshLogError> {
        let until = Instant::now() + PATIENCE;
        while !self.waiting.is_empty() {
            match self.journal.append(self.journal.head().seq, &self.waiting) {
                Ok(_) => self.waiting.clear(),
                Err(AppendError::Refused(Refusal::Behind)) if Instant::now() < until => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Ends it with further files, of which none but the owner may read, and gives it its name.
    pub fn finish(mut self, files: &[(&str, &[u8])]) -> Result<Sequence, FreshLogError> {
        self.append()?;
        let head = self.journal.head().seq;
        self.journal.close()?;
        let path = self.staged.path().to_owned();
        let io = |source| FreshLogError::Io { path: self.target.clone(), source };
        for (name, bytes) in files {
            write(&path.join(name), bytes).map_err(io)?;
        }
        File::open(&path).and_then(|dir| dir.sync_all()).map_err(io)?;
        refuse_occupied(&self.target)?;
        // In the place of an empty directory too, and of nothing else.
        fs::rename(&path, &self.target).map_err(io)?;
        let Self { target, journal, data, staged, .. } = self;
        // It is not there under this name any more, and stays under the other.
        drop(staged.keep());
        drop((journal, data));
        let parent = target.parent().unwrap_or(Path::new("/"));
        let synced = File::open(parent).and_then(|dir| dir.sync_all());
        synced.map_err(|source| FreshLogError::Io { path: target, source })?;
        Ok(head)
    }
}

/// Refuses whatever is there, unless it is an empty directory.
fn refuse_occupied(target: &Path) -> Result<(), FreshLogError> {
    let occupied = || FreshLogError::Occupied { path: target.into() };
    match fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(occupied()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => match target.symlink_metadata() {
            Ok(_) => Err(occupied()),
            Err(_) => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(occupied()),
        Err(source) => Err(FreshLogError::Io { path: target.into(), source }),
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{
        super::test_blocks::{ALL, assert_same, blocks_after, log},
        *,
    };
    use acta_events::{Content, MediaType};

    #[test]
    fn it_is_there_as_a_whole_or_not_at_all() {
        let outer = tempfile::tempdir().unwrap();
        let target = outer.path().join("a/data");
        let blocks = blocks_after(Head::empty(log()), 300, 20_000);
        let content = Content::new([3; 16], MediaType::Text, vec![7; 50_000].into());
        let fill = |target: &Path| {
            let mut fresh = FreshLog::create(target, log(), Timestamp(5)).unwrap();
            let stored = [&content.salt[..], &content.bytes].concat();
            fresh.content(content.digest(), &mut &*stored).unwrap();
            for block in &blocks {
                let decoded = Block::decode(block.bytes.clone()).unwrap();
                fresh.push(&decoded, block.bytes.clone()).unwrap();
            }
            fresh
        };
        drop(fill(&target));
        assert_eq!(fs::read_dir(outer.path().join("a")).unwrap().count(), 0, "nothing is left");
        fs::create_dir(&target).unwrap();
        let head = fill(&target).finish(&[("checkpoint", b"x")]).unwrap();
        assert_eq!(head, blocks[299].last);
        assert_eq!(fs::read_dir(outer.path().join("a")).unwrap().count(), 1);
        let data = DataDir::open(&target).unwrap();
        assert_eq!((data.log_id(), data.created()), (log(), Timestamp(5)));
        let journal = SledJournal::open(&data).unwrap();
        assert_same(&journal.read(Sequence::ZERO, ALL).unwrap(), &blocks);
        let contents = ContentStore::new(data.content_path());
        assert_eq!(contents.read(content.digest(), 50_000).unwrap(), content.bytes);
        assert_eq!(fs::read(target.join("checkpoint")).unwrap(), b"x");
    }

    #[test]
    fn nothing_is_written_over() {
        let outer = tempfile::tempdir().unwrap();
        let (file, dir) = (outer.path().join("file"), outer.path().join("dir"));
        fs::write(&file, "x").unwrap();
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("x"), "x").unwrap();
        let link = outer.path().join("link");
        std::os::unix::fs::symlink(outer.path().join("nowhere"), &link).unwrap();
        for target in [&file, &dir, &link] {
            let made = FreshLog::create(target, log(), Timestamp(5));
            assert!(matches!(made, Err(FreshLogError::Occupied { .. })), "{}", target.display());
        }
        // What appears meanwhile stays as well.
        let target = outer.path().join("later");
        let fresh = FreshLog::create(&target, log(), Timestamp(5)).unwrap();
        fs::write(&target, "x").unwrap();
        assert!(matches!(fresh.finish(&[]), Err(FreshLogError::Occupied { .. })));
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 4);
    }
}
