//! From a cursor to a position, and what may be wrong with a cursor.

use crate::{
    error::{Code, Rejection},
    log::{Log, ReadFault},
};
use acta_events::{Digest, Epoch, Sequence, cursor::Cursor};
use acta_projections::Lineage;
use serde::Serialize;
use std::{fmt, sync::Arc};

/// Where to resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The next record is the one after this.
    pub after: Sequence,
    /// The cursor is of an earlier epoch, which this one continues.
    pub epoch_changed: bool,
}

/// Why a cursor cannot be resumed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorProblem {
    /// It is not a cursor.
    #[error("not a cursor: use one exactly as it was given out, or leave it out")]
    Malformed,
    /// It is of another log.
    #[error("the cursor is of another log; begin again without it")]
    Foreign,
    /// It is ahead of the head.
    #[error(
        "the cursor is at {seq}, but the log ends at {head}: this service may have lost history, or another one gave the cursor out; ask its operator before you begin again"
    )]
    Ahead {
        /// Where the cursor is.
        seq: Sequence,
        /// Where the log ends.
        head: Sequence,
    },
    /// It names a history that is not ours.
    #[error("the cursor names a history that this log does not continue{}", .back.map(|(fork, cursor)| format!(": both agree up to {fork}; roll back to cursor {cursor}")).unwrap_or_default())]
    Diverged {
        /// The last sequence that both share, if it is known, and a cursor to roll back to.
        back: Option<(Sequence, Cursor)>,
    },
    /// What comes after it is not kept any more.
    #[error(
        "the cursor is at {seq}, and records up to {through} have expired: begin again with cursor {first}, and know that what is between is missing"
    )]
    Expired {
        /// Where the cursor is.
        seq: Sequence,
        /// The last record that expired.
        through: Sequence,
        /// The cursor right before the first record that is there.
        first: Cursor,
    },
    /// It cannot be checked.
    #[error("{0}")]
    Unreadable(String),
}

impl CursorProblem {
    /// In one word.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed => Code::CursorMalformed,
            Self::Foreign => Code::CursorForeign,
            Self::Ahead { .. } => Code::CursorAhead,
            Self::Diverged { .. } => Code::CursorDiverged,
            Self::Expired { .. } => Code::CursorExpired,
            Self::Unreadable(_) => Code::StoreCorrupt,
        }
    }
}

impl From<CursorProblem> for Rejection {
    fn from(problem: CursorProblem) -> Self {
        Self::new(problem.code(), problem.to_string())
    }
}

/// The verdict on a cursor that needs no look at the records.
fn verdict(lineage: &Lineage, head: Sequence, cursor: &Cursor) -> Verdict {
    if !lineage.contains(cursor.epoch) {
        return Verdict::Diverged { fork: None };
    }
    match lineage.ended_at(cursor.epoch) {
        Some(fork) if cursor.seq > fork => Verdict::Diverged { fork: Some(fork) },
        None if cursor.seq > head => Verdict::Ahead,
        ended => Verdict::Compare { epoch_changed: ended.is_some() },
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Ahead,
    Diverged { fork: Option<Sequence> },
    Compare { epoch_changed: bool },
}

/// Finds the position of a cursor in this log.
pub async fn resolve(log: &Arc<Log>, text: &str) -> Result<Resume, CursorProblem> {
    let cursor: Cursor = text.parse().map_err(|_| CursorProblem::Malformed)?;
    if cursor.log != log.id() {
        return Err(CursorProblem::Foreign);
    }
    let head = log.head();
    let lineage = log.views().read().lineage.clone();
    let unreadable = |fault: ReadFault| CursorProblem::Unreadable(fault.to_string());
    match verdict(&lineage, head, &cursor) {
        Verdict::Ahead => Err(CursorProblem::Ahead { seq: cursor.seq, head }),
        Verdict::Diverged { fork: None } => Err(CursorProblem::Diverged { back: None }),
        Verdict::Diverged { fork: Some(fork) } => {
            let cursor = cursor_at(log, fork).await.map_err(unreadable)?;
            Err(CursorProblem::Diverged { back: cursor.map(|cursor| (fork, cursor)) })
        }
        Verdict::Compare { epoch_changed } => {
            let resume = Resume { after: cursor.seq, epoch_changed };
            retained(log, cursor.seq).await?;
            if cursor.seq == Sequence::ZERO {
                return Ok(resume);
            }
            let found = cursor_at(log, cursor.seq).await.map_err(unreadable)?;
            let same = found.is_some_and(|found| found.digest == cursor.digest);
            if same { Ok(resume) } else { Err(CursorProblem::Diverged { back: None }) }
        }
    }
}

/// Refuses a position of which more than the record at it has expired.
pub async fn retained(log: &Arc<Log>, seq: Sequence) -> Result<(), CursorProblem> {
    let through = log.expired_through();
    if seq >= through {
        return Ok(());
    }
    let unreadable = |fault: ReadFault| CursorProblem::Unreadable(fault.to_string());
    match cursor_at(log, through).await.map_err(unreadable)? {
        Some(first) => Err(CursorProblem::Expired { seq, through, first }),
        None => Err(unreadable(ReadFault::Expired { through })),
    }
}

/// A cursor is of an epoch that this one continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EpochChange {
    /// The epoch of the cursor.
    pub from: Epoch,
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The last record that both share.
    pub fork: Sequence,
}

