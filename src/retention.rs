//! Retention: lets the oldest history expire by policy, segment by segment.
//!
//! One task looks whenever something was sealed, and now and then for what grows old. In which
//! order things happen, and what a crash leaves, is told in `crate::base`.
//!
//! **Invariant.** Nothing expires that is still needed: an input that a worker is still to be given or
//! is at work on, a message that an agent has not dealt with, text that a worker of this service is in
//! the middle of, and what this service itself has not read yet. The policy waits for the oldest of
//! these, and says so. What expires only once it is read (cursors of consumers, replies that an agent
//! never asks for, messages that were given up, transcripts) does not hold it up.

use crate::{
    base::Bases,
    command::{Command, Request},
    engine::EngineHandle,
    error::Rejection,
    index::PostingKind,
    log::{ExpireFault, Log, ReadFault},
};
use acta_events::{HistoryExpired, RetentionPolicy, Sequence, Timestamp};
use acta_projections::{WorkerState, WorkerStatus};
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How often it is looked whether something was sealed, which costs nothing.
const TICK: Duration = Duration::from_secs(1);
/// How often it is looked what has grown old.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// How many marks of a worker are looked at to find its oldest input.
const MARKS_PER_READ: usize = 256;

/// What keeps history from expiring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The oldest record that is still needed.
    pub record: Sequence,
    /// By whom, and for what.
    pub by: String,
    /// Up to where history would have expired without it.
    pub wanted: Sequence,
}

/// What the policy is and what it waits for. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// How much is kept.
    pub policy: RetentionPolicy,
    held: Arc<Mutex<Option<Held>>>,
}

impl Retention {
    /// What the policy waits for at present.
    pub fn held(&self) -> Option<Held> {
        self.held.lock().clone()
    }
}

/// The task; its owner ends it.
pub struct RetentionOwner {
    end: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// History did not expire, or not all that was to.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Expire(#[from] ExpireFault),
    #[error("it could not be recorded that history expires: {0}")]
    Recorded(#[from] Rejection),
    #[error("the service is shutting down")]
    Gone,
}

impl RetentionOwner {
    /// Finishes what an earlier process began, then lets history expire by policy.
    pub fn start(
        log: Arc<Log>,
        engine: EngineHandle,
        data: &Path,
        policy: RetentionPolicy,
    ) -> (Retention, Self) {
        let retention = Retention { policy, held: Arc::default() };
        let (end, ended) = watch::channel(false);
        let job = Job { log, engine, bases: Bases::of(data), retention: retention.clone() };
        (retention, Self { end, task: tokio::spawn(job.run(ended)) })
    }

