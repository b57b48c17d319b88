//! A log in one file, complete in itself: every block as it is stored, every content that lies in
//! a file of its own, and what was signed.
//!
//! ```text
//! acta-archive 2
//! <log id>
//! frame × n     kind u8 · length u64, big-endian · bytes
//!     kind 1    block
//!     kind 2    content: salt [16] · bytes       right behind its block, in the order of records
//!     kind 3    the signed checkpoint            the last frame
//!     kind 4    nothing: in the place of a content that was erased while this was written
//! ```
//!
//! Blocks go on to behind the last order to erase a content that they are shown without, so that
//! whatever is erased in it is so by an order that is in it too. Whoever writes one begins again
//! if it comes to hold a content together with the order to erase it.
//!
//! Version 1 began with the checkpoint, had blocks with a length of u32 in front and 0 behind the
//! last, and no contents. It is still read; blocks come in this form from `GET /v1/blocks` too.
//!
//! Tiles are not in it: they follow from the blocks, and the checkpoint says what they have to be.

mod read;

pub use read::{ArchiveSink, look_at, read};

use acta_events::{
    LogId,
    block::{BLOCK_BYTES_MAX, Block, BlockBuilder},
    record::SALT_BYTES,
};
use bytes::Bytes;
use std::io::{self, BufRead, Read, Write};

const MAGIC: &str = "acta-archive";
const VERSION: u32 = 2;
/// A checkpoint with many signatures is not larger.
const CHECKPOINT_BYTES_MAX: usize = 1 << 20;

const BLOCK: u8 = 1;
const CONTENT: u8 = 2;
const CHECKPOINT: u8 = 3;
const ERASED: u8 = 4;

/// An archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It does not begin as one.
    #[error("it is not an archive: it does not begin with `{MAGIC} {VERSION}` and a log id")]
    NotOne,
    /// A newer version wrote it.
    #[error("it is an archive of version {0}; this version of Acta reads up to {VERSION}")]
    Newer(u32),
    /// It ends before it is complete, or goes on after its end.
    #[error("it is cut short, or has bytes left over")]
    Length,
    /// Something is where nothing like it belongs.
    #[error("there is something that is no part of an archive")]
    Frame,
    /// The file system said no.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Length } else { Self::Io(error) }
    }
}

/// Writes an archive.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
}

impl<W: Write> ArchiveWriter<W> {
    /// Begins one.
    pub fn new(mut out: W, log: LogId) -> io::Result<Self> {
        write!(out, "{MAGIC} {VERSION}\n{log}\n")?;
        Ok(Self { out })
    }

    fn frame(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(&[kind])?;
        self.out.write_all(&(bytes.len() as u64).to_be_bytes())?;
        self.out.write_all(bytes)
    }

    /// The next block. Its contents that are in files of their own have to follow.
    pub fn block(&mut self, stored: &[u8]) -> io::Result<()> {
        self.frame(BLOCK, stored)
    }

    /// A content as it is stored, its salt in front; none if it was erased since its block was
    /// written.
    pub fn content(&mut self, stored: Option<&[u8]>) -> io::Result<()> {
        match stored {
            Some(stored) => self.frame(CONTENT, stored),
            None => self.frame(ERASED, &[]),
        }
    }

    /// Ends it with what was signed.
    pub fn finish(mut self, checkpoint: &str) -> io::Result<W> {
        self.frame(CHECKPOINT, checkpoint.as_bytes())?;
        Ok(self.out)
    }
}

/// What comes next in an archive, not believed yet.
#[derive(Debug)]
enum Frame {
    Block(Bytes),
    /// This many bytes, which are to be read or skipped before the next frame.
    Content(u64),
    Erased,
    Checkpoint(String),
}

/// Reads an archive of any version, frame by frame.
#[derive(Debug)]
pub struct ArchiveReader<R> {
    input: R,
    log: LogId,
    /// Of version 1, which has it in front.
    checkpoint: Option<String>,
    version: u32,
    /// Looked at, and not taken yet.
    peeked: Option<Frame>,
    /// Where frames begin is not known any more.
    is_lost: bool,
    position: u64,
}

