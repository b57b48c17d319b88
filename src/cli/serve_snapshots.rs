//! What `acta serve` does for snapshots.

use crate::{
    audit::Notary,
    log::Log,
    snapshot::{Newest, Schedule, ScheduleOwner},
};
use clap::Args;
use nix::unistd::{AccessFlags, access};
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

/// Whether snapshots can be taken into a directory, as far as can be seen without making one: into
/// it, or where there is none yet, into what it would be made in.
pub(super) fn check_dir(dir: &Path) -> Result<(), String> {
    let shown = dir.display();
    let nearest = dir.ancestors().find(|at| at.exists()).unwrap_or(Path::new("."));
    let nearest = if nearest.as_os_str().is_empty() { Path::new(".") } else { nearest };
    if !nearest.is_dir() {
        return Err(format!(
            "snapshots cannot be taken into {shown}: {} is no directory; name another one by \
             `snapshot-dir`",
            nearest.display()
        ));
    }
    access(nearest, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| {
        format!(
            "snapshots cannot be taken into {shown}: {}: {}. Make it, give it to the user of the \
             service, and under systemd name it in ReadWritePaths=",
            nearest.display(),
            error.desc()
        )
    })
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
    if let Err(why) = check_dir(&dir) {
        tracing::error!("{why}");
    }
    let schedule = Schedule {
        dir,
        every: Duration::from_secs(args.snapshot_every_s),
        keep: usize::try_from(args.snapshot_keep).unwrap_or(usize::MAX),
    };
    let (log, notary) = (Arc::clone(log), Arc::clone(notary));
    Some(ScheduleOwner::start(schedule, log, notary, data.to_owned(), newest.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        check_dir(dir.path()).unwrap();
        check_dir(&dir.path().join("not/yet")).unwrap();
        for wrong in [file.clone(), file.join("below")] {
            let why = check_dir(&wrong).unwrap_err();
            assert!(why.contains(&wrong.display().to_string()), "{why}");
            assert!(why.contains("is no directory"), "{why}");
        }
    }
}
