//! `acta verify`: checks a log, or a receipt, without believing whoever has it.

mod ahead;
pub(super) mod archive;
mod directory;
mod remote;

use super::{
    client::Client,
    output::{Format, Output, erased_by},
    progress::Progress,
};
use crate::audit::{
    CheckpointError, Kind, Receipt, ReceiptError, SignedCheckpoint, Verdict, VerifierKey,
};
use acta_events::Sequence;
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};
use reqwest::Url;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// The exit code where something does not match its own digest, or is not in its own form.
const DAMAGED_CODE: u8 = 3;
/// The exit code where something contradicts a signature.
const CONTRADICTED_CODE: u8 = 4;

const HELP: &str = "\
Examples:
  acta verify /var/lib/acta                                 the data of a stopped service
  acta verify /var/lib/acta --key KEY --checkpoint kept     … and that it only grew since
  acta verify http://127.0.0.1:8080 --key KEY               a running service
  acta verify log.acta --key KEY                            what `acta export --format archive` wrote
  acta verify receipt paid.tlog-proof --key KEY             what `acta receipt` printed

KEY is what `acta key show` prints. Take it, and checkpoints to compare with, from a place that the
owner of the log cannot write to: a data directory without --key is checked with its own key, which
finds damage, but nothing that whoever wrote there wanted to hide.

The data directory is not changed: a copy of the log is made beside it, or in $TMPDIR, and removed
afterwards.

Exit codes: 0 intact, 3 damaged (something does not match its own digest), 4 contradicts a
signature, 1 another error.";

/// Options of `acta verify`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP, arg_required_else_help = true, args_conflicts_with_subcommands = true)]
pub(crate) struct VerifyArgs {
    /// A data directory, an archive, or the address of a service
    #[arg(value_name = "DIR|FILE|URL")]
    target: Option<String>,

    /// The verifier key of the log, as `acta key show` prints it
    #[arg(long, value_name = "KEY")]
    key: Option<VerifierKey>,

    /// An earlier checkpoint, which the log has to have grown from
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<VerifyCommand>,
}

#[derive(Clone, Debug, Subcommand)]
enum VerifyCommand {
    /// Check a receipt of `acta receipt`, without any service
    Receipt {
        /// The receipt
        file: PathBuf,
        /// The verifier key of the log, as `acta key show` prints it
        #[arg(long, value_name = "KEY")]
        key: VerifierKey,
    },
}

/// What was checked is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Unverified {
    message: String,
    pub(super) code: u8,
}

impl Unverified {
    pub(super) fn damaged(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: DAMAGED_CODE }
    }

    fn is_contradiction(&self) -> bool {
        self.code == CONTRADICTED_CODE
    }

    fn contradicted(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: CONTRADICTED_CODE }
    }
}

impl VerifyArgs {
    /// The service that is to be verified, if it is one.
    pub(super) fn url(&self) -> Result<Option<Url>> {
        match &self.target {
            Some(target) if is_address(target) => {
                super::parse_url(target).map(Some).map_err(super::usage)
            }
            _ => Ok(None),
        }
    }

    /// The earlier checkpoint. It has to be signed with the key, or it proves nothing.
    fn earlier(&self, key: Option<&VerifierKey>) -> Result<Option<SignedCheckpoint>> {
        let Some(file) = &self.checkpoint else { return Ok(None) };
        let shown = file.display();
        let text = fs::read(file).with_context(|| {
            format!("{shown} cannot be read; --checkpoint takes what `/checkpoint` answered once")
        })?;
        let key = key.with_context(|| "an earlier checkpoint is checked with --key")?;
        let text = String::from_utf8_lossy(&text);
        if let Err(error @ CheckpointError::Malformed) = SignedCheckpoint::verify(&text, key) {
            bail!("{shown} cannot be compared with: {error}");
        }
        believed(&text, key, &shown.to_string()).map(Some)
    }
}

fn is_address(target: &str) -> bool {
    let scheme = target.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("http" | "https"))
}

