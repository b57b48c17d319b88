//! Events of retention: up to where history has expired.

use crate::{Digest, ids::Sequence};
use serde::{Deserialize, Serialize};

/// See [`Event::HistoryExpired`](super::Event::HistoryExpired).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryExpired {
    /// The last record that expired.
    pub through: Sequence,
    /// SHA-256 of the base: the file with which rebuilds begin from now on.
    pub base: Digest,
    /// The root of the Merkle tree over everything that expired.
    pub root: Digest,
    /// How many segments expired, since the time before.
    pub segments: u64,
    /// The size of their files.
    pub bytes: u64,
    /// What asked for it.
    pub policy: RetentionPolicy,
}

/// How much history is kept. Without a limit, all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// At most so old, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_s: Option<u64>,
    /// At most so many bytes of segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_bytes: Option<u64>,
}

impl RetentionPolicy {
    /// Whether nothing ever expires.
    pub fn keeps_all(&self) -> bool {
        self.keep_s.is_none() && self.keep_bytes.is_none()
    }
}

impl std::fmt::Display for RetentionPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.keep_s, self.keep_bytes) {
            (None, None) => write!(f, "keep all"),
            (Some(s), None) => write!(f, "keep {s} s"),
            (None, Some(bytes)) => write!(f, "keep {bytes} bytes"),
            (Some(s), Some(bytes)) => write!(f, "keep {s} s and {bytes} bytes"),
        }
    }
}
