//! The lines of a `jsonl` child: what goes in, and which payloads may come out.
//!
//! Every payload is read into the shape that the runtime API gives it and written again, so
//! that a strict client never meets a field that it does not know.

use super::{FRAMING_BYTES_MAX, Input, Report, lines::Line, stdio::split, turns::Turns};
use acta_events::{InputKind, OutputKind, TurnResult};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

/// The line that gives `input` to a child, without its end.
pub(super) fn input_line(input: &Input) -> Bytes {
    #[derive(Serialize)]
    struct InputLine<'a> {
        message_id: &'a str,
        kind: InputKind,
        content: std::borrow::Cow<'a, str>,
    }
    let line = InputLine {
        message_id: &input.message_id,
        kind: input.kind,
        content: String::from_utf8_lossy(&input.content),
    };
    // Strings and a plain enum always serialise.
    serde_json::to_vec(&line).unwrap_or_default().into()
}

/// Takes one line that a child said.
pub(super) fn hear(line: &Line<'_>, turns: &mut Turns, out: &mut Vec<Report>) {
    let (bytes, outcome) = match line {
        Line::Whole(bytes) => (bytes, take(bytes, turns, out)),
        Line::TooLong(bytes) => (bytes, Err("a line longer than 1 MiB was skipped".into())),
    };
    if let Err(why) = outcome {
        // A character has at most four bytes, and each bad byte becomes one of three.
        let shown = bytes.get(..FRAMING_BYTES_MAX).unwrap_or(bytes);
        let text = format!("{why}: {}", String::from_utf8_lossy(shown));
        let text = split(&text, FRAMING_BYTES_MAX).0.to_owned();
        out.push(Report::Diagnosed { source: "framing", text });
    }
}

#[derive(Deserialize)]
struct Payload<'a> {
    event: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

fn take(line: &[u8], turns: &mut Turns, out: &mut Vec<Report>) -> Result<(), String> {
    let payload: Payload<'_> = serde_json::from_slice(line).map_err(|error| {
        format!("not a JSON object with `event` and `data` ({})", cause(&error))
    })?;
    let data = payload.data.map_or("null", RawValue::get);
    let kind = match payload.event.as_str() {
        "text_delta" => {
            turns.text(&shape::<Text>(data)?.text, out);
            return Ok(());
        }
        "text_done" => {
            turns.text_done(&shape::<Text>(data)?.text, out);
            return Ok(());
        }
        "turn_start" => {
            shape::<TurnStart>(data)?;
            turns.ensure();
            return Ok(());
        }
        "turn_end" => {
            let result = shape::<TurnEnd>(data)?.result;
            turns.said_end(result, out);
            return Ok(());
        }
        "thinking_start" => OutputKind::ThinkingStart,
        "thinking_delta" => OutputKind::ThinkingDelta,
        "thinking_done" => OutputKind::ThinkingDone,
        "tool_call_start" => OutputKind::ToolCallStart,
        "tool_call_args_delta" => OutputKind::ToolCallArgsDelta,
        "tool_call_done" => OutputKind::ToolCallDone,
        "tool_result" => OutputKind::ToolResult,
        "usage" => OutputKind::Usage,
        "run_end" => OutputKind::RunEnd,
        "error" => OutputKind::Error,
        "status" => OutputKind::Status,
        "alert" => OutputKind::Alert,
        "user_message" | "system_item" | "snapshot" | "shutdown" => {
            return Err("an event that a worker may not report".into());
        }
        _ => return Err("an unknown event".into()),
    };
    let content = checked(kind, data)?;
    let turn = place(kind, &content, turns, out);
    out.push(Report::Output { turn, kind, content });
    Ok(())
}

