//! Which snapshots there are in a directory.

use super::{Manifest, Snapshot};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A snapshot in a directory of snapshots.
#[derive(Debug)]
pub struct Listed {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself, or why it cannot be told.
    pub manifest: Result<Manifest, String>,
}

/// All snapshots in a directory, oldest first; those that cannot be read come first. What is no
/// snapshot, or not complete, is passed over.
pub fn list(dir: &Path) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let looks_like_one = path.join(Manifest::NAME).exists() || name.ends_with(".acta");
        if name.starts_with('.') || !looks_like_one {
            continue;
        }
        let manifest = Snapshot::open(&path).map(|snapshot| snapshot.manifest().clone());
        if manifest.is_err() && !path.exists() {
            // It was removed meanwhile.
            continue;
        }
        found.push(Listed { path, manifest: manifest.map_err(|error| error.to_string()) });
    }
    found.sort_by_key(|listed| listed.manifest.as_ref().ok().map(|it| (it.taken, it.sequence)));
    Ok(found)
}