/// What was named is nowhere: what it could have been meant for.
fn refuse_absent(target: &str) -> Result<()> {
    if Path::new(target).exists() {
        return Ok(());
    }
    let port = target.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if port || target.contains("://") {
        bail!(
            "there is no file {target}; a service is named by http:// or https://, as in \
             http://127.0.0.1:8080"
        );
    }
    bail!(
        "there is no file {target}; give a data directory, an archive, or the address of a \
         service, as in http://127.0.0.1:8080"
    )
}

/// A checkpoint that is signed with the key, or the code that tells why it is not to be believed.
fn believed(text: &str, key: &VerifierKey, what: &str) -> Result<SignedCheckpoint> {
    SignedCheckpoint::verify(text, key).map_err(|error| {
        let message = format!("{what}: {error}");
        match error {
            CheckpointError::Malformed => Unverified::damaged(message).into(),
            _ => Unverified::contradicted(message).into(),
        }
    })
}

/// What is verified without a service.
pub(super) fn run(args: &VerifyArgs, out: &mut Output) -> Result<()> {
    if let Some(VerifyCommand::Receipt { file, key }) = &args.command {
        let text = fs::read(file).with_context(|| {
            format!("{} cannot be read; a receipt is what `acta receipt` prints", file.display())
        })?;
        return receipt(&text, key, out);
    }
    let target =
        args.target.as_deref().ok_or_else(|| super::usage("say what is to be verified"))?;
    refuse_absent(target)?;
    let path = Path::new(target);
    let begun = Instant::now();
    let verdict =
        if path.is_dir() { directory::verify(path, args)? } else { archive::verify(path, args)? };
    print(&verdict, begun, out)
}

/// What is verified of a running service.
pub(super) async fn run_remote(args: &VerifyArgs, client: &Client, out: &mut Output) -> Result<()> {
    let begun = Instant::now();
    let verdict = remote::verify(args, client).await?;
    print(&verdict, begun, out)
}

fn progress(total: u64) -> Progress {
    Progress::new("verifying", Some(total))
}

pub(super) fn print(verdict: &Verdict, begun: Instant, out: &mut Output) -> Result<()> {
    let seconds = begun.elapsed().as_secs_f64();
    let rate = verdict.records as f64 / seconds.max(1e-6);
    match out.format {
        Format::Json => {
            let mut value = serde_json::to_value(verdict)?;
            value["seconds"] = seconds.into();
            value["records_per_second"] = rate.into();
            value["cpu_seconds"] = cpu_seconds().into();
            value["intact"] = verdict.worst().is_none().into();
            out.json(&value)?;
        }
        Format::Table => table(verdict, seconds, rate, out)?,
    }
    out.flush()?;
    unverified(verdict).map_or(Ok(()), Err)
}

/// What is wrong, with the exit code that tells how bad it is; nothing if all is well.
pub(super) fn unverified(verdict: &Verdict) -> Option<anyhow::Error> {
    let worst = verdict.worst()?;
    let place = match verdict.first_bad() {
        Some(first) => format!("the first bad record is {first}"),
        None => "no single record can be named".into(),
    };
    let intact = match verdict.intact_through {
        Sequence::ZERO => "nothing is certainly intact".into(),
        through => format!("records 1 to {through} are certainly intact"),
    };
    let unverified = match worst {
        Kind::Damaged => Unverified::damaged(format!("damaged: {place}; {intact}")),
        Kind::Contradicted => {
            Unverified::contradicted(format!("not what was signed: {place}; {intact}"))
        }
    };
    Some(unverified.into())
}

