//! Verifies an archive while it streams by, and hands on what is intact.

use super::{ArchiveError, ArchiveReader, Frame};
use crate::{
    audit::{Kind, Problem, TreeError, Verification},
    content::{ContentError, copy_hashed},
};
use acta_events::{ContentBody, Digest, Sequence, block::Block, record::SALT_BYTES};
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    io::{self, BufRead, Read},
};

/// What becomes of an archive that is read. Whatever it is given matches its digest; that it is
/// what was signed is known at the end only.
pub trait ArchiveSink {
    /// What can go wrong.
    type Error: From<ArchiveError> + From<TreeError>;

    /// A content in a file of its own: its salt and its bytes, which have to be read to their end.
    /// It comes before its block.
    fn content(
        &mut self,
        digest: Digest,
        stored: &mut dyn Read,
    ) -> Result<Result<(), ContentError>, Self::Error>;

    /// The next block.
    fn block(&mut self, block: &Block, stored: Bytes) -> Result<(), Self::Error>;

    /// How many records, and bytes of the archive, were read so far.
    fn at(&mut self, _records: Sequence, _bytes: u64) {}
}

/// Looks at contents, and keeps nothing.
pub fn look_at(digest: Digest, stored: &mut dyn Read) -> io::Result<Result<(), ContentError>> {
    let matches = copy_hashed(stored, &mut io::sink())? == digest;
    let why = "it does not match its digest";
    Ok(if matches { Ok(()) } else { Err(ContentError::Damaged { digest, why }) })
}

/// Reads an archive to its end, or to where nothing can be made of it any more, and tells the
/// verification of what is wrong. The checkpoint at its end, which is not believed yet; none if
/// there is none to be read. Once something is wrong, the sink is given nothing more.
pub fn read<R: BufRead, S: ArchiveSink>(
    archive: &mut ArchiveReader<R>,
    verification: &mut Verification,
    sink: &mut S,
) -> Result<Option<String>, S::Error> {
    // Contents of a block that cannot be read belong to nobody that is known.
    let mut in_unreadable = false;
    loop {
        sink.at(verification.position(), archive.position());
        let next = verification.position().next();
        match archive.next() {
            Ok(Frame::Block(bytes)) => match Block::decode(bytes.clone()) {
                Ok(block) => {
                    in_unreadable = false;
                    take_in(archive, block, bytes, verification, sink)?;
                }
                Err(error) => {
                    // How many records it held is not known; the next block tells.
                    in_unreadable = true;
                    verification.unreadable(next, next, &error.to_string());
                }
            },
            Ok(Frame::Checkpoint(text)) => return Ok(Some(text)),
            Ok(frame @ (Frame::Content(_) | Frame::Erased)) => {
                if !in_unreadable {
                    let what = "behind its block there is a content that no record names";
                    wrong(verification, Sequence(next.0 - 1), what);
                }
                if let Frame::Content(length) = frame {
                    archive.skip(length)?;
                }
            }
            Err(error @ ArchiveError::Io(_)) => return Err(error.into()),
            Err(error) => {
                verification.unreadable(next, next, &error.to_string());
                return Ok(None);
            }
        }
    }
}

fn wrong(verification: &mut Verification, seq: Sequence, what: impl Into<String>) {
    let place = (seq > Sequence::ZERO).then_some(seq);
    let (kind, what) = (Kind::Damaged, what.into());
    verification.problem(Problem { kind, first: place, last: place, what });
}

/// Takes in a block with the contents that follow it.
fn take_in<R: BufRead, S: ArchiveSink>(
    archive: &mut ArchiveReader<R>,
    block: Block,
    stored: Bytes,
    verification: &mut Verification,
    sink: &mut S,
) -> Result<(), S::Error> {
    let mut erased = BTreeSet::new();
    for record in &block.records {
        let Some(content) = &record.content else { continue };
        if content.body != ContentBody::File || !archive.has_contents() {
            continue;
        }
        let seq = record.seq();
        match archive.next() {
            Ok(Frame::Content(length)) => {
                verification.content_seen();
                let expected = content.len.saturating_add(SALT_BYTES as u64);
                let found = if length == expected {
                    let intact = verification.is_intact();
                    archive.content(length, |stored| match intact {
                        true => sink.content(content.digest, stored),
                        false => Ok(look_at(content.digest, stored).map_err(ArchiveError::from)?),
                    })?
                } else {
                    archive.skip(length)?;
                    let why = "it has another length than its record says";
                    Err(ContentError::Damaged { digest: content.digest, why })
                };
                if let Err(error) = found {
                    wrong(verification, seq, error.to_string());
                }
            }
            Ok(Frame::Erased) => drop(erased.insert(seq)),
            other => {
                wrong(verification, seq, format!("content {} is missing", content.digest));
                match other {
                    Ok(frame) => archive.peeked = Some(frame),
                    Err(error @ ArchiveError::Io(_)) => return Err(error.into()),
                    // Nothing more can be made of what comes, which the next frame tells.
                    Err(_) => break,
                }
            }
        }
    }
    let (block, stored) = block.erased(|seq| erased.contains(&seq)).unwrap_or((block, stored));
    verification.take_in(&block, None)?;
    if verification.is_intact() { sink.block(&block, stored) } else { Ok(()) }
}
