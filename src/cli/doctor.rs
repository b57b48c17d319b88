//! `acta doctor`: finds and explains what is wrong with a data directory, a configuration, a
//! clock, and what surrounds them. Changes nothing.

mod data;
mod surroundings;

use super::output::{Format, Ink, Output, printable};
use super::serve_args::DATA_DEFAULT;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

const HELP: &str = "\
Examples:
  acta doctor --data /var/lib/acta
  acta doctor --config /etc/acta/acta.toml
  acta doctor --data /var/lib/acta -o json

Run it as the user that the service runs as, with the environment of the service. It looks at the
configuration, the manifest and the programs in it, the address, the data directory with its
permissions and its disk, the log, and the clock. The log is read, from a copy, if no service
has it open; `acta rebuild --check` and `acta verify` look deeper. Nothing is changed.

Exit codes: 0 nothing is wrong (there may be warnings), 1 something is.";

/// Options of `acta doctor`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct DoctorArgs {
    /// The configuration of the service
    #[arg(long, value_name = "FILE", env = "ACTA_CONFIG")]
    config: Option<PathBuf>,

    /// The manifest of the service
    #[arg(long, value_name = "FILE", env = "ACTA_MANIFEST")]
    manifest: Option<PathBuf>,

    /// Leave the log unread
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Wrong,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    text: String,
}

/// What was found, in the order in which it was looked at.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, verdict: Verdict, what: &'static str, text: impl Into<String>) {
        self.0.push(Finding { what, verdict, text: text.into() });
    }

    fn ok(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(Verdict::Ok, what, text);
    }

    fn warn(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(Verdict::Warning, what, text);
    }

    fn wrong(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(Verdict::Wrong, what, text);
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

pub(super) fn run(args: &DoctorArgs, data: Option<&Path>, out: &mut Output) -> Result<()> {
    let mut found = Findings::default();
    let serve = surroundings::configuration(args.config.as_deref(), &mut found);
    let configured = serve.as_ref().map(|serve| serve.data.clone());
    let data = data.map(Path::to_owned).or(configured).unwrap_or_else(|| DATA_DEFAULT.into());
    let configured = serve.as_ref().and_then(|serve| serve.manifest.as_deref());
    surroundings::manifest(args.manifest.as_deref().or(configured), &mut found);
    surroundings::open_files(&mut found);
    let use_of = data::look(&data, args.quick, &mut found);
    if let Some(serve) = &serve {
        surroundings::address(serve.listen, use_of.is_running, &mut found);
    }
    surroundings::clock(surroundings::now(), use_of.written, &mut found);
    show(&found, out)?;
    match found.count(Verdict::Wrong) {
        0 => Ok(()),
        1 => Err(anyhow::anyhow!("one thing is wrong")),
        n => Err(anyhow::anyhow!("{n} things are wrong")),
    }
}

fn show(found: &Findings, out: &mut Output) -> Result<()> {
    if out.format == Format::Json {
        out.json(&json!({ "findings": found.0 }))?;
        return out.flush();
    }
    for Finding { what, verdict, text } in &found.0 {
        let (word, ink) = match verdict {
            Verdict::Ok => ("ok", Ink::Agent),
            Verdict::Warning => ("warning", Ink::Person),
            Verdict::Wrong => ("WRONG", Ink::Alarm),
        };
        let word = out.paint.ink(ink, &format!("{word:<8}")).into_owned();
        out.line(&format!("{word} {what:<14} {}", printable(text)))?;
    }
    out.flush()
}
