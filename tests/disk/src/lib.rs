//! A disk for tests: a file system in memory that knows what is synced and what is not.
//!
//! ```text
//! Image ── Disk::mount ──► a directory, used by whoever is tested
//!   ▲                              │ operations of a kind fail once, room runs out,
//!   └────── Disk::end(Loss) ◄──────┘ or from some operation on nothing works any more
//! ```
//!
//! What survives a power loss is what was synced: of a file its pages and its length, by `fsync`
//! or `fdatasync` on it; of a directory its names, by `fsync` on it. `sync_file_range` counts as
//! nothing, as it does for the length of a file and the cache of a drive. A sync that fails makes
//! the pages it was for clean, as Linux does: they can still be read, and no later sync
//! writes them.
//!
//! It is mounted through `/dev/fuse`, which takes root. Ending it aborts what is under way
//! and detaches it, so that neither an open file nor a thread that waits keeps it.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "these are tests"))]

mod serve;
mod tree;

pub use tree::Operation;

use fuser::{BackgroundSession, Config, MountOption};
use nix::mount::{MntFlags, umount2};
use parking_lot::Mutex;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tree::Tree;

/// What is on a disk while it is not mounted. The default is an empty one.
#[derive(Clone, Debug, Default)]
pub struct Image(Tree);

/// What becomes of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it is there: only processes have ended.
    Nothing,
    /// Nothing of it is there.
    Unsynced,
    /// Some of it is there, page by page, chosen by this seed: disks write when they like, and
    /// a write may be torn between two pages. Names change in order, up to some change.
    Some(u64),
}

/// A mounted disk. Dropping it ends it.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    tree: Arc<Mutex<Tree>>,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// Mounts it on a directory.
    ///
    /// # Panics
    /// If that is not possible, telling what it takes.
    pub fn mount(at: &Path, image: Image) -> Self {
        Self::try_mount(at, image).unwrap_or_else(|error| {
            panic!(
                "the test disk cannot be mounted on {}: {error}. It takes root, /dev/fuse, and a \
                 kernel with FUSE; in a container, --device /dev/fuse --cap-add SYS_ADMIN",
                at.display()
            )
        })
    }

    fn try_mount(at: &Path, image: Image) -> io::Result<Self> {
        let tree = Arc::new(Mutex::new(image.0));
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName("acta-test-disk".into()), MountOption::NoAtime];
        let session = fuser::spawn_mount(serve::Served(Arc::clone(&tree)), at, &config)?;
        Ok(Self { at: at.to_owned(), tree, session: Some(session) })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// How many operations of a kind there were, failed ones included.
    pub fn count(&self, kind: Operation) -> u64 {
        self.tree.lock().count(kind)
    }

    /// The operation of this kind after `after` more of them fails with an I/O error, once.
    pub fn fail_once(&self, kind: Operation, after: u64) {
        self.tree.lock().fail_once(kind, after);
    }

    /// From now on every operation of this kind fails; none ends that.
    pub fn fail_always(&self, kind: Option<Operation>) {
        self.tree.lock().fails = kind;
    }

    /// Which operation was failed once, and on what: none if it has not come to that.
    pub fn failed(&self) -> Option<String> {
        self.tree.lock().failed.clone()
    }

    /// So many pages are left for files to grow and names to be made; none ends the shortage.
    /// What is removed gives nothing back.
    pub fn set_room(&self, pages: Option<u64>) {
        self.tree.lock().room = pages;
    }

    /// Whether no room is left.
    pub fn is_full(&self) -> bool {
        self.tree.lock().room == Some(0)
    }

    /// Whether something ever found too little room.
    pub fn ran_out(&self) -> bool {
        self.tree.lock().ran_out
    }

    /// From now on syncs do nothing and say that all is well.
    pub fn ignore_syncs(&self) {
        self.tree.lock().ignores_syncs = true;
    }

    /// Cuts the power after that many more operations that change something: from then on
    /// nothing works, and nothing changes any more.
    pub fn cut_power_after(&self, operations: u64) {
        self.tree.lock().cut_after(operations);
    }

    /// Cuts the power now.
    pub fn cut_power(&self) {
        self.tree.lock().is_dead = true;
    }

    /// Whether the power was cut.
    pub fn is_dead(&self) -> bool {
        self.tree.lock().is_dead
    }

    /// Unmounts it and tells what is left.
    pub fn end(mut self, loss: Loss) -> Image {
        self.unmount();
        Image(self.tree.lock().survives(loss))
    }

    fn unmount(&mut self) {
        let Some(session) = self.session.take() else { return };
        // Forced, so that whoever waits for an answer is let go; detached, since files may be open.
        // It may be gone already, which is all that is wanted.
        let _ = umount2(&self.at, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
        // Ends with the connection. An error says only that it was aborted.
        let _ = session.umount_and_join();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[cfg(test)]
mod tests;
