//! `acta cursor`: named positions of consumers, kept by the service.

use super::client::{Call, Client};
use super::output::{Format, Output, cell_at, table};
use super::parse_moment;
use acta_events::{CursorName, cursor::Cursor};
use clap::Subcommand;
use serde_json::json;

const GET_HELP: &str = "\
Prints the cursor and nothing else:
  acta tail --from \"$(acta cursor get nightly-export)\"";

/// The subcommands of `acta cursor`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CursorCommand {
    /// List the cursors of this token
    Ls {
        /// As it was: a sequence, or a time as in 2026-11-20T19:14:00Z
        #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
        at: Option<String>,
    },
    /// Print a cursor
    #[command(after_help = GET_HELP)]
    Get {
        /// Its name
        name: CursorName,
        /// As it was: a sequence, or a time as in 2026-11-20T19:14:00Z
        #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
        at: Option<String>,
    },
    /// Commit how far this consumer has read
    Put {
        /// Its name
        name: CursorName,
        /// The cursor, exactly as it was given out
        cursor: Cursor,
    },
}

pub(super) async fn run(
    command: CursorCommand,
    client: &Client,
    out: &mut Output,
) -> anyhow::Result<()> {
    let call = match &command {
        CursorCommand::Ls { at } => Call::get(&["cursors"]).query("at", at.as_ref()),
        CursorCommand::Get { name, at } => {
            Call::get(&["cursors", name.as_str()]).query("at", at.as_ref())
        }
        CursorCommand::Put { name, cursor } => {
            Call::put(&["cursors", name.as_str()], json!({ "cursor": cursor.to_string() }))
        }
    };
    let answer = client.send(call).await?;
    if out.format == Format::Json {
        return out.json(&answer);
    }
    match command {
        CursorCommand::Ls { .. } => {
            let cursors = answer["cursors"].as_array().into_iter().flatten();
            let row =
                |cursor| ["name", "position", "cursor"].map(|path| cell_at(cursor, path)).into();
            let rows: Vec<Vec<String>> = cursors.map(row).collect();
            out.text(&table(&["NAME", "POSITION", "CURSOR"], &rows))
        }
        CursorCommand::Get { .. } => out.line(&cell_at(&answer, "cursor.cursor")),
        CursorCommand::Put { name, .. } => {
            out.line(&format!("{name} is at {}", cell_at(&answer, "cursor.position")))
        }
    }
}
