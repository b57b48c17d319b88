//! Deciding without a writer, on a log that nobody else uses.

use super::core::{Batch, Core, Moment, Submission};
use crate::{
    command::{Answer, Request},
    error::Rejection,
    journal::AppendError,
    log::{Log, ReplayError},
};
use acta_events::{Sequence, Timestamp};

/// What was decided is not recorded, or not for certain.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The log cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What was written cannot be taken in.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// Decides one command, and makes it durable. Blocking.
pub fn record(log: &Log, core: &mut Core<()>, request: Request) -> Result<Answer, RecordError> {
    let now = Timestamp(jiff::Timestamp::now().as_microsecond());
    record_at(log, core, request, Moment { now, random: rand::random() })
}

/// The same at a given moment.
pub(crate) fn record_at(
    log: &Log,
    core: &mut Core<()>,
    request: Request,
    moment: Moment,
) -> Result<Answer, RecordError> {
    let submission = Submission { request, key_checked: Sequence::ZERO, reply: () };
    let waits = core.submit(Box::new(submission), moment);
    debug_assert!(waits.is_none(), "everything before it is durable");
    let Batch { after, blocks, mut decided } = core.take_batch();
    if !blocks.is_empty() {
        let (blocks, encoded): (Vec<_>, Vec<_>) = blocks.into_iter().unzip();
        log.journal().append(after, &encoded)?;
        let head = log.publish(&blocks)?;
        core.committed(head);
    }
    let answer = decided.pop().map(|decided| decided.answer);
    Ok(answer.unwrap_or_else(|| Err(Rejection::invalid("it was not decided"))))
}
