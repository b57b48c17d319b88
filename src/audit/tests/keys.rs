//! Keys, checkpoints, receipts and what holds a log to them.

use super::tree_of;
use crate::audit::{
    CheckpointError, KeyError, LogKey, Notary, NotaryError, SignedCheckpoint, Tree, VerifierKey,
};
use acta_events::{Epoch, LogId};
use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};
use tempfile::tempdir;
use uuid::Uuid;

const LOG: LogId = LogId(Uuid::from_u128(7));

#[test]
fn the_key_is_made_once_and_private() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("log.key");
    assert!(matches!(LogKey::load(&path), Err(KeyError::None)));
    assert!(matches!(LogKey::load_or_make(&path, LOG, Epoch(1), true), Err(KeyError::Missing)));
    let made = LogKey::load_or_make(&path, LOG, Epoch(1), false).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    for found in
        [LogKey::load(&path).unwrap(), LogKey::load_or_make(&path, LOG, Epoch(1), true).unwrap()]
    {
        assert_eq!(found.verifier(), made.verifier());
    }
    assert!(made.name().starts_with("acta/") && made.name().ends_with(&LOG.to_string()));
    let text = made.verifier().to_string();
    assert_eq!(&text.parse::<VerifierKey>().unwrap(), made.verifier());
    assert!(!format!("{made:?}").contains("PRIVATE"));
    for bad in ["", "x", "PRIVATE+KEY+a+00000000+AQ==", "PRIVATE+KEY+a b+00000000+AQ==", "\u{ff}"] {
        fs::write(&path, bad).unwrap();
        assert!(matches!(LogKey::load(&path), Err(KeyError::Malformed)), "{bad:?}");
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(LogKey::load(&path), Err(KeyError::Malformed)));
}

#[test]
fn a_verifier_key_is_one_or_is_refused() {
    let good = LogKey::generate(LOG).verifier().to_string();
    for bad in [
        "",
        "+",
        "++",
        "a+00000000+",
        "a+00000000+AQ==",
        "PRIVATE+KEY+a+00000000+AQ==",
        &good[1..],
        &good[..good.len() - 4],
        &good.replacen("acta/", "ac ta/", 1),
    ] {
        assert!(bad.parse::<VerifierKey>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_checkpoint_is_believed_as_it_was_signed_only() {
    let (key, other) = (LogKey::generate(LOG), LogKey::generate(LOG));
    let tree = tree_of(5);
    let signed = SignedCheckpoint::sign(&key, 5, tree.root(5).unwrap());
    let text = signed.text();
    assert_eq!(SignedCheckpoint::verify(text, key.verifier()).unwrap(), signed);
    let check = |text: &str, expected: CheckpointError| {
        let error = SignedCheckpoint::verify(text, key.verifier()).unwrap_err();
        assert_eq!(error, expected, "{text:?}");
    };
    let theirs = SignedCheckpoint::sign(&other, 5, tree.root(5).unwrap());
    check(theirs.text(), CheckpointError::Unsigned);
    check(&text.replacen("\n5\n", "\n6\n", 1), CheckpointError::Forged);
    check(&text.replacen("\n5\n", "\n05\n", 1), CheckpointError::Malformed);
    for bad in ["", "\n\n", "a\n5\n\n", text.trim_end(), text.split('—').next().unwrap()] {
        check(bad, CheckpointError::Malformed);
    }
}

#[test]
fn a_log_is_held_to_what_was_signed() {
    let dir = tempdir().unwrap();
    let (file, key) = (dir.path().join("checkpoint"), dir.path().join("log.key"));
    let open = |tree: Tree| {
        let key = LogKey::load_or_make(&key, LOG, Epoch(1), file.exists()).unwrap();
        Notary::open(key, Arc::new(tree), Some(&file))
    };
    let notary = open(Tree::in_memory()).unwrap();
    assert_eq!((notary.latest().size(), file.exists()), (0, true));
    let notary = open(tree_of(300)).unwrap();
    assert_eq!(notary.covering(100).unwrap().size(), 300);
    assert_eq!(notary.latest().text(), fs::read_to_string(&file).unwrap());
    // The same, and what only grew.
    for size in [300, 301, 1000] {
        assert_eq!(open(tree_of(size)).unwrap().latest().size(), 300);
    }
    let shorter = open(tree_of(299)).unwrap_err();
    assert!(matches!(shorter, NotaryError::Shorter { head: 299, signed: 300 }), "{shorter}");
    assert!(shorter.to_string().contains("records 300 to 300 are missing"), "{shorter}");
    let different = Tree::in_memory();
    (0..400).for_each(|index| different.push(super::leaf(index ^ 1)));
    let different = open(different).unwrap_err();
    assert!(matches!(different, NotaryError::Different { signed: 300 }), "{different}");
    let good = fs::read_to_string(&file).unwrap();
    for bad in [good.replacen("300", "299", 1).as_str(), "", "x"] {
        fs::write(&file, bad).unwrap();
        assert!(matches!(open(tree_of(300)), Err(NotaryError::Checkpoint(_))), "{bad:?}");
    }
}
