//! The data directory: whose it is, what is missing or left over, what it lies on, and its log.

use super::{Findings, surroundings::timestamp};
use crate::{
    audit::{self, KeyError, LogKey, NotaryError},
    auth::check_operator_token,
    cli::{
        credentials::OPERATOR_TOKEN_FILE, output::with_causes, rebuild::StoppedLog, status::size,
    },
    data_dir::{DataDir, DataDirError},
    disk_use,
    journal::{ReadLimits, head_file},
};
use acta_events::{Sequence, Timestamp};
use nix::{
    sys::{statfs, statvfs},
    unistd::{AccessFlags, access},
};
use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Less than this is too little to go on with.
const FREE_BYTES_BAD: u64 = 64 << 20;
/// Less than this will not last.
const FREE_BYTES_LOW: u64 = 1 << 30;
/// Large contents are files of their own.
const FREE_FILES_LOW: u64 = 10_000;

/// What the rest of the diagnosis needs to know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    /// A service has it open.
    pub(super) is_running: bool,
    /// When something was written to it last.
    pub(super) written: Option<Timestamp>,
}

pub(super) fn look(data: &Path, quick: bool, found: &mut Findings) -> Use {
    let meta = match fs::metadata(data) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => {
            found.wrong("data", format!("{} is no directory", data.display()));
            return Use::default();
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text =
                "is not there; a start makes it. If there should be a log, name it by --data";
            found.warn("data", format!("{} {text}", data.display()));
            return Use::default();
        }
        Err(error) => {
            found.wrong("data", format!("{}: {error}", data.display()));
            return Use::default();
        }
    };
    owner(data, &meta, found);
    let token = data.join(OPERATOR_TOKEN_FILE);
    if secret(&token, "operator token", found)
        && let Err(error) = check_operator_token(&token)
    {
        found.wrong("operator token", error.to_string());
    }
    signed(data, found);
    disk(data, found);
    leftovers(data, found);
    log(data, quick, found)
}

/// Whether the service can use it, and nobody else.
fn owner(data: &Path, meta: &Metadata, found: &mut Findings) {
    let shown = data.display();
    if access(data, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let owner = meta.uid();
        let text = format!("this user may not write to {shown}, which belongs to user {owner}");
        found.wrong("data", text);
    }
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        found.ok("data", format!("{shown} is for its owner only"));
    } else {
        let text = format!("others may look into {shown} ({mode:o}): chmod 700");
        found.wrong("data", text);
    }
    // As after somebody ran the service as root once.
    let mut foreign: Vec<PathBuf> = Vec::new();
    for entry in entries(data) {
        let below = if entry.is_dir() { entries(&entry) } else { Vec::new() };
        let others = |path: &PathBuf| {
            fs::symlink_metadata(path).is_ok_and(|other| other.uid() != meta.uid())
        };
        foreign.extend(below.into_iter().chain([entry]).filter(others));
    }
    if let Some(one) = foreign.first() {
        let (one, n, uid) = (one.display(), foreign.len(), meta.uid());
        let text = format!(
            "{n} files in it, as {one}, do not belong to its owner, who cannot use them: \
             chown -R {uid} {shown}"
        );
        found.wrong("data", text);
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// What signs the log, and what was signed last, as a start looks at them.
fn signed(data: &Path, found: &mut Findings) {
    let what = "signing key";
    let (key, checkpoint) = (data.join(audit::KEY), data.join(audit::CHECKPOINT));
    if checkpoint.exists() && !key.exists() {
        return found.wrong(what, KeyError::Missing.to_string());
    }
    if !secret(&key, what, found) {
        return;
    }
    let key = match LogKey::load(&key) {
        Ok(key) => key,
        Err(error) => return found.wrong(what, error.to_string()),
    };
    let what = "checkpoint";
    match audit::read_checkpoint(&checkpoint, key.verifier()) {
        Ok(Some(newest)) => {
            found.ok(what, format!("{} records were signed last", newest.size()));
        }
        // As the first start leaves it when it is cut off: the key is made before anything else.
        Ok(None) if is_empty(data) => found.warn(what, "nothing was signed yet"),
        Ok(None) => found.wrong(what, NotaryError::Missing.to_string()),
        Err(error) => found.wrong(what, error.to_string()),
    }
}

/// Whether a log has no records.
fn is_empty(data: &Path) -> bool {
    head_file::read(data).is_ok_and(|entry| entry.head.seq == Sequence::ZERO)
}

/// Whether it is there, to be looked into.
fn secret(path: &Path, what: &'static str, found: &mut Findings) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match fs::metadata(path) {
        Err(_) => {
            found.warn(what, format!("there is no file {name}; a start makes one"));
            return false;
        }
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
            let text =
                format!("others may read {name}: chmod 600; it is to be thought of as known");
            found.wrong(what, text);
        }
        Ok(_) => found.ok(what, format!("{name} is for its owner only")),
    }
    true
}

