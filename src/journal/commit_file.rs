//! The commit files: where an append becomes durable.
//!
//! One append is one frame, written by one `pwrite` and made durable by one `fdatasync`. The
//! store behind (see `keeper.rs`) takes the blocks over later and is synced once per
//! file, after which the file is written again from its beginning.
//!
//! ```text
//! <data>/commit-<n>    frames, each at a multiple of 4096
//!
//! frame   magic "ACTC" · format u16 · blocks u16 · bytes u32 · CRC-32 u32 · n u64
//!         · blocks × (length u32 · block) · zeros up to a multiple of 4096
//! ```
//!
//! Big-endian. `bytes` counts what follows the 24 bytes of the frame's head, without the zeros;
//! the CRC covers all of the frame but itself and the zeros. `n` is random and stands in the name of
//! the file too: what an author of content made to look like a frame, and comes to lie where one
//! could begin, does not know it.
//!
//! **Invariants.** A page that was synced is not written again before its blocks are durable in
//! the store, so a torn write can damage only a frame that nobody was told of. A file is
//! filled with zeros, a piece at a time, before frames go there: afterwards a sync has no
//! metadata to write, and a full disk is noticed *before* a frame is written, so that it is a
//! refusal and never an unknown outcome. Frames ascend within a file up to its newest; what lies
//! behind that is older and known to the store.

use super::{EncodedBlock, sled_store::Disk};
use acta_events::{Sequence, block::Block};
use bytes::Bytes;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file is not begun anew before it has this size, nor written much beyond it.
pub(super) const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// How many files may wait for the store before an append has to.
const CLOSED_MAX: usize = 3;
/// Files are filled with zeros in pieces of this size.
const PIECE_BYTES: u64 = 1024 * 1024;
const ALIGNMENT: usize = 4096;
const MAGIC: &[u8; 4] = b"ACTC";
const FORMAT: u16 = 1;
const HEAD_BYTES: usize = 24;
const CRC_AT: std::ops::Range<usize> = 12..16;

/// A frame was not made durable.
#[derive(Debug)]
pub(super) enum CommitError {
    /// Nothing of it was written.
    Refused(io::Error),
    /// It may be there or not, durable or not.
    Unknown(io::Error),
}

#[derive(Debug)]
struct Open {
    file: File,
    number: u64,
    /// Where the next frame goes.
    used: u64,
    /// Up to where there are zeros or frames.
    filled: u64,
    /// The last sequence in it.
    last: Sequence,
}

/// The files of an open log: one that is written, others that wait for the store or for their
/// next turn.
pub(super) struct CommitFiles {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    current: Option<Open>,
    closed: Vec<Open>,
    free: Vec<Open>,
    frame: Vec<u8>,
}

impl CommitFiles {
    /// Makes no file before the first frame.
    pub(super) fn new(dir: &Path, disk: Arc<dyn Disk>) -> Self {
        Self {
            dir: dir.into(),
            disk,
            current: None,
            closed: Vec::new(),
            free: Vec::new(),
            frame: Vec::new(),
        }
    }

    /// Whether the next frame has to wait until the store has caught up.
    pub(super) fn must_wait(&self) -> bool {
        self.closed.len() >= CLOSED_MAX
            && self.free.is_empty()
            && self.current.as_ref().is_none_or(|open| open.used >= FILE_BYTES)
    }

    /// Takes back the files whose blocks are durable in the store.
    pub(super) fn reclaim(&mut self, synced: Sequence) {
        let (free, closed): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.closed).into_iter().partition(|open| open.last <= synced);
        self.free.extend(free);
        self.closed = closed;
    }

    /// The last sequence in the files that wait for the store.
    pub(super) fn waiting(&self) -> Option<Sequence> {
        self.closed.iter().map(|open| open.last).max()
    }

    /// Makes blocks durable as one frame.
    pub(super) fn write(&mut self, blocks: &[EncodedBlock]) -> Result<(), CommitError> {
        if self.current.as_ref().is_some_and(|open| open.used >= FILE_BYTES) {
            self.closed.extend(self.current.take());
        }
        if self.current.is_none() {
            self.current = Some(self.fresh().map_err(CommitError::Refused)?);
        }
        let open = self.current.as_mut().expect("it was just made");
        encode(blocks, open.number, &mut self.frame);
        let end = open.used + self.frame.len() as u64;
        self.disk.before_commit().map_err(CommitError::Refused)?;
        open.fill(end).map_err(CommitError::Refused)?;
        open.file.write_all_at(&self.frame, open.used).map_err(CommitError::Unknown)?;
        self.disk.sync_commit(&open.file).map_err(CommitError::Unknown)?;
        open.used = end;
        open.last = blocks.last().map_or(open.last, |block| block.last);
        Ok(())
    }

    /// Makes room for a frame of the usual size ahead of time.
    pub(super) fn probe(&mut self) -> io::Result<()> {
        self.disk.before_commit()?;
        match &mut self.current {
            Some(open) => open.fill(open.used + PIECE_BYTES),
            None => {
                let open = self.fresh()?;
                self.current.insert(open).fill(PIECE_BYTES)
            }
        }
    }

    /// A file to be written from its beginning.
    fn fresh(&mut self) -> io::Result<Open> {
        if let Some(mut open) = self.free.pop() {
            open.used = 0;
            return Ok(open);
        }
        let number = rand::random();
        let path = self.dir.join(format!("commit-{number}"));
        let file =
            OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&path)?;
        if let Err(error) = File::open(&self.dir).and_then(|dir| dir.sync_all()) {
            // The next attempt makes another.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Open { file, number, used: 0, filled: 0, last: Sequence::ZERO })
    }

    /// Removes all files: whatever counts of them is durable elsewhere.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        self.current = None;
        self.closed.clear();
        self.free.clear();
        remove(&self.dir)
    }
}

