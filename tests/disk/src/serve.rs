//! The disk as the kernel asks for it. Files bypass the page cache, so that every read and every
//! write comes here, in the size in which it was asked for.

use crate::tree::{Directory, File, Kind, Operation, PAGE_BYTES, Refusal, Tree};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use std::{
    ffi::OsStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Nobody but the kernel changes anything, so it may remember.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// What the disk claims to hold, in pages.
const PAGES: u64 = 1 << 22;
const NO_FLAGS: FopenFlags = FopenFlags::FOPEN_NOFLUSH;

pub(crate) struct Served(pub(crate) Arc<Mutex<Tree>>);

impl From<Refusal> for Errno {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Io => Self::EIO,
            Refusal::Full => Self::ENOSPC,
            Refusal::Missing => Self::ENOENT,
            Refusal::Exists => Self::EEXIST,
            Refusal::NotEmpty => Self::ENOTEMPTY,
            Refusal::Unfit => Self::EINVAL,
        }
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn attributes(tree: &Tree, number: u64) -> Result<FileAttr, Refusal> {
    let node = tree.node(number)?;
    let (kind, bytes) = match &node.kind {
        Kind::File(file) => (FileType::RegularFile, file.bytes.len() as u64),
        Kind::Directory(_) => (FileType::Directory, 0),
    };
    let links = if kind == FileType::Directory { 2 } else { tree.links(number) };
    let time = node.modified;
    Ok(FileAttr {
        ino: INodeNo(number),
        size: bytes,
        blocks: bytes.div_ceil(PAGE_BYTES as u64) * (PAGE_BYTES as u64 / 512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: node.mode,
        nlink: links,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn answer_entry(reply: ReplyEntry, found: Result<FileAttr, Refusal>) {
    match found {
        Ok(attributes) => reply.entry(&REMEMBERED, &attributes, Generation(0)),
        Err(refusal) => reply.error(refusal.into()),
    }
}

fn answer_empty(reply: ReplyEmpty, done: Result<(), Refusal>) {
    match done {
        Ok(()) => reply.ok(),
        Err(refusal) => reply.error(refusal.into()),
    }
}

fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0o600)
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let tree = self.0.lock();
        answer_entry(reply, tree.lookup(parent.0, name).and_then(|node| attributes(&tree, node)));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.0.lock(), node.0) {
            Ok(attributes) => reply.attr(&REMEMBERED, &attributes),
            Err(refusal) => reply.error(refusal.into()),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        length: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tree = self.0.lock();
        if let Some(mode) = mode {
            tree.set_mode(node.0, permissions(mode));
        }
        let done = length.map_or(Ok(()), |length| tree.set_length(node.0, size(length)));
        match done.and_then(|()| attributes(&tree, node.0)) {
            Ok(attributes) => reply.attr(&REMEMBERED, &attributes),
            Err(refusal) => reply.error(refusal.into()),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let mut tree = self.0.lock();
        let kind = Kind::Directory(Directory::default());
        let made = tree.create(parent.0, name, permissions(mode), kind);
        answer_entry(reply, made.and_then(|node| attributes(&tree, node)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(reply, self.0.lock().remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(reply, self.0.lock().remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if to != parent {
            return reply.error(Errno::EXDEV);
        }
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        answer_empty(reply, self.0.lock().rename(parent.0, name, to_name));
    }

    fn link(&self, _: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut tree = self.0.lock();
        let made = tree.link(node.0, parent.0, name);
        answer_entry(reply, made.and_then(|()| attributes(&tree, node.0)));
    }

    fn open(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut tree = self.0.lock();
        if let Err(refusal) = tree.node(node.0) {
            return reply.error(refusal.into());
        }
        tree.opened(node.0);
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | NO_FLAGS);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut tree = self.0.lock();
        let made = tree.create(parent.0, name, permissions(mode), Kind::File(File::default()));
        match made.and_then(|node| attributes(&tree, node)) {
            Ok(attributes) => {
                tree.opened(attributes.ino.0);
                let flags = FopenFlags::FOPEN_DIRECT_IO | NO_FLAGS;
                reply.created(&REMEMBERED, &attributes, Generation(0), FileHandle(0), flags);
            }
            Err(refusal) => reply.error(refusal.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut tree = self.0.lock();
        let begun = tree.begin(Operation::Read, node.0);
        match begun.and_then(|()| tree.file(node.0)) {
            Ok(file) => {
                let from = size(offset).min(file.bytes.len());
                let to = from.saturating_add(length as usize).min(file.bytes.len());
                reply.data(&file.bytes[from..to]);
            }
            Err(refusal) => reply.error(refusal.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.lock().write(node.0, size(offset), data) {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
            Err(refusal) => reply.error(refusal.into()),
        }
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.lock().closed(node.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer_empty(reply, self.0.lock().sync(node.0));
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer_empty(reply, self.0.lock().sync(node.0));
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tree = self.0.lock();
        let directory = match tree.directory(node.0) {
            Ok(directory) => directory,
            Err(refusal) => return reply.error(refusal.into()),
        };
        // A place is the number of a node and not a count, so that a name which is removed between
        // two calls does not hide another. Further names of one node come together.
        let mut names: Vec<_> = directory.names.iter().map(|(name, node)| (*node, name)).collect();
        names.sort();
        for (node, name) in names.into_iter().filter(|(node, _)| *node > offset) {
            let kind = match tree.node(node).map(|node| &node.kind) {
                Ok(Kind::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(node), node, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let free = self.0.lock().room.unwrap_or(PAGES / 2);
        reply.statfs(PAGES, free, free, PAGES, PAGES / 2, 4096, 255, 4096);
    }
}
