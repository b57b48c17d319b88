//! `acta import`: a data directory from an archive, which is verified while it is read.

use super::{
    output::{Format, Output, note},
    progress::Progress,
    usage,
    verify::{self, archive},
};
use crate::{
    audit::{self, ArchiveSink, LogKey, VerifierKey},
    content::ContentError,
    journal::FreshLog,
};
use acta_events::{ContentBody, Digest, LogId, Sequence, Timestamp, block::Block};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args;
use nix::sys::stat::{Mode, umask};
use serde_json::json;
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

const HELP: &str = "\
Examples:
  acta import log.acta --data new --key KEY                     to look at: verify, replay, rebuild
  acta import log.acta --data new --log-key /safe/log.key       to go on with, signed as before
  acta import log.acta --data new --key KEY --new-key           to go on with, under a fresh key

Everything that `acta verify` checks is checked while the archive is read. If anything is wrong, or
the directory is there already, nothing is made. The log keeps its id, its records, its large
contents and its proof; what was erased stays erased.

An archive has no keys and no secrets in it. Without --log-key or --new-key the directory has the
signed checkpoint but nothing to sign with, and `acta serve` refuses it. The first start makes a
fresh operator token; issued tokens go on being good. Files that workers wrote, the manifest and
the configuration are no part of an archive.

Exit codes as those of `acta verify`.";

/// Options of `acta import`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ImportArgs {
    /// What `acta export --format archive` wrote
    archive: PathBuf,

    /// The verifier key of the log, as `acta key show` prints it
    #[arg(long, value_name = "KEY", required_unless_present = "log_key")]
    key: Option<VerifierKey>,

    /// The file log.key of the log, to sign with as before
    #[arg(long, value_name = "FILE", conflicts_with = "new_key")]
    log_key: Option<PathBuf>,

    /// Sign with a fresh key from now on, which whoever verifies the log has to be told
    #[arg(long)]
    new_key: bool,
}

pub(super) fn run(args: &ImportArgs, data: Option<&Path>, out: &mut Output) -> Result<()> {
    let target = data.ok_or_else(|| usage("say with --data where the log is to be"))?;
    let (log_key, key) = keys(args)?;
    // What is made is for its owner alone, as what `acta serve` makes.
    umask(Mode::from_bits_truncate(0o077));
    let begun = Instant::now();
    let (mut reading, bytes) = archive::open(&args.archive)?;
    let mut importing = Importing {
        // Nothing is read for nothing: that there is something already is told at once.
        fresh: Some(FreshLog::create(
            target,
            reading.log(),
            Timestamp(jiff::Timestamp::now().as_microsecond()),
        )?),
        has_contents: reading.has_contents(),
        progress: Progress::new("importing", Some(bytes)),
    };
    let log = reading.log();
    let (verdict, newest) = archive::check(&mut reading, &mut importing, &key, None)?;
    importing.progress.finish();
    if verdict.worst().is_some() {
        // Told before the directory is given up, which takes a moment.
        let told = verify::print(&verdict, begun, out);
        drop(importing.fresh);
        return told;
    }
    let (Some(fresh), Some(newest)) = (importing.fresh, newest) else {
        bail!("the archive has no checkpoint, so that whether its end is missing cannot be told");
    };
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    if !args.new_key {
        files.push((audit::CHECKPOINT, newest.text().as_bytes()));
    }
    if let Some(log_key) = &log_key {
        files.push((audit::KEY, log_key));
    }
    let head = fresh.finish(&files)?;
    told(log, head, target, verdict.contents, out)?;
    if log_key.is_none() && !args.new_key {
        note(
            "it has no key to sign with, so it is to be looked at; put the file log.key into it to \
             serve it, or import with --new-key",
        );
    }
    Ok(())
}

/// The file that signs, if there is to be one, and what the archive is verified with.
fn keys(args: &ImportArgs) -> Result<(Option<Vec<u8>>, VerifierKey)> {
    let Some(path) = &args.log_key else {
        let key = args.key.clone().context("an archive is verified with --key")?;
        return Ok((None, key));
    };
    let shown = path.display();
    let own = LogKey::load(path).with_context(|| format!("{shown}"))?.verifier().clone();
    if args.key.as_ref().is_some_and(|key| *key != own) {
        bail!("{shown} is not the key that --key verifies");
    }
    Ok((Some(fs::read(path).with_context(|| format!("{shown}"))?), own))
}

fn told(log: LogId, head: Sequence, target: &Path, contents: u64, out: &mut Output) -> Result<()> {
    match out.format {
        Format::Json => out.json(&json!({"log_id": log, "records": head, "contents": contents}))?,
        Format::Table => out.line(&format!(
            "log {log}: {head} records and {contents} large contents are in {}",
            target.display()
        ))?,
    }
    out.flush()
}

struct Importing {
    fresh: Option<FreshLog>,
    has_contents: bool,
    progress: Progress,
}

impl Importing {
    fn fresh(&mut self) -> Result<&mut FreshLog> {
        self.fresh.as_mut().context("nothing is being made")
    }
}

impl ArchiveSink for Importing {
    type Error = anyhow::Error;

    fn content(
        &mut self,
        digest: Digest,
        stored: &mut dyn Read,
    ) -> Result<Result<(), ContentError>> {
        match self.fresh()?.content(digest, stored) {
            Err(error @ ContentError::Io { .. }) => Err(error.into()),
            kept => Ok(kept),
        }
    }

    fn block(&mut self, block: &Block, stored: Bytes) -> Result<()> {
        let lacks = |record: &&std::sync::Arc<acta_events::Record>| {
            record.content.as_ref().is_some_and(|content| content.body == ContentBody::File)
        };
        if !self.has_contents
            && let Some(record) = block.records.iter().find(lacks)
        {
            bail!(
                "the archive is of version 1, which has no contents above 32 KiB, and record {} \
                 has one. Export the log again with this version of Acta",
                record.seq()
            );
        }
        Ok(self.fresh()?.push(block, stored)?)
    }

    fn at(&mut self, _: Sequence, bytes: u64) {
        self.progress.at(bytes);
    }
}
