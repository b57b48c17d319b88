//! The segments of a data directory, for whoever lists or checks them. They never change, so that it
//! makes no difference whether a service runs on it.

use super::{
    Head, OpenError,
    head_file::{self, Entry},
    segment::{Segment, SegmentError, file_name, parse_name},
    segments::{DIRECTORY, Segments},
    sled_copy::store_name,
    sled_store::{RealDisk, Store},
};
use crate::data_dir::DataDir;
use acta_events::{Digest, LogId, Sequence};
use bytes::Bytes;
use serde::Serialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The first store of a data directory.
const STORE: u32 = 1;

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

impl ListedSegment {
    /// The name of the file.
    pub fn name(&self) -> String {
        file_name(self.first, self.last)
    }

    /// The file itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives its blocks in order, as they are stored and unverified, to `each`. Returns what is wrong
    /// where one cannot be read, with the sequence from which on.
    pub fn each_block<E: From<io::Error>>(
        &self,
        mut each: impl FnMut(Bytes) -> Result<(), E>,
    ) -> Result<Option<(Sequence, String)>, E> {
        let damaged = |at, error: SegmentError| match error.damage() {
            Ok(why) => Ok(Some((at, why))),
            Err(error) => Err(E::from(error)),
        };
        let segment = match Segment::open(&self.path, self.log) {
            Ok(segment) => segment,
            Err(error) => return damaged(self.first, error),
        };
        for number in 0..segment.frames() {
            match segment.frame(number) {
                Ok(frame) => frame.blocks().try_for_each(&mut each)?,
                Err(error) => return damaged(segment.frame_begins(number), error),
            }
        }
        Ok(None)
    }
}

/// Makes a data directory that has segments and nothing else ready to be opened: an empty store, and
/// a HEAD that names the end of the segments. Returns that.
pub fn begin_behind_segments(data: &DataDir) -> Result<Head, OpenError> {
    let (dir, log) = (data.path(), data.log_id());
    let segments = Segments::open(dir, log)?;
    segments.check_joined().map_err(OpenError::Damaged)?;
    let end = segments.end().map_err(OpenError::Damaged)?;
    let failed = |why: String| OpenError::Io(io::Error::other(why));
    let store = Store::open(&dir.join(store_name(STORE)), true, Arc::new(RealDisk))
        .map_err(|error| failed(format!("the store: {error:?}")))?;
    store.sync().map_err(|fault| failed(fault.to_string()))?;
    drop(store);
    head_file::replace(dir, Entry::new(log, STORE, end))?;
    Ok(end)
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
