//! A record as one JSON object: its header, with the content itself in place of the note that
//! there is one.
//!
//! The header's bytes are passed on as they are stored. `content` becomes the text, or the JSON
//! document; an erased one is `null`. `content_type` tells which, and `redacted` who erased it, when
//! and why.

use crate::log::RedactionNote;
use acta_events::{MediaType, Record};
use serde::Serialize;

/// Where the note about the content begins; it is the last field of a header that has one.
const CONTENT_NOTE: &[u8] = b",\"content\":{";

/// Appends a record with its content to a buffer. No content for one that has it means that it
/// is erased, by the order in `redacted`.
pub fn write(
    record: &Record,
    bytes: Option<&[u8]>,
    redacted: Option<&RedactionNote>,
    out: &mut Vec<u8>,
) {
    let Some(content) = &record.content else {
        out.extend_from_slice(&record.json);
        return;
    };
    let header = &record.json;
    let end = header
        .windows(CONTENT_NOTE.len())
        .rposition(|window| window == CONTENT_NOTE)
        .unwrap_or(header.len().saturating_sub(1));
    out.extend_from_slice(&header[..end]);
    match (content.media_type, bytes) {
        (_, None) => {
            out.extend_from_slice(br#","content_type":"erased","content":null"#);
            if let Some(redacted) = redacted {
                out.extend_from_slice(br#","redacted":"#);
                write_json(redacted, out);
            }
        }
        (MediaType::Text, Some(bytes)) => {
            out.extend_from_slice(br#","content_type":"text/plain","content":"#);
            write_json(&String::from_utf8_lossy(bytes), out);
        }
        (MediaType::Json, Some(bytes)) => {
            out.extend_from_slice(br#","content_type":"application/json","content":"#);
            // What an agent sent was checked to be JSON; an empty one stands for no data.
            out.extend_from_slice(if bytes.is_empty() { b"{}" } else { bytes });
        }
    }
    out.push(b'}');
}

fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    // Writing texts and numbers into memory cannot fail.
    drop(serde_json::to_writer(out, value));
}
