//! `acta rebuild --check`: computes the views of a stopped service again, from its log alone, and
//! compares them with those that start from a checkpoint.
//!
//! Opening the log writes to it, so a copy is opened.

mod copy;

use super::{
    output::{Format, Output},
    serve_args::DATA_DEFAULT,
};
use crate::{
    base::Base,
    checkpoint::Checkpoints,
    data_dir::DataDir,
    journal::{HeadError, Journal, OpenError, ReadError, ReadLimits, SledJournal},
};
use acta_events::{
    Digest, LogId, Sequence,
    block::{Block, genesis},
};
use acta_projections::{ProjectionDigest, Projections};
use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use copy::Copy;
use serde::Serialize;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// How many blocks are read before they are decoded.
const BLOCKS_PER_READ: usize = 256;
/// How many damaged ranges are named at most.
const DAMAGES_MAX: usize = 16;
/// The exit code when the views are not equal, or the log is damaged.
pub(super) const UNEQUAL_CODE: u8 = 3;

const HELP: &str = "\
Every record is read from sequence 1, or from where history has expired, verified, and applied to
all views. What comes out is
compared with what comes out of each stored checkpoint and the records after it.

The service has to be stopped. The data directory is not changed: a copy of the log is made
beside it, or in $TMPDIR where there is no room, and removed afterwards; large contents are not
copied.

Exit codes: 0 equal, 3 not equal or the log is damaged, 1 another error.";

/// Options of `acta rebuild`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct RebuildArgs {
    /// Compare only; the views that a service uses are rebuilt whenever it starts
    #[arg(long, required = true)]
    check: bool,
}

/// The views are not equal, or could not be computed from a damaged log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unequal(String);

/// The log is damaged: ends the process with the code that says so.
pub(super) fn damaged(why: String) -> anyhow::Error {
    Unequal(why).into()
}

/// What a rebuild found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    log_id: LogId,
    /// Where the replay began, if not with the first record.
    #[serde(skip_serializing_if = "Option::is_none")]
    expired_through: Option<Sequence>,
    /// How many records were replayed.
    pub(super) records: u64,
    /// How long that took: decoding, verifying and applying, without reading.
    seconds: f64,
    records_per_second: f64,
    /// Over all projections.
    pub(super) digest: Digest,
    projections: Vec<ProjectionDigest>,
    pub(super) checkpoints: Vec<CheckpointReport>,
    damage: Vec<Damage>,
    equal: bool,
}

/// A checkpoint with the records after it, compared with the rebuild from sequence 1.
#[derive(Debug, Serialize)]
pub(super) struct CheckpointReport {
    position: Sequence,
    equal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Records that cannot be used.
#[derive(Debug, Serialize)]
struct Damage {
    first: Sequence,
    last: Sequence,
    why: String,
}

impl Report {
    /// What is wrong; nothing if all is well.
    pub(super) fn fault(&self) -> Option<String> {
        let damage = self.damage.iter().map(|damage| {
            let Damage { first, last, why } = damage;
            format!("records {first} to {last} are damaged or missing: {why}")
        });
        let checkpoints = self.checkpoints.iter().filter(|checkpoint| !checkpoint.equal);
        let checkpoints = checkpoints.map(|checkpoint| {
            let why = checkpoint.why.as_deref().unwrap_or("it leads to other views");
            format!("the checkpoint at {}: {why}", checkpoint.position)
        });
        let faults: Vec<String> = damage.chain(checkpoints).collect();
        (!faults.is_empty()).then(|| faults.join("; "))
    }
}

pub(super) fn run(args: &RebuildArgs, data: Option<&Path>, out: &mut Output) -> Result<()> {
    debug_assert!(args.check, "clap requires it");
    let report = examine(data.unwrap_or(Path::new(DATA_DEFAULT)))?;
    match out.format {
        Format::Json => out.json(&serde_json::to_value(&report)?)?,
        Format::Table => print(&report, out)?,
    }
    out.flush()?;
    report.fault().map_or(Ok(()), |fault| Err(Unequal(fault).into()))
}

fn print(report: &Report, out: &mut Output) -> Result<()> {
    for ProjectionDigest { name, position, digest } in &report.projections {
        out.line(&format!("{name:<10} {position:>10}  {digest}"))?;
    }
    let position = report.projections.first().map_or(Sequence::ZERO, |first| first.position);
    out.line(&format!("{:<10} {position:>10}  {}", "all", report.digest))?;
    if let Some(through) = report.expired_through {
        out.line(&format!("base {through:>15}  the records up to it have expired"))?;
    }
    for CheckpointReport { position, equal, .. } in &report.checkpoints {
        let verdict = if *equal { "equal" } else { "NOT EQUAL" };
        out.line(&format!("checkpoint {position:>9}  {verdict}"))?;
    }
    out.line(&format!(
        "{} records in {:.3} s, {:.0} records/s",
        report.records, report.seconds, report.records_per_second
    ))
}

/// Replays the log of a stopped data directory. Blocking.
pub(super) fn examine(path: &Path) -> Result<Report> {
    let stopped = StoppedLog::open(path)?;
    let checkpoints = Checkpoints::new(stopped.data.subpath("checkpoints"));
    let base = stopped.journal.base().map_err(|error| damaged(error.to_string()))?;
    let mut replay = Replay::new(stopped.data.log_id(), checkpoints, base);
    replay.run(&stopped.journal)?;
    Ok(replay.report())
}

/// The log of a stopped service, read from a copy that goes with it.
pub(super) struct StoppedLog {
    /// Keeps a service from starting on it meanwhile.
    pub(super) data: DataDir,
    journal: SledJournal,
    _copied: DataDir,
    _copy: Copy,
}

impl StoppedLog {
    /// Blocking, for as long as it takes to copy the log.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, SledJournal::open)?.map_err(unopened)
    }

