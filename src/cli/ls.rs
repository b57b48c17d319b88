//! `acta ls`.

use super::client::{Call, Client};
use super::output::{Format, Output, cell_at, erased_by, note, one_line, table};
use super::runtime::diagnostics;
use super::short_ids::ShortIds;
use super::{parse_moment, usage};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

const HELP: &str = "\
Examples:
  acta ls
  acta ls runtimes
  acta ls workers --limit 20 --after <worker id>
  acta ls workers --all                      of every runtime
  acta ls workers --host <host id>
  acta ls --at 2026-11-20T19:14:00Z
  acta ls -o json | jq -r '.workers[].worker_id'";

/// Options of `acta ls`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct LsArgs {
    /// What to list
    #[arg(value_enum, default_value_t)]
    what: What,

    /// At most this many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Only what comes after this id
    #[arg(long, value_name = "ID")]
    after: Option<String>,

    /// The workers of this runtime
    #[arg(long, value_name = "ID", conflicts_with_all = ["host", "all"])]
    runtime: Option<String>,

    /// The workers on this host
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    host: Option<String>,

    /// The workers of every runtime
    #[arg(long, conflicts_with = "after")]
    all: bool,

    /// As it was: a sequence, or a time as in 2026-11-20T19:14:00Z
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment)]
    at: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything that executes workers
    Runtimes,
    /// Machines on which workers run
    Hosts,
    /// The workers of this service's own runtime, unless told otherwise
    #[default]
    Workers,
    /// The same, as the registry shows those of any runtime
    #[value(skip)]
    RegistryWorkers,
}

/// A column: its head, and where in an item its value is.
type Column = (&'static str, &'static str);

impl What {
    fn path(self) -> &'static str {
        match self {
            Self::Runtimes => "runtimes",
            Self::Hosts => "hosts",
            Self::Workers | Self::RegistryWorkers => "workers",
        }
    }

    fn id(self) -> &'static str {
        match self {
            Self::Runtimes => "runtime_id",
            Self::Hosts => "host_id",
            Self::Workers | Self::RegistryWorkers => "worker_id",
        }
    }

    fn columns(self) -> &'static [Column] {
        match self {
            Self::Runtimes => &[
                ("RUNTIME", "runtime_id"),
                ("KIND", "kind"),
                ("STATUS", "status"),
                ("LABEL", "label"),
            ],
            Self::Hosts => &[
                ("HOST", "host_id"),
                ("RUNTIME", "runtime_id"),
                ("KIND", "kind"),
                ("STATUS", "status"),
                ("SEEN", "last_seen_at"),
            ],
            Self::RegistryWorkers => &[
                ("WORKER", "worker_id"),
                ("RUNTIME", "runtime_id"),
                ("STATUS", "status"),
                ("RUN", "state"),
                ("KIND", "implementation.kind"),
                ("HINT", "implementation.display_hint"),
                ("HOST", "host_id"),
            ],
            Self::Workers => &[
                ("WORKER", "worker_id"),
                ("STATUS", "status"),
                ("RUN", "execution.run_state"),
                ("TEMPLATE", "template"),
                ("INTENT", "intent"),
                ("ITEMS", "transcript_len"),
                ("LAST", "last_event_id"),
            ],
        }
    }
}

pub(super) async fn run(args: LsArgs, client: &Client, out: &mut Output) -> anyhow::Result<()> {
    let by_registry = args.all || args.runtime.is_some() || args.host.is_some();
    if by_registry && !matches!(args.what, What::Workers) {
        return Err(usage("--runtime, --host and --all choose workers: `acta ls workers …`"));
    }
    let what = if by_registry { What::RegistryWorkers } else { args.what };
    let mut answer = match (&args.runtime, &args.host) {
        _ if args.all => of_every_runtime(&args, client).await?,
        (Some(runtime), _) => list(&args, client, &["runtimes", runtime, "workers"]).await?,
        (_, Some(host)) => list(&args, client, &["hosts", host, "workers"]).await?,
        (None, None) => list(&args, client, &[what.path()]).await?,
    };
    let name = if answer["items"].is_array() { "items" } else { what.path() };
    let Some(items) = answer[name].as_array_mut() else {
        return Err(client.not_acta("no list in the answer").into());
    };
    bound(items, what.id(), args.after.as_deref(), args.limit);
    if out.format == Format::Json {
        return out.json(&answer);
    }
    let items = answer[name].as_array().map(Vec::as_slice).unwrap_or_default();
    out.text(&render(what, items))?;
    for diagnostic in diagnostics(&answer) {
        note(&diagnostic);
    }
    Ok(())
}

