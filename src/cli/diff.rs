//! `acta diff`: what became of a worker between two moments.

use super::client::{Call, Client, ClientError};
use super::output::{Format, Ink, Output, cell, cell_at, erased_by, one_line};
use super::worker_address::WorkerAddress;
use super::{parse_moment, usage};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

const HELP: &str = "\
Examples:
  acta diff worker w-01a1 --from 20
  acta diff worker w-01a1 --from 2026-11-20T19:00:00Z --to 2026-11-20T20:00:00Z -o json

Tells which fields of the worker changed, what was said, and which turns began, ended or were cut
off, after the first moment and up to the second. A worker that was not there yet had no fields.";

/// What to compare.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DiffCommand {
    /// A worker at two moments
    Worker(DiffArgs),
}

/// Options of `acta diff worker`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct DiffArgs {
    /// The worker, or the beginning of its id; RUNTIME/ID names its runtime too
    worker: WorkerAddress,

    /// The earlier moment: a sequence, or a time as in 2026-11-20T19:14:00Z
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    from: String,

    /// The later moment [default: now]
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    to: Option<String>,
}

/// What opens, ends or cuts off a turn.
const TURN_EVENTS: &str =
    "worker_input_dispatched,worker_turn_ended,worker_interrupted,worker_input_failed";

pub(super) async fn run(command: DiffCommand, client: &Client, out: &mut Output) -> Result<()> {
    let DiffCommand::Worker(args) = command;
    let id = args.worker.find_here(client).await?;
    // The present is one moment for everything that is asked about it.
    let to = match args.to {
        Some(to) => to,
        None => {
            cell_at(&client.send(Call::get(&["events"]).query("limit", Some(0))).await?, "head")
        }
    };
    let before = at(client, &id, &args.from).await?;
    let after = at(client, &id, &to).await?;
    let place = |state: &Value| state["sequence"].as_u64().unwrap_or(0);
    if place(&before) > place(&after) {
        return Err(usage("--from is later than --to"));
    }
    let head = json!({
        "worker_id": id,
        "from": {"moment": args.from, "sequence": place(&before)},
        "to": {"moment": to, "sequence": place(&after)},
        "fields": fields(&before, &after),
    });
    let mut printer = Printer::begin(&head, out)?;
    printer.list("turns")?;
    turns(client, &id, place(&before), &to, &mut printer).await?;
    printer.list("items")?;
    items(client, &id, &before, &to, &mut printer).await?;
    printer.end()
}

/// The worker at a moment; null if it was not there yet.
async fn at(client: &Client, id: &str, moment: &str) -> Result<Value> {
    match client.send(Call::get(&["workers", id]).query("at", Some(moment))).await {
        Ok(mut answer) => Ok(answer["worker"].take()),
        Err(ClientError::Api { status: 404, .. }) => Ok(Value::Null),
        Err(error) => Err(error.into()),
    }
}

/// What was said in between, a page at a time.
async fn items(
    client: &Client,
    id: &str,
    before: &Value,
    to: &str,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let mut start = before["transcript_len"].as_u64().unwrap_or(0);
    loop {
        let call = Call::get(&["workers", id, "transcript"])
            .query("start", Some(start))
            .query("at", Some(to));
        let answer = match client.send(call).await {
            // It was not there yet at the later moment either.
            Err(ClientError::Api { status: 404, .. }) => return Ok(()),
            answer => answer?,
        };
        for item in answer["transcript"]["items"].as_array().into_iter().flatten() {
            printer.item(item)?;
        }
        match answer["transcript"]["next_start"].as_u64().filter(|next| *next > start) {
            Some(next) => start = next,
            None => return Ok(()),
        }
    }
}

/// The turns in between, a page at a time.
async fn turns(
    client: &Client,
    id: &str,
    after: u64,
    to: &str,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let mut cursor: Option<String> = None;
    loop {
        let call = Call::get(&["events"])
            .query("worker", Some(id))
            .query("type", Some(TURN_EVENTS))
            .query("until", Some(to))
            .query("after", cursor.is_none().then_some(after))
            .query("cursor", cursor.as_ref());
        let answer = client.send(call).await?;
        for record in answer["events"].as_array().into_iter().flatten() {
            let data = &record["data"];
            let mut turn = json!({"turn": data["turn"], "what": what(record), "sequence": record["seq"], "time": record["time"]});
            for name in ["input", "result", "reason", "message"] {
                if !data[name].is_null() {
                    turn[name] = data[name].clone();
                }
            }
            printer.turn(&turn)?;
        }
        let next = answer["cursor"].as_str().map(str::to_owned);
        if next == cursor {
            return Ok(());
        }
        cursor = next;
    }
}

fn what(record: &Value) -> &'static str {
    match record["type"].as_str() {
        Some("worker_input_dispatched") => "begun",
        Some("worker_turn_ended") => "ended",
        Some("worker_interrupted") => "interrupted",
        _ => "input_failed",
    }
}

/// The fields that are not the same, by path.
fn fields(before: &Value, after: &Value) -> Vec<Value> {
    let (mut then, mut now) = (Map::new(), Map::new());
    flatten("", before, &mut then);
    flatten("", after, &mut now);
    let mut names: Vec<&String> = then.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let value = |fields: &Map<String, Value>, name| fields.get(name).cloned().unwrap_or_default();
    let changed = names.into_iter().filter(|name| then.get(*name) != now.get(*name));
    changed
        .map(|name| json!({"field": name, "from": value(&then, name), "to": value(&now, name)}))
        .collect()
}

