//! `acta export --format archive`: the whole log in one file that `acta verify` takes.

use super::{
    client::Client,
    output::{Output, note},
    progress::Progress,
};
use crate::audit::{ARCHIVE_END, ArchiveHead, SignedCheckpoint, read_frame};
use acta_events::{LogId, Sequence, block::Block};
use anyhow::{Context as _, Result};
use bytes::{Buf as _, Bytes};
use std::{
    fs::OpenOptions,
    io::{BufWriter, Write},
    path::Path,
};

/// Writes up to the newest checkpoint of the service, into a new file. Nothing is checked on the
/// way that `acta verify` would check again.
pub(super) async fn export(file: Option<&Path>, client: &Client, out: &mut Output) -> Result<()> {
    let path = file.context("an archive is written to a file; name it")?;
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let file = file.with_context(|| format!("{}", path.display()))?;
    let mut writer = BufWriter::new(file);
    let text = client.get_bytes("checkpoint", None).await?;
    let text = String::from_utf8(text.to_vec()).context("the checkpoint is not text")?;
    let checkpoint = SignedCheckpoint::parse(&text).map_err(|error| client.not_acta(error))?;
    let log = checkpoint.origin().rsplit('/').next().and_then(|id| id.parse().ok()).map(LogId);
    let log = log.context("the origin of the checkpoint does not end with the id of a log")?;
    ArchiveHead { log, checkpoint: text }.write(&mut writer)?;
    let size = Sequence(checkpoint.size());
    let mut position = Sequence::ZERO;
    let mut progress = Progress::new("sequence", Some(size.0));
    while position < size {
        progress.at(position.0);
        let frames = client.get_bytes("v1/blocks", Some(("after", position.0))).await?;
        let before = position;
        position = append(&mut writer, frames, position, size)
            .with_context(|| format!("the blocks after {before}"))?;
        if position == before {
            return Err(client.not_acta(format_args!("no blocks after {before}")).into());
        }
    }
    progress.finish();
    writer.write_all(&ARCHIVE_END)?;
    let file = writer.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    note(&format!("{size} records; `acta verify {} --key KEY` checks them", path.display()));
    out.flush()
}

/// Appends frames up to a size; where they end.
fn append(
    writer: &mut impl Write,
    mut frames: Bytes,
    mut position: Sequence,
    size: Sequence,
) -> Result<Sequence> {
    while frames.has_remaining() && position < size {
        let before = frames.clone();
        let block = read_frame(&mut (&mut frames).reader())?.context("a frame is empty")?;
        writer.write_all(&before[..before.len() - frames.len()])?;
        position = Block::decode(block)?.last();
    }
    Ok(position)
}
