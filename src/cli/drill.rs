//! `acta drill`: whether what is backed up can be restored, found out by doing it.

use super::{
    client::{Call, Client},
    interrupted::remove_when_interrupted,
    output::{Format, Output},
    redactions::fetch_list,
    restore::{Restored, restore},
    serve,
    snapshot::{check, take},
    status::size,
    verify::{Unverified, unverified},
};
use crate::snapshot::{Cut, Snapshot};
use acta_events::Digest;
use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Instant,
};

const HELP: &str = "\
Takes a snapshot of the running service, verifies it, restores it aside, erases there what was erased,
opens what came of it, and compares the state of all views with that of the service at the same
record. All of it is removed afterwards, and what a drill left that was killed by the next one. It
needs room for the data twice.

  acta drill --aside /backup/tmp || page-somebody

Exit codes: 0 all of it holds, 3 damaged or different, 4 contradicts a signature, 1 another error.";

/// Options of `acta drill`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct DrillArgs {
    /// Where snapshot and restored data are made, and removed afterwards [default: $TMPDIR]
    #[arg(long, value_name = "DIR")]
    aside: Option<PathBuf>,
}

/// Where a drill is done.
const PREFIX: &str = ".acta-drill-";
/// A file in it, held exclusively while the drill runs.
const LOCK: &str = "lock";

struct Step {
    what: &'static str,
    found: String,
    seconds: f64,
}

/// Does all of it, and reports.
pub(super) async fn run(args: &DrillArgs, client: &Client, out: &mut Output) -> Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    let aside = args.aside.clone().unwrap_or_else(std::env::temp_dir);
    sweep(&aside);
    let dir = builder.tempdir_in(&aside);
    let dir = dir.context("there is nowhere to restore to; name a directory with --aside")?;
    let lock = File::create(dir.path().join(LOCK)).context("the drill cannot be begun")?;
    lock.try_lock().context("the drill cannot be begun")?;
    remove_when_interrupted(dir.path())?;
    let mut steps = Vec::new();
    let result = rehearse(dir.path(), client, &mut steps).await;
    dir.close().context("what was made for the drill could not be removed")?;
    if out.format == Format::Json {
        let told = steps
            .iter()
            .map(|step| json!({"step": step.what, "found": step.found, "seconds": step.seconds}));
        let steps: Vec<Value> = told.collect();
        out.json(&json!({ "holds": result.is_ok(), "steps": steps }))?;
    } else {
        for Step { what, found, seconds } in &steps {
            out.line(&format!("{what:<10} {found}  ({seconds:.1} s)"))?;
        }
        if result.is_ok() {
            out.line("holds      what is backed up can be restored")?;
        }
    }
    out.flush()?;
    result
}

/// Removes what drills left that were killed. Those that run hold a lock in theirs.
fn sweep(aside: &Path) {
    for entry in fs::read_dir(aside).into_iter().flatten().flatten() {
        let is_drill = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let lock = File::open(entry.path().join(LOCK));
        if is_drill && lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            // What cannot be removed is somebody else's, and harms no drill.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

async fn rehearse(dir: &Path, client: &Client, steps: &mut Vec<Step>) -> Result<()> {
    let mut begun = Instant::now();
    let mut step = |what, found: String| {
        steps.push(Step { what, found, seconds: begun.elapsed().as_secs_f64() });
        begun = Instant::now();
    };
    let (path, data) = (dir.join("snapshot"), dir.join("data"));
    let received = take(&path, None, client).await?;
    let sequence = received.manifest.sequence;
    step("snapshot", format!("sequence {sequence}, {}", size(received.manifest.bytes())));
    let list = fetch_list(client).await?;
    let views = client.send(Call::get(&["views"]).query("at", Some(sequence))).await?;
    let known = known_digests(&views)?;
    let snapshot = Snapshot::open(&path)?;
    let checked = check(&snapshot, None)?;
    if let Some(wrong) = unverified(&checked.verdict) {
        return Err(wrong);
    }
    step("verify", format!("{} records intact", checked.verdict.records));
    let restored = restore(&snapshot, &data, Cut::Whole, None, list, "a drill")?;
    let Restored { forked, .. } = restored;
    step("restore", format!("epoch {} from record {}", forked.epoch, forked.fork));
    let opened = serve::open_stopped(&data)?;
    let again = opened.log.projections_at(sequence);
    opened.close()?;
    let again: Vec<(String, Digest)> =
        again?.digests().into_iter().map(|it| (it.name.to_owned(), it.digest)).collect();
    let different = known.iter().find(|(name, digest)| {
        !again.iter().any(|(other, theirs)| name == other && digest == theirs)
    });
    if let Some((name, _)) = different {
        let what = format!("the view `{name}` of what was restored is not that of the service");
        return Err(Unverified::damaged(what).into());
    }
    step("compare", format!("{} views are equal at record {sequence}", known.len()));
    Ok(())
}

/// What the service says of its views at that record.
fn known_digests(answer: &Value) -> Result<Vec<(String, Digest)>> {
    let of = |it: &Value| {
        Some((it["name"].as_str()?.to_owned(), Digest::parse(it["digest"].as_str()?).ok()?))
    };
    let told = answer["digests"].as_array().map_or(&[][..], Vec::as_slice);
    let known: Option<Vec<_>> = told.iter().map(of).collect();
    known.filter(|known| !known.is_empty()).ok_or_else(|| anyhow!("the service names no views"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_drill_holds_is_swept() {
        let aside = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let dir = aside.path().join(name);
            fs::create_dir_all(dir.join("data")).unwrap();
            (File::create(dir.join(LOCK)).unwrap(), dir)
        };
        let (held, running) = make(".acta-drill-a");
        held.try_lock().unwrap();
        let (_, killed) = make(".acta-drill-b");
        let (_, other) = make("acta-drill-c");
        sweep(aside.path());
        assert!(running.exists() && other.exists() && !killed.exists());
    }
}
