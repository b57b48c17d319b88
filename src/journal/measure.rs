//! How long a durable append takes, beside a bare write and sync of the same bytes in the same
//! run. Not a test: `cargo test --release -p acta --lib measure -- --ignored --nocapture`.

use super::{
    Head, Journal, SledJournal,
    sled_store::{RealDisk, Store},
    sled_tests::new_data,
    test_blocks::{block_after, end_of, log},
};
use acta_events::Sequence;
use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn time(&mut self, call: impl FnOnce()) {
        let begun = Instant::now();
        call();
        self.0.push(begun.elapsed());
    }

    fn report(&mut self, what: &str, block_bytes: usize) {
        self.0.sort();
        let total: f64 = self.0.iter().map(Duration::as_secs_f64).sum();
        let mib = (block_bytes * self.0.len()) as f64 / (1024.0 * 1024.0);
        println!(
            "{what:>28}: median {:>8.1} µs, p99 {:>8.1} µs, {:>7.2} MiB/s",
            self.0[self.0.len() / 2].as_secs_f64() * 1e6,
            self.0[self.0.len() * 99 / 100].as_secs_f64() * 1e6,
            mib / total,
        );
    }
}

#[test]
#[ignore = "a measurement, by hand and in release"]
fn durable_append_beside_a_bare_write_and_sync() {
    for (content_bytes, records, count) in [(150, 1, 1500), (31_500, 2, 400)] {
        let mut head = Head::empty(log());
        let blocks: Vec<_> = (0..count)
            .map(|_| {
                let block = block_after(head, records, content_bytes);
                head = end_of(&block);
                block
            })
            .collect();
        let bytes = blocks[0].bytes.len();
        println!("blocks of {bytes} bytes, {count} of them, one writer, each durable:");
        let dir = tempfile::tempdir().unwrap();
        let bare = File::create(dir.path().join("bare")).unwrap();
        let store = Store::open(&dir.path().join("log-1"), true, Arc::new(RealDisk)).unwrap();
        let (_data_dir, data) = new_data();
        let journal = SledJournal::open(&data).unwrap();
        let [mut bare_times, mut sled_times, mut journal_times] = <[Times; 3]>::default();
        let mut at = 0;
        // In turn, so that whatever else the machine does meets all three.
        for block in &blocks {
            bare_times.time(|| {
                bare.write_all_at(&block.bytes, at).unwrap();
                bare.sync_data().unwrap();
            });
            at += block.bytes.len() as u64;
            sled_times.time(|| {
                store.insert(block.first, &block.bytes).unwrap();
                store.sync().unwrap();
            });
            journal_times.time(|| {
                journal.append(journal.head().seq, std::slice::from_ref(block)).unwrap();
            });
        }
        bare_times.report("bare pwrite + fdatasync", bytes);
        sled_times.report("sled insert, flush, sync", bytes);
        journal_times.report("journal append", bytes);
        let db = data.path().join("log-1/db");
        let on_disk = db.metadata().unwrap().len() as f64;
        println!("{:>28}: {:.1}", "bytes on disk per byte", on_disk / (bytes * count) as f64);
        let (begun, mut after) = (Instant::now(), Sequence::ZERO);
        let limits = super::ReadLimits { blocks: 64, bytes: 1 << 20 };
        while after < journal.head().seq {
            after = journal.read(after, limits).unwrap().last().unwrap().last();
        }
        println!("{:>28}: {:?}", "read of all of it, verified", begun.elapsed());
        drop(journal);
        let begun = Instant::now();
        drop(SledJournal::open(&data).unwrap());
        println!("{:>28}: {:?}", "open, verify and close", begun.elapsed());
    }
}
