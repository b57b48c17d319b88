//! A frame: blocks one after the other, compressed.
//!
//! ```text
//! plain    blocks × (length u32 · block)
//!
//! stored   0 u8 · plain compressed                         as it is
//!          1 u8 · 4 × length u32 · text compressed         apart, as in `frame_parts`: the lengths of text
//!               · content compressed · raw · CRC-32 u32    and content, compressed and not
//! ```
//!
//! Compressed is a zstd frame with checksum. The CRC-32 is over everything before it. All
//! frames of a segment but its first are compressed with the parts of the first as dictionaries: small
//! frames come out smaller with it than large ones without. In segments of format 1 a stored frame is plain,
//! compressed, without the byte before it.

use super::{
    frame_contexts::{Context, Contexts, Dictionary, with_contexts},
    frame_parts::{self, Parts},
};
use acta_events::{
    Sequence,
    block::{BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES},
};
use bytes::Bytes;
use std::{io, ops::Range};
use zstd::bulk::Compressor;

/// A frame is closed when it has reached this size, before compression.
pub(super) const FRAME_BYTES: usize = 8 * 1024;
/// The first frame, which is the dictionary of the others, at this one. In unit tests less, so that their
/// small segments have several frames.
pub(super) const DICTIONARY_BYTES: usize = if cfg!(test) { 96 * 1024 } else { 512 * 1024 };
/// What a frame has at most: it may be one block short of full when the largest one comes.
pub(super) const FRAME_BYTES_MAX: usize = DICTIONARY_BYTES + 4 + BLOCK_BYTES_MAX;
/// Compressing runs beside the commits, on a machine that may have few cores.
const ZSTD_LEVEL: i32 = 5;
const AS_IT_IS: u8 = 0;
const APART: u8 = 1;
const LENGTHS_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

/// How frames of a segment are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Of format 1: plain, compressed.
    Plain,
    /// Of format 2: a byte says how.
    Tagged,
}

/// Compresses the frames of one segment, in order.
pub(super) struct FrameEncoder {
    plain: Compressor<'static>,
    text: Compressor<'static>,
    content: Compressor<'static>,
    is_first: bool,
}

impl FrameEncoder {
    pub(super) fn new() -> io::Result<Self> {
        let [plain, text, content] = [compressor(&[])?, compressor(&[])?, compressor(&[])?];
        Ok(Self { plain, text, content, is_first: true })
    }

    /// The next frame as it is stored.
    pub(super) fn encode(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let parts = frame_parts::split(plain);
        let stored = match &parts {
            None => [&[AS_IT_IS], &self.plain.compress(plain)?[..]].concat(),
            Some(parts) => self.encode_parts(parts)?,
        };
        if self.is_first {
            let dictionary = parts.unwrap_or_default();
            self.text = compressor(&dictionary.text)?;
            self.content = compressor(&dictionary.content)?;
            self.is_first = false;
        }
        Ok(stored)
    }

    fn encode_parts(&mut self, parts: &Parts) -> io::Result<Vec<u8>> {
        let (text, content) =
            (self.text.compress(&parts.text)?, self.content.compress(&parts.content)?);
        let mut stored = vec![APART];
        for part in [&text, &parts.text, &content, &parts.content] {
            let len = u32::try_from(part.len()).expect("a frame is small");
            stored.extend_from_slice(&len.to_be_bytes());
        }
        for part in [&text, &content, &parts.raw] {
            stored.extend_from_slice(part);
        }
        let checksum = crc32fast::hash(&stored);
        stored.extend_from_slice(&checksum.to_be_bytes());
        Ok(stored)
    }
}

fn compressor(dictionary: &[u8]) -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::with_dictionary(ZSTD_LEVEL, dictionary)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    Ok(compressor)
}

/// What the first frame of a segment gives the others to be decompressed with. Any number of threads
/// use it.
pub(super) struct Dictionaries {
    layout: Layout,
    plain: Option<Dictionary>,
    text: Option<Dictionary>,
    content: Option<Dictionary>,
}

/// Text, content and raw of a frame.
type Apart<'s> = (&'s [u8], &'s [u8], &'s [u8]);

/// Why a frame cannot be read, in words that follow "the segment …:".
pub(super) type Why = &'static str;
pub(super) const UNREADABLE: Why = "a frame does not match its checksum";

impl Dictionaries {
    /// Those of the first frame itself.
    pub(super) fn none(layout: Layout) -> Self {
        Self { layout, plain: None, text: None, content: None }
    }

    /// Those of all others, from the first as it is stored.
    pub(super) fn of(layout: Layout, first: &[u8], plain_len: usize) -> Result<Self, Why> {
        let none = Self::none(layout);
        Ok(match layout {
            Layout::Plain => {
                let plain = none.decode(first, plain_len)?;
                Self { plain: Some(Dictionary::new(&plain)), ..none }
            }
            Layout::Tagged if first.first() == Some(&APART) => with_contexts(None, |contexts| {
                let Contexts { text, content } = contexts;
                let (text, content, _) = none.parts(first, text, content)?;
                let (text, content) = (Dictionary::new(text), Dictionary::new(content));
                Ok::<_, Why>(Self { text: Some(text), content: Some(content), ..none })
            })?,
            Layout::Tagged => none,
        })
    }

