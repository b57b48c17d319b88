//! One look into a directory of pods. Bounded in what it reads, and it follows no links.

use super::{Source, metadata};
use acta_events::{
    LocalPodProblem, LocalPodsInspected, LocalPodsState, LocalWorkerFound, WorkerId,
};
use nix::fcntl::OFlag;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// How many pods are looked at: those with the first names.
pub const PODS_MAX: usize = 4_096;

/// How many entries of the directory are read to find them.
const ENTRIES_MAX: usize = 65_536;

/// The largest metadata, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// The workers, by id.
    pub workers: BTreeMap<WorkerId, LocalWorkerFound>,
    /// Whether the directory could be looked into, and what in it is no worker.
    pub inspected: LocalPodsInspected,
}

impl Scan {
    fn empty(source: &Source, state: LocalPodsState) -> Self {
        let inspected =
            LocalPodsInspected { host: source.host.clone(), state, problems: BTreeMap::new() };
        Self { workers: BTreeMap::new(), inspected }
    }

    fn problem(&mut self, problem: LocalPodProblem) {
        *self.inspected.problems.entry(problem).or_default() += 1;
    }
}

/// Looks into the directory. Blocking.
pub fn scan(source: &Source) -> Scan {
    let Some(pods) = &source.pods else {
        return Scan::empty(source, LocalPodsState::Unavailable);
    };
    let mut scan = Scan::empty(source, LocalPodsState::Available);
    let names = match names(pods, &mut scan) {
        Ok(names) => names,
        Err(error) => {
            // The kind says enough, and names no path.
            tracing::debug!(kind = %error.kind(), "the directory of pods cannot be read");
            return Scan::empty(source, LocalPodsState::Unreadable);
        }
    };
    for name in names {
        let found = read(&pods.join(&name).join("metadata.json"))
            .map_err(|_| LocalPodProblem::MetadataUnreadable)
            .and_then(|json| metadata::worker(source, &name, &json));
        match found {
            Ok(worker) => drop(scan.workers.insert(worker.worker.clone(), worker)),
            Err(problem) => scan.problem(problem),
        }
    }
    scan
}

/// The names of the directories in it. What is no directory is no pod.
fn names(pods: &Path, scan: &mut Scan) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut is_cut = false;
    for (n, entry) in fs::read_dir(pods)?.enumerate() {
        if n == ENTRIES_MAX {
            is_cut = true;
            break;
        }
        let entry = entry?;
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match entry.file_name().into_string() {
            Ok(name) => drop(names.insert(name)),
            Err(_) => scan.problem(LocalPodProblem::MetadataUnreadable),
        }
        if names.len() > PODS_MAX {
            names.pop_last();
            is_cut = true;
        }
    }
    if is_cut {
        scan.problem(LocalPodProblem::TooMany);
    }
    Ok(names)
}

/// The file, if it is one and not too large. Whatever else stands there is not waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut json = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut json)?;
    if json.len() as u64 > FILE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(json)
}
