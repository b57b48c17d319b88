//! Blocks taken apart, so that what is alike stands together: headers compress to a fifth and texts to a
//! third by themselves, and noise (salts, digests, random ids) keeps both from it when it stands
//! between them.
//!
//! ```text
//! text     per record: header with tokens · content kind 0x10 none, 0x11 inline, 0x12 file, 0x13 erased
//! content  inline contents, one after the other
//! raw      per block: epoch v · first sequence v · records v · digest of the block before it [32], left out if
//!                     it is the trailer before · records · trailer [32]
//!          per record: what its tokens leave out · salt [16] and length v, or digest [32]
//! ```
//!
//! A token is a control character, which no header has, in the place of what can be told from elsewhere:
//!
//! | token | in the place of | told by |
//! |---|---|---|
//! | 0x01 | `{"seq":…,"id":"…","time":"…"` | the place of the record · time since the record before, v · the last 19 digits of the id [10] |
//! | 0x02 | the number in `"version":…` | one more than that of the worker's record before, in the same blocks |
//! | 0x03 | the number in `"content":{"len":…` | the length of the content |
//! | 0x04 | the digits of `"fingerprint":"…"` | [32] |
//!
//! `v` is a number, seven bits to a byte, the lowest first. [`split`] gives only what [`join`] makes the same
//! bytes of; whatever else blocks may have in them is stored as it is.

mod text;
mod versions;

use crate::varint;
use acta_events::{
    Timestamp,
    block::{BLOCK_FORMAT, BLOCK_HEADER_BYTES},
    record::SALT_BYTES,
};
use memchr::memmem::Finder;
use std::sync::LazyLock;
use text::{
    decimal_len, hex_pair, number_behind, plain_len, put_decimal, put_hex, split_behind, take,
    take_array, unhex, unzigzag, zigzag,
};
use versions::Versions;

const BLOCK_START: [u8; 8] = {
    let format = BLOCK_FORMAT.to_be_bytes();
    [b'A', b'C', b'T', b'B', format[0], format[1], 0, 0]
};
const DIGEST_BYTES: usize = 32;

const PREFIX: u8 = 0x01;
const VERSION: u8 = 0x02;
const LENGTH: u8 = 0x03;
const FINGERPRINT: u8 = 0x04;
const KIND: u8 = 0x10;

const SEQ_KEY: &str = r#"{"seq":"#;
const ID_KEY: &str = r#","id":""#;
const TIME_KEY: &str = r#"","time":""#;

