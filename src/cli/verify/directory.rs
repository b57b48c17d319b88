//! The data directory of a stopped service.

use super::{VerifyArgs, ahead, progress};
use crate::{
    audit::{
        self, KeyError, Kind, LogKey, NotaryError, Problem, SignedCheckpoint, TreeError, Verdict,
        Verification, VerifierKey,
    },
    base::{BaseError, DIRECTORY as BASES},
    checkpoint::Checkpoints,
    cli::rebuild::StoppedLog,
    content::ContentStore,
    data_dir::{DataDir, DataDirError},
    index::Comparison,
    journal::{self, Journal, OpenError, ReadError, ReadLimits, SEGMENTS},
};
use acta_events::{LogId, Sequence, block::Block};
use anyhow::Result;
use std::{fs, ops::ControlFlow, path::Path, sync::Arc};

/// Few enough that they are still in the processor's cache when they are looked at.
const READ: ReadLimits = ReadLimits { blocks: 8, bytes: 256 << 10 };

type Signed = Vec<(&'static str, SignedCheckpoint)>;

pub(super) fn verify(path: &Path, args: &VerifyArgs) -> Result<Verdict> {
    let stopped = match StoppedLog::open_to_verify(path) {
        Ok(Ok(stopped)) => stopped,
        Ok(Err(error)) => return unopened(path, &error),
        Err(error) => return Err(unidentified(path, error)),
    };
    let data = &stopped.data;
    let checkpoints = Checkpoints::new(data.subpath("checkpoints"));
    let mut verification = Verification::new(data.log_id(), Some(checkpoints))?;
    let (key, mut signed) = signed(&stopped, args, &mut verification)?;
    signed.extend(args.earlier(key.as_ref())?.map(|earlier| ("earlier", earlier)));
    verification.beside_index(Comparison::open(&data.subpath("index"))?);
    begin(&stopped, &mut verification)?;
    let contents = ContentStore::new(data.content_path());
    let unreadable = read(stopped.journal(), &mut verification, &contents)?;
    verification.finish_index()?;
    check_segments(path, data.log_id(), &unreadable, &mut verification)?;
    Ok(verification.finish(&signed, Some(&data.subpath(audit::TREE)))?)
}

/// Begins with the base, if the beginning has expired.
fn begin(stopped: &StoppedLog, verification: &mut Verification) -> Result<()> {
    let base = match stopped.journal().base() {
        Ok(None) => return Ok(()),
        Ok(Some(base)) => base,
        Err(BaseError::Io(error)) => return Err(error.into()),
        Err(error) => {
            let what = format!("damaged: {error}; nothing is certainly intact");
            return Err(super::Unverified::damaged(what).into());
        }
    };
    let tree = stopped.data.subpath(audit::TREE);
    let read = audit::each_leaf(&tree, base.begin.seq.0, |leaf| verification.expired_leaf(leaf));
    match read {
        // What is missing is told of when the leaves are compared with the base.
        Ok(()) | Err(TreeError::Damaged { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(verification.begin_behind(base)?)
}

/// Files of segments have checksums of their own, over what reading their blocks does not look at
/// too. Where blocks were already found damaged, the first of them is what is told.
fn check_segments(
    path: &Path,
    log: LogId,
    unreadable: &[(Sequence, Sequence)],
    verification: &mut Verification,
) -> Result<()> {
    for segment in journal::segments(path, log)? {
        let (first, last) = (segment.first, segment.last);
        // It is on its way out.
        let expired = last <= verification.begins_behind();
        if expired || unreadable.iter().any(|(from, to)| *from <= last && first <= *to) {
            continue;
        }
        if let Some(why) = segment.verify()? {
            let (first, last) = (Some(first), Some(last));
            let what = format!("their segment: {why}; their blocks are intact");
            verification.problem(Problem { kind: Kind::Damaged, first, last, what });
        }
    }
    Ok(())
}

/// Reads everything that can be read, and returns what cannot.
fn read(
    journal: &dyn Journal,
    verification: &mut Verification,
    contents: &ContentStore,
) -> Result<Vec<(Sequence, Sequence)>> {
    let mut unreadable = Vec::new();
    let head = journal.head().seq;
    let mut progress = progress(head.0);
    ahead::read(journal, |blocks| {
        take_in(&blocks, verification, contents)?;
        progress.at(verification.position().0);
        let went_on = blocks.last().is_some_and(|last| last.last() == verification.position());
        Ok(if went_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    // One after the other, where there is one processor, and where something is damaged.
    while verification.position() < head {
        let position = verification.position();
        progress.at(position.0);
        match journal.read(position, READ) {
            Ok(blocks) if blocks.is_empty() => {
                verification.unreadable(position.next(), head, "there are no blocks");
            }
            Ok(blocks) => take_in(&blocks, verification, contents)?,
            Err(ReadError::Damaged { first, last, why }) => {
                unreadable.push((first, last));
                verification.unreadable(first, last.max(position.next()), &why);
            }
            Err(error @ ReadError::Io { .. }) => return Err(error.into()),
        }
    }
    progress.finish();
    Ok(unreadable)
}

fn take_in(
    blocks: &[Arc<Block>],
    verification: &mut Verification,
    contents: &ContentStore,
) -> Result<()> {
    let position = verification.position();
    for block in blocks.iter().filter(|block| block.last() > position) {
        verification.take_in(block, Some(contents))?;
    }
    Ok(())
}

/// The key to verify with, and the newest checkpoint of the directory itself.
fn signed(
    stopped: &StoppedLog,
    args: &VerifyArgs,
    verification: &mut Verification,
) -> Result<(Option<VerifierKey>, Signed)> {
    let data = &stopped.data;
    let mut tell = |kind, what: String| {
        verification.problem(Problem { kind, first: None, last: None, what });
    };
    let own = match LogKey::load(&data.subpath(audit::KEY)) {
        Ok(key) => Some(key.verifier().clone()),
        Err(KeyError::None) => None,
        Err(KeyError::Io(error)) => return Err(error.into()),
        Err(error) => {
            tell(Kind::Damaged, error.to_string());
            None
        }
    };
    if let (Some(given), Some(own)) = (&args.key, &own)
        && given != own
    {
        let what = "the file log.key holds another key than the one to verify with: a service \
                    would not start with it, or sign with a key that nobody knows";
        tell(Kind::Damaged, what.into());
    }
    let file = data.subpath(audit::CHECKPOINT);
    let has_own = own.is_some();
    let Some(key) = args.key.clone().or(own) else {
        if file.exists() {
            tell(
                Kind::Damaged,
                "the file log.key is missing, so that nothing says who signed".into(),
            );
        }
        return Ok((None, Signed::new()));
    };
    let newest = match audit::read_checkpoint(&file, &key) {
        Ok(newest) => newest,
        Err(NotaryError::Checkpoint(error)) => {
            let kind = match error {
                audit::CheckpointError::Malformed => Kind::Damaged,
                _ => Kind::Contradicted,
            };
            tell(kind, format!("the file checkpoint: {error}"));
            return Ok((Some(key), Signed::new()));
        }
        Err(error) => return Err(error.into()),
    };
    if newest.is_none() && has_own && stopped.journal().head().seq > Sequence::ZERO {
        tell(Kind::Damaged, "the file checkpoint, with what was signed last, is missing".into());
    }
    Ok((Some(key), newest.map(|newest| ("newest", newest)).into_iter().collect()))
}

/// The log does not open: what can be said of it all the same. Its segments are files of their own.
fn unopened(path: &Path, error: &OpenError) -> Result<Verdict> {
    let OpenError::Damaged(ReadError::Damaged { first, last, .. }) = error else {
        return Err(untold(error));
    };
    // Where a log begins whose beginning has expired, takes more than its segments to tell.
    if path.join(BASES).exists() {
        return Err(untold(error));
    }
    let log = DataDir::log_of(path)?;
    let mut verification = Verification::new(log, None)?;
    for segment in journal::segments(path, log)? {
        let bad = segment.each_block(|bytes| -> Result<()> {
            match Block::decode(bytes) {
                Ok(block) => verification.take_in(&block, None)?,
                Err(error) => {
                    let next = verification.position().next();
                    verification.unreadable(next, next, &error.to_string());
                }
            }
            Ok(())
        })?;
        if let Some((from, why)) = bad {
            let why = format!("{SEGMENTS}/{}: {why}", segment.name());
            verification.unreadable(from, segment.last, &why);
        }
    }
    if verification.is_intact() || *first > verification.position() {
        let (kind, first, last) = (Kind::Damaged, Some(*first), Some(*last));
        let what = format!("{error}; nothing behind the segments was looked at");
        verification.problem(Problem { kind, first, last, what });
    }
    Ok(verification.finish(&[], None)?)
}

fn untold(error: &OpenError) -> anyhow::Error {
    match error {
        OpenError::Damaged(ReadError::Damaged { first, .. }) => {
            super::Unverified::damaged(format!(
                "damaged: the first bad record is {first}; {error}. What is before it follows \
                 from one block to the next as far as it was looked at"
            ))
            .into()
        }
        OpenError::Locked | OpenError::Io(_) => anyhow::anyhow!("{error}"),
        error => {
            super::Unverified::damaged(format!("damaged: {error}; nothing is certainly intact"))
                .into()
        }
    }
}

/// It does not say which log it holds. Whether it is a data directory is for its other files to
/// tell.
fn unidentified(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let damaged = match error.downcast_ref::<DataDirError>() {
        Some(DataDirError::IdentityMalformed { .. } | DataDirError::IdentityMissing { .. }) => true,
        Some(DataDirError::Nothing { .. }) => fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_name() == "HEAD"),
        _ => false,
    };
    if damaged {
        return super::Unverified::damaged(format!(
            "damaged: {error}; nothing is certainly intact"
        ))
        .into();
    }
    error
}
