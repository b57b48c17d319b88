//! The last line of a file that is to be gone on with: which record it is, of which log, and in
//! which format. A file of another log would be gone on with under the same sequences.

use super::{ExportFormat, Standing};
use crate::cli::client::{Call, Client};
use acta_events::{LogId, Sequence};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::path::Path;

/// An exported record, as far as it has to be known again.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) seq: Sequence,
    format: ExportFormat,
    id: String,
    /// What a CloudEvent says of its log.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    id: String,
    specversion: Option<String>,
    source: Option<String>,
    seq: Option<Sequence>,
    sequence: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
}

impl Exported {
    /// A line, in either format.
    pub(super) fn parse(line: &str) -> Result<Self> {
        let wire: Wire = serde_json::from_str(line)
            .context("its last line is no record and no CloudEvent; take another name")?;
        let Wire { id, specversion, source, seq, sequence } = wire;
        let (format, seq) = match specversion {
            None => (ExportFormat::Ndjson, seq),
            Some(_) => {
                let seq = sequence.and_then(|text| text.parse().ok()).map(Sequence);
                (ExportFormat::Cloudevents, seq)
            }
        };
        let seq = seq.context("its last line has no sequence; take another name")?;
        Ok(Self { seq, format, id, source })
    }

    /// Refuses to go on with a file unless this is what the service would write now.
    pub(super) async fn check(
        &self,
        path: &Path,
        format: ExportFormat,
        log: LogId,
        standing: &Standing,
        client: &Client,
    ) -> Result<()> {
        let (shown, seq) = (path.display(), self.seq);
        if self.format != format {
            let (holds, option) = match self.format {
                ExportFormat::Cloudevents => ("CloudEvents", "--format cloudevents"),
                ExportFormat::Ndjson | ExportFormat::Archive => ("records", "--format ndjson"),
            };
            bail!("{shown} holds {holds}; go on with it by {option}, or take another name");
        }
        let other_log = format!(
            "{shown} is of another log than the one of this service; name the service that it is \
             from with --url, or take another file"
        );
        if self.source.as_ref().is_some_and(|source| *source != super::cloudevents::source(log)) {
            bail!(other_log);
        }
        if seq > standing.head {
            bail!("{other_log}: it ends with record {seq}, and this log with {}", standing.head);
        }
        if seq <= standing.expired_through {
            bail!(
                "{shown} ends with record {seq}, which has expired, so that whether it is of this \
                 log cannot be told; begin another file"
            );
        }
        let call = Call::get(&["events"])
            .query("after", Some(seq.0.saturating_sub(1)))
            .query("until", Some(seq))
            .query("limit", Some(1))
            .query("watching", Some(1));
        let page: Page = client.send_as(call).await?;
        let same = match page.events.first() {
            None => false,
            Some(record) => {
                let record: Value = serde_json::from_str(record.get())?;
                record["seq"] == seq.0 && record["id"] == *self.id
            }
        };
        if !same {
            bail!("{other_log}: record {seq} is not the same there");
        }
        Ok(())
    }
}
