//! The history as a short timeline: what a worker said in pieces stands in one line.

use super::api::Told;
use crate::cli::{
    output::Paint,
    timeline::{RecordView, Timeline},
};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::HashMap;

/// How many lines are shown of a long history: the beginning and the end.
const LINES_MAX: usize = 60;
/// How much of one text is shown, in characters.
const TEXT_CHARS_MAX: usize = 160;

/// One record, or several pieces of one text.
struct Entry {
    record: Value,
    text: String,
}

/// The lines of the timeline.
pub(super) fn lines(log: &[Told], paint: Paint) -> Result<Vec<String>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut open: HashMap<String, usize> = HashMap::new();
    for told in log {
        let record: Value = serde_json::from_str(&told.json).context("a record is malformed")?;
        let kind = record["type"].as_str().unwrap_or_default();
        let output = record["data"]["event"].as_str().unwrap_or_default();
        let worker = record["worker"].as_str().unwrap_or_default().to_owned();
        let text = record["content"].as_str().unwrap_or_default().to_owned();
        if output == "text_delta" {
            if let Some(entry) = open.get(&worker).and_then(|at| entries.get_mut(*at)) {
                entry.text += &text;
                continue;
            }
            open.insert(worker, entries.len());
        } else if output == "text_done" {
            open.remove(&worker);
            continue;
        } else if kind == "worker_input_dispatched"
            || (kind == "worker_turn_ended" && record["data"]["exit"].is_null())
        {
            // Of little interest to whoever reads what was said.
            continue;
        } else if kind != "worker_input_accepted" {
            open.remove(&worker);
        }
        entries.push(Entry { record, text });
    }
    let mut timeline = Timeline::new(paint);
    // It learns which ids there are, so that it cuts all of them to the same length.
    for told in log {
        timeline.line(&serde_json::from_str(&told.json).context("a record is malformed")?);
    }
    let count = entries.len();
    let mut lines = Vec::new();
    for (number, entry) in entries.into_iter().enumerate() {
        if count <= LINES_MAX || number < LINES_MAX / 2 || number + LINES_MAX / 2 >= count {
            lines.push(line(&mut timeline, entry)?);
        } else if number == LINES_MAX / 2 {
            lines.push(format!("          … {} more …", count - LINES_MAX));
        }
    }
    Ok(lines)
}

fn line(timeline: &mut Timeline, entry: Entry) -> Result<String> {
    let Entry { mut record, text } = entry;
    if record["content"].is_string() {
        record["content"] = crate::cli::output::one_line(text.trim_end(), TEXT_CHARS_MAX).into();
    }
    let json = record.to_string();
    let view: RecordView<'_> = serde_json::from_str(&json).context("a record is malformed")?;
    Ok(timeline.line(&view))
}
