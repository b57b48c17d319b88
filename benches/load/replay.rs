//! Offline replay of a stopped data directory: decode, verify and apply every record, on one
//! core.
//!
//! This is the one scenario that depends on more than the wire: it calls
//! `acta rebuild --check --data DIR -o json` and expects one JSON object with `records`, and with
//! `seconds` if the command measures itself (without, the whole process is timed).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::report::{Figure, Report, Target, number};

const DEADLINE: Duration = Duration::from_secs(120);

/// Replays the log in `data` and adds its figure.
pub(crate) fn run(binary: &Path, data: PathBuf, report: &mut Report) -> Result<()> {
    println!("replay: one core, {}", data.display());
    let (bytes, hashing) = sha256_of(&data)?;
    let start = Instant::now();
    let answer = rebuild(binary, &data)?;
    let taken = answer["seconds"].as_f64().unwrap_or(start.elapsed().as_secs_f64());
    let records = answer["records"].as_f64().with_context(|| format!("no records: {answer}"))?;
    report.add(
        Figure::new("replay: records", records / taken, "/s")
            .target(Target::ValueAtLeast(500_000.0))
            .against("SHA-256 of the same files", records / hashing)
            .note(format!(
                "{} records, {} MiB of files, {taken:.2} s",
                number(records),
                number(bytes as f64 / f64::from(1 << 20))
            )),
    );
    Ok(())
}

/// Runs the command on one core where `taskset` exists.
fn rebuild(binary: &Path, data: &Path) -> Result<Value> {
    let pinned = Command::new("taskset").arg("-V").stdout(Stdio::null()).status().is_ok();
    let mut command = if pinned {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(binary);
        command
    } else {
        Command::new(binary)
    };
    command.args(["rebuild", "--check", "-o", "json", "--data"]).arg(data);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("no standard output")?;
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("`acta rebuild` did not end within {} s", DEADLINE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = reading.join().map_err(|_| anyhow::anyhow!("reading panicked"))??;
    if !status.success() {
        bail!("`acta rebuild` ended with {status}: {}", text.trim());
    }
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text:?}"))
}

/// Bytes of all files below a directory, and the seconds that hashing them takes once they are
/// in memory.
fn sha256_of(directory: &Path) -> Result<(u64, f64)> {
    let (mut bytes, mut taken) = (0, Duration::ZERO);
    let mut directories = vec![directory.to_owned()];
    let mut block = vec![0; 1 << 20];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
                continue;
            }
            let mut file = std::fs::File::open(entry.path())?;
            let mut hash = Sha256::new();
            loop {
                let count = file.read(&mut block)?;
                if count == 0 {
                    break;
                }
                let at = Instant::now();
                hash.update(&block[..count]);
                taken += at.elapsed();
                bytes += count as u64;
            }
            std::hint::black_box(hash.finalize());
        }
    }
    Ok((bytes, taken.as_secs_f64()))
}
