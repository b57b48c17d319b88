//! The cursor: an opaque string that names a position *and* the history behind it.
//!
//! ```text
//! version u8 (1) · log id [16] · epoch u32 · sequence u64 · first 8 bytes of the record digest
//! ```
//!
//! big-endian, then base64url without padding. Sequence 0, the beginning, has eight zero
//! bytes for its digest.

use crate::{
    Digest,
    ids::{Epoch, LogId, Sequence},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{fmt, str::FromStr};
use uuid::Uuid;

const CURSOR_BYTES: usize = 1 + 16 + 4 + 8 + 8;
const CURSOR_VERSION: u8 = 1;

/// A position in the log, with what is needed to notice that it is not our history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The log.
    pub log: LogId,
    /// The incarnation of the log in which it was given out.
    pub epoch: Epoch,
    /// The last sequence that was read; 0 for none.
    pub seq: Sequence,
    /// The beginning of the record digest at that sequence.
    pub digest: [u8; 8],
}

/// A text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: use one exactly as it was given out, or leave it out")]
pub struct CursorMalformed;

impl Cursor {
    /// The cursor after the record with this sequence and digest.
    pub fn new(log: LogId, epoch: Epoch, seq: Sequence, digest: Digest) -> Self {
        let mut short = [0; 8];
        if seq > Sequence::ZERO {
            short.copy_from_slice(&digest.0[..8]);
        }
        Self { log, epoch, seq, digest: short }
    }

    /// The beginning of the log, before any record.
    pub fn beginning(log: LogId, epoch: Epoch) -> Self {
        Self::new(log, epoch, Sequence::ZERO, Digest::ZERO)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; CURSOR_BYTES];
        bytes[0] = CURSOR_VERSION;
        bytes[1..17].copy_from_slice(self.log.0.as_bytes());
        bytes[17..21].copy_from_slice(&self.epoch.0.to_be_bytes());
        bytes[21..29].copy_from_slice(&self.seq.0.to_be_bytes());
        bytes[29..].copy_from_slice(&self.digest);
        let mut text = [0; CURSOR_BYTES.div_ceil(3) * 4];
        let len = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..len]).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Cursor {
    type Err = CursorMalformed;

    fn from_str(text: &str) -> Result<Self, CursorMalformed> {
        // A longer text is no cursor, and is not worth the memory of decoding it.
        if text.len() > CURSOR_BYTES * 2 {
            return Err(CursorMalformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorMalformed)?;
        let bytes: [u8; CURSOR_BYTES] = bytes.try_into().map_err(|_| CursorMalformed)?;
        let field = |range: std::ops::Range<usize>| bytes[range].iter().copied();
        let number = |range| field(range).fold(0_u64, |n, byte| (n << 8) | u64::from(byte));
        let mut log = [0; 16];
        log.copy_from_slice(&bytes[1..17]);
        let mut digest = [0; 8];
        digest.copy_from_slice(&bytes[29..]);
        let cursor = Self {
            log: LogId(Uuid::from_bytes(log)),
            epoch: Epoch(u32::try_from(number(17..21)).map_err(|_| CursorMalformed)?),
            seq: Sequence(number(21..29)),
            digest,
        };
        let sound = bytes[0] == CURSOR_VERSION
            && cursor.epoch.0 > 0
            && (cursor.seq > Sequence::ZERO || cursor.digest == [0; 8]);
        if sound { Ok(cursor) } else { Err(CursorMalformed) }
    }
}
