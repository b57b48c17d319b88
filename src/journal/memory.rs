//! A journal in memory, for tests and for services that need not outlive their process.

use super::{
    AppendError, CloseError, EncodedBlock, EraseError, Head, Journal, ReadError, ReadLimits,
    RecoverError, Refusal, check_blocks,
};
use acta_events::{LogId, Sequence, block::Block};
use bytes::Bytes;
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Keeps encoded blocks in memory. "Durable" lasts as long as the value.
#[derive(Debug)]
pub struct MemoryJournal {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    head: Head,
    closed: bool,
    /// By first sequence.
    blocks: BTreeMap<u64, Bytes>,
}

impl MemoryJournal {
    /// An empty log.
    pub fn new(log: LogId) -> Self {
        let state = State { head: Head::empty(log), closed: false, blocks: BTreeMap::new() };
        Self { state: RwLock::new(state) }
    }
}

impl Journal for MemoryJournal {
    fn append(&self, expected: Sequence, blocks: &[EncodedBlock]) -> Result<Head, AppendError> {
        let mut state = self.state.write();
        if state.closed {
            return Err(AppendError::Refused(Refusal::Closed));
        }
        if expected != state.head.seq {
            return Err(AppendError::Conflict { head: state.head });
        }
        let head = check_blocks(state.head, blocks).map_err(AppendError::Refused)?;
        state.blocks.extend(blocks.iter().map(|block| (block.first.0, block.bytes.clone())));
        state.head = head;
        Ok(head)
    }

    fn read(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Arc<Block>>, ReadError> {
        let state = self.state.read();
        if state.closed {
            return Err(ReadError::Io { why: "the log is closed".into() });
        }
        let wanted = after.next().0;
        if after >= state.head.seq {
            return Ok(Vec::new());
        }
        let from = state.blocks.range(..=wanted).next_back().map_or(wanted, |(first, _)| *first);
        let mut found = Vec::new();
        let mut bytes = 0_usize;
        for (first, stored) in state.blocks.range(from..) {
            bytes = bytes.saturating_add(stored.len());
            let full = found.len() >= limits.blocks || bytes > limits.bytes;
            if full && !found.is_empty() {
                break;
            }
            let block = Block::decode(stored.clone()).map_err(|error| ReadError::Damaged {
                first: Sequence(*first),
                last: Sequence(*first),
                why: error.to_string(),
            })?;
            found.push(Arc::new(block));
        }
        Ok(found)
    }

    fn head(&self) -> Head {
        self.state.read().head
    }

    fn recover(&self) -> Result<Head, RecoverError> {
        let state = self.state.read();
        if state.closed { Err(RecoverError::Closed) } else { Ok(state.head) }
    }

    fn erase(&self, contents: &BTreeSet<Sequence>) -> Result<(), EraseError> {
        let mut state = self.state.write();
        if state.closed {
            return Err(EraseError::Closed);
        }
        for (first, stored) in &mut state.blocks {
            let block = Block::decode(stored.clone()).map_err(|error| {
                EraseError::Damaged(ReadError::Damaged {
                    first: Sequence(*first),
                    last: Sequence(*first),
                    why: error.to_string(),
                })
            })?;
            if let Some((_, bytes)) = block.erased(|seq| contents.contains(&seq)) {
                *stored = bytes;
            }
        }
        Ok(())
    }

    fn close(&self) -> Result<(), CloseError> {
        self.state.write().closed = true;
        Ok(())
    }
}
