//! A record as a CloudEvent 1.0 in its JSON format, on one line.
//!
//! `source` names the log and `id` the record, so that the two together are unique, as the
//! specification asks for. `sequence` has twenty digits: in the order of text as in the log.

use acta_events::LogId;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Record<'a> {
    seq: u64,
    id: &'a str,
    time: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    v: u16,
    runtime: Option<&'a str>,
    worker: Option<&'a str>,
    version: Option<u64>,
    actor: &'a str,
    #[serde(borrow)]
    command: Option<&'a RawValue>,
    trace: Option<&'a str>,
    #[serde(borrow)]
    data: &'a RawValue,
    content_type: Option<&'a str>,
    /// Null where it is erased, which is not the same as none.
    #[serde(borrow, default, deserialize_with = "even_null")]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    redacted: Option<&'a RawValue>,
}

fn even_null<'de: 'a, 'a, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    sequence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    actor: &'a str,
    datacontenttype: &'static str,
    data: Data<'a>,
}

/// What is left of the record, so that nothing is lost.
#[derive(Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a RawValue>,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted: Option<&'a RawValue>,
}

/// How the events of a log name it.
pub(super) fn source(log: LogId) -> String {
    format!("urn:uuid:{log}")
}

/// The CloudEvent of a record of a log.
pub(super) fn of(record: &str, log: LogId) -> Result<String> {
    let record: Record<'_> = serde_json::from_str(record).context("a record was not understood")?;
    let subject = record.runtime.map(|runtime| match record.worker {
        Some(worker) => format!("{runtime}/{worker}"),
        None => runtime.to_owned(),
    });
    let event = CloudEvent {
        specversion: "1.0",
        id: record.id,
        source: source(log),
        kind: format!("acta.{}.v{}", record.kind, record.v),
        time: record.time,
        subject,
        sequence: format!("{:020}", record.seq),
        traceparent: record.trace,
        actor: record.actor,
        datacontenttype: "application/json",
        data: Data {
            version: record.version,
            command: record.command,
            data: record.data,
            content_type: record.content_type,
            content: record.content,
            redacted: record.redacted,
        },
    };
    Ok(serde_json::to_string(&event)?)
}
