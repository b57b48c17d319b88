//! The thread that decides.

use super::{
    Batch, Clock, Health, Message, Reply, Shared, Submission,
    core::{Core, Moment},
    not_ready, outcome_unknown,
    queue::Receiver,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::VecDeque,
    sync::{Arc, mpsc},
};

pub(super) struct Decider<C> {
    core: Core<Reply>,
    shared: Arc<Shared>,
    batches: mpsc::SyncSender<Batch<Reply>>,
    clock: C,
    entropy: StdRng,
    /// Commands that could not be decided yet, in order. Bounded by the queue's permits.
    backlog: VecDeque<Box<Submission<Reply>>>,
    /// The committer has a batch.
    in_flight: bool,
    closing: bool,
}

impl<C: Clock> Decider<C> {
    pub(super) fn new(
        core: Core<Reply>,
        shared: Arc<Shared>,
        batches: mpsc::SyncSender<Batch<Reply>>,
        clock: C,
    ) -> Self {
        Self {
            core,
            shared,
            batches,
            clock,
            entropy: StdRng::from_os_rng(),
            backlog: VecDeque::new(),
            in_flight: false,
            closing: false,
        }
    }

    /// Until it is told to close.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        let mut taken = VecDeque::new();
        loop {
            messages.take_all(&mut taken);
            for message in taken.drain(..) {
                self.take(message);
            }
            self.decide_backlog();
            if !self.in_flight && self.core.has_work() {
                self.hand_over();
            }
            if self.closing && !self.in_flight && self.backlog.is_empty() {
                return;
            }
            messages.wait(self.in_flight);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(submission) if self.closing => {
                submission.reply.send(Err(not_ready(Health::Closed)));
            }
            Message::Submit(submission) => match self.shared.health() {
                Health::Ready | Health::Refusing => self.backlog.push_back(submission),
                health => submission.reply.send(Err(not_ready(health))),
            },
            Message::Committed(through) => {
                self.in_flight = false;
                self.core.committed(through);
            }
            Message::Lost => self.answer_all_lost(),
            Message::RolledBack(end) => {
                self.in_flight = false;
                let again = self.core.rolled_back(end);
                for submission in again.into_iter().rev() {
                    self.backlog.push_front(submission);
                }
            }
            Message::Close => self.closing = true,
        }
    }

    /// Decides until something has to be durable first.
    fn decide_backlog(&mut self) {
        while let Some(submission) = self.backlog.pop_front() {
            if self.core.is_full() {
                self.backlog.push_front(submission);
                return;
            }
            let moment = Moment { now: self.clock.now(), random: self.entropy.random() };
            if let Some(submission) = self.core.submit(submission, moment) {
                self.backlog.push_front(submission);
                return;
            }
        }
    }

    fn hand_over(&mut self) {
        let batch = self.core.take_batch();
        self.in_flight = true;
        if let Err(mpsc::SendError(batch)) = self.batches.send(batch) {
            // The committer is gone, so nothing of this was written.
            self.in_flight = false;
            for decided in batch.decided {
                decided.submission.reply.send(Err(not_ready(Health::Failed)));
            }
        }
    }

    /// What was decided upon a batch with an unknown outcome was certainly not written, but
    /// those who wait hear that they should ask again, rather than wait for a recovery.
    fn answer_all_lost(&mut self) {
        let end = self.shared.log.end();
        let decided = self.core.rolled_back(end);
        for submission in decided.into_iter().chain(self.backlog.drain(..)) {
            submission.reply.send(Err(outcome_unknown()));
        }
    }
}
