//! What is refused of manifests and of what is sent.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::{Manifest, Part, Receiver, Snapshot, SnapshotError, Target};
use acta_events::{Digest, Epoch, LogId, Sequence, Timestamp, sha256};
use serde_json::{Value, json};
use std::{fs, path::Path};

fn manifest(parts: Vec<Part>) -> Manifest {
    Manifest {
        format: 1,
        acta: "0".into(),
        log_id: LogId(uuid::Uuid::from_u128(7)),
        created: Timestamp(0),
        epoch: Epoch(1),
        sequence: Sequence(3),
        record: Digest::ZERO,
        taken: Timestamp(0),
        parts,
    }
}

#[test]
fn a_manifest_is_what_was_written_or_refused() {
    let part = |name: &str| Part { sha256: Some(Digest::ZERO), ..Part::new(name, 1) };
    let good = manifest(vec![part("tail/1.blocks"), part("content/aa/aa")]);
    let encoded = good.encode().unwrap();
    assert_eq!(Manifest::decode(&encoded).unwrap(), good);
    for at in 0..encoded.len() {
        let mut bytes = encoded.clone();
        bytes[at] ^= 1;
        let read = Manifest::decode(&bytes);
        assert!(read.is_err(), "byte {at}");
        assert!(Manifest::decode(&encoded[..at]).is_err(), "cut at {at}");
    }
    for name in ["", "/etc/x", "../x", "a/../b", "a//b", "a/.b", "manifest.json", "a\\b", "a b"] {
        let bad = manifest(vec![part(name)]).encode().unwrap();
        let error = Manifest::decode(&bad).unwrap_err();
        assert!(matches!(error, SnapshotError::Damaged(_)), "{name}: {error}");
    }
    let unknown = manifest(vec![Part::new("tail/1.blocks", 1)]).encode().unwrap();
    assert!(Manifest::decode(&unknown).is_err(), "a part without its SHA-256");
    let newer = Manifest { format: 2, ..manifest(Vec::new()) }.encode().unwrap();
    assert!(matches!(Manifest::decode(&newer), Err(SnapshotError::Newer(2))));
}

fn opening() -> Value {
    let mut opening = json!(manifest(Vec::new()));
    opening["acta_snapshot"] = json!(1);
    opening["bytes"] = json!(5);
    opening["dropped"] = json!([]);
    opening["on_base"] = json!(false);
    opening
}

/// Feeds lines and bytes in pieces of each size, and returns what became of it.
fn received(target: &Path, sent: &[u8], piece: usize) -> Result<Manifest, SnapshotError> {
    let mut receiver = Receiver::new(target, None)?;
    let fed = sent.chunks(piece).try_for_each(|bytes| receiver.feed(bytes));
    match fed {
        Ok(()) => Ok(receiver.finish()?.manifest),
        Err(error) => {
            receiver.abandon();
            Err(error)
        }
    }
}

#[test]
fn what_is_sent_arrives_in_pieces_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut sent =
        format!("{}\n{{\"name\":\"tail/1.blocks\",\"bytes\":5}}\n", opening()).into_bytes();
    sent.extend_from_slice(b"a\nb\0c{\"name\":\"checkpoint\",\"bytes\":0}\n{\"complete\":true}\n");
    for (n, piece) in [1, 2, 7, 4096].into_iter().enumerate() {
        for name in [format!("d{n}"), format!("f{n}.acta")] {
            let target = dir.path().join(&name);
            let manifest = received(&target, &sent, piece).unwrap();
            assert_eq!(manifest.part("tail/1.blocks").unwrap().sha256, Some(sha256(&[b"a\nb\0c"])));
            let snapshot = Snapshot::open(&target).unwrap();
            assert_eq!(*snapshot.manifest(), manifest);
            assert_eq!(snapshot.directory().is_some(), Target::of(&target) == Target::Directory);
            assert_eq!(snapshot.check(|_| {}).unwrap(), Vec::<String>::new());
            let unpacked = dir.path().join(format!("{name}-unpacked"));
            snapshot.unpack(&unpacked, |_| {}).unwrap();
            assert_eq!(fs::read(unpacked.join("tail/1.blocks")).unwrap(), b"a\nb\0c");
        }
    }
}

#[test]
fn what_is_no_snapshot_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("x");
    let check = |sent: String, expected: &str| {
        let error = match received(&target, sent.as_bytes(), 64) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("taken: {sent}"),
        };
        assert!(error.contains(expected), "{sent}: {error}");
        assert!(!target.exists());
    };
    check("hello\n".into(), "not a snapshot");
    check(format!("{}\n", opening()), "before it is complete");
    check(format!("{}\n{{\"again\":\"later\"}}\n", opening()), "later");
    check(format!("{}\n{{\"name\":\"../x\",\"bytes\":1}}\n", opening()), "no part has");
    let part = json!({"name": "segments/1.seg", "bytes": 1, "in_base": true});
    check(format!("{}\n{part}\n", opening()), "not in the base");
    let part = json!({"name": "tail/1.blocks", "bytes": 9});
    check(format!("{}\n{part}\nshort", opening()), "before it is complete");
    check(format!("{}\n{{\"complete\":true}}\nx", opening()), "behind its end");
    fs::write(&target, "x").unwrap();
    assert!(matches!(Receiver::new(&target, None), Err(SnapshotError::Exists(_))));
}
