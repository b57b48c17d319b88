//! JSON-RPC envelopes of messages between agents, as clients of the original platform and of
//! A2A write them: completed where something is missing, and otherwise left as they are.

use crate::error::{Code, Rejection, shown};
use serde_json::{Map, Value, json};

/// The longest method that is kept in a header, in characters.
const METHOD_CHARS_MAX: usize = 64;

/// What a message is sent with unless it says otherwise.
pub const MESSAGE_SEND: &str = "message/send";

/// A message, completed.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The envelope.
    pub json: Value,
    /// Its method.
    pub method: String,
    /// What tells a repeat, if its sender gave anything.
    pub key: Option<String>,
}

impl Envelope {
    /// Reads a request body. `fresh` is the message id for one that has none.
    pub fn parse(body: &[u8], fresh: impl FnOnce() -> String) -> Result<Self, Rejection> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            let message = format!("the body is not JSON: {}", shown(&error.to_string()));
            Rejection::new(Code::InvalidJson, message)
        })?;
        let payload = match value {
            Value::Object(payload) => payload,
            Value::String(text) => Map::from_iter([("text".to_owned(), Value::String(text))]),
            _ => {
                let message =
                    "the body must be a JSON-RPC envelope, or the payload of one: an object";
                return Err(Rejection::new(Code::InvalidJson, message));
            }
        };
        let mut envelope = wrapped(payload);
        let method = match envelope.get("method").and_then(Value::as_str) {
            Some(method) => {
                method.chars().filter(|c| !c.is_control()).take(METHOD_CHARS_MAX).collect()
            }
            None => MESSAGE_SEND.to_owned(),
        };
        let key = complete(&mut envelope, fresh);
        Ok(Self { json: Value::Object(envelope), method, key })
    }

    /// An envelope around the text of a person.
    pub fn of_text(id: &str, text: &str) -> Value {
        json!({
            "jsonrpc": "2.0",
            "id": id,
            "method": MESSAGE_SEND,
            "params": {"message": {
                "role": "user",
                "messageId": id,
                "parts": [{"type": "text", "kind": "text", "text": text}],
            }},
        })
    }

    /// The id of the envelope, if it is a text.
    pub fn id(&self) -> Option<&str> {
        self.json["id"].as_str()
    }
}

/// Puts a bare payload into an envelope; leaves an envelope alone.
fn wrapped(payload: Map<String, Value>) -> Map<String, Value> {
    if payload.contains_key("jsonrpc") {
        return payload;
    }
    if payload.contains_key("params") || payload.contains_key("result") {
        let mut envelope = payload;
        envelope.insert("jsonrpc".into(), "2.0".into());
        if envelope.contains_key("params") && !envelope.contains_key("method") {
            envelope.insert("method".into(), MESSAGE_SEND.into());
        }
        return envelope;
    }
    let params = if payload.contains_key("message") {
        payload
    } else {
        Map::from_iter([("message".to_owned(), Value::Object(payload))])
    };
    Map::from_iter([
        ("jsonrpc".to_owned(), "2.0".into()),
        ("method".to_owned(), MESSAGE_SEND.into()),
        ("params".to_owned(), Value::Object(params)),
    ])
}

