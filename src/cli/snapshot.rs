//! `acta snapshot`: take one of a running service, list them, verify one.

use super::{
    client::{Client, ClientError},
    output::{Format, Output, note, table, with_causes},
    progress::Progress,
    status::size,
    tail::interrupted,
    verify::{self, Unverified},
};
use crate::{
    audit::VerifierKey,
    snapshot::{self, Base, Checked, Received, Receiver, Snapshot, SnapshotError},
};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How often a snapshot is begun again because something was erased meanwhile.
const ATTEMPTS_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// How long the service may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(180);

const CREATE_HELP: &str = "\
A name that ends with .acta is one file, any other a directory. There must be nothing there yet.
With --base only what is new is sent; in a directory the rest are further names of the same files,
in one file they are left out, and the earlier snapshot is needed to verify and restore it.

No key that signs and no token is in a snapshot, and nothing that was erased before it was taken.
Keep `acta redactions export` with it: what is erased later is erased again when it is restored.

  acta snapshot create /backup/acta-monday
  acta snapshot create /backup/acta-tuesday --base /backup/acta-monday
  acta snapshot create everything.acta";

const VERIFY_HELP: &str = "\
Checks each part against its SHA-256, then everything that `acta verify` checks. Without --key, what
was signed is checked with the key in the snapshot, which finds damage, but nothing that whoever
wrote there wanted to hide.

Exit codes: 0 intact, 3 damaged, 4 contradicts a signature, 1 another error.";

/// The subcommands of `acta snapshot`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Take a snapshot of a running service
    #[command(after_help = CREATE_HELP)]
    Create {
        /// Where it is to be
        #[arg(value_name = "FILE|DIR")]
        target: PathBuf,
        /// An earlier snapshot of the same log to build upon
        #[arg(long, value_name = "EARLIER")]
        base: Option<PathBuf>,
    },
    /// List the snapshots in a directory
    Ls {
        /// A directory with snapshots
        dir: PathBuf,
    },
    /// Check a snapshot, without any service
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
}

/// Options of `acta snapshot verify`.
#[derive(Args, Clone, Debug)]
pub(crate) struct VerifyArgs {
    /// The snapshot
    #[arg(value_name = "FILE|DIR")]
    snapshot: PathBuf,
    /// The snapshot that it was taken on top of, if that is one file
    #[arg(long, value_name = "EARLIER")]
    base: Option<PathBuf>,
    /// The verifier key of the log, as `acta key show` prints it
    #[arg(long, value_name = "KEY")]
    key: Option<VerifierKey>,
}

/// Takes one, and tells what is in it.
pub(super) async fn create(
    target: &Path,
    base: Option<&Path>,
    client: &Client,
    out: &mut Output,
) -> Result<()> {
    let begun = Instant::now();
    let received = take(target, base, client).await?;
    let Received { manifest, sent, in_base } = &received;
    if out.format == Format::Json {
        return out.json(&json!({
            "path": target,
            "log_id": manifest.log_id,
            "epoch": manifest.epoch,
            "sequence": manifest.sequence,
            "parts": manifest.parts.len(),
            "parts_in_base": in_base,
            "bytes": manifest.bytes(),
            "bytes_sent": sent,
            "seconds": begun.elapsed().as_secs_f64(),
        }));
    }
    out.line(&format!(
        "sequence {}: {} in {} parts, {} of it sent, in {:.1} s",
        manifest.sequence,
        size(manifest.bytes()),
        manifest.parts.len(),
        size(*sent),
        begun.elapsed().as_secs_f64()
    ))
}

/// Takes one. Nothing is left of one that is interrupted.
pub(super) async fn take(target: &Path, base: Option<&Path>, client: &Client) -> Result<Received> {
    tokio::select! {
        received = attempts(target, base, client) => received,
        () = interrupted() => bail!("it was interrupted; nothing is left of it"),
    }
}

async fn attempts(target: &Path, base: Option<&Path>, client: &Client) -> Result<Received> {
    let mut base = base.map(Snapshot::open).transpose()?;
    let body = json!({ "base": base.as_ref().map(|base| Base::of(base.manifest())) });
    for attempt in 1.. {
        let mut receiver = Receiver::new(target, base.take())?;
        let error = match receive(&mut receiver, &body, client).await {
            Ok(()) if receiver.is_complete() => return Ok(receiver.finish()?),
            Ok(()) => SnapshotError::Again("the service broke off before its end".into()).into(),
            Err(error) => error,
        };
        base = receiver.abandon();
        if attempt >= ATTEMPTS_MAX || !may_pass(&error) {
            return Err(error);
        }
        note(&format!("{}; it begins again", with_causes(&error)));
        tokio::time::sleep(PAUSE * attempt).await;
    }
    bail!("no attempt was made")
}

