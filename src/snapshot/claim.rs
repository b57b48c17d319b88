//! The place beside a target where something is made, for one process at a time.

use super::{SnapshotError, at, parent, receive::Target};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Takes it, empty: what an earlier attempt left there is removed. It is one's own for as long as the file
/// is open, also under another name.
pub(super) fn claim(stage: &Path, target: &Path, kind: Target) -> Result<File, SnapshotError> {
    let dir = parent(target);
    at(dir, DirBuilder::new().recursive(true).mode(0o700).create(dir))?;
    loop {
        let opened = at(stage, open(stage, kind))?;
        match opened.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SnapshotError::Busy(target.into())),
            Err(TryLockError::Error(error)) => return at(stage, Err(error)),
        }
        // Whoever had it may have put it where it belongs meanwhile.
        if is_at(stage, &opened) {
            at(stage, empty(stage, &opened, kind))?;
            return Ok(opened);
        }
    }
}

fn open(stage: &Path, kind: Target) -> io::Result<File> {
    if kind == Target::File {
        return OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(stage);
    }
    match DirBuilder::new().mode(0o700).create(stage) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(stage),
    }
}

fn is_at(stage: &Path, opened: &File) -> bool {
    let is_same = |there: fs::Metadata| {
        opened.metadata().is_ok_and(|it| (it.dev(), it.ino()) == (there.dev(), there.ino()))
    };
    fs::symlink_metadata(stage).is_ok_and(is_same)
}

fn empty(stage: &Path, opened: &File, kind: Target) -> io::Result<()> {
    if kind == Target::File {
        return opened.set_len(0);
    }
    for entry in fs::read_dir(stage)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_of_one_at_a_time_and_empty() {
        let root = tempfile::tempdir().unwrap();
        for (kind, name) in [(Target::Directory, "a"), (Target::File, "a.acta")] {
            let (target, stage) = (root.path().join(name), root.path().join(format!(".{name}")));
            let first = claim(&stage, &target, kind).unwrap();
            let left = if kind == Target::File { stage.clone() } else { stage.join("part") };
            fs::write(left, "of an attempt that was killed").unwrap();
            let second = claim(&stage, &target, kind);
            assert!(matches!(second, Err(SnapshotError::Busy(path)) if path == target));
            drop(first);
            let again = claim(&stage, &target, kind).unwrap();
            let is_empty = match kind {
                Target::File => fs::metadata(&stage).unwrap().len() == 0,
                Target::Directory => fs::read_dir(&stage).unwrap().next().is_none(),
            };
            assert!(is_empty, "{kind:?}");
            // What was put where it belongs stays as it is while another one begins.
            fs::rename(&stage, &target).unwrap();
            let next = claim(&stage, &target, kind).unwrap();
            assert!(is_at(&target, &again) && is_at(&stage, &next));
        }
    }
}
