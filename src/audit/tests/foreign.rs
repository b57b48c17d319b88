//! Proofs are judged by an implementation that has nothing in common with the one that makes
//! them: `ct-merkle`. Another, in Go, does so in tests/acta/audit_foreign.rs.

use super::{entry, tree_of};
use crate::audit::{Consistency, Inclusion};
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use sha2::Sha256;
use tlog_tiles::Hash;

type Digest = ct_merkle::digest::Output<Sha256>;

fn digests(hashes: &[Hash]) -> Vec<Digest> {
    hashes.iter().map(|hash| Digest::from(hash.0)).collect()
}

fn root(hash: Hash, size: u64) -> RootHash<Sha256> {
    RootHash::new(hash.0.into(), size)
}

fn includes(found: &Inclusion, of: Hash) -> bool {
    let digests = digests(&found.proof);
    let proof = InclusionProof::from_digests(digests.iter());
    root(of, found.size).verify_inclusion(&entry(found.index).to_vec(), found.index, &proof).is_ok()
}

fn continues(found: &Consistency) -> bool {
    let digests = digests(&found.proof);
    let proof = ConsistencyProof::from_digests(digests.iter());
    let from = root(found.from_root, found.from);
    root(found.to_root, found.to).verify_consistency(&from, &proof).is_ok()
}

#[test]
fn every_proof_of_every_size_up_to_130_convinces_a_stranger() {
    let tree = tree_of(130);
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    for size in 1..=130 {
        theirs.push(entry(size - 1).to_vec());
        let ours = tree.root(size).unwrap();
        assert_eq!(theirs.root(), root(ours, size), "{size}");
        for index in 0..size {
            let mut found = tree.inclusion(index, size).unwrap();
            assert!(includes(&found, ours) && found.holds(ours), "{index} in {size}");
            if let Some(hash) = found.proof.first_mut() {
                hash.0[7] ^= 1;
                assert!(!includes(&found, ours) && !found.holds(ours), "{index} in {size}");
            }
        }
        for from in 1..size {
            let mut found = tree.consistency(from, size).unwrap();
            assert!(continues(&found) && found.holds(), "{from} to {size}");
            found.proof[0].0[7] ^= 1;
            assert!(!continues(&found) && !found.holds(), "{from} to {size}");
        }
    }
}

#[test]
fn so_do_proofs_of_large_trees() {
    const SIZES: [u64; 8] = [255, 256, 257, 511, 65_535, 65_536, 65_537, 70_001];
    let tree = tree_of(70_001);
    for size in SIZES {
        let ours = tree.root(size).unwrap();
        for index in [0, 1, 127, 128, 200, size / 2, size - 2, size - 1] {
            let found = tree.inclusion(index, size).unwrap();
            assert!(includes(&found, ours) && found.holds(ours), "{index} in {size}");
        }
        for from in SIZES.into_iter().filter(|from| *from <= size) {
            let found = tree.consistency(from, size).unwrap();
            assert!(found.holds() && (from == size || continues(&found)), "{from} to {size}");
        }
    }
}