fn may_pass(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(SnapshotError::Again(_)))
        || error.downcast_ref::<ClientError>().and_then(ClientError::code) == Some("not_ready")
}

async fn receive(receiver: &mut Receiver, body: &serde_json::Value, client: &Client) -> Result<()> {
    let mut response = client.post_for_stream(&["snapshots"], body).await?;
    let mut progress = None::<Progress>;
    loop {
        let chunk = tokio::time::timeout(SILENCE_MAX, response.chunk()).await;
        let chunk = chunk.map_err(|_| client.not_acta("it does not go on sending"))?;
        let Some(chunk) = chunk.context("the connection broke")? else { break };
        receiver.feed(&chunk)?;
        let (done, total) = receiver.progress();
        progress.get_or_insert_with(|| Progress::new("bytes", total)).at(done);
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(())
}

/// What runs without a service.
pub(super) fn run(command: &SnapshotCommand, out: &mut Output) -> Result<()> {
    match command {
        SnapshotCommand::Ls { dir } => ls(dir, out),
        SnapshotCommand::Verify(args) => {
            let snapshot = Snapshot::open_on(&args.snapshot, args.base.as_deref());
            let begun = Instant::now();
            let checked = check(&snapshot.map_err(told)?, args.key.as_ref())?;
            verify::print(&checked.verdict, begun, out)
        }
        SnapshotCommand::Create { .. } => Ok(()),
    }
}

fn ls(dir: &Path, out: &mut Output) -> Result<()> {
    let found = snapshot::list(dir).with_context(|| format!("{}", dir.display()))?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if out.format == Format::Json {
        let items: Vec<_> = found
            .iter()
            .map(|listed| match &listed.manifest {
                Ok(it) => json!({
                    "name": name(&listed.path), "log_id": it.log_id, "epoch": it.epoch,
                    "sequence": it.sequence, "taken": it.taken, "parts": it.parts.len(),
                    "bytes": it.bytes(),
                }),
                Err(why) => json!({"name": name(&listed.path), "damage": why}),
            })
            .collect();
        out.json(&json!({ "snapshots": items }))?;
        return out.flush();
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|listed| match &listed.manifest {
            Ok(it) => vec![
                name(&listed.path),
                it.taken.to_string(),
                it.epoch.to_string(),
                it.sequence.to_string(),
                size(it.bytes()),
                it.log_id.to_string(),
            ],
            Err(why) => vec![name(&listed.path), format!("DAMAGED: {why}")],
        })
        .collect();
    out.text(&table(&["NAME", "TAKEN", "EPOCH", "SEQUENCE", "BYTES", "LOG"], &rows))?;
    out.flush()
}

/// Verifies a snapshot. One in a single file is unpacked beside it, or in $TMPDIR, for as long as
/// that takes.
pub(super) fn check(snapshot: &Snapshot, key: Option<&VerifierKey>) -> Result<Checked> {
    let manifest = snapshot.manifest();
    let mut progress = Progress::new("bytes", Some(manifest.bytes()));
    let unpacked;
    let (dir, wrong) = match snapshot.directory() {
        Some(dir) => (dir, snapshot.check(|done| progress.at(done)).map_err(told)?),
        None => {
            unpacked = tempfile::tempdir().context("there is nowhere to unpack it; set TMPDIR")?;
            snapshot.unpack(unpacked.path(), |done| progress.at(done)).map_err(told)?;
            (unpacked.path(), Vec::new())
        }
    };
    progress.finish();
    let mut progress = Progress::new("verifying", Some(manifest.sequence.0));
    let checked = snapshot::verify(dir, manifest, key, &mut |block| progress.at(block.last().0));
    let checked = match (checked, wrong.first()) {
        (Err(_), Some(first)) => {
            return Err(Unverified::damaged(format!("damaged: {first}")).into());
        }
        (checked, _) => checked?,
    };
    progress.finish();
    let Some(first) = wrong.first() else { return Ok(checked) };
    let place = match checked.verdict.first_bad() {
        Some(record) => format!("; the first bad record is {record}"),
        None => String::new(),
    };
    Err(Unverified::damaged(format!("damaged: {first}{place}")).into())
}

/// Damage ends with the code that says so.
pub(super) fn told(error: SnapshotError) -> anyhow::Error {
    match error {
        error @ SnapshotError::Damaged(_) => Unverified::damaged(error.to_string()).into(),
        error => error.into(),
    }
}
