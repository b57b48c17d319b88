//! The engine: the sole writer.
//!
//! One thread owns the deciding state ([`core::Core`]). It drains the queue, decides everything
//! that has come, makes it durable with one sync, publishes it, and only then answers. What
//! comes meanwhile makes the next batch: there is no timer, and its size follows from the load.
//!
//! ```text
//! handles ──queue──► writer: decide · journal.append · log.publish ──► answers
//! ```
//!
//! Deciding the next batch while one is being synced was tried with a second thread. It made
//! batches half as large, and the hand-overs cost more than the overlap gained.

pub mod core;
pub mod offline;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub use self::core::{LogEnd, key_digest};

use self::core::{Batch, Submission};
use crate::{
    command::{Ack, Answer, Request},
    error::{Code, Rejection},
    log::Log,
    metrics::Metrics,
    trace::TARGET,
};
use acta_events::{Record, Sequence, Timestamp};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{Span, debug_span};

/// Where time comes from.
pub trait Clock: Send + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_microsecond())
    }
}

/// Bounds of the command queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Commands that may wait.
    pub commands: usize,
    /// Bytes that they may hold together.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { commands: 4096, bytes: 64 << 20 }
    }
}

/// Whether the engine writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// It does.
    Ready = 0,
    /// A write had an unknown outcome; the log is being opened again.
    Recovering = 1,
    /// The last write was refused, with nothing written.
    Refusing = 2,
    /// It has been closed.
    Closed = 3,
    /// What was written could not be taken into the views: a defect, or damage.
    Failed = 4,
}

impl Health {
    /// The fixed code that `/readyz` answers.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Recovering => "journal_recovering",
            Self::Refusing => "journal_refusing",
            Self::Closed => "shutting_down",
            Self::Failed => "views_failed",
        }
    }
}

struct Reply {
    answer: oneshot::Sender<Answer>,
    /// Of the command, in its trace.
    span: Span,
    _commands: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Reply {
    fn send(self, answer: Answer) {
        // Whoever asked may have gone away; the command stands all the same.
        drop(self.answer.send(answer));
    }
}

enum Message {
    Submit(Box<Submission<Reply>>),
    Close,
}

struct Shared {
    health: AtomicU8,
    /// Nothing is tried again any more.
    closing: AtomicBool,
    log: Arc<Log>,
    /// Where answers are given from.
    runtime: tokio::runtime::Handle,
    metrics: Metrics,
}

impl Shared {
    fn health(&self) -> Health {
        match self.health.load(Ordering::Acquire) {
            0 => Health::Ready,
            1 => Health::Recovering,
            2 => Health::Refusing,
            3 => Health::Closed,
            _ => Health::Failed,
        }
    }

    /// Sleeps, in short pieces, so that the end of the service need not wait for it.
    fn sleep_unless_closing(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.closing.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Release);
    }
}

/// The engine's owner: ends it.
pub struct Engine {
    handle: EngineHandle,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A handle to the engine; cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    queue: mpsc::Sender<Message>,
    commands: Arc<Semaphore>,
    commands_max: usize,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    shared: Arc<Shared>,
}

/// Bytes are counted in units of this size, since a semaphore counts to 2^29 at most.
const BYTES_UNIT: usize = 64;

/// How long a record that the index knows may take to be there for everybody. That is a moment, unless the
/// log is being recovered.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

impl Engine {
    /// Starts the writer at the end of the log. Called within a runtime, from which answers
    /// are given.
    pub fn start(log: Arc<Log>, limits: QueueLimits, clock: impl Clock) -> std::io::Result<Self> {
        let core = core::Core::new(Arc::clone(log.views()), Arc::clone(log.index()), log.end());
        let (handle, messages) = EngineHandle::new(log, limits);
        let writer = writer::Writer::new(core, Arc::clone(&handle.shared), messages, clock);
        let thread =
            std::thread::Builder::new().name("acta-writer".into()).spawn(move || writer.run())?;
        Ok(Self { handle, thread: Mutex::new(Some(thread)) })
    }

    /// A handle for those who give commands.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Answers what is in flight, refuses what comes after, and ends the writer. Blocking.
    pub fn close(&self) {
        self.handle.shared.closing.store(true, Ordering::Release);
        // The writer may be gone already; then there is nothing to tell it.
        drop(self.handle.queue.send(Message::Close));
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the writer ended in a panic");
        }
        self.handle.shared.set_health(Health::Closed);
    }
}

impl EngineHandle {
    /// A handle, and what comes from it.
    fn new(log: Arc<Log>, limits: QueueLimits) -> (Self, mpsc::Receiver<Message>) {
        let shared = Arc::new(Shared {
            health: AtomicU8::new(0),
            closing: AtomicBool::new(false),
            log,
            runtime: tokio::runtime::Handle::current(),
            metrics: Metrics::default(),
        });
        let (queue, messages) = mpsc::channel();
        let handle = Self {
            queue,
            commands: Arc::new(Semaphore::new(limits.commands)),
            commands_max: limits.commands,
            bytes: Arc::new(Semaphore::new(limits.bytes.div_ceil(BYTES_UNIT))),
            bytes_max: limits.bytes,
            shared,
        };
        (handle, messages)
    }

