//! The thread that makes batches durable, shows them, and answers.

use super::{
    Batch, Health, Message, Reply, Shared,
    core::{Decided, LogEnd},
    outcome_unknown,
    queue::Sender,
};
use crate::{
    error::{Code, Rejection},
    journal::AppendError,
    log::CheckpointJob,
};
use acta_events::block::Block;
use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    thread::JoinHandle,
    time::Duration,
};

/// The pause between two attempts to open the log again, at most.
const RECOVERY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Until the decider is gone.
pub(super) fn run(
    shared: &Arc<Shared>,
    batches: &mpsc::Receiver<Batch<Reply>>,
    decider: &Sender<Message>,
) {
    let mut checkpoint: Option<JoinHandle<()>> = None;
    let _guard = PanicGuard { shared, decider };
    while let Ok(batch) = batches.recv() {
        let message = commit(shared, batch, decider);
        if decider.news(message).is_err() {
            break;
        }
        begin_checkpoint(shared, &mut checkpoint);
    }
    if let Some(thread) = checkpoint {
        drop(thread.join());
    }
}

/// If the committer ends in a panic, nobody is left waiting for it.
struct PanicGuard<'a> {
    shared: &'a Shared,
    decider: &'a Sender<Message>,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.set_health(Health::Failed);
            drop(self.decider.news(Message::Lost));
            drop(self.decider.news(Message::RolledBack(self.shared.log.end())));
        }
    }
}

fn begin_checkpoint(shared: &Shared, running: &mut Option<JoinHandle<()>>) {
    if running.as_ref().is_some_and(|thread| !thread.is_finished()) {
        return;
    }
    if let Some(job) = shared.log.checkpoint_if_due() {
        let thread = std::thread::Builder::new().name("acta-checkpoint".into());
        *running = thread.spawn(move || CheckpointJob::run(job)).ok();
    }
}

fn commit(shared: &Arc<Shared>, batch: Batch<Reply>, decider: &Sender<Message>) -> Message {
    let Batch { after, blocks, decided } = batch;
    if blocks.is_empty() {
        answer(shared, decided);
        return Message::Committed(after);
    }
    let (blocks, encoded): (Vec<Block>, Vec<_>) = blocks.into_iter().unzip();
    match shared.log.journal().append(after, &encoded) {
        Ok(_) => match shared.log.publish(&blocks) {
            Ok(head) => {
                shared.set_health(Health::Ready);
                answer(shared, decided);
                Message::Committed(head)
            }
            Err(error) => {
                // The records are durable and in order, so this is a defect or damage of
                // derived data. Going on would show views that are not the log's.
                tracing::error!(%error, "what was written cannot be taken into the views");
                shared.set_health(Health::Failed);
                answer_with(decided, &outcome_unknown());
                drop(decider.news(Message::Lost));
                Message::RolledBack(shared.log.end())
            }
        },
        Err(AppendError::Refused(why)) => {
            tracing::error!(%why, "a write was refused; nothing of it was written");
            shared.set_health(Health::Refusing);
            let message = "the command could not be written, and nothing of it was recorded; see \
                           whether the disk of the service is full, then try again";
            answer_with(decided, &Rejection::new(Code::StoreIo, message));
            Message::RolledBack(shared.log.end())
        }
        Err(AppendError::Conflict { head }) => {
            tracing::error!(head = %head.seq, expected = %after, "somebody else has written to the log");
            shared.set_health(Health::Recovering);
            answer_with(decided, &outcome_unknown());
            recover(shared, decider)
        }
        Err(AppendError::Unknown { why }) => {
            tracing::error!(%why, "the outcome of a write is not known; opening the log again");
            shared.set_health(Health::Recovering);
            answer_with(decided, &outcome_unknown());
            recover(shared, decider)
        }
    }
}

/// Opens the log again, for as long as it takes, and publishes what turns out to be there.
fn recover(shared: &Arc<Shared>, decider: &Sender<Message>) -> Message {
    if decider.news(Message::Lost).is_err() {
        return Message::Close;
    }
    let mut pause = Duration::from_millis(100);
    loop {
        let recovered = shared.log.journal().recover();
        match recovered.map(|_| shared.log.catch_up()) {
            Ok(Ok(head)) => {
                tracing::warn!(%head, "the log is open again");
                shared.set_health(Health::Ready);
                let end: LogEnd = shared.log.end();
                return Message::RolledBack(end);
            }
            Ok(Err(error)) => tracing::error!(%error, "the log is open, but cannot be read"),
            Err(error) => tracing::error!(%error, "the log could not be opened again"),
        }
        if shared.closing.load(Ordering::Acquire) {
            return Message::RolledBack(shared.log.end());
        }
        shared.sleep_unless_closing(pause);
        pause = (pause * 2).min(RECOVERY_PAUSE_MAX);
    }
}

/// Answers from a task of the runtime: one wake-up of its threads instead of one per answer.
fn answer(shared: &Shared, decided: Vec<Decided<Reply>>) {
    let answers = async move {
        for decided in decided {
            decided.submission.reply.send(decided.answer);
        }
    };
    drop(shared.runtime.spawn(answers));
}

fn answer_with(decided: Vec<Decided<Reply>>, rejection: &Rejection) {
    for decided in decided {
        decided.submission.reply.send(Err(rejection.clone()));
    }
}
