//! `acta segments`: the sealed history in a data directory, and what of it is damaged or missing.
//! The service may run.

use super::{
    output::{Format, Output, table},
    serve_args::DATA_DEFAULT,
    verify::Unverified,
};
use crate::{
    base::Bases,
    data_dir::DataDir,
    journal::{self, ListedSegment},
};
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
    let missing = missing(&segments, expired.unwrap_or(Sequence::ZERO));
    if out.format == Format::Json {
        let missing: Vec<_> =
            missing.iter().map(|(first, last)| json!({"first": first, "last": last})).collect();
        out.json(&json!({
            "log_id": log,
            "segments": segments,
            "expired_through": expired,
            "missing": missing,
        }))?;
    } else {
        table_of(&segments, expired, out)?;
    }
    out.flush()?;
    let damaged = segments.iter().filter(|segment| segment.damage.is_some());
    let damaged = damaged.map(|it| format!("records {} to {} are damaged", it.first, it.last));
    let missing = missing.iter().map(|(first, last)| match first == last {
        true => format!("record {first} is missing"),
        false => format!("records {first} to {last} are missing"),
    });
    let faults: Vec<String> = damaged.chain(missing).collect();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Unverified::damaged(faults.join("; ")).into()),
    }
}

fn table_of(segments: &[ListedSegment], expired: Option<Sequence>, out: &mut Output) -> Result<()> {
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
    out.text(&table(&["FIRST", "LAST", "BLOCKS", "BYTES", "BEFORE", "RATIO"], &rows))
}

/// What no segment has, though one has what comes after it.
fn missing(segments: &[ListedSegment], expired: Sequence) -> Vec<(Sequence, Sequence)> {
    let mut missing = Vec::new();
    let mut through = expired;
    for segment in segments {
        if segment.first > through.next() {
            missing.push((through.next(), Sequence(segment.first.0 - 1)));
        }
        through = through.max(segment.last);
    }
    missing
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