    /// Waits until what is under way is done, and ends. The next start does what is left.
    pub async fn close(self) {
        self.end.send_replace(true);
        if self.task.await.is_err() {
            tracing::error!("the task that lets history expire has failed");
        }
    }
}

#[derive(Clone)]
struct Job {
    log: Arc<Log>,
    engine: EngineHandle,
    bases: Bases,
    retention: Retention,
}

impl Job {
    async fn run(self, mut ended: watch::Receiver<bool>) {
        // Nobody has recorded anything with a base yet, so what none names is left from before.
        let (mut looked, mut strays, mut pause) = (None, true, LOOK_EVERY);
        loop {
            let sealed = self.log.journal().sealed_through();
            let is_due = looked.is_none_or(|(through, at): (Sequence, Instant)| {
                (through < sealed && pause == LOOK_EVERY) || at.elapsed() >= pause
            });
            if is_due {
                looked = Some((sealed, Instant::now()));
                pause = match self.look(&mut strays).await {
                    Ok(()) => LOOK_EVERY,
                    Err(Fault::Gone) => return,
                    Err(error) => {
                        tracing::error!(%error, "history could not expire; trying again soon");
                        PAUSE
                    }
                };
            }
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => return,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn look(&self, strays: &mut bool) -> Result<(), Fault> {
        let (job, also) = (self.clone(), *strays);
        self.blocking(move || job.log.remove_expired(&job.bases, also)).await?;
        // A base that nothing names may be named by a record whose outcome is not known yet.
        *strays = false;
        if self.retention.policy.keeps_all() {
            return Ok(());
        }
        let job = self.clone();
        let now = Timestamp(jiff::Timestamp::now().as_microsecond());
        let plan = self.blocking(move || plan(&job.log, &job.bases, job.retention.policy, now));
        let Plan { expired, held } = plan.await?;
        let news = self.retention.held.lock().replace_with(held);
        if let Some(held) = news {
            let Held { record, by, wanted } = held;
            tracing::warn!(%record, by, %wanted, "history is kept for longer than the policy says: it is still needed");
        }
        let Some(expired) = expired else { return Ok(()) };
        let (through, segments, bytes) = (expired.through, expired.segments, expired.bytes);
        let command = Command::ExpireHistory(Box::new(expired));
        self.engine.submit(Request::service(command)).await?;
        tracing::info!(%through, segments, bytes, "history has expired by policy");
        let job = self.clone();
        self.blocking(move || job.log.remove_expired(&job.bases, false)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ExpireFault> + Send + 'static,
    ) -> Result<T, Fault> {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => Ok(done?),
            Err(error) if error.is_panic() => {
                Err(ExpireFault::Io(std::io::Error::other("it ended in a panic")).into())
            }
            Err(_) => Err(Fault::Gone),
        }
    }
}

trait ReplaceWith {
    /// Puts another value in the place of this one, and returns it if it is news.
    fn replace_with(&mut self, other: Self) -> Self;
}

impl ReplaceWith for Option<Held> {
    fn replace_with(&mut self, other: Self) -> Self {
        let record = |held: &Self| held.as_ref().map(|held| held.record);
        let is_news = record(self) != record(&other);
        *self = other;
        self.clone().filter(|_| is_news)
    }
}

/// What is to expire, and what keeps more from it.
#[derive(Debug)]
struct Plan {
    expired: Option<HistoryExpired>,
    held: Option<Held>,
}

/// Decides what expires, and makes its base durable. Blocking.
fn plan(
    log: &Log,
    bases: &Bases,
    policy: RetentionPolicy,
    now: Timestamp,
) -> Result<Plan, ExpireFault> {
    let sealed = log.journal().sealed();
    let wanted = wanted(log, policy, now)?;
    let Some(last) = wanted.checked_sub(1).and_then(|at| sealed.get(at)) else {
        return Ok(Plan { expired: None, held: None });
    };
    let needed = needed(log)?.filter(|(record, _)| *record <= last.last);
    let held = needed.map(|(record, by)| Held { record, by, wanted: last.last });
    let free = sealed[..wanted].iter();
    let expired: Vec<_> =
        free.take_while(|it| held.as_ref().is_none_or(|held| it.last < held.record)).collect();
    let Some(last) = expired.last() else { return Ok(Plan { expired: None, held }) };
    let base = log.prepare_base(bases, last.last)?;
    let expired = HistoryExpired {
        through: base.seq,
        base: base.digest,
        root: base.root,
        segments: expired.len() as u64,
        bytes: expired.iter().map(|sealed| sealed.bytes).sum(),
        policy,
    };
    Ok(Plan { expired: Some(expired), held })
}

/// How many of the oldest segments are beyond what the policy keeps. The newest never is.
fn wanted(log: &Log, policy: RetentionPolicy, now: Timestamp) -> Result<usize, ReadFault> {
    let sealed = log.journal().sealed();
    let most = sealed.len().saturating_sub(1);
    let mut by_size = 0;
    if let Some(keep) = policy.keep_bytes {
        let mut bytes: u64 = sealed.iter().map(|sealed| sealed.bytes).sum();
        while by_size < most && bytes > keep {
            bytes -= sealed[by_size].bytes;
            by_size += 1;
        }
    }
    let mut by_age = 0;
    if let Some(keep_s) = policy.keep_s {
        let keep = i64::try_from(keep_s.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        let oldest = now.0.saturating_sub(keep);
        while by_age < most {
            let last = log.record_blocking(sealed[by_age].last)?;
            if last.is_none_or(|last| last.record.header.time.0 >= oldest) {
                break;
            }
            by_age += 1;
        }
    }
    Ok(by_size.max(by_age))
}

/// The oldest record that is still needed, by whom and for what. Blocking.
fn needed(log: &Log) -> Result<Option<(Sequence, String)>, ReadFault> {
    let running: Vec<Arc<WorkerState>> = {
        let views = log.views().read();
        let all = views.workers.iter();
        all.filter(|state| state.status == WorkerStatus::Running).cloned().collect()
    };
    let mut oldest: Option<(Sequence, String)> = None;
    let mut need = |record: Sequence, by: &dyn Fn() -> String| {
        if oldest.as_ref().is_none_or(|(known, _)| record < *known) {
            oldest = Some((record, by()));
        }
    };
    if let Some(read) = log.held_at() {
        need(read.next(), &|| "this service, which has not read it yet".into());
    }
    for state in running {
        let by =
            |what: &str| format!("worker {} of runtime {}: {what}", state.worker, state.runtime);
        if let Some(agent) = &state.external {
            if let Some(record) = agent.waiting.iter().min() {
                need(*record, &|| by("a message that its agent has not dealt with"));
            }
            continue;
        }
        if let Some(input) = state.open_turn.and_then(|turn| turn.input) {
            need(input, &|| by("the input that it is at work on"));
        }
        if let Some(text) = state.open_text {
            need(text.first, &|| by("text that is not complete"));
        }
        if let Some(record) = oldest_input(log, &state)? {
            need(record, &|| by("an input that it is still to be given"));
        }
    }
    Ok(oldest)
}

/// The first accepted input that the worker was not given yet.
fn oldest_input(log: &Log, state: &WorkerState) -> Result<Option<Sequence>, ReadFault> {
    if state.pending == 0 {
        return Ok(None);
    }
    let mut after = state.settled;
    loop {
        let marks = log.index().after(state.ordinal, after, log.head(), MARKS_PER_READ)?;
        let Some(last) = marks.last() else { return Ok(None) };
        if let Some(input) = marks.iter().find(|mark| mark.kind == PostingKind::Item) {
            return Ok(Some(input.seq));
        }
        after = last.seq;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::{
        engine::tests::history::{Drive, create, input, register, request},
        feed::{Filter, Follower},
    };

    /// What a follower that must miss nothing has not read is needed, and so is what a worker is still to be
    /// given; of several, the oldest.
    #[tokio::test]
    async fn what_is_not_read_and_what_is_not_given_is_needed() {
        let mut drive = Drive::new();
        let log = Arc::clone(&drive.log);
        let mut record = |n: usize, command| {
            drive.submit(n, request(command));
            drive.commit();
            log.head()
        };
        record(0, register("r"));
        let created = record(1, create(0));
        let record_needed = || needed(&log).unwrap().map(|(record, _)| record);
        assert_eq!(record_needed(), None);
        let holding =
            |after| Follower::new(Arc::clone(&log), Filter::default(), None, after).holding();
        let mut behind = holding(Sequence::ZERO);
        let at_head = holding(log.head());
        assert_eq!(record_needed(), Some(Sequence(1)));
        while !behind.caught_up() {
            behind.read().await.unwrap();
        }
        assert_eq!(record_needed(), Some(created.next()), "both have read everything");
        let given = record(2, input(0, "hello"));
        let behind_it = record(3, create(1));
        behind.read().await.unwrap();
        drop(at_head);
        assert_eq!(behind.position(), behind_it);
        assert_eq!(record_needed(), Some(given), "it is still to be given");
        drop(behind);
        assert_eq!(record_needed(), Some(given));
        let nobody_reads = Follower::new(Arc::clone(&log), Filter::default(), None, Sequence::ZERO);
        assert_eq!(record_needed(), Some(given), "not everybody holds {}", nobody_reads.position());
    }
}
