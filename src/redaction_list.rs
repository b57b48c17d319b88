//! A list of what was erased, and erasing it again where an older state was put in place.
//!
//! A line is one JSON object, as `GET /v1/redactions` gives them. The sequence says where, and the
//! record digest that it is the same record: after a restore another one may stand there.

use crate::{
    command::{Ack, Command, RedactionTarget, Request},
    engine::{
        core::Core,
        offline::{RecordError, record},
    },
    error::Rejection,
    log::{EraseFault, Log, ReadFault},
};
use acta_events::{
    Actor, Content, Digest, ErasureOrder, LogId, MediaType, Sequence, StoredContent, Timestamp,
    record::INLINE_BYTES_MAX,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An erased content.
#[derive(Clone, Debug, Deserialize)]
pub struct ListedRedaction {
    /// The log.
    pub log_id: LogId,
    /// The record whose content was erased.
    pub record: Sequence,
    /// Its record digest.
    pub record_digest: Digest,
    /// Who ordered it.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Option<String>,
    /// Of an order that was itself a repeat: the first one.
    pub repeats: Option<ErasureOrder>,
}

/// What came of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Contents that were erased now.
    pub erased: u64,
    /// Contents that had been erased before.
    pub already: u64,
    /// Records that the log does not have: it ends before them, or has others in their place.
    pub absent: u64,
}

/// A list was not applied, or not all of it. Repeating it does no harm.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The list is of another log.
    #[error("the list is of log {found}, and this is {expected}")]
    Foreign {
        /// The log of the list.
        found: LogId,
        /// The log at hand.
        expected: LogId,
    },
    /// An order cannot be repeated.
    #[error("record {seq}: {why}")]
    Refused {
        /// The record.
        seq: Sequence,
        /// Why.
        why: Rejection,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFault),
    /// The log cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An order is recorded, but not carried out.
    #[error(transparent)]
    Erase(#[from] EraseFault),
}

/// Records each order of a list that the log lacks, in the name of the service and with the first
/// order named, and carries all of them out. Nobody else uses the log. Blocking.
pub fn apply(
    log: &Arc<Log>,
    list: impl IntoIterator<Item = ListedRedaction>,
) -> Result<Applied, ApplyError> {
    let mut core = Core::new(Arc::clone(log.views()), Arc::clone(log.index()), log.end());
    let mut applied = Applied::default();
    for item in list {
        if item.log_id != log.id() {
            return Err(ApplyError::Foreign { found: item.log_id, expected: log.id() });
        }
        let known = if item.record > log.head() { None } else { log.record_blocking(item.record)? };
        let known = known.map(|logged| Arc::clone(&logged.record));
        let Some(found) = known.filter(|record| record.digest == item.record_digest) else {
            applied.absent += 1;
            continue;
        };
        let order = item.repeats.unwrap_or(ErasureOrder { by: item.by, at: item.at });
        let command = Command::Redact {
            target: RedactionTarget::new(found),
            reason: item.reason.map(|reason| reason_of(&reason)),
            repeats: Some(order),
        };
        match record(log, &mut core, Request::service(command))? {
            Ok(Ack::Recorded { .. }) => applied.erased += 1,
            Ok(_) => applied.already += 1,
            Err(why) => return Err(ApplyError::Refused { seq: item.record, why }),
        }
    }
    log.erase_pending()?;
    Ok(applied)
}

fn reason_of(reason: &str) -> StoredContent {
    let mut end = reason.len().min(INLINE_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let bytes = reason.as_bytes()[..end].to_vec();
    Content::new(rand::random(), MediaType::Text, bytes.into()).to_stored()
}
