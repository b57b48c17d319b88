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

use crate::varint;
use acta_events::{
    Timestamp,
    block::{BLOCK_FORMAT, BLOCK_HEADER_BYTES},
    record::SALT_BYTES,
};
use std::collections::HashMap;

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
const WORKER_KEY: &str = r#","worker":""#;
const VERSION_KEY: &str = r#","version":"#;
const LENGTH_KEY: &str = r#","content":{"len":"#;
const FINGERPRINT_KEY: &str = r#""fingerprint":""#;

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
    /// The newest version of each worker.
    versions: HashMap<Vec<u8>, u64>,
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
        let mut rest = header;
        if let Some((time_us, digits, len)) = usual_prefix(header, seq) {
            self.text.push(PREFIX);
            varint::put(zigzag(time_us.wrapping_sub(state.time_us)), &mut self.raw);
            self.raw.extend_from_slice(&digits);
            state.time_us = time_us;
            rest = &header[len..];
        }
        if let Some((before, number, after)) = number_behind(rest, VERSION_KEY) {
            let known = state.expected_version(before, number);
            self.text.extend_from_slice(before.as_bytes());
            if known {
                self.text.push(VERSION);
                rest = after;
            } else {
                rest = &rest[before.len()..];
            }
        }
        if let Some((before, digits)) = split_behind(rest, FINGERPRINT_KEY)
            && let Some(fingerprint) = digits.get(..64).and_then(unhex::<32>)
        {
            self.text.extend_from_slice(before.as_bytes());
            self.text.push(FINGERPRINT);
            self.raw.extend_from_slice(&fingerprint);
            rest = &digits[64..];
        }
        if let Some((before, number, after)) = number_behind(rest, LENGTH_KEY)
            && content.is_some_and(|len| len as u64 == number)
        {
            self.text.extend_from_slice(before.as_bytes());
            self.text.push(LENGTH);
            rest = after;
        }
        self.text.extend_from_slice(rest.as_bytes());
    }
}

impl State {
    /// Whether the version that follows this beginning of a header is the expected one. Remembers it.
    fn expected_version(&mut self, before: &str, version: u64) -> bool {
        let Some(worker) = worker_in(before.as_bytes()) else { return false };
        match self.versions.get_mut(worker) {
            Some(known) => {
                let expected = known.checked_add(1) == Some(version);
                *known = version;
                expected
            }
            None => {
                self.versions.insert(worker.to_vec(), version);
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
    let digits = unhex::<10>(&format!("{digits}0"))?;
    let len = time_at + time_len + 1;
    let mut expected = Vec::with_capacity(len);
    put_prefix(seq, time.0, &digits, &mut expected)?;
    (expected == header.as_bytes()[..len]).then_some((time.0, digits, len))
}

fn put_prefix(seq: u64, time_us: i64, digits: &[u8; 10], out: &mut Vec<u8>) -> Option<()> {
    use std::io::Write as _;
    let ms = u64::try_from(Timestamp(time_us).as_millis()).ok()?;
    let (high, low) = (u32::try_from(ms >> 16).ok()?, ms & 0xffff);
    write!(out, "{SEQ_KEY}{seq}{ID_KEY}{high:08x}-{low:04x}-7").ok()?;
    // 19 digits, so the last of the 20 is none.
    let mut hex = Vec::with_capacity(20);
    put_hex(digits, &mut hex);
    for part in [&hex[..3], b"-", &hex[3..7], b"-", &hex[7..19]] {
        out.extend_from_slice(part);
    }
    write!(out, "{TIME_KEY}{}\"", Timestamp(time_us)).ok()
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
        // Where the length of the content belongs, which is told behind the header.
        let mut length_at = None;
        let kind = loop {
            let plain = self.text.iter().position(|byte| *byte < 0x20)?;
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
                    out.extend_from_slice(known.to_string().as_bytes());
                }
                [LENGTH] => length_at = Some(out.len()),
                [FINGERPRINT] => put_hex(take_array::<32>(&mut self.raw)?, out),
                [kind] => break kind.checked_sub(KIND)?,
            }
        };
        self.remember_version(header_at, state, out);
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

    /// A version that stood in the header in digits, as [`Parts::add_header`] remembered it.
    fn remember_version(&self, header_at: usize, state: &mut State, out: &[u8]) {
        let Ok(header) = std::str::from_utf8(&out[header_at..]) else { return };
        if let Some((before, version, _)) = number_behind(header, VERSION_KEY) {
            state.expected_version(before, version);
        }
    }
}

/// The worker of a header, or of the beginning of one.
fn worker_in(header: &[u8]) -> Option<&[u8]> {
    let key = WORKER_KEY.as_bytes();
    let at = header.windows(key.len()).position(|window| window == key)? + key.len();
    let len = header[at..].iter().position(|byte| *byte == b'"')?;
    Some(&header[at..at + len])
}

/// What stands up to the end of a key, and what behind it.
fn split_behind<'a>(text: &'a str, key: &str) -> Option<(&'a str, &'a str)> {
    text.find(key).map(|at| text.split_at(at + key.len()))
}

/// The same, with the number behind the key taken off.
fn number_behind<'a>(text: &'a str, key: &str) -> Option<(&'a str, u64, &'a str)> {
    let (before, rest) = split_behind(text, key)?;
    let len = rest.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = rest[..len].parse().ok()?;
    (decimal_len(number) == len).then_some((before, number, &rest[len..]))
}

fn decimal_len(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let digits = digits.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn put_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(taken)
}

fn take_array<'a, const N: usize>(input: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(taken)
}

#[cfg(test)]
#[path = "frame_parts_tests.rs"]
mod tests;