/// The turn that an output belongs to. The end of a run, and a status other than running,
/// end the open turn first.
fn place(kind: OutputKind, content: &Bytes, turns: &mut Turns, out: &mut Vec<Report>) -> u64 {
    match kind {
        OutputKind::RunEnd => {
            let paused = serde_json::from_slice::<RunEnd>(content)
                .is_ok_and(|data| matches!(data.result, RunResult::Paused));
            turns.said_end(if paused { TurnResult::Paused } else { TurnResult::Finished }, out);
        }
        OutputKind::Status => match serde_json::from_slice::<Status>(content) {
            Ok(Status { status: RunStatus::Idle }) => turns.said_end(TurnResult::Finished, out),
            Ok(Status { status: RunStatus::Paused }) => turns.said_end(TurnResult::Paused, out),
            Ok(Status { status: RunStatus::Running }) | Err(_) => {}
        },
        OutputKind::Usage | OutputKind::Error | OutputKind::Alert => {}
        OutputKind::TextDelta
        | OutputKind::TextDone
        | OutputKind::ThinkingStart
        | OutputKind::ThinkingDelta
        | OutputKind::ThinkingDone
        | OutputKind::ToolCallStart
        | OutputKind::ToolCallArgsDelta
        | OutputKind::ToolCallDone
        | OutputKind::ToolResult => {
            turns.ensure();
        }
    }
    turns.current()
}

/// The data of a payload in the shape that its name demands.
fn checked(kind: OutputKind, data: &str) -> Result<Bytes, String> {
    match kind {
        OutputKind::ThinkingStart => Ok(Bytes::new()),
        OutputKind::TextDelta
        | OutputKind::TextDone
        | OutputKind::ThinkingDelta
        | OutputKind::ThinkingDone => rewritten::<Text>(data),
        OutputKind::ToolCallStart => rewritten::<ToolCallStart>(data),
        OutputKind::ToolCallArgsDelta => rewritten::<ToolCallArgsDelta>(data),
        OutputKind::ToolCallDone => rewritten::<ToolCallDone>(data),
        OutputKind::ToolResult => rewritten::<ToolResult>(data),
        OutputKind::Usage => rewritten::<Usage>(data),
        OutputKind::RunEnd => rewritten::<RunEnd>(data),
        OutputKind::Error => rewritten::<AgentError>(data),
        OutputKind::Status => rewritten::<Status>(data),
        OutputKind::Alert => rewritten::<Alert>(data),
    }
}

fn shape<T: DeserializeOwned>(data: &str) -> Result<T, String> {
    serde_json::from_str(data)
        .map_err(|error| format!("`data` does not have the shape of its event ({})", cause(&error)))
}

fn rewritten<T: DeserializeOwned + Serialize>(data: &str) -> Result<Bytes, String> {
    let data = serde_json::to_vec(&shape::<T>(data)?);
    data.map(Bytes::from).map_err(|error| cause(&error))
}

/// The message may quote the child's own words at any length.
fn cause(error: &serde_json::Error) -> String {
    split(&error.to_string(), 200).0.to_owned()
}

#[derive(Serialize, Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct TurnStart {
    #[serde(rename = "turn")]
    _turn: u64,
}

#[derive(Deserialize)]
struct TurnEnd {
    #[serde(rename = "turn")]
    _turn: u64,
    result: TurnResult,
}

#[derive(Serialize, Deserialize)]
struct ToolCallStart {
    id: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct ToolCallArgsDelta {
    id: String,
    json: String,
}

#[derive(Serialize, Deserialize)]
struct ToolCallDone {
    id: String,
    name: String,
    arguments: String,
}

#[derive(Serialize, Deserialize)]
struct ToolResult {
    id: String,
    summary: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    is_error: bool,
}

#[derive(Serialize, Deserialize)]
struct Usage {
    input_tokens: u64,
    output_tokens: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_read_input_tokens: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct RunEnd {
    result: RunResult,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RunResult {
    Finished,
    Paused,
    LimitReached,
    RolledBack,
}

#[derive(Serialize, Deserialize)]
struct AgentError {
    code: ErrorCode,
    message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ErrorCode {
    AlreadyRunning,
    NotRunning,
    NotPaused,
    ProviderError,
    ToolError,
    InvalidRequest,
    Internal,
}

#[derive(Serialize, Deserialize)]
struct Status {
    status: RunStatus,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RunStatus {
    Idle,
    Running,
    Paused,
}

#[derive(Serialize, Deserialize)]
struct Alert {
    level: AlertLevel,
    source: AlertSource,
    message: String,
    timestamp_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AlertLevel {
    Warn,
    Error,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AlertSource {
    Worker,
    Engine,
}
