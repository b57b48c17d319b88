//! `acta replay`: rebuilds the views up to a moment and shows them, from a running service or
//! from the data of a stopped one.

mod orders;

use super::client::{Call, Client};
use super::output::{Format, Output, cell_at, note, table};
use super::progress::Progress;
use super::rebuild::{StoppedLog, damaged};
use super::tail::parse_type;
use super::timeline::{RecordView, Timeline};
use super::{parse_moment, usage};
use crate::{
    base::Begin,
    content::ContentStore,
    journal::ReadLimits,
    overview::{self, Wanted, overview},
    rendered,
};
use acta_events::{Actor, ContentBody, Record, RuntimeId, Sequence, Timestamp};
use acta_projections::{Projections, WorkerStatus};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args;
use orders::Orders;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::path::{Path, PathBuf};

const WORKERS_MAX: usize = 10_000;
const PAGE_RECORDS: u64 = 256;

const HELP: &str = "\
Examples:
  acta replay                                  all views, rebuilt up to now
  acta replay --to 120 --status running
  acta replay --to 2026-11-20T19:14:00Z --events --worker w-01a1
  acta replay --data /var/lib/acta -o json     without a service, from a copy of its log

With --data the service has to be stopped, and the data is not changed. The digests at the end
are the same from a service and from its data.";

/// Options of `acta replay`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ReplayArgs {
    /// Without a service, from a copy of this data directory
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,

    /// Up to and with then: a sequence, or a time as in 2026-11-20T19:14:00Z [default: now]
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    to: Option<String>,

    /// Also print the records on the way
    #[arg(long)]
    events: bool,

    /// Only workers, and records, of this runtime
    #[arg(long, value_name = "ID", value_parser = RuntimeId::parse)]
    runtime: Option<RuntimeId>,

    /// Only workers whose id begins so, and their records
    #[arg(long, value_name = "ID")]
    worker: Option<String>,

    /// Only workers that have this status then
    #[arg(long, value_name = "STATUS", value_parser = overview::parse_status)]
    status: Option<WorkerStatus>,

    /// With --events: only with these names
    #[arg(long = "type", value_name = "NAME", value_delimiter = ',', requires = "events", value_parser = parse_type)]
    types: Vec<String>,

    /// With --events: only what this actor did
    #[arg(long, value_name = "ACTOR", requires = "events", value_parser = Actor::parse)]
    actor: Option<Actor>,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    cursor: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    worker: Value,
}

#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    worker: Option<&'a str>,
    #[serde(default)]
    data: Data,
}

pub(super) async fn run(args: ReplayArgs, client: &Client, out: &mut Output) -> Result<()> {
    let call = |to: Option<String>| {
        let status = args.status.and_then(|status| serde_json::to_value(status).ok());
        Call::get(&["views"])
            .query("at", to)
            .query("runtime", args.runtime.as_ref())
            .query("worker", args.worker.as_ref())
            .query("status", status.as_ref().and_then(Value::as_str))
    };
    let views = client.send(call(args.to.clone())).await?;
    if args.events {
        let to = views["sequence"].as_u64().context("the views have no sequence")?;
        let mut printer = Printer::new(&args, out);
        let mut cursor: Option<String> = None;
        loop {
            let types = (!args.types.is_empty()).then(|| args.types.join(","));
            let page = Call::get(&["events"])
                .query("limit", Some(PAGE_RECORDS))
                .query("type", types)
                .query("runtime", args.runtime.as_ref())
                .query("actor", args.actor.as_ref())
                .query("watching", Some(1))
                .query("until", Some(to))
                .query("cursor", cursor.as_ref());
            let page: Page = client.send_as(page).await?;
            for record in &page.events {
                printer.print(record.get())?;
            }
            if cursor.as_ref() == Some(&page.cursor) || to == 0 {
                break;
            }
            cursor = Some(page.cursor);
        }
    }
    if names_nobody(&args, &views) {
        // Its worker may have come later.
        let now = Call::get(&["views"])
            .query("worker", args.worker.as_ref())
            .query("runtime", args.runtime.as_ref());
        refuse_unknown(&args, &client.send(now).await?)?;
    }
    show(&views, out)
}

/// Whether no worker, and no runtime, is shown that was asked for by name.
fn names_nobody(args: &ReplayArgs, views: &Value) -> bool {
    let is_none = |list: &str| views[list]["total"] == 0;
    let nobody = args.worker.is_some() && is_none("workers") && is_none("local_workers");
    nobody || args.runtime.as_ref().is_some_and(|runtime| !has_runtime(views, runtime))
}

