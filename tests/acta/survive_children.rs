//! Children that do not want to end, and data directories that are not where they were.

use super::{
    support::{Options, Service, eventually, manifest},
    survive_bare::Bare,
    survive_measure::{copy_dir, processes_in},
};
use serde_json::json;
use std::time::{Duration, Instant};

async fn is_running(service: &Service, worker: &str) {
    let work = service.data().join("work").join(worker);
    eventually("its child runs", || async { (!processes_in(&work).is_empty()).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_ignores_sigterm_is_killed() {
    let service = Service::start().await;
    let worker = service.spawn("stubborn").await;
    is_running(&service, &worker).await;
    let asked = Instant::now();
    service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    let work = service.data().join("work");
    eventually("it is gone", || async { processes_in(&work).is_empty().then_some(()) }).await;
    assert!(asked.elapsed() < Duration::from_secs(20), "it took {:?}", asked.elapsed());
    assert_eq!(service.worker(&worker).await["status"], "stopped");
}

/// Children that outlived the service are ended by its next start, which says so in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_child_outlives_the_service_unnoticed() {
    let mut service = Options::default().arg("--stop-grace-ms=300").start().await;
    let mut workers = Vec::new();
    for template in ["stubborn", "slow", "echo"] {
        let worker = service.spawn(template).await;
        service.input(&worker, "begin").await;
        is_running(&service, &worker).await;
        workers.push(worker);
    }
    eventually("all inputs were given to the children", || async {
        let given = service.events("type=worker_input_dispatched").await;
        (given.len() == workers.len()).then_some(())
    })
    .await;
    let work = service.data().join("work");
    let before = processes_in(&work);
    service.kill9().await;
    assert!(!processes_in(&work).is_empty(), "one of them ignores the end of its input");
    service.restart().await;
    eventually("the children of the last run are gone", || async {
        let now = processes_in(&work);
        before.iter().all(|old| !now.contains(old)).then_some(())
    })
    .await;
    for worker in &workers {
        let about = format!("worker={worker}&type=worker_interrupted");
        eventually("it is settled by an event", || async {
            (service.events(&about).await.len() == 1).then_some(())
        })
        .await;
        // And its next input starts it again.
        service.input(worker, "again").await;
        is_running(&service, worker).await;
    }
}

/// Of a stopped worker nothing is left that each start would look for again, whether its service lived to
/// see its child end or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_is_settled_once() {
    let mut service = Options::default().arg("--stop-grace-ms=6000").start().await;
    let (seen, unseen) = (service.spawn("echo").await, service.spawn("stubborn").await);
    for worker in [&seen, &unseen] {
        is_running(&service, worker).await;
        service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    }
    let ended = async |service: &Service, worker: &str| {
        let about = format!("worker={worker}&type=worker_process_ended");
        service.events(&about).await.len()
    };
    eventually("the end of the child is recorded", || async {
        (ended(&service, &seen).await == 1).then_some(())
    })
    .await;
    assert_eq!(ended(&service, &unseen).await, 0, "that one does not end by itself");
    service.kill9().await;
    let work = service.data().join("work");
    assert!(!processes_in(&work).is_empty(), "it ignores the end of the service too");
    service.restart().await;
    eventually("the other is ended, which is recorded", || async {
        (ended(&service, &unseen).await == 1).then_some(())
    })
    .await;
    assert_eq!(processes_in(&work), []);
    service.stop().await;
    service.restart().await;
    let running = service.spawn("echo").await;
    is_running(&service, &running).await;
    let about = |worker: &str| format!("worker={worker}&after=0");
    for worker in [&seen, &unseen] {
        let kinds = service.events(&about(worker)).await;
        let kinds: Vec<_> = kinds.iter().filter_map(|event| event["type"].as_str()).collect();
        assert_eq!(kinds.last(), Some(&"worker_process_ended"), "{kinds:?}");
        assert_eq!(ended(&service, worker).await, 1);
    }
    let said = service.log();
    let looks = said.matches("a process of the last run was looked for").count();
    assert_eq!(looks, 1, "at the first start, for one of them: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_service_on_the_same_data_is_refused() {
    let service = Service::start().await;
    let home = tempfile::tempdir().unwrap();
    let mut second = Bare::start(home.path(), &service.data(), &manifest()).await;
    assert!(second.client.is_none(), "both listen");
    assert_eq!(second.ended().await.expect("it ends").code(), Some(1));
    let said = second.said();
    assert!(said.contains("another process uses the data directory"), "{said}");
    assert!(said.contains("Stop it first"), "{said}");
    let worker = service.spawn("echo").await;
    service.input(&worker, "still mine").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_data_directory_serves_elsewhere() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, &"large ".repeat(10_000)).await;
    service.rests(&worker, 2).await;
    service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    let cursor = service.get("/v1/events?limit=3").await.ok()["cursor"].clone();
    service.stop().await;
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("moved/here");
    copy_dir(&service.data(), &data).unwrap();
    service.restart().await;
    let copy = Bare::start(home.path(), &data, &manifest()).await;
    let copy = copy.client();
    for path in [
        format!("/v1/workers/{worker}"),
        format!("/v1/workers/{worker}/transcript"),
        format!("/v1/events?worker={worker}&after=0&limit=8"),
    ] {
        let (mut here, mut there) = (service.get(&path).await.ok(), copy.get(&path).await.ok());
        for page in [&mut here, &mut there] {
            page.as_object_mut().unwrap().remove("head");
        }
        assert_eq!(here, there, "{path}");
    }
    // A cursor of the original goes on in the copy: they share their history up to here.
    let cursor = cursor.as_str().unwrap();
    copy.get(&format!("/v1/events?cursor={cursor}&limit=1")).await.ok();
    copy.put("/v1/cursors/mine", &json!({"cursor": cursor})).await.ok();
}