impl fmt::Display for EpochChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, epoch, fork } = self;
        write!(
            f,
            "the cursor is of epoch {from}; the log was restored since and is in epoch {epoch}, \
             which continues it after record {fork}"
        )
    }
}

/// Whether a cursor that can be resumed is of an earlier epoch, and which.
pub fn epoch_change(log: &Log, text: &str) -> Option<EpochChange> {
    let cursor: Cursor = text.parse().ok()?;
    let views = log.views().read();
    let fork = views.lineage.ended_at(cursor.epoch)?;
    Some(EpochChange { from: cursor.epoch, epoch: views.lineage.current(), fork })
}

/// The cursor after the record with this sequence; none if there is no such record, or more than it
/// has expired.
pub async fn cursor_at(log: &Arc<Log>, seq: Sequence) -> Result<Option<Cursor>, ReadFault> {
    let epoch = log.views().read().lineage.epoch_of(seq);
    if seq == Sequence::ZERO {
        return Ok(Some(Cursor::new(log.id(), epoch, seq, Digest::ZERO)));
    }
    if seq == log.expired_through() {
        let of_log = Arc::clone(log);
        let digest = crate::log::blocking(move || Ok(of_log.digest_at(seq))).await?;
        return Ok(digest.map(|digest| Cursor::new(log.id(), epoch, seq, digest)));
    }
    let logged = log.record(seq).await?;
    Ok(logged.map(|logged| Cursor::new(log.id(), epoch, seq, logged.record.digest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use acta_events::LogId;

    fn lineage(forks: &[(u32, u64)]) -> Lineage {
        let starts: Vec<_> = std::iter::once((1, 0)).chain(forks.iter().copied()).collect();
        let epochs: Vec<_> = starts
            .iter()
            .map(|(epoch, fork)| serde_json::json!({"epoch": epoch, "fork": fork}))
            .collect();
        serde_json::from_value(serde_json::json!({ "epochs": epochs })).expect("a lineage")
    }

    fn cursor(epoch: u32, seq: u64) -> Cursor {
        let log = LogId(uuid::Uuid::from_u128(7));
        Cursor::new(log, Epoch(epoch), Sequence(seq), Digest([9; 32]))
    }

    #[test]
    fn every_row_of_the_cursor_table() {
        let once = lineage(&[]);
        let twice = lineage(&[(2, 50)]);
        let thrice = lineage(&[(2, 50), (3, 40)]);
        let same = |epoch_changed| Verdict::Compare { epoch_changed };
        let rows = [
            (&once, cursor(1, 100), same(false)),
            (&once, cursor(1, 0), same(false)),
            (&once, cursor(1, 101), Verdict::Ahead),
            (&once, cursor(2, 10), Verdict::Diverged { fork: None }),
            (&twice, cursor(1, 50), same(true)),
            (&twice, cursor(1, 51), Verdict::Diverged { fork: Some(Sequence(50)) }),
            (&twice, cursor(2, 60), same(false)),
            (&twice, cursor(2, 101), Verdict::Ahead),
            (&twice, cursor(3, 60), Verdict::Diverged { fork: None }),
            (&thrice, cursor(1, 45), Verdict::Diverged { fork: Some(Sequence(40)) }),
            (&thrice, cursor(2, 40), same(true)),
        ];
        for (lineage, cursor, expected) in rows {
            assert_eq!(verdict(lineage, Sequence(100), &cursor), expected, "{cursor:?}");
        }
    }
}