fn flatten(path: &str, value: &Value, out: &mut Map<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(&format!("{path}{dot}{name}"), value, out);
            }
        }
        Value::Null if path.is_empty() => {}
        _ => drop(out.insert(path.into(), value.clone())),
    }
}

const TEXT_CHARS_MAX: usize = 160;

/// Prints a difference as it comes, so that its length takes no memory.
struct Printer<'a> {
    out: &'a mut Output,
    json: bool,
    /// Whether something stands in the list that was begun.
    in_list: bool,
    changed: bool,
}

impl<'a> Printer<'a> {
    /// Prints what is known at once: of what, and which fields changed.
    fn begin(head: &Value, out: &'a mut Output) -> Result<Self> {
        let json = out.format == Format::Json;
        let fields = head["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut printer = Self { out, json, in_list: false, changed: !fields.is_empty() };
        if json {
            let text = head.to_string();
            // The lists follow before the object ends.
            printer.out.text(text.strip_suffix('}').unwrap_or(&text))?;
        } else {
            printer.fields(head, fields)?;
        }
        Ok(printer)
    }

    fn fields(&mut self, head: &Value, fields: &[Value]) -> Result<()> {
        let moment = |name: &str| cell_at(head, name);
        self.out.line(&format!(
            "worker {} from {} to {}",
            moment("worker_id"),
            moment("from.moment"),
            moment("to.moment")
        ))?;
        let width = fields.iter().map(|f| cell_at(f, "field").len()).max().unwrap_or(0);
        let shown = |value: &Value| match cell(value) {
            text if text.is_empty() => "-".to_owned(),
            text => one_line(&text, TEXT_CHARS_MAX),
        };
        for field in fields {
            let (from, to) = (shown(&field["from"]), shown(&field["to"]));
            let name = cell_at(field, "field");
            let from = self.out.paint.ink(Ink::Dim, &from).into_owned();
            self.out.line(&format!("  {name:width$}  {from} -> {to}"))?;
        }
        Ok(())
    }

    fn list(&mut self, name: &str) -> Result<()> {
        if self.json {
            let end = if name == "turns" { "" } else { "]" };
            self.out.text(&format!("{end},\"{name}\":["))?;
            self.in_list = false;
        }
        Ok(())
    }

    /// Prints an entry of a list as JSON, if that is what is wanted.
    fn entry(&mut self, entry: &Value) -> Result<bool> {
        self.changed = true;
        if self.json {
            let comma = if std::mem::replace(&mut self.in_list, true) { "," } else { "" };
            self.out.text(&format!("{comma}{entry}"))?;
        }
        Ok(self.json)
    }

    fn turn(&mut self, turn: &Value) -> Result<()> {
        if self.entry(turn)? {
            return Ok(());
        }
        let part = |name: &str| match cell_at(turn, name) {
            text if text.is_empty() => text,
            text => format!(", {name} {}", one_line(&text, TEXT_CHARS_MAX)),
        };
        let number = match cell_at(turn, "turn") {
            number if number.is_empty() => "turn -".to_owned(),
            number => format!("turn {number}"),
        };
        let more: String = ["input", "result", "reason", "message"].map(part).concat();
        let (time, what) = (cell_at(turn, "time"), cell_at(turn, "what"));
        let sequence = cell_at(turn, "sequence");
        self.out.line(&format!("  {number} {what} at {sequence} ({time}){more}"))
    }

    fn item(&mut self, item: &Value) -> Result<()> {
        if self.entry(item)? {
            return Ok(());
        }
        let (role, text) = (cell_at(item, "role"), cell_at(item, "content"));
        let speaker = format!("{role}> ");
        let ink = if role == "assistant" { Ink::Agent } else { Ink::Person };
        let speaker = self.out.paint.ink(ink, &speaker).into_owned();
        let number = cell_at(item, "sequence");
        let text = [one_line(&text, TEXT_CHARS_MAX), erased_by(&item["redacted"])].join(" ");
        self.out.line(&format!("  + {number:>4}  {speaker}{}", text.trim()))
    }

    fn end(self) -> Result<()> {
        match (self.json, self.changed) {
            (true, _) => self.out.line("]}"),
            (false, false) => self.out.line("  nothing changed"),
            (false, true) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_compared_by_path() {
        let check = |before: Value, after: Value, expected: Value| {
            assert_eq!(Value::from(fields(&before, &after)), expected);
        };
        check(json!({"a": {"b": 1}}), json!({"a": {"b": 1}}), json!([]));
        check(
            json!({"a": {"b": 1}, "c": 1}),
            json!({"a": {"b": 2}, "d": null}),
            json!([
                {"field": "a.b", "from": 1, "to": 2},
                {"field": "c", "from": 1, "to": null},
                {"field": "d", "from": null, "to": null}
            ]),
        );
        check(Value::Null, json!({"a": 1}), json!([{"field": "a", "from": null, "to": 1}]));
        check(Value::Null, Value::Null, json!([]));
    }
}
