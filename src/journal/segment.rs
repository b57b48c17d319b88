//! A segment: blocks that will not change any more, compressed, in one file.
//!
//! ```text
//! <data>/segments/<first>-<last>.seg      sequences, 20 digits each
//!
//! file    magic "ACTS" · format u16 · 0 u16 · log id [16]
//!         · frames × a frame (`frame`)
//!         · frames × (first sequence u64 · offset u64 · length u32 · length decompressed u32)
//!         · footer
//! footer  frames u32 · blocks u32 · first sequence u64 · last sequence u64
//!         · digest of the block before it [32] · digest of its last block [32]
//!         · bytes of all blocks u64 · SHA-256 of everything before the frame table [32]
//!         · SHA-256 of the frame table and of the footer up to here [32]
//! ```
//!
//! Big-endian. Frames are closed at about [`FRAME_BYTES`], so a record is found by decompressing one
//! of them, and reading any range takes the memory of one. The first is larger: what is in it serves all
//! others as their dictionary. Should it be damaged, none of the others can be read.
//!
//! **Invariants.** Under its final name a segment is complete and durable: it is written under
//! another name, synced, renamed, and its directory synced. It is never written to again; what has to be
//! changed in it (an erasure) makes another file, which takes its name in the same way. The name says
//! which sequences are in it, so that a gap between segments is noticed without opening any. A segment is
//! believed only as far as it was checked: opening checks its footer and frame table, reading a frame
//! checks that frame, and whoever reads blocks checks their digests and their chain
//! ([`super::walk`]); [`Segment::verify`] checks the file as a whole.

use super::{
    EncodedBlock, Head,
    frame::{
        DICTIONARY_BYTES, Dictionaries, FRAME_BYTES, FRAME_BYTES_MAX, Frame, FrameEncoder, Layout,
    },
};
use acta_events::{Digest, LogId, Sequence, sha256};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::OnceLock,
};
use uuid::Uuid;

const MAGIC: &[u8; 4] = b"ACTS";
/// The newest format; the first is still read.
const FORMAT: u16 = 2;
const START_BYTES: u64 = 4 + 2 + 2 + 16;
const ENTRY_BYTES: usize = 8 + 8 + 4 + 4;
const FOOTER_BYTES: usize = 4 + 4 + 8 + 8 + 32 + 32 + 8 + 32 + 32;
/// More frames than a segment ever has; a footer that says so is not believed.
const FRAMES_MAX: usize = 1 << 20;
const FIRST_UNREADABLE: &str =
    "its first frame, which all others need, does not match its checksum";

/// A segment, or a part of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    /// The file system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("{0}")]
    Damaged(&'static str),
    /// A newer version wrote it.
    #[error("its format {0} is newer than this version of Acta, which reads up to {FORMAT}")]
    Newer(u16),
}

impl SegmentError {
    /// What is wrong with the file, unless it could not be read at all.
    pub(super) fn damage(self) -> io::Result<String> {
        match self {
            Self::Io(error) => Err(error),
            other => Ok(other.to_string()),
        }
    }
}

/// What the footer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) frames: u32,
    pub(crate) blocks: u32,
    pub(crate) first: Sequence,
    /// The end of the segment.
    pub(crate) end: Head,
    /// The digest of the block before its first.
    pub(crate) previous: Digest,
    /// The bytes of all blocks before compression.
    pub(crate) block_bytes: u64,
    /// SHA-256 of everything before the frame table.
    pub(crate) body: Digest,
}

