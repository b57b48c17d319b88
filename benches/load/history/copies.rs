//! Snapshots of the long log, on top of one another, and the way back.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use super::{Subject, aside, files};
use crate::{
    generator::{self, Plan},
    report::{Figure, Report, Target, number},
    service::Service,
};

/// How long records are written between two snapshots.
const WRITING: Duration = Duration::from_secs(3);
const CONNECTIONS: usize = 64;

/// A snapshot in a directory that goes with it.
pub(super) struct Taken {
    directory: TempDir,
}

impl Taken {
    fn whole(&self) -> PathBuf {
        self.directory.path().join("whole")
    }
}

/// Takes one of everything, one on top of it of what is new, and one of nothing.
pub(super) fn snapshots(
    subject: &Subject<'_>,
    service: &Service,
    report: &mut Report,
) -> Result<Taken> {
    println!("history: snapshots");
    let taken = Taken { directory: aside(subject.options)? };
    let directory = taken.directory.path();
    let create = |name: &str, base: Option<&str>| -> Result<(f64, Value)> {
        let path = directory.join(name).to_string_lossy().into_owned();
        let base = base.map(|base| directory.join(base).to_string_lossy().into_owned());
        let mut args = vec!["snapshot", "create", &path];
        args.extend(base.iter().flat_map(|base| ["--base", base]));
        let answer = subject.command(Some(service), &args)?;
        Ok((answer["seconds"].as_f64().context("no seconds")?, answer))
    };
    let (whole, first) = create("whole", None)?;
    let before = first["sequence"].as_f64().context("no sequence")?;
    write_some(service)?;
    let (on_top, second) = create("on-top", Some("whole"))?;
    let (nothing, _) = create("nothing", Some("on-top"))?;
    let records = second["sequence"].as_f64().context("no sequence")? - before;
    let mb = |answer: &Value, field: &str| answer[field].as_f64().unwrap_or(f64::NAN) / 1e6;
    let bare = copy_synced(&taken.whole(), &directory.join("bare"))?;
    report.add(
        Figure::new("history: a snapshot of all of it", whole, "s")
            .against("copying its files, each synced", bare)
            .note(format!("{} MB", number(mb(&first, "bytes")))),
    );
    report.add(
        Figure::new("history: a snapshot on top of that", on_top, "s")
            .target(Target::RatioAtMost(1.0))
            // In bytes: what is newest is not sealed yet, and takes more of them.
            .against("as many bytes at the rate of the whole one, and one of nothing new", {
                whole * mb(&second, "bytes_sent") / mb(&first, "bytes") + nothing
            })
            .note(format!(
                "{} new records, {} MB sent; with nothing new {} s",
                number(records),
                number(mb(&second, "bytes_sent")),
                number(nothing)
            )),
    );
    Ok(taken)
}

/// Commands of the usual kind.
fn write_some(service: &Service) -> Result<()> {
    let mut client = service.client()?;
    let workers = service.busy_workers(&mut client, CONNECTIONS)?;
    generator::run(&Plan {
        address: service.address,
        token: &service.token,
        workers: &workers,
        connections: CONNECTIONS,
        warm_up: Duration::ZERO,
        window: WRITING,
        key_prefix: "between-",
    })
    .map(|_| ())
}

/// Puts the whole one back, beside everything.
pub(super) fn restore(subject: &Subject<'_>, taken: &Taken, report: &mut Report) -> Result<()> {
    println!("history: restore");
    let directory = aside(subject.options)?;
    let (from, to) = (taken.whole(), directory.path().join("restored"));
    let args = [&from, &to].map(|path| path.to_string_lossy().into_owned());
    let answer = subject.command(None, &["restore", &args[0], "--data", &args[1]])?;
    let seconds = answer["seconds"].as_f64().context("no seconds")?;
    let bare = copy_synced(&from, &directory.path().join("bare"))?;
    let mb = subject.json_bytes / 1e6;
    report.add(
        Figure::new("history: restore, MB of JSON", mb / seconds, "MB/s")
            .target(Target::ValueAtLeast(100.0))
            .against("copying its files, each synced", mb / bare)
            .note(format!("{} MB of JSON in {} s", number(mb), number(seconds))),
    );
    Ok(())
}

/// Seconds that a copy takes of which every file is synced. It is removed again.
fn copy_synced(from: &Path, to: &Path) -> Result<f64> {
    let begun = Instant::now();
    for (path, _) in files(from)? {
        let target = to.join(path.strip_prefix(from)?);
        fs::create_dir_all(target.parent().context("a file is in a directory")?)?;
        let mut file = File::create(&target)?;
        file.write_all(&fs::read(&path)?)?;
        file.sync_all()?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    fs::remove_dir_all(to)?;
    Ok(seconds)
}
