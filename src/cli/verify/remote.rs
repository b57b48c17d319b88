//! A running service, which is asked for every block and believed in nothing.

use super::{Unverified, VerifyArgs, believed, progress};
use crate::{
    audit::{
        CheckpointError, Kind, Problem, SignedCheckpoint, TILE_WIDTH, TileKind, TilePath, Verdict,
        Verification, read_frame,
    },
    base::understand,
    cli::{
        archive,
        client::{Client, ClientError},
    },
};
use acta_events::{ContentBody, LogId, Sequence, block::Block, sha256};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use std::collections::BTreeSet;

pub(super) async fn verify(args: &VerifyArgs, client: &Client) -> Result<Verdict> {
    let key = args.key.as_ref().with_context(
        || "a service is verified with --key; `acta key show` prints the key where the log is",
    )?;
    let log = key.name().rsplit('/').next().and_then(|id| id.parse().ok()).map(LogId);
    let log = log.context("the name of the key does not end with the id of a log")?;
    let text = client.get_bytes("checkpoint", None).await?;
    let text = String::from_utf8_lossy(&text);
    if let Err(error @ CheckpointError::Malformed) = SignedCheckpoint::verify(&text, key) {
        return Err(client.not_acta(format_args!("its checkpoint: {error}")).into());
    }
    let mut newest = believed(&text, key, "the service's checkpoint")?;
    let mut verification = Verification::new(log, None)?;
    begin(log, &mut verification, client).await?;
    read(&mut verification, Sequence(newest.size()), client).await?;
    // Contents that were erased meanwhile are shown erased before the order is come to, and what has
    // expired just now is missing before the record that says so is signed.
    while (verification.lacks_orders() || verification.lacks_base()) && verification.is_intact() {
        let later = archive::signed(client).await?;
        let later = believed(later.text(), key, "the service's checkpoint")?;
        if Sequence(later.size()) <= verification.position() {
            break;
        }
        newest = later;
        read(&mut verification, Sequence(newest.size()), client).await?;
    }
    let mut signed = vec![("newest", newest)];
    signed.extend(args.earlier(Some(key))?.map(|earlier| ("earlier", earlier)));
    Ok(verification.finish(&signed, None)?)
}

/// Begins with the base, if the beginning has expired. Its leaves are in the tree.
async fn begin(log: LogId, verification: &mut Verification, client: &Client) -> Result<()> {
    let bytes = match client.get_bytes("v1/base", None).await {
        Ok(bytes) => bytes,
        Err(ClientError::Api { code, .. }) if code == "not_found" => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let base = understand(&bytes, log, None)
        .map_err(|error| Unverified::damaged(format!("the service's base: {error}")))?;
    let size = base.begin.seq.0;
    let mut progress = super::super::progress::Progress::new("tree", Some(size));
    let mut first = 0;
    while first < size {
        progress.at(first);
        let width = TILE_WIDTH.min(size - first);
        let path = TilePath { kind: TileKind::Hashes(0), number: first / TILE_WIDTH, width };
        let tile = client.get_bytes(&format!("tile/{path}"), None).await?;
        for leaf in tile.chunks_exact(32).take(width as usize) {
            let leaf = leaf.try_into().context("a tile has no whole hashes")?;
            verification.expired_leaf(tlog_tiles::Hash(leaf))?;
        }
        first += width;
    }
    progress.finish();
    Ok(verification.begin_behind(base)?)
}

/// Reads on up to a sequence.
async fn read(verification: &mut Verification, size: Sequence, client: &Client) -> Result<()> {
    let mut progress = progress(size.0);
    while verification.position() < size {
        let position = verification.position();
        progress.at(position.0);
        let bytes = client.get_bytes("v1/blocks", Some(("after", position.0))).await?;
        take_in(verification, bytes, size, client).await?;
        if verification.position() == position {
            verification.unreadable(position.next(), size, "the service has none");
        }
    }
    progress.finish();
    Ok(())
}

async fn take_in(
    verification: &mut Verification,
    mut bytes: Bytes,
    size: Sequence,
    client: &Client,
) -> Result<()> {
    use bytes::Buf as _;
    while bytes.has_remaining() {
        let frame = read_frame(&mut (&mut bytes).reader());
        let Ok(Some(frame)) = frame else {
            let what = "the service answered with something that is no block";
            return Err(Unverified::damaged(what).into());
        };
        let next = verification.position().next();
        match Block::decode(frame) {
            Ok(block) => {
                let block = look_at_contents(block, verification, client).await?;
                verification.take_in(&block, None)?;
            }
            Err(error) => {
                verification.unreadable(next, next, &error.to_string());
                return Ok(());
            }
        }
        if verification.position() >= size {
            break;
        }
    }
    Ok(())
}

/// Asks for the contents of a block that lie in files, and tells what is wrong with them. The
/// block without those that were erased since it was given.
async fn look_at_contents(
    block: Block,
    verification: &mut Verification,
    client: &Client,
) -> Result<Block> {
    let mut erased = BTreeSet::new();
    for record in &block.records {
        let Some(content) = &record.content else { continue };
        if content.body != ContentBody::File {
            continue;
        }
        let seq = record.seq();
        let what = match archive::content(client, seq).await {
            Ok(None) => {
                erased.insert(seq);
                continue;
            }
            Ok(Some(stored)) if sha256(&[&stored]) == content.digest => None,
            Ok(Some(_)) => Some(format!("content {} does not match its digest", content.digest)),
            Err(error) => match error.downcast_ref::<ClientError>() {
                // It says itself that it does not have it.
                Some(ClientError::Api { message, .. }) => Some(message.clone()),
                _ => return Err(error),
            },
        };
        verification.content_seen();
        if let Some(what) = what {
            let (kind, place) = (Kind::Damaged, Some(seq));
            verification.problem(Problem { kind, first: place, last: place, what });
        }
    }
    Ok(block.erased(|seq| erased.contains(&seq)).map_or(block, |(block, _)| block))
}
