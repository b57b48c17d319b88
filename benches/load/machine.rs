//! The machine: its conditions, what a process used, and the bare limits of its disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};

/// What the figures depend on, as (name, value).
pub(crate) fn conditions(directory: &Path) -> Vec<(&'static str, String)> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("?", |(_, value)| value.trim()).to_owned()
    };
    let cpu = format!("{} (model {})", field("model name"), field("model\t"));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (device, kind) = filesystem(directory);
    if kind == "tmpfs" || kind == "ramfs" {
        eprintln!("WARNING: {} is {kind}: nothing here is durable", directory.display());
    }
    vec![
        ("cpu", cpu),
        ("cores", cores.to_string()),
        ("memory", read_field("/proc/meminfo", "MemTotal:")),
        ("kernel", read_line("/proc/sys/kernel/osrelease")),
        ("filesystem", format!("{kind} on {device}")),
        ("durability", "fdatasync before every acknowledgement; PostgreSQL fsync=on".to_owned()),
        ("placement", "generator and service share the cores, loopback".to_owned()),
        ("load average at start", read_line("/proc/loadavg")),
    ]
}

/// Device and type of the filesystem that holds a path.
fn filesystem(path: &Path) -> (String, String) {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut best = (0, "?".to_owned(), "?".to_owned());
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [device, mount, kind, ..] = fields[..]
            && path.starts_with(mount)
            && mount.len() >= best.0
        {
            best = (mount.len(), device.to_owned(), kind.to_owned());
        }
    }
    (best.1, best.2)
}

fn read_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn read_field(path: &str, name: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or("?").trim().to_owned()
}

/// Observers need a descriptor each, here and in the service, which inherits the limit.
pub(crate) fn raise_open_files(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(hard >= needed, "{needed} open files are needed, the hard limit is {hard}");
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).context("raising RLIMIT_NOFILE")?;
    }
    Ok(())
}

/// The highest resident memory a process ever had, in MiB.
pub(crate) fn peak_memory_mib(pid: u32) -> Result<f64> {
    let field = read_field(&format!("/proc/{pid}/status"), "VmHWM:");
    let kib: f64 = field.trim_end_matches("kB").trim().parse().context("reading VmHWM")?;
    Ok(kib / 1024.0)
}

/// What a running process holds: resident MiB, open files, threads, processes below it.
pub(crate) struct Holdings {
    pub(crate) memory_mib: f64,
    pub(crate) files: usize,
    pub(crate) threads: usize,
    pub(crate) processes: usize,
}

pub(crate) fn holdings(pid: u32) -> Result<Holdings> {
    let kib = read_field(&format!("/proc/{pid}/status"), "VmRSS:");
    let kib: f64 = kib.trim_end_matches("kB").trim().parse().context("reading VmRSS")?;
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).map(Iterator::count);
    Ok(Holdings {
        memory_mib: kib / 1024.0,
        files: count("fd")?,
        threads: count("task")?,
        processes: descendants(pid).len(),
    })
}

/// CPU seconds of a running process; the kernel counts in hundredths.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = read_line(&format!("/proc/{pid}/stat"));
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

/// CPU seconds of the calling thread.
pub(crate) fn thread_cpu_seconds() -> f64 {
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1_000_000.0;
    getrusage(UsageWho::RUSAGE_THREAD)
        .map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// A process, told apart from a later one with the same id by its start time.
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: String,
}

impl Process {
    pub(crate) fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|(_, state, started)| state != "Z" && started == self.started)
    }
}

/// Parent, state and start time of a process.
fn stat(pid: i32) -> Option<(i32, String, String)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields.get(1)?.parse().ok()?, fields[0].to_owned(), (*fields.get(19)?).to_owned()))
}

/// Every process below `root`.
pub(crate) fn descendants(root: u32) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let all: Vec<(i32, i32, String)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| stat(pid).map(|(parent, _, started)| (pid, parent, started)))
        .collect();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root.cast_signed()];
    while let Some(parent) = parents.pop() {
        for (pid, _, started) in all.iter().filter(|(_, of, _)| *of == parent) {
            parents.push(*pid);
            found.push(Process { pid: *pid, started: started.clone() });
        }
    }
    found
}

/// Microseconds that each of a run of durable appends of `bytes` bytes took: one `pwrite` at the
/// end of a file and one `fdatasync`.
pub(crate) fn durable_appends(
    directory: &Path,
    bytes: usize,
    count_max: usize,
    time_max: Duration,
) -> Result<Vec<f64>> {
    let path = directory.join(format!("bare-{:016x}", rand::random::<u64>()));
    let file = File::create_new(&path)?;
    let block: Vec<u8> = (0..bytes).map(|_| rand::random()).collect();
    let mut taken = Vec::with_capacity(count_max);
    let start = Instant::now();
    while taken.len() < count_max && start.elapsed() < time_max {
        let at = Instant::now();
        file.write_all_at(&block, (taken.len() * bytes) as u64)?;
        file.sync_data()?;
        taken.push(at.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(&path)?;
    Ok(taken)
}

/// Has the system forget what it has in memory of the files below a directory, as far as they are on the disk.
pub(crate) fn drop_cached(directory: &Path) -> Result<()> {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            drop_cached(&entry.path())?;
            continue;
        }
        // A store that is replaced meanwhile is none of ours.
        let Ok(file) = File::open(entry.path()) else { continue };
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    Ok(())
}

/// The value below which `share` of the samples lie; sorts them.
pub(crate) fn percentile(samples: &mut [f64], share: f64) -> f64 {
    if samples.is_empty() {
        return f64::NAN;
    }
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * share).round() as usize]
}