impl Open {
    /// Zeros up to `end` and some way further, if there is nothing yet.
    fn fill(&mut self, end: u64) -> io::Result<()> {
        if end <= self.filled {
            return Ok(());
        }
        let to = end.next_multiple_of(PIECE_BYTES);
        let zeros = vec![0; usize::try_from(to - self.filled).unwrap_or(usize::MAX)];
        self.file.write_all_at(&zeros, self.filled)?;
        self.filled = to;
        Ok(())
    }
}

fn encode(blocks: &[EncodedBlock], number: u64, frame: &mut Vec<u8>) {
    frame.clear();
    frame.extend_from_slice(MAGIC);
    frame.extend_from_slice(&FORMAT.to_be_bytes());
    let count = u16::try_from(blocks.len()).expect("a batch has few blocks");
    frame.extend_from_slice(&count.to_be_bytes());
    frame.extend_from_slice(&[0; 8]);
    frame.extend_from_slice(&number.to_be_bytes());
    for block in blocks {
        let len = u32::try_from(block.bytes.len()).expect("a block is small");
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&block.bytes);
    }
    let bytes = u32::try_from(frame.len() - HEAD_BYTES).expect("a batch is small");
    frame[8..12].copy_from_slice(&bytes.to_be_bytes());
    let crc = checksum(frame);
    frame[CRC_AT].copy_from_slice(&crc.to_be_bytes());
    frame.resize(frame.len().next_multiple_of(ALIGNMENT), 0);
}

fn checksum(frame: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..CRC_AT.start]);
    crc.update(&frame[CRC_AT.end..]);
    crc.finalize()
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes: [u8; N] = bytes.get(at..at + N)?.try_into().ok()?;
    Some(bytes.iter().fold(0, |n, byte| (n << 8) | u64::from(*byte)))
}

/// The blocks of the frame at the beginning of `bytes`, and its length; none if there is none
/// that is whole and of this file.
fn decode(bytes: &[u8], of: u64) -> Option<(Vec<EncodedBlock>, usize)> {
    if bytes.get(..4)? != MAGIC
        || number::<2>(bytes, 4)? != u64::from(FORMAT)
        || number::<8>(bytes, 16)? != of
    {
        return None;
    }
    let len = HEAD_BYTES + usize::try_from(number::<4>(bytes, 8)?).ok()?;
    let frame = bytes.get(..len)?;
    if u64::from(checksum(frame)) != number::<4>(frame, CRC_AT.start)? {
        return None;
    }
    let mut blocks = Vec::new();
    let mut at = HEAD_BYTES;
    for _ in 0..number::<2>(frame, 6)? {
        let len = usize::try_from(number::<4>(frame, at)?).ok()?;
        let stored = Bytes::copy_from_slice(frame.get(at + 4..at + 4 + len)?);
        blocks.push(EncodedBlock::new(&Block::decode(stored.clone()).ok()?, stored));
        at += 4 + len;
    }
    (at == len).then_some((blocks, len.next_multiple_of(ALIGNMENT)))
}

/// All blocks of all whole frames, in no order. A frame that is not whole is passed over: was
/// it ever acknowledged, its sequences are missing from what is found.
pub(super) fn load(dir: &Path) -> io::Result<Vec<EncodedBlock>> {
    let mut found = Vec::new();
    for (number, path) in numbered(dir)? {
        let bytes = fs::read(path)?;
        let mut at = 0;
        while at < bytes.len() {
            match decode(&bytes[at..], number) {
                Some((blocks, len)) => {
                    found.extend(blocks);
                    at += len;
                }
                None => at += ALIGNMENT,
            }
        }
    }
    Ok(found)
}

/// Removes all commit files of a directory.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let files = numbered(dir)?;
    if files.is_empty() {
        return Ok(());
    }
    for (_, path) in files {
        fs::remove_file(path)?;
    }
    File::open(dir)?.sync_all()
}

