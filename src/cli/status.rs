//! `acta status`: the service on one screen.

use super::client::{Call, Client};
use super::output::{Format, Output, cell_at, printable};
use anyhow::Result;
use serde_json::Value;
use std::fmt::Write as _;

/// So many cursors are shown; all that are told are in the JSON.
const CURSORS_SHOWN: usize = 8;

pub(super) async fn run(client: &Client, out: &mut Output) -> Result<()> {
    let answer = client.send(Call::get(&["status"])).await?;
    if out.format == Format::Json {
        return out.json(&answer);
    }
    out.text(&screen(&answer["status"]))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn screen(status: &Value) -> String {
    let text = |path: &str| cell_at(status, path);
    let list = |name: &str| {
        let fields = status[name].as_object().into_iter().flatten();
        let fields = fields.map(|(name, value)| format!("{} {}", number(value), words(name)));
        fields.collect::<Vec<_>>().join(", ")
    };
    let process = |name: &str| number(&status["process"][name]);
    let mut rows = vec![
        ("service", format!("acta {}, {}", text("version"), text("health"))),
        ("up", duration(number(&status["uptime_seconds"]))),
        ("log", format!("{}, epoch {}", text("log_id"), text("epoch"))),
        ("head", format!("{}, recorded at {}", text("head"), text("last_record_at"))),
        ("workers", list("workers")),
        ("hosts", list("hosts")),
        ("observers", list("observers")),
        ("queue", format!("{} commands wait", text("queue_commands"))),
        ("behind", list("lag")),
        (
            "process",
            format!(
                "{} in memory, {} threads, {} of {} files open",
                size(process("resident_bytes")),
                process("threads"),
                process("open_files"),
                process("open_files_max")
            ),
        ),
    ];
    let used = status["disk"]["used"].as_object().into_iter().flatten();
    let parts: Vec<_> = used.map(|(part, bytes)| (part, number(bytes))).collect();
    if !parts.is_empty() {
        let total = parts.iter().map(|(_, bytes)| bytes).sum();
        let parts: Vec<_> = parts.iter().map(|(part, b)| format!("{part} {}", size(*b))).collect();
        let free = size(number(&status["disk"]["free"]));
        rows.push(("disk", format!("{} ({}), {free} free", size(total), parts.join(", "))));
        rows.push(("sealed", format!("{} segments", number(&status["disk"]["segments"]))));
    }
    rows.extend(history(&status["history"]));
    let snapshot = &status["snapshot"];
    if !snapshot.is_null() {
        let (sequence, age) = (number(&snapshot["sequence"]), number(&snapshot["age_seconds"]));
        rows.push(("snapshot", format!("at {sequence}, taken {} ago", duration(age))));
    }
    rows.extend(cursors(status).into_iter().map(|line| ("cursor", line)));
    let mut screen = String::new();
    for (name, value) in rows {
        let _ = writeln!(screen, "{name:<10} {}", printable(&value));
    }
    screen
}

/// What has expired, and what keeps more from it.
fn history(history: &Value) -> Vec<(&'static str, String)> {
    let text = |path: &str| cell_at(history, path);
    let mut rows = Vec::new();
    if !history["expired"].is_null() {
        let (through, at) = (text("expired.through"), text("expired.at"));
        rows.push(("expired", format!("records 1 to {through}, at {at}")));
    }
    if !history["held"].is_null() {
        let (wanted, record, by) = (text("held.wanted"), text("held.record"), text("held.by"));
        let held = format!("would expire up to {wanted}, but record {record} is needed by {by}");
        rows.push(("held", held));
    }
    rows
}

fn cursors(status: &Value) -> Vec<String> {
    let told = status["cursors"].as_array().map_or(&[][..], Vec::as_slice);
    let mut lines: Vec<_> = told
        .iter()
        .take(CURSORS_SHOWN)
        .map(|cursor| {
            let text = |name: &str| cursor[name].as_str().unwrap_or_default();
            format!("{} of {}: {} behind", text("name"), text("owner"), number(&cursor["lag"]))
        })
        .collect();
    let more = number(&status["cursors_total"]).saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more, not further behind"));
    }
    lines
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_for_people() {
        for (bytes, expected) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
        {
            assert_eq!(size(bytes), expected);
        }
        for (seconds, expected) in
            [(59, "59 s"), (61, "1 min"), (3_700, "1 h 1 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn a_status_is_a_screen() {
        let cursor = json!({"owner": "operator", "name": "mine", "lag": 3});
        let status = json!({
            "version": "1", "health": "ready", "uptime_seconds": 5, "log_id": "x", "epoch": 1,
            "head": 9, "last_record_at": "t", "workers": {"running": 2}, "hosts": {"lost": 1}, "observers": {"http": 1},
            "queue_commands": 0, "lag": {"dispatch": 0, "index_on_disk": 9},
            "process": {"resident_bytes": 2048, "threads": 3, "open_files": 4, "open_files_max": 5},
            "disk": {"used": {"log": 1024}, "free": 2048, "segments": 4}, "cursors_total": 10,
            "cursors": vec![cursor; 9],
        });
        let screen = screen(&status);
        let lines: Vec<_> = screen.lines().collect();
        assert_eq!(lines[0], "service    acta 1, ready");
        assert_eq!(lines[5], "hosts      1 lost");
        assert_eq!(lines[8], "behind     0 dispatch, 9 index on disk");
        assert_eq!(lines[9], "process    2.0 KiB in memory, 3 threads, 4 of 5 files open");
        assert_eq!(lines[10], "disk       1.0 KiB (log 1.0 KiB), 2.0 KiB free");
        assert_eq!(lines[11], "sealed     4 segments");
        assert_eq!(lines[12], "cursor     mine of operator: 3 behind");
        assert_eq!(lines[20], "cursor     and 2 more, not further behind");
        assert_eq!(lines.len(), 21);
    }
}
