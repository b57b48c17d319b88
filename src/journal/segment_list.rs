//! The segments of a data directory, for whoever lists or checks them. They never change, so that it
//! makes no difference whether a service runs on it.

use super::{
    segment::{Segment, parse_name},
    segments::DIRECTORY,
};
use acta_events::{Digest, LogId, Sequence};
use serde::Serialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A segment, as its name and its footer tell.
#[derive(Clone, Debug, Serialize)]
pub struct ListedSegment {
    /// The first sequence in it.
    pub first: Sequence,
    /// The last sequence in it.
    pub last: Sequence,
    /// The size of the file.
    pub file_bytes: u64,
    /// What its footer says; none if it cannot be read.
    #[serde(flatten)]
    pub content: Option<SegmentContent>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip)]
    log: LogId,
}

/// What a footer says.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentContent {
    /// Number of blocks.
    pub blocks: u32,
    /// Their bytes before compression.
    pub block_bytes: u64,
    /// SHA-256 over all frames.
    pub digest: Digest,
}

impl ListedSegment {
    /// Reads all of the file and compares it with its checksums. What is in its blocks is not
    /// looked at. Returns what is wrong.
    pub fn verify(&self) -> io::Result<Option<String>> {
        match Segment::open(&self.path, self.log).and_then(|segment| segment.verify()) {
            Ok(()) => Ok(None),
            Err(error) => error.damage().map(Some),
        }
    }
}

/// The segments of a data directory in order. Names that are none of a segment are passed over.
pub fn segments(data: &Path, log: LogId) -> io::Result<Vec<ListedSegment>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(data.join(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let Some((first, last)) = entry.file_name().to_str().and_then(parse_name) else { continue };
        let path = entry.path();
        let opened = Segment::open(&path, log).map(|segment| SegmentContent {
            blocks: segment.footer().blocks,
            block_bytes: segment.footer().block_bytes,
            digest: segment.footer().body,
        });
        let (content, damage) = match opened {
            Ok(content) => (Some(content), None),
            Err(error) => (None, error.damage().map(Some)?),
        };
        let file_bytes = entry.metadata()?.len();
        found.push(ListedSegment { first, last, file_bytes, content, damage, path, log });
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}