/// Looks for the field of a header. Made once: that takes longer than one search.
type Field = LazyLock<Finder<'static>>;
static WORKER_FIELD: Field = LazyLock::new(|| Finder::new(r#","worker":""#));
static VERSION_FIELD: Field = LazyLock::new(|| Finder::new(r#","version":"#));
static LENGTH_FIELD: Field = LazyLock::new(|| Finder::new(r#","content":{"len":"#));
static FINGERPRINT_FIELD: Field = LazyLock::new(|| Finder::new(r#""fingerprint":""#));

/// The parts of some blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) text: Vec<u8>,
    pub(super) content: Vec<u8>,
    pub(super) raw: Vec<u8>,
}

/// Takes blocks, each behind its length, apart. None if they have something in them that could not be put
/// together again.
pub(super) fn split(blocks: &[u8]) -> Option<Parts> {
    let mut parts = Parts::default();
    let mut state = State::default();
    let mut input = blocks;
    while !input.is_empty() {
        let len = u32::from_be_bytes(*take_array(&mut input)?);
        let mut block = take(&mut input, len as usize)?;
        parts.add_block(&mut block, &mut state)?;
        if !block.is_empty() {
            return None;
        }
    }
    let same = join(&parts.text, &parts.content, &parts.raw, blocks.len())?;
    (same == blocks).then_some(parts)
}

/// What is known at some place in the blocks, on either way.
#[derive(Default)]
struct State {
    trailer: Option<[u8; DIGEST_BYTES]>,
    /// Of the record before.
    time_us: i64,
    versions: Versions,
}

impl Parts {
    fn add_block(&mut self, block: &mut &[u8], state: &mut State) -> Option<()> {
        if take(block, BLOCK_START.len())? != BLOCK_START {
            return None;
        }
        let epoch = u32::from_be_bytes(*take_array(block)?);
        let first = u64::from_be_bytes(*take_array(block)?);
        let count = u32::from_be_bytes(*take_array(block)?);
        let previous: &[u8; DIGEST_BYTES] = take_array(block)?;
        varint::put(u64::from(epoch), &mut self.raw);
        varint::put(first, &mut self.raw);
        varint::put(u64::from(count), &mut self.raw);
        match state.trailer {
            None => self.raw.extend_from_slice(previous),
            Some(trailer) if trailer == *previous => {}
            Some(_) => return None,
        }
        for place in 0..u64::from(count) {
            self.add_record(block, first.checked_add(place)?, state)?;
        }
        let trailer: &[u8; DIGEST_BYTES] = take_array(block)?;
        self.raw.extend_from_slice(trailer);
        state.trailer = Some(*trailer);
        Some(())
    }

    fn add_record(&mut self, block: &mut &[u8], seq: u64, state: &mut State) -> Option<()> {
        let len = u32::from_be_bytes(*take_array(block)?);
        let header = std::str::from_utf8(take(block, len as usize)?).ok()?;
        if header.bytes().any(|byte| byte < 0x20) {
            return None;
        }
        let [kind] = *take_array(block)?;
        let (salt, content) = match kind {
            0 => (&[][..], &[][..]),
            1 => {
                let salt = take(block, SALT_BYTES)?;
                let len = u32::from_be_bytes(*take_array(block)?);
                (salt, take(block, len as usize)?)
            }
            2 | 3 => (take(block, DIGEST_BYTES)?, &[][..]),
            _ => return None,
        };
        self.add_header(header, seq, (kind == 1).then_some(content.len()), state);
        self.text.push(KIND + kind);
        self.raw.extend_from_slice(salt);
        if kind == 1 {
            varint::put(content.len() as u64, &mut self.raw);
        }
        self.content.extend_from_slice(content);
        Some(())
    }

    /// What tokens leave out goes to `raw` in the order of the tokens.
    fn add_header(&mut self, header: &str, seq: u64, content: Option<usize>, state: &mut State) {
        let mut rest = header.as_bytes();
        if let Some((time_us, digits, len)) = usual_prefix(header, seq) {
            self.text.push(PREFIX);
            varint::put(zigzag(time_us.wrapping_sub(state.time_us)), &mut self.raw);
            self.raw.extend_from_slice(&digits);
            state.time_us = time_us;
            rest = &rest[len..];
        }
        if let Some((before, number, after)) = number_behind(rest, &VERSION_FIELD) {
            let known = state.expected_version(before, number);
            self.text.extend_from_slice(before);
            if known {
                self.text.push(VERSION);
                rest = after;
            } else {
                rest = &rest[before.len()..];
            }
        }
        if let Some((before, digits)) = split_behind(rest, &FINGERPRINT_FIELD)
            && let Some(fingerprint) = digits.get(..64).and_then(unhex::<32>)
        {
            self.text.extend_from_slice(before);
            self.text.push(FINGERPRINT);
            self.raw.extend_from_slice(&fingerprint);
            rest = &digits[64..];
        }
        if let Some((before, number, after)) = number_behind(rest, &LENGTH_FIELD)
            && content.is_some_and(|len| len as u64 == number)
        {
            self.text.extend_from_slice(before);
            self.text.push(LENGTH);
            rest = after;
        }
        self.text.extend_from_slice(rest);
    }
}

impl State {
    /// Whether the version that follows this beginning of a header is the expected one. Remembers it.
    fn expected_version(&mut self, before: &[u8], version: u64) -> bool {
        let Some(worker) = worker_in(before) else { return false };
        match self.versions.get_mut(worker) {
            Some(known) => {
                let expected = known.checked_add(1) == Some(version);
                *known = version;
                expected
            }
            None => {
                self.versions.insert(worker, version);
                false
            }
        }
    }
}

/// Time, last digits of the id, and length of `{"seq":…,"id":"…","time":"…"`, if all else in it follows from
/// these and the sequence.
fn usual_prefix(header: &str, seq: u64) -> Option<(i64, [u8; 10], usize)> {
    let id_at = SEQ_KEY.len() + decimal_len(seq) + ID_KEY.len();
    let time_at = id_at + 36 + TIME_KEY.len();
    let id = header.get(id_at..id_at + 36)?;
    let time_len = header.get(time_at..)?.find('"')?;
    let time = Timestamp::parse(&header[time_at..time_at + time_len]).ok()?;
    let digits: String = id.get(15..)?.chars().filter(|digit| *digit != '-').collect();
    let digits = unhex::<10>(format!("{digits}0").as_bytes())?;
    let len = time_at + time_len + 1;
    let mut expected = Vec::with_capacity(len);
    put_prefix(seq, time.0, &digits, &mut expected)?;
    (expected == header.as_bytes()[..len]).then_some((time.0, digits, len))
}

fn put_prefix(seq: u64, time_us: i64, digits: &[u8; 10], out: &mut Vec<u8>) -> Option<()> {
    use std::io::Write as _;
    let ms = u64::try_from(Timestamp(time_us).as_millis()).ok()?;
    let (high, low) = (u32::try_from(ms >> 16).ok()?, (ms & 0xffff) as u16);
    out.extend_from_slice(SEQ_KEY.as_bytes());
    put_decimal(seq, out);
    out.extend_from_slice(ID_KEY.as_bytes());
    put_hex(&high.to_be_bytes(), out);
    out.push(b'-');
    put_hex(&low.to_be_bytes(), out);
    out.extend_from_slice(b"-7");
    // 19 digits, so the last of the 20 is none.
    let mut hex = [0; 20];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digits) {
        pair.copy_from_slice(&hex_pair(*byte));
    }
    for part in [&hex[..3], b"-", &hex[3..7], b"-", &hex[7..19]] {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(TIME_KEY.as_bytes());
    match Timestamp(time_us).text() {
        Some(text) => out.extend_from_slice(&text),
        None => write!(out, "{}", Timestamp(time_us)).ok()?,
    }
    out.push(b'"');
    Some(())
}

/// Puts blocks together again, at most `len_max` bytes of them. None for parts that no blocks are taken
/// apart into.
pub(super) fn join(text: &[u8], content: &[u8], raw: &[u8], len_max: usize) -> Option<Vec<u8>> {
    let mut input = Input { text, content, raw };
    let mut state = State::default();
    let mut out = Vec::with_capacity(len_max);
    while !input.raw.is_empty() {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        input.put_block(&mut state, &mut out, len_max)?;
        let len = u32::try_from(out.len() - at - 4).ok()?;
        out[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }
    (input.text.is_empty() && input.content.is_empty() && out.len() <= len_max).then_some(out)
}

struct Input<'a> {
    text: &'a [u8],
    content: &'a [u8],
    raw: &'a [u8],
}

impl Input<'_> {
    fn put_block(&mut self, state: &mut State, out: &mut Vec<u8>, len_max: usize) -> Option<()> {
        let epoch = u32::try_from(varint::take(&mut self.raw)?).ok()?;
        let first = varint::take(&mut self.raw)?;
        let count = u32::try_from(varint::take(&mut self.raw)?).ok()?;
        let previous = match state.trailer {
            Some(trailer) => trailer,
            None => *take_array(&mut self.raw)?,
        };
        out.reserve(BLOCK_HEADER_BYTES);
        out.extend_from_slice(&BLOCK_START);
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&previous);
        for place in 0..u64::from(count) {
            self.put_record(first.checked_add(place)?, state, out)?;
            if out.len() > len_max {
                return None;
            }
        }
        let trailer: [u8; DIGEST_BYTES] = *take_array(&mut self.raw)?;
        out.extend_from_slice(&trailer);
        state.trailer = Some(trailer);
        Some(())
    }

    fn put_record(&mut self, seq: u64, state: &mut State, out: &mut Vec<u8>) -> Option<()> {
        let len_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let header_at = out.len();
        let mut has_version = false;
        // Where the length of the content belongs, which is told behind the header.
        let mut length_at = None;
        let kind = loop {
            let plain = plain_len(self.text)?;
            out.extend_from_slice(take(&mut self.text, plain)?);
            match *take_array(&mut self.text)? {
                [PREFIX] => {
                    let rose_by = unzigzag(varint::take(&mut self.raw)?);
                    state.time_us = state.time_us.wrapping_add(rose_by);
                    put_prefix(seq, state.time_us, take_array(&mut self.raw)?, out)?;
                }
                [VERSION] => {
                    let known = state.versions.get_mut(worker_in(&out[header_at..])?)?;
                    *known = known.checked_add(1)?;
                    put_decimal(*known, out);
                    has_version = true;
                }
                [LENGTH] => match self.length_ahead() {
                    Some(len) => put_decimal(len, out),
                    None => length_at = Some(out.len()),
                },
                [FINGERPRINT] => put_hex(take_array::<32>(&mut self.raw)?, out),
                [kind] => break kind.checked_sub(KIND)?,
            }
        };
        if !has_version {
            self.remember_version(header_at, state, out);
        }
        let (salt, content) = match kind {
            0 => (&[][..], &[][..]),
            1 => {
                let salt = take(&mut self.raw, SALT_BYTES)?;
                let len = usize::try_from(varint::take(&mut self.raw)?).ok()?;
                (salt, take(&mut self.content, len)?)
            }
            2 | 3 => (take(&mut self.raw, DIGEST_BYTES)?, &[][..]),
            _ => return None,
        };
        if let Some(at) = length_at {
            out.splice(at..at, content.len().to_string().into_bytes());
        }
        let header_len = u32::try_from(out.len() - header_at).ok()?;
        out[len_at..header_at].copy_from_slice(&header_len.to_be_bytes());
        out.push(kind);
        out.extend_from_slice(salt);
        if kind == 1 {
            out.extend_from_slice(&u32::try_from(content.len()).ok()?.to_be_bytes());
        }
        out.extend_from_slice(content);
        Some(())
    }

    /// The length of the content, if nothing but the end of the header is in front of it.
    fn length_ahead(&self) -> Option<u64> {
        let kind = self.text.get(plain_len(self.text)?)?;
        let mut behind_salt = self.raw.get(SALT_BYTES..).filter(|_| *kind == KIND + 1)?;
        varint::take(&mut behind_salt)
    }

    /// A version that stood in the header in digits, as [`Parts::add_header`] remembered it.
    fn remember_version(&self, header_at: usize, state: &mut State, out: &[u8]) {
        if let Some((before, version, _)) = number_behind(&out[header_at..], &VERSION_FIELD) {
            state.expected_version(before, version);
        }
    }
}

/// The worker of a header, or of the beginning of one.
fn worker_in(header: &[u8]) -> Option<&[u8]> {
    let at = WORKER_FIELD.find(header)? + WORKER_FIELD.needle().len();
    let len = header[at..].iter().position(|byte| *byte == b'"')?;
    Some(&header[at..at + len])
}

#[cfg(test)]
#[path = "frame_parts_tests.rs"]
mod tests;
