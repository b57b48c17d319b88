//! What a message is on the wire, and what an answer to it is.

use super::backend::{Part, Request, Response, joined_text};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Answer text that is shown as the summary of a report, at most.
const SUMMARY_CHARS_MAX: usize = 120;

/// The longest id of a row.
const ID_BYTES_MAX: usize = 200;
/// The longest key that is remembered as it is.
const KEY_BYTES_MAX: usize = 300;

/// What a person is told where the answer says nothing.
const EMPTY_ANSWER: &str = "(the answer is empty)";

/// A message that has arrived, and where it stands in the inbox.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Names the row; also the cursor after it, and what its answer refers to.
    pub(super) id: String,
    /// Whether the platform has an answer to it already.
    pub(super) is_answered: bool,
    pub(super) request: Request,
}

impl Row {
    /// Reads a row of the inbox. The error says what is wrong with it.
    pub(super) fn read(row: &Value) -> Result<Self, String> {
        let id = row_id(row).ok_or("it has no id")?;
        // It becomes part of a key, which is sent in a header.
        if id.len() > ID_BYTES_MAX || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("its id is not one".into());
        }
        let envelope = match &row["request_body"] {
            // Some senders store the text of the envelope.
            Value::String(text) => &serde_json::from_str(text)
                .map_err(|_| "its request_body is a text, but not that of an envelope")?,
            value => value,
        };
        if !envelope.is_object() {
            return Err("it has no request_body".into());
        }
        let mut request = read_envelope(envelope)?;
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        request.workspace_id = text("workspace_id");
        request.caller_id = text("source_id");
        if request.method.is_empty() {
            request.method = text("method");
        }
        let is_answered = !row["response_body"].is_null();
        Ok(Self { id: id.to_owned(), is_answered, request })
    }

    /// A row of which only the id is known any more.
    pub(super) fn of_id(id: &str) -> Self {
        Self { id: id.to_owned(), is_answered: false, request: Request::default() }
    }

    /// Tells this message from every other one of its caller: by the caller's own key, else by
    /// the message's id, else by the row.
    pub(super) fn key(&self) -> String {
        let Request { caller_id, idempotency_key, message_id, .. } = &self.request;
        let key = match (idempotency_key.as_str(), message_id.as_str()) {
            ("", "") => format!("{caller_id}/row/{}", self.id),
            ("", id) => format!("{caller_id}/message/{id}"),
            (key, _) => format!("{caller_id}/key/{key}"),
        };
        // Many keys are remembered, and a sender may make them as long as it likes.
        if key.len() <= KEY_BYTES_MAX {
            return key;
        }
        format!("sha256/{}", URL_SAFE_NO_PAD.encode(Sha256::digest(key)))
    }

    /// The key under which the answer counts once, however often it is sent.
    pub(super) fn reply_key(&self) -> String {
        format!("reply-{}", self.id)
    }

    /// The envelope that answers this message.
    pub(super) fn reply(&self, response: &Response) -> Value {
        let mut message = json!({
            "role": "agent",
            "messageId": self.reply_key(),
            "parts": wire_parts(&response.parts),
        });
        if !self.request.task_id.is_empty() {
            message["task_id"] = self.request.task_id.as_str().into();
        }
        json!({
            "jsonrpc": "2.0",
            "id": self.id,
            "method": "message/send",
            "params": { "message": message },
        })
    }

    /// The same to a person, who is told rather than sent an envelope.
    pub(super) fn notice(&self, response: &Response) -> Value {
        let attachments: Vec<_> =
            response.parts.iter().filter(|part| part.kind != "text").map(wire_part).collect();
        let mut text = joined_text(&response.parts);
        if text.trim().is_empty() {
            // A person cannot be told nothing.
            text = EMPTY_ANSWER.into();
        }
        let mut body = json!({
            "message": text,
            "reply_to": self.id,
            "idempotency_key": self.reply_key(),
        });
        if !attachments.is_empty() {
            body["attachments"] = attachments.into();
        }
        body
    }

    /// The report that this message will not be answered, and why.
    pub(super) fn failure(&self, detail: &str) -> Value {
        json!({
            "activity_type": "error",
            "status": "error",
            "method": self.request.method,
            "reply_to": self.id,
            "idempotency_key": self.failure_key(),
            "summary": summary(detail),
            "error_detail": detail,
        })
    }

    /// The key under which [`Self::failure`] counts once.
    pub(super) fn failure_key(&self) -> String {
        format!("error-{}", self.id)
    }

    /// The report of a piece of an answer that is not there as a whole yet.
    pub(super) fn piece(&self, text: &str) -> Value {
        json!({
            "activity_type": "agent_log",
            "status": "ok",
            "method": "text_delta",
            "reply_to": self.id,
            "summary": text,
        })
    }
}

