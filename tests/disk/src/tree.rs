//! What is on the disk: files and directories as they are now, and as they would be found again.

use crate::Loss;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    time::SystemTime,
};

/// Disks write this much at once.
pub(crate) const PAGE_BYTES: usize = 4096;
/// The number of the topmost directory.
pub(crate) const ROOT: u64 = 1;

/// What can be done to a disk, and made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reading from a file.
    Read,
    /// Writing to a file, or changing its length.
    Write,
    /// Syncing a file or a directory.
    Sync,
    /// Renaming.
    Rename,
    /// Making a file, a directory or a further name.
    Create,
    /// Removing a name.
    Remove,
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Io,
    Full,
    Missing,
    Exists,
    NotEmpty,
    /// Not of the kind that this can be done to.
    Unfit,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Pages that differ from what is synced and that a sync would write.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    pub(crate) names: BTreeMap<OsString, u64>,
    synced: BTreeMap<OsString, u64>,
    /// What happened since, in order.
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Set(OsString, u64),
    Remove(OsString),
    Rename(OsString, OsString),
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    File(File),
    Directory(Directory),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    pub(crate) modified: SystemTime,
    /// How many have it open.
    open: usize,
}

impl Node {
    fn new(kind: Kind, mode: u16) -> Self {
        Self { kind, mode, modified: SystemTime::now(), open: 0 }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    counts: BTreeMap<Operation, u64>,
    fail_at: Option<(Operation, u64)>,
    cut_at: Option<u64>,
    pub(crate) fails: Option<Operation>,
    pub(crate) failed: Option<String>,
    pub(crate) room: Option<u64>,
    pub(crate) ran_out: bool,
    pub(crate) ignores_syncs: bool,
    pub(crate) is_dead: bool,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node::new(Kind::Directory(Directory::default()), 0o755);
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            counts: BTreeMap::new(),
            fail_at: None,
            cut_at: None,
            fails: None,
            failed: None,
            room: None,
            ran_out: false,
            ignores_syncs: false,
            is_dead: false,
        }
    }
}

impl Tree {
    pub(crate) fn count(&self, kind: Operation) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    fn changes(&self) -> u64 {
        let counts = self.counts.iter();
        counts.filter(|(kind, _)| **kind != Operation::Read).map(|(_, count)| count).sum()
    }

    pub(crate) fn fail_once(&mut self, kind: Operation, after: u64) {
        self.failed = None;
        self.fail_at = Some((kind, self.count(kind) + after));
    }

    pub(crate) fn cut_after(&mut self, operations: u64) {
        self.cut_at = Some(self.changes() + operations);
    }

    /// Counts an operation; refuses it if that is what is wanted.
    pub(crate) fn begin(&mut self, kind: Operation, node: u64) -> Result<(), Refusal> {
        if self.is_dead {
            return Err(Refusal::Io);
        }
        if kind != Operation::Read && self.cut_at.is_some_and(|at| self.changes() >= at) {
            self.is_dead = true;
            return Err(Refusal::Io);
        }
        let count = self.counts.entry(kind).or_default();
        let is_it = self.fail_at == Some((kind, *count));
        *count += 1;
        if self.fails == Some(kind) {
            return Err(Refusal::Io);
        }
        if is_it {
            self.fail_at = None;
            self.failed = Some(format!("{kind:?} of {}", self.name_of(node)));
            return Err(Refusal::Io);
        }
        Ok(())
    }

    fn name_of(&self, node: u64) -> String {
        let named = self.nodes.values().find_map(|parent| match &parent.kind {
            Kind::Directory(directory) => {
                directory.names.iter().find(|(_, child)| **child == node).map(|(name, _)| name)
            }
            Kind::File(_) => None,
        });
        named.map_or_else(|| format!("#{node}"), |name| name.to_string_lossy().into_owned())
    }

    pub(crate) fn node(&self, node: u64) -> Result<&Node, Refusal> {
        if self.is_dead {
            return Err(Refusal::Io);
        }
        self.nodes.get(&node).ok_or(Refusal::Missing)
    }

    pub(crate) fn file(&self, node: u64) -> Result<&File, Refusal> {
        match &self.node(node)?.kind {
            Kind::File(file) => Ok(file),
            Kind::Directory(_) => Err(Refusal::Unfit),
        }
    }

