//! Power cuts: what was acknowledged is there afterwards, in its place, and nothing else is.
//!
//! The journal runs on a disk that keeps only what was synced, or of the rest a random part. The power
//! goes at a random operation, be it in the middle of an append, of sealing, of an erasure or of
//! the start after the last cut.
//!
//! `ACTA_POWER_LOSS_SECONDS=600 cargo test --lib power_loss` looks for longer, from a seed that
//! it prints; `ACTA_POWER_LOSS_SEED=7` looks at one.

use super::{
    AppendError, EncodedBlock, Head, Journal, SledJournal,
    seal::SealLimits,
    sled::VERIFIED_RECORDS,
    sled_store::RealDisk,
    test_blocks::{ALL, block_after, end_of, log},
};
use crate::data_dir::DataDir;
use acta_events::{Sequence, Timestamp, block::Block};
use acta_test_disk::{Disk, Image, Loss};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the suite looks, and how many seeds it looks at in any case.
const SECONDS: u64 = 4;
const SEEDS_MIN: u64 = 3;
const CUTS_PER_SEED: usize = 6;

/// Small, so that a few appends make a segment.
pub(super) const LIMITS: SealLimits =
    SealLimits { records: 40, bytes: 1 << 20, retry: Duration::from_millis(1) };

/// A disk with an empty log on it.
pub(super) fn empty_log(at: &Path) -> Image {
    let disk = Disk::mount(at, Image::default());
    let data = DataDir::create(&at.join("data"), log(), Timestamp(0)).unwrap();
    let journal = open(&data).unwrap();
    journal.close().unwrap();
    drop((journal, data));
    disk.end(Loss::Unsynced)
}

pub(super) fn open(data: &DataDir) -> Result<SledJournal, String> {
    SledJournal::open_on(data, Arc::new(RealDisk), VERIFIED_RECORDS, LIMITS)
        .map_err(|error| error.to_string())
}

/// What is known of the log from outside.
struct Known {
    acknowledged: Vec<EncodedBlock>,
    /// Of the last append, whose outcome is not known.
    unsure: Vec<EncodedBlock>,
}

impl Known {
    fn end(&self) -> Head {
        self.acknowledged.last().map_or(Head::empty(log()), end_of)
    }

    /// Takes what was found for what is known from now on.
    fn check(&mut self, found: &[Arc<Block>]) -> Result<(), String> {
        let unsure = std::mem::take(&mut self.unsure);
        let acknowledged = self.acknowledged.len();
        if found.len() < acknowledged {
            return Err(format!("{acknowledged} blocks were acknowledged, {} found", found.len()));
        }
        if found.len() > acknowledged + unsure.len() {
            return Err(format!("{} blocks were found, more than were written", found.len()));
        }
        self.acknowledged.extend(unsure.into_iter().take(found.len() - acknowledged));
        let differs = |(written, found): (&EncodedBlock, &Arc<Block>)| {
            written.digest != found.digest || written.first != found.first()
        };
        match self.acknowledged.iter().zip(found).position(differs) {
            Some(at) => Err(format!("block {at} is another")),
            None => Ok(()),
        }
    }
}

fn batch(end: Head, dice: &mut StdRng) -> Vec<EncodedBlock> {
    let (mut end, mut blocks) = (end, Vec::new());
    for _ in 0..dice.random_range(1..=4) {
        let bytes = [0, 200, 6_000][dice.random_range(0..3)];
        let block = block_after(end, dice.random_range(1..=3), bytes);
        end = end_of(&block);
        blocks.push(block);
    }
    blocks
}

/// Works on the log until the power goes.
fn work(journal: &SledJournal, disk: &Disk, known: &mut Known, dice: &mut StdRng) {
    for _ in 0..60 {
        match dice.random_range(0..12) {
            // What closing a commit file does.
            0 => journal.ask_for_sync(),
            1 if known.end().seq > Sequence::ZERO => {
                let seq = Sequence(dice.random_range(1..=known.end().seq.0));
                // It may fail as the power goes; no digest changes either way.
                let _ = journal.erase(&[seq].into());
            }
            _ => {}
        }
        let blocks = batch(known.end(), dice);
        match journal.append(known.end().seq, &blocks) {
            Ok(head) => {
                known.acknowledged.extend(blocks);
                assert_eq!(head, known.end());
            }
            Err(AppendError::Refused(_)) => break,
            Err(_) => {
                known.unsure = blocks;
                break;
            }
        }
    }
    disk.cut_power();
}

/// Writes, loses power and looks what is there, again and again.
fn survives(seed: u64, with_syncs: bool) -> Result<(), String> {
    let at = tempfile::tempdir().unwrap();
    let mut image = empty_log(at.path());
    let mut dice = StdRng::seed_from_u64(seed);
    let mut known = Known { acknowledged: Vec::new(), unsure: Vec::new() };
    for cut in 0..CUTS_PER_SEED {
        let disk = Disk::mount(at.path(), image);
        if !with_syncs {
            disk.ignore_syncs();
        }
        disk.cut_power_after(dice.random_range(1..600));
        // The start may be what the power goes in.
        if let Ok(data) = DataDir::open(&at.path().join("data"))
            && let Ok(journal) = open(&data)
        {
            work(&journal, &disk, &mut known, &mut dice);
        } else if !disk.is_dead() {
            return Err(format!("cut {cut}: it does not open on a sound disk"));
        }
        let loss = if dice.random() { Loss::Some(dice.random()) } else { Loss::Unsynced };
        image = disk.end(loss);

        let disk = Disk::mount(at.path(), image);
        let data = DataDir::open(&at.path().join("data")).map_err(|error| error.to_string())?;
        let journal = open(&data).map_err(|error| format!("cut {cut}, {loss:?}: {error}"))?;
        let found = journal.read(Sequence::ZERO, ALL).map_err(|error| error.to_string())?;
        known.check(&found).map_err(|why| format!("cut {cut}, {loss:?}: {why}"))?;
        if dice.random() {
            journal.close().map_err(|error| error.to_string())?;
        }
        drop((journal, data));
        image = disk.end(Loss::Nothing);
    }
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn nothing_acknowledged_is_lost() {
    let one = number("ACTA_POWER_LOSS_SEED");
    let longer = number("ACTA_POWER_LOSS_SECONDS");
    let until = Instant::now() + Duration::from_secs(longer.unwrap_or(SECONDS));
    let first = one.unwrap_or_else(|| longer.map_or(0, |_| rand::random_range(0..1 << 40)));
    println!("from seed {first}");
    for seed in first.. {
        if let Err(why) = survives(seed, true) {
            panic!("{why}\nagain: ACTA_POWER_LOSS_SEED={seed} cargo test --lib power_loss");
        }
        if one.is_some() || (seed - first + 1 >= SEEDS_MIN && Instant::now() >= until) {
            break;
        }
    }
}

/// The test can fail: without syncs it does.
#[test]
fn without_syncs_it_would_be() {
    let lost = (0..4).filter(|seed| survives(*seed, false).is_err()).count();
    assert!(lost >= 3, "only {lost} of 4 lost anything");
}
