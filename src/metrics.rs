//! What the service counts about itself.
//!
//! Counters and histograms are kept here, by whoever does the work; what can be looked at when it
//! is asked for (the head, lags, bytes on disk) is not. Every label has a fixed set of values, so
//! that nothing a client sends makes a series.

use crate::{
    command::{Ack, Answer},
    log::Log,
};
use acta_events::Sequence;
use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Upper bounds of the histogram of commits, in seconds.
const COMMIT_SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Upper bounds of the histograms of batches.
const COMMIT_COUNT: [f64; 11] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0];

type CommandLabels = [(&'static str, &'static str); 2];
type OneLabel = [(&'static str, &'static str); 1];

/// How an observer follows the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observer {
    /// Over WebSocket.
    WebSocket,
    /// Over Server-Sent Events, or a record a line.
    Http,
}

impl Observer {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::WebSocket, Self::Http];

    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Http => "http",
        }
    }
}

/// Why a commit did not become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitFailure {
    /// Nothing of it was written.
    Refused,
    /// Whether it was is not known.
    Unknown,
    /// Somebody else had written.
    Conflict,
}

impl CommitFailure {
    const ALL: [Self; 3] = [Self::Refused, Self::Unknown, Self::Conflict];

    fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Conflict => "conflict",
        }
    }
}

/// Which of the two forms of Prometheus's text a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Version 0.0.4, which everybody reads.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

/// Counters and histograms of one service.
pub struct Metrics {
    registry: Registry,
    commands: Family<CommandLabels, Counter>,
    commit_seconds: Histogram,
    commit_commands: Histogram,
    commit_records: Histogram,
    failed_commits: Family<OneLabel, Counter>,
    observers: Family<OneLabel, Gauge>,
    dispatched: AtomicU64,
    begun: Instant,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("acta");
        let commands = Family::<CommandLabels, Counter>::default();
        let commit_seconds = Histogram::new(COMMIT_SECONDS);
        let commit_commands = Histogram::new(COMMIT_COUNT);
        let commit_records = Histogram::new(COMMIT_COUNT);
        let failed_commits = Family::<OneLabel, Counter>::default();
        let observers = Family::<OneLabel, Gauge>::default();
        let help = "Commands that were answered, by kind and outcome";
        registry.register("commands", help, commands.clone());
        let help = "How long commits took until they were durable";
        registry.register("commit_seconds", help, commit_seconds.clone());
        let help = "Commands that one commit made durable";
        registry.register("commit_commands", help, commit_commands.clone());
        let help = "Records that one commit made durable";
        registry.register("commit_records", help, commit_records.clone());
        let help = "Commits that did not become durable, by what is known of them";
        registry.register("failed_commits", help, failed_commits.clone());
        let help = "Observers that are connected, by way";
        registry.register("observers", help, observers.clone());
        for failure in CommitFailure::ALL {
            drop(failed_commits.get_or_create(&[("outcome", failure.name())]));
        }
        for observer in Observer::ALL {
            drop(observers.get_or_create(&[("way", observer.name())]));
        }
        Self {
            registry,
            commands,
            commit_seconds,
            commit_commands,
            commit_records,
            failed_commits,
            observers,
            dispatched: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }
}

impl Metrics {
    /// Counts an answer.
    pub(crate) fn answered(&self, kind: &'static str, answer: &Answer) {
        let outcome = match answer {
            Ok(Ack::Recorded { replayed: false, .. }) => "recorded",
            Ok(Ack::Recorded { replayed: true, .. } | Ack::Repeated { .. }) => "replayed",
            Ok(Ack::Unchanged { .. }) => "unchanged",
            Err(rejection) => rejection.code.as_str(),
        };
        self.commands.get_or_create(&[("kind", kind), ("outcome", outcome)]).inc();
    }

    /// Counts a commit that is durable.
    pub(crate) fn committed(&self, spent: Duration, commands: usize, records: usize) {
        self.commit_seconds.observe(spent.as_secs_f64());
        self.commit_commands.observe(commands as f64);
        self.commit_records.observe(records as f64);
    }