    pub(crate) fn directory(&self, node: u64) -> Result<&Directory, Refusal> {
        match &self.node(node)?.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) => Err(Refusal::Unfit),
        }
    }

    fn file_mut(&mut self, node: u64) -> Result<&mut File, Refusal> {
        let node = self.nodes.get_mut(&node).ok_or(Refusal::Missing)?;
        node.modified = SystemTime::now();
        match &mut node.kind {
            Kind::File(file) => Ok(file),
            Kind::Directory(_) => Err(Refusal::Unfit),
        }
    }

    fn directory_mut(&mut self, node: u64) -> Result<&mut Directory, Refusal> {
        match self.nodes.get_mut(&node).map(|node| &mut node.kind) {
            Some(Kind::Directory(directory)) => Ok(directory),
            Some(Kind::File(_)) => Err(Refusal::Unfit),
            None => Err(Refusal::Missing),
        }
    }

    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> Result<u64, Refusal> {
        self.directory(parent)?.names.get(name).copied().ok_or(Refusal::Missing)
    }

    /// How many names a node has.
    pub(crate) fn links(&self, node: u64) -> u32 {
        let named = self.nodes.values().map(|parent| match &parent.kind {
            Kind::Directory(directory) => {
                directory.names.values().filter(|child| **child == node).count()
            }
            Kind::File(_) => 0,
        });
        u32::try_from(named.sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// Takes up to that many pages of the room there is.
    fn take_room(&mut self, pages: u64) -> u64 {
        match &mut self.room {
            None => pages,
            Some(left) => {
                let taken = pages.min(*left);
                *left -= taken;
                self.ran_out |= taken < pages;
                taken
            }
        }
    }

    fn add_name(&mut self, parent: u64, name: &OsStr, node: u64) -> Result<(), Refusal> {
        let directory = self.directory_mut(parent)?;
        directory.names.insert(name.to_owned(), node);
        directory.changes.push(Change::Set(name.to_owned(), node));
        Ok(())
    }

    pub(crate) fn create(
        &mut self,
        parent: u64,
        name: &OsStr,
        mode: u16,
        kind: Kind,
    ) -> Result<u64, Refusal> {
        self.begin(Operation::Create, parent)?;
        if self.directory(parent)?.names.contains_key(name) {
            return Err(Refusal::Exists);
        }
        if self.take_room(1) == 0 {
            return Err(Refusal::Full);
        }
        let node = self.next;
        self.next += 1;
        self.nodes.insert(node, Node::new(kind, mode));
        self.add_name(parent, name, node)?;
        Ok(node)
    }

    pub(crate) fn link(&mut self, node: u64, parent: u64, name: &OsStr) -> Result<(), Refusal> {
        self.begin(Operation::Create, node)?;
        if self.directory(parent)?.names.contains_key(name) {
            return Err(Refusal::Exists);
        }
        if self.take_room(1) == 0 {
            return Err(Refusal::Full);
        }
        self.add_name(parent, name, node)
    }

    pub(crate) fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Refusal> {
        let node = self.lookup(parent, name)?;
        self.begin(Operation::Remove, node)?;
        if self.directory(node).is_ok_and(|directory| !directory.names.is_empty()) {
            return Err(Refusal::NotEmpty);
        }
        let directory = self.directory_mut(parent)?;
        directory.names.remove(name);
        directory.changes.push(Change::Remove(name.to_owned()));
        Ok(())
    }

    /// Within one directory, which is all that is needed.
    pub(crate) fn rename(&mut self, parent: u64, from: &OsStr, to: &OsStr) -> Result<(), Refusal> {
        let node = self.lookup(parent, from)?;
        self.begin(Operation::Rename, node)?;
        let directory = self.directory_mut(parent)?;
        directory.names.remove(from);
        directory.names.insert(to.to_owned(), node);
        directory.changes.push(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Writes what there is room for, and says how much that was.
    pub(crate) fn write(&mut self, node: u64, at: usize, data: &[u8]) -> Result<usize, Refusal> {
        self.begin(Operation::Write, node)?;
        let there = self.file(node)?.bytes.len().div_ceil(PAGE_BYTES);
        let wanted = (at + data.len()).div_ceil(PAGE_BYTES).saturating_sub(there);
        let taken = usize::try_from(self.take_room(wanted as u64)).unwrap_or(wanted);
        let end = if taken == wanted {
            at + data.len()
        } else {
            ((there + taken) * PAGE_BYTES).min(at + data.len())
        };
        if end <= at {
            return Err(Refusal::Full);
        }
        let file = self.file_mut(node)?;
        if file.bytes.len() < end {
            let before = file.bytes.len();
            file.bytes.resize(end, 0);
            file.dirty.extend(before / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
        }
        file.bytes[at..end].copy_from_slice(&data[..end - at]);
        file.dirty.extend(at / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
        Ok(end - at)
    }

    pub(crate) fn set_length(&mut self, node: u64, length: usize) -> Result<(), Refusal> {
        self.begin(Operation::Write, node)?;
        let before = self.file(node)?.bytes.len();
        let pages = length.div_ceil(PAGE_BYTES).saturating_sub(before.div_ceil(PAGE_BYTES)) as u64;
        if self.take_room(pages) < pages {
            return Err(Refusal::Full);
        }
        let file = self.file_mut(node)?;
        file.bytes.resize(length, 0);
        let (from, to) = (before.min(length), before.max(length));
        file.dirty.extend(from / PAGE_BYTES..to.div_ceil(PAGE_BYTES));
        Ok(())
    }

    pub(crate) fn set_mode(&mut self, node: u64, mode: u16) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.mode = mode;
        }
    }

    pub(crate) fn opened(&mut self, node: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.open += 1;
        }
    }

    pub(crate) fn closed(&mut self, node: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.open = node.open.saturating_sub(1);
        }
        self.forget_nameless();
    }

    pub(crate) fn sync(&mut self, node: u64) -> Result<(), Refusal> {
        let begun = self.begin(Operation::Sync, node);
        if self.is_dead {
            return Err(Refusal::Io);
        }
        if self.ignores_syncs {
            return begun;
        }
        match self.nodes.get_mut(&node).map(|node| &mut node.kind) {
            Some(Kind::File(file)) => {
                let dirty = std::mem::take(&mut file.dirty);
                begun?;
                file.synced.resize(file.bytes.len(), 0);
                file.put_pages(dirty);
            }
            Some(Kind::Directory(directory)) => {
                begun?;
                directory.synced.clone_from(&directory.names);
                directory.changes.clear();
                self.forget_nameless();
            }
            None => return Err(Refusal::Missing),
        }
        Ok(())
    }

    /// Drops what has no name, now and after a power loss, and is not open.
    fn forget_nameless(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Kind::Directory(directory) = &node.kind {
                named.extend(directory.names.values().chain(directory.synced.values()));
                named.extend(directory.changes.iter().filter_map(|change| match change {
                    Change::Set(_, node) => Some(*node),
                    Change::Remove(_) | Change::Rename(..) => None,
                }));
            }
        }
        self.nodes.retain(|number, node| node.open > 0 || named.contains(number));
    }

    /// What is found after a loss, with nothing left of orders to fail.
    pub(crate) fn survives(&self, loss: Loss) -> Self {
        let mut dice = match loss {
            Loss::Some(seed) => Some(Dice(seed)),
            Loss::Nothing | Loss::Unsynced => None,
        };
        let mut nodes = self.nodes.clone();
        for node in nodes.values_mut() {
            node.open = 0;
            if loss == Loss::Nothing {
                continue;
            }
            match &mut node.kind {
                Kind::File(file) => file.lose(dice.as_mut()),
                Kind::Directory(directory) => directory.lose(dice.as_mut()),
            }
        }
        let mut left = Self { nodes, next: self.next, ..Self::default() };
        left.forget_nameless();
        left
    }
}

