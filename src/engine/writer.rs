//! The thread that decides, makes durable, shows and answers.

use super::{
    Batch, Clock, Health, Message, Reply, Shared, Submission,
    core::{Core, Decided, Moment},
    not_ready, outcome_unknown,
};
use crate::{
    error::{Code, Rejection},
    journal::AppendError,
    log::CheckpointJob,
    metrics::CommitFailure,
    trace::TARGET,
};
use acta_events::block::Block;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tracing::{Span, debug_span};

/// The pause between two attempts to open the log again, at most.
const RECOVERY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// The pause between two looks whether writes that were refused would go through by now.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// So few answers are given at once, without a detour.
const ANSWERS_GIVEN_HERE: usize = 4;

pub(super) struct Writer<C> {
    core: Core<Reply>,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Message>,
    clock: C,
    entropy: StdRng,
    /// Commands that were taken from the queue and are not decided yet, in order.
    backlog: VecDeque<Box<Submission<Reply>>>,
    checkpoint: Option<JoinHandle<()>>,
    closing: bool,
}

impl<C: Clock> Writer<C> {
    pub(super) fn new(
        core: Core<Reply>,
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Message>,
        clock: C,
    ) -> Self {
        Self {
            core,
            shared,
            queue,
            clock,
            entropy: StdRng::from_os_rng(),
            backlog: VecDeque::new(),
            checkpoint: None,
            closing: false,
        }
    }

    /// Until it is told to close, or nobody is left who could give a command.
    pub(super) fn run(mut self) {
        while !self.closing || !self.backlog.is_empty() {
            if self.backlog.is_empty() {
                match self.wait() {
                    Some(message) => self.take(message),
                    None => return,
                }
            }
            // Everything that has come meanwhile goes into the same batch.
            while let Ok(message) = self.queue.try_recv() {
                self.take(message);
            }
            self.decide_backlog();
            if self.core.has_work() {
                let batch = self.core.take_batch();
                self.commit(batch);
                self.begin_checkpoint();
            }
        }
    }

