//! A record as one JSON object, with its content read.

use super::App;
use crate::{log::ReadFault, rendered};
use acta_events::Record;
use std::sync::Arc;

/// Appends a record to a buffer.
pub(super) async fn write(
    app: &App,
    record: &Arc<Record>,
    out: &mut Vec<u8>,
) -> Result<(), ReadFault> {
    let bytes = app.log.content(record).await?;
    let note = if bytes.is_none() { app.log.note(record.seq()).await? } else { None };
    rendered::write(record, bytes.as_deref(), note.as_ref(), out);
    Ok(())
}
