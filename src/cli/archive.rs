//! `acta export --format archive`: the whole log in one file that `acta verify` and `acta import`
//! take.

use super::{
    client::{Call, Client, ClientError},
    output::{Output, note},
    progress::Progress,
};
use crate::audit::{ArchiveWriter, Erasures, SignedCheckpoint, read_frame};
use acta_events::{ContentBody, LogId, Sequence, block::Block};
use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Buf as _, Bytes};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Seek as _, Write},
    path::Path,
};

/// How often an archive is begun again because something in it was erased meanwhile.
const ATTEMPTS_MAX: u32 = 8;

/// Writes everything that the service has recorded so far, into a new file. Nothing is checked on
/// the way that `acta verify` would check again. Of contents that are erased meanwhile the archive
/// holds none whose order is in it: one that was written before is a reason to begin again.
pub(super) async fn export(file: Option<&Path>, client: &Client, out: &mut Output) -> Result<()> {
    let path = file.context("an archive is written to a file; name it")?;
    refuse_expired(client).await?;
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            anyhow!("{} is there already; remove it, or take another name", path.display())
        }
        _ => anyhow::Error::new(error).context(format!("{} cannot be made", path.display())),
    })?;
    for _ in 0..ATTEMPTS_MAX {
        let (written, size) = write(file, client).await?;
        file = written;
        if let Some(size) = size {
            file.sync_all()?;
            note(&format!(
                "{size} records; `acta verify {0} --key KEY` checks them, `acta import {0}` makes \
                 a data directory of them",
                path.display()
            ));
            return out.flush();
        }
        note("a content was erased that was written already; the archive is begun again");
        file.set_len(0)?;
        file.rewind()?;
    }
    std::fs::remove_file(path)?;
    bail!("contents are being erased all the time; export again when that is done")
}

/// Writes an archive from its beginning; the file, and up to where the archive goes. No end of one
/// that holds a content although the order to erase it is in it too.
async fn write(file: File, client: &Client) -> Result<(File, Option<Sequence>)> {
    let mut checkpoint = signed(client).await?;
    let log = checkpoint.origin().rsplit('/').next().and_then(|id| id.parse().ok()).map(LogId);
    let log = log.context("the origin of the checkpoint does not end with the id of a log")?;
    let mut archive = Archive {
        client,
        writer: ArchiveWriter::new(BufWriter::new(file), log)?,
        position: Sequence::ZERO,
        erasures: Erasures::default(),
    };
    archive.fill(Sequence(checkpoint.size())).await?;
    // Contents that were erased meanwhile are shown erased before the order is come to.
    while archive.erasures.lack_orders() {
        checkpoint = signed(client).await?;
        let end = Sequence(checkpoint.size());
        if end == archive.position {
            break;
        }
        archive.fill(end).await?;
    }
    let size = Some(archive.position).filter(|_| !archive.erasures.has_unheeded());
    let file = archive.writer.finish(checkpoint.text())?.into_inner();
    Ok((file.map_err(|error| error.into_error())?, size))
}

#[derive(Deserialize)]
struct Standing {
    head: u64,
    /// Up to where history has expired.
    #[serde(default)]
    expired_through: u64,
}

/// An archive holds every record from the first one on.
async fn refuse_expired(client: &Client) -> Result<()> {
    let call = Call::get(&["events"]).query("limit", Some(0));
    let through = client.send_as::<Standing>(call).await?.expired_through;
    if through > 0 {
        bail!(
            "history_expired: an archive holds all records, and 1 to {through} have expired. What is \
             left of the log, and the proofs of what is not, is in a snapshot: `acta snapshot create`. \
             `acta export` without --format archive writes the records that are there"
        );
    }
    Ok(())
}

#[derive(Deserialize)]
struct Proof {
    checkpoint: String,
}

/// A signed checkpoint over everything that is recorded by now.
pub(super) async fn signed(client: &Client) -> Result<SignedCheckpoint> {
    let standing: Standing = client.send_as(Call::get(&["events"]).query("limit", Some(0))).await?;
    let text = if standing.head == 0 {
        let text = client.get_bytes("checkpoint", None).await?;
        String::from_utf8(text.to_vec()).context("the checkpoint is not text")?
    } else {
        let call = Call::get(&["proofs", "inclusion"]).query("seq", Some(standing.head));
        client.send_as::<Proof>(call).await?.checkpoint
    };
    Ok(SignedCheckpoint::parse(&text).map_err(|error| client.not_acta(error))?)
}

/// The content of a record as it is stored; none if it was erased.
pub(super) async fn content(client: &Client, seq: Sequence) -> Result<Option<Bytes>> {
    match client.get_bytes("v1/contents", Some(("seq", seq.0))).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ClientError::Api { code, .. }) if code == "content_erased" => Ok(None),
        Err(error) => Err(anyhow!(error).context(format!("the content of record {seq}"))),
    }
}

struct Archive<'a, W> {
    client: &'a Client,
    writer: ArchiveWriter<W>,
    position: Sequence,
    erasures: Erasures,
}

impl<W: Write> Archive<'_, W> {
    /// Goes on with the blocks up to a sequence.
    async fn fill(&mut self, end: Sequence) -> Result<()> {
        let mut progress = Progress::new("sequence", Some(end.0));
        while self.position < end {
            progress.at(self.position.0);
            let before = self.position;
            let after = Some(("after", before.0));
            let mut frames = self.client.get_bytes("v1/blocks", after).await?;
            while frames.has_remaining() && self.position < end {
                let frame = read_frame(&mut (&mut frames).reader())
                    .with_context(|| format!("the blocks after {before}"))?;
                self.block(frame.context("a frame is empty")?).await?;
            }
            if self.position == before {
                return Err(self.client.not_acta(format_args!("no blocks after {before}")).into());
            }
        }
        progress.finish();
        Ok(())
    }

    /// A block, and its contents in files.
    async fn block(&mut self, stored: Bytes) -> Result<()> {
        let block = Block::decode(stored.clone())
            .with_context(|| format!("the block after {}", self.position))?;
        self.writer.block(&stored)?;
        let mut erased = BTreeSet::new();
        for record in &block.records {
            let body = record.content.as_ref().map(|content| &content.body);
            if body == Some(&ContentBody::File) {
                let content = content(self.client, record.seq()).await?;
                self.writer.content(content.as_deref())?;
                if content.is_none() {
                    erased.insert(record.seq());
                }
            }
        }
        self.position = block.last();
        let shown = block.erased(|seq| erased.contains(&seq)).map(|(block, _)| block);
        for record in &shown.as_ref().unwrap_or(&block).records {
            self.erasures.take_in(record);
        }
        Ok(())
    }
}
