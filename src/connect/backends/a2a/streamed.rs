//! An answer that comes as a stream of events: the events, and what they add up to.

use serde_json::{Value, json};

/// Cuts server-sent events out of what arrives.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Events {
    /// Takes in what has arrived; the data of the events that are whole by that.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            } else if line.is_empty() && !self.data.is_empty() {
                whole.push(std::mem::take(&mut self.data));
            }
        }
        whole
    }
}

struct Artifact {
    id: String,
    parts: Vec<Value>,
}

/// What the results of a stream add up to.
#[derive(Default)]
pub(super) struct Collected {
    message: Option<Value>,
    task: Option<String>,
    status: Value,
    artifacts: Vec<Artifact>,
    is_over: bool,
}

impl Collected {
    /// Takes one result in. The text that is new by it, if it is a piece of the answer.
    pub(super) fn take(&mut self, mut result: Value) -> Option<String> {
        if result["artifact"].is_object() {
            self.name_task(&result["taskId"]);
            let append = result["append"] == true;
            return self.add(&result["artifact"], append);
        }
        if !result["status"].is_object() {
            self.is_over = true;
            self.message = Some(result);
            return None;
        }
        // A task has an id, an update of its status names it.
        self.name_task(&result["id"]);
        self.name_task(&result["taskId"]);
        self.status = result["status"].take();
        let state = self.status["state"].as_str().unwrap_or_default();
        self.is_over = result["final"] == true || !matches!(state, "submitted" | "working");
        let artifacts = result["artifacts"].as_array().into_iter().flatten();
        let news: Vec<String> =
            artifacts.filter_map(|artifact| self.add(artifact, false)).collect();
        (!news.is_empty()).then(|| news.concat())
    }

    /// Whether nothing more is to come.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// As one that did not stream would have answered: a message, or a task. Nothing if it is
    /// not known what to ask about what is missing.
    pub(super) fn into_result(self) -> Option<Value> {
        if self.message.is_some() {
            return self.message;
        }
        // The stream may have ended before the task: then it is asked about.
        let status = if self.is_over { self.status } else { json!({"state": "working"}) };
        let artifacts = self.artifacts.into_iter();
        let artifacts: Vec<Value> =
            artifacts.map(|it| json!({"artifactId": it.id, "parts": it.parts})).collect();
        let task = self.task.or_else(|| self.is_over.then(String::new))?;
        Some(json!({"kind": "task", "id": task, "status": status, "artifacts": artifacts}))
    }

    fn name_task(&mut self, id: &Value) {
        if let Some(id) = id.as_str().filter(|id| !id.is_empty()) {
            self.task = Some(id.to_owned());
        }
    }

    /// The text that is new, as it continues the text so far: parts stand on lines of their own,
    /// but what is appended goes on where the text ended.
    fn add(&mut self, artifact: &Value, append: bool) -> Option<String> {
        let id = artifact["artifactId"].as_str().unwrap_or_default().to_owned();
        let parts = artifact["parts"].as_array().cloned().unwrap_or_default();
        let has_text = self.artifacts.iter().flat_map(|it| &it.parts).any(is_text);
        let known = self.artifacts.iter_mut().find(|it| it.id == id);
        let mut begins_line = has_text;
        let texts: Vec<String> = parts.iter().filter_map(text).map(str::to_owned).collect();
        match known {
            Some(known) if append => {
                let mut parts = parts.into_iter();
                if let (Some(last), Some(first)) = (known.parts.last_mut(), parts.clone().next())
                    && let (Some(before), Some(more)) = (text(last), text(&first))
                {
                    last["text"] = format!("{before}{more}").into();
                    begins_line = false;
                    parts.next();
                }
                known.parts.extend(parts);
            }
            // It was shown already, and stands there in another form now.
            Some(known) => {
                known.parts = parts;
                return None;
            }
            None => self.artifacts.push(Artifact { id, parts }),
        }
        if texts.is_empty() {
            return None;
        }
        let line = if begins_line { "\n" } else { "" };
        Some(format!("{line}{}", texts.join("\n")))
    }
}

