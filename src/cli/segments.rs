//! `acta segments`: the sealed history in a data directory. The service may run.

use super::{
    output::{Format, Output, table},
    serve_args::DATA_DEFAULT,
};
use crate::{base::Bases, data_dir::DataDir, journal};
use acta_events::{LogId, Sequence};
use anyhow::{Context as _, Result};
use serde_json::json;
use std::path::Path;

pub(super) fn run(data: Option<&Path>, out: &mut Output) -> Result<()> {
    let data = data.unwrap_or(Path::new(DATA_DEFAULT));
    let log = DataDir::log_of(data)?;
    let segments = journal::segments(data, log)
        .with_context(|| format!("the segments in {} cannot be listed", data.display()))?;
    let expired = expired(data, log, segments.first().map(|segment| segment.first))?;
    if out.format == Format::Json {
        out.json(&json!({"log_id": log, "segments": segments, "expired_through": expired}))?;
        return out.flush();
    }
    if let Some(through) = expired {
        out.line(&format!("records 1 to {through} have expired by policy"))?;
    }
    let rows: Vec<Vec<String>> = segments
        .iter()
        .map(|segment| {
            let content = segment.content.as_ref();
            let blocks = content.map_or(0, |content| content.block_bytes);
            vec![
                segment.first.to_string(),
                segment.last.to_string(),
                content.map_or_else(String::new, |content| content.blocks.to_string()),
                segment.file_bytes.to_string(),
                blocks.to_string(),
                match (&segment.damage, blocks) {
                    (Some(why), _) => format!("DAMAGED: {why}"),
                    (None, 0) => String::new(),
                    (None, blocks) => format!("{} %", segment.file_bytes * 100 / blocks),
                },
            ]
        })
        .collect();
    out.text(&table(&["FIRST", "LAST", "BLOCKS", "BYTES", "BEFORE", "RATIO"], &rows))?;
    out.flush()
}

/// Up to where history has expired, as far as the segments and their base tell.
fn expired(data: &Path, log: LogId, first: Option<Sequence>) -> Result<Option<Sequence>> {
    let Some(before) = first.map(|first| Sequence(first.0 - 1)) else { return Ok(None) };
    if before == Sequence::ZERO {
        return Ok(None);
    }
    let bases = Bases::of(data);
    let found = bases.positions()?.into_iter().find(|seq| *seq >= before);
    Ok(found.filter(|seq| bases.begin(*seq, log).is_ok()))
}