fn disk(data: &Path, found: &mut Findings) {
    let what = "disk";
    match disk_use::free_bytes(data) {
        Ok(free) if free < FREE_BYTES_BAD => {
            let text = format!("{} are free; commands will be refused (store_io)", size(free));
            found.wrong(what, text);
        }
        Ok(free) if free < FREE_BYTES_LOW => found.warn(what, format!("{} are free", size(free))),
        Ok(free) => found.ok(what, format!("{} are free", size(free))),
        Err(error) => found.warn(what, format!("the free space is not known: {error}")),
    }
    if let Ok(stat) = statvfs::statvfs(data)
        && stat.files() > 0
        && stat.files_available() < FREE_FILES_LOW
    {
        let text = format!("only {} more files can be made (inodes)", stat.files_available());
        found.warn(what, text);
    }
    let Ok(stat) = statfs::statfs(data) else { return };
    let kind = stat.filesystem_type();
    if kind == statfs::TMPFS_MAGIC {
        found.warn(what, "it is a file system in memory: the data is gone with the machine");
    } else if kind == statfs::NFS_SUPER_MAGIC || kind == statfs::SMB_SUPER_MAGIC {
        let text = "it is a file system of the network: locks and syncs are what the server makes \
                    of them; put the data on a disk of this machine";
        found.warn(what, text);
    }
}

/// Copies that a check left behind when it was killed.
fn leftovers(data: &Path, found: &mut Findings) {
    let Some(beside) = fs::canonicalize(data).ok().and_then(|data| data.parent().map(entries))
    else {
        return;
    };
    let names = beside.iter().filter_map(|path| path.file_name()?.to_str());
    let left: Vec<&str> = names.filter(|name| name.starts_with(".acta-")).collect();
    if !left.is_empty() {
        let text = format!(
            "{} beside the data: left by a check that was killed; remove it once none is running",
            left.join(", ")
        );
        found.warn("leftovers", text);
    }
}

/// Whether the log can be opened, and the time of its last record.
fn log(data: &Path, quick: bool, found: &mut Findings) -> Use {
    let what = "log";
    // HEAD is written with every commit.
    let written = fs::metadata(data.join("HEAD")).and_then(|head| head.modified()).ok();
    let seen = Use { is_running: false, written: written.map(timestamp) };
    match DataDir::inspect(data) {
        Ok(data) => drop(data),
        Err(DataDirError::Locked { .. }) => {
            found.ok(what, "a service has it open; ask `acta status` and /readyz");
            return Use { is_running: true, ..seen };
        }
        Err(DataDirError::Nothing { .. }) if entries(data).is_empty() => {
            found.warn(what, "there is none yet; a start makes one");
            return seen;
        }
        Err(error) => {
            found.wrong(what, error.to_string());
            return seen;
        }
    }
    if quick {
        found.ok(what, "nobody has it open; it was not read");
        return seen;
    }
    let stopped = match StoppedLog::open(data) {
        Ok(stopped) => stopped,
        Err(error) => {
            let text = with_causes(&error);
            let text = format!("{text}. Make a copy of {} before anything else", data.display());
            found.wrong(what, text);
            return seen;
        }
    };
    let head = stopped.journal().head().seq;
    if head == Sequence::ZERO {
        found.ok(what, "it is empty");
        return seen;
    }
    match stopped.journal().read(Sequence(head.0 - 1), ReadLimits { blocks: 1, bytes: 1 }) {
        Ok(blocks) => {
            found.ok(what, format!("it opens, and ends with record {head}"));
            let last = blocks.first().and_then(|block| block.records.last());
            Use { written: last.map(|last| last.header.time).or(seen.written), ..seen }
        }
        Err(error) => {
            found.wrong(what, error.to_string());
            seen
        }
    }
}