fn has_runtime(views: &Value, runtime: &RuntimeId) -> bool {
    let mut runtimes = views["runtimes"].as_array().into_iter().flatten();
    runtimes.any(|shown| shown["runtime_id"] == runtime.as_str())
}

/// Refuses names that nothing has, given the views of the present.
fn refuse_unknown(args: &ReplayArgs, now: &Value) -> Result<()> {
    if !names_nobody(args, now) {
        return Ok(());
    }
    match &args.runtime {
        Some(runtime) if !has_runtime(now, runtime) => {
            bail!("there is no runtime {runtime}; `acta ls runtimes` lists them")
        }
        _ => bail!("there is no such worker; `acta ls workers` lists them"),
    }
}

/// Without a service. Blocking.
pub(super) fn run_stopped(args: &ReplayArgs, data: &Path, out: &mut Output) -> Result<()> {
    let stopped = StoppedLog::open(data)?;
    let contents = ContentStore::new(stopped.data.content_path());
    let head = stopped.journal().head().seq;
    let end = End::of(args.to.as_deref(), head)?;
    let mut progress = Progress::new("records", Some(head.0));
    let mut printer = Printer::new(args, out);
    let orders = if args.events { Some(Orders::of(&stopped)?) } else { None };
    let base = stopped.journal().base().map_err(|error| damaged(error.to_string()))?;
    let mut projections = Projections::default();
    if let Some(base) = base {
        end.check(&base.begin)?;
        note(&format!("records 1 to {} have expired", base.begin.seq));
        projections = base.views;
    }
    'log: while projections.position() < head {
        let limits = ReadLimits { blocks: 64, bytes: 4 << 20 };
        let blocks = orders::read(stopped.journal(), projections.position(), limits)?;
        for record in blocks.iter().flat_map(|block| &block.records) {
            if end.is_before(record) {
                break 'log;
            }
            projections.apply(record)?;
            if let Some(orders) = &orders
                && printer.wants(record)
            {
                printer.print_stored(record, &contents, orders)?;
            }
        }
        progress.at(projections.position().0);
        if blocks.is_empty() {
            break;
        }
    }
    progress.finish();
    let wanted = Wanted {
        runtime: args.runtime.clone(),
        worker: args.worker.clone(),
        status: args.status,
        limit: WORKERS_MAX,
    };
    let views = overview(&projections, &wanted);
    if names_nobody(args, &views) {
        go_on(&mut projections, &stopped, head)?;
        refuse_unknown(args, &overview(&projections, &Wanted { status: None, ..wanted }))?;
    }
    show(&views, out)?;
    out.flush()
}

