//! Looking for a text in records: in what was written, and in what the event says.

use super::App;
use crate::log::{ReadFault, blocking, text_span};
use acta_events::Record;
use serde_json::Value;
use std::sync::Arc;

/// A text to look for, whatever its case.
pub(super) struct Grep {
    needle: String,
}

impl Grep {
    /// None for an empty text, which stands in everything.
    pub(super) fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self { needle: text.to_lowercase() })
    }

    /// Whether the text stands in a record: in its content (for a completed text, in all of it),
    /// in a value of its event, in its type, its actor or its key.
    pub(super) async fn is_in(&self, app: &App, record: &Arc<Record>) -> Result<bool, ReadFault> {
        let header = &record.header;
        let key = header.command.as_ref().map(|command| command.key.as_str());
        let named = [header.event.name(), header.actor.as_str()].into_iter().chain(key);
        if named.into_iter().any(|text| self.is_in_text(text)) {
            return Ok(true);
        }
        // Events are made of texts and numbers: they always serialise.
        if self.is_in_value(&serde_json::to_value(&header.event).unwrap_or_default()) {
            return Ok(true);
        }
        if let Some(span) = text_span(record) {
            let worker = header.runtime.as_ref().zip(header.worker.as_ref());
            let state = worker.and_then(|(runtime, id)| app.log.views().worker(runtime, id));
            let Some(state) = state else { return Ok(false) };
            let (log, done) = (Arc::clone(&app.log), record.seq());
            let (text, _) = blocking(move || log.text_blocking(state.ordinal, span, done)).await?;
            return Ok(self.is_in_text(&text));
        }
        let content = app.log.content(record).await?;
        Ok(content.is_some_and(|bytes| self.is_in_text(&String::from_utf8_lossy(&bytes))))
    }

    fn is_in_text(&self, text: &str) -> bool {
        text.to_lowercase().contains(&self.needle)
    }

    fn is_in_value(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.is_in_text(text),
            Value::Array(items) => items.iter().any(|item| self.is_in_value(item)),
            Value::Object(fields) => fields.values().any(|field| self.is_in_value(field)),
            _ => false,
        }
    }
}
