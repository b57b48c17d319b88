//! Following a log from block to block, and copying it to a store of its own.

use super::{
    Head, ReadError, RecoverError,
    pending::View,
    sled_store::{Disk, Store},
    walk::{Walk, damaged},
};
use acta_events::{Sequence, block::Block};
use parking_lot::RwLock;
use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

/// A copy is flushed whenever it has grown by this much.
const COPY_FLUSH_BYTES: usize = 4 * 1024 * 1024;

/// What a log has to hold at least.
#[derive(Clone, Copy)]
pub(super) struct Durable {
    /// What HEAD says.
    pub(super) head: Head,
    /// The last sequence that is known of, at or beyond that.
    pub(super) at_least: Sequence,
}

impl Durable {
    pub(super) fn new(head: Head, pending: Option<Sequence>) -> Self {
        Self { head, at_least: head.seq.max(pending.unwrap_or(Sequence::ZERO)) }
    }
}

/// Follows the chain from some way before HEAD to the end. Returns where that is, and the bytes of the
/// blocks that are not sealed, as far as they were passed.
pub(super) fn verify(
    view: &View<'_>,
    durable: Durable,
    records: u64,
) -> Result<(Head, u64), ReadError> {
    let from = Sequence(durable.head.seq.0.saturating_sub(records)).next();
    let sealed = view.segments.last();
    let mut bytes = 0;
    let end = follow(view, from, durable, |block, stored| {
        if block.first() > sealed {
            bytes += stored.len() as u64;
        }
        Ok::<_, ReadError>(())
    })?;
    Ok((end, bytes))
}

/// Follows the chain from the block with `from` to the end, through the durable head.
fn follow<E: From<ReadError>>(
    view: &View<'_>,
    from: Sequence,
    durable: Durable,
    mut visit: impl FnMut(&Block, &[u8]) -> Result<(), E>,
) -> Result<Head, E> {
    let head = durable.head;
    let mut walk = Walk::new(view, from, durable.at_least);
    let mut end = view.segments.begin_head();
    while let Some((block, stored)) = walk.step()? {
        let (first, last) = (block.first(), block.last());
        let holds_head = first <= head.seq && head.seq <= last;
        if holds_head && (last, block.digest) != (head.seq, head.block) {
            let why = "the block is not the one that HEAD names; this is another history";
            return Err(damaged(first, last, why).into());
        }
        visit(&block, &stored)?;
        end = Head { seq: last, block: block.digest };
    }
    Ok(end)
}

/// Copies what is not sealed to a fresh store and makes it durable there. Returns that and the end
/// of the log.
pub(super) fn copy(
    from: &View<'_>,
    durable: Durable,
    target: &Path,
    disk: &Arc<dyn Disk>,
) -> Result<(Store, Head), RecoverError> {
    let io = |why: String| RecoverError::Io { why };
    let store = Store::open(target, true, Arc::clone(disk))
        .map_err(|error| io(format!("the copy: {error:?}")))?;
    let sealed = from.segments.end()?;
    if durable.at_least <= sealed.seq {
        store.sync().map_err(|fault| io(fault.to_string()))?;
        return Ok((store, sealed));
    }
    let tail = sealed.seq.next();
    let mut unsynced = 0;
    let end = follow(from, tail, durable, |block, stored| {
        store.insert(block.first(), stored).map_err(|fault| io(fault.to_string()))?;
        unsynced += stored.len();
        if unsynced >= COPY_FLUSH_BYTES {
            unsynced = 0;
            store.sync().map_err(|fault| io(fault.to_string()))?;
        }
        Ok::<_, RecoverError>(())
    })?;
    store.sync().map_err(|fault| io(fault.to_string()))?;
    // What was written is what is read, or it is not taken into use.
    let copied = View { segments: from.segments, store: &store, pending: &RwLock::default() };
    let there = Durable { head: end, at_least: end.seq };
    if follow(&copied, tail, there, |_, _| Ok::<_, ReadError>(()))? != end {
        return Err(io("the copy does not end where the original does".into()));
    }
    Ok((store, end))
}

pub(super) fn store_name(number: u32) -> String {
    format!("log-{number}")
}

pub(super) fn remove_store(dir: &Path, number: u32) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(store_name(number))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::open(dir)?.sync_all(),
    }
}

/// The numbers of the stores that HEAD does not name: copies that were not finished, or the
/// original of one that was.
pub(super) fn other_stores(dir: &Path, current: u32) -> io::Result<Vec<u32>> {
    let mut others = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("log-")?.parse::<u32>().ok());
        others.extend(number.filter(|number| *number != current));
    }
    Ok(others)
}

/// Removes them. What cannot be removed now is tried again at the next start.
pub(super) fn remove_other_stores(dir: &Path, current: u32) {
    for number in other_stores(dir, current).unwrap_or_default() {
        if let Err(error) = remove_store(dir, number) {
            tracing::warn!(%error, number, "a store that is no longer used was not removed");
        }
    }
}