impl File {
    /// Pages as they are now take the place of those that are synced.
    fn put_pages(&mut self, pages: impl IntoIterator<Item = usize>) {
        for page in pages {
            let from = page * PAGE_BYTES;
            let to = (from + PAGE_BYTES).min(self.synced.len()).min(self.bytes.len());
            if from < to {
                self.synced[from..to].copy_from_slice(&self.bytes[from..to]);
            }
        }
    }

    fn lose(&mut self, dice: Option<&mut Dice>) {
        if let Some(dice) = dice {
            if dice.is_heads() {
                self.synced.resize(self.bytes.len(), 0);
            }
            let kept: Vec<_> = self.dirty.iter().copied().filter(|_| dice.is_heads()).collect();
            self.put_pages(kept);
        }
        self.dirty.clear();
        self.bytes.clone_from(&self.synced);
    }
}

impl Directory {
    fn lose(&mut self, dice: Option<&mut Dice>) {
        let kept = dice.map_or(0, |dice| dice.below(self.changes.len() + 1));
        for change in self.changes.drain(..).take(kept) {
            match change {
                Change::Set(name, node) => {
                    self.synced.insert(name, node);
                }
                Change::Remove(name) => {
                    self.synced.remove(&name);
                }
                Change::Rename(from, to) => {
                    if let Some(node) = self.synced.remove(&from) {
                        self.synced.insert(to, node);
                    }
                }
            }
        }
        self.names.clone_from(&self.synced);
    }
}

/// SplitMix64: the same seed, the same losses.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn is_heads(&mut self) -> bool {
        self.roll() & 1 == 1
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end as u64).unwrap_or(0)
    }
}
