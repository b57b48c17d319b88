//! `acta restore`: a data directory from a snapshot, in a new epoch.

use super::{
    credentials::OPERATOR_TOKEN_FILE,
    output::{Format, Output, note},
    progress::Progress,
    redactions::read_list,
    serve::{OpenedLog, open_log, open_notary},
    serve_args::Store,
    snapshot::told,
    verify,
};
use crate::{
    audit::VerifierKey,
    auth::operator_token,
    command::{Command, Request},
    engine::{
        core::{Core, LogEnd},
        offline::record,
    },
    journal::{EncodedBlock, Journal, SealLimits},
    log::Log,
    redaction_list::{Applied, ListedRedaction, apply},
    snapshot::{Cut, Snapshot, Staged, stage},
};
use acta_events::{
    Content, Digest, HistoryExpired, LogForked, MediaType, RetentionPolicy, Sequence,
    StoredContent, Timestamp, block::Block, record::INLINE_BYTES_MAX,
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// How many blocks are appended at once.
const BLOCKS_AT_ONCE: usize = 64;

const HELP: &str = "\
Verifies everything on the way, and leaves nothing half made: the data is prepared beside the place
and renamed to it at the end. What is there already is never touched.

A new epoch of the log begins, with a key, a signed name and an operator token of its own. A service
on it takes commands, but does nothing in the world until `acta resume`: what happened after the
snapshot is not known to it. Stop the old service first, if it still runs.

  acta restore /backup/acta-tuesday --data /var/lib/acta --redactions redactions.ndjson
  acta restore everything.acta --data ./aside --to-time 2026-11-20T19:14:00Z

Exit codes: 0 restored, 3 the snapshot is damaged, 4 it contradicts a signature, 1 another error.";

/// Options of `acta restore`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct RestoreArgs {
    /// The snapshot
    #[arg(value_name = "SNAPSHOT")]
    snapshot: PathBuf,
    /// The snapshot that it was taken on top of, if it is one file
    #[arg(long, value_name = "EARLIER")]
    base: Option<PathBuf>,
    /// The last record to put back
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "to_time", value_parser = clap::value_parser!(u64).range(1..))]
    to_seq: Option<u64>,
    /// Put back what was recorded up to this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to_time: Option<Timestamp>,
    /// Erase again what is in this list, as `acta redactions export` printed it
    #[arg(long, value_name = "FILE")]
    redactions: Option<PathBuf>,
    /// Why; it stays in the log
    #[arg(long, value_name = "TEXT", default_value = "restored from a snapshot")]
    reason: String,
    /// The verifier key that the snapshot has to be signed with, as `acta key show` prints it
    #[arg(long, value_name = "KEY")]
    key: Option<VerifierKey>,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|_| "a time is written as in 2026-11-20T19:14:00Z".into())
}

impl RestoreArgs {
    fn cut(&self) -> Cut {
        match (self.to_seq, self.to_time) {
            (Some(seq), _) => Cut::Sequence(Sequence(seq)),
            (None, Some(time)) => Cut::Time(time),
            (None, None) => Cut::Whole,
        }
    }
}

/// What came of it.
pub(super) struct Restored {
    pub(super) forked: LogForked,
    pub(super) head: Sequence,
    pub(super) verifier: VerifierKey,
    pub(super) applied: Applied,
}

pub(super) fn run(args: &RestoreArgs, data: Option<&Path>, out: &mut Output) -> Result<()> {
    let data = data.ok_or_else(|| super::usage("say where to restore to, with --data DIR"))?;
    if args.reason.is_empty() || args.reason.len() > INLINE_BYTES_MAX {
        return Err(super::usage(format!("--reason has 1 to {INLINE_BYTES_MAX} bytes")));
    }
    let begun = Instant::now();
    let list = args.redactions.as_deref().map(read_list).transpose()?.unwrap_or_default();
    let snapshot = Snapshot::open_on(&args.snapshot, args.base.as_deref()).map_err(told)?;
    let restored = restore(&snapshot, data, args.cut(), args.key.as_ref(), list, &args.reason)?;
    let Restored { forked, head, verifier, applied } = restored;
    if applied.absent > 0 {
        note(&format!("{} of the records to erase are not in this log", applied.absent));
    }
    let seconds = begun.elapsed().as_secs_f64();
    if out.format == Format::Json {
        out.json(&json!({
            "data": data, "log_id": snapshot.manifest().log_id, "epoch": forked.epoch,
            "parent": forked.parent, "fork": forked.fork, "head": head,
            "verifier_key": verifier.to_string(), "redactions": applied, "seconds": seconds,
        }))?;
        return out.flush();
    }
    out.line(&format!(
        "restored   records {} to {} of epoch {}, in {seconds:.1} s",
        snapshot.manifest().expired().next(),
        forked.fork,
        forked.parent
    ))?;
    out.line(&format!(
        "epoch      {}, which begins with record {}",
        forked.epoch,
        forked.fork.next()
    ))?;
    out.line(&format!("key        {verifier}"))?;
    if applied.erased > 0 {
        out.line(&format!("erased     {} contents again", applied.erased))?;
    }
    out.line("paused     `acta serve` on it does nothing in the world until `acta resume`")?;
    out.flush()
}

