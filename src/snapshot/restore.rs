//! Puts a snapshot back: everything up to the point where a log can be opened on it and a new
//! epoch begun.
//!
//! ```text
//! 1  .NAME.unfinished beside the target: parts are copied into it, each against its SHA-256
//! 2  all of it is verified as `acta verify` does, and its index made beside
//! 3  what is behind the moment goes; what signed so far becomes an ancestor
//! 4  the log is opened, the blocks of the tail appended, the epoch begun, a key and a token made
//! 5  everything is synced, and the directory renamed to the target
//! ```
//!
//! Killed before the last step, there is nothing at the target; the next attempt begins anew.

use super::{
    CHECKPOINTS, CONTENT, Checked, INDEX, Manifest, Snapshot, SnapshotError, TAIL, VERIFIER, at,
    claim::claim,
    indexing::Indexing,
    parent,
    receive::{Target, discard},
    sync_directories, unfinished,
    verify::{tail_files, verify},
};
use crate::{
    audit::{self, Tree, TreeError, VerifierKey, read_frame},
    base::{Base, BaseError, Bases, Begin},
    checkpoint::Checkpoints,
    data_dir::DataDir,
    journal::{self, EncodedBlock, Head, begin_behind_segments},
};
use acta_events::{
    ContentBody, Digest, Epoch, Record, Sequence, Timestamp,
    block::{Block, BlockBuilder},
};
use bytes::Bytes;
use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File},
    io::{self, BufReader},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Up to which moment a snapshot is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of it.
    Whole,
    /// Up to this record.
    Sequence(Sequence),
    /// Up to the last record of this time, or before it.
    Time(Timestamp),
}

impl Cut {
    fn keeps(self, record: &Record) -> bool {
        match self {
            Self::Whole => true,
            Self::Sequence(last) => record.seq() <= last,
            Self::Time(last) => record.header.time <= last,
        }
    }

    fn told(self) -> String {
        match self {
            Self::Whole => "the end".into(),
            Self::Sequence(seq) => seq.to_string(),
            Self::Time(time) => time.to_string(),
        }
    }
}

/// A data directory that is nearly complete, beside the place where it is to be. Dropping it
/// removes it.
#[derive(Debug)]
pub struct Staged {
    target: PathBuf,
    stage: Stage,
    /// The snapshot, as it was verified.
    pub checked: Checked,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The last record that is kept.
    pub last: Sequence,
    /// The epoch that begins.
    pub epoch: Epoch,
    /// What follows the segments, to be appended.
    pub tail: Vec<(Arc<Block>, EncodedBlock)>,
}

