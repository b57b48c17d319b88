//! Projection checkpoints: what bounds the work of a start.
//!
//! A checkpoint is derived from the log. It is written aside, synced and renamed, so that it
//! is there whole or not at all; one that does not match its own digest, or whose position is
//! not in the log, is passed over and the next older one is taken.
//!
//! ```text
//! line 1   {"format":3,"log_id":…,"seq":…,"record":<digest at seq>,"sha256":<of all that follows>}
//! rest     the projections, as JSON, compressed as one zstd frame
//! ```
//!
//! Every worker that there ever was is in it, so it grows with history, slowly; compressed it takes a tenth.
//! In format 2 the projections were not compressed.

#[cfg(test)]
mod tests;

use acta_events::{Digest, LogId, Sequence, sha256};
use acta_projections::Projections;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

const FORMAT: u32 = 3;
const FORMAT_PLAIN: u32 = 2;
const ZSTD_LEVEL: i32 = 3;
/// What JSON is gathered in before it is compressed.
const BUFFER_BYTES: usize = 64 * 1024;

/// How many of the newest checkpoints are all kept; older ones are thinned out with age.
const NEWEST_KEPT: usize = 3;
/// No two that follow each other are further apart than this part of the log, as long as they were written
/// that often: so much is folded at most to tell what was at any moment.
const LOG_PER_GAP: u64 = 32;

/// The directory of checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Line {
    format: u32,
    log_id: LogId,
    seq: Sequence,
    record: Digest,
    sha256: Digest,
}

impl Checkpoints {
    /// Uses a directory, which is made when the first checkpoint is written.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Writes a checkpoint and thins out older ones. Blocking.
    pub fn write(&self, log: LogId, projections: &Projections) -> io::Result<()> {
        let seq = projections.position();
        let Some(record) = projections.tip.digest else { return Ok(()) };
        let body = compressed(projections)?;
        let line = Line { format: FORMAT, log_id: log, seq, record, sha256: sha256(&[&body]) };
        fs::create_dir_all(&self.dir)?;
        let path = self.path(seq);
        let aside = path.with_extension("tmp");
        let mut file = File::create(&aside)?;
        serde_json::to_writer(&mut file, &line)?;
        file.write_all(b"\n")?;
        file.write_all(&body)?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(&self.dir)?.sync_all()?;
        self.thin_out(seq)
    }

    /// The newest usable checkpoint at or before `limit`.
    pub fn newest(
        &self,
        log: LogId,
        limit: Sequence,
        record_digest_at: impl Fn(Sequence) -> Option<Digest>,
    ) -> Option<Projections> {
        let fits = self.positions().into_iter().filter(|seq| *seq <= limit);
        for seq in fits.rev() {
            match read(&self.path(seq), log) {
                Ok(projections)
                    if projections.position() == seq
                        && projections.tip.digest.is_some()
                        && projections.tip.digest == record_digest_at(seq) =>
                {
                    return Some(projections);
                }
                Ok(_) => {
                    tracing::warn!(%seq, "a checkpoint is not of this history; an older one is used")
                }
                Err(error) => {
                    tracing::warn!(%seq, %error, "a checkpoint cannot be used; an older one is");
                }
            }
        }
        None
    }

    /// One checkpoint, or why it cannot be used.
    pub fn load(&self, log: LogId, seq: Sequence) -> Result<Projections, String> {
        let projections = read(&self.path(seq), log)?;
        let position = projections.position();
        if position == seq { Ok(projections) } else { Err(format!("it stands at {position}")) }
    }

    /// The positions of all checkpoints, oldest first.
    pub fn positions(&self) -> Vec<Sequence> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut positions: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                Some(Sequence(name.to_str()?.strip_suffix(".ckpt")?.parse().ok()?))
            })
            .collect();
        positions.sort_unstable();
        positions
    }

    /// The file of a checkpoint.
    pub fn path(&self, seq: Sequence) -> PathBuf {
        self.dir.join(format!("{:020}.ckpt", seq.0))
    }

    /// Removes those that stand behind a record.
    pub fn remove_behind(&self, last: Sequence) -> io::Result<()> {
        let mut behind = self.positions().into_iter().filter(|seq| *seq > last);
        behind.try_for_each(|seq| fs::remove_file(self.path(seq)))
    }

    /// Removes those that stand at a record or before it.
    pub fn remove_before(&self, seq: Sequence) -> io::Result<()> {
        let mut before = self.positions().into_iter().filter(|position| *position <= seq);
        before.try_for_each(|position| match fs::remove_file(self.path(position)) {
            // They are thinned out at the same time.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// Keeps the newest and the oldest, and of those between only what is needed for each to
    /// be at most twice as old as the one after it, and for all to lie close enough.
    fn thin_out(&self, head: Sequence) -> io::Result<()> {
        let mut positions = self.positions();
        positions.reverse();
        let mut newer = head;
        for (n, seq) in positions.iter().enumerate() {
            let gap_max = (head.0.saturating_sub(newer.0)).min(head.0 / LOG_PER_GAP);
            let older = positions.get(n + 1);
            let spare = older.is_some_and(|older| newer.0.saturating_sub(older.0) <= gap_max);
            if n >= NEWEST_KEPT && spare {
                match fs::remove_file(self.path(*seq)) {
                    // It may have expired meanwhile.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            } else {
                newer = *seq;
            }
        }
        Ok(())
    }
}

fn compressed(projections: &Projections) -> io::Result<Vec<u8>> {
    let encoder = zstd::stream::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    let mut json = BufWriter::with_capacity(BUFFER_BYTES, encoder);
    serde_json::to_writer(&mut json, projections)?;
    json.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
}

fn read(path: &Path, log: LogId) -> Result<Projections, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let split = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no first line")?;
    let (line, body) = (&bytes[..split], &bytes[split + 1..]);
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if line.format != FORMAT && line.format != FORMAT_PLAIN {
        return Err(format!("it has format {}, not {FORMAT}", line.format));
    }
    if line.log_id != log {
        return Err("it is of another log".into());
    }
    if line.sha256 != sha256(&[body]) {
        return Err("it does not match its digest".into());
    }
    let json = match line.format {
        FORMAT_PLAIN => Cow::Borrowed(body),
        _ => zstd::stream::decode_all(body).map_err(|error| error.to_string())?.into(),
    };
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}
