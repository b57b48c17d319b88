//! What the command line prints: tables and lines for people, JSON for programs.

use serde_json::Value;
use std::{
    borrow::Cow,
    env,
    fmt::Write as _,
    io::{self, BufWriter, IsTerminal, Write},
};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs: what the service answered
    Json,
}

/// Whoever read standard output has gone. The command ends quietly.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(super) struct OutputClosed;

/// An error with its causes. What an error says of its cause in its own words is not said again.
pub(super) fn with_causes(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !told.contains(&cause) {
            let between = if told.is_empty() { "" } else { ": " };
            told.push_str(between);
            told.push_str(&cause);
        }
    }
    told
}

/// Standard output, buffered.
pub(super) struct Output {
    writer: Box<dyn Write>,
    pub(super) format: Format,
    /// Whether a person watches: colours, and JSON over several lines.
    terminal: bool,
    pub(super) paint: Paint,
}

impl Output {
    pub(super) fn stdout(format: Format) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let quiet = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|term| term == "dumb");
        let paint = Paint { colours: terminal && !quiet };
        Self { writer: Box::new(BufWriter::new(stdout)), format, terminal, paint }
    }

    #[cfg(test)]
    pub(super) fn to(writer: impl Write + 'static, format: Format) -> Self {
        let paint = Paint { colours: false };
        Self { writer: Box::new(writer), format, terminal: false, paint }
    }

    /// Writes a line. It may stay in the buffer until [`Self::flush`].
    pub(super) fn line(&mut self, line: &str) -> anyhow::Result<()> {
        self.text(line)?;
        self.text("\n")
    }

    /// Writes text as it is.
    pub(super) fn text(&mut self, text: &str) -> anyhow::Result<()> {
        self.writer.write_all(text.as_bytes()).map_err(closed)
    }

    /// Writes text that an agent wrote: as it is to a program, without control characters to a
    /// terminal, where they could do harm.
    pub(super) fn foreign(&mut self, text: &str) -> anyhow::Result<()> {
        if self.terminal { self.text(&printable(text)) } else { self.text(text) }
    }

    /// Writes a JSON value: on one line, or indented for a person.
    pub(super) fn json(&mut self, value: &Value) -> anyhow::Result<()> {
        let text = if self.terminal { format!("{value:#}") } else { value.to_string() };
        self.line(&text)
    }

    /// Hands on what is buffered.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.writer.flush().map_err(closed)
    }
}

/// Tells something beside the result, on standard error. Nobody may be left to read it.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn closed(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => OutputClosed.into(),
        _ => anyhow::Error::new(error).context("cannot write to standard output"),
    }
}

/// Colours, where they are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paint {
    pub(super) colours: bool,
}

/// What a piece of a line is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ink {
    /// Of less interest.
    Dim,
    /// A person speaks.
    Person,
    /// An agent speaks.
    Agent,
    /// Something went wrong.
    Alarm,
}

impl Paint {
    pub(super) fn ink(self, ink: Ink, text: &str) -> Cow<'_, str> {
        if !self.colours {
            return text.into();
        }
        let code = match ink {
            Ink::Dim => 2,
            Ink::Person => 36,
            Ink::Agent => 32,
            Ink::Alarm => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m").into()
    }
}

/// Without characters that move the cursor, change colours or reorder a line: they stand there
/// as `\u{…}`. Newlines and tabs stay.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    // The carriage return of a line that ends in both says nothing.
    if !text.contains(harmful) {
        return text.into();
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.replace("\r\n", "\n").chars() {
        if harmful(c) { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean.into()
}

/// As [`printable`], on one line and at most `chars_max` characters long.
pub(super) fn one_line(text: &str, chars_max: usize) -> String {
    let line = printable(text).replace(['\n', '\t'], " ");
    match line.char_indices().nth(chars_max) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

/// Aligned columns without rules. The last column is not padded.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| one_line(cell, CELL_CHARS_MAX)).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let cell = if cell.is_empty() { "-" } else { cell };
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

const CELL_CHARS_MAX: usize = 160;

/// A document as `path  value` lines, for people.
pub(super) fn outline(value: &Value) -> String {
    let mut rows = Vec::new();
    flatten(String::new(), value, &mut rows);
    let width = rows.iter().map(|(path, _)| path.chars().count()).max().unwrap_or(0);
    let lines = rows.iter().map(|(path, value)| format!("{path:width$}  {value}"));
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn flatten(path: String, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(format!("{path}{dot}{name}"), value, rows);
            }
        }
        _ => rows.push((path, cell(value))),
    }
}

/// A JSON value as a cell: text without quotes, nothing for null.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text).replace('\n', " "),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(cell).collect::<Vec<_>>().join(", ")
        }
        other => printable(&other.to_string()).into_owned(),
    }
}