/// Fills in what deployed clients look for. Gives what tells a repeat.
fn complete(envelope: &mut Map<String, Value>, fresh: impl FnOnce() -> String) -> Option<String> {
    let text = |value: Option<&Value>| {
        value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let mut key = text(envelope.get("idempotency_key"));
    let Some(Value::Object(params)) = envelope.get_mut("params") else { return key };
    key = key.or_else(|| text(params.get("idempotency_key")));
    if let Some(Value::String(said)) = params.get("message") {
        let message = json!({"role": "user", "parts": [{"type": "text", "text": said}]});
        params.insert("message".into(), message);
    }
    let Some(Value::Object(message)) = params.get_mut("message") else { return key };
    key = key.or_else(|| text(message.get("idempotency_key")));
    if !message.contains_key("parts")
        && let Some(Value::String(said)) = message.get("text")
    {
        let part = json!([{"type": "text", "text": said}]);
        message.insert("parts".into(), part);
    }
    let given = text(message.get("messageId")).or_else(|| text(message.get("message_id")));
    let id = given.clone().unwrap_or_else(fresh);
    message.insert("messageId".into(), id.into());
    if let Some(Value::Array(parts)) = message.get_mut("parts") {
        parts.iter_mut().filter_map(Value::as_object_mut).for_each(complete_part);
    }
    key.or(given)
}

/// Parts say what they are twice: deployed clients read `type`, A2A reads `kind`.
fn complete_part(part: &mut Map<String, Value>) {
    let named = |part: &Map<String, Value>, name: &str| {
        part.get(name).filter(|value| value.as_str().is_some_and(|text| !text.is_empty())).cloned()
    };
    let (by_type, by_kind) = (named(part, "type"), named(part, "kind"));
    let implied = part.get("text").is_some_and(Value::is_string).then(|| Value::from("text"));
    let both = (by_type.clone().or_else(|| by_kind.clone()).or_else(|| implied.clone()))
        .zip(by_kind.or(by_type).or(implied));
    if let Some((by_type, by_kind)) = both {
        part.insert("type".into(), by_type);
        part.insert("kind".into(), by_kind);
    }
}

/// What an envelope, or an answer to one, says in words: the texts of its parts.
pub fn text_of(content: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(content) else {
        return String::from_utf8_lossy(content).into_owned();
    };
    let places = [
        "/params/message/parts",
        "/result/parts",
        "/result/message/parts",
        "/result/status/message/parts",
        "/result/artifacts/0/parts",
        "/message/parts",
        "/parts",
    ];
    for place in places {
        if let Some(Value::Array(parts)) = value.pointer(place) {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            return texts.collect::<Vec<_>>().join("\n");
        }
    }
    let places =
        ["/message", "/summary", "/text", "/error/message", "/error_detail", "/result", "/params"];
    let found = places.iter().find_map(|place| value.pointer(place)).unwrap_or(&value);
    found.as_str().map_or_else(|| found.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &Value) -> Envelope {
        Envelope::parse(body.to_string().as_bytes(), || "fresh".into()).unwrap()
    }

    #[test]
    fn a_bare_payload_is_wrapped_and_what_is_missing_filled_in() {
        let part = json!({"type": "text", "kind": "text", "text": "ping"});
        let message = |id: &str| json!({"messageId": id, "parts": [part]});
        let whole = |message: Value| json!({"jsonrpc": "2.0", "method": "message/send", "params": {"message": message}});
        let bare = json!({"parts": [{"text": "ping"}]});
        let rows = [
            (bare.clone(), whole(message("fresh")), None),
            (json!({"message": bare}), whole(message("fresh")), None),
            (json!({"params": {"message": bare}}), whole(message("fresh")), None),
            (whole(bare.clone()), whole(message("fresh")), None),
            (whole(message("m")), whole(message("m")), Some("m")),
            (
                whole(json!({"messageId": "m", "parts": [{"kind": "text", "text": "ping"}]})),
                whole(message("m")),
                Some("m"),
            ),
        ];
        for (body, expected, key) in rows {
            let envelope = parse(&body);
            assert_eq!(envelope.json, expected, "{body}");
            assert_eq!(envelope.key.as_deref(), key, "{body}");
            assert_eq!(text_of(envelope.json.to_string().as_bytes()), "ping", "{body}");
        }
        let both = json!({"idempotency_key": "k", "message": {"messageId": "m"}});
        assert_eq!(parse(&both).key.as_deref(), Some("k"));
    }

    #[test]
    fn other_envelopes_are_left_alone() {
        for body in [
            json!({"jsonrpc": "2.0", "id": "act-1", "result": {"parts": []}}),
            json!({"jsonrpc": "2.0", "id": 7, "method": "tasks/get", "params": {"id": "t"}}),
            json!({"jsonrpc": "2.0", "method": "x", "params": [1, 2]}),
        ] {
            assert_eq!(parse(&body).json, body);
        }
        for body in ["", "[1]", "7", "{", "null", "\u{0}"] {
            let error = Envelope::parse(body.as_bytes(), || "fresh".into()).unwrap_err();
            assert_eq!(error.code, Code::InvalidJson, "{body}");
        }
    }

    #[test]
    fn what_is_said_is_found_wherever_it_stands() {
        let rows = [
            (json!({"result": {"parts": [{"text": "a"}, {"text": "b"}]}}), "a\nb"),
            (json!({"message": "said"}), "said"),
            (json!({"error": {"message": "broken"}}), "broken"),
            (json!({"x": 1}), "{\"x\":1}"),
            (json!("text"), "text"),
        ];
        for (content, expected) in rows {
            assert_eq!(text_of(content.to_string().as_bytes()), expected);
        }
        assert_eq!(text_of(b"no json"), "no json");
    }
}
