//! What proves the log is judged by Go's `sumdb/tlog` and `sumdb/note`, which have no part in it.
//! Another judge, `ct-merkle`, is asked in src/audit/tests/foreign.rs.

use super::support::{Options, Ran, Service, run};
use acta::audit::{Tree, leaf_of};
use acta_events::Digest;
use serde_json::{Value, json};
use std::{path::PathBuf, process::Command, sync::OnceLock};

/// Builds the judge, once.
fn judge() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("audit-foreign");
        std::fs::create_dir_all(&dir).unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acta/audit_foreign/verify.go");
        let program = dir.join("verify");
        let missing =
            "Go and its x/mod are needed: apt-get install golang-go golang-golang-x-mod-dev";
        let built = Command::new("go")
            .args(["build", "-o"])
            .args([program.as_os_str(), source.as_ref()])
            .env("GO111MODULE", "off")
            .env("GOFLAGS", "")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOCACHE", dir.join("cache"))
            .env("CGO_ENABLED", "0")
            .output()
            .expect(missing);
        assert!(built.status.success(), "{}\n{missing}", String::from_utf8_lossy(&built.stderr));
        program
    };
    BUILT.get_or_init(build).clone()
}

async fn judged(args: &[&str], token: &str, stdin: &str) -> Ran {
    let mut command = Command::new(judge());
    command.args(args).env("ACTA_TEST_TOKEN", token).env("no_proxy", "*");
    run(command, stdin).await
}

fn tree_of(size: u64) -> Tree {
    let tree = Tree::in_memory();
    for index in 0..size {
        let mut digest = Digest::ZERO;
        digest.0[..8].copy_from_slice(&index.to_be_bytes());
        tree.push(leaf_of(digest));
    }
    tree
}

fn hashes(proof: &[impl ToString]) -> Vec<String> {
    proof.iter().map(ToString::to_string).collect()
}

/// A proof as the judge reads it, and the same with another root, which is not to convince.
fn asked(lines: &mut String, mut proof: Value, other_root: &str) {
    for root in [None, Some(other_root)] {
        proof["Holds"] = root.is_none().into();
        if let Some(root) = root {
            proof["Root"] = root.into();
        }
        lines.push_str(&proof.to_string());
        lines.push('\n');
    }
}

fn included(lines: &mut String, tree: &Tree, index: u64, size: u64) {
    let found = tree.inclusion(index, size).unwrap();
    let root = tree.root(size).unwrap().to_string();
    let (leaf, proof) = (found.leaf.to_string(), hashes(&found.proof));
    let value = json!({"Size": size, "Index": index, "Root": root, "Leaf": leaf, "Proof": proof});
    asked(lines, value, &tree.root(size - 1).unwrap().to_string());
}

fn continued(lines: &mut String, tree: &Tree, from: u64, size: u64) {
    let found = tree.consistency(from, size).unwrap();
    let (root, from_root) = (found.to_root.to_string(), found.from_root.to_string());
    let proof = hashes(&found.proof);
    let value =
        json!({"Size": size, "From": from, "Root": root, "FromRoot": from_root, "Proof": proof});
    asked(lines, value, &tree.root(size - 1).unwrap().to_string());
}

#[tokio::test]
async fn go_accepts_the_proofs_of_every_size_up_to_130_and_of_large_ones() {
    let tree = tree_of(70_001);
    let mut lines = String::new();
    for size in 1..=130 {
        (0..size).for_each(|index| included(&mut lines, &tree, index, size));
        (1..=size).for_each(|from| continued(&mut lines, &tree, from, size));
    }
    for size in [255, 256, 257, 511, 65_535, 65_536, 65_537, 70_001] {
        [0, 1, 255, 256, size / 2, size - 1]
            .into_iter()
            .filter(|index| *index < size)
            .for_each(|index| included(&mut lines, &tree, index, size));
        [1, 128, 255, 256, size / 2, size - 1, size]
            .into_iter()
            .filter(|from| *from <= size)
            .for_each(|from| continued(&mut lines, &tree, from, size));
    }
    let count = lines.lines().count().to_string();
    assert_eq!(judged(&["proofs"], "", &lines).await.ok(), count);
}

#[tokio::test]
async fn go_mirrors_a_log_with_its_own_tools() {
    for public in [false, true] {
        let options = Options::default();
        let options = if public { options.arg("--public-log") } else { options };
        let service = options.start().await;
        let worker = service.spawn("echo").await;
        for n in 0..300 {
            service.input(&worker, &format!("input {n}")).await;
        }
        let key = service.acta(&["key", "show", "--data", &data_of(&service)]).await;
        let head = service.head().await;
        // A proof of the newest record has a checkpoint signed that covers it.
        service.get(&format!("/v1/proofs/inclusion?seq={head}")).await.ok();
        let token = if public { String::new() } else { service.token() };
        let ran = judged(&["mirror", &service.base, key.ok()], &token, "").await;
        let mirrored: u64 = ran.ok().parse().unwrap();
        assert!(mirrored >= head, "{mirrored} of {head}");
        let other = "acta/x+eb23a5a3+AZ1X0pZ6pS2P5Zq0Y6F2nPdxkd8X8dQyqZrYb0m0s1Wq";
        assert_ne!(judged(&["mirror", &service.base, other], &token, "").await.code, 0);
    }
}

fn data_of(service: &Service) -> String {
    service.data().to_str().unwrap().to_owned()
}
