//! `acta bench generate`: a data directory with a long history, to measure upon.

mod history;
mod prose;

use super::output::{Format, Output};
use crate::{
    audit::{self, Tree},
    checkpoint::Checkpoints,
    content::ContentStore,
    data_dir::DataDir,
    index::Index,
    journal::{AppendError, EncodedBlock, Journal, Refusal, SledJournal},
    log::{Contents, Log},
};
use acta_events::{LogId, Timestamp, block::genesis};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use history::History;
use serde_json::json;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// Blocks of one commit.
const BATCH_BLOCKS: usize = 64;

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Write a log as real workers leave it into a new data directory
    Generate(GenerateArgs),
}

const HELP: &str = "\
The directory is one that `acta serve --data DIR` starts on: some two thousand records for each worker, in
turns, with inputs, output, tool calls and their results, of text that compresses about as prose, code and
command output do. The same seed and number of records give the same records. Times begin in 2026.";

/// Options of `acta bench generate`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct GenerateArgs {
    /// The directory, which must not hold a log yet
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// How many records
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// How many workers are at work at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// What all choices are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What is written last is sealed within this time even on a slow disk.
const SEALING_MAX: Duration = Duration::from_secs(120);

pub(super) fn run(command: &BenchCommand, out: &mut Output) -> Result<()> {
    let BenchCommand::Generate(args) = command;
    let begun = Instant::now();
    let log = LogId(uuid::Builder::from_random_bytes(rand::random()).into_uuid());
    let data = DataDir::create(&args.directory, log, Timestamp(history::BEGIN_US))?;
    let journal = Arc::new(SledJournal::open(&data)?);
    let tree = Arc::new(Tree::open(&data.subpath(audit::TREE))?);
    let (opened, _) = Log::open_with_tree(
        log,
        Arc::clone(&journal) as Arc<dyn Journal>,
        Index::open(&data.subpath("index"))?,
        Contents::Files(Arc::new(ContentStore::new(data.content_path()))),
        Some(Checkpoints::new(data.subpath("checkpoints"))),
        tree,
    )?;
    let mut history = History::new(genesis(log), args.seed, usize::from(args.workers));
    while opened.head().0 < args.records {
        let mut blocks = Vec::with_capacity(BATCH_BLOCKS);
        while blocks.len() < BATCH_BLOCKS && history.written() < args.records {
            blocks.push(history.block(args.records)?);
        }
        let (blocks, encoded): (Vec<_>, Vec<_>) = blocks.into_iter().unzip();
        append(&journal, &encoded)?;
        opened.publish(&blocks)?;
        if let Some(job) = opened.checkpoint_if_due() {
            job.run();
        }
    }
    if let Some(job) = opened.checkpoint_now() {
        job.run();
    }
    if !journal.settle(SEALING_MAX) {
        anyhow::bail!("the history could not be sealed; the log of this command says why");
    }
    journal.close()?;
    let seconds = begun.elapsed().as_secs_f64();
    let (records, workers) = (history.written(), history.workers());
    match out.format {
        Format::Json => out.json(&json!({
            "log_id": log, "records": records, "workers": workers,
            "content_bytes": history.content_bytes(), "seconds": seconds,
        })),
        Format::Table => out.line(&format!(
            "{records} records of {workers} workers with {} bytes of content, in {seconds:.1} s",
            history.content_bytes()
        )),
    }
    .context("the result could not be printed")?;
    out.flush()
}

/// Appends, however long the store takes on a machine that has much to do.
fn append(journal: &SledJournal, blocks: &[EncodedBlock]) -> Result<()> {
    let until = Instant::now() + SEALING_MAX;
    loop {
        match journal.append(journal.head().seq, blocks) {
            Err(AppendError::Refused(Refusal::Behind)) if Instant::now() < until => {}
            appended => return Ok(appended.map(|_| ())?),
        }
    }
}
