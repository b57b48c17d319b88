//! `acta export`: the log as a record a line, for other tools. Streams with bounded memory, goes
//! on by itself after a connection that broke, and can be resumed.

mod cloudevents;
mod exported;
mod sink;
mod stream;

use super::client::{Call, Client};
use super::output::{Output, note};
use super::progress::Progress;
use super::tail::{parse_start, parse_type};
use super::worker_address::WorkerAddress;
use super::{follower::Start, parse_moment, usage};
use acta_events::{Actor, LogId, RuntimeId, Sequence, cursor::Cursor};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use sink::{Begun, Sink};
use std::path::PathBuf;
use stream::{Line, Lines};

const HELP: &str = "\
Examples:
  acta export > log.ndjson
  acta export log.ndjson                       into a new file
  acta export log.ndjson --resume              goes on after the last whole line of the file
  acta export --format cloudevents --from CURSOR | publish
  acta export --format archive log.acta        the whole log, to be verified
  acta export --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z november.ndjson

Ends with what was there when it began. The cursor to go on from is printed on standard error.";

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// A record, as the service tells it
    #[default]
    Ndjson,
    /// A CloudEvent (1.0, JSON) with the extensions sequence, traceparent and actor
    Cloudevents,
    /// Not lines: the whole log as it is stored, with what was signed, for `acta verify`
    Archive,
}

/// Options of `acta export`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ExportArgs {
    /// Where to write; standard output if left out
    file: Option<PathBuf>,

    /// Go on after the last whole line of the file
    #[arg(long, requires = "file", conflicts_with_all = ["from", "since"])]
    resume: bool,

    /// What a line is
    #[arg(long, value_enum, default_value_t)]
    format: ExportFormat,

    /// start, a sequence (what comes after it), or a cursor [default: start]
    #[arg(long, value_name = "WHERE", value_parser = parse_start)]
    from: Option<Start>,

    /// Only from then on: a sequence, or a time as in 2026-11-20T19:14:00Z
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    since: Option<String>,

    /// Only up to and with then
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    until: Option<String>,

    /// Only events with these names
    #[arg(long = "type", value_name = "NAME", value_delimiter = ',', value_parser = parse_type)]
    types: Vec<String>,

    /// Only of this runtime
    #[arg(long, value_name = "ID", value_parser = RuntimeId::parse)]
    runtime: Option<RuntimeId>,

    /// Only of this worker, given by its id or the beginning of it; RUNTIME/ID names its runtime too
    #[arg(long, value_name = "ID")]
    worker: Option<WorkerAddress>,

    /// Only what this actor did
    #[arg(long, value_name = "ACTOR", value_parser = Actor::parse)]
    actor: Option<Actor>,
}

/// Where the log stands when the export begins.
#[derive(Deserialize)]
struct Standing {
    head: Sequence,
    /// Of its beginning; it names the log.
    cursor: String,
    /// Up to where history has expired.
    #[serde(default)]
    expired_through: Sequence,
}

pub(super) async fn run(args: ExportArgs, client: &Client, out: &mut Output) -> Result<()> {
    if args.format == ExportFormat::Archive {
        return archive(&args, client, out).await;
    }
    if args.from == Some(Start::Now) {
        return Err(usage("an export ends with what is there now, so from now on it is empty"));
    }
    let worker = match &args.worker {
        None => None,
        Some(given) => Some(given.find_here(client).await?),
    };
    let standing: Standing = client.send_as(Call::get(&["events"]).query("limit", Some(0))).await?;
    let beginning: Cursor = standing.cursor.parse().map_err(|error| client.not_acta(error))?;
    let (mut sink, from) = match &args.file {
        None => (Sink::Stdout(out), args.from.clone()),
        Some(path) if args.resume => {
            let begun = Begun::open(path)?;
            let mut last = Sequence::ZERO;
            if let Some(exported) = begun.last() {
                exported.check(path, args.format, beginning.log, &standing, client).await?;
                last = exported.seq;
            }
            (begun.go_on()?, Some(Start::After(last)))
        }
        Some(path) => (Sink::create(path)?, args.from.clone()),
    };
    let types = (!args.types.is_empty()).then(|| args.types.join(","));
    let query = [
        ("watching", Some("1".into())),
        ("type", types),
        ("runtime", args.runtime.as_ref().map(RuntimeId::to_string)),
        ("worker", worker),
        ("actor", args.actor.as_ref().map(Actor::to_string)),
        ("since", args.since.clone()),
        // What comes while it is written is for the next export.
        ("until", Some(args.until.clone().unwrap_or_else(|| standing.head.to_string()))),
    ];
    let mut from = from.unwrap_or(Start::After(Sequence::ZERO));
    if from == Start::After(Sequence::ZERO) && standing.expired_through > Sequence::ZERO {
        note(&format!(
            "records 1 to {} have expired; they are not in it",
            standing.expired_through
        ));
        from = Start::After(standing.expired_through);
    }
    let mut lines = Lines::new(client, query, from.clone());
    let done = copy(&mut lines, &mut sink, args.format, beginning.log, standing.head).await;
    sink.finish()?;
    let cursor = lines.cursor();
    match done {
        Ok(count) => note(&format!("{count} records; go on with --from {cursor}")),
        Err(error) => {
            note(&format!("not complete; go on with --from {cursor}"));
            return Err(error);
        }
    }
    Ok(())
}

async fn archive(args: &ExportArgs, client: &Client, out: &mut Output) -> Result<()> {
    let is_part = args.resume
        || args.from.is_some()
        || args.since.is_some()
        || args.until.is_some()
        || !args.types.is_empty()
        || args.runtime.is_some()
        || args.worker.is_some()
        || args.actor.is_some();
    if is_part {
        return Err(usage("an archive holds the whole log; leave out what makes it a part"));
    }
    super::archive::export(args.file.as_deref(), client, out).await
}

/// Everything that comes, to its end; how many records that was.
async fn copy(
    lines: &mut Lines<'_>,
    sink: &mut Sink<'_>,
    format: ExportFormat,
    log: LogId,
    head: Sequence,
) -> Result<u64> {
    let mut progress = Progress::new("sequence", Some(head.0));
    let mut count = 0;
    let done = loop {
        match lines.next().await {
            Ok(Line::Record(record)) => {
                let written = match format {
                    ExportFormat::Ndjson | ExportFormat::Archive => sink.line(&record.text),
                    ExportFormat::Cloudevents => {
                        cloudevents::of(&record.text, log).and_then(|event| sink.line(&event))
                    }
                };
                if let Err(error) = written {
                    break Err(error);
                }
                lines.written(record.seq);
                count += 1;
                progress.at(record.seq.0);
            }
            Ok(Line::End) => break Ok(count),
            Err(error) => break Err(error.into()),
        }
    };
    progress.finish();
    done
}