/// The value at a path such as `execution.run_state`, as a cell.
pub(super) fn cell_at(value: &Value, path: &str) -> String {
    cell(path.split('.').fold(value, |value, name| &value[name]))
}

/// How much of the reason of an erasure is shown, in characters.
const REASON_CHARS_MAX: usize = 240;

/// What stands in the place of a content that is erased: `[redacted by operator at …: why]`, from
/// the note in a field `redacted`, or for each of several. Empty without any.
pub(super) fn erased_by(redacted: &Value) -> String {
    let notes = match redacted {
        Value::Array(notes) => notes.as_slice(),
        Value::Null => &[],
        note => std::slice::from_ref(note),
    };
    let told = |note: &Value| {
        let cell = |path: &str| one_line(&cell_at(note, path), REASON_CHARS_MAX);
        let (by, at, reason) = (cell("by"), cell("at"), cell("reason"));
        let first = match cell("repeats.by") {
            first if first.is_empty() => first,
            first => format!(", as {first} ordered at {}", cell("repeats.at")),
        };
        let why = if reason.is_empty() { reason } else { format!(": {reason}") };
        format!("[redacted by {by} at {at}{first}{why}]")
    };
    notes.iter().map(told).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let rows = vec![vec!["a".into(), "long one".into()], vec![String::new(), "x\ny".into()]];
        assert_eq!(table(&["ID", "TEXT"], &rows), "ID  TEXT\na   long one\n-   x y\n");
    }

    #[test]
    fn a_cause_is_told_once() {
        let check = |cause: &str, error: &str, expected: &str| {
            let error = anyhow::anyhow!(cause.to_owned()).context(error.to_owned());
            assert_eq!(with_causes(&error), expected);
        };
        check("it is full", "it cannot be written", "it cannot be written: it is full");
        check("it is full", "the disk: it is full. Make room", "the disk: it is full. Make room");
    }

    #[test]
    fn what_could_harm_a_terminal_is_escaped() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected);
        check("plain\ttext\n", "plain\ttext\n");
        check("\x1b[2J", "\\u{1b}[2J");
        check("a\r\nb\rc", "a\nb\\rc");
        check("\u{202e}gnp", "\\u{202e}gnp");
        check("\u{9b}1m", "\\u{9b}1m");
        assert_eq!(one_line("one\ntwo three", 7), "one two…");
    }

    #[test]
    fn a_document_is_outlined_by_path() {
        let value =
            json!({"id": "w", "execution": {"run_state": "idle"}, "list": ["a", "b"], "n": null});
        // serde_json sorts the names of an object.
        assert_eq!(
            outline(&value),
            "execution.run_state  idle\nid                   w\nlist                 a, b\nn\n"
        );
        assert_eq!(cell_at(&value, "execution.run_state"), "idle");
        assert_eq!(cell_at(&value, "execution.missing.deep"), "");
    }

    #[test]
    fn an_erasure_is_told_with_who_when_and_why() {
        let check = |redacted: Value, expected: &str| assert_eq!(erased_by(&redacted), expected);
        let note =
            json!({"record": 3, "sequence": 9, "by": "operator", "at": "T", "reason": "a\nb"});
        check(note.clone(), "[redacted by operator at T: a b]");
        check(
            json!([note, {"by": "x", "at": "U"}]),
            "[redacted by operator at T: a b] [redacted by x at U]",
        );
        let again = json!({"by": "service", "at": "U", "repeats": {"by": "operator", "at": "T"}});
        check(again, "[redacted by service at U, as operator ordered at T]");
        check(json!([]), "");
        check(Value::Null, "");
    }
}
