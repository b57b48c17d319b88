//! What does the work: the seam between the loops and whatever answers a message.

use super::options::BackendOptions;
use crate::trust::Trust;
use acta_events::ProcessRef;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// One part of a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// `text`, `file` or `data`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a text part.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Of a file part.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mime_type: String,
    /// Of a file part: where the file is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Of a data part.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub data: Map<String, Value>,
}

impl Part {
    /// A part that says `text`.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: "text".into(), text: text.into(), ..Self::default() }
    }
}

/// A message, as a backend gets it. A text that a sender left out is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The worker that it is for: this side.
    pub workspace_id: String,
    /// The worker that sent it; empty if a person did.
    pub caller_id: String,
    /// Tells a repeat from another message.
    pub message_id: String,
    /// The caller's own key for the same purpose.
    pub idempotency_key: String,
    /// The longer task that it belongs to.
    pub task_id: String,
    /// What it says.
    pub parts: Vec<Part>,
    /// The JSON-RPC method, such as `message/send`.
    pub method: String,
    /// The untouched envelope.
    pub raw: String,
}

impl Request {
    /// All that its text parts say, a part a line.
    pub fn text(&self) -> String {
        joined_text(&self.parts)
    }
}

/// All that the text parts say, a part a line.
pub fn joined_text(parts: &[Part]) -> String {
    let texts = parts.iter().filter(|part| part.kind == "text").map(|part| part.text.as_str());
    texts.collect::<Vec<_>>().join("\n")
}

/// What a backend answers: a piece of the answer, or the whole of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// At least one.
    pub parts: Vec<Part>,
    /// Whether this is the answer, not a piece of it that was there before the rest.
    pub is_final: bool,
}

impl Response {
    /// The answer, in one text part.
    pub fn text(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::text(text)], is_final: true }
    }
}

/// A failure to answer. What it says reaches the server and whoever asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// It may go better the next time.
    #[error("{0}")]
    Failed(String),
    /// It will be the same the next time.
    #[error("{0}")]
    Refused(String),
    /// It was closed before it had an answer.
    #[error("the backend was closed")]
    Closed,
}

/// Something that a backend tells while it works.
#[derive(Debug)]
pub enum Progress {
    /// A process runs on its behalf, to be ended if this one does not live to do it.
    Process(ProcessRef),
    /// A piece of the answer.
    Piece(Response),
}

/// Takes what a backend tells while it works. It waits where the other side is slow.
#[derive(Clone, Debug)]
pub struct ProgressSender(mpsc::Sender<Progress>);

impl ProgressSender {
    /// A sender and where it sends to.
    pub fn channel() -> (Self, mpsc::Receiver<Progress>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self(sender), receiver)
    }

    /// Tells. Nobody need be interested.
    pub async fn send(&self, progress: Progress) {
        let _ = self.0.send(progress).await;
    }
}

/// Whatever answers messages. Safe to be asked several things at once.
pub trait Backend: Send + Sync {
    /// Answers one message. A repeat has the message id of the first time. Dropping the future
    /// ends whatever it had begun.
    fn handle<'a>(
        &'a self,
        request: &'a Request,
        progress: ProgressSender,
    ) -> BoxFuture<'a, Result<Response, BackendError>>;

    /// Ends whatever still runs. Closing it again does nothing.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Closes a backend once, however often it is asked to.
pub(super) struct ClosedOnce<'b> {
    backend: &'b dyn Backend,
    closed: tokio::sync::OnceCell<()>,
}

impl<'b> ClosedOnce<'b> {
    pub(super) fn new(backend: &'b dyn Backend) -> Self {
        Self { backend, closed: tokio::sync::OnceCell::new() }
    }
}

impl Backend for ClosedOnce<'_> {
    fn handle<'a>(
        &'a self,
        request: &'a Request,
        progress: ProgressSender,
    ) -> BoxFuture<'a, Result<Response, BackendError>> {
        self.backend.handle(request, progress)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { *self.closed.get_or_init(|| self.backend.close()).await })
    }
}

/// Makes a backend from its options, without any I/O. The error says what is wrong with them.
/// It is told whom to believe over TLS.
pub type Factory = fn(&BackendOptions, &Trust) -> Result<Arc<dyn Backend>, String>;

/// Backends by name.
#[derive(Default)]
pub struct Registry {
    factories: BTreeMap<&'static str, Factory>,
}

impl Registry {
    /// Adds one.
    ///
    /// # Panics
    /// If the name is empty or taken: a mistake of whoever wrote it, not of whoever runs it.
    pub fn register(&mut self, name: &'static str, factory: Factory) {
        assert!(!name.is_empty(), "a backend has a name");
        let taken = self.factories.insert(name, factory).is_some();
        assert!(!taken, "there are two backends named {name}");
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&'static str> {
        self.factories.keys().copied().collect()
    }

    /// Builds the one with this name. The error is for whoever gave the name and the options.
    pub fn build(
        &self,
        name: &str,
        options: &BackendOptions,
        trust: &Trust,
    ) -> Result<Arc<dyn Backend>, String> {
        let Some(factory) = self.factories.get(name) else {
            let known = self.names().join(", ");
            return Err(format!("there is no backend {name:?}; the known ones are: {known}"));
        };
        let backend =
            factory(options, trust).map_err(|error| format!("backend {name}: {error}"))?;
        Ok(backend)
    }
}

/// The duration in whole or fractional seconds, for messages to people.
pub(super) fn shown(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
