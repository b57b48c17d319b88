//! The service on a disk that loses what was not synced, and that fails: what it acknowledged is
//! there after every power cut, and after an error it goes on by itself.

use super::{
    support::{Client, eventually},
    survive_bare::Bare,
    survive_disk::{
        at_last, bulky, is_ready, may_be_tried_again, nothing_is_lost, templates, until_it_fails,
    },
};
use acta_test_disk::{Disk, Image, Loss, Operation};
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// Commands that were acknowledged, by sequence.
type Acked = BTreeMap<u64, usize>;

fn sequence(answer: &Value) -> u64 {
    answer["worker"]["sequence"].as_u64().unwrap()
}

/// Gives commands from several sides until one fails everywhere; `next` numbers them.
async fn until_the_power_goes(client: &Client, next: usize) -> Acked {
    const SIDES: usize = 4;
    let mut sides = JoinSet::new();
    for side in 0..SIDES {
        let client = client.clone();
        sides.spawn(async move {
            let mut acked = Acked::new();
            for n in (0..).map(|n| next + n * SIDES + side) {
                let (key, body) = bulky(n);
                let answer = client.post_keyed("/v1/workers", &key, &body).await;
                if answer.status != 200 {
                    return acked;
                }
                acked.insert(sequence(&answer.json()), n);
            }
            acked
        });
    }
    sides.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_power_cuts() {
    let (home, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = at.path().join("data");
    let (mut image, mut acked) = (Image::default(), Acked::new());
    for (round, loss) in [Loss::Unsynced, Loss::Some(1), Loss::Some(2)].into_iter().enumerate() {
        let disk = Disk::mount(at.path(), image);
        let mut service = Bare::start(home.path(), &data, &templates()).await;
        nothing_is_lost(service.client(), &acked).await;
        let before = acked.len();
        disk.cut_power_after(200 + 101 * round as u64);
        acked.extend(until_the_power_goes(service.client(), round * 10_000).await);
        assert!(disk.is_dead());
        assert!(acked.len() > before, "nothing was acknowledged");
        service.kill9();
        image = disk.end(loss);
    }
    let _disk = Disk::mount(at.path(), image);
    let service = Bare::start(home.path(), &data, &templates()).await;
    nothing_is_lost(service.client(), &acked).await;
}

/// What `/readyz` answers while writes do not go through.
async fn says_why(client: &Client) {
    let ready = client.get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    let reason = ready.json()["reason"].as_str().unwrap().to_owned();
    assert!(["journal_recovering", "journal_refusing"].contains(&reason.as_str()), "{reason}");
    assert_eq!(client.get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_after_errors_of_the_disk() {
    let (home, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = at.path().join("data");
    let disk = Disk::mount(at.path(), Image::default());
    let mut service = Bare::start(home.path(), &data, &templates()).await;
    let client = service.client().clone();
    let mut acked = Acked::new();

    for nth in 0..4 {
        for kind in [Operation::Write, Operation::Sync, Operation::Rename, Operation::Create] {
            disk.fail_once(kind, nth);
            at_last(&client, &mut acked, bulky).await;
        }
    }
    for kind in [Operation::Sync, Operation::Write] {
        disk.fail_always(Some(kind));
        let (_, answer) = until_it_fails(&client, &mut acked).await;
        may_be_tried_again(&answer);
        says_why(&client).await;
        nothing_is_lost(&client, &acked).await;
        disk.fail_always(None);
        eventually("it is ready again", || async { is_ready(&client).await.then_some(()) }).await;
        at_last(&client, &mut acked, bulky).await;
    }
    disk.set_room(Some(700));
    let (_, answer) = until_it_fails(&client, &mut acked).await;
    may_be_tried_again(&answer);
    says_why(&client).await;
    nothing_is_lost(&client, &acked).await;
    disk.set_room(None);
    eventually("it is ready again", || async { is_ready(&client).await.then_some(()) }).await;
    at_last(&client, &mut acked, bulky).await;
    nothing_is_lost(&client, &acked).await;
    assert!(!service.said().contains("panicked at"), "{}", service.said());

    // And all of it was durable.
    service.kill9();
    let image = disk.end(Loss::Unsynced);
    let _disk = Disk::mount(at.path(), image);
    let service = Bare::start(home.path(), &data, &templates()).await;
    nothing_is_lost(service.client(), &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_no_damage_and_can_be_read_the_next_time() {
    let (home, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = at.path().join("data");
    let disk = Disk::mount(at.path(), Image::default());
    let mut service = Bare::start(home.path(), &data, &templates()).await;
    let client = service.client().clone();
    let mut acked = Acked::new();
    at_last(&client, &mut acked, bulky).await;
    // A content of this size has a file of its own, which is read whenever it is asked for.
    let (_, mut body) = bulky(0);
    body["intent"]["objective"] = "z".repeat(60_000).into();
    let large = sequence(&client.post("/v1/workers", &body).await.ok());
    let path = format!("/v1/events?after={}&limit=1", large - 1);

    disk.fail_always(Some(Operation::Read));
    client.get(&path).await.refused(500, "store_io");
    assert!(is_ready(&client).await, "commands do not need what was read");
    at_last(&client, &mut acked, bulky).await;
    disk.fail_always(None);
    let page = client.get(&path).await.ok();
    assert!(page.to_string().contains(&"z".repeat(60_000)), "{page}");

    // A start that cannot read says so, and takes nothing away.
    service.kill9();
    for nth in 0..6 {
        disk.fail_once(Operation::Read, nth);
        drop(Bare::start(home.path(), &data, &templates()).await);
        disk.fail_always(Some(Operation::Read));
        let mut service = Bare::start(home.path(), &data, &templates()).await;
        assert!(service.client.is_none(), "it has read nothing");
        assert_eq!(service.ended().await.unwrap().code(), Some(1));
        let said = service.said();
        assert!(said.contains("os error 5"), "{said}");
        assert!(!said.contains("panicked") && !said.contains("damaged"), "{said}");
        disk.fail_always(None);
    }
    let service = Bare::start(home.path(), &data, &templates()).await;
    nothing_is_lost(service.client(), &acked).await;
}
