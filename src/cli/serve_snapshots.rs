//! What `acta serve` does for snapshots.

use crate::{
    audit::Notary,
    log::Log,
    snapshot::{Newest, Schedule, ScheduleOwner},
};
use clap::Args;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Options of `acta serve` about snapshots.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Snapshots")]
pub struct SnapshotArgs {
    /// A directory in which snapshots are taken by the clock, best on another disk
    #[arg(long, value_name = "DIR", env = "ACTA_SNAPSHOT_DIR")]
    pub snapshot_dir: Option<PathBuf>,

    /// The time between two
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_every_s: u64,

    /// How many of them are kept; the oldest are removed
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_keep: u64,
}

/// Starts to take snapshots, if they are to be taken. A log in memory has none.
pub(super) fn start(
    args: &SnapshotArgs,
    log: &Arc<Log>,
    notary: &Arc<Notary>,
    data: Option<&Path>,
    newest: &Newest,
) -> Option<ScheduleOwner> {
    let (dir, data) = (args.snapshot_dir.clone()?, data?);
    let schedule = Schedule {
        dir,
        every: Duration::from_secs(args.snapshot_every_s),
        keep: usize::try_from(args.snapshot_keep).unwrap_or(usize::MAX),
    };
    let (log, notary) = (Arc::clone(log), Arc::clone(notary));
    Some(ScheduleOwner::start(schedule, log, notary, data.to_owned(), newest.clone()))
}