async fn list(args: &LsArgs, client: &Client, path: &[&str]) -> anyhow::Result<Value> {
    let call = Call::get(path)
        .query("limit", args.limit)
        .query("after", args.after.as_ref())
        .query("at", args.at.as_ref());
    Ok(client.send(call).await?)
}

/// The workers of all runtimes, one runtime after the other. One that is not there says so and
/// keeps the others from nothing.
async fn of_every_runtime(args: &LsArgs, client: &Client) -> anyhow::Result<Value> {
    let mut runtimes = Vec::new();
    loop {
        let after = runtimes.last().cloned();
        let call = Call::get(&["runtimes"]).query("after", after).query("at", args.at.as_ref());
        let page = client.send(call).await?;
        let ids = page["items"].as_array().into_iter().flatten();
        let ids: Vec<String> =
            ids.filter_map(|item| item["runtime_id"].as_str().map(str::to_owned)).collect();
        if ids.is_empty() {
            break;
        }
        runtimes.extend(ids);
    }
    let (mut items, mut diagnostics) = (Vec::new(), Vec::new());
    for runtime in &runtimes {
        let mut after: Option<String> = None;
        while args.limit.is_none_or(|limit| items.len() < limit) {
            let call = Call::get(&["runtimes", runtime, "workers"])
                .query("after", after.as_ref())
                .query("at", args.at.as_ref());
            let mut page = client.send(call).await?;
            let found = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
            diagnostics.extend(page["diagnostics"].as_array().into_iter().flatten().cloned());
            after = found.last().and_then(|item| item["worker_id"].as_str()).map(str::to_owned);
            items.extend(found);
            if after.is_none() {
                break;
            }
        }
    }
    Ok(json!({"items": items, "diagnostics": diagnostics}))
}

/// Keeps to the bounds also where the list is one that is always answered as a whole.
fn bound(items: &mut Vec<Value>, id: &str, after: Option<&str>, limit: Option<usize>) {
    if let Some(place) = items.iter().position(|item| after.is_some() && item[id].as_str() == after)
    {
        items.drain(..=place);
    }
    items.truncate(limit.unwrap_or(usize::MAX));
}

fn render(what: What, items: &[Value]) -> String {
    let mut short = ShortIds::of(items.iter().filter_map(|item| item["worker_id"].as_str()));
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            let cell = |&(_, path): &Column| match path {
                "worker_id" => short.shorten(item[path].as_str().unwrap_or_default()).to_owned(),
                "intent" => intent(item),
                _ => cell_at(item, path),
            };
            what.columns().iter().map(cell).collect()
        })
        .collect();
    let head: Vec<&str> = what.columns().iter().map(|(head, _)| *head).collect();
    table(&head, &rows)
}

const INTENT_CHARS_MAX: usize = 48;

fn intent(item: &Value) -> String {
    let part = |name: &str| item["intent"][name].as_str();
    let kind = part("role").or(part("kind")).unwrap_or_default();
    let erased = erased_by(&item["redacted"]);
    if !erased.is_empty() {
        return format!("{kind}: {erased}");
    }
    let text = match part("objective").or(part("purpose")) {
        None => kind.to_owned(),
        Some(text) => format!("{kind}: {text}"),
    };
    one_line(&text, INTENT_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_listed_with_short_ids() {
        let worker = |id: &str| {
            json!({
                "worker_id": id, "status": "running", "execution": {"run_state": "idle"}, "template": "echo",
                "intent": {"kind": "task", "objective": "say\nit"}, "transcript_len": 2, "last_event_id": 9
            })
        };
        let items = [worker("0123456789-a"), worker("0123456789-b")];
        assert_eq!(
            render(What::Workers, &items),
            "WORKER        STATUS   RUN   TEMPLATE  INTENT        ITEMS  LAST\n\
             0123456789-a  running  idle  echo      task: say it  2      9\n\
             0123456789-b  running  idle  echo      task: say it  2      9\n"
        );
    }

    #[test]
    fn bounds_hold_for_whole_lists_and_for_pages() {
        let check = |ids: &[&str], after: Option<&str>, limit, expected: &[&str]| {
            let mut items: Vec<Value> = ids.iter().map(|id| json!({ "worker_id": id })).collect();
            bound(&mut items, "worker_id", after, limit);
            let left: Vec<&str> =
                items.iter().filter_map(|item| item["worker_id"].as_str()).collect();
            assert_eq!(left, expected);
        };
        check(&["a", "b", "c"], None, None, &["a", "b", "c"]);
        check(&["a", "b", "c"], Some("a"), Some(1), &["b"]);
        check(&["b", "c"], Some("a"), Some(5), &["b", "c"]);
        check(&["a"], None, Some(0), &[]);
    }
}