    /// As [`Self::open`], for whoever verifies all of it, and looks at why it does not open.
    pub(super) fn open_to_verify(path: &Path) -> Result<Result<Self, OpenError>> {
        Self::open_with(path, SledJournal::open_to_verify)
    }

    fn open_with(
        path: &Path,
        open: impl FnOnce(&DataDir) -> Result<SledJournal, OpenError>,
    ) -> Result<Result<Self, OpenError>> {
        let data = DataDir::inspect(path)?;
        let copy = Copy::of(path)?;
        let copied = DataDir::open(copy.path())?;
        let opened = open(&copied);
        Ok(opened.map(|journal| Self { data, journal, _copied: copied, _copy: copy }))
    }

    pub(super) fn journal(&self) -> &dyn Journal {
        &self.journal
    }
}

impl Drop for StoppedLog {
    fn drop(&mut self) {
        // An error here says nothing of the original.
        drop(self.journal.close());
    }
}

/// Damage is an answer; everything else is a reason for having none.
fn unopened(error: OpenError) -> anyhow::Error {
    match error {
        OpenError::Damaged(_)
        | OpenError::Engine { .. }
        | OpenError::Head(HeadError::Missing | HeadError::Damaged | HeadError::Foreign { .. }) => {
            Unequal(error.to_string()).into()
        }
        other => other.into(),
    }
}

/// The rebuild from sequence 1, and beside it one from each checkpoint that was passed.
struct Replay {
    log: LogId,
    checkpoints: Checkpoints,
    /// The last record that has expired.
    begin: Option<Sequence>,
    projections: Projections,
    previous: Digest,
    spent: Duration,
    /// Checkpoints that are still ahead.
    ahead: Vec<Sequence>,
    from_checkpoints: Vec<(Sequence, Result<Projections, String>)>,
    damage: Vec<Damage>,
}

impl Replay {
    fn new(log: LogId, checkpoints: Checkpoints, base: Option<Base>) -> Self {
        let (begin, projections) = match base {
            Some(Base { begin, views }) => (Some(begin), views),
            None => (None, Projections::default()),
        };
        let mut ahead = checkpoints.positions();
        ahead.retain(|position| begin.is_none_or(|begin| *position > begin.seq));
        ahead.reverse();
        Self {
            log,
            checkpoints,
            begin: begin.map(|begin| begin.seq),
            projections,
            previous: begin.map_or(genesis(log), |begin| begin.block),
            spent: Duration::ZERO,
            ahead,
            from_checkpoints: Vec::new(),
            damage: Vec::new(),
        }
    }

    fn run(&mut self, journal: &SledJournal) -> Result<()> {
        let head = journal.head().seq;
        while self.projections.position() < head {
            let position = self.projections.position();
            let stored = journal.stored(position, BLOCKS_PER_READ).unwrap_or_default();
            self.take_in(stored)?;
            if self.projections.position() == position {
                return self.find_damage(journal, position);
            }
        }
        Ok(())
    }