impl<R: BufRead> ArchiveReader<R> {
    /// Reads what stands in front of the blocks.
    pub fn open(mut input: R) -> Result<Self, ArchiveError> {
        let mut line = |max: u64| {
            let mut line = Vec::new();
            input.by_ref().take(max).read_until(b'\n', &mut line)?;
            let line = line.strip_suffix(b"\n").ok_or(ArchiveError::NotOne)?;
            String::from_utf8(line.to_vec()).map_err(|_| ArchiveError::NotOne)
        };
        let first = line(64)?;
        let version = first.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' '));
        let version = version.and_then(number::<u32>).ok_or(ArchiveError::NotOne)?;
        if version > VERSION {
            return Err(ArchiveError::Newer(version));
        }
        let log = line(64)?;
        let id = log.parse().map(LogId).ok().filter(|id| id.to_string() == log);
        let log = id.ok_or(ArchiveError::NotOne)?;
        let checkpoint = match version {
            1 => {
                let bytes = number::<usize>(&line(16)?);
                let bytes = bytes.filter(|n| *n <= CHECKPOINT_BYTES_MAX);
                let mut checkpoint = vec![0; bytes.ok_or(ArchiveError::NotOne)?];
                input.read_exact(&mut checkpoint)?;
                Some(String::from_utf8(checkpoint).map_err(|_| ArchiveError::NotOne)?)
            }
            0 => return Err(ArchiveError::NotOne),
            _ => None,
        };
        Ok(Self { input, log, checkpoint, version, peeked: None, is_lost: false, position: 0 })
    }

    /// The log that it says it is of.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// Whether contents in files of their own are in it.
    pub fn has_contents(&self) -> bool {
        self.version > 1
    }

    /// How many bytes of frames were read.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn next(&mut self) -> Result<Frame, ArchiveError> {
        if let Some(frame) = self.peeked.take() {
            return Ok(frame);
        }
        if self.is_lost {
            return Err(ArchiveError::Length);
        }
        let next = if self.version == 1 { self.next_of_version_1() } else { self.read_next() };
        self.is_lost = next.is_err();
        next
    }

    /// Reads a content, of which nothing may be left.
    fn content<T>(&mut self, length: u64, read: impl FnOnce(&mut dyn Read) -> T) -> T {
        let mut stored = self.input.by_ref().take(length);
        let read = read(&mut stored);
        self.is_lost = stored.limit() > 0;
        read
    }

    fn skip(&mut self, length: u64) -> Result<(), ArchiveError> {
        let skipped = self.content(length, |stored| io::copy(stored, &mut io::sink()));
        skipped.map(drop).map_err(ArchiveError::Io)
    }

    fn read_next(&mut self) -> Result<Frame, ArchiveError> {
        let (mut kind, mut length) = ([0; 1], [0; 8]);
        self.input.read_exact(&mut kind)?;
        self.input.read_exact(&mut length)?;
        let length = u64::from_be_bytes(length);
        self.position = self.position.saturating_add(9).saturating_add(length);
        match kind[0] {
            BLOCK if length <= BLOCK_BYTES_MAX as u64 => Ok(Frame::Block(self.exactly(length)?)),
            CONTENT if length >= SALT_BYTES as u64 => Ok(Frame::Content(length)),
            ERASED if length == 0 => Ok(Frame::Erased),
            CHECKPOINT if length <= CHECKPOINT_BYTES_MAX as u64 => {
                let text = self.exactly(length)?;
                if self.input.read(&mut [0])? != 0 {
                    return Err(ArchiveError::Length);
                }
                let text = String::from_utf8(text.to_vec()).map_err(|_| ArchiveError::Frame)?;
                Ok(Frame::Checkpoint(text))
            }
            BLOCK | CONTENT | ERASED | CHECKPOINT => Err(ArchiveError::Length),
            _ => Err(ArchiveError::Frame),
        }
    }

    fn next_of_version_1(&mut self) -> Result<Frame, ArchiveError> {
        match read_frame(&mut self.input)? {
            Some(block) => {
                self.position = self.position.saturating_add(4 + block.len() as u64);
                Ok(Frame::Block(block))
            }
            None => Ok(Frame::Checkpoint(self.checkpoint.take().ok_or(ArchiveError::Length)?)),
        }
    }

    fn exactly(&mut self, length: u64) -> Result<Bytes, ArchiveError> {
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| ArchiveError::Length)?];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

fn number<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|number| number.to_string() == text)
}

/// A block as it is stored, with its length in front: what `GET /v1/blocks` gives.
pub fn frame(block: &Block, out: &mut Vec<u8>) {
    let mut builder = BlockBuilder::new(block.epoch, block.previous);
    for record in &block.records {
        builder.push(record.clone());
    }
    if let Some((_, bytes)) = builder.finish() {
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(&bytes);
    }
}

/// The next block with its length in front, not believed yet; none where the length is 0, behind
/// which nothing may be.
pub fn read_frame(input: &mut impl Read) -> Result<Option<Bytes>, ArchiveError> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 {
        let rest = input.read(&mut [0])?;
        return if rest == 0 { Ok(None) } else { Err(ArchiveError::Length) };
    }
    if length > BLOCK_BYTES_MAX {
        return Err(ArchiveError::Length);
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(Some(bytes.into()))
}
