//! What the demonstration shows while it runs, and what it tells at the end.

use super::checks::{Verdict, Violation};
use crate::cli::output::{Format, Ink, Output};
use acta_events::Sequence;
use anyhow::Result;
use serde::Serialize;
use std::time::{Duration, Instant};

/// A check and what came of it.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) ok: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) violation: Option<Violation>,
}

/// A step of the demonstration and how long it took.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) seconds: f64,
}

/// Prints, and remembers the checks and the time.
pub(super) struct Screen<'a> {
    out: &'a mut Output,
    pub(super) checks: Vec<Check>,
    pub(super) steps: Vec<Step>,
    begun: Instant,
    step_begun: Option<(&'static str, Instant)>,
}

impl<'a> Screen<'a> {
    pub(super) fn new(out: &'a mut Output) -> Self {
        let begun = Instant::now();
        Self { out, checks: Vec::new(), steps: Vec::new(), begun, step_begun: None }
    }

    pub(super) fn is_json(&self) -> bool {
        self.out.format == Format::Json
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Begins a step.
    pub(super) fn step(&mut self, name: &'static str) -> Result<()> {
        self.end_step();
        self.step_begun = Some((name, Instant::now()));
        let number = self.steps.len() + 1;
        self.say("")?;
        self.say(&format!("{number}. {name}"))
    }

    pub(super) fn end_step(&mut self) {
        if let Some((name, begun)) = self.step_begun.take() {
            self.steps.push(Step { name, seconds: begun.elapsed().as_secs_f64() });
        }
    }

    /// A line of its own.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        if self.is_json() {
            return Ok(());
        }
        self.out.line(line)?;
        self.out.flush()
    }

    /// What explains, below the step.
    pub(super) fn aside(&mut self, line: &str) -> Result<()> {
        let line = self.out.paint.ink(Ink::Dim, line).into_owned();
        self.say(&format!("   {line}"))
    }

    /// Something that a worker was sent, or said.
    pub(super) fn speech(
        &mut self,
        ink: Ink,
        seq: Sequence,
        speaker: &str,
        text: &str,
    ) -> Result<()> {
        let seq = self.out.paint.ink(Ink::Dim, &format!("{seq:>6}")).into_owned();
        let speaker = self.out.paint.ink(ink, &format!("{speaker:>10} │")).into_owned();
        self.say(&format!("   {seq} {speaker} {text}"))
    }

    /// Remembers a check, and shows it.
    pub(super) fn check(&mut self, name: impl Into<String>, verdict: Verdict) -> Result<()> {
        let name = name.into();
        let line = match &verdict {
            Ok(()) => format!("   {} {name}", self.out.paint.ink(Ink::Agent, "✓")),
            Err(Violation { expected, seen }) => format!(
                "   {} {name}\n       expected: {expected}\n       seen:     {seen}",
                self.out.paint.ink(Ink::Alarm, "✗")
            ),
        };
        self.checks.push(Check { name, ok: verdict.is_ok(), violation: verdict.err() });
        self.say(&line)
    }

    pub(super) fn failed(&self) -> usize {
        self.checks.iter().filter(|check| !check.ok).count()
    }

    /// The one document of `-o json`.
    pub(super) fn document(&mut self, document: &serde_json::Value) -> Result<()> {
        self.out.json(document)?;
        self.out.flush()
    }

    pub(super) fn paint(&self) -> crate::cli::output::Paint {
        self.out.paint
    }
}