impl Footer {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&self.frames.to_be_bytes());
        bytes.extend_from_slice(&self.blocks.to_be_bytes());
        bytes.extend_from_slice(&self.first.0.to_be_bytes());
        bytes.extend_from_slice(&self.end.seq.0.to_be_bytes());
        bytes.extend_from_slice(&self.previous.0);
        bytes.extend_from_slice(&self.end.block.0);
        bytes.extend_from_slice(&self.block_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.body.0);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            frames: u32::try_from(number::<4>(bytes, 0)?).ok()?,
            blocks: u32::try_from(number::<4>(bytes, 4)?).ok()?,
            first: Sequence(number::<8>(bytes, 8)?),
            previous: digest(bytes, 24)?,
            end: Head { seq: Sequence(number::<8>(bytes, 16)?), block: digest(bytes, 56)? },
            block_bytes: number::<8>(bytes, 88)?,
            body: digest(bytes, 96)?,
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    first: Sequence,
    offset: u64,
    len: u32,
    plain_len: u32,
}

impl Entry {
    fn encode(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.first.0.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.len.to_be_bytes());
        bytes.extend_from_slice(&self.plain_len.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            first: Sequence(number::<8>(bytes, 0)?),
            offset: number::<8>(bytes, 8)?,
            len: u32::try_from(number::<4>(bytes, 16)?).ok()?,
            plain_len: u32::try_from(number::<4>(bytes, 20)?).ok()?,
        })
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes: [u8; N] = bytes.get(at..at + N)?.try_into().ok()?;
    Some(bytes.iter().fold(0, |n, byte| (n << 8) | u64::from(*byte)))
}

fn digest(bytes: &[u8], at: usize) -> Option<Digest> {
    Some(Digest(bytes.get(at..at + 32)?.try_into().ok()?))
}

/// The name of a segment's file.
pub(crate) fn file_name(first: Sequence, last: Sequence) -> String {
    format!("{:020}-{:020}.seg", first.0, last.0)
}

/// The sequences that the name of a segment's file gives; none if it is not one.
pub(crate) fn parse_name(name: &str) -> Option<(Sequence, Sequence)> {
    let (first, last) = name.strip_suffix(".seg")?.split_once('-')?;
    let parse = |digits: &str| {
        let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok().map(Sequence)).flatten()
    };
    let (first, last) = (parse(first)?, parse(last)?);
    (Sequence::ZERO < first && first <= last).then_some((first, last))
}

/// Writes one segment, a frame at a time.
pub(super) struct SegmentWriter {
    file: BufWriter<File>,
    encoder: FrameEncoder,
    body: Sha256,
    written: u64,
    plain: Vec<u8>,
    frame_first: Sequence,
    entries: Vec<Entry>,
    footer: Footer,
}

impl SegmentWriter {
    /// Begins a file, in the place of one of that name, for blocks that follow `previous`.
    pub(super) fn create(path: &Path, log: LogId, previous: Head) -> io::Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
        let encoder = FrameEncoder::new()?;
        let first = previous.seq.next();
        let footer = Footer {
            frames: 0,
            blocks: 0,
            first,
            end: previous,
            previous: previous.block,
            block_bytes: 0,
            body: Digest::ZERO,
        };
        let mut writer = Self {
            file: BufWriter::new(file),
            encoder,
            body: Sha256::new(),
            written: 0,
            plain: Vec::with_capacity(FRAME_BYTES_MAX),
            frame_first: first,
            entries: Vec::new(),
            footer,
        };
        let mut start = MAGIC.to_vec();
        start.extend_from_slice(&FORMAT.to_be_bytes());
        start.extend_from_slice(&[0; 2]);
        start.extend_from_slice(log.0.as_bytes());
        writer.write(&start)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.body.update(bytes);
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Adds the block that follows.
    pub(super) fn push(&mut self, block: &EncodedBlock) -> io::Result<()> {
        let end = self.footer.end;
        if block.first != end.seq.next() || block.previous != end.block {
            return Err(io::Error::other("a block that does not follow the segment so far"));
        }
        if self.plain.is_empty() {
            self.frame_first = block.first;
        }
        let len = u32::try_from(block.bytes.len()).expect("a block is small");
        self.plain.extend_from_slice(&len.to_be_bytes());
        self.plain.extend_from_slice(&block.bytes);
        self.footer.blocks += 1;
        self.footer.block_bytes += u64::from(len);
        self.footer.end = Head { seq: block.last, block: block.digest };
        let full = if self.entries.is_empty() { DICTIONARY_BYTES } else { FRAME_BYTES };
        if self.plain.len() >= full { self.close_frame() } else { Ok(()) }
    }

