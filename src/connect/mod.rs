//! The agent side of an external worker: registers, beats, gets messages, has a backend answer
//! them, replies.
//!
//! Each message is answered once, whatever dies when: the outcome of the backend is on disk
//! before it is sent, it is sent under a key by which the platform recognises a repeat, and the
//! cursor moves after it was taken. The backend sees a message again, with the same id, only if
//! this process died between the backend's work and the record of it.
//!
//! It knows the platform through its wire only, and nothing of the service in this crate.

pub mod backend;
pub mod backends;
mod backoff;
mod dispatch;
mod health;
pub mod options;
mod poll;
mod push;
mod row;
mod state;
mod stream;
#[cfg(test)]
mod tests;
pub mod wire;

use crate::backend::{LeftoverEnd, end_leftover};
use backend::{Backend, ClosedOnce};
use backoff::Backoff;
use dispatch::Dispatcher;
use health::Health;
use options::{Mode, Options};
use push::Endpoint;
use reqwest::Url;
use state::{State, StateError};
use std::{io, net::SocketAddr, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wire::{Wire, WireError};

const REGISTER_TRIES: u32 = 5;
const REGISTER_DELAY: Duration = Duration::from_secs(1);
/// How long the message in hand may take after this side was asked to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long a command that a former life left behind has between SIGTERM and SIGKILL.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);
/// The longest delay before a second try; shorter where the interval is.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);
const RETRY_DELAY_MIN: Duration = Duration::from_millis(20);

/// Why a connection ended, other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The state cannot be kept, and without it messages would be answered twice.
    #[error(transparent)]
    State(#[from] StateError),
    /// The platform does not want this side.
    #[error("the service refuses this worker: {0}")]
    Refused(#[from] WireError),
    /// The endpoint cannot be served.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// Registering did not work.
    #[error("cannot register the worker: {0}")]
    Register(#[source] WireError),
}

/// How this side is asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Stopping {
    /// Begin nothing new; the message in hand may be finished for a few seconds.
    pub soft: CancellationToken,
    /// Leave the message in hand for the next start.
    pub hard: CancellationToken,
}

impl Stopping {
    /// Returns when the message in hand is to be left.
    async fn patience_ended(&self) {
        let softly = async {
            self.soft.cancelled().await;
            sleep(STOP_PATIENCE).await;
        };
        tokio::select! {
            () = softly => {}
            () = self.hard.cancelled() => {}
        }
    }
}

/// Attaches this process to a worker until it is asked to stop. The backend is closed once in the
/// end, however that comes.
pub async fn run(
    options: &Options,
    wire: &Wire,
    backend: &dyn Backend,
    stopping: &Stopping,
) -> Result<(), ConnectError> {
    let backend = ClosedOnce::new(backend);
    let result = attached(options, wire, &backend, stopping).await;
    backend.close().await;
    if result.is_ok() {
        tracing::info!("stopped");
    }
    result
}

async fn attached(
    options: &Options,
    wire: &Wire,
    backend: &dyn Backend,
    stopping: &Stopping,
) -> Result<(), ConnectError> {
    let mut state = State::open(&options.state_dir, &options.worker_id)?;
    end_leftovers(&mut state).await?;
    let endpoint = match options.mode {
        Mode::Poll => None,
        Mode::Push => {
            let secret = state.push_secret(push::fresh_secret()).await?;
            let endpoint = Endpoint::open(options, secret).await;
            Some(endpoint.map_err(|error| ConnectError::Listen(options.listen, error))?)
        }
    };
    tokio::select! {
        registered = register(wire, endpoint.as_ref().map(|endpoint| &endpoint.url)) => {
            registered?;
        }
        () = stopping.soft.cancelled() => return Ok(()),
    }
    tracing::info!(
        worker = options.worker_id,
        url = wire.shown(),
        mode = options.mode.as_str(),
        backend = options.backend,
        after = state.cursor().unwrap_or("the beginning"),
        "connected"
    );
    let health = Health::new();
    let delay = options.interval.clamp(RETRY_DELAY_MIN, RETRY_DELAY_MAX);
    let mut dispatcher = Dispatcher { wire, backend, state, stopping, health: &health, delay };
    let working = async {
        match endpoint {
            Some(endpoint) => push::serve(&mut dispatcher, endpoint).await,
            None => poll::poll(&mut dispatcher, options).await,
        }
    };
    let beating = async {
        health::beat(wire, &health, stopping, delay).await;
        // Without it the work goes on.
        std::future::pending().await
    };
    tokio::select! {
        worked = working => worked,
        never = beating => never,
    }
}

/// A command that was at work when a former life of this side was killed may still be.
async fn end_leftovers(state: &mut State) -> Result<(), StateError> {
    let Some(process) = state.running().cloned() else { return Ok(()) };
    let ended = end_leftover(&process, LEFTOVER_GRACE).await;
    if ended != LeftoverEnd::Gone {
        tracing::warn!(pid = process.pid, ?ended, "a command of a former start still ran");
    }
    state.set_running(None).await
}

async fn register(wire: &Wire, url: Option<&Url>) -> Result<(), ConnectError> {
    let mut delay = REGISTER_DELAY;
    for attempt in 1.. {
        let error = match wire.register(url).await {
            Ok(()) => break,
            Err(error) => error,
        };
        if error.is_for_people() || attempt == REGISTER_TRIES {
            return Err(ConnectError::Register(error));
        }
        tracing::warn!(%error, attempt, "registering did not work; trying again");
        sleep(delay.max(error.retry_after().unwrap_or_default().min(Backoff::LONGEST))).await;
        delay *= 2;
    }
    Ok(())
}
