//! A journal that fails as it is told to, and that watches what is visible too early.

use crate::{
    journal::{
        AppendError, CloseError, EncodedBlock, EraseError, Head, Journal, MemoryJournal, ReadError,
        ReadLimits, RecoverError, Refusal,
    },
    log::Log,
};
use acta_events::{LogId, Sequence, block::Block};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
};

/// What becomes of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// Nothing is written, and that is known.
    Refused,
    /// It is not known what was written: this many of its blocks.
    Unknown {
        blocks_written: usize,
    },
    /// As if somebody else had written.
    Conflict,
}

struct State {
    /// What readers may know of; behind what is stored while the outcome of an append is not known.
    head: Head,
    must_recover: bool,
    recoveries_to_fail: u32,
    fate: Box<dyn FnMut(usize) -> Fate + Send>,
    /// Appends that wait for the gate, and whether it is shut.
    waiting: usize,
    shut: bool,
    recovery_shut: bool,
    appends: usize,
}

/// A [`MemoryJournal`] with faults.
pub(super) struct Faulty {
    stored: MemoryJournal,
    state: Mutex<State>,
    changed: Condvar,
    log: Mutex<Weak<Log>>,
}

impl Faulty {
    pub(super) fn new(log: LogId) -> Arc<Self> {
        let state = State {
            head: Head::empty(log),
            must_recover: false,
            recoveries_to_fail: 0,
            fate: Box::new(|_| Fate::Done),
            waiting: 0,
            shut: false,
            recovery_shut: false,
            appends: 0,
        };
        Arc::new(Self {
            stored: MemoryJournal::new(log),
            state: Mutex::new(state),
            changed: Condvar::new(),
            log: Mutex::default(),
        })
    }

    /// From now on every append checks that nothing of it is visible in this log.
    pub(super) fn watch(&self, log: &Arc<Log>) {
        *self.log.lock() = Arc::downgrade(log);
    }

    /// Decides about every append from now on, given how many blocks it has.
    pub(super) fn fate(&self, fate: impl FnMut(usize) -> Fate + Send + 'static) {
        self.state.lock().fate = Box::new(fate);
    }

    /// Only the next append has this fate.
    pub(super) fn once(&self, fate: Fate) {
        let mut next = Some(fate);
        self.fate(move |_| next.take().unwrap_or(Fate::Done));
    }

    pub(super) fn fail_recoveries(&self, count: u32) {
        self.state.lock().recoveries_to_fail = count;
    }

    /// Holds appends until it is opened again.
    pub(super) fn shut(&self, shut: bool) {
        self.state.lock().shut = shut;
        self.changed.notify_all();
    }

    pub(super) fn shut_recovery(&self, shut: bool) {
        self.state.lock().recovery_shut = shut;
        self.changed.notify_all();
    }

    /// Returns when an append has come to the gate.
    pub(super) fn wait_for_append(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.waiting == 0);
    }

    pub(super) fn appends(&self) -> usize {
        self.state.lock().appends
    }

    /// Durable before visible: nothing of these blocks is to be seen anywhere.
    fn check_unseen(&self, first: Sequence) {
        let Some(log) = self.log.lock().upgrade() else { return };
        assert!(log.head() < first, "the head moved before the journal had {first}");
        assert!(log.views().read().position() < first, "the views were early with {first}");
        assert!(log.index().position() < first, "the index was early with {first}");
    }
}

impl Journal for Faulty {
    fn append(&self, expected: Sequence, blocks: &[EncodedBlock]) -> Result<Head, AppendError> {
        self.check_unseen(blocks[0].first);
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.shut);
        state.waiting -= 1;
        self.check_unseen(blocks[0].first);
        if state.must_recover {
            return Err(AppendError::Refused(Refusal::RecoverFirst));
        }
        state.appends += 1;
        match (state.fate)(blocks.len()) {
            Fate::Done => {
                state.head = self.stored.append(expected, blocks)?;
                Ok(state.head)
            }
            Fate::Refused => Err(AppendError::Refused(Refusal::TooLarge { bytes: 0 })),
            Fate::Conflict => {
                state.must_recover = true;
                Err(AppendError::Conflict { head: state.head })
            }
            Fate::Unknown { blocks_written } => {
                if blocks_written > 0 {
                    let count = blocks_written.min(blocks.len());
                    self.stored.append(expected, &blocks[..count])?;
                }
                state.must_recover = true;
                Err(AppendError::Unknown { why: "as the test wants it".into() })
            }
        }
    }

    fn read(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Arc<Block>>, ReadError> {
        let head = self.head().seq;
        let mut blocks = self.stored.read(after, limits)?;
        blocks.retain(|block| block.last() <= head);
        Ok(blocks)
    }

    fn head(&self) -> Head {
        self.state.lock().head
    }

    fn recover(&self) -> Result<Head, RecoverError> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.recovery_shut);
        if state.recoveries_to_fail > 0 {
            state.recoveries_to_fail -= 1;
            return Err(RecoverError::Io { why: "not yet".into() });
        }
        state.must_recover = false;
        state.head = self.stored.head();
        Ok(state.head)
    }

    fn erase(&self, contents: &BTreeSet<Sequence>) -> Result<(), EraseError> {
        self.stored.erase(contents)
    }

    fn close(&self) -> Result<(), CloseError> {
        Ok(())
    }
}