    /// Ends the frame here, full or not.
    pub(super) fn close_frame(&mut self) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let stored = self.encoder.encode(&self.plain)?;
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a frame is small");
        self.entries.push(Entry {
            first: self.frame_first,
            offset: self.written,
            len: len(&stored),
            plain_len: len(&self.plain),
        });
        self.plain.clear();
        self.write(&stored)
    }

    /// Completes the file. It is not synced yet.
    pub(super) fn finish(mut self) -> io::Result<(File, Footer)> {
        self.close_frame()?;
        self.footer.frames = u32::try_from(self.entries.len()).expect("a segment is small");
        self.footer.body = Digest(self.body.finalize().into());
        let mut table = Vec::with_capacity(self.entries.len() * ENTRY_BYTES + FOOTER_BYTES);
        for entry in &self.entries {
            entry.encode(&mut table);
        }
        table.extend_from_slice(&self.footer.encode());
        let checksum = sha256(&[&table]);
        table.extend_from_slice(&checksum.0);
        self.file.write_all(&table)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, self.footer))
    }
}

/// An open segment.
pub(crate) struct Segment {
    file: File,
    layout: Layout,
    /// Of all frames but the first, once they were needed.
    dictionaries: OnceLock<Dictionaries>,
    /// Held by the one who makes them.
    making_ready: Mutex<()>,
    entries: Vec<Entry>,
    footer: Footer,
    file_bytes: u64,
}