    /// The next message; none at the end. While writes are refused, it is looked now and then
    /// whether they still would be: nobody gives commands to a service that is not ready.
    fn wait(&self) -> Option<Message> {
        while self.shared.health() == Health::Refusing {
            match self.queue.recv_timeout(PROBE_EVERY) {
                Ok(message) => return Some(message),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if self.shared.log.journal().probe().is_ok() {
                        tracing::info!("the storage takes writes again");
                        self.shared.set_health(Health::Ready);
                    }
                }
            }
        }
        self.queue.recv().ok()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Close => self.closing = true,
            Message::Submit(submission) if self.closing => {
                submission.reply.send(Err(not_ready(Health::Closed)));
            }
            Message::Submit(submission) => match self.shared.health() {
                Health::Ready | Health::Refusing => self.backlog.push_back(submission),
                health => submission.reply.send(Err(not_ready(health))),
            },
        }
    }

    /// Decides until something has to be durable first, or there is enough for one commit.
    fn decide_backlog(&mut self) {
        while !self.core.is_full()
            && let Some(submission) = self.backlog.pop_front()
        {
            let moment = Moment { now: self.clock.now(), random: self.entropy.random() };
            let span = debug_span!(target: TARGET, parent: &submission.reply.span, "decide");
            let deciding = span.entered();
            let undecided = self.core.submit(submission, moment);
            drop(deciding);
            if let Some(submission) = undecided {
                self.backlog.push_front(submission);
                return;
            }
        }
    }

    fn commit(&mut self, batch: Batch<Reply>) {
        let Batch { after, blocks, decided } = batch;
        if blocks.is_empty() {
            return self.answer(decided);
        }
        let (blocks, encoded): (Vec<Block>, Vec<_>) = blocks.into_iter().unzip();
        let spans = append_spans(&decided);
        let begun = Instant::now();
        let appended = self.shared.log.journal().append(after, &encoded);
        drop(spans);
        match appended {
            Ok(_) => {
                let records = blocks.iter().map(|block| block.records.len()).sum();
                self.shared.metrics.committed(begun.elapsed(), decided.len(), records);
                self.publish(&blocks, decided);
            }
            Err(AppendError::Refused(why)) => {
                self.shared.metrics.commit_failed(CommitFailure::Refused);
                tracing::error!(%why, "a write was refused; nothing of it was written");
                self.shared.set_health(Health::Refusing);
                self.roll_back();
                let message = "the command could not be written, and nothing of it was recorded; \
                               see whether the disk of the service is full, then try again";
                answer_with(decided, &Rejection::new(Code::StoreIo, message));
            }
            Err(AppendError::Conflict { head }) => {
                self.shared.metrics.commit_failed(CommitFailure::Conflict);
                tracing::error!(head = %head.seq, expected = %after, "somebody else has written to the log");
                self.recover(decided);
            }
            Err(AppendError::Unknown { why }) => {
                self.shared.metrics.commit_failed(CommitFailure::Unknown);
                tracing::error!(%why, "the outcome of a write is not known; opening the log again");
                self.recover(decided);
            }
        }
    }

    fn publish(&mut self, blocks: &[Block], decided: Vec<Decided<Reply>>) {
        match self.shared.log.publish(blocks) {
            Ok(head) => {
                self.core.committed(head);
                self.shared.set_health(Health::Ready);
                self.answer(decided);
            }
            Err(error) => {
                // The records are durable and in order, so this is a defect or damage of
                // derived data. Going on would show views that are not the log's.
                tracing::error!(%error, "what was written cannot be taken into the views");
                self.shared.set_health(Health::Failed);
                answer_with(decided, &outcome_unknown());
                self.refuse_waiting();
            }
        }
    }

    /// Many answers are given from a task of the runtime: one wake-up of its threads instead of
    /// one per answer.
    fn answer(&self, decided: Vec<Decided<Reply>>) {
        if decided.len() <= ANSWERS_GIVEN_HERE {
            for decided in decided {
                decided.submission.reply.send(decided.answer);
            }
            return;
        }
        drop(self.shared.runtime.spawn(async move {
            for decided in decided {
                decided.submission.reply.send(decided.answer);
            }
        }));
    }

    /// Forgets what was decided and is not durable. Nothing is ever decided behind a batch that
    /// is not, so that there is nothing to decide again.
    fn roll_back(&mut self) {
        let again = self.core.rolled_back(self.shared.log.end());
        for submission in again.into_iter().rev() {
            self.backlog.push_front(submission);
        }
    }

    /// Those who wait hear that they should ask again, rather than wait for a recovery.
    fn refuse_waiting(&mut self) {
        let health = self.shared.health();
        while let Ok(message) = self.queue.try_recv() {
            self.take(message);
        }
        for submission in self.backlog.drain(..) {
            submission.reply.send(Err(not_ready(health)));
        }
    }

    /// Opens the log again, for as long as it takes, and publishes what turns out to be there.
    fn recover(&mut self, decided: Vec<Decided<Reply>>) {
        self.shared.set_health(Health::Recovering);
        answer_with(decided, &outcome_unknown());
        let mut pause = Duration::from_millis(100);
        loop {
            self.refuse_waiting();
            let recovered = self.shared.log.journal().recover();
            match recovered.map(|_| self.shared.log.catch_up()) {
                Ok(Ok(head)) => {
                    tracing::warn!(%head, "the log is open again");
                    self.roll_back();
                    return self.shared.set_health(Health::Ready);
                }
                Ok(Err(error)) => tracing::error!(%error, "the log is open, but cannot be read"),
                Err(error) => tracing::error!(%error, "the log could not be opened again"),
            }
            if self.shared.closing.load(Ordering::Acquire) {
                return self.roll_back();
            }
            self.shared.sleep_unless_closing(pause);
            pause = (pause * 2).min(RECOVERY_PAUSE_MAX);
        }
    }

    fn begin_checkpoint(&mut self) {
        if self.checkpoint.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        if let Some(job) = self.shared.log.checkpoint_if_due() {
            let thread = std::thread::Builder::new().name("acta-checkpoint".into());
            self.checkpoint = thread.spawn(move || CheckpointJob::run(job)).ok();
        }
    }
}

impl<C> Drop for Writer<C> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Whoever waits hears that the outcome is unknown, since its reply is dropped.
            self.shared.set_health(Health::Failed);
        }
        if let Some(thread) = self.checkpoint.take() {
            drop(thread.join());
        }
    }
}

/// One in the trace of each command: they share the append. Ended by being dropped.
fn append_spans(decided: &[Decided<Reply>]) -> Vec<Span> {
    let traced = decided.iter().map(|decided| &decided.submission.reply.span);
    let traced = traced.filter(|span| !span.is_disabled());
    let commands = decided.len();
    traced
        .map(|span| debug_span!(target: TARGET, parent: span, "append", acta.commands = commands))
        .collect()
}

fn answer_with(decided: Vec<Decided<Reply>>, rejection: &Rejection) {
    for decided in decided {
        decided.submission.reply.send(Err(rejection.clone()));
    }
}
