//! `acta segments`: the sealed history in a data directory. The service may run.

use super::{
    output::{Format, Output, table},
    serve_args::DATA_DEFAULT,
};
use crate::{data_dir::DataDir, journal};
use anyhow::{Context as _, Result};
use serde_json::json;
use std::path::Path;

pub(super) fn run(data: Option<&Path>, out: &mut Output) -> Result<()> {
    let data = data.unwrap_or(Path::new(DATA_DEFAULT));
    let log = DataDir::log_of(data)?;
    let segments = journal::segments(data, log)
        .with_context(|| format!("the segments in {} cannot be listed", data.display()))?;
    if out.format == Format::Json {
        out.json(&json!({"log_id": log, "segments": segments}))?;
        return out.flush();
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
