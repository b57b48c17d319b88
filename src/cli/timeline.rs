//! Events as lines for people.

use super::output::{Ink, Paint, erased_by, one_line, printable};
use super::short_ids::ShortIds;
use acta_events::{
    Event, ExitStatus, InputKind, IntentKind, OutputKind, Role, Sequence, Timestamp, TurnResult,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{collections::BTreeMap, fmt::Write as _};

/// How much of a text that only explains is shown, in characters.
const ASIDE_CHARS_MAX: usize = 120;

/// A record as the service tells it.
#[derive(Deserialize)]
pub(super) struct RecordView<'a> {
    pub(super) seq: Sequence,
    time: Timestamp,
    #[serde(rename = "type")]
    kind: String,
    v: u16,
    runtime: Option<String>,
    worker: Option<String>,
    actor: Option<String>,
    command: Option<CommandView>,
    #[serde(borrow)]
    data: &'a RawValue,
    content: Option<Value>,
    content_type: Option<String>,
    /// By whose order its content was erased.
    redacted: Option<Value>,
}

/// The command behind a record.
#[derive(Deserialize)]
struct CommandView {
    key: String,
}

impl RecordView<'_> {
    /// What happened; nothing if this build does not know it.
    pub(super) fn event(&self) -> Option<Event> {
        Event::decode(&self.kind, self.v, self.data.get()).ok()
    }

    /// Its content, if that is text.
    pub(super) fn text(&self) -> &str {
        self.content.as_ref().and_then(Value::as_str).unwrap_or_default()
    }

    /// What stands in the place of a content that is erased.
    fn erased(&self) -> Option<String> {
        if self.content_type.as_deref() != Some("erased") {
            return None;
        }
        Some(self.redacted.as_ref().map_or_else(|| "[erased]".into(), erased_by))
    }

    fn part(&self, name: &str) -> &str {
        self.content.as_ref().and_then(|content| content[name].as_str()).unwrap_or_default()
    }
}

pub(super) use agents::said;

/// What was said, by whom.
struct Line {
    ink: Option<Ink>,
    /// Stands before the text, as in `user> `.
    speaker: Option<String>,
    text: String,
}

impl Line {
    fn new(ink: impl Into<Option<Ink>>, text: impl Into<String>) -> Self {
        Self { ink: ink.into(), speaker: None, text: text.into() }
    }

    /// With that in the place of the text.
    fn erased(self, erased: &str) -> Self {
        let text =
            if self.text.is_empty() { erased.into() } else { format!("{} {erased}", self.text) };
        Self { ink: Some(Ink::Dim), text, ..self }
    }

    fn plain(text: impl Into<String>) -> Self {
        Self::new(None, text)
    }

    fn said(ink: Ink, speaker: impl Into<String>, text: &str) -> Self {
        Self {
            ink: Some(ink),
            speaker: Some(speaker.into()),
            text: text.trim_end_matches('\n').into(),
        }
    }
}

/// Formats the records of a stream, one after the other. It remembers what the workers were
/// made from, so that they speak under that name.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    paint: Paint,
    ids: ShortIds,
    templates: BTreeMap<String, String>,
}