    /// The blocks of a stored frame, each behind its length.
    pub(super) fn decode(&self, stored: &[u8], plain_len: usize) -> Result<Vec<u8>, Why> {
        let used = self.text.as_ref().or(self.plain.as_ref());
        let plain = with_contexts(used, |contexts| match (self.layout, stored.split_first()) {
            (Layout::Plain, _) => contexts.whole(self.plain.as_ref(), stored, plain_len),
            (Layout::Tagged, Some((&AS_IT_IS, rest))) => contexts.whole(None, rest, plain_len),
            (Layout::Tagged, Some((&APART, _))) => {
                let Contexts { text, content } = contexts;
                let (text, content, raw) = self.parts(stored, text, content)?;
                frame_parts::join(text, content, raw, plain_len).ok_or(UNREADABLE)
            }
            (Layout::Tagged, _) => Err(UNREADABLE),
        })?;
        if plain.len() == plain_len {
            Ok(plain)
        } else {
            Err("a frame has another length than it should")
        }
    }

    /// Text, content and raw of a frame that is stored apart.
    fn parts<'s>(
        &self,
        stored: &'s [u8],
        text_in: &'s mut Context,
        content_in: &'s mut Context,
    ) -> Result<Apart<'s>, Why> {
        let (body, checksum) = stored.split_last_chunk::<CHECKSUM_BYTES>().ok_or(UNREADABLE)?;
        if crc32fast::hash(body).to_be_bytes() != *checksum {
            return Err(UNREADABLE);
        }
        let (lengths, rest) = body[1..].split_first_chunk::<LENGTHS_BYTES>().ok_or(UNREADABLE)?;
        let mut len = lengths
            .chunks_exact(4)
            .map(|bytes| bytes.iter().fold(0_usize, |len, byte| len << 8 | usize::from(*byte)));
        let mut next = || len.next().filter(|len| *len <= 2 * FRAME_BYTES_MAX).ok_or(UNREADABLE);
        let [text_len, text_plain, content_len, content_plain] =
            [next()?, next()?, next()?, next()?];
        let (text, rest) = rest.split_at_checked(text_len).ok_or(UNREADABLE)?;
        let (content, raw) = rest.split_at_checked(content_len).ok_or(UNREADABLE)?;
        let text = text_in.decompress(self.text.as_ref(), text, text_plain)?;
        let content = content_in.decompress(self.content.as_ref(), content, content_plain)?;
        Ok((text, content, raw))
    }
}

/// The blocks of a frame, unverified.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) plain: Bytes,
    pub(super) blocks: Vec<(Sequence, Range<usize>)>,
}

impl Frame {
    pub(super) fn parse(plain: Vec<u8>, first: Sequence) -> Option<Self> {
        let mut blocks = Vec::new();
        let mut at = 0;
        while at < plain.len() {
            let len = usize::try_from(u32::from_be_bytes(*plain.get(at..)?.first_chunk()?)).ok()?;
            let range = at + 4..at + 4 + len;
            let block = plain.get(range.clone()).filter(|_| len >= BLOCK_HEADER_BYTES)?;
            let seq = u64::from_be_bytes(*block.get(12..)?.first_chunk()?);
            blocks.push((Sequence(seq), range.clone()));
            at = range.end;
        }
        let begins = blocks.first().is_some_and(|(found, _)| *found == first);
        let sorted = blocks.is_sorted_by(|a, b| a.0 < b.0);
        (begins && sorted).then(|| Self { plain: plain.into(), blocks })
    }

    pub(super) fn get(&self, at: usize) -> Option<(Sequence, Bytes)> {
        let (first, range) = self.blocks.get(at)?;
        // What is kept of a small part must not keep the whole frame in memory.
        let bytes = match 2 * range.len() >= self.plain.len() {
            true => self.plain.slice(range.clone()),
            false => Bytes::copy_from_slice(&self.plain[range.clone()]),
        };
        Some((*first, bytes))
    }

    /// All blocks, in order. What is kept of them keeps the frame.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Bytes> {
        self.blocks.iter().map(|(_, range)| self.plain.slice(range.clone()))
    }

    /// The first block at or after a sequence.
    pub(super) fn ceiling(&self, seq: Sequence) -> Option<(Sequence, Bytes)> {
        self.get(self.blocks.partition_point(|(first, _)| *first < seq))
    }

    /// The last block that begins at or before a sequence. What is kept of it keeps the frame.
    pub(super) fn within(&self, seq: Sequence) -> Option<Bytes> {
        let at = self.blocks.partition_point(|(first, _)| *first <= seq).checked_sub(1)?;
        let (_, range) = self.blocks.get(at)?;
        Some(self.plain.slice(range.clone()))
    }

    /// The last block that begins at or before a sequence.
    pub(super) fn floor(&self, seq: Sequence) -> Option<(Sequence, Bytes)> {
        self.get(self.blocks.partition_point(|(first, _)| *first <= seq).checked_sub(1)?)
    }
}
