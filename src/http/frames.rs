//! What observers of a worker see of its records: the frames of the contract.
//!
//! One record is one frame at most, so that the cursor of a frame is the cursor of its record.
//! A frame is made once and shared by all observers.

use super::App;
use crate::{
    envelope,
    feed::{EpochChange, Filter},
    log::{Logged, ReadFault, RedactionNote, blocking, text_span},
};
use acta_events::{
    DegradedReason, Epoch, Event, InputKind, OutputKind, Record, Sequence, TurnResult,
    cursor::Cursor,
};
use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use std::sync::Arc;

#[derive(Serialize)]
struct Frame<'a, P> {
    kind: &'static str,
    envelope: Envelope<'a, P>,
}

#[derive(Serialize)]
struct Envelope<'a, P> {
    cursor: &'a str,
    event_id: &'a str,
    worker_id: &'a str,
    payload: P,
}

#[derive(Serialize)]
struct Payload<D> {
    event: &'static str,
    data: D,
}

fn json_text(value: &impl Serialize) -> Utf8Bytes {
    // Frames are made of texts, numbers and JSON that was checked: they always serialise.
    serde_json::to_string(value).unwrap_or_default().into()
}

/// An event frame.
pub(super) fn event(cursor: &str, event_id: &str, worker: &str, payload: &Value) -> Utf8Bytes {
    let envelope = Envelope { cursor, event_id, worker_id: worker, payload };
    json_text(&Frame { kind: "event", envelope })
}

/// A diagnostic frame.
pub(super) fn diagnostic(code: &str, message: &str) -> Utf8Bytes {
    json_text(&json!({"kind": "diagnostic", "diagnostic": {"code": code, "message": message}}))
}

/// Says that a cursor was resumed in a later epoch.
pub(super) fn epoch_changed(change: &EpochChange) -> Utf8Bytes {
    diagnostic("runtime.epoch_changed", &change.to_string())
}

/// The cursor of a record.
pub(super) fn cursor_of(app: &App, epoch: Epoch, record: &Record) -> Cursor {
    Cursor::new(app.log.id(), epoch, record.seq(), record.digest)
}

/// A record's frame for observers of its worker; none if it has no payload.
pub(super) async fn of_record(
    app: &App,
    ordinal: u32,
    epoch: Epoch,
    logged: &Arc<Logged>,
) -> Result<Option<Utf8Bytes>, ReadFault> {
    if let Some(frame) = logged.frame.get() {
        return Ok(frame.clone());
    }
    let record = &logged.record;
    let redactions = app.log.redactions();
    let (content, erased) = content_of(app, ordinal, record).await?;
    let cursor = cursor_of(app, epoch, record).to_string();
    let worker = record.header.worker.as_ref().map_or("", |worker| worker.as_str());
    let frame = payload_frame(record, &content, &erased, &cursor, worker);
    if redactions != app.log.redactions() {
        // It may hold what was erased meanwhile, so it is not kept.
        return Ok(frame);
    }
    Ok(logged.frame.get_or_init(|| frame).clone())
}

/// The content that the frame needs: the record's own, or that which it refers to; and by whose
/// orders it is erased, or has gaps.
async fn content_of(
    app: &App,
    ordinal: u32,
    record: &Arc<Record>,
) -> Result<(Bytes, Vec<RedactionNote>), ReadFault> {
    if let Some(span) = text_span(record) {
        let (log, done) = (Arc::clone(&app.log), record.seq());
        let read = move || {
            let (text, erased) = log.text_blocking(ordinal, span, done)?;
            Ok((text.into(), log.notes_blocking(&erased)?))
        };
        return blocking(read).await;
    }
    let about = match &record.header.event {
        Event::ContentRedacted(redacted) => Some(redacted.sequence),
        _ => None,
    };
    let content = app.log.content(record).await?;
    let erased = about.or(content.is_none().then(|| record.seq()));
    let note = match erased {
        Some(seq) => app.log.note(seq).await?,
        None => None,
    };
    Ok((content.unwrap_or_default(), note.into_iter().collect()))
}

/// The data of a payload, with who erased what is missing from it.
fn with_notes(data: impl Serialize, erased: &[RedactionNote]) -> Value {
    let mut data = serde_json::to_value(data).unwrap_or_default();
    if let Some(fields) = data.as_object_mut() {
        fields.insert("redacted".into(), json!(erased));
    }
    data
}

fn redacted(record: &Record, sequence: Sequence, reason: &str) -> Value {
    let by = &record.header.actor;
    let message = format!("the content of record {sequence} was erased by {by}: {reason}");
    alert(record, "warn", "engine", &message)
}

