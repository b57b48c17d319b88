//! Following the log: catch up, then wait, then read again.
//!
//! There is no queue per observer. A follower is a position; whoever is slow reads later, and
//! loses nothing. Only what is durable is ever read, since the head moves last.

mod position;

pub use position::{
    CursorProblem, EpochChange, Resume, cursor_at, epoch_change, resolve, retained,
};

use crate::log::{Log, Logged, ReadFault};
use acta_events::{Actor, Record, RuntimeId, Sequence, WorkerId};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;

/// How many records are looked at between two waits.
const RECORDS_PER_READ: usize = 256;

/// Which records a follower wants.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of these types; empty for all.
    pub types: Vec<String>,
    /// Of this runtime.
    pub runtime: Option<RuntimeId>,
    /// Of this worker.
    pub worker: Option<WorkerId>,
    /// Of what this actor asked for.
    pub actor: Option<Actor>,
    /// With the records about watching itself.
    pub watching: bool,
}

impl Filter {
    /// Whether a record is wanted. Naming a type that is about watching asks for it.
    pub fn wants(&self, record: &Record) -> bool {
        let header = &record.header;
        let named = self.types.iter().any(|name| name == header.event.name());
        (self.types.is_empty() || named)
            && (self.watching || named || !header.event.is_about_watching())
            && self.runtime.as_ref().is_none_or(|runtime| header.runtime.as_ref() == Some(runtime))
            && self.worker.as_ref().is_none_or(|worker| header.worker.as_ref() == Some(worker))
            && self.actor.as_ref().is_none_or(|actor| header.actor == *actor)
    }
}

/// A position in the log that moves forward.
pub struct Follower {
    log: Arc<Log>,
    filter: Filter,
    /// The only worker of interest, by its number in the index.
    ordinal: Option<u32>,
    position: Sequence,
    /// Of the worker of interest, or of the whole log.
    news: watch::Receiver<Sequence>,
    /// Whether what was there at the beginning has been looked at: news are of what came later.
    past_is_read: bool,
    /// Tells how far it is, so that nothing expires that it has not read.
    hold: Option<Arc<AtomicU64>>,
}

impl Follower {
    /// Follows after a position. With an `ordinal`, only that worker's records are even read.
    pub fn new(log: Arc<Log>, filter: Filter, ordinal: Option<u32>, after: Sequence) -> Self {
        let news = match ordinal {
            Some(worker) => log.watch_worker(worker),
            None => log.watch_head(),
        };
        let past_is_read = after >= log.head();
        Self { log, filter, ordinal, position: after, news, past_is_read, hold: None }
    }

    /// Of this service itself, which must miss nothing: what it has not read does not expire.
    pub fn holding(mut self) -> Self {
        self.hold = Some(self.log.hold(self.position));
        self
    }

    /// Everything up to here has been looked at.
    pub fn position(&self) -> Sequence {
        self.position
    }

    /// The head of the log.
    pub fn head(&self) -> Sequence {
        self.log.head()
    }

    /// Whether everything of interest that is there has been looked at.
    pub fn caught_up(&self) -> bool {
        match self.ordinal {
            Some(_) => self.past_is_read && self.position >= *self.news.borrow(),
            None => self.position >= self.head(),
        }
    }

    /// The wanted ones among the next records, without waiting; the position moves past all
    /// that were looked at.
    pub async fn read(&mut self) -> Result<Vec<Arc<Logged>>, ReadFault> {
        self.read_through(self.head(), RECORDS_PER_READ).await
    }

    /// As [`Self::read`], with bounds.
    pub async fn read_through(
        &mut self,
        through: Sequence,
        limit: usize,
    ) -> Result<Vec<Arc<Logged>>, ReadFault> {
        // What is beyond the head is not there yet, so it cannot have been looked at.
        let head = self.head();
        let through = through.min(head);
        if self.position >= through {
            return Ok(Vec::new());
        }
        let begun = self.position.next();
        let (records, looked_at) = match self.ordinal {
            Some(worker) => {
                let slice = self.log.worker_records(worker, self.position, through, limit).await?;
                (slice.records, slice.through)
            }
            None => {
                let records = self.log.read(self.position, through, limit).await?;
                let looked_at = records.last().map_or(through, |last| last.record.seq());
                (records, looked_at)
            }
        };
        // It was overtaken, perhaps while it read, which must not pass in silence.
        self.log.retains(begun)?;
        self.position = looked_at;
        if let Some(hold) = &self.hold {
            hold.store(looked_at.0, Ordering::Release);
        }
        self.past_is_read |= looked_at >= head;
        Ok(records.into_iter().filter(|logged| self.filter.wants(&logged.record)).collect())
    }

    /// Waits until there is something of interest beyond the position. False when the service
    /// ends.
    pub async fn wait(&mut self) -> bool {
        if !self.caught_up() {
            return true;
        }
        let position = self.position;
        self.news.wait_for(|news| *news > position).await.is_ok()
    }
}
