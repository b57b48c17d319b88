//! What auditors read, if it is to be recorded.
//!
//! Reads are noted in memory and recorded together, so that reading does not flood the log: what
//! was read several times between two records is one note with a count. What is noted in the last
//! interval before a crash is lost. Reading nothing, or nothing but records about watching, is
//! not noted: else whoever reads this record would add to it for ever.

use crate::{
    command::{Command, Request},
    engine::EngineHandle,
};
use acta_events::{Actor, ReadNote, ReadsRecorded, Sequence};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Notes of one record: far from filling a header.
const NOTES_PER_RECORD: usize = 32;

/// Notes of one actor between two records. Further reads are only counted.
const NOTES_MAX: usize = 1_024;

/// Actors between two records. Tokens are issued by an operator, so this is never reached by
/// reading alone.
const ACTORS_MAX: usize = 1_024;

/// The longest note, in characters.
const WHAT_CHARS_MAX: usize = 240;

/// What in a query says which moment, position or record was read. The rest is left out, as it may
/// be somebody's own words.
const MOMENTS: [&str; 9] =
    ["at", "after", "before", "since", "until", "start", "from", "to", "seq"];

/// Marks an answer in which nothing was read that is worth a note.
#[derive(Clone, Copy)]
pub(super) struct NothingRead;

/// A read that is to be noted once it is one.
#[derive(Clone)]
pub(super) struct Read {
    pub(super) reads: Reads,
    pub(super) actor: Actor,
    pub(super) what: String,
}

impl Read {
    pub(super) fn note(self, head: Sequence) {
        self.reads.note(&self.actor, self.what, head);
    }
}

#[derive(Default)]
struct OfActor {
    notes: BTreeMap<String, (u64, Sequence)>,
    more: u64,
}

/// Notes reads, and records them every so often. Cheap to clone.
#[derive(Clone)]
pub struct Reads {
    shared: Arc<Shared>,
}

struct Shared {
    noted: Mutex<HashMap<Actor, OfActor>>,
    /// There is enough for a record.
    enough: Notify,
}

/// The task that records; its owner ends it.
pub struct ReadsOwner {
    end: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Reads {
    /// Begins to record what is noted, at most `interval` later.
    pub fn start(engine: EngineHandle, interval: Duration) -> (Self, ReadsOwner) {
        let shared = Arc::new(Shared { noted: Mutex::default(), enough: Notify::new() });
        let (end, mut ended) = watch::channel(false);
        let of_task = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let over = tokio::select! {
                    _ = ended.wait_for(|ended| *ended) => true,
                    () = of_task.enough.notified() => false,
                    () = tokio::time::sleep(interval) => false,
                };
                of_task.record(&engine).await;
                if over {
                    return;
                }
            }
        });
        (Self { shared }, ReadsOwner { end, task })
    }

    /// Notes a read.
    fn note(&self, actor: &Actor, what: String, head: Sequence) {
        let mut noted = self.shared.noted.lock();
        if noted.len() >= ACTORS_MAX && !noted.contains_key(actor) {
            return;
        }
        let of = noted.entry(actor.clone()).or_default();
        of.add(what, 1, head);
        if of.notes.len() >= NOTES_PER_RECORD {
            self.shared.enough.notify_one();
        }
    }
}

impl OfActor {
    fn add(&mut self, what: String, count: u64, head: Sequence) {
        if self.notes.len() >= NOTES_MAX && !self.notes.contains_key(&what) {
            self.more = self.more.saturating_add(count);
            return;
        }
        let (counted, last) = self.notes.entry(what).or_default();
        *counted = counted.saturating_add(count);
        *last = head.max(*last);
    }
}

impl ReadsOwner {
    /// Records what is noted, and ends.
    pub async fn close(self) {
        self.end.send_replace(true);
        if self.task.await.is_err() {
            tracing::error!("the task that records what auditors read has failed");
        }
    }
}

impl Shared {
    async fn record(&self, engine: &EngineHandle) {
        let noted = std::mem::take(&mut *self.noted.lock());
        for (actor, of) in noted {
            let mut more = of.more;
            let mut notes = of.notes.into_iter().peekable();
            while notes.peek().is_some() || more > 0 {
                let some = notes.by_ref().take(NOTES_PER_RECORD);
                let reads: Vec<ReadNote> =
                    some.map(|(what, (count, head))| ReadNote { what, count, head }).collect();
                let reads = ReadsRecorded { reads, more: std::mem::take(&mut more) };
                if let Err(error) = submit(engine, &actor, &reads).await {
                    tracing::warn!(%error, "what an auditor read is not recorded yet");
                    self.put_back(actor.clone(), reads);
                }
            }
        }
    }

    /// For the next attempt.
    fn put_back(&self, actor: Actor, reads: ReadsRecorded) {
        let mut noted = self.noted.lock();
        let of = noted.entry(actor).or_default();
        of.more = of.more.saturating_add(reads.more);
        for ReadNote { what, count, head } in reads.reads {
            of.add(what, count, head);
        }
    }
}

async fn submit(
    engine: &EngineHandle,
    actor: &Actor,
    reads: &ReadsRecorded,
) -> Result<(), crate::error::Rejection> {
    let command = Command::RecordReads(reads.clone());
    let request = Request { actor: actor.clone(), key: None, if_match: None, trace: None, command };
    engine.submit(request).await.map(drop)
}

/// What a request reads: its path, and the moments, positions and records in its query.
pub(super) fn what(uri: &axum::http::Uri) -> String {
    let query = uri.query().unwrap_or_default();
    let moments = query.split('&').filter(|part| {
        let name = part.split('=').next().unwrap_or_default();
        MOMENTS.contains(&name)
    });
    let moments: Vec<_> = moments.collect();
    let mark = if moments.is_empty() { "" } else { "?" };
    let text = format!("{}{mark}{}", uri.path(), moments.join("&"));
    let plain = |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') { c } else { '_' };
    text.chars().map(plain).take(WHAT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_was_read_and_nothing_that_was_said() {
        let check = |uri: &str, expected: &str| assert_eq!(what(&uri.parse().unwrap()), expected);
        check("/v1/workers", "/v1/workers");
        check("/v1/events?grep=secret&after=3&limit=5&until=9", "/v1/events?after=3&until=9");
        check("/v1/workers/w-1?at=2026-11-20T19:14:00Z", "/v1/workers/w-1?at=2026-11-20T19:14:00Z");
        check("/v1/contents?seq=89", "/v1/contents?seq=89");
        check("/v1/proofs/consistency?from=3&to=9", "/v1/proofs/consistency?from=3&to=9");
        let long = format!("/v1/{}", "x".repeat(400));
        assert_eq!(what(&long.parse().unwrap()).len(), WHAT_CHARS_MAX);
    }

    #[test]
    fn the_largest_record_fits_a_header() {
        let note = ReadNote {
            what: "x".repeat(WHAT_CHARS_MAX),
            count: u64::MAX,
            head: Sequence(u64::MAX),
        };
        let reads = ReadsRecorded { reads: vec![note; NOTES_PER_RECORD], more: u64::MAX };
        assert!(serde_json::to_vec(&reads).unwrap().len() < 12 << 10);
    }
}
