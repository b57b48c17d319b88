//! `acta transcript`.

use super::client::{Call, Client};
use super::output::{Format, Ink, Output, cell_at, erased_by, note, printable};
use super::parse_moment;
use super::worker_address::WorkerAddress;
use clap::Args;
use serde_json::Value;

/// As many as one answer may have.
const PAGE_ITEMS: u64 = 256;

const HELP: &str = "\
Examples:
  acta transcript 0193e4
  acta transcript 0193e4 --start 256 --limit 10
  acta transcript berlin/0193e4              of another runtime
  acta transcript 0193e4 --all -o json";

/// Options of `acta transcript`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct TranscriptArgs {
    /// The worker, or the beginning of its id; RUNTIME/ID for one of another runtime
    worker: WorkerAddress,

    /// How many items to leave out at the beginning
    #[arg(long, value_name = "N", default_value_t = 0)]
    start: u64,

    /// At most this many items
    #[arg(long, value_name = "N", default_value_t = PAGE_ITEMS)]
    limit: u64,

    /// Everything from the start on, in as many requests as it takes
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// As it was: a sequence, or a time as in 2026-11-20T19:14:00Z
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    at: Option<String>,
}

pub(super) async fn run(
    args: TranscriptArgs,
    client: &Client,
    out: &mut Output,
) -> anyhow::Result<()> {
    let worker = args.worker.find(client).await?;
    let place = if worker.through.is_some() { "" } else { "/transcript" };
    let page = |start: u64| {
        Call::get(&worker.path("transcript"))
            .query("start", Some(start))
            .query("limit", Some(args.limit))
            .query("at", args.at.as_ref())
    };
    let mut answer = client.send(page(args.start)).await?;
    let mut start = args.start;
    let mut items: Vec<Value> = Vec::new();
    loop {
        worker.accepted(&answer)?;
        let Some(transcript) = answer.pointer_mut(place).filter(|page| page["items"].is_array())
        else {
            return Err(client.not_acta("a transcript without items").into());
        };
        if out.format == Format::Table && start == args.start {
            say_expired(transcript, start);
        }
        let mut list: Vec<Value> =
            transcript["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        if out.format == Format::Table {
            list.iter().try_for_each(|item| print(item, out))?;
        } else {
            items.append(&mut list);
        }
        let next = transcript["next_start"].as_u64().filter(|next| *next > start);
        match next.filter(|_| args.all) {
            Some(next) => start = next,
            None => break,
        }
        answer = client.send(page(start)).await?;
    }
    if out.format == Format::Json {
        if let Some(transcript) = answer.pointer_mut(place) {
            if args.all {
                transcript["start"] = args.start.into();
                transcript["limit"] = items.len().into();
            }
            transcript["items"] = items.into();
        }
        return out.json(&answer);
    }
    let transcript = answer.pointer(place).unwrap_or(&Value::Null);
    if let Some(next) = transcript["next_start"].as_u64() {
        let total = cell_at(transcript, "total_items");
        note(&format!("there are {total} items; go on with --start {next}, or take --all"));
    }
    Ok(())
}

/// Says which of the items that were asked for have expired.
fn say_expired(transcript: &Value, start: u64) {
    if let Some(first) = transcript["truncated_before"].as_u64().filter(|first| start + 1 < *first)
    {
        note(&format!("items 1 to {} have expired", first - 1));
    }
}

fn print(item: &Value, out: &mut Output) -> anyhow::Result<()> {
    let role = cell_at(item, "role");
    let place = format!("{:>5}  ", cell_at(item, "sequence"));
    let speaker = format!("{role}> ");
    let ink = if role == "assistant" { Ink::Agent } else { Ink::Person };
    let indent = " ".repeat(place.chars().count() + speaker.chars().count());
    let mut content = printable(item["content"].as_str().unwrap_or_default()).into_owned();
    let erased = erased_by(&item["redacted"]);
    if !erased.is_empty() {
        content = format!("{content} {erased}");
    }
    let content = content.trim_end_matches('\n').replace('\n', &format!("\n{indent}"));
    let line =
        format!("{}{}{content}", out.paint.ink(Ink::Dim, &place), out.paint.ink(ink, &speaker));
    out.line(&line)
}