/// Goes on to the end of the log, without showing anything.
fn go_on(projections: &mut Projections, stopped: &StoppedLog, head: Sequence) -> Result<()> {
    while projections.position() < head {
        let limits = ReadLimits { blocks: 64, bytes: 4 << 20 };
        let before = projections.position();
        let blocks = orders::read(stopped.journal(), before, limits)?;
        let records = blocks.iter().flat_map(|block| &block.records);
        for record in records.filter(|record| record.seq() > before) {
            projections.apply(record)?;
        }
        if blocks.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Where a replay ends.
enum End {
    Sequence(Sequence),
    Time(Timestamp),
}

impl End {
    fn of(to: Option<&str>, head: Sequence) -> Result<Self> {
        let Some(to) = to else { return Ok(Self::Sequence(head)) };
        if let Ok(seq) = to.parse().map(Sequence) {
            if seq > head {
                return Err(usage(format!("--to is {seq}, but the log ends at {head}")));
            }
            return Ok(Self::Sequence(seq));
        }
        Ok(Self::Time(Timestamp::parse(to)?))
    }

    /// Refuses a moment before the first record that is there.
    fn check(&self, begin: &Begin) -> Result<()> {
        let is_gone = match self {
            Self::Sequence(seq) => *seq < begin.seq,
            Self::Time(time) => *time < begin.time,
        };
        if is_gone {
            bail!(
                "history_expired: records 1 to {} have expired; the first moment that can be seen is \
                 {}, right after them ({})",
                begin.seq,
                begin.seq,
                begin.time
            );
        }
        Ok(())
    }

    fn is_before(&self, record: &Record) -> bool {
        match self {
            Self::Sequence(seq) => record.seq() > *seq,
            Self::Time(time) => record.header.time > *time,
        }
    }
}

struct Printer<'a> {
    args: &'a ReplayArgs,
    out: &'a mut Output,
    timeline: Timeline,
}

impl<'a> Printer<'a> {
    fn new(args: &'a ReplayArgs, out: &'a mut Output) -> Self {
        let timeline = Timeline::new(out.paint);
        Self { args, out, timeline }
    }

    fn wants(&self, record: &Record) -> bool {
        let (args, header) = (self.args, &record.header);
        (args.types.is_empty() || args.types.iter().any(|name| name == header.event.name()))
            && args.runtime.as_ref().is_none_or(|id| header.runtime.as_ref() == Some(id))
            && args.actor.as_ref().is_none_or(|actor| header.actor == *actor)
    }

    fn print_stored(
        &mut self,
        record: &Record,
        contents: &ContentStore,
        orders: &Orders<'_>,
    ) -> Result<()> {
        let note = orders.note(record.seq())?;
        let content: Option<Bytes> = match record.content.as_ref() {
            Some(content) if note.is_none() => match &content.body {
                ContentBody::Inline { bytes, .. } => Some(bytes.clone()),
                ContentBody::Erased => None,
                ContentBody::File => Some(contents.read(content.digest, content.len)?),
            },
            _ => None,
        };
        let mut text = Vec::new();
        rendered::write(record, content.as_deref(), note.as_ref(), &mut text);
        self.print(&String::from_utf8_lossy(&text))
    }

    fn print(&mut self, record: &str) -> Result<()> {
        if let Some(worker) = &self.args.worker {
            let place: Place<'_> =
                serde_json::from_str(record).context("a record was not understood")?;
            // A record about a local worker names it in its data: it is none of the log's own.
            if !place
                .worker
                .or(place.data.worker.as_str())
                .is_some_and(|id| id.starts_with(&**worker))
            {
                return Ok(());
            }
        }
        if self.out.format == Format::Json {
            return self.out.line(record);
        }
        let record: RecordView<'_> =
            serde_json::from_str(record).context("a record was not understood")?;
        let line = self.timeline.log_line(&record);
        self.out.line(&line)
    }
}

type Table = (&'static str, &'static [(&'static str, &'static str)]);

const TABLES: [Table; 8] = [
    (
        "runtimes",
        &[("RUNTIME", "runtime_id"), ("KIND", "kind"), ("STATUS", "status"), ("LABEL", "label")],
    ),
    ("hosts", &[("HOST", "host_id"), ("RUNTIME", "runtime_id"), ("KIND", "kind")]),
    (
        "workers",
        &[
            ("WORKER", "worker_id"),
            ("RUNTIME", "runtime_id"),
            ("STATUS", "status"),
            ("RUN", "run_state"),
            ("TEMPLATE", "template"),
            ("TURN", "turn"),
            ("ITEMS", "transcript_len"),
            ("LAST", "sequence"),
        ],
    ),
    (
        "local_workers",
        &[
            ("LOCAL WORKER", "worker_id"),
            ("RUNTIME", "runtime_id"),
            ("STATUS", "status"),
            ("LABEL", "label"),
            ("ROLE", "role"),
            ("HOST", "host_id"),
        ],
    ),
    ("bundles", &[("BUNDLE", "id"), ("REVISION", "revision"), ("DIGEST", "digest")]),
    ("tokens", &[("TOKEN", "id"), ("ROLE", "role"), ("LABEL", "label"), ("REVOKED", "revoked_at")]),
    ("cursors", &[("OWNER", "owner"), ("CURSOR", "name"), ("POSITION", "position")]),
    (
        "redactions",
        &[("ERASED", "record"), ("BY", "by"), ("AT", "at"), ("ORDER, WITH THE REASON", "sequence")],
    ),
];

fn show(views: &Value, out: &mut Output) -> Result<()> {
    if out.format == Format::Json {
        return out.json(views);
    }
    let at = cell_at(views, "time");
    let at = if at.is_empty() { String::new() } else { format!(", {at}") };
    out.line(&format!("sequence {}{at}", cell_at(views, "sequence")))?;
    for (name, columns) in TABLES {
        let list = &views[name];
        let items = list["items"].as_array().or(list.as_array());
        let Some(items) = items.filter(|items| !items.is_empty()) else { continue };
        let head: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
        let row = |item| columns.iter().map(|(_, path)| cell_at(item, path)).collect();
        let rows: Vec<Vec<String>> = items.iter().map(row).collect();
        out.text(&format!("\n{}", table(&head, &rows)))?;
        let total = list["total"].as_u64().unwrap_or(0);
        if total > items.len() as u64 {
            out.line(&format!("… and {} more", total - items.len() as u64))?;
        }
    }
    out.text("\n")?;
    for digest in views["digests"].as_array().into_iter().flatten() {
        out.line(&format!("{:<10} {}", cell_at(digest, "name"), cell_at(digest, "digest")))?;
    }
    out.line(&format!("{:<10} {}", "all", cell_at(views, "digest")))
}