fn text(part: &Value) -> Option<&str> {
    part["text"].as_str()
}

fn is_text(part: &Value) -> bool {
    text(part).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_out_wherever_the_pieces_end() {
        let stream = "\u{feff}: hello\n\ndata: {\"a\":1}\r\n\r\nevent: x\ndata:é\ndata: two\nid: 7\n\n\ndata: cut";
        let expected: Vec<Vec<u8>> = vec![b"{\"a\":1}".to_vec(), "é\ntwo".as_bytes().to_vec()];
        for size in [1, 2, 3, 7, 1_000] {
            let mut events = Events::default();
            let pieces = stream.as_bytes().chunks(size);
            let whole: Vec<Vec<u8>> = pieces.flat_map(|piece| events.feed(piece)).collect();
            assert_eq!(whole, expected, "{size}");
        }
    }

    fn artifact(id: &str, append: bool, texts: &[&str]) -> Value {
        let parts: Vec<Value> =
            texts.iter().map(|text| json!({"kind": "text", "text": text})).collect();
        json!({"kind": "artifact-update", "taskId": "t", "append": append,
               "artifact": {"artifactId": id, "parts": parts}})
    }

    fn status(state: &str, is_final: bool) -> Value {
        json!({"kind": "status-update", "taskId": "t", "status": {"state": state},
               "final": is_final})
    }

    /// The pieces, whether it is over, and the texts of the artifacts in the end.
    fn check(results: Vec<Value>, pieces: &[&str], over: bool, texts: &[&str]) {
        let mut collected = Collected::default();
        let told: Vec<String> =
            results.into_iter().filter_map(|result| collected.take(result)).collect();
        assert_eq!(told, pieces);
        assert_eq!(collected.is_over(), over);
        let result = collected.into_result().unwrap();
        let artifacts = result["artifacts"].as_array().into_iter().flatten();
        let parts = artifacts.flat_map(|it| it["parts"].as_array().unwrap().clone());
        let found: Vec<String> = parts.map(|it| it["text"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, texts);
        assert_eq!(pieces.concat(), texts.join("\n"), "the pieces are the answer");
    }

    #[test]
    fn pieces_add_up_to_the_answer() {
        let task = json!({"kind": "task", "id": "t", "status": {"state": "submitted"}});
        check(
            vec![
                task,
                status("working", false),
                artifact("a", false, &["hel"]),
                artifact("a", true, &["lo", "you"]),
                artifact("b", false, &["there"]),
                status("completed", true),
            ],
            &["hel", "lo\nyou", "\nthere"],
            true,
            &["hello", "you", "there"],
        );
        let whole = json!({"kind": "task", "id": "t", "status": {"state": "completed"},
            "artifacts": [{"artifactId": "a", "parts": [{"kind": "text", "text": "at once"}]}]});
        check(vec![whole], &["at once"], true, &["at once"]);
    }

    #[test]
    fn what_is_not_over_is_asked_about_and_a_message_is_the_whole_answer() {
        let mut cut = Collected::default();
        cut.take(artifact("a", false, &["hel"]));
        let result = cut.into_result().unwrap();
        assert_eq!((&result["id"], &result["status"]["state"]), (&"t".into(), &"working".into()));
        assert!(Collected::default().into_result().is_none());
        let message = json!({"kind": "message", "parts": [{"kind": "text", "text": "x"}]});
        let mut one = Collected::default();
        assert_eq!(one.take(message.clone()), None);
        assert!(one.is_over());
        assert_eq!(one.into_result(), Some(message));
        // What replaces a piece that was shown is in the answer, and is not shown twice.
        let mut again = Collected::default();
        again.take(artifact("a", false, &["first"]));
        assert_eq!(again.take(artifact("a", false, &["second"])), None);
        let result = again.into_result().unwrap();
        assert_eq!(result["artifacts"][0]["parts"][0]["text"], "second");
    }
}
