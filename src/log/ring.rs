//! The newest records, in memory: what live readers read.

use acta_events::{ContentBody, Record, Sequence};
use axum::extract::ws::Utf8Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

/// How many records the ring holds at most.
const RECORDS_MAX: usize = 16_384;

/// How many bytes of headers and contents the ring holds at most.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// A durable record, with what it looks like to observers once somebody has asked.
#[derive(Debug)]
pub struct Logged {
    /// The record.
    pub record: Arc<Record>,
    /// Its frame for observers of its worker; none if it has none. Made once for all of them.
    pub(crate) frame: OnceLock<Option<Utf8Bytes>>,
}

impl Logged {
    pub(crate) fn new(record: Arc<Record>) -> Arc<Self> {
        Arc::new(Self { record, frame: OnceLock::new() })
    }
}

#[derive(Debug, Default)]
pub(super) struct Ring {
    records: VecDeque<Arc<Logged>>,
    bytes: usize,
}

fn bytes_of(record: &Record) -> usize {
    let inline = record.content.as_ref().map_or(0, |content| match &content.body {
        ContentBody::Inline { bytes, .. } => bytes.len(),
        _ => 0,
    });
    record.json.len() + inline
}

impl Ring {
    pub(super) fn push(&mut self, records: &[Arc<Record>]) {
        for record in records {
            self.bytes += bytes_of(record);
            self.records.push_back(Logged::new(Arc::clone(record)));
        }
        while self.records.len() > RECORDS_MAX || self.bytes > BYTES_MAX {
            match self.records.pop_front() {
                Some(oldest) => self.bytes -= bytes_of(&oldest.record),
                None => return,
            }
        }
    }

    /// Makes all frames anew, and takes contents away.
    pub(super) fn renew(&mut self, is_erased: impl Fn(&Record) -> bool) {
        for logged in &mut self.records {
            let record = &logged.record;
            let erased = if is_erased(record) { record.erased() } else { None };
            if let Some(erased) = &erased {
                self.bytes = self.bytes + bytes_of(erased) - bytes_of(record);
            }
            let record = erased.map_or_else(|| Arc::clone(record), Arc::new);
            *logged = Logged::new(record);
        }
    }

    /// The records after a sequence; none if they are not all here.
    pub(super) fn after(
        &self,
        after: Sequence,
        through: Sequence,
        limit: usize,
    ) -> Option<Vec<Arc<Logged>>> {
        let first = self.records.front()?.record.seq();
        let skip = (after.0 + 1).checked_sub(first.0)?;
        let take = limit.min(usize::try_from(through.0.saturating_sub(after.0)).ok()?);
        Some(self.records.iter().skip(usize::try_from(skip).ok()?).take(take).cloned().collect())
    }

    pub(super) fn get(&self, seq: Sequence) -> Option<Arc<Logged>> {
        let first = self.records.front()?.record.seq();
        let place = usize::try_from(seq.0.checked_sub(first.0)?).ok()?;
        self.records.get(place).cloned()
    }
}