    /// Counts a commit that is not.
    pub(crate) fn commit_failed(&self, failure: CommitFailure) {
        self.failed_commits.get_or_create(&[("outcome", failure.name())]).inc();
    }

    /// An observer is there for as long as what this gives.
    pub(crate) fn observing(&self, observer: Observer) -> Observing {
        let gauge = self.observers.get_or_create(&[("way", observer.name())]).clone();
        gauge.inc();
        Observing(gauge)
    }

    /// How many observers are connected.
    pub fn observers(&self, observer: Observer) -> i64 {
        self.observers.get_or_create(&[("way", observer.name())]).get()
    }

    /// Dispatch has looked at everything up to here.
    pub(crate) fn dispatched(&self, seq: Sequence) {
        self.dispatched.store(seq.0, Ordering::Relaxed);
    }

    /// How many records dispatch has not looked at yet.
    pub fn dispatch_lag(&self, log: &Log) -> u64 {
        log.head().0.saturating_sub(self.dispatched.load(Ordering::Relaxed))
    }

    /// How long the service has been running.
    pub fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Everything, with what was looked at just now.
    pub fn encode(&self, now: &[Registry], form: Form) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        for registry in now {
            encode_registry(&mut text, registry)?;
        }
        match form {
            Form::OpenMetrics => encode_eof(&mut text).map(|()| text),
            Form::Text => plain(&text),
        }
    }
}

/// `OpenMetrics` as the older form has it: no units, and what is said of a counter is said of
/// the name that its samples bear.
fn plain(text: &str) -> Result<String, fmt::Error> {
    let is_counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
    let mut plain = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if is_counter(name) => {
                writeln!(plain, "# {kind} {name}_total {rest}")?;
            }
            _ => writeln!(plain, "{line}")?,
        }
    }
    Ok(plain)
}

/// Counts an observer while it is held.
#[derive(Debug)]
pub(crate) struct Observing(Gauge);

impl Drop for Observing {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Rejection};

    #[test]
    fn the_older_form_says_the_same() {
        let metrics = Metrics::default();
        metrics.answered("input", &Err(Rejection::new(Code::Overloaded, "no")));
        metrics.answered("input", &Err(Rejection::new(Code::Overloaded, "no")));
        metrics.committed(Duration::from_millis(2), 3, 7);
        metrics.commit_failed(CommitFailure::Refused);
        let observing = metrics.observing(Observer::Http);
        assert_eq!(metrics.observers(Observer::Http), 1);
        drop(observing);
        assert_eq!(metrics.observers(Observer::Http), 0);
        let check = |form, present: &[&str], absent: &[&str]| {
            let text = metrics.encode(&[], form).unwrap();
            for line in present {
                assert!(text.lines().any(|l| l == *line), "{form:?}: no {line} in\n{text}");
            }
            for part in absent {
                assert!(!text.contains(part), "{form:?}: {part} in\n{text}");
            }
        };
        let samples = [
            "acta_commands_total{kind=\"input\",outcome=\"overloaded\"} 2",
            "acta_commit_seconds_bucket{le=\"0.0025\"} 1",
            "acta_commit_commands_sum 3.0",
            "acta_commit_records_sum 7.0",
            "acta_failed_commits_total{outcome=\"refused\"} 1",
            "acta_failed_commits_total{outcome=\"conflict\"} 0",
            "acta_observers{way=\"http\"} 0",
            "# TYPE acta_commit_seconds histogram",
            "# TYPE acta_observers gauge",
        ];
        check(Form::OpenMetrics, &samples, &["# TYPE acta_commands_total"]);
        check(Form::OpenMetrics, &["# TYPE acta_commands counter", "# EOF"], &[]);
        check(Form::Text, &samples, &["# EOF", "# UNIT", "# TYPE acta_commands counter"]);
        check(Form::Text, &["# TYPE acta_commands_total counter"], &[]);
    }
}
