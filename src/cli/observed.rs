//! What is seen of a worker of another service: the frames of its observation, as lines for people
//! and as the answer to an input.

use super::output::{Ink, Paint, erased_by, one_line, printable};
use super::worker_address::Found;
use acta_events::cursor::Cursor;
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

/// How much of a text that only explains is shown, in characters.
const ASIDE_CHARS_MAX: usize = 240;

/// The envelope of a frame.
#[derive(Deserialize)]
struct Envelope {
    cursor: String,
    payload: Payload,
}

/// What happened.
#[derive(Debug, Deserialize)]
pub(super) struct Payload {
    pub(super) event: String,
    #[serde(default)]
    data: Value,
}

impl Payload {
    /// Reads it from an envelope.
    pub(super) fn of(envelope: &str) -> anyhow::Result<Self> {
        let envelope: Envelope = read(envelope)?;
        Ok(envelope.payload)
    }

    /// A text in its data; empty if it has none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.data[name].as_str().unwrap_or_default()
    }

    /// The turn that it is about.
    pub(super) fn turn(&self) -> Option<u64> {
        self.data["turn"].as_u64()
    }

    /// By whose order what is missing here was erased. The order itself, which is the record with
    /// this sequence, says so in its own words.
    fn erased(&self, seq: Option<u64>) -> String {
        let notes = self.data["redacted"].as_array().into_iter().flatten();
        let notes = notes.filter(|note| seq.is_none() || note["sequence"].as_u64() != seq);
        erased_by(&Value::Array(notes.cloned().collect()))
    }

    fn segments(&self) -> String {
        let all = self.data["segments"].as_array().into_iter().flatten();
        all.filter_map(|segment| segment["content"].as_str()).collect()
    }
}

fn read(envelope: &str) -> anyhow::Result<Envelope> {
    serde_json::from_str(envelope).context("a frame was not understood")
}

/// Frames as lines: `12  0193e4a2  user> hello`, with the sequence of the other service.
pub(super) struct Lines {
    worker: String,
    paint: Paint,
    /// Whether text came piece by piece, so that it is not said again as a whole.
    in_pieces: bool,
}

impl Lines {
    pub(super) fn of(worker: &Found, paint: Paint) -> Self {
        Self { worker: worker.shown(), paint, in_pieces: false }
    }

    /// The line of an envelope; none if it says nothing new.
    pub(super) fn line(&mut self, envelope: &str) -> anyhow::Result<Option<String>> {
        let Envelope { cursor, payload } = read(envelope)?;
        let Some((ink, speaker, mut text)) = self.describe(&payload) else { return Ok(None) };
        let seq = cursor.parse::<Cursor>().map(|at| at.seq.0).ok();
        let erased = payload.erased(seq);
        if !erased.is_empty() {
            text = [text, erased].join(" ").trim_start().to_owned();
        }
        let seq = seq.map(|seq| seq.to_string()).unwrap_or_default();
        let place = format!("{seq:>6}  {}  ", self.worker);
        let mut out = self.paint.ink(Ink::Dim, &place).into_owned();
        match speaker {
            Some(speaker) => {
                let indent = " ".repeat(place.chars().count() + speaker.chars().count() + 2);
                out += &self.paint.ink(ink, &format!("{speaker}> "));
                let text =
                    printable(text.trim_end_matches('\n')).replace('\n', &format!("\n{indent}"));
                out += &text;
            }
            None => out += &self.paint.ink(ink, &one_line(&text, ASIDE_CHARS_MAX)),
        }
        out.truncate(out.trim_end().len());
        Ok(Some(out))
    }

    fn describe(&mut self, payload: &Payload) -> Option<(Ink, Option<&'static str>, String)> {
        let aside = |text: String| Some((Ink::Dim, None, text));
        let turn = payload.turn().map(|turn| turn.to_string()).unwrap_or_default();
        let text = |name: &str| payload.text(name);
        match payload.event.as_str() {
            "user_message" => Some((Ink::Person, Some("user"), payload.segments())),
            "system_item" => Some((Ink::Person, Some("system"), text("item").to_owned())),
            "text_delta" => {
                self.in_pieces = true;
                Some((Ink::Agent, Some("agent"), text("text").to_owned()))
            }
            "text_done" if std::mem::take(&mut self.in_pieces) => aside("text complete".into()),
            "text_done" => Some((Ink::Agent, Some("agent"), text("text").to_owned())),
            "thinking_delta" => Some((Ink::Dim, Some("agent thinks"), text("text").to_owned())),
            "turn_start" => aside(format!("turn {turn} begins")),
            "turn_end" => aside(format!("turn {turn} {}", text("result"))),
            "run_end" => aside(format!("run ended: {}", text("result"))),
            "status" => aside(format!("reports to be {}", text("status"))),
            "shutdown" => Some((Ink::Alarm, None, "ended for good".into())),
            "tool_call_start" => aside(format!("calls {} ({})", text("name"), text("id"))),
            "tool_result" => aside(format!("tool answered: {}", text("summary"))),
            "error" => {
                let what = format!("error {}: {}", text("code"), text("message"));
                Some((Ink::Alarm, None, what))
            }
            "alert" => Some((Ink::Alarm, None, format!("{}: {}", text("level"), text("message")))),
            other => aside(other.replace('_', " ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use acta_events::{Digest, Epoch, LogId, Sequence};
    use serde_json::json;

    #[test]
    fn frames_become_lines_and_nothing_is_said_twice() {
        let mut lines =
            Lines { worker: "berlin/w".into(), paint: Paint::default(), in_pieces: false };
        let cursor = Cursor::new(LogId(uuid::Uuid::nil()), Epoch(1), Sequence(7), Digest([1; 32]));
        let mut check = |event: &str, data: Value, expected: &str| {
            let cursor = cursor.to_string();
            let envelope = json!({
                "cursor": cursor, "event_id": cursor, "worker_id": "w",
                "payload": {"event": event, "data": data},
            });
            let line = lines.line(&envelope.to_string()).unwrap();
            assert_eq!(line.as_deref(), Some(expected), "{envelope}");
        };
        let said = json!({"segments": [{"kind": "text", "content": "one\ntwo"}]});
        let indent = " ".repeat(24);
        check("user_message", said, &format!("     7  berlin/w  user> one\n{indent}two"));
        check("turn_start", json!({"turn": 3}), "     7  berlin/w  turn 3 begins");
        check("text_delta", json!({"text": "hi\n"}), "     7  berlin/w  agent> hi");
        check("text_done", json!({"text": "hi\n"}), "     7  berlin/w  text complete");
        check("text_done", json!({"text": "whole"}), "     7  berlin/w  agent> whole");
        let note = json!([{"record": 7, "sequence": 9, "by": "operator", "at": "T"}]);
        let erased = "     7  berlin/w  user> [redacted by operator at T]";
        check("user_message", json!({"segments": [], "redacted": note}), erased);
        let order = json!([{"record": 3, "sequence": 7, "by": "operator", "at": "T"}]);
        let order = json!({"level": "warn", "message": "3 was erased", "redacted": order});
        check("alert", order, "     7  berlin/w  warn: 3 was erased");
        let error = json!({"code": "internal", "message": "\u{1b}[2J"});
        check("error", error, "     7  berlin/w  error internal: \\u{1b}[2J");
        check("a_later_one", json!({}), "     7  berlin/w  a later one");
        assert!(lines.line("{").is_err());
    }
}
