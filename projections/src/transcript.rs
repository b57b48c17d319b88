//! Where a worker's transcript stands in the log.
//!
//! The transcript itself is not kept in memory, since it grows with history. Each record of a
//! worker leaves a mark; marks are kept in order by the index, and from them any item, any
//! range of a worker's events and its run status at any point are found without a scan.

use crate::WorkerState;
use acta_events::{Event, OutputKind, Record};

/// What a record is to its worker's transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// Nothing.
    Other,
    /// An item of its own: an accepted input.
    Item,
    /// A piece of an item that is not complete.
    Delta,
    /// Completes an item made of the deltas before it.
    TextDone,
}

/// What a record leaves in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranscriptMark {
    /// The worker's ordinal.
    pub worker: u32,
    /// Transcript items so far, this record included.
    pub items: u64,
    /// What the record is.
    pub kind: MarkKind,
    /// Whether the worker has work in hand after the record.
    pub busy: bool,
}

impl TranscriptMark {
    /// The mark of a record, given its worker's state after the record.
    pub fn of(record: &Record, worker: &WorkerState) -> Self {
        let kind = match &record.header.event {
            Event::WorkerInputAccepted(_)
            | Event::MessageReceived(_)
            | Event::ReplyReceived(_)
            | Event::WorkerReported(_) => MarkKind::Item,
            // Whatever the agent had said of it so far is part of it.
            Event::MessageAnswered(_) | Event::WorkerNotified(_) => MarkKind::TextDone,
            Event::WorkerOutput(output) => match output.event {
                OutputKind::TextDelta => MarkKind::Delta,
                OutputKind::TextDone => MarkKind::TextDone,
                _ => MarkKind::Other,
            },
            _ => MarkKind::Other,
        };
        Self { worker: worker.ordinal, items: worker.items, kind, busy: worker.is_busy() }
    }
}