fn payload_frame(
    record: &Record,
    content: &[u8],
    erased: &[RedactionNote],
    cursor: &str,
    worker: &str,
) -> Option<Utf8Bytes> {
    let text = || String::from_utf8_lossy(content);
    let frame = |payload: &dyn Fn() -> Utf8Bytes| Some(payload());
    macro_rules! enveloped {
        ($payload:expr) => {{
            let payload = $payload;
            let envelope = Envelope { cursor, event_id: cursor, worker_id: worker, payload };
            json_text(&Frame { kind: "event", envelope })
        }};
    }
    macro_rules! payload {
        ($event:expr, $data:expr) => {
            frame(&|| match erased.is_empty() {
                true => enveloped!(Payload { event: $event, data: $data }),
                false => enveloped!(Payload { event: $event, data: with_notes($data, erased) }),
            })
        };
    }
    match &record.header.event {
        Event::WorkerInputAccepted(accepted) => match accepted.kind {
            InputKind::User => {
                payload!("user_message", json!({"segments": [{"kind": "text", "content": text()}]}))
            }
            InputKind::System => payload!("system_item", json!({"item": text()})),
        },
        Event::MessageReceived(_) | Event::ReplyReceived(_) => {
            let said = envelope::text_of(content);
            payload!("user_message", json!({"segments": [{"kind": "text", "content": said}]}))
        }
        Event::MessageAnswered(_) | Event::WorkerNotified(_) => {
            payload!("text_done", json!({"text": envelope::text_of(content)}))
        }
        Event::WorkerReported(_) => {
            payload!("system_item", json!({"item": envelope::text_of(content)}))
        }
        Event::AgentRegistered(_) | Event::WorkerOnline(_) | Event::WorkerRecovered(_) => {
            payload!("status", json!({"status": "idle"}))
        }
        Event::WorkerOffline(_) => {
            let message = "the agent was not heard of for as long as its lease lasts";
            payload!("alert", alert(record, "warn", "engine", message))
        }
        Event::WorkerDegraded(degraded) => {
            let message = degraded_because(degraded.reason);
            payload!("alert", alert(record, "warn", "engine", message))
        }
        Event::DeliveryFailed(failed) => {
            payload!("error", json!({"code": "not_running", "message": failed.reason}))
        }
        Event::WorkerInputDispatched(dispatched) => {
            payload!("turn_start", json!({"turn": dispatched.turn}))
        }
        Event::WorkerTurnEnded(ended) => {
            let result = match ended.result {
                TurnResult::Finished => "finished",
                TurnResult::Paused => "paused",
            };
            payload!("turn_end", json!({"turn": ended.turn, "result": result}))
        }
        Event::WorkerOutput(output) => match output.event {
            OutputKind::TextDelta => payload!("text_delta", json!({"text": text()})),
            OutputKind::TextDone => payload!("text_done", json!({"text": text()})),
            kind => {
                let name = output_name(kind);
                let text = text();
                let data = serde_json::from_str::<&RawValue>(&text).ok();
                match data {
                    Some(data) => payload!(name, data),
                    None => payload!(name, json!({})),
                }
            }
        },
        Event::WorkerDiagnosed(_) => payload!("alert", alert(record, "warn", "worker", &text())),
        Event::WorkerSpawnFailed(failed) => {
            payload!("error", json!({"code": "internal", "message": failed.message}))
        }
        Event::WorkerInputFailed(failed) => {
            payload!("error", json!({"code": "not_running", "message": failed.message}))
        }
        Event::WorkerInterrupted(_) => {
            let message =
                "the service ended while the worker was at work; its next input starts it again";
            payload!("alert", alert(record, "error", "engine", message))
        }
        Event::WorkerExited(exited) if exited.exit.success() => {
            payload!("run_end", json!({"result": "finished"}))
        }
        Event::WorkerExited(exited) => {
            let how = match (exited.exit.code, exited.exit.signal) {
                (Some(code), _) => format!("its process ended with exit code {code}"),
                (None, Some(signal)) => format!("its process was ended by signal {signal}"),
                (None, None) => "its process ended".to_owned(),
            };
            payload!("error", json!({"code": "internal", "message": how}))
        }
        Event::WorkerConnected(_) => payload!("status", json!({"status": "idle"})),
        Event::WorkerStopped(_) | Event::WorkerCancelled(_) => {
            payload!("shutdown", json!({}))
        }
        Event::ContentRedacted(it) => {
            payload!("alert", redacted(record, it.sequence, &text()))
        }
        _ => None,
    }
}

fn degraded_because(reason: DegradedReason) -> &'static str {
    match reason {
        DegradedReason::Wedged => "the agent says that it is stuck",
        DegradedReason::ErrorRate => "half of what the agent does fails, or more",
        DegradedReason::Deaf => "the agent beats, but does not ask for the messages that wait",
    }
}

fn alert(record: &Record, level: &str, source: &str, message: &str) -> Value {
    json!({
        "level": level,
        "source": source,
        "message": message,
        "timestamp_ms": record.header.time.as_millis(),
    })
}

fn output_name(kind: OutputKind) -> &'static str {
    match kind {
        OutputKind::TextDelta => "text_delta",
        OutputKind::TextDone => "text_done",
        OutputKind::ThinkingStart => "thinking_start",
        OutputKind::ThinkingDelta => "thinking_delta",
        OutputKind::ThinkingDone => "thinking_done",
        OutputKind::ToolCallStart => "tool_call_start",
        OutputKind::ToolCallArgsDelta => "tool_call_args_delta",
        OutputKind::ToolCallDone => "tool_call_done",
        OutputKind::ToolResult => "tool_result",
        OutputKind::Usage => "usage",
        OutputKind::RunEnd => "run_end",
        OutputKind::Error => "error",
        OutputKind::Status => "status",
        OutputKind::Alert => "alert",
    }
}

/// The filter for all records of one worker.
pub(super) fn of_worker(state: &acta_projections::WorkerState) -> Filter {
    Filter {
        runtime: Some(state.runtime.clone()),
        worker: Some(state.worker.clone()),
        ..Filter::default()
    }
}

/// A progress frame: where the stream stands.
pub(super) fn progress(kind: &str, cursor: &str, head: Sequence) -> Utf8Bytes {
    json_text(&json!({"kind": kind, "cursor": cursor, "head": head}))
}

/// A whole record, as a frame.
pub(super) async fn whole_record(
    app: &App,
    epoch: Epoch,
    record: &Arc<Record>,
) -> Result<Utf8Bytes, ReadFault> {
    let cursor = cursor_of(app, epoch, record);
    let mut out = format!("{{\"kind\":\"event\",\"cursor\":\"{cursor}\",\"record\":").into_bytes();
    super::record_json::write(app, record, &mut out).await?;
    out.push(b'}');
    Ok(String::from_utf8_lossy(&out).into_owned().into())
}
