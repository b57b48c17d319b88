//! The eraser: carries out orders to erase a content, once they are durable.
//!
//! It begins with a look at all orders of the log, since the process before may have ended in the
//! middle of one. What fails is tried again, for as long as the service runs; what is damaged with
//! the next order, and at the next start.

use crate::{
    error::Rejection,
    log::{Log, ReadFault},
};
use acta_events::Sequence;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

#[cfg(test)]
mod tests;

/// The pause after a failure, at first and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The task that erases; its owner ends it.
pub struct EraserOwner {
    end: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl EraserOwner {
    /// Begins to erase what is ordered to be.
    pub fn start(log: Arc<Log>) -> Self {
        let (end, ended) = watch::channel(false);
        Self { end, task: tokio::spawn(run(log, ended)) }
    }

    /// Waits until what is under way is done, and ends. The next start does what is left.
    pub async fn close(self) {
        self.end.send_replace(true);
        if self.task.await.is_err() {
            tracing::error!("the task that erases contents has failed");
        }
    }
}

async fn run(log: Arc<Log>, mut ended: watch::Receiver<bool>) {
    let mut orders = log.watch_redactions();
    let mut pause = PAUSE;
    loop {
        // Marked as seen before looking, so that what comes in between wakes it again.
        orders.mark_unchanged();
        let erasing = Arc::clone(&log);
        let done = tokio::task::spawn_blocking(move || erasing.erase_pending()).await;
        let again = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) if error.is_lasting() => {
                tracing::error!(%error, "a content cannot be erased, since it is damaged; `acta verify` tells what else is. Restore the data directory and erase it there");
                None
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "contents could not be erased yet; trying again");
                Some(pause)
            }
            Err(error) => {
                tracing::error!(%error, "erasing contents ended in a panic; trying again");
                Some(pause)
            }
        };
        pause = again.map_or(PAUSE, |pause| (pause * 2).min(PAUSE_MAX));
        let next = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => drop(orders.changed().await),
            }
        };
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => return,
            () = next => {}
        }
    }
}

/// Waits until the order in this record is carried out; false if it takes longer than that.
pub async fn is_erased(log: &Log, order: Sequence, wait: Duration) -> Result<bool, Rejection> {
    let mut erased = log.watch_erased();
    let carried_out = erased.wait_for(|erased| erased.has(order));
    match tokio::time::timeout(wait, carried_out).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(_)) => Err(ReadFault::Gone.into()),
        Err(_) => Ok(false),
    }
}