/// The id of a row, if it has one that can be a cursor.
pub(super) fn row_id(row: &Value) -> Option<&str> {
    row["id"].as_str().filter(|id| !id.is_empty())
}

/// Reads what an envelope says; the worker and the caller are not in it.
pub(super) fn read_envelope(envelope: &Value) -> Result<Request, String> {
    let params = &envelope["params"];
    // A bare payload is its own message.
    let message = [&params["message"], &envelope["message"], envelope]
        .into_iter()
        .find(|value| value.is_object() && value["parts"].is_array())
        .ok_or("it has no message with parts")?;
    let parts = message["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parts: Vec<Part> = parts.iter().map(read_part).collect::<Result<_, _>>()?;
    if parts.is_empty() {
        return Err("its message has no parts".into());
    }
    let first = |places: &[&Value]| {
        let found = places.iter().find_map(|value| value.as_str().filter(|text| !text.is_empty()));
        found.unwrap_or_default().to_owned()
    };
    let metadata = &message["metadata"];
    Ok(Request {
        workspace_id: String::new(),
        caller_id: String::new(),
        message_id: first(&[&message["messageId"], &message["message_id"]]),
        idempotency_key: first(&[
            &message["idempotency_key"],
            &params["idempotency_key"],
            &envelope["idempotency_key"],
            &metadata["idempotency_key"],
        ]),
        task_id: first(&[&message["task_id"], &message["taskId"], &params["task_id"]]),
        parts,
        method: first(&[&envelope["method"]]),
        raw: envelope.to_string(),
    })
}

/// Reads a part. Newer senders write `kind`, and put a file or its data one level down.
pub(super) fn read_part(part: &Value) -> Result<Part, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = part["type"].as_str().or(part["kind"].as_str());
    let kind = match kind {
        Some(kind @ ("text" | "file" | "data")) => kind,
        Some(other) => return Err(format!("a part is of the unknown type {other:?}")),
        None if part["text"].is_string() => "text",
        None => return Err("a part has no type".into()),
    };
    let either = |names: [&str; 2], inside: &Value| {
        let found = names.iter().find_map(|name| part[name].as_str().or(inside[name].as_str()));
        found.unwrap_or_default().to_owned()
    };
    let file = &part["file"];
    Ok(Part {
        kind: kind.into(),
        text: text(&part["text"]),
        mime_type: either(["mime_type", "mimeType"], file),
        uri: either(["uri", "url"], file),
        data: part["data"].as_object().cloned().unwrap_or_default(),
    })
}

/// Parts as they are sent: with both names of their type, since some read one and some the
/// other.
pub(super) fn wire_parts(parts: &[Part]) -> Vec<Value> {
    parts.iter().map(wire_part).collect()
}

fn wire_part(part: &Part) -> Value {
    let mut wire = Map::new();
    wire.insert("type".into(), part.kind.as_str().into());
    wire.insert("kind".into(), part.kind.as_str().into());
    if part.kind == "text" {
        wire.insert("text".into(), part.text.as_str().into());
    }
    if part.kind == "file" {
        let mut file = Map::new();
        for (name, value) in [("mimeType", &part.mime_type), ("uri", &part.uri)] {
            if !value.is_empty() {
                file.insert(name.into(), value.as_str().into());
            }
        }
        for (name, value) in [("mime_type", &part.mime_type), ("uri", &part.uri)] {
            if !value.is_empty() {
                wire.insert(name.into(), value.as_str().into());
            }
        }
        wire.insert("file".into(), file.into());
    }
    if part.kind == "data" {
        wire.insert("data".into(), part.data.clone().into());
    }
    wire.into()
}

