//! A checkpoint is used if it is whole and of this history; if not, an older one is.

use super::{Checkpoints, LOG_PER_GAP, NEWEST_KEPT};
use crate::engine::tests::history::{History, LOG, rebuilt};
use acta_events::{Digest, LogId, Record, Sequence, sha256};
use acta_projections::Projections;
use std::{fs, path::PathBuf, sync::Arc};

struct Kept {
    _dir: tempfile::TempDir,
    path: PathBuf,
    checkpoints: Checkpoints,
    records: Vec<Arc<Record>>,
}

impl Kept {
    /// Checkpoints at these positions of a history of 3 + 3 records.
    fn at(positions: &[usize]) -> Self {
        let inputs = [[20, 0, 200, 9, 255, 0, 255, 255]; 3];
        let records = History::new(&inputs).records();
        assert_eq!(records.len(), 6);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints");
        let checkpoints = Checkpoints::new(path.clone());
        for position in positions {
            checkpoints.write(LOG, &rebuilt(&records[..*position])).unwrap();
        }
        Self { _dir: dir, path, checkpoints, records }
    }

    fn digest_at(&self, seq: Sequence) -> Option<Digest> {
        self.records.get(seq.0 as usize - 1).map(|record| record.digest)
    }

    fn newest(&self, limit: u64) -> Option<Projections> {
        self.checkpoints.newest(LOG, Sequence(limit), |seq| self.digest_at(seq))
    }

    fn file(&self, seq: u64) -> PathBuf {
        self.path.join(format!("{seq:020}.ckpt"))
    }

    fn check(&self, limit: u64, expected: Option<usize>) {
        let expected = expected.map(|position| rebuilt(&self.records[..position]));
        assert_eq!(self.newest(limit), expected, "up to {limit}");
    }
}

#[test]
fn the_newest_one_up_to_the_limit_is_used() {
    let kept = Kept::at(&[2, 4, 6]);
    for (limit, expected) in [
        (0, None),
        (1, None),
        (2, Some(2)),
        (3, Some(2)),
        (5, Some(4)),
        (6, Some(6)),
        (99, Some(6)),
    ] {
        kept.check(limit, expected);
    }
    assert!(Kept::at(&[]).newest(9).is_none());
    assert_eq!(Kept::at(&[0]).checkpoints.positions(), [], "there is nothing to keep of nothing");
}

/// As it was written before checkpoints were compressed.
#[test]
fn one_of_the_format_before_is_read() {
    let kept = Kept::at(&[4]);
    let projections = rebuilt(&kept.records[..4]);
    let body = serde_json::to_vec(&projections).unwrap();
    assert!(body.len() > fs::read(kept.file(4)).unwrap().len(), "it is compressed now");
    let line = serde_json::json!({
        "format": 2, "log_id": LOG, "seq": 4, "record": kept.records[3].digest, "sha256": sha256(&[&body]),
    });
    fs::write(kept.file(4), [line.to_string().as_bytes(), b"\n", &body].concat()).unwrap();
    kept.check(9, Some(4));
}

#[test]
fn one_of_another_history_is_passed_over() {
    let kept = Kept::at(&[2, 4]);
    let other = LogId(uuid::Uuid::from_u128(1));
    assert!(kept.checkpoints.newest(other, Sequence(9), |seq| kept.digest_at(seq)).is_none());
    let forked = |seq: Sequence| (seq.0 <= 2).then(|| kept.digest_at(seq)).flatten();
    let older = kept.checkpoints.newest(LOG, Sequence(9), forked).unwrap();
    assert_eq!(older, rebuilt(&kept.records[..2]));
    let changed = |seq: Sequence| if seq.0 > 2 { Some(Digest::ZERO) } else { kept.digest_at(seq) };
    let older = kept.checkpoints.newest(LOG, Sequence(9), changed).unwrap();
    assert_eq!(older, rebuilt(&kept.records[..2]));
}

#[test]
fn a_damaged_one_is_passed_over() {
    let kept = Kept::at(&[2, 4]);
    let good = fs::read(kept.file(4)).unwrap();
    let (older, newer) = (rebuilt(&kept.records[..2]), rebuilt(&kept.records[..4]));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(kept.file(4), &bad).unwrap();
        let used = kept.newest(9).unwrap();
        // What the first line merely repeats does not matter.
        assert!(used == older || used == newer, "byte {at}");
        if at > good.iter().position(|byte| *byte == b'\n').unwrap() {
            assert_eq!(used, older, "byte {at}");
        }
    }
    for bad in [&b""[..], b"\n", b"{}\n{}", &good[..good.len() - 1], &[&good[..], b" "].concat()] {
        fs::write(kept.file(4), bad).unwrap();
        kept.check(9, Some(2));
    }
    fs::remove_file(kept.file(4)).unwrap();
    fs::create_dir(kept.file(4)).unwrap();
    kept.check(9, Some(2));
    // One that is not finished, one under another name, and what is none at all.
    fs::write(kept.path.join(format!("{:020}.tmp", 6)), &good).unwrap();
    fs::copy(kept.file(2), kept.file(5)).unwrap();
    fs::write(kept.path.join("notes.ckpt"), b"").unwrap();
    kept.check(9, Some(2));
    // It is written again over whatever is there.
    fs::remove_dir(kept.file(4)).unwrap();
    kept.checkpoints.write(LOG, &newer).unwrap();
    kept.check(4, Some(4));
}

#[test]
fn old_ones_are_thinned_out_and_never_all_gone() {
    let kept = Kept::at(&[]);
    let mut projections = Projections::default();
    for seq in 1..=1_500 {
        let header = acta_events::Header { seq: Sequence(seq), ..kept.records[0].header.clone() };
        projections.apply(&Record::new(header, None).unwrap()).unwrap();
        kept.checkpoints.write(LOG, &projections).unwrap();
        let positions = kept.checkpoints.positions();
        let newest: Vec<_> =
            (seq.saturating_sub(NEWEST_KEPT as u64) + 1..=seq).map(Sequence).collect();
        assert!(positions.ends_with(&newest), "{positions:?}");
        // Twice what lies evenly, and what lies closer together since it is newer.
        let even = 2 * LOG_PER_GAP as usize;
        assert!(positions.len() <= NEWEST_KEPT + even + 16, "{positions:?}");
        // Whatever past is asked for, there is one not further back from there than it is old, and
        // that with only a small part of the log between.
        assert_eq!(positions[0], Sequence(1));
        for pair in positions.windows(2) {
            let (age, gap) = (seq - pair[1].0, pair[1].0 - pair[0].0);
            assert!(gap <= age.max(1), "{positions:?}");
            assert!(gap <= (seq / LOG_PER_GAP).max(1), "{positions:?}");
        }
    }
}
