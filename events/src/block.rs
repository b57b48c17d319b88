//! The block: the records of one commit, the unit of storage.
//!
//! All integers are big-endian.
//!
//! ```text
//! block header   magic "ACTB" · format u16 · flags u16 (0) · epoch u32 · first sequence u64
//!                · count u32 · digest of the previous block [32]
//! record × count header length u32 · header · content kind u8 · content
//!     content 0  nothing
//!     content 1  salt [16] · length u32 · bytes
//!     content 2  content digest [32]      the content is in a file of that name
//!     content 3  content digest [32]      the content was erased; each bit inverted
//! trailer        block digest [32] = SHA-256(block header ‖ record digests)
//! ```
//!
//! Erasing a content must not change any digest, so the content kind itself is in none. The
//! inversion makes a file that is taken for erased, or the reverse, a digest that does not
//! match: no change of a byte goes unnoticed.
//!
//! The first block of a log follows the [`genesis`] digest of that log.

use crate::{
    Digest,
    ids::{Epoch, LogId, Sequence},
    record::{
        ContentBody, HEADER_BYTES_MAX, Header, INLINE_BYTES_MAX, Record, RecordError, SALT_BYTES,
    },
    sha256,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// The largest block, in bytes. Two thirds of it are left to a single large record, and sled
/// stays well away from the size at which it moves values to files of their own.
pub const BLOCK_BYTES_MAX: usize = 64 * 1024;

/// The version of the layout above.
pub const BLOCK_FORMAT: u16 = 1;

/// The length of the block header, in bytes.
pub const BLOCK_HEADER_BYTES: usize = 4 + 2 + 2 + 4 + 8 + 4 + 32;

const MAGIC: &[u8; 4] = b"ACTB";
const TRAILER_BYTES: usize = 32;
/// Header length, the smallest header `{}`, and the content kind.
const RECORD_BYTES_MIN: usize = 4 + 2 + 1;

/// What the first block of a log names as its predecessor.
pub fn genesis(log: LogId) -> Digest {
    sha256(&[b"acta-log", log.0.as_bytes()])
}

/// The records of one commit, with where they stand in the chain.
#[derive(Clone, Debug)]
pub struct Block {
    /// The incarnation of the log that wrote it.
    pub epoch: Epoch,
    /// The digest of the block before it.
    pub previous: Digest,
    /// Its own digest.
    pub digest: Digest,
    /// At least one, in order, without a gap.
    pub records: Vec<Arc<Record>>,
}

/// A stored block cannot be trusted or understood.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// It ends before it is complete, or goes on after its end.
    #[error("the block is cut short or has bytes left over")]
    Length,
    /// It does not begin as a block does.
    #[error("not a block: it does not begin with ACTB")]
    Magic,
    /// A newer version wrote it.
    #[error(
        "block format {0} is newer than this version of Acta, which reads up to {BLOCK_FORMAT}"
    )]
    Format(u16),
    /// A field has a value that it never has.
    #[error("the block is malformed: {0}")]
    Malformed(&'static str),
    /// The content does not add up to the digest.
    #[error("the block does not match its digest")]
    Digest,
    /// It matches its digest, but one of its records cannot be understood.
    #[error("record {seq}: {source}")]
    Record {
        /// The sequence of the record.
        seq: Sequence,
        /// Why.
        source: RecordError,
    },
}

/// Collects records until the block is full. Pure: nothing is written anywhere.
#[derive(Debug)]
pub struct BlockBuilder {
    epoch: Epoch,
    previous: Digest,
    bytes: usize,
    records: Vec<Arc<Record>>,
}

impl BlockBuilder {
    /// An empty block after `previous`.
    pub fn new(epoch: Epoch, previous: Digest) -> Self {
        let bytes = BLOCK_HEADER_BYTES + TRAILER_BYTES;
        Self { epoch, previous, bytes, records: Vec::new() }
    }

