//! Reads a log on several threads and gives it in order. Decompressing, decoding and checking digests
//! is most of what a verification does, and none of it depends upon what came before.

use crate::journal::{Journal, ReadLimits};
use acta_events::{Sequence, block::Block};
use anyhow::Result;
use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

/// What a thread reads at a time, in records. It is all in memory, two of these for each thread.
const CHUNK_RECORDS: u64 = 4_096;
/// How many blocks are read before it is known how many records they have.
const FIRST_BLOCKS: u64 = 16;
const BLOCKS_MAX: u64 = 64;
const THREADS_MAX: usize = 4;

/// Gives blocks from the first record on to `visit`, in order, until it breaks, or where a log cannot
/// be read: why is for whoever reads on from there to find out. The first of some blocks may have been
/// given before. Reads nothing where there is one processor.
pub(super) fn read(
    journal: &dyn Journal,
    mut visit: impl FnMut(Vec<Arc<Block>>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    if threads == 1 {
        return Ok(());
    }
    let head = journal.head().seq;
    thread::scope(|scope| {
        let mut chunks = Vec::new();
        for number in 0..threads {
            let (sender, receiver) = sync_channel(1);
            let begins = (0..head.0).step_by(CHUNK_RECORDS as usize);
            let begins = begins.skip(number).step_by(threads).map(Sequence);
            scope.spawn(move || send_chunks(journal, head, begins, &sender));
            chunks.push(receiver);
        }
        // Chunk n is the business of thread n modulo their number, so that this is their order.
        for receiver in chunks.iter().cycle() {
            let Ok(blocks) = receiver.recv() else { break };
            if visit(blocks)?.is_break() {
                break;
            }
        }
        Ok(())
    })
}

/// Reads chunks until there are no more, one cannot be read, or nobody wants them any more.
fn send_chunks(
    journal: &dyn Journal,
    head: Sequence,
    begins: impl Iterator<Item = Sequence>,
    sender: &SyncSender<Vec<Arc<Block>>>,
) {
    for after in begins {
        let end = Sequence(after.0.saturating_add(CHUNK_RECORDS)).min(head);
        let Some(blocks) = chunk(journal, after, end) else { return };
        if sender.send(blocks).is_err() {
            return;
        }
    }
}

/// The blocks with the records up to `end`, from the one that holds the record after `after`.
fn chunk(journal: &dyn Journal, after: Sequence, end: Sequence) -> Option<Vec<Arc<Block>>> {
    let mut blocks: Vec<Arc<Block>> = Vec::new();
    let mut position = after;
    let mut wanted = FIRST_BLOCKS;
    while position < end {
        let limits = ReadLimits { blocks: wanted.clamp(1, BLOCKS_MAX) as usize, bytes: 8 << 20 };
        let read = journal.read(position, limits).ok()?;
        position = read.last()?.last();
        blocks.extend(read);
        // As many as it takes for the rest, so that little is read twice.
        let so_far = position.0.saturating_sub(after.0).max(1);
        let rest = end.0.saturating_sub(position.0);
        wanted = (rest * blocks.len() as u64).div_ceil(so_far);
    }
    Some(blocks)
}