impl Segment {
    /// Opens a file and checks what it says of itself, against its name too.
    pub(crate) fn open(path: &Path, log: LogId) -> Result<Self, SegmentError> {
        let damaged = SegmentError::Damaged;
        let file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut start = [0; START_BYTES as usize];
        read(&file, &mut start, 0)?;
        if !start.starts_with(MAGIC) {
            return Err(damaged("it does not begin as a segment does"));
        }
        let layout = match number::<2>(&start, 4).and_then(|format| u16::try_from(format).ok()) {
            Some(1) => Layout::Plain,
            Some(FORMAT) => Layout::Tagged,
            // The checksum tells whether it says what was written.
            Some(newer) if newer > FORMAT => return Err(SegmentError::Newer(newer)),
            _ => return Err(damaged("its format is none that there ever was")),
        };
        if Uuid::from_slice(&start[8..]).ok() != Some(log.0) {
            return Err(damaged("it belongs to another log"));
        }
        let short = || damaged("it is cut short");
        let footer_at = file_bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(short)?;
        let mut tail = vec![0; FOOTER_BYTES];
        read(&file, &mut tail, footer_at)?;
        let footer = Footer::decode(&tail).ok_or_else(short)?;
        let frames = footer.frames as usize;
        let table_bytes = frames * ENTRY_BYTES;
        let table_at = footer_at.checked_sub(table_bytes as u64);
        let Some(table_at) = table_at.filter(|at| *at >= START_BYTES && frames <= FRAMES_MAX)
        else {
            return Err(damaged("its footer is damaged"));
        };
        let mut table = vec![0; table_bytes];
        read(&file, &mut table, table_at)?;
        if sha256(&[&table, &tail[..FOOTER_BYTES - 32]]).0 != tail[FOOTER_BYTES - 32..] {
            return Err(damaged("its footer is damaged"));
        }
        let named = path.file_name().and_then(|name| parse_name(name.to_str()?));
        if named.is_some_and(|named| named != (footer.first, footer.end.seq)) {
            return Err(damaged("it holds other records than its name says"));
        }
        let entries = table.chunks_exact(ENTRY_BYTES).map(Entry::decode);
        let entries = entries.collect::<Option<Vec<_>>>().filter(|entries| !entries.is_empty());
        let entries = entries.ok_or(damaged("it is empty"))?;
        Ok(Self {
            file,
            layout,
            dictionaries: OnceLock::new(),
            making_ready: Mutex::default(),
            entries,
            footer,
            file_bytes,
        })
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    pub(super) fn frames(&self) -> usize {
        self.entries.len()
    }

    /// The first sequence of a frame.
    pub(super) fn frame_begins(&self, number: usize) -> Sequence {
        self.entries.get(number).map_or(self.footer.first, |entry| entry.first)
    }

    /// The frame that holds a sequence of the segment.
    pub(super) fn frame_with(&self, seq: Sequence) -> usize {
        self.entries.partition_point(|entry| entry.first <= seq).saturating_sub(1)
    }

    /// Reads and decompresses a frame. Any number of threads may. The first who reads one but the first has
    /// to wait until what they have in common is read.
    pub(super) fn frame(&self, number: usize) -> Result<Frame, SegmentError> {
        let (entry, stored) = self.stored(number)?;
        let plain_len = entry.plain_len as usize;
        let plain = match number {
            0 => Dictionaries::none(self.layout).decode(&stored, plain_len),
            _ => self.ready()?.decode(&stored, plain_len),
        };
        let frame = Frame::parse(plain.map_err(SegmentError::Damaged)?, entry.first);
        frame.ok_or(SegmentError::Damaged("a frame does not hold blocks"))
    }

    /// What all frames but the first are decompressed with.
    pub(super) fn ready(&self) -> Result<&Dictionaries, SegmentError> {
        if let Some(dictionaries) = self.dictionaries.get() {
            return Ok(dictionaries);
        }
        let _once = self.making_ready.lock();
        if let Some(dictionaries) = self.dictionaries.get() {
            return Ok(dictionaries);
        }
        let (entry, stored) = self.stored(0)?;
        let made = Dictionaries::of(self.layout, &stored, entry.plain_len as usize)
            .map_err(|_| SegmentError::Damaged(FIRST_UNREADABLE))?;
        Ok(self.dictionaries.get_or_init(|| made))
    }

    /// Has the system read frames that are about to be asked for, all at once.
    pub(super) fn will_read(&self, number: usize) {
        if let Some(entry) = self.entries.get(number) {
            let (at, len) = (entry.offset.cast_signed(), i64::from(entry.len));
            // It is a hint; without it they are read one by one.
            let _ = posix_fadvise(&self.file, at, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }

    fn stored(&self, number: usize) -> Result<(Entry, Vec<u8>), SegmentError> {
        let damaged = SegmentError::Damaged;
        let entry = *self.entries.get(number).ok_or(damaged("a frame beyond its end"))?;
        let (len, plain_len) = (entry.len as usize, entry.plain_len as usize);
        if plain_len > FRAME_BYTES_MAX || len > 2 * FRAME_BYTES_MAX {
            return Err(damaged("a frame is larger than frames are"));
        }
        let mut stored = vec![0; len];
        read(&self.file, &mut stored, entry.offset)?;
        Ok((entry, stored))
    }

    /// Reads all of the file and compares it with its checksums. Blocks are not looked into.
    pub(crate) fn verify(&self) -> Result<(), SegmentError> {
        let damaged = SegmentError::Damaged;
        let end = self.file_bytes - (self.entries.len() * ENTRY_BYTES + FOOTER_BYTES) as u64;
        let mut body = Sha256::new();
        let mut buffer = vec![0; DICTIONARY_BYTES];
        let mut at = 0;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            read(&self.file, &mut buffer[..wanted], at)?;
            body.update(&buffer[..wanted]);
            at += wanted as u64;
        }
        if Digest(body.finalize().into()) != self.footer.body {
            return Err(damaged("the file does not match its checksum"));
        }
        Ok(())
    }
}

fn read(file: &File, buffer: &mut [u8], at: u64) -> Result<(), SegmentError> {
    file.read_exact_at(buffer, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SegmentError::Damaged("it is cut short"),
        _ => SegmentError::Io(error),
    })
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
