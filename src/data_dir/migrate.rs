//! Taking over a data directory of an older format, with a way back.
//!
//! ```text
//! <data>/before-format-<n>/     what the older version would open: acta.json, HEAD, log-<n>,
//!                               commit-<n> copied, segments as further names of the same files
//! ```
//!
//! It is complete before acta.json says anything new, so that a crash in between takes it over
//! again. To go back, stop the service and put what is in there in the place of what has the same
//! names; records that came since are then gone. Contents in files do not change. An erasure
//! removes it, since what is erased would stand in it.

use super::{DataDirError, IDENTITY};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
};

const PREFIX: &str = "before-format-";

/// Keeps what the older version would open.
pub(super) fn keep_way_back(data: &Path, format: u32) -> Result<(), DataDirError> {
    keep(data, format).map_err(|source| DataDirError::Io { path: data.into(), source })
}

fn keep(data: &Path, format: u32) -> io::Result<()> {
    let kept = data.join(format!("{PREFIX}{format}"));
    let unfinished = kept.with_extension("unfinished");
    if kept.exists() {
        return Ok(());
    }
    remove(&unfinished)?;
    DirBuilder::new().mode(0o700).create(&unfinished)?;
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let of_the_log = matches!(&*text, IDENTITY | "HEAD" | "segments")
            || text.starts_with("log-")
            || text.starts_with("commit-");
        if of_the_log {
            copy(&entry.path(), &unfinished.join(&name), text == "segments")?;
        }
    }
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, &kept)?;
    File::open(data)?.sync_all()
}

/// Segments are never written to again, so that another name is as good as a copy.
fn copy(from: &Path, to: &Path, is_final: bool) -> io::Result<()> {
    if !fs::metadata(from)?.is_dir() {
        if is_final && fs::hard_link(from, to).is_ok() {
            return Ok(());
        }
        fs::copy(from, to)?;
        return File::open(to)?.sync_all();
    }
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()), is_final)?;
    }
    File::open(to)?.sync_all()
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives up every way back: something is to be erased that may stand there.
pub(crate) fn remove_ways_back(data: &Path) -> io::Result<()> {
    let mut some = false;
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove(&entry.path())?;
            some = true;
        }
    }
    if some { File::open(data)?.sync_all() } else { Ok(()) }
}
