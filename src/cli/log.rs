//! `acta log`: who did what, when, by which command. Reads from the end, a page at a time.

use super::client::{Call, Client};
use super::output::{Format, Output, note};
use super::parse_moment;
use super::tail::parse_type;
use super::timeline::{RecordView, Timeline};
use super::worker_address::WorkerAddress;
use acta_events::{Actor, RuntimeId, Sequence};
use anyhow::{Context as _, Result};
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

/// How many records are asked for at once: what is kept in memory, on both sides.
const PAGE_RECORDS: u64 = 256;

const HELP: &str = "\
Examples:
  acta log -n 20
  acta log --worker 0193e4 --reverse
  acta log --actor operator --since 2026-11-20T00:00:00Z --until 2026-11-21T00:00:00Z
  acta log --grep 'deploy' --type worker_input_accepted
  acta log -o json | jq -r .type | sort | uniq -c

A line: when, which record, who, which worker, what, and the key of the command behind it.
The newest comes first. Moments are sequences, or times in UTC as in 2026-11-20T19:14:00Z.";

/// Options of `acta log`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct LogArgs {
    /// At most this many records
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,

    /// The oldest of them first
    #[arg(long)]
    reverse: bool,

    /// Only records in which this text stands, whatever its case
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,

    /// Only from then on
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    since: Option<String>,

    /// Only up to and with then
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    until: Option<String>,

    /// Only what this actor did: operator, service, anonymous, or token:<id>
    #[arg(long, value_name = "ACTOR", value_parser = Actor::parse)]
    actor: Option<Actor>,

    /// Only of this worker, given by its id or the beginning of it; RUNTIME/ID names its runtime too
    #[arg(long, value_name = "ID")]
    worker: Option<WorkerAddress>,

    /// Only of this runtime
    #[arg(long, value_name = "ID", value_parser = RuntimeId::parse)]
    runtime: Option<RuntimeId>,

    /// Only events with these names
    #[arg(long = "type", value_name = "NAME", value_delimiter = ',', value_parser = parse_type)]
    types: Vec<String>,

    /// Also what is about watching: committed cursors, and what auditors read
    #[arg(long)]
    watching: bool,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    /// Where the next older page goes on.
    before: Option<Sequence>,
    /// Where the next newer page goes on.
    cursor: Option<String>,
    /// Up to where history has expired.
    expired_through: Option<Sequence>,
}

#[derive(Deserialize)]
struct Place {
    seq: Sequence,
}

pub(super) async fn run(args: LogArgs, client: &Client, out: &mut Output) -> Result<()> {
    let worker = match &args.worker {
        None => None,
        Some(given) => Some(given.find_here(client).await?),
    };
    let timeline = Timeline::new(out.paint);
    let mut log = Log { args, worker, client, out, timeline };
    if log.args.limit == Some(0) {
        return Ok(());
    }
    if !log.args.reverse {
        return log.newest_first(|log, record| log.print(record)).await;
    }
    let mut first = None;
    if log.args.limit.is_some() {
        // Where the newest so many begin; then they are read from there.
        log.newest_first(|_, record| {
            first = Some(serde_json::from_str::<Place>(record).context("a record has no place")?);
            Ok(())
        })
        .await?;
        if first.is_none() {
            return Ok(());
        }
    }
    log.oldest_first(first.map(|place| place.seq)).await
}

/// Says where the log begins, if not with the first record.
fn say_expired(through: Option<Sequence>) {
    if let Some(through) = through {
        note(&format!("records 1 to {through} have expired"));
    }
}

struct Log<'a> {
    args: LogArgs,
    worker: Option<String>,
    client: &'a Client,
    out: &'a mut Output,
    timeline: Timeline,
}

impl Log<'_> {
    fn call(&self, limit: u64) -> Call {
        let types = (!self.args.types.is_empty()).then(|| self.args.types.join(","));
        Call::get(&["events"])
            .query("limit", Some(limit))
            .query("type", types)
            .query("worker", self.worker.as_ref())
            .query("runtime", self.args.runtime.as_ref())
            .query("actor", self.args.actor.as_ref())
            .query("grep", self.args.grep.as_ref())
            .query("until", self.args.until.as_ref())
            .query("watching", self.args.watching.then_some("1"))
    }

    async fn newest_first(
        &mut self,
        mut take: impl FnMut(&mut Self, &str) -> Result<()>,
    ) -> Result<()> {
        let mut left = self.args.limit.unwrap_or(u64::MAX);
        let mut before = None;
        loop {
            let call = self
                .call(left.min(PAGE_RECORDS))
                .query("order", Some("newest"))
                .query("since", self.args.since.as_ref())
                .query("before", before);
            let page: Page = self.client.send_as(call).await?;
            for record in &page.events {
                take(self, record.get())?;
            }
            self.out.flush()?;
            left = left.saturating_sub(page.events.len() as u64);
            before = page.before;
            if left > 0 && before.is_none() {
                say_expired(page.expired_through);
            }
            if left == 0 || before.is_none() {
                return Ok(());
            }
        }
    }

    async fn oldest_first(&mut self, first: Option<Sequence>) -> Result<()> {
        let mut left = self.args.limit.unwrap_or(u64::MAX);
        let since = first.map(|seq| seq.to_string()).or(self.args.since.clone());
        let mut cursor: Option<String> = None;
        while left > 0 {
            let call = self
                .call(left.min(PAGE_RECORDS))
                .query("since", since.as_ref())
                .query("cursor", cursor.as_ref());
            let page: Page = self.client.send_as(call).await?;
            for record in &page.events {
                self.print(record.get())?;
            }
            self.out.flush()?;
            if cursor.is_none() && first.is_none() {
                say_expired(page.expired_through);
            }
            left = left.saturating_sub(page.events.len() as u64);
            if page.cursor.is_none() || page.cursor == cursor {
                break;
            }
            cursor = page.cursor;
        }
        Ok(())
    }

    fn print(&mut self, record: &str) -> Result<()> {
        if self.out.format == Format::Json {
            return self.out.line(record);
        }
        let record: RecordView<'_> =
            serde_json::from_str(record).context("a record was not understood")?;
        let line = self.timeline.log_line(&record);
        self.out.line(&line)
    }
}