fn summary(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(SUMMARY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(envelope: Value) -> Value {
        json!({
            "id": "act-1", "workspace_id": "ws-1", "activity_type": "a2a_receive",
            "source_id": "ws-src", "target_id": "ws-1", "method": "message/send",
            "summary": "s", "request_body": envelope, "response_body": null,
            "duration_ms": null, "status": "ok", "error_detail": null, "created_at": "t",
        })
    }

    fn envelope(message: Value) -> Value {
        json!({ "jsonrpc": "2.0", "method": "message/send", "params": { "message": message } })
    }

    #[test]
    fn a_row_of_the_contract_is_read_to_the_field() {
        let sent = envelope(json!({
            "messageId": "m-1", "task_id": "t-1",
            "parts": [{ "type": "text", "kind": "text", "text": "ping" }],
        }));
        let read = Row::read(&row(sent.clone())).unwrap();
        let request = Request {
            workspace_id: "ws-1".into(),
            caller_id: "ws-src".into(),
            message_id: "m-1".into(),
            idempotency_key: String::new(),
            task_id: "t-1".into(),
            parts: vec![Part::text("ping")],
            method: "message/send".into(),
            raw: sent.to_string(),
        };
        assert_eq!(read, Row { id: "act-1".into(), is_answered: false, request });
        assert_eq!(read.key(), "ws-src/message/m-1");
        let reply = read.reply(&Response::text("pong"));
        assert_eq!(
            reply,
            json!({
                "jsonrpc": "2.0", "id": "act-1", "method": "message/send",
                "params": { "message": {
                    "role": "agent", "messageId": "reply-act-1", "task_id": "t-1",
                    "parts": [{ "type": "text", "kind": "text", "text": "pong" }],
                } },
            })
        );
    }

    #[test]
    fn the_key_of_a_message_is_its_callers() {
        let check = |message: Value, source: Value, key: &str| {
            let mut row = row(envelope(message));
            row["source_id"] = source;
            assert_eq!(Row::read(&row).unwrap().key(), key);
        };
        let parts = json!([{ "kind": "text", "text": "x" }]);
        check(
            json!({ "messageId": "m", "idempotency_key": "k", "parts": parts }),
            "a".into(),
            "a/key/k",
        );
        check(json!({ "messageId": "m", "parts": parts }), "b".into(), "b/message/m");
        check(json!({ "messageId": "m", "parts": parts }), Value::Null, "/message/m");
        check(json!({ "parts": parts }), "a".into(), "a/row/act-1");
        let long =
            Row::read(&row(envelope(json!({ "messageId": "m".repeat(900), "parts": parts }))));
        let key = long.unwrap().key();
        assert!(key.starts_with("sha256/") && key.len() == 50, "{key}");
    }

    #[test]
    fn parts_of_all_kinds_and_dialects_are_read_and_written() {
        let check = |wire: Value, part: Part| assert_eq!(read_part(&wire), Ok(part), "{wire}");
        check(json!({ "text": "a" }), Part::text("a"));
        let file = Part {
            kind: "file".into(),
            mime_type: "text/plain".into(),
            uri: "http://f".into(),
            ..Part::default()
        };
        check(
            json!({ "kind": "file", "file": { "mimeType": "text/plain", "uri": "http://f" } }),
            file.clone(),
        );
        check(
            json!({ "type": "file", "mime_type": "text/plain", "uri": "http://f" }),
            file.clone(),
        );
        let data = json!({ "a": 1 }).as_object().unwrap().clone();
        let data = Part { kind: "data".into(), data, ..Part::default() };
        check(json!({ "type": "data", "data": { "a": 1 } }), data.clone());
        for part in [Part::text("t"), file, data] {
            check(wire_part(&part), part);
        }
        for wrong in [json!({}), json!({ "type": "moon" }), json!(3), json!({ "kind": 1 })] {
            assert!(read_part(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_malformed_row_is_told_from_a_message() {
        let check = |row: Value, wrong: &str| {
            let error = Row::read(&row).unwrap_err();
            assert!(error.contains(wrong), "{row}: {error}");
        };
        check(json!(null), "no id");
        check(json!("text"), "no id");
        check(json!({ "id": 3 }), "no id");
        check(json!({ "id": "" }), "no id");
        check(json!({ "id": "a\nb" }), "not one");
        check(json!({ "id": "é" }), "not one");
        check(json!({ "id": "a".repeat(201) }), "not one");
        check(row(Value::Null), "no request_body");
        check(row(json!([])), "no request_body");
        check(row(json!("{")), "not that of an envelope");
        check(row(json!({ "params": { "message": {} } })), "no message with parts");
        check(row(envelope(json!({ "parts": [] }))), "no parts");
        check(row(envelope(json!({ "parts": [{ "type": "moon" }] }))), "\"moon\"");
        let text = envelope(json!({ "parts": [{ "text": "x" }] })).to_string();
        assert!(Row::read(&row(text.into())).is_ok());
    }
}
