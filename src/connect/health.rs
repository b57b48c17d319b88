//! How this side fares, as its heartbeats tell.

use super::{Stopping, backoff::Backoff, wire::Wire};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::VecDeque, time::Duration};
use tokio::time::{Instant, sleep};

/// Between two heartbeats. The lease is twice as long.
const BEAT: Duration = Duration::from_secs(30);
/// Outcomes that the error rate is about.
const OUTCOMES_MAX: usize = 20;

/// What went well lately, and what did not.
#[derive(Debug)]
pub(super) struct Health {
    begun: Instant,
    outcomes: Mutex<VecDeque<bool>>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), outcomes: Mutex::default() }
    }

    pub(super) fn succeeded(&self) {
        self.note(true);
    }

    pub(super) fn failed(&self) {
        self.note(false);
    }

    fn note(&self, outcome: bool) {
        let mut outcomes = self.outcomes.lock();
        outcomes.push_back(outcome);
        while outcomes.len() > OUTCOMES_MAX {
            outcomes.pop_front();
        }
    }

    /// The part of the last outcomes that were failures. A few of them alone do not make one.
    fn error_rate(&self) -> f64 {
        let failures = self.outcomes.lock().iter().filter(|outcome| !**outcome).count();
        // At most 20 of each.
        f64::from(u8::try_from(failures).unwrap_or(u8::MAX)) / OUTCOMES_MAX as f64
    }

    /// What a heartbeat says beside that this side is there. Nothing of a message is in it.
    fn beat(&self) -> Value {
        let mut beat = json!({ "uptime_seconds": self.begun.elapsed().as_secs() });
        let error_rate = self.error_rate();
        beat["error_rate"] = error_rate.into();
        if error_rate > 0.0 {
            beat["sample_error"] = "messages could not be answered".into();
        }
        beat
    }
}

/// Beats until it is dropped, or the service says that there is nothing to beat for.
pub(super) async fn beat(wire: &Wire, health: &Health, stopping: &Stopping, delay: Duration) {
    let mut backoff = Backoff::new(delay);
    while !stopping.hard.is_cancelled() {
        let wait = match wire.heartbeat(health.beat()).await {
            Ok(()) => {
                if backoff.failures() > 0 {
                    tracing::info!("the heartbeat is back");
                }
                backoff.reset();
                BEAT
            }
            Err(error) if error.status().is_some() => {
                tracing::error!(
                    %error,
                    "THE HEARTBEAT HAS STOPPED: the service will take this worker for absent"
                );
                return;
            }
            Err(error) => {
                let wait = backoff.next(error.retry_after());
                tracing::warn!(%error, "a heartbeat did not arrive");
                // A beat that is due anyway is not put off by failures.
                if error.retry_after().is_some() { wait } else { wait.min(BEAT) }
            }
        };
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_rate_is_that_of_the_last_outcomes() {
        let health = Health::new();
        assert_eq!(health.beat()["error_rate"], 0.0);
        for _ in 0..10 {
            health.failed();
        }
        assert_eq!(health.beat()["error_rate"], 0.5);
        for _ in 0..OUTCOMES_MAX {
            health.succeeded();
        }
        assert_eq!(health.beat()["error_rate"], 0.0);
    }
}
