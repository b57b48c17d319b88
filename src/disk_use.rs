//! How much is on the disk of the data, and what the process holds. Linux.

use std::{collections::BTreeMap, fs, io, path::Path};

/// How many parts of a data directory are told apart; what is beyond counts as `other`.
const PARTS_MAX: usize = 32;

/// Bytes of each part of a data directory: what lies in a directory counts for the directory, and
/// generations of one thing (`log-1`, `log-2`) for the thing. Files that vanish meanwhile, or
/// cannot be looked at, count nothing.
pub fn parts(data: &Path) -> BTreeMap<String, u64> {
    let mut parts = BTreeMap::new();
    for entry in fs::read_dir(data).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let part = match name.split_once('-') {
            _ if !entry.path().is_dir() => "files",
            Some((part, _)) => part,
            None => name.as_str(),
        };
        let is_known = parts.contains_key(part) || parts.len() < PARTS_MAX;
        let part = if is_known { part } else { "other" };
        *parts.entry(part.to_owned()).or_default() += bytes(&entry.path());
    }
    parts
}

/// Of a file, or of everything below a directory, as the disk has it: a file that is filled in
/// part counts in part. Links are not followed.
fn bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            fs::read_dir(path).into_iter().flatten().flatten().map(|e| bytes(&e.path())).sum()
        }
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    }
}

/// How many sealed segments there are.
pub fn segments(data: &Path) -> u64 {
    let files = fs::read_dir(data.join("segments")).into_iter().flatten().flatten();
    files.filter(|entry| entry.path().extension().is_some_and(|seg| seg == "seg")).count() as u64
}

/// Bytes that a process without privileges may still write there.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// What this process holds. What cannot be learned is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Memory in use, in bytes.
    pub resident_bytes: u64,
    /// Its threads.
    pub threads: u64,
    /// Files, sockets and pipes that are open.
    pub open_files: u64,
    /// How many may be.
    pub open_files_max: u64,
}

/// Looks at the own process.
pub fn process() -> Process {
    use nix::sys::resource::{Resource, getrlimit};
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Process {
        resident_bytes: field("VmRSS:") * 1024,
        threads: field("Threads:"),
        open_files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        open_files_max: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_by_part() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, len: usize| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut bytes = vec![0_u8; len];
            bytes.fill_with(rand::random);
            fs::File::create(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::File::open(&path).unwrap().sync_all().unwrap();
        };
        write("HEAD", 10_000);
        write("log-1/db", 100_000);
        write("log-2/blobs/1", 50_000);
        write("content/a/b/c", 3_000);
        let parts = parts(dir.path());
        for (part, least) in [("files", 10_000), ("log", 150_000), ("content", 3_000)] {
            assert!((least..2 * least + 8192).contains(&parts[part]), "{part} {parts:?}");
        }
        assert_eq!(parts.len(), 3, "{parts:?}");
        assert_eq!(super::parts(&dir.path().join("missing")), BTreeMap::new());
        assert!(free_bytes(dir.path()).unwrap() > 0);
        let process = process();
        assert!(process.resident_bytes > 1 << 20, "{process:?}");
        assert!(process.threads > 0 && process.open_files > 2, "{process:?}");
    }

    #[test]
    fn parts_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..100 {
            fs::create_dir(dir.path().join(format!("d{n}"))).unwrap();
        }
        let parts = parts(dir.path());
        assert!(parts.len() <= PARTS_MAX + 1 && parts.contains_key("other"), "{parts:?}");
    }
}
