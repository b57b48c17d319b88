//! What the proof costs: the tree on the way of a commit, proofs of a large log, and the
//! verification of a stopped data directory.
//!
//! The tree is asked through the library: a log of ten million records is not made for it, only its
//! leaves. `acta verify` runs as everybody runs it, on one core.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use acta::{
    audit::{Tree, leaf_of},
    data_dir::DataDir,
    journal::{EncodedBlock, Journal, SledJournal},
};
use acta_events::{
    Actor, Content, Digest, Epoch, Header, LogId, MediaType, Record, RuntimeId, Sequence,
    Timestamp, Version, WorkerDiagnosed, WorkerId,
    block::{Block, BlockBuilder, genesis},
    sha256,
};
use acta_projections::Projections;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    Options, machine,
    report::{Figure, Report, Target, number},
};

/// Records of the log that proofs are asked of.
const LARGE: u64 = 10_000_000;
const PROOFS: u64 = 2_000;
/// Records of the log that is verified, and of one commit, as 64 connections make them.
const VERIFIED: u64 = 1_000_000;
const PER_BLOCK: u64 = 64;
const VERIFICATIONS: usize = 5;
/// Commits that are timed.
const COMMITS: usize = 1_000;
const WORKERS: u64 = 50;
const CONTENT_BYTES: usize = 120;

/// Measures all three.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    proofs(&options.directory, report)?;
    let dir = tempfile::tempdir_in(&options.directory)?;
    commits(&dir.path().join("data"), report)?;
    verification(&options.binary, &dir.path().join("data"), report)
}

fn proofs(directory: &Path, report: &mut Report) -> Result<()> {
    println!("audit: proofs of {} records", number(LARGE as f64));
    let dir = tempfile::tempdir_in(directory)?;
    let tree = Tree::open(dir.path())?;
    let begun = Instant::now();
    for index in 0..LARGE {
        let mut digest = Digest::ZERO;
        digest.0[..8].copy_from_slice(&index.to_be_bytes());
        tree.push(leaf_of(digest));
        if index % (1 << 18) == 0 {
            tree.flush()?;
        }
    }
    tree.flush()?;
    let built = begun.elapsed().as_secs_f64();
    drop(tree);
    let opening = Instant::now();
    let tree = Tree::open(dir.path())?;
    let opened = opening.elapsed().as_secs_f64() * 1e3;
    ensure!(tree.size() == LARGE, "the tree is found again");
    let root = tree.root(LARGE)?;
    let mut samples = Vec::new();
    for n in 0..PROOFS {
        let index = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % LARGE;
        let begun = Instant::now();
        let proof = tree.inclusion(index, LARGE)?;
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(proof.holds(root), "the proof of {index} holds");
    }
    let median = machine::percentile(&mut samples, 0.5);
    let most = machine::percentile(&mut samples, 1.0);
    report.add(
        Figure::new("a proof of 10 million records, the slowest", most, "ms")
            .target(Target::ValueAtMost(5.0))
            .note(format!(
                "median {median:.3} ms of {PROOFS}; the tree was built at {}/s and opened in {opened:.2} ms",
                number(LARGE as f64 / built)
            )),
    );
    Ok(())
}

/// A log as commands make it, block by block.
struct Writer {
    runtime: RuntimeId,
    seq: u64,
    previous: Digest,
}

impl Writer {
    fn block(&mut self) -> Result<(Block, EncodedBlock)> {
        let mut builder = BlockBuilder::new(Epoch(1), self.previous);
        for _ in 0..PER_BLOCK {
            self.seq += 1;
            let (worker, version) = (self.seq % WORKERS, (self.seq - 1) / WORKERS + 1);
            let text = vec![b'x'; CONTENT_BYTES];
            let content = Content::new([7; 16], MediaType::Text, text.into()).to_stored();
            let header = Header {
                seq: Sequence(self.seq),
                id: uuid::Uuid::from_u128(u128::from(self.seq)),
                time: Timestamp(1_800_000_000_000_000 + self.seq as i64),
                runtime: Some(self.runtime.clone()),
                worker: Some(WorkerId::parse(&format!("worker-{worker}"))?),
                version: Some(Version(version)),
                actor: Actor::service(),
                command: None,
                trace: None,
                event: WorkerDiagnosed { source: "stderr".into() }.into(),
            };
            builder.push(Arc::new(Record::new(header, Some(content))?));
        }
        let (block, bytes) = builder.finish().context("a block with records")?;
        self.previous = block.digest;
        let encoded = EncodedBlock::new(&block, bytes);
        Ok((block, encoded))
    }
}

