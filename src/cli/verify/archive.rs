//! A log in one file.

use super::{Unverified, VerifyArgs, believed, progress};
use crate::{
    audit::{
        ArchiveError, ArchiveReader, ArchiveSink, Kind, Problem, SignedCheckpoint, Verdict,
        Verification, VerifierKey, look_at_content, read_archive,
    },
    cli::progress::Progress,
    content::ContentError,
};
use acta_events::{Digest, Sequence, block::Block};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

pub(super) fn verify(path: &Path, args: &VerifyArgs) -> Result<Verdict> {
    let key = args.key.as_ref().with_context(
        || "an archive is verified with --key; `acta key show` prints the key where the log is",
    )?;
    let earlier = args.earlier(Some(key))?;
    let (mut archive, bytes) = open(path)?;
    let mut looking = Looking { progress: progress(bytes) };
    let (verdict, _) = check(&mut archive, &mut looking, key, earlier)?;
    looking.progress.finish();
    Ok(verdict)
}

/// Opens an archive; it, and how large its file is.
pub(in crate::cli) fn open(path: &Path) -> Result<(ArchiveReader<impl BufRead>, u64)> {
    let shown = path.display();
    let file = File::open(path).with_context(|| {
        format!("{shown} cannot be read; an archive is what `acta export --format archive` writes")
    })?;
    let bytes = file.metadata().with_context(|| format!("{shown}"))?.len();
    let archive = ArchiveReader::open(BufReader::with_capacity(1 << 20, file));
    Ok((archive.map_err(|error| told(&format!("{shown}"), error))?, bytes))
}

/// Reads an archive to its end: what was found, and the checkpoint in it, if there is one that is
/// to be believed.
pub(in crate::cli) fn check<S: ArchiveSink<Error = anyhow::Error>>(
    archive: &mut ArchiveReader<impl BufRead>,
    sink: &mut S,
    key: &VerifierKey,
    earlier: Option<SignedCheckpoint>,
) -> Result<(Verdict, Option<SignedCheckpoint>)> {
    let mut verification = Verification::new(archive.log(), None)?;
    let text = read_archive(archive, &mut verification, sink)?;
    let newest = text.map(|text| believed(&text, key, "the checkpoint in it"));
    let newest = match newest.transpose() {
        Ok(newest) => newest,
        Err(error) => {
            let unverified = error.downcast_ref::<Unverified>();
            let kind = match unverified {
                Some(unverified) if unverified.is_contradiction() => Kind::Contradicted,
                Some(_) => Kind::Damaged,
                None => return Err(error),
            };
            let what = error.to_string();
            verification.problem(Problem { kind, first: None, last: None, what });
            None
        }
    };
    if let Some(newest) = &newest {
        verification.ends_with(newest);
    }
    let mut signed = Vec::new();
    signed.extend(newest.clone().map(|newest| ("newest", newest)));
    signed.extend(earlier.map(|earlier| ("earlier", earlier)));
    Ok((verification.finish(&signed, None)?, newest))
}

/// Keeps nothing.
struct Looking {
    progress: Progress,
}

impl ArchiveSink for Looking {
    type Error = anyhow::Error;

    fn content(
        &mut self,
        digest: Digest,
        stored: &mut dyn Read,
    ) -> Result<Result<(), ContentError>> {
        Ok(look_at_content(digest, stored)?)
    }

    fn block(&mut self, _: &Block, _: Bytes) -> Result<()> {
        Ok(())
    }

    fn at(&mut self, _: Sequence, bytes: u64) {
        self.progress.at(bytes);
    }
}

fn told(what: &str, error: ArchiveError) -> anyhow::Error {
    match error {
        ArchiveError::Io(error) => anyhow::Error::new(error).context(what.to_owned()),
        // Nothing is wrong with it; it is only not understood here.
        error @ ArchiveError::Newer(_) => anyhow::anyhow!("{what}: {error}"),
        error => {
            Unverified::damaged(format!("{what}: {error}; nothing is certainly intact")).into()
        }
    }
}