/// Copies and verifies a snapshot, and prepares a data directory. `each` hears what is being done
/// and how far it is. Blocking.
pub fn stage(
    snapshot: &Snapshot,
    target: &Path,
    cut: Cut,
    key: Option<&VerifierKey>,
    mut each: impl FnMut(&'static str, u64),
) -> Result<Result<Staged, Checked>, SnapshotError> {
    let manifest = snapshot.manifest();
    if let Cut::Sequence(seq) = cut
        && (seq == Sequence::ZERO || seq < manifest.expired() || seq > manifest.sequence)
    {
        return Err(no_moment(manifest, cut));
    }
    let stage = unfinished(target)?;
    refuse_existing(target)?;
    let claim = claim(&stage, target, Target::Directory)?;
    let guard = Stage { path: stage.clone(), is_done: false, _claim: claim };
    refuse_existing(target)?;
    let data = DataDir::create(&stage, manifest.log_id, manifest.created)?;
    snapshot.unpack(&stage, |done| each("copying", done))?;
    let (expired, base) = begin_of(&stage, manifest, cut)?;
    let begins = base.as_ref().map(|base| base.begin);
    let mut kept = Kept { last: expired, ..Kept::default() };
    let ends = journal::segments(&stage, manifest.log_id)?.iter().map(|it| it.last).collect();
    let mut indexing = Indexing::begin(stage.join(INDEX), base, ends)?;
    let checked = verify(&stage, manifest, key, &mut |block| {
        each("verifying", block.last().0);
        match kept.take_in(block, cut) {
            true => indexing.push(&block.records),
            false => indexing.end(),
        }
    });
    indexing.finish()?;
    let checked = checked?;
    if checked.verdict.worst().is_some() {
        return Ok(Err(checked));
    }
    let last = kept.last;
    if last == Sequence::ZERO {
        return Err(no_moment(manifest, cut));
    }
    let tail = cut_segments(&stage, manifest, last)?;
    Checkpoints::new(stage.join(CHECKPOINTS)).remove_behind(last)?;
    drop_contents(&stage.join(CONTENT), &kept.contents)?;
    make_ancestor(&stage, manifest.epoch)?;
    let end = begin_behind_segments(&data)?;
    cut_tree(&stage, end, begins.as_ref())?;
    Ok(Ok(Staged {
        target: target.into(),
        stage: guard,
        checked,
        manifest: manifest.clone(),
        last,
        epoch: manifest.epoch.next(),
        tail,
    }))
}

fn no_moment(manifest: &Manifest, cut: Cut) -> SnapshotError {
    let first = manifest.expired().max(Sequence(1));
    SnapshotError::Moment { first, last: manifest.sequence, asked: cut.told() }
}

/// The last record that has expired, with the base, if the moment is not before that.
fn begin_of(
    stage: &Path,
    manifest: &Manifest,
    cut: Cut,
) -> Result<(Sequence, Option<Base>), SnapshotError> {
    let expired = manifest.expired();
    if expired == Sequence::ZERO {
        return Ok((expired, None));
    }
    let base = match Bases::of(stage).read(expired, manifest.log_id) {
        // What is wrong with it is told when it is verified.
        Err(BaseError::Missing(_) | BaseError::Damaged { .. }) => return Ok((expired, None)),
        base => base?,
    };
    match cut {
        Cut::Time(time) if time < base.begin.time => Err(no_moment(manifest, cut)),
        _ => Ok((expired, Some(base))),
    }
}

impl Staged {
    /// Where it is for the time being. Its lock is free.
    pub fn path(&self) -> &Path {
        &self.stage.path
    }

    /// Puts it where it belongs. Nobody has it open.
    pub fn finish(mut self) -> Result<(), SnapshotError> {
        at(&self.stage.path, sync_directories(&self.stage.path))?;
        refuse_existing(&self.target)?;
        at(&self.target, fs::rename(&self.stage.path, &self.target))?;
        self.stage.is_done = true;
        let dir = parent(&self.target);
        at(dir, File::open(dir).and_then(|dir| dir.sync_all()))
    }
}

/// A directory beside the target, which is removed if it comes to nothing.
#[derive(Debug)]
struct Stage {
    path: PathBuf,
    is_done: bool,
    /// Nobody else has the place.
    _claim: File,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.is_done {
            // The next attempt says so if it is in the way.
            let _ = discard(&self.path);
        }
    }
}

/// An empty directory is as good as none.
fn refuse_existing(target: &Path) -> Result<(), SnapshotError> {
    match fs::read_dir(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(SnapshotError::Exists(target.into())),
        },
        Err(_) => Err(SnapshotError::Exists(target.into())),
    }
}

/// What is found out as the blocks pass.
#[derive(Default)]
struct Kept {
    last: Sequence,
    contents: HashSet<Digest>,
}

impl Kept {
    /// Whether all of the block is kept.
    fn take_in(&mut self, block: &Block, cut: Cut) -> bool {
        let mut count = 0;
        for record in block.records.iter().filter(|record| cut.keeps(record)) {
            count += 1;
            self.last = record.seq();
            if let Some(content) = &record.content
                && content.body == ContentBody::File
            {
                self.contents.insert(content.digest);
            }
        }
        count == block.records.len()
    }
}