    /// Whether records of that many bytes together still go in.
    pub fn fits(&self, bytes: usize) -> bool {
        self.bytes + bytes <= BLOCK_BYTES_MAX
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds a record. The caller has asked [`Self::fits`] and numbers without gaps.
    pub fn push(&mut self, record: Arc<Record>) {
        self.bytes += record.stored_bytes();
        self.records.push(record);
    }

    /// The finished block and the bytes to store; none if there are no records.
    pub fn finish(self) -> Option<(Block, Bytes)> {
        let first = self.records.first()?.seq();
        let mut out = BytesMut::with_capacity(self.bytes);
        out.put_slice(MAGIC);
        out.put_u16(BLOCK_FORMAT);
        out.put_u16(0);
        out.put_u32(self.epoch.0);
        out.put_u64(first.0);
        out.put_u32(self.records.len() as u32);
        out.put_slice(&self.previous.0);
        let mut hasher = Sha256::new_with_prefix(&out);
        for record in &self.records {
            hasher.update(record.digest.0);
            encode_record(record, &mut out);
        }
        let digest = Digest(hasher.finalize().into());
        out.put_slice(&digest.0);
        let block =
            Block { epoch: self.epoch, previous: self.previous, digest, records: self.records };
        Some((block, out.freeze()))
    }
}

fn encode_record(record: &Record, out: &mut BytesMut) {
    out.put_u32(record.json.len() as u32);
    out.put_slice(&record.json);
    match record.content.as_ref().map(|content| (content.digest, &content.body)) {
        None => out.put_u8(0),
        Some((_, ContentBody::Inline { salt, bytes })) => {
            out.put_u8(1);
            out.put_slice(salt);
            out.put_u32(bytes.len() as u32);
            out.put_slice(bytes);
        }
        Some((digest, ContentBody::File)) => {
            out.put_u8(2);
            out.put_slice(&digest.0);
        }
        Some((digest, ContentBody::Erased)) => {
            out.put_u8(3);
            out.put_slice(&digest.0.map(|byte| !byte));
        }
    }
}

impl Block {
    /// The first sequence in it.
    pub fn first(&self) -> Sequence {
        self.records.first().map_or(Sequence::ZERO, |record| record.seq())
    }

    /// The last sequence in it.
    pub fn last(&self) -> Sequence {
        self.records.last().map_or(Sequence::ZERO, |record| record.seq())
    }

    /// The same block with the contents of these records erased, and the bytes to store; none if
    /// there is nothing to erase. No digest changes by that.
    pub fn erased(&self, is_erased: impl Fn(Sequence) -> bool) -> Option<(Self, Bytes)> {
        let mut builder = BlockBuilder::new(self.epoch, self.previous);
        let mut some = false;
        for record in &self.records {
            let erased = if is_erased(record.seq()) { record.erased() } else { None };
            some |= erased.is_some();
            builder.push(erased.map_or_else(|| Arc::clone(record), Arc::new));
        }
        if some { builder.finish() } else { None }
    }

    /// Reads a block and verifies it against its own digest. That it follows the block before
    /// it is for the caller to check, with [`Block::previous`].
    pub fn decode(input: Bytes) -> Result<Self, BlockError> {
        let Matched { head, digest, parts } = matched(input)?;
        let mut records: Vec<Arc<Record>> = Vec::with_capacity(parts.len());
        for (seq, part) in (head.first.0..).zip(parts) {
            let before = records.last().map(|record| &record.header);
            records.push(Arc::new(understood(Sequence(seq), part, before)?));
        }
        Ok(Self { epoch: head.epoch, previous: head.previous, digest, records })
    }

