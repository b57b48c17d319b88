//! When to send which signal: from the wish to stop to the moment of giving up.

use super::StopMode;
use std::{future::pending, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// How long a killed process, and the report of its last words, is waited for.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// What is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Ask the group to end.
    Terminate,
    /// Kill the group.
    Kill,
    /// It did not go away even so; stop waiting.
    GiveUp,
}

enum Phase {
    Running,
    Terminating { kill_at: Instant },
    Killed { give_up_at: Instant },
    GivenUp,
}

/// Turns wishes and deadlines into signals, each at most once.
pub(super) struct Stopper {
    wish: watch::Receiver<Option<StopMode>>,
    grace: Duration,
    phase: Phase,
}

impl Stopper {
    /// Watches `wish`.
    pub(super) fn new(wish: watch::Receiver<Option<StopMode>>, grace: Duration) -> Self {
        Self { wish, grace, phase: Phase::Running }
    }

    /// Whether the worker is on its way out.
    pub(super) fn is_stopping(&self) -> bool {
        !matches!(self.phase, Phase::Running) || self.wish.borrow().is_some()
    }

    /// Asks for a graceful stop from within.
    pub(super) fn begin(&mut self) -> Option<Signal> {
        matches!(self.phase, Phase::Running).then(|| self.terminate())
    }

    /// Waits for the next signal that is due. Cancel-safe: nothing changes before it returns.
    pub(super) async fn step(&mut self) -> Signal {
        match self.phase {
            Phase::Running => match first_wish(&mut self.wish).await {
                StopMode::Graceful => self.terminate(),
                StopMode::Force => self.kill(),
            },
            Phase::Terminating { kill_at } => {
                tokio::select! {
                    () = forced(&mut self.wish) => {}
                    () = sleep_until(kill_at) => {}
                }
                self.kill()
            }
            Phase::Killed { give_up_at } => {
                sleep_until(give_up_at).await;
                self.phase = Phase::GivenUp;
                Signal::GiveUp
            }
            Phase::GivenUp => pending().await,
        }
    }

    fn terminate(&mut self) -> Signal {
        self.phase = Phase::Terminating { kill_at: Instant::now() + self.grace };
        Signal::Terminate
    }

    /// Kills from within.
    pub(super) fn kill(&mut self) -> Signal {
        self.phase = Phase::Killed { give_up_at: Instant::now() + KILL_PATIENCE };
        Signal::Kill
    }
}

/// A dropped sender means that nobody owns the worker any more.
async fn first_wish(wish: &mut watch::Receiver<Option<StopMode>>) -> StopMode {
    match wish.wait_for(Option::is_some).await {
        Ok(mode) => mode.unwrap_or(StopMode::Graceful),
        Err(_) => StopMode::Graceful,
    }
}

async fn forced(wish: &mut watch::Receiver<Option<StopMode>>) {
    let gone = wish.wait_for(|mode| *mode == Some(StopMode::Force)).await.is_err();
    if gone {
        pending().await
    }
}
