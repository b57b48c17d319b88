//! What the survival tests look at from outside: memory, processes, and the seed of a run.

use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Randomness that a failed run can be repeated with: set `ACTA_TEST_SEED` to what was printed.
pub fn seeded(test: &str) -> StdRng {
    let given = std::env::var("ACTA_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("{test}: ACTA_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Resident memory of a process, in MiB.
pub fn rss_mib(pid: nix::unistd::Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// The living processes whose working directory lies in `dir`.
pub fn processes_in(dir: &Path) -> Vec<(u32, PathBuf)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that just ended, or a zombie, has none.
        let Ok(cwd) = fs::read_link(entry.path().join("cwd")) else { continue };
        if cwd.starts_with(dir) {
            found.push((pid, cwd));
        }
    }
    found
}

/// Copies a directory with all that is in it.
pub fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// All files below a directory, sorted.
pub fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
