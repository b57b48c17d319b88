//! `acta delivery`: messages that could not be delivered to an agent with a URL.

use super::client::{Call, Client};
use super::output::{Format, Output, cell_at, table};
use super::short_ids::ShortIds;
use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const RETRY_HELP: &str = "\
Examples:
  acta delivery retry act-4711               one message
  acta delivery retry 0193e4                 all of a worker, in the order in which they came
A message keeps its id, by which an agent recognises one that it has seen before.";

/// The subcommands of `acta delivery`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DeliveryCommand {
    /// List the messages that could not be delivered
    Ls {
        /// Only those to this worker, or the beginning of its id
        #[arg(long, value_name = "WORKER")]
        worker: Option<String>,
    },
    /// Deliver again what could not be delivered
    #[command(after_help = RETRY_HELP)]
    Retry {
        /// The id of a message, or a worker, or the beginning of its id
        #[arg(value_name = "WORKER|ID")]
        what: String,
    },
}

pub(super) async fn run(
    command: DeliveryCommand,
    client: &Client,
    out: &mut Output,
) -> anyhow::Result<()> {
    match command {
        DeliveryCommand::Ls { worker } => {
            let mut items = all(client).await?;
            if let Some(worker) = &worker {
                items.retain(|item| of(item).starts_with(bare(worker)));
            }
            match out.format {
                Format::Json => out.json(&json!({ "deliveries": items })),
                Format::Table => out.text(&render(&items)),
            }
        }
        DeliveryCommand::Retry { what } => {
            let ids = if is_message(&what) { vec![what] } else { of_worker(client, &what).await? };
            let mut answers = Vec::new();
            for id in &ids {
                let call = Call::post(&["deliveries", id, "retry"], json!({}));
                answers.push(client.send(call).await?);
            }
            if out.format == Format::Json {
                return out.json(&json!({ "deliveries": answers }));
            }
            for answer in &answers {
                let (id, worker) = (cell_at(answer, "id"), cell_at(answer, "worker_id"));
                out.line(&format!("{id} is delivered to {worker} again"))?;
            }
            Ok(())
        }
    }
}

/// Whether a text names a message and not a worker.
fn is_message(text: &str) -> bool {
    text.strip_prefix("act-").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

/// A worker as other commands name it, `external/ID`, by its id.
fn bare(worker: &str) -> &str {
    worker.strip_prefix("external/").unwrap_or(worker)
}

fn of(item: &Value) -> &str {
    item["worker_id"].as_str().unwrap_or_default()
}

/// All that could not be delivered.
async fn all(client: &Client) -> anyhow::Result<Vec<Value>> {
    let (mut items, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut page = client.send(Call::get(&["deliveries"]).query("after", after)).await?;
        let Some(found) = page["deliveries"].as_array_mut() else {
            return Err(client.not_acta("no list in the answer").into());
        };
        items.append(found);
        after = page["next_after"].as_str().map(str::to_owned);
        if after.is_none() {
            return Ok(items);
        }
    }
}

/// The messages of a worker that could not be delivered, oldest first.
async fn of_worker(client: &Client, given: &str) -> anyhow::Result<Vec<String>> {
    let given = bare(given);
    let items = all(client).await?;
    let exact = items.iter().any(|item| of(item) == given);
    let meant = |item: &&Value| if exact { of(item) == given } else { of(item).starts_with(given) };
    let found: Vec<&Value> = items.iter().filter(meant).collect();
    let workers: BTreeSet<&str> = found.iter().map(|item| of(item)).collect();
    if workers.len() > 1 {
        let workers: Vec<&str> = workers.into_iter().collect();
        bail!("`{given}` is the beginning of several workers:\n  {}", workers.join("\n  "));
    }
    if found.is_empty() {
        bail!("there is nothing that could not be delivered to a worker `{given}`");
    }
    Ok(found.iter().map(|item| cell_at(item, "id")).collect())
}

fn render(items: &[Value]) -> String {
    let mut short = ShortIds::of(items.iter().map(of));
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            let cell = |path: &str| cell_at(item, path);
            let worker = short.shorten(of(item)).to_owned();
            let (source, name) = (cell("source_id"), cell("name"));
            vec![
                cell("id"),
                worker,
                name,
                source,
                cell("attempts"),
                cell("failed_at"),
                cell("reason"),
            ]
        })
        .collect();
    table(&["MESSAGE", "WORKER", "NAME", "FROM", "TRIES", "FAILED", "REASON"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_told_from_a_worker() {
        for (text, expected) in
            [("act-17", true), ("act-", true), ("act-17x", false), ("0193e4", false), ("", false)]
        {
            assert_eq!(is_message(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_known_of_a_message_is_a_dash() {
        let item = json!({
            "id": "act-7", "worker_id": "0193e4a2-7c3b", "name": null, "attempts": 8,
            "failed_at": "2026-11-20T19:14:00Z", "reason": "it answered 503",
        });
        assert_eq!(
            render(&[item]),
            "MESSAGE  WORKER    NAME  FROM  TRIES  FAILED                REASON\n\
             act-7    0193e4a2  -     -     8      2026-11-20T19:14:00Z  it answered 503\n"
        );
    }
}