    /// Decodes, verifies and applies blocks up to the first that is not what it should be.
    fn take_in(&mut self, stored: Vec<Bytes>) -> Result<()> {
        let mut begun = Instant::now();
        for bytes in stored {
            let Ok(block) = Block::decode(bytes) else { break };
            let next = self.projections.position().next();
            if block.first() != next || block.previous != self.previous {
                break;
            }
            if self.ahead.last().is_none_or(|checkpoint| *checkpoint > block.last()) {
                for record in &block.records {
                    self.projections.apply(record)?;
                }
            } else {
                // Loading checkpoints is no part of the replay.
                self.spent += begun.elapsed();
                self.pass_checkpoints(&block)?;
                begun = Instant::now();
            }
            self.previous = block.digest;
            if !self.from_checkpoints.is_empty() {
                self.spent += begun.elapsed();
                self.apply_to_checkpoints(&block);
                begun = Instant::now();
            }
        }
        self.spent += begun.elapsed();
        Ok(())
    }

    /// Applies a block in which checkpoints stand, and compares each where it stands.
    fn pass_checkpoints(&mut self, block: &Block) -> Result<()> {
        for record in &block.records {
            let begun = Instant::now();
            self.projections.apply(record)?;
            self.spent += begun.elapsed();
            while self.ahead.last().is_some_and(|position| *position <= record.seq()) {
                let Some(position) = self.ahead.pop() else { break };
                let loaded = self.checkpoints.load(self.log, position).and_then(|checkpoint| {
                    let same = checkpoint.digest() == self.projections.digest();
                    if same { Ok(checkpoint) } else { Err("it does not match the log".into()) }
                });
                self.from_checkpoints.push((position, loaded));
            }
        }
        Ok(())
    }

    fn apply_to_checkpoints(&mut self, block: &Block) {
        for (_, state) in &mut self.from_checkpoints {
            let Ok(projections) = state else { continue };
            let applied = block.records.iter().try_for_each(|record| projections.apply(record));
            if let Err(gap) = applied {
                *state = Err(gap.to_string());
            }
        }
    }

    /// Names what cannot be read after a position.
    fn find_damage(&mut self, journal: &SledJournal, from: Sequence) -> Result<()> {
        let head = journal.head().seq;
        let mut position = from;
        while position < head && self.damage.len() < DAMAGES_MAX {
            match journal.read(position, ReadLimits { blocks: BLOCKS_PER_READ, bytes: 8 << 20 }) {
                Ok(blocks) => match blocks.last() {
                    Some(block) => position = block.last(),
                    None => break,
                },
                Err(ReadError::Damaged { first, last, why }) => {
                    self.damage.push(Damage { first, last, why });
                    position = last.max(position.next());
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.damage.is_empty() {
            let why = "they do not follow what is before them".into();
            self.damage.push(Damage { first: from.next(), last: head, why });
        }
        Ok(())
    }

    fn report(self) -> Report {
        let begin = self.begin.unwrap_or(Sequence::ZERO);
        let records = self.projections.position().0 - begin.0;
        let digest = self.projections.digest();
        let checkpoint = |(position, state): (Sequence, Result<Projections, String>)| match state {
            Ok(projections) => {
                CheckpointReport { position, equal: projections.digest() == digest, why: None }
            }
            Err(why) => CheckpointReport { position, equal: false, why: Some(why) },
        };
        let mut checkpoints: Vec<_> = self.from_checkpoints.into_iter().map(checkpoint).collect();
        checkpoints.extend(self.ahead.into_iter().rev().map(|position| CheckpointReport {
            position,
            equal: false,
            why: Some("it is beyond what can be read of the log".into()),
        }));
        let seconds = self.spent.as_secs_f64();
        let equal = self.damage.is_empty() && checkpoints.iter().all(|each| each.equal);
        Report {
            log_id: self.log,
            expired_through: self.begin,
            records,
            seconds,
            records_per_second: if seconds > 0.0 { records as f64 / seconds } else { 0.0 },
            digest,
            projections: self.projections.digests(),
            checkpoints,
            damage: self.damage,
            equal,
        }
    }
}
