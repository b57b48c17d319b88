//! A clock that goes back: the times in the log do not.

use acta::{
    command::{Command, Request},
    engine::{Clock, Engine, QueueLimits},
    index::Index,
    journal::{Journal, MemoryJournal},
    log::{Contents, Log},
};
use acta_events::{LogId, Sequence, Timestamp};
use std::sync::Arc;

/// Tells an earlier time whenever it is asked.
struct Backwards(i64);

impl Clock for Backwards {
    fn now(&self) -> Timestamp {
        Timestamp(self.0 - i64::from(rand::random::<u32>()) * 1_000_000)
    }
}

#[tokio::test]
async fn times_in_the_log_never_go_back() {
    let id = LogId(uuid::Uuid::from_u128(7));
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new(id));
    let (log, _) = Log::open(id, journal, Index::in_memory(), Contents::in_memory(), None).unwrap();
    let log = Arc::new(log);
    let clock = Backwards(1_800_000_000_000_000);
    let engine = Engine::start(Arc::clone(&log), QueueLimits::default(), clock).unwrap();
    for _ in 0..50 {
        let command = Command::StartService { acta: "test".into() };
        engine.handle().submit(Request::service(command)).await.unwrap();
    }
    let records = log.read(Sequence::ZERO, Sequence(50), 50).await.unwrap();
    assert_eq!(records.len(), 50);
    assert!(records.is_sorted_by_key(|logged| logged.record.header.time));
    tokio::task::spawn_blocking(move || engine.close()).await.unwrap();
}
