//! How long to wait before the next try.

use rand::Rng;
use std::time::Duration;

/// No delay that somebody else asks for is honoured beyond this.
const ASKED_MAX: Duration = Duration::from_secs(600);

/// Delays that double up to a bound, and are spread so that many agents of a service that comes
/// back do not all come at once.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    failures: u32,
}

impl Backoff {
    /// No own delay is longer.
    pub(super) const LONGEST: Duration = Duration::from_secs(60);

    pub(super) fn new(first: Duration) -> Self {
        Self { first, failures: 0 }
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure. Whoever failed may have `asked` for a delay.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        self.next_spread(asked, rand::rng().random())
    }

    /// `spread` is drawn from 0..1.
    fn next_spread(&mut self, asked: Option<Duration>, spread: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        let own = doubled.mul_f64(0.5 + spread.clamp(0.0, 1.0) / 2.0);
        own.max(asked.unwrap_or_default().min(ASKED_MAX))
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_honour_what_is_asked_for() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let secs: Vec<u64> = (0..8).map(|_| backoff.next_spread(None, 1.0).as_secs()).collect();
        assert_eq!(secs, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next_spread(None, 0.0), Duration::from_secs(30));
        backoff.reset();
        let asked = |secs| Some(Duration::from_secs(secs));
        assert_eq!(backoff.next_spread(asked(7), 0.0), Duration::from_secs(7));
        assert_eq!(backoff.next_spread(asked(1), 1.0), Duration::from_secs(2));
        assert_eq!(backoff.next_spread(asked(1 << 40), 1.0), ASKED_MAX);
    }
}