/// The commit files of a directory, by number.
fn numbered(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("commit-")?.parse().ok());
        files.extend(number.map(|number| (number, entry.path())));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Head, sled_store::RealDisk, test_blocks::*},
        *,
    };

    fn firsts(dir: &Path) -> Vec<u64> {
        let mut firsts: Vec<_> = load(dir).unwrap().iter().map(|block| block.first.0).collect();
        firsts.sort_unstable();
        firsts
    }

    #[test]
    fn a_file_is_written_again_only_when_its_blocks_are_in_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = CommitFiles::new(dir.path(), Arc::new(RealDisk));
        let mut end = Head::empty(log());
        let mut closed = Vec::new();
        while !files.must_wait() {
            let block = block_after(end, 2, 31_000);
            end = end_of(&block);
            let batch = vec![block; 8];
            files.write(&batch).unwrap();
            if files.waiting() != closed.last().copied() {
                closed.extend(files.waiting());
            }
        }
        assert_eq!(closed.len(), CLOSED_MAX);
        assert_eq!(numbered(dir.path()).unwrap().len(), CLOSED_MAX + 1);
        files.reclaim(Sequence(closed[0].0 - 1));
        assert!(files.must_wait());
        files.reclaim(closed[0]);
        assert!(!files.must_wait());
        let before = firsts(dir.path());
        let block = block_after(end, 1, 0);
        files.write(std::slice::from_ref(&block)).unwrap();
        let after = firsts(dir.path());
        assert_eq!(numbered(dir.path()).unwrap().len(), CLOSED_MAX + 1, "no further file");
        assert!(after.contains(&block.first.0) && !after.contains(&1), "the oldest is replaced");
        assert_eq!(before.iter().filter(|first| !after.contains(first)).count(), 8);
        files.discard().unwrap();
        assert!(numbered(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_frame_is_found_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = CommitFiles::new(dir.path(), Arc::new(RealDisk));
        let blocks = blocks_after(Head::empty(log()), 9, 700);
        for batch in blocks.chunks(3) {
            files.write(batch).unwrap();
        }
        let path = numbered(dir.path()).unwrap()[0].1.clone();
        let whole = fs::read(&path).unwrap();
        let all: Vec<u64> = blocks.iter().map(|block| block.first.0).collect();
        assert_eq!(firsts(dir.path()), all);
        let lengths: Vec<usize> = blocks
            .chunks(3)
            .map(|batch| {
                let mut frame = Vec::new();
                encode(batch, 0, &mut frame);
                frame.len()
            })
            .collect();
        let used = lengths.iter().sum::<usize>();
        for at in (0..used).step_by(97) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            let found = firsts(dir.path());
            let hit = usize::from(at >= lengths[0]) + usize::from(at >= lengths[0] + lengths[1]);
            let others: Vec<u64> = all
                .iter()
                .enumerate()
                .filter(|(n, _)| n / 3 != hit)
                .map(|(_, first)| *first)
                .collect();
            assert!(found == others || found == all, "a bit at {at}: {found:?}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(all.starts_with(&firsts(dir.path())), "cut at {at}");
        }
    }

    /// A content that holds a whole frame, at a place where one could begin, after damage of the
    /// frame that it is in.
    #[test]
    fn what_only_looks_like_a_frame_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = CommitFiles::new(dir.path(), Arc::new(RealDisk));
        let block = block_after(Head::empty(log()), 2, 9_000);
        files.write(std::slice::from_ref(&block)).unwrap();
        let (number, path) = numbered(dir.path()).unwrap()[0].clone();
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        for (guess, found) in [(number, 1), (number ^ 1, 0), (0, 0)] {
            let mut forged = Vec::new();
            encode(&[block_after(Head::empty(log()), 1, 0)], guess, &mut forged);
            let mut bytes = bytes.clone();
            bytes[ALIGNMENT..ALIGNMENT + forged.len()].copy_from_slice(&forged);
            fs::write(&path, bytes).unwrap();
            assert_eq!(load(dir.path()).unwrap().len(), found);
        }
    }

    /// The file that was full is known to wait, although the one after it could not be made.
    #[test]
    fn a_full_file_waits_also_if_the_next_append_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = CommitFiles::new(dir.path(), Arc::new(RealDisk));
        let block = block_after(Head::empty(log()), 2, 31_000);
        while files.current.as_ref().is_none_or(|open| open.used < FILE_BYTES) {
            files.write(&vec![block.clone(); 16]).unwrap();
        }
        assert_eq!(files.waiting(), None);
        files.dir = dir.path().join("gone");
        let refused = files.write(std::slice::from_ref(&block));
        assert!(matches!(refused, Err(CommitError::Refused(_))));
        assert_eq!(files.waiting(), Some(block.last));
    }
}
