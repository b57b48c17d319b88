//! A log in one file, complete in itself: what was signed, then every block as it is stored.
//!
//! ```text
//! acta-archive 1
//! <log id>
//! <length of the checkpoint in bytes>
//! <the signed checkpoint>
//! frame × n     length u32, big-endian · block
//! end           length 0
//! ```
//!
//! Tiles are not in it: they follow from the blocks, and the checkpoint says what they have to be.
//! Contents in files of their own are not in it either; records know them by their digests.

use acta_events::{
    LogId,
    block::{BLOCK_BYTES_MAX, Block, BlockBuilder},
};
use bytes::Bytes;
use std::io::{self, BufRead, Read, Write};

const MAGIC: &str = "acta-archive 1";
/// A checkpoint with many signatures is not larger.
const CHECKPOINT_BYTES_MAX: usize = 1 << 20;

/// An archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It does not begin as one.
    #[error("it is not an archive: it does not begin with `{MAGIC}`, a log id and a checkpoint")]
    NotOne,
    /// It ends before it is complete, or goes on after its end.
    #[error("it is cut short, or has bytes left over")]
    Length,
    /// The file system said no.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Length } else { Self::Io(error) }
    }
}

/// What stands in front of the blocks.
#[derive(Clone, Debug)]
pub struct ArchiveHead {
    /// The log.
    pub log: LogId,
    /// What was signed, not believed yet.
    pub checkpoint: String,
}

impl ArchiveHead {
    /// Writes it.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { log, checkpoint } = self;
        write!(out, "{MAGIC}\n{log}\n{}\n{checkpoint}", checkpoint.len())
    }

    /// Reads it.
    pub fn read(input: &mut impl BufRead) -> Result<Self, ArchiveError> {
        let mut line = |max: u64| {
            let mut line = Vec::new();
            input.by_ref().take(max).read_until(b'\n', &mut line)?;
            let line = line.strip_suffix(b"\n").ok_or(ArchiveError::NotOne)?;
            String::from_utf8(line.to_vec()).map_err(|_| ArchiveError::NotOne)
        };
        if line(64)? != MAGIC {
            return Err(ArchiveError::NotOne);
        }
        let log = line(64)?.parse().map(LogId).map_err(|_| ArchiveError::NotOne)?;
        let length = line(16)?;
        let bytes = length.parse::<usize>().ok().filter(|n| n.to_string() == length);
        let bytes = bytes.filter(|n| *n <= CHECKPOINT_BYTES_MAX).ok_or(ArchiveError::NotOne)?;
        let mut checkpoint = vec![0; bytes];
        input.read_exact(&mut checkpoint)?;
        let checkpoint = String::from_utf8(checkpoint).map_err(|_| ArchiveError::NotOne)?;
        Ok(Self { log, checkpoint })
    }
}

/// A block as it is stored, with its length in front.
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

/// What stands behind the blocks.
pub const END: [u8; 4] = [0; 4];

/// The next block, not believed yet; none at the end, behind which nothing may be.
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
