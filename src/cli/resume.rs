//! `acta resume`: a restored service begins to act.

use super::client::{Call, Client};
use super::output::{Format, Output, cell_at, table};
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

const HELP: &str = "\
A service on restored data does not know what was done after the snapshot: inputs may have been given
to workers and messages delivered that wait in its log. Look with --dry-run first, stop or cancel
workers that are not to go on, and make sure that the service it was taken from does not run any more.";

/// Options of `acta resume`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ResumeArgs {
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: &ResumeArgs, client: &Client, out: &mut Output) -> Result<()> {
    let answer = match args.dry_run {
        true => client.send(Call::get(&["dispatch"])).await?,
        false => client.send(Call::post(&["dispatch", "resume"], json!({}))).await?,
    };
    if out.format == Format::Json {
        return out.json(&answer);
    }
    let dispatch = &answer["dispatch"];
    let epoch = cell_at(dispatch, "epoch");
    if dispatch["paused"] == false {
        return out.line(&format!("epoch {epoch} acts upon what the log asks for"));
    }
    let intents = dispatch["would"]["intents"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<Vec<String>> = intents.iter().map(row).collect();
    out.text(&table(&["WORKER", "WOULD", "COUNT", "RECORDS", "TO"], &rows))?;
    let more = dispatch["would"]["more"].as_u64().unwrap_or(0);
    if more > 0 {
        out.line(&format!("and {more} more"))?;
    }
    out.line(&format!("epoch {epoch} is paused; nothing of this is done before `acta resume`"))
}

fn row(intent: &Value) -> Vec<String> {
    let records = intent["records"].as_array().into_iter().flatten();
    let records: Vec<String> = records.map(ToString::to_string).collect();
    vec![
        format!("{}/{}", cell_at(intent, "runtime_id"), cell_at(intent, "worker_id")),
        cell_at(intent, "action").replace('_', " "),
        cell_at(intent, "count"),
        records.join(","),
        cell_at(intent, "to"),
    ]
}