type Blocks = Vec<(Arc<Block>, EncodedBlock)>;

/// Removes segments that go beyond the last record, and returns the blocks behind the others. The
/// block that holds the last record ends with it.
fn cut_segments(
    stage: &Path,
    manifest: &Manifest,
    last: Sequence,
) -> Result<Blocks, SnapshotError> {
    let mut blocks = Vec::new();
    for segment in journal::segments(stage, manifest.log_id)? {
        if segment.last <= last {
            continue;
        }
        if segment.first <= last {
            segment.each_block(|bytes| add(&mut blocks, bytes, last))?;
        }
        at(segment.path(), fs::remove_file(segment.path()))?;
    }
    for path in tail_files(stage)? {
        let mut input = BufReader::new(at(&path, File::open(&path))?);
        while let Some(bytes) =
            read_frame(&mut input).map_err(|error| SnapshotError::Damaged(error.to_string()))?
        {
            add(&mut blocks, bytes, last)?;
        }
    }
    discard(&stage.join(TAIL))?;
    Ok(blocks)
}

fn add(blocks: &mut Blocks, bytes: Bytes, last: Sequence) -> Result<(), SnapshotError> {
    let block =
        Block::decode(bytes.clone()).map_err(|error| SnapshotError::Damaged(error.to_string()))?;
    blocks.extend(kept_through(block, bytes, last));
    Ok(())
}

/// What a block has up to a record: all of it, its beginning, or nothing.
pub(crate) fn kept_through(
    block: Block,
    bytes: Bytes,
    last: Sequence,
) -> Option<(Arc<Block>, EncodedBlock)> {
    let (block, bytes) = if block.last() <= last {
        (block, bytes)
    } else {
        let mut builder = BlockBuilder::new(block.epoch, block.previous);
        let kept = block.records.iter().take_while(|record| record.seq() <= last);
        kept.for_each(|record| builder.push(Arc::clone(record)));
        builder.finish()?
    };
    let encoded = EncodedBlock::new(&block, bytes);
    Some((Arc::new(block), encoded))
}

/// A tree that has read further goes back to where the segments end: what follows is appended, and read then.
/// One that cannot is made anew, unless something has expired, of which it is the only place.
fn cut_tree(stage: &Path, end: Head, begin: Option<&Begin>) -> Result<(), SnapshotError> {
    let dir = stage.join(audit::TREE);
    let cut = Tree::open_behind(&dir, begin).and_then(|tree| tree.end_with(end.seq, end.block));
    match cut {
        Err(TreeError::Io(error)) => Err(error.into()),
        Err(_) if begin.is_none() => discard(&dir),
        other => Ok(other?),
    }
}

fn drop_contents(dir: &Path, kept: &HashSet<Digest>) -> Result<(), SnapshotError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => at(dir, other)?,
    };
    for entry in entries {
        let sub = at(dir, entry)?.path();
        for file in at(&sub, fs::read_dir(&sub))? {
            let file = at(&sub, file)?;
            let digest = file.file_name().to_str().and_then(|name| Digest::parse(name).ok());
            if digest.is_none_or(|digest| !kept.contains(&digest)) {
                at(&file.path(), fs::remove_file(file.path()))?;
            }
        }
    }
    Ok(())
}

/// What signed so far stays beside the log.
fn make_ancestor(stage: &Path, epoch: Epoch) -> Result<(), SnapshotError> {
    let dir = stage.join(audit::ANCESTORS).join(format!("epoch-{epoch}"));
    at(&dir, DirBuilder::new().recursive(true).mode(0o700).create(&dir))?;
    for name in [audit::CHECKPOINT, VERIFIER] {
        let from = stage.join(name);
        at(&from, fs::rename(&from, dir.join(name)))?;
    }
    Ok(())
}
