//! History that expires on a disk that loses what was not synced, and that fails: what was acknowledged is
//! there, or has expired by what the log says, after every power cut and every error.

use super::{
    snapshot_restore::alone,
    support::{Client, PATIENCE, eventually},
    survive_bare::Bare,
    survive_disk::{at_last, templates},
};
use acta_test_disk::{Disk, Image, Loss, Operation};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Nothing but the newest segment, and segments are small.
const EXPIRES: [&str; 4] = ["--segment-records-max", "16", "--history-keep-bytes", "1"];
/// What fails once.
const KINDS: [Operation; 5] =
    [Operation::Write, Operation::Sync, Operation::Rename, Operation::Create, Operation::Remove];
/// A start looks at once what is to expire, so most of these are in the middle of that.
const CUTS: [(u64, Loss); 8] = [
    (400, Loss::Unsynced),
    (90, Loss::Some(1)),
    (170, Loss::Unsynced),
    (300, Loss::Some(2)),
    (60, Loss::Unsynced),
    (230, Loss::Some(3)),
    (120, Loss::Unsynced),
    (500, Loss::Some(4)),
];

/// Commands that were acknowledged, by sequence.
type Acked = BTreeMap<u64, usize>;

async fn start(home: &Path, data: &Path) -> Bare {
    Bare::start_with(&EXPIRES, home, data, &templates()).await
}

/// A command; every fifth has a content with a file of its own.
fn command(n: usize) -> (String, Value) {
    let objective = format!("{n} {}", "z".repeat(if n.is_multiple_of(5) { 40_000 } else { 40 }));
    let body = json!({
        "intent": {"kind": "task", "objective": objective},
        "profile": {"kind": "runtime_default"},
    });
    (format!("key-{n}"), body)
}

/// What was acknowledged is where it was, without a gap, or has expired. Returns up to where.
async fn what_has_not_expired_is_there(client: &Client, acked: &Acked) -> u64 {
    loop {
        let status = client.get("/v1/status").await.ok();
        let through = status["status"]["history"]["expired"]["through"].as_u64().unwrap_or(0);
        let (mut found, mut after) = (BTreeMap::new(), through);
        let gone = loop {
            let page = client.get(&format!("/v1/events?after={after}&limit=200&watching=1")).await;
            if page.status == 410 {
                break true;
            }
            let page = page.ok();
            let events = page["events"].as_array().unwrap();
            for record in events {
                after += 1;
                assert_eq!(record["seq"], after);
                if let Some(key) = record["command"]["key"].as_str() {
                    found.insert(after, key.to_owned());
                }
            }
            if events.is_empty() {
                break false;
            }
        };
        if gone {
            // More has expired meanwhile.
            continue;
        }
        for (sequence, n) in acked.range(through + 1..) {
            assert_eq!(found.get(sequence), Some(&command(*n).0), "expired through {through}");
        }
        return through;
    }
}

/// All of it is what was written, by what `acta verify` sees.
async fn verifies(home: &Path, data: &Path) {
    let said = alone(home, &["verify", data.to_str().unwrap()]).await;
    assert!(said.ok().contains("expired by policy"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_not_expired_survives_power_cuts() {
    let (home, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = at.path().join("data");
    let (mut image, mut acked, mut ends) = (Image::default(), Acked::new(), Vec::new());
    let mut given = 0;
    for (operations, loss) in CUTS {
        let disk = Disk::mount(at.path(), image);
        let mut service = start(home.path(), &data).await;
        disk.cut_power_after(operations);
        let client = service.client();
        loop {
            let (key, body) = command(given);
            let answer = client.post_keyed("/v1/workers", &key, &body).await;
            if answer.status != 200 {
                break;
            }
            acked.insert(answer.json()["worker"]["sequence"].as_u64().unwrap(), given);
            given += 1;
        }
        given += 1;
        eventually("the power is gone", || async { disk.is_dead().then_some(()) }).await;
        service.kill9();
        image = disk.end(loss);

        let disk = Disk::mount(at.path(), image);
        let mut service = start(home.path(), &data).await;
        ends.push(what_has_not_expired_is_there(service.client(), &acked).await);
        service.kill9();
        image = disk.end(Loss::Unsynced);
    }
    assert!(ends.is_sorted() && *ends.last().unwrap() > 0, "{ends:?}");
    let _disk = Disk::mount(at.path(), image);
    verifies(home.path(), &data).await;
    let service = start(home.path(), &data).await;
    what_has_not_expired_is_there(service.client(), &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_expires_in_spite_of_errors_of_the_disk() {
    let (home, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = at.path().join("data");
    let mut image = Image::default();
    let mut acked = Acked::new();
    let mut expired = 0;
    for nth in [0, 3, 9] {
        for kind in KINDS {
            let disk = Disk::mount(at.path(), image);
            let mut service = start(home.path(), &data).await;
            let client = service.client().clone();
            disk.fail_once(kind, nth);
            for _ in 0..40 {
                at_last(&client, &mut acked, command).await;
            }
            let before = *acked.keys().next_back().unwrap() - 40;
            // What failed behind a command is tried again with the next one.
            let until = Instant::now() + PATIENCE;
            while expired < before {
                assert!(Instant::now() < until, "{kind:?} {nth}: expired {expired} of {before}");
                at_last(&client, &mut acked, command).await;
                let expires = eventually("history expires all the same", || async {
                    let through = what_has_not_expired_is_there(&client, &acked).await;
                    (through >= before).then_some(through)
                });
                if let Ok(through) = timeout(Duration::from_secs(1), expires).await {
                    expired = through;
                }
            }
            assert!(!service.said().contains("panicked at"), "{}", service.said());
            service.kill9();
            image = disk.end(Loss::Unsynced);
        }
    }
    let _disk = Disk::mount(at.path(), image);
    verifies(home.path(), &data).await;
    let service = start(home.path(), &data).await;
    what_has_not_expired_is_there(service.client(), &acked).await;
}
