//! Orders that cannot be carried out at once, or at all.

use super::EraserOwner;
use crate::{
    index::Index,
    journal::{
        AppendError, CloseError, EncodedBlock, EraseError, Head, Journal, MemoryJournal, ReadError,
        ReadLimits, RecoverError,
        test_blocks::{ALL, append_each, block_after, log},
    },
    log::{Contents, Log},
    redaction_list::{ApplyError, apply},
};
use acta_events::{ContentBody, Sequence, block::Block};
use parking_lot::Mutex;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// What becomes of an attempt to erase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fails,
    Panics,
}

/// A journal that erases what it is told to, but not at first, and never what is damaged.
struct Reluctant {
    stored: MemoryJournal,
    /// Of the next attempts, the next one last.
    fates: Mutex<Vec<Fate>>,
    damaged: Option<Sequence>,
}

impl Journal for Reluctant {
    fn append(&self, expected: Sequence, blocks: &[EncodedBlock]) -> Result<Head, AppendError> {
        self.stored.append(expected, blocks)
    }

    fn read(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Arc<Block>>, ReadError> {
        self.stored.read(after, limits)
    }

    fn head(&self) -> Head {
        self.stored.head()
    }

    fn recover(&self) -> Result<Head, RecoverError> {
        self.stored.recover()
    }

    fn erase(&self, contents: &BTreeSet<Sequence>) -> Result<(), EraseError> {
        match self.fates.lock().pop() {
            Some(Fate::Fails) => return Err(EraseError::Io { why: "no space left".into() }),
            Some(Fate::Panics) => panic!("as a defect would"),
            None => {}
        }
        match self.damaged.filter(|damaged| contents.contains(damaged)) {
            Some(seq) => {
                let why = "for the test".into();
                Err(EraseError::Damaged(ReadError::Damaged { first: seq, last: seq, why }))
            }
            None => self.stored.erase(contents),
        }
    }

    fn close(&self) -> Result<(), CloseError> {
        self.stored.close()
    }
}

/// A log of three records with contents, each in a block of its own.
fn a_log(fates: &[Fate], damaged: Option<Sequence>) -> (Arc<Reluctant>, Arc<Log>) {
    let fates = Mutex::new(fates.iter().rev().copied().collect());
    let journal = Arc::new(Reluctant { stored: MemoryJournal::new(log()), fates, damaged });
    for _ in 0..3 {
        append_each(&*journal, &[block_after(journal.head(), 1, 100)]);
    }
    let opened = Log::open(
        log(),
        Arc::clone(&journal) as _,
        Index::in_memory(),
        Contents::in_memory(),
        None,
    );
    (journal, Arc::new(opened.unwrap().0))
}

/// Orders to erase the contents of all three.
fn order_all(log: &Arc<Log>) -> Result<(), ApplyError> {
    let records = log.read_blocking(Sequence::ZERO, Sequence(3), 3).unwrap();
    let list = records.iter().map(|logged| {
        let (seq, digest) = (logged.record.seq(), logged.record.digest);
        let at = "2026-01-01T00:00:00Z";
        let item = json!({"log_id": log.id(), "record": seq, "record_digest": digest,
                          "by": "operator", "at": at, "reason": "try"});
        serde_json::from_value(item).unwrap()
    });
    apply(log, list.collect::<Vec<_>>()).map(drop)
}

/// The records whose contents are gone from the journal.
fn gone(journal: &Reluctant) -> Vec<u64> {
    let blocks = journal.read(Sequence::ZERO, ALL).unwrap();
    let records = blocks.iter().flat_map(|block| &block.records);
    let erased = records.filter(|record| {
        record.content.as_ref().is_some_and(|content| content.body == ContentBody::Erased)
    });
    erased.map(|record| record.seq().0).collect()
}

#[test]
fn one_that_is_damaged_keeps_no_other_from_being_erased() {
    let (journal, log) = a_log(&[], Some(Sequence(2)));
    let error = order_all(&log).unwrap_err().to_string();
    assert!(error.contains("records 2 to 2 are damaged"), "{error}");
    assert_eq!(gone(&journal), [1, 3]);
    let erased = log.watch_erased();
    let carried_out = [4, 5, 6, 7].map(|order| erased.borrow().has(Sequence(order)));
    assert_eq!(carried_out, [true, false, true, false], "the orders are records 4 to 6");
}

#[tokio::test]
async fn neither_a_fault_nor_a_panic_ends_it() {
    let (journal, log) = a_log(&[Fate::Fails, Fate::Panics], None);
    order_all(&log).unwrap_err();
    assert_eq!(gone(&journal), [0; 0]);
    let eraser = EraserOwner::start(Arc::clone(&log));
    let mut erased = log.watch_erased();
    let done = erased.wait_for(|erased| erased.has(Sequence(6)));
    tokio::time::timeout(Duration::from_secs(60), done).await.unwrap().unwrap();
    assert_eq!(gone(&journal), [1, 2, 3]);
    eraser.close().await;
}