    /// Whether the engine writes.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Whether nothing will ever be written again.
    pub fn is_closed(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire) || self.health() == Health::Failed
    }

    /// What the service counts about itself.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// How many commands wait for their answer.
    pub fn waiting(&self) -> usize {
        self.commands_max.saturating_sub(self.commands.available_permits())
    }

    /// Gives a command of a client. A full queue refuses at once.
    pub async fn submit(&self, request: Request) -> Answer {
        let files = request.command.content_files();
        let answer = self.submit_once(request).await;
        // What was written for a command of which nothing was recorded is of no use to anybody.
        let is_used = match &answer {
            Ok(Ack::Recorded { replayed, .. }) => !replayed,
            Ok(_) => false,
            Err(rejection) => rejection.code == Code::OutcomeUnknown,
        };
        if !is_used {
            self.shared.log.discard(files);
        }
        answer
    }

    async fn submit_once(&self, request: Request) -> Answer {
        let kind = request.command.kind();
        let answer = self.submit_at_once(request).await;
        self.metrics().answered(kind, &answer);
        answer
    }

    async fn submit_at_once(&self, request: Request) -> Answer {
        let full = || {
            let message = "too many commands are waiting; try again after the time in Retry-After";
            Rejection::new(Code::Overloaded, message)
        };
        let bytes = self.bytes_units(&request);
        let commands = Arc::clone(&self.commands).try_acquire_owned().map_err(|_| full())?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).map_err(|_| full())?;
        self.send(request, commands, bytes).await
    }

    /// Gives a command of the service itself, which waits for its place in the queue: this is
    /// how a flood of output is slowed down.
    pub async fn submit_patiently(&self, request: Request) -> Answer {
        let kind = request.command.kind();
        let answer = self.submit_in_turn(request).await;
        self.metrics().answered(kind, &answer);
        answer
    }

    async fn submit_in_turn(&self, request: Request) -> Answer {
        let closed = |_| not_ready(Health::Closed);
        let bytes = self.bytes_units(&request);
        let commands = Arc::clone(&self.commands).acquire_owned().await.map_err(closed)?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.map_err(closed)?;
        self.send(request, commands, bytes).await
    }

    async fn send(
        &self,
        request: Request,
        commands: OwnedSemaphorePermit,
        bytes: OwnedSemaphorePermit,
    ) -> Answer {
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(not_ready(Health::Closed));
        }
        let health = self.health();
        if !matches!(health, Health::Ready | Health::Refusing) {
            return Err(not_ready(health));
        }
        // Looking into runs on disk is for this thread, not for the writer, which then only
        // has to look at what came after.
        let (key_checked, found) = self.find_key(&request)?;
        if let Some(seq) = found {
            return self.replay(&request, seq).await;
        }
        let (sender, answer) = oneshot::channel();
        let repeat = request.key.is_some().then(|| request.clone());
        let span = debug_span!(target: TARGET, "command", acta.kind = request.command.kind());
        let reply = Reply { answer: sender, span, _commands: commands, _bytes: bytes };
        let submission = Box::new(Submission { request, key_checked, reply });
        self.queue.send(Message::Submit(submission)).map_err(|_| not_ready(Health::Closed))?;
        match (answer.await, repeat) {
            (Ok(Ok(Ack::Repeated { seq })), Some(request)) => self.replay(&request, seq).await,
            (Ok(answer), _) => answer,
            // The writer ended with the command in hand: it may be in the log.
            (Err(_), _) => Err(outcome_unknown()),
        }
    }

    /// A command that is larger than the whole queue takes all of it.
    fn bytes_units(&self, request: &Request) -> u32 {
        let bytes = request.command.bytes().min(self.bytes_max);
        u32::try_from(bytes.div_ceil(BYTES_UNIT)).unwrap_or(u32::MAX)
    }

    fn find_key(&self, request: &Request) -> Result<(Sequence, Option<Sequence>), Rejection> {
        let Some(key) = &request.key else { return Ok((Sequence::ZERO, None)) };
        let index = self.shared.log.index();
        let checked = index.flushed_through();
        let digest = key_digest(&request.actor, &key.key);
        let found = index.find_key(&digest).map_err(crate::log::ReadFault::from)?;
        Ok((checked, found))
    }

    async fn replay(&self, request: &Request, seq: Sequence) -> Answer {
        // The index knows a key a moment before everybody may see its record.
        let mut head = self.shared.log.watch_head();
        let seen = head.wait_for(|head| *head >= seq);
        if tokio::time::timeout(SEEN_WITHIN, seen).await.is_err() {
            let message = "what this Idempotency-Key was used for cannot be read yet; repeat the \
                           command under the same key";
            return Err(Rejection::new(Code::NotReady, message));
        }
        self.shared.log.retains(seq)?;
        let Some(logged) = self.shared.log.record(seq).await? else {
            let message =
                format!("record {seq}, which this Idempotency-Key was used for, is missing");
            return Err(Rejection::new(Code::StoreMissing, message));
        };
        let first = Arc::clone(&logged.record);
        let content = self.shared.log.content(&first).await?;
        replay_of(request, first, content.as_ref())
    }
}

/// The answer to a command whose key was used before, for the command that made this record
/// with this content.
fn replay_of(request: &Request, first: Arc<Record>, content: Option<&Bytes>) -> Answer {
    if request.key.as_ref().is_some_and(|key| key.is_of(&first, content)) {
        return Ok(Ack::Recorded { first, replayed: true });
    }
    let message = format!(
        "this Idempotency-Key was used for another command before, recorded as sequence {}; \
         repeat that command exactly, or use a fresh key",
        first.seq()
    );
    Err(Rejection::new(Code::IdempotencyKeyReused, message))
}

fn not_ready(health: Health) -> Rejection {
    let message = format!(
        "the service does not write at the moment ({}); nothing was recorded, try again later",
        health.reason()
    );
    Rejection::new(Code::NotReady, message)
}

fn outcome_unknown() -> Rejection {
    let message = "whether the command was recorded is not known: repeat it with the same \
                   Idempotency-Key, and it happens once";
    Rejection::new(Code::OutcomeUnknown, message)
}