    /// Some of the records of a block, in order. The block is verified against its own digest as
    /// a whole, but only these records are understood, which is most of the work.
    pub fn decode_some(
        input: Bytes,
        wanted: impl Fn(Sequence) -> bool,
    ) -> Result<Vec<Arc<Record>>, BlockError> {
        let Matched { head, parts, .. } = matched(input)?;
        let parts = (head.first.0..).map(Sequence).zip(parts);
        let wanted = parts.filter(|(seq, _)| wanted(*seq));
        wanted.map(|(seq, part)| understood(seq, part, None).map(Arc::new)).collect()
    }
}

/// The stored parts of a block that matches its digest.
struct Matched {
    head: Head,
    digest: Digest,
    /// Of each record, with its digest.
    parts: Vec<(RecordParts, Digest)>,
}

/// Takes a block apart and compares it with its digest. Whether its bytes are damaged or merely
/// not understood is told by that alone.
fn matched(mut input: Bytes) -> Result<Matched, BlockError> {
    if input.len() < BLOCK_HEADER_BYTES + TRAILER_BYTES {
        return Err(BlockError::Length);
    }
    let mut hasher = Sha256::new_with_prefix(&input[..BLOCK_HEADER_BYTES]);
    let mut trailer = input.split_off(input.len() - TRAILER_BYTES);
    let head = decode_header(&mut input)?;
    if head.count as usize > input.len() / RECORD_BYTES_MIN {
        return Err(BlockError::Malformed("it counts more records than it can hold"));
    }
    let mut parts = Vec::with_capacity(head.count as usize);
    for _ in 0..head.count {
        let part = split_record(&mut input)?;
        let content = part.1.as_ref().map(|(digest, _)| *digest);
        let digest = crate::record::digest_of(&part.0, content);
        hasher.update(digest.0);
        parts.push((part, digest));
    }
    if input.has_remaining() {
        return Err(BlockError::Length);
    }
    let digest = Digest(hasher.finalize().into());
    let mut stored = [0; 32];
    trailer.copy_to_slice(&mut stored);
    if digest.0 == stored { Ok(Matched { head, digest, parts }) } else { Err(BlockError::Digest) }
}

fn understood(
    seq: Sequence,
    ((json, content), digest): (RecordParts, Digest),
    before: Option<&Header>,
) -> Result<Record, BlockError> {
    let record = Record::decode(json, content, digest, before)
        .map_err(|source| BlockError::Record { seq, source })?;
    if record.seq() == seq {
        Ok(record)
    } else {
        Err(BlockError::Malformed("a record's sequence is not its place"))
    }
}

struct Head {
    epoch: Epoch,
    first: Sequence,
    count: u32,
    previous: Digest,
}

fn decode_header(input: &mut Bytes) -> Result<Head, BlockError> {
    let mut magic = [0; 4];
    input.copy_to_slice(&mut magic);
    if &magic != MAGIC {
        return Err(BlockError::Magic);
    }
    let format = input.get_u16();
    if format > BLOCK_FORMAT {
        return Err(BlockError::Format(format));
    }
    if format == 0 || input.get_u16() != 0 {
        return Err(BlockError::Malformed("format 0 or unknown flags"));
    }
    let epoch = Epoch(input.get_u32());
    let first = Sequence(input.get_u64());
    let count = input.get_u32();
    let mut previous = [0; 32];
    input.copy_to_slice(&mut previous);
    if first == Sequence::ZERO || count == 0 || first.0.checked_add(u64::from(count)).is_none() {
        return Err(BlockError::Malformed("it has no records, or impossible sequences"));
    }
    Ok(Head { epoch, first, count, previous: Digest(previous) })
}

type RecordParts = (Bytes, Option<(Digest, ContentBody)>);

fn split_record(input: &mut Bytes) -> Result<RecordParts, BlockError> {
    let header_bytes = take_u32(input)?;
    if header_bytes > HEADER_BYTES_MAX {
        return Err(BlockError::Malformed("a header is longer than headers are"));
    }
    let json = take(input, header_bytes)?;
    let [kind] = take_array(input)?;
    let content = match kind {
        0 => None,
        1 => {
            let salt = take_array::<SALT_BYTES>(input)?;
            let len = take_u32(input)?;
            if len > INLINE_BYTES_MAX {
                return Err(BlockError::Malformed("a content is longer than contents here are"));
            }
            let bytes = take(input, len)?;
            let digest = sha256(&[&salt, &bytes]);
            Some((digest, ContentBody::Inline { salt, bytes }))
        }
        2 | 3 => {
            let digest = take_array::<32>(input)?;
            if kind == 2 {
                Some((Digest(digest), ContentBody::File))
            } else {
                Some((Digest(digest.map(|byte| !byte)), ContentBody::Erased))
            }
        }
        _ => return Err(BlockError::Malformed("a content is of an unknown kind")),
    };
    Ok((json, content))
}

fn take(input: &mut Bytes, len: usize) -> Result<Bytes, BlockError> {
    if input.len() < len { Err(BlockError::Length) } else { Ok(input.split_to(len)) }
}

/// Copied, which costs less than another owner of the bytes.
fn take_array<const BYTES: usize>(input: &mut Bytes) -> Result<[u8; BYTES], BlockError> {
    let array = *input.first_chunk().ok_or(BlockError::Length)?;
    input.advance(BYTES);
    Ok(array)
}

fn take_u32(input: &mut Bytes) -> Result<usize, BlockError> {
    Ok(u32::from_be_bytes(take_array(input)?) as usize)
}
