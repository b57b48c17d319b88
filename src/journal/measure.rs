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

struct Times(Vec<Duration>);

impl Times {
    fn of(count: usize, mut call: impl FnMut(usize)) -> Self {
        let mut times: Vec<_> = (0..count)
            .map(|n| {
                let begun = Instant::now();
                call(n);
                begun.elapsed()
            })
            .collect();
        times.sort();
        Self(times)
    }

    fn report(&self, what: &str, block_bytes: usize) {
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
        let mut at = 0;
        let times = Times::of(count, |n| {
            bare.write_all_at(&blocks[n].bytes, at).unwrap();
            bare.sync_data().unwrap();
            at += blocks[n].bytes.len() as u64;
        });
        times.report("bare pwrite + fdatasync", bytes);
        let store = Store::open(&dir.path().join("log-1"), true, Arc::new(RealDisk)).unwrap();
        let times = Times::of(count, |n| {
            store.insert(blocks[n].first, &blocks[n].bytes).unwrap();
            store.sync().unwrap();
        });
        times.report("sled insert, flush, sync", bytes);
        let (_data_dir, data) = new_data();
        let journal = SledJournal::open(&data).unwrap();
        let times = Times::of(count, |n| {
            journal.append(journal.head().seq, std::slice::from_ref(&blocks[n])).unwrap();
        });
        times.report("journal append", bytes);
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
