//! A log in one file.

use super::{Unverified, VerifyArgs, believed, progress};
use crate::audit::{ArchiveError, ArchiveHead, Verdict, Verification, read_frame};
use acta_events::{Sequence, block::Block};
use anyhow::{Context as _, Result};
use std::{fs::File, io::BufReader, path::Path};

pub(super) fn verify(path: &Path, args: &VerifyArgs) -> Result<Verdict> {
    let shown = path.display();
    let key = args.key.as_ref().with_context(
        || "an archive is verified with --key; `acta key show` prints the key where the log is",
    )?;
    let file = File::open(path).with_context(|| format!("{shown}"))?;
    let mut input = BufReader::with_capacity(1 << 20, file);
    let head = ArchiveHead::read(&mut input).map_err(|error| told(&format!("{shown}"), error))?;
    let newest = believed(&head.checkpoint, key, &format!("the checkpoint in {shown}"))?;
    let size = newest.size();
    let mut signed = vec![("newest", newest)];
    signed.extend(args.earlier(Some(key))?.map(|earlier| ("earlier", earlier)));
    let mut verification = Verification::new(head.log, None)?;
    let mut progress = progress(size);
    loop {
        let next = verification.position().next();
        let bytes = match read_frame(&mut input) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(ArchiveError::Io(error)) => return Err(error.into()),
            Err(error) => {
                verification.unreadable(next, Sequence(size).max(next), &error.to_string());
                break;
            }
        };
        match Block::decode(bytes) {
            Ok(block) => verification.take_in(&block, None)?,
            // How many records it held is not known; the next block tells.
            Err(error) => verification.unreadable(next, next, &error.to_string()),
        }
        progress.at(verification.position().0);
    }
    progress.finish();
    Ok(verification.finish(&signed, None)?)
}

fn told(what: &str, error: ArchiveError) -> anyhow::Error {
    match error {
        ArchiveError::Io(error) => anyhow::Error::new(error).context(what.to_owned()),
        error => {
            Unverified::damaged(format!("{what}: {error}; nothing is certainly intact")).into()
        }
    }
}