/// The processor time of this process so far, all of its threads together.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    usage.map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn table(verdict: &Verdict, seconds: f64, rate: f64, out: &mut Output) -> Result<()> {
    out.line(&format!("log        {}", verdict.log_id))?;
    out.line(&format!(
        "records    {} in {seconds:.3} s, {rate:.0}/s, {:.3} s of processor time; {} contents in files",
        verdict.records,
        cpu_seconds(),
        verdict.contents
    ))?;
    out.line(&format!("tree       {} at {}", verdict.root, verdict.size))?;
    if let Some(expired) = &verdict.expired {
        out.line(&format!(
            "expired    records 1 to {} expired by policy ({}), as record {} says, at {}",
            expired.history.through, expired.history.policy, expired.seq, expired.at
        ))?;
    }
    for held in &verdict.signed {
        let said = match held.holds {
            Some(true) => "the log is what was signed",
            Some(false) => "NOT WHAT WAS SIGNED",
            None => "not comparable: the log cannot be read that far",
        };
        out.line(&format!("signed     {} checkpoint, {} records: {said}", held.which, held.size))?;
    }
    if let Some(signed) = verdict.signed.iter().map(|held| held.size).max()
        && signed < verdict.size
    {
        let (first, last) = (signed + 1, verdict.size);
        out.line(&format!("unsigned   records {first} to {last}: no checkpoint covers them yet"))?;
    }
    if verdict.signed.is_empty() {
        out.line("signed     nothing: whether the end is missing cannot be told")?;
    }
    let checkpoints = verdict.checkpoints.len();
    out.line(&format!("views      {}; {checkpoints} stored checkpoints compared", verdict.views))?;
    if verdict.index_runs > 0 {
        out.line(&format!("index      {} runs compared with the log", verdict.index_runs))?;
    }
    for erasure in &verdict.erased {
        let note = erased_by(&serde_json::to_value(erasure)?);
        out.line(&format!(
            "erased     record {}: {note}, in record {}",
            erasure.record, erasure.sequence
        ))?;
    }
    if verdict.erased_more > 0 {
        out.line(&format!("erased     and {} more", verdict.erased_more))?;
    }
    for record in &verdict.not_erased {
        out.line(&format!(
            "to erase   record {record}: its erasure was ordered, and its content is still there; the \
             next start of the service erases it"
        ))?;
    }
    for problem in &verdict.problems {
        let place = match (problem.first, problem.last) {
            (Some(first), Some(last)) if first < last => format!("records {first} to {last}: "),
            (Some(first), _) => format!("record {first}: "),
            _ => String::new(),
        };
        out.foreign(&format!("PROBLEM    {place}{}", problem.what))?;
        out.text("\n")?;
    }
    if verdict.untold > 0 {
        out.line(&format!("PROBLEM    and {} more", verdict.untold))?;
    }
    if verdict.worst().is_none() {
        let first = verdict.expired.as_ref().map_or(Sequence(1), |it| it.history.through.next());
        out.line(&format!("intact     records {first} to {}", verdict.intact_through))?;
    }
    Ok(())
}

fn receipt(bytes: &[u8], key: &VerifierKey, out: &mut Output) -> Result<()> {
    let text = std::str::from_utf8(bytes).map_err(|_| ReceiptError::Malformed("it is not text"));
    let proven = text.and_then(Receipt::parse).and_then(|receipt| receipt.verify(key));
    let proven = proven.map_err(|error| {
        let malformed = matches!(
            error,
            ReceiptError::Malformed(_) | ReceiptError::Checkpoint(CheckpointError::Malformed)
        );
        let code = if malformed { DAMAGED_CODE } else { CONTRADICTED_CODE };
        Unverified { message: error.to_string(), code }
    })?;
    match out.format {
        Format::Json => out.json(&json!({
            "sequence": proven.seq,
            "record_digest": proven.record,
            "content_digest": proven.content,
            "header": proven.header,
            "log": proven.checkpoint.origin(),
            "size": proven.checkpoint.size(),
            "root": proven.checkpoint.root().to_string(),
        }))?,
        Format::Table => {
            out.line(&format!(
                "record {} is in {}, as signed at {} records",
                proven.seq,
                proven.checkpoint.origin(),
                proven.checkpoint.size()
            ))?;
            out.foreign(&proven.header)?;
            out.text("\n")?;
            if let Some(content) = proven.content {
                out.line(&format!("its content, with its salt in front, has SHA-256 {content}"))?;
            }
        }
    }
    out.flush()
}