impl Timeline {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint, ..Self::default() }
    }

    /// `19:14:00      12  0193e4a2-7c3  user> hello`: time of day in UTC, sequence, worker, and
    /// what happened. Further lines of a text are indented.
    pub(super) fn line(&mut self, record: &RecordView<'_>) -> String {
        let time = record.time.to_string();
        let time = time.get(11..19).unwrap_or(&time);
        let worker =
            record.worker.as_deref().map(|id| self.ids.shorten(id)).unwrap_or("-").to_owned();
        self.placed(record, &format!("{time}  {:>6}  {worker:<8}  ", record.seq.0), true)
    }

    /// As [`Self::line`], with the date, and with who asked for it under which key:
    /// `2026-11-20 19:14:00      12  operator  0193e4a2  user> hello  (cli-7f)`.
    pub(super) fn log_line(&mut self, record: &RecordView<'_>) -> String {
        let time = record.time.to_string().replace('T', " ");
        let time = time.get(..19).unwrap_or(&time);
        let worker =
            record.worker.as_deref().map(|id| self.ids.shorten(id)).unwrap_or("-").to_owned();
        let actor = one_line(record.actor.as_deref().unwrap_or("-"), 24);
        let place = format!("{time}  {:>6}  {actor:<10}  {worker:<8}  ", record.seq.0);
        let mut line = self.placed(record, &place, false);
        if let Some(command) = &record.command {
            let key = format!("  ({})", one_line(&command.key, 64));
            line += &self.paint.ink(Ink::Dim, &key);
        }
        line
    }

    /// What happened, behind a place: what was said as a whole, its further lines indented, or
    /// the beginning of it on one line.
    fn placed(&mut self, record: &RecordView<'_>, place: &str, whole: bool) -> String {
        let line = match record.event() {
            Some(event) => {
                let line = self.describe(record, &event);
                match record.erased() {
                    Some(erased) => line.erased(&erased),
                    None => line,
                }
            }
            None => Line::plain(format!(
                "{} {}",
                record.kind,
                one_line(record.data.get(), ASIDE_CHARS_MAX)
            )),
        };
        let indent = " ".repeat(place.chars().count());
        let mut out = self.paint.ink(Ink::Dim, place).into_owned();
        if let Some(speaker) = &line.speaker {
            let speaker = format!("{}> ", one_line(speaker, 32));
            out += &line.ink.map_or(speaker.as_str().into(), |ink| self.paint.ink(ink, &speaker));
            if !whole {
                out += &one_line(&line.text, 2 * ASIDE_CHARS_MAX);
                return out;
            }
            let text = printable(&line.text);
            out +=
                &text.replace('\n', &format!("\n{indent}{}", " ".repeat(speaker.chars().count())));
        } else {
            let text = one_line(&line.text, 4 * ASIDE_CHARS_MAX);
            out += &line.ink.map_or(text.as_str().into(), |ink| self.paint.ink(ink, &text));
        }
        out.truncate(out.trim_end().len());
        out
    }

    fn agent(&self, record: &RecordView<'_>) -> String {
        let template = record.worker.as_ref().and_then(|id| self.templates.get(id));
        template.cloned().unwrap_or_else(|| "agent".into())
    }

    fn describe(&mut self, record: &RecordView<'_>, event: &Event) -> Line {
        let runtime = record.runtime.as_deref().unwrap_or("?");
        match event {
            Event::ServiceStarted(e) => Line::plain(format!("service started (acta {})", e.acta)),
            Event::ServiceStopped(e) => Line::plain(format!("service stopped: {}", e.reason)),
            Event::LogForked(e) => Line::new(
                Ink::Alarm,
                format!("epoch {} began, from epoch {} at sequence {}", e.epoch, e.parent, e.fork),
            ),
            Event::DispatchResumed(e) => {
                Line::plain(format!("epoch {} acts upon what the log asks for", e.epoch))
            }
            Event::HistoryExpired(e) => Line::new(
                Ink::Alarm,
                format!("records 1 to {} expired by policy: {}", e.through, e.policy),
            ),
            Event::RuntimeRegistered(e) => Line::plain(format!(
                "runtime {runtime} registered: {} ({}), {}",
                e.label,
                e.kind,
                count(e.templates.len() as u64, "template")
            )),
            Event::RuntimeUpdated(e) => Line::plain(format!(
                "runtime {runtime} updated: {}, {}",
                e.label,
                count(e.templates.len() as u64, "template")
            )),
            Event::RuntimeStopped(_) => Line::plain(format!("runtime {runtime} stopped")),
            Event::RemoteRuntimeRegistered(e) => {
                Line::plain(format!("runtime {runtime} registered: {} ({})", e.label, e.remote.url))
            }
            Event::RuntimeRetired(_) => Line::plain(format!("runtime {runtime} retired")),
            Event::HostRegistered(e) => Line::plain(format!(
                "host {} registered: {} ({}, {} {})",
                e.host, e.label, e.kind, e.capabilities.os, e.capabilities.arch
            )),
            Event::HostUpdated(e) => Line::plain(format!(
                "host {} updated: {} ({} {})",
                e.host, e.label, e.capabilities.os, e.capabilities.arch
            )),
            Event::HostLost(e) => Line::plain(format!("host {} lost", e.host)),
            Event::LocalWorkerFound(e) => Line::plain(format!(
                "local worker {} found: {} ({})",
                e.worker,
                e.label,
                e.status.as_str()
            )),
            Event::LocalWorkerLost(e) => Line::plain(format!("local worker {} lost", e.worker)),
            Event::LocalPodsInspected(e) => Line::plain(format!(
                "local pods on host {}: {}, {}",
                e.host,
                e.state.as_str(),
                count(e.problems.values().sum(), "problem")
            )),
            Event::HostFound(e) => Line::plain(format!("host {} found", e.host)),
            Event::ConfigBundleStored(e) => Line::plain(format!(
                "bundle {}@{} stored: revision {}, {}, {}",
                e.bundle.id,
                e.bundle.digest,
                e.revision,
                count(e.profiles.len() as u64, "profile"),
                count(e.declaration_count, "declaration")
            )),
            Event::TokenIssued(e) => {
                let label = e.label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
                let worker =
                    e.worker.as_ref().map(|w| format!(" for {}/{}", w.runtime_id, w.worker_id));
                let worker = worker.unwrap_or_default();
                Line::plain(format!("token {} issued: {}{worker}{label}", e.token, role(e.role)))
            }
            Event::TokenRevoked(e) => Line::plain(format!("token {} revoked", e.token)),
            Event::CursorCommitted(e) => {
                Line::new(Ink::Dim, format!("cursor {} committed at {}", e.name, e.position))
            }
            Event::ContentRedacted(e) => {
                let again = e
                    .repeats
                    .as_ref()
                    .map(|first| format!(", as {} ordered at {}", first.by, first.at));
                let again = again.unwrap_or_default();
                let what = format!("content of {} redacted{again}", e.sequence);
                Line::new(Ink::Alarm, because(&what, record.text()))
            }
            Event::ReadsRecorded(e) => {
                let reads: Vec<_> = e.reads.iter().map(|read| read.what.as_str()).collect();
                let times: u64 = e.reads.iter().map(|read| read.count).sum();
                let times = count(times.saturating_add(e.more), "time");
                Line::new(Ink::Dim, format!("read {times}: {}", reads.join(" ")))
            }
            _ => self.describe_worker(record, event),
        }
    }

    /// What happens to one worker; everything that [`Self::describe`] leaves.
    fn describe_worker(&mut self, record: &RecordView<'_>, event: &Event) -> Line {
        match event {
            Event::WorkerCreated(e) => {
                if let (Some(worker), Some(template)) = (&record.worker, &e.template) {
                    self.templates.insert(worker.clone(), template.clone());
                }
                let from = match &e.template {
                    Some(template) => format!("from {template}"),
                    None => "without a template".into(),
                };
                Line::plain(format!("created {from}: {}", intent(record, &e.intent)))
            }
            Event::WorkerConnected(e) => {
                let process = e.process.as_ref().map(|p| format!(", process {}", p.pid));
                let process = process.unwrap_or_default();
                Line::plain(format!("connected: {}, start {}{process}", e.backend, e.incarnation))
            }
            Event::WorkerSpawnFailed(e) => {
                Line::new(Ink::Alarm, format!("not started: {}", e.message))
            }
            Event::WorkerInputAccepted(e) => {
                let speaker = match e.kind {
                    InputKind::User => "user",
                    InputKind::System => "system",
                };
                Line::said(Ink::Person, speaker, record.text())
            }
            Event::WorkerInputDispatched(e) => {
                Line::new(Ink::Dim, format!("turn {} begins with input {}", e.turn, e.input))
            }
            Event::WorkerProcessStarted(e) => {
                Line::new(Ink::Dim, format!("process {} serves turn {}", e.process.pid, e.turn))
            }
            Event::WorkerProcessEnded(e) => {
                let turn = e.turn.map(|turn| format!(" in turn {turn}")).unwrap_or_default();
                Line::new(Ink::Dim, format!("its process is gone{turn}"))
            }
            Event::WorkerInputFailed(e) => Line::new(
                Ink::Alarm,
                format!(
                    "{} up to {} not delivered: {}",
                    count(e.count, "input"),
                    e.through,
                    e.message
                ),
            ),
            Event::WorkerInterrupted(e) => {
                let turn = e.turn.map(|turn| format!(" in turn {turn}")).unwrap_or_default();
                let again = if e.again { "; its input is given again" } else { "" };
                Line::new(Ink::Alarm, format!("interrupted{turn}: {}{again}", e.reason))
            }
            Event::WorkerOutput(e) => match e.event {
                OutputKind::TextDone => Line::new(
                    Ink::Dim,
                    e.text.map_or("text complete".into(), |text| {
                        format!("text complete: {}, item {}", count(text.bytes, "byte"), text.item)
                    }),
                ),
                kind => self.describe_output(record, kind),
            },
            Event::WorkerTurnEnded(e) => {
                let result = match e.result {
                    TurnResult::Finished => "finished",
                    TurnResult::Paused => "paused",
                };
                let exit = e.exit.map(|status| format!(", {}", exit(status))).unwrap_or_default();
                let ink =
                    if e.exit.is_none_or(ExitStatus::success) { Ink::Dim } else { Ink::Alarm };
                Line::new(ink, format!("turn {} {result}{exit}", e.turn))
            }
            Event::WorkerDiagnosed(e) => Line::said(Ink::Alarm, e.source.as_str(), record.text()),
            Event::WorkerExited(e) => {
                Line::new((!e.exit.success()).then_some(Ink::Alarm), exit(e.exit))
            }
            Event::WorkerStopped(_) => Line::plain(because("stopped", record.text())),
            Event::WorkerCancelled(_) => Line::plain(because("cancelled", record.text())),
            other => agents::describe(record, &self.agent(record), other)
                .unwrap_or_else(|| Line::plain(other.name())),
        }
    }

    fn describe_output(&self, record: &RecordView<'_>, kind: OutputKind) -> Line {
        let agent = self.agent(record);
        let dim = |text: String| Line::new(Ink::Dim, text);
        let number = |name: &str| {
            record.content.as_ref().and_then(|content| content[name].as_u64()).unwrap_or_default()
        };
        let short = |name: &str| one_line(record.part(name), ASIDE_CHARS_MAX);
        match kind {
            OutputKind::TextDelta => Line::said(Ink::Agent, agent, record.text()),
            OutputKind::TextDone => dim("text complete".into()),
            OutputKind::ThinkingStart => dim("thinks".into()),
            OutputKind::ThinkingDelta => {
                Line::said(Ink::Dim, format!("{agent} thinks"), record.part("text"))
            }
            OutputKind::ThinkingDone => dim("thought it over".into()),
            OutputKind::ToolCallStart => dim(format!("calls {} ({})", short("name"), short("id"))),
            OutputKind::ToolCallArgsDelta => dim(format!("({}) {}", short("id"), short("json"))),
            OutputKind::ToolCallDone => {
                let arguments = record.content.as_ref().map(|content| &content["arguments"]);
                let arguments = match arguments {
                    None | Some(Value::Null) => String::new(),
                    Some(Value::String(text)) => one_line(text, ASIDE_CHARS_MAX),
                    Some(other) => one_line(&other.to_string(), ASIDE_CHARS_MAX),
                };
                Line::plain(format!("called {}({arguments})", short("name")))
            }
            OutputKind::ToolResult => {
                let failed = record.content.as_ref().is_some_and(|c| c["is_error"] == true);
                let what = if failed { "tool failed" } else { "tool answered" };
                Line::new(failed.then_some(Ink::Alarm), format!("{what}: {}", short("summary")))
            }
            OutputKind::Usage => dim(format!(
                "used {} in, {} out",
                count(number("input_tokens"), "token"),
                number("output_tokens")
            )),
            OutputKind::RunEnd => dim(format!("run ended: {}", short("result"))),
            OutputKind::Error => {
                Line::new(Ink::Alarm, format!("error {}: {}", short("code"), short("message")))
            }
            OutputKind::Status => dim(format!("reports to be {}", short("status"))),
            OutputKind::Alert => {
                Line::new(Ink::Alarm, format!("{}: {}", short("level"), short("message")))
            }
        }
    }
}

fn intent(record: &RecordView<'_>, intent: &IntentKind) -> String {
    let text = |name| one_line(record.part(name), ASIDE_CHARS_MAX);
    match intent {
        IntentKind::Assistant => because("assistant", &text("purpose")),
        IntentKind::Task => because("task", &text("objective")),
        IntentKind::Role { role } => because(&format!("role {role}"), &text("purpose")),
    }
}

fn because(what: &str, why: &str) -> String {
    if why.is_empty() { what.into() } else { format!("{what}: {}", one_line(why, ASIDE_CHARS_MAX)) }
}

fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// How a process ended, for people.
pub(super) fn exit(status: ExitStatus) -> String {
    let mut text = String::from("exited");
    if let Some(code) = status.code {
        let _ = write!(text, " with {code}");
    }
    if let Some(signal) = status.signal {
        let _ = write!(text, " on signal {signal}");
    }
    text
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Operator => "operator",
        Role::Auditor => "auditor",
        Role::Observer => "observer",
        Role::Host => "host",
        Role::Worker => "worker",
    }
}

mod agents;
#[cfg(test)]
mod tests;
