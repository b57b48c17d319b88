//! Measurements, not tests: `cargo test --release -p acta --lib index::measure -- --ignored
//! --nocapture`. Files are in the page cache; flushes are synced to the disk of the system's
//! temporary directory, beside which the bare write and sync of as many bytes is shown.

use super::{
    Index, KeyEntry, Posting, PostingKind,
    model::{Random, digest},
};
use acta_events::Sequence;
use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

const FLUSH: u64 = 65_536;
/// 31 flushes leave five runs of each table, the worst of the numbers up to 2 million.
const FLUSHES: u64 = 31;
const WORKERS: u64 = 100;

/// A batch of which every record has a key and belongs to one of the workers in turn.
fn batch(first: u64, count: u64) -> (Vec<Posting>, Vec<KeyEntry>) {
    let posting = |seq: u64| {
        let (worker, turn) = ((seq % WORKERS) as u32, seq / WORKERS);
        let kind = if turn.is_multiple_of(20) { PostingKind::TextDone } else { PostingKind::Delta };
        Posting { worker, seq: Sequence(seq), items: turn as u32 / 20 + 1, kind, run: 0 }
    };
    let key = |seq| KeyEntry { digest: digest(seq), seq: Sequence(seq) };
    let seqs = || first..first + count;
    (seqs().map(posting).collect(), seqs().map(key).collect())
}

fn apply(index: &Index, first: u64) -> Duration {
    let mut spent = Duration::ZERO;
    for first in (first..first + FLUSH).step_by(256) {
        let (postings, keys) = batch(first, 256);
        let start = Instant::now();
        index.apply(Sequence(first), Sequence(first + 255), &postings, &keys).unwrap();
        spent += start.elapsed();
    }
    spent
}

fn bare_write(dir: &Path, bytes: usize) -> Duration {
    let bytes = vec![1; bytes];
    let start = Instant::now();
    for name in ["postings", "keys"] {
        let mut file = File::create(dir.join(name)).unwrap();
        file.write_all(&bytes[..bytes.len() / 2]).unwrap();
        file.sync_all().unwrap();
    }
    start.elapsed()
}

fn each(what: &str, times: u64, mut look_up: impl FnMut(u64)) {
    let start = Instant::now();
    (0..times).for_each(&mut look_up);
    println!("{what:<44} {:>8} ns", start.elapsed().as_nanos() as u64 / times);
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    for flush in 0..FLUSHES {
        let applied = apply(&index, flush * FLUSH + 1);
        let start = Instant::now();
        let frozen = index.freeze().unwrap();
        let froze = start.elapsed();
        index.flush(frozen).unwrap();
        let flushed = start.elapsed();
        if flush == 0 {
            let per_record = applied.as_nanos() as u64 / FLUSH;
            println!("apply, batches of 256 {per_record} ns a record; freeze {froze:?}");
            let bytes = FLUSH as usize * (18 + 24);
            let bare = bare_write(tempfile::tempdir().unwrap().path(), bytes);
            println!("flush of 65 536 + 65 536 entries, no merge: {flushed:?}");
            println!("bare write and sync of as many bytes: {bare:?}");
        } else if (flush + 1).is_power_of_two() {
            println!("flush {} with its merge: {flushed:?}", flush + 1);
        }
    }
    let start = Instant::now();
    let index = Index::open(dir.path()).unwrap();
    println!("open: {:?}; {:?}", start.elapsed(), index.stats());

    let (last, mut random) = (FLUSHES * FLUSH, Random(1));
    each("find_key, miss", 200_000, |n| {
        assert_eq!(index.find_key(&digest(last + 1 + n)).unwrap(), None);
    });
    each("find_key, hit, any age", 200_000, |_| {
        let seq = random.below(last) + 1;
        assert_eq!(index.find_key(&digest(seq)).unwrap(), Some(Sequence(seq)));
    });
    let head = Sequence(last);
    each("find_key_above everything flushed", 200_000, |n| {
        assert_eq!(index.find_key_above(&digest(n + 1), head).unwrap(), None);
    });
    each("after, limit 256, anywhere", 20_000, |n| {
        let after = Sequence(random.below(last - 256 * WORKERS));
        let found = index.after((n % WORKERS) as u32, after, head, 256).unwrap();
        assert_eq!(found.len(), 256);
    });
    each("before, limit 256, at the head", 20_000, |n| {
        assert_eq!(index.before((n % WORKERS) as u32, head, 256).unwrap().len(), 256);
    });
    each("items, limit 256, 20 records an item", 5_000, |n| {
        let item = random.below(last / WORKERS / 20 - 300) as u32 + 1;
        let found = index.items((n % WORKERS) as u32, item, 256, head).unwrap();
        assert_eq!(found.len(), 256);
    });
}