/// Appends durably, and applies to the views, with and without the tree; then leaves a longer log.
fn commits(path: &Path, report: &mut Report) -> Result<()> {
    println!("audit: commits of {PER_BLOCK} records, with and without the tree");
    let data = DataDir::create(path, LogId(uuid::Uuid::from_u128(5)), Timestamp(0))?;
    let journal = SledJournal::open(&data)?;
    let (tree, mut views) = (Tree::in_memory(), Projections::default());
    let runtime = RuntimeId::parse("embedded-worker-runtime")?;
    let mut writer = Writer { runtime, seq: 0, previous: genesis(data.log_id()) };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for n in 0..COMMITS {
        let before = Sequence(writer.seq);
        let begun = Instant::now();
        let (block, encoded) = writer.block()?;
        journal.append(before, &[encoded])?;
        for record in &block.records {
            views.apply(record)?;
        }
        let bare = begun.elapsed();
        tree.apply(&block)?;
        let proven = begun.elapsed();
        // The first commits make files.
        if n >= COMMITS / 10 {
            without.push(micros(bare));
            with.push(micros(proven));
        }
    }
    let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
    let (without, with) = (mean(&without), mean(&with));
    report.add(
        Figure::new("a commit of 64 records, with the tree", with, "µs")
            .against("the same commits without it", without)
            .target(Target::RatioAtMost(1.1))
            .note(format!(
                "made, durable, applied to the views; the tree takes {:.2} µs a record",
                (with - without) / PER_BLOCK as f64
            )),
    );
    while writer.seq < VERIFIED {
        let before = Sequence(writer.seq);
        let mut batch = Vec::new();
        for _ in 0..64 {
            batch.push(writer.block()?.1);
        }
        journal.append(before, &batch)?;
    }
    journal.close()?;
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Verifies, and computes nothing but the digests that it takes, by turns, so that a slow moment of the machine
/// meets both.
fn verification(binary: &Path, data: &Path, report: &mut Report) -> Result<()> {
    println!("audit: verification of {} records, {VERIFICATIONS} times", number(VERIFIED as f64));
    let (mut rates, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..VERIFICATIONS {
        bare.push(digests()?);
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(binary).args(["verify", "-o", "json"]).arg(data);
        let output = command.output().context("taskset runs the verification on one core")?;
        let answer: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        ensure!(output.status.success() && answer["intact"] == true, "the log is intact: {answer}");
        let seconds = answer["seconds"].as_f64().context("no seconds")?;
        rates.push(answer["records"].as_f64().context("no records")? / seconds);
    }
    let rate = machine::percentile(&mut rates, 0.5);
    let (least, most) =
        (machine::percentile(&mut rates, 0.0), machine::percentile(&mut rates, 1.0));
    report.add(
        Figure::new("verification of a stopped data directory, one core", rate, "/s")
            .target(Target::ValueAtLeast(500_000.0))
            .against("the digests alone", machine::percentile(&mut bare, 0.5))
            .note(format!(
                "the median of {VERIFICATIONS} times {} records; {} to {} /s",
                number(VERIFIED as f64),
                number(least),
                number(most)
            )),
    );
    Ok(())
}

/// Records in a second for whoever computes only the digests that are part of a record: of content, header,
/// leaf, and a node of the tree.
fn digests() -> Result<f64> {
    let mut writer = Writer {
        runtime: RuntimeId::parse("embedded-worker-runtime")?,
        seq: VERIFIED / 2,
        previous: Digest::ZERO,
    };
    let (block, _) = writer.block()?;
    let header = &block.records.first().context("a record")?.json;
    let (content, node) = ([b'x'; CONTENT_BYTES], [1; 32]);
    let begun = Instant::now();
    let mut last = Digest::ZERO;
    for _ in 0..VERIFIED {
        let content = sha256(&[&[7; 16], &content]);
        let record = sha256(&[&[1], header, &content.0]);
        let leaf = sha256(&[&[0], &record.0]);
        last = sha256(&[&[1], &leaf.0, &node]);
    }
    std::hint::black_box(last);
    Ok(VERIFIED as f64 / begun.elapsed().as_secs_f64())
}
