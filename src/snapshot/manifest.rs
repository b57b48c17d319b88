//! What a snapshot consists of.

use super::{FORMAT, SnapshotError};
use crate::base;
use acta_events::{Digest, Epoch, LogId, Sequence, Timestamp, sha256};
use serde::{Deserialize, Serialize};

/// The longest name of a part.
const NAME_MAX: usize = 160;

/// One file of a snapshot. Before it was written its SHA-256 is not known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Its path within the snapshot.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 over all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Of a segment: the digest that its own footer has over its frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<Digest>,
    /// Where it begins, in a snapshot that is one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// It is only in the snapshot that this one was taken on top of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_base: bool,
}

impl Part {
    /// One that is not written yet.
    pub fn new(name: impl Into<String>, bytes: u64) -> Self {
        Self { name: name.into(), bytes, sha256: None, segment: None, at: None, in_base: false }
    }

    /// Whether its name stays within a directory.
    pub(super) fn has_fair_name(&self) -> bool {
        let fair = |piece: &str| {
            !piece.is_empty()
                && !piece.starts_with('.')
                && piece.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        };
        self.name.len() <= NAME_MAX && self.name != Manifest::NAME && self.name.split('/').all(fair)
    }
}

/// A log at one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of the snapshot.
    pub format: u32,
    /// The version of Acta that took it.
    pub acta: String,
    /// The log.
    pub log_id: LogId,
    /// When the log was made.
    pub created: Timestamp,
    /// The incarnation of the log.
    pub epoch: Epoch,
    /// The last record in it.
    pub sequence: Sequence,
    /// The digest of that record.
    pub record: Digest,
    /// When it was taken.
    pub taken: Timestamp,
    /// All of its parts.
    pub parts: Vec<Part>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    acta_snapshot: u32,
    sha256: Digest,
}

impl Manifest {
    /// The name of its file.
    pub const NAME: &'static str = "manifest.json";

    /// Two lines: the digest of the second, and what is in the snapshot.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let body = serde_json::to_vec(self)?;
        let line = Line { acta_snapshot: self.format, sha256: sha256(&[&body]) };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        bytes.extend(body);
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads one, and believes it if it matches its digest.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let damaged = |why: &str| SnapshotError::Damaged(format!("the manifest {why}"));
        let split = bytes.iter().position(|byte| *byte == b'\n');
        let (line, body) = bytes.split_at(split.ok_or(damaged("is cut short"))?);
        let line: Line =
            serde_json::from_slice(line).map_err(|_| damaged("does not begin as one does"))?;
        if line.acta_snapshot > FORMAT {
            return Err(SnapshotError::Newer(line.acta_snapshot));
        }
        let body = body[1..].strip_suffix(b"\n").ok_or(damaged("is cut short"))?;
        if sha256(&[body]) != line.sha256 {
            return Err(damaged("does not match its SHA-256"));
        }
        let manifest: Self =
            serde_json::from_slice(body).map_err(|_| damaged("cannot be understood"))?;
        let sound = |part: &Part| part.sha256.is_some() && part.has_fair_name();
        match manifest.parts.iter().find(|part| !sound(part)) {
            _ if manifest.format != line.acta_snapshot => Err(damaged("has two formats")),
            Some(_) => Err(damaged("names a part that there cannot be")),
            None => Ok(manifest),
        }
    }

    /// The part of that name.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// The last record that has expired; zero if the log is there from the first one on.
    pub fn expired(&self) -> Sequence {
        let begin = |part: &Part| {
            let name = part.name.strip_prefix(base::DIRECTORY)?.strip_prefix('/')?;
            name.strip_suffix(base::SUFFIX)?.parse().ok().map(Sequence)
        };
        self.parts.iter().find_map(begin).unwrap_or(Sequence::ZERO)
    }

    /// The name of the part with the base.
    pub(super) fn base_name(expired: Sequence) -> String {
        format!("{}/{:020}{}", base::DIRECTORY, expired.0, base::SUFFIX)
    }

    /// How many bytes all parts have together.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}