/// Makes a data directory. Blocking.
pub(super) fn restore(
    snapshot: &Snapshot,
    data: &Path,
    cut: Cut,
    key: Option<&VerifierKey>,
    list: Vec<ListedRedaction>,
    reason: &str,
) -> Result<Restored> {
    let total = snapshot.manifest();
    let (bytes, records) = (total.bytes(), total.sequence.0);
    let mut copying = Progress::new("copying", Some(bytes));
    let mut verifying = Progress::new("verifying", Some(records));
    let staged = stage(snapshot, data, cut, key, |what, done| match what {
        "copying" => copying.at(done),
        _ => verifying.at(done),
    });
    copying.finish();
    verifying.finish();
    let mut staged = match staged.map_err(told)? {
        Ok(staged) => staged,
        Err(checked) => {
            return Err(verify::unverified(&checked.verdict)
                .unwrap_or_else(|| anyhow::anyhow!("the snapshot does not verify")));
        }
    };
    let restored = begin_epoch(&mut staged, list, reason)?;
    staged.finish()?;
    Ok(restored)
}

/// Appends what follows the segments, and begins the epoch.
fn begin_epoch(staged: &mut Staged, list: Vec<ListedRedaction>, reason: &str) -> Result<Restored> {
    let OpenedLog { data, journal, log, tree } =
        open_log(Store::Sled, staged.path(), SealLimits::default())?;
    append(&log, std::mem::take(&mut staged.tail))?;
    let end = log.end();
    if end.seq != staged.last {
        bail!("the log ends at {}, and should at {}", end.seq, staged.last);
    }
    let forked = LogForked {
        epoch: staged.epoch,
        parent: end.epoch,
        fork: end.seq,
        digest: log.views().read().tip.digest.context("the log is empty")?,
        root: Some(Digest(tree.root(end.seq.0)?.0)),
    };
    let end = LogEnd { epoch: staged.epoch, ..end };
    let mut core = Core::new(Arc::clone(log.views()), Arc::clone(log.index()), end);
    let fork = Command::ForkLog { forked: forked.clone(), reason: Some(content(reason)) };
    record(&log, &mut core, Request::service(fork))?.map_err(|why| anyhow::anyhow!("{why}"))?;
    expire_again(&log, &journal, &mut core)?;
    let applied = apply(&log, list)?;
    if let Some(job) = log.checkpoint_now() {
        job.run();
    }
    let notary = open_notary(data.as_ref(), log.id(), staged.epoch, &tree)?;
    notary.sign()?;
    let head = log.head();
    journal.close()?;
    operator_token(&staged.path().join(OPERATOR_TOKEN_FILE))?;
    Ok(Restored { forked, head, verifier: notary.verifier().clone(), applied })
}

/// Where the cut lies before the record that says what has expired, the new epoch says it again.
fn expire_again(log: &Log, journal: &Arc<dyn Journal>, core: &mut Core<()>) -> Result<()> {
    let Some(begin) = journal.begin() else { return Ok(()) };
    let expired = HistoryExpired {
        through: begin.seq,
        base: begin.digest,
        root: begin.root,
        segments: 0,
        bytes: 0,
        policy: RetentionPolicy::default(),
    };
    // Nothing happens if the log says so already.
    let command = Request::service(Command::ExpireHistory(Box::new(expired)));
    record(log, core, command)?.map_err(|why| anyhow::anyhow!("{why}"))?;
    Ok(())
}

fn append(log: &Log, blocks: Vec<(Arc<Block>, EncodedBlock)>) -> Result<()> {
    for blocks in blocks.chunks(BLOCKS_AT_ONCE) {
        let encoded: Vec<_> = blocks.iter().map(|(_, encoded)| encoded.clone()).collect();
        log.journal().append(log.head(), &encoded)?;
        log.publish(blocks.iter().map(|(block, _)| &**block))?;
    }
    Ok(())
}

fn content(text: &str) -> StoredContent {
    let bytes = text.as_bytes().to_vec();
    Content::new(rand::random(), MediaType::Text, bytes.into()).to_stored()
}
