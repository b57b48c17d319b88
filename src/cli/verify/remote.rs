//! A running service, which is asked for every block and believed in nothing.

use super::{Unverified, VerifyArgs, believed, progress};
use crate::{
    audit::{Verdict, Verification, read_frame},
    cli::client::Client,
};
use acta_events::{LogId, Sequence, block::Block};
use anyhow::{Context as _, Result};
use bytes::Bytes;

pub(super) async fn verify(args: &VerifyArgs, client: &Client) -> Result<Verdict> {
    let key = args.key.as_ref().with_context(
        || "a service is verified with --key; `acta key show` prints the key where the log is",
    )?;
    let text = client.get_bytes("checkpoint", None).await?;
    let newest = believed(&String::from_utf8_lossy(&text), key, "the service's checkpoint")?;
    let log = key.name().rsplit('/').next().and_then(|id| id.parse().ok()).map(LogId);
    let log = log.context("the name of the key does not end with the id of a log")?;
    let size = newest.size();
    let mut signed = vec![("newest", newest)];
    signed.extend(args.earlier(Some(key))?.map(|earlier| ("earlier", earlier)));
    let mut verification = Verification::new(log, None)?;
    let mut progress = progress(size);
    while verification.position().0 < size {
        let position = verification.position();
        progress.at(position.0);
        let bytes = client.get_bytes("v1/blocks", Some(("after", position.0))).await?;
        take_in(&mut verification, bytes, Sequence(size))?;
        if verification.position() == position {
            verification.unreadable(position.next(), Sequence(size), "the service has none");
        }
    }
    progress.finish();
    Ok(verification.finish(&signed, None)?)
}

fn take_in(verification: &mut Verification, mut bytes: Bytes, size: Sequence) -> Result<()> {
    use bytes::Buf as _;
    while bytes.has_remaining() {
        let frame = read_frame(&mut (&mut bytes).reader());
        let Ok(Some(frame)) = frame else {
            let what = "the service answered with something that is no block";
            return Err(Unverified::damaged(what).into());
        };
        let next = verification.position().next();
        match Block::decode(frame) {
            Ok(block) => verification.take_in(&block, None)?,
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
