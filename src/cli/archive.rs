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
    fs::{File, Permissions},
    io::{self, BufWriter, Seek as _, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};
use tempfile::NamedTempFile;

/// How often an archive is begun again because something in it was erased meanwhile.
const ATTEMPTS_MAX: u32 = 8;

/// Writes everything that the service has recorded so far, into a new file. Nothing is checked on
/// the way that `acta verify` would check again. Of contents that are erased meanwhile the archive
/// holds none whose order is in it: one that was written before is a reason to begin again.
pub(super) async fn export(file: Option<&Path>, client: &Client, out: &mut Output) -> Result<()> {
    let path = file.context("an archive is written to a file; name it")?;
    refuse_expired(client).await?;
    let shown = path.display();
    let occupied = || anyhow!("{shown} is there already; remove it, or take another name");
    if path.symlink_metadata().is_ok() {
        return Err(occupied());
    }
    let staged = stage(path).with_context(|| format!("{shown} cannot be made"))?;
    let mut file = staged.as_file();
    for _ in 0..ATTEMPTS_MAX {
        let written = write(file, path, client).await;
        let size = written.with_context(|| format!("{shown} was not made"))?;
        if let Some(size) = size {
            file.sync_all().with_context(|| unwritten(path))?;
            staged.persist_noclobber(path).map_err(|error| match error.error.kind() {
                io::ErrorKind::AlreadyExists => occupied(),
                _ => anyhow::Error::new(error.error).context(format!("{shown} cannot be made")),
            })?;
            note(&format!(
                "{size} records; `acta verify {shown} --key KEY` checks them, `acta import \
                 {shown}` makes a data directory of them"
            ));
            return out.flush();
        }
        note("a content was erased that was written already; the archive is begun again");
        file.set_len(0)?;
        file.rewind()?;
    }
    bail!("contents are being erased all the time; export again when that is done")
}

/// A file beside the one that is to be, which takes its name when it is complete. Dropped before
/// that, it leaves nothing.
fn stage(path: &Path) -> io::Result<NamedTempFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".unfinished")
        // As any file that is made, less what the umask takes.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(beside.unwrap_or(Path::new(".")))
}

fn unwritten(path: &Path) -> String {
    format!("{} cannot be written", path.display())
}

/// Writes an archive from its beginning; up to where the archive goes. No end of one
/// that holds a content although the order to erase it is in it too.
async fn write(file: &File, path: &Path, client: &Client) -> Result<Option<Sequence>> {
    let mut checkpoint = signed(client).await?;
    let log = checkpoint.origin().rsplit('/').next().and_then(|id| id.parse().ok()).map(LogId);
    let log = log.context("the origin of the checkpoint does not end with the id of a log")?;
    let mut archive = Archive {
        client,
        path,
        writer: ArchiveWriter::new(BufWriter::new(file), log).with_context(|| unwritten(path))?,
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
    let finished = archive.writer.finish(checkpoint.text());
    finished.and_then(|mut file| file.flush()).with_context(|| unwritten(path))?;
    Ok(size)
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
    path: &'a Path,
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
        self.writer.block(&stored).with_context(|| unwritten(self.path))?;
        let mut erased = BTreeSet::new();
        for record in &block.records {
            let body = record.content.as_ref().map(|content| &content.body);
            if body == Some(&ContentBody::File) {
                let content = content(self.client, record.seq()).await?;
                let written = self.writer.content(content.as_deref());
                written.with_context(|| unwritten(self.path))?;
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
