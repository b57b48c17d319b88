//! Snapshots that rest upon others, several at a time, and of a log that is not whole.

use super::{
    snapshot_restore::{alone, create, restore, sealed},
    support::{Deployed, Service, eventually},
};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("segments")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Waits until something is being made there, or is there already.
async fn begun(target: &Path) {
    let stage = format!(".{}.unfinished", target.file_name().unwrap().to_str().unwrap());
    let stage = target.with_file_name(stage);
    eventually("it is begun", || async { (stage.exists() || target.exists()).then_some(()) }).await;
}

/// Nothing stands beside the snapshots.
fn is_clean(dir: &Path) -> bool {
    let mut entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    !entries.any(|name| name.to_string_lossy().contains(".unfinished"))
}

#[tokio::test]
async fn two_at_one_place_do_not_get_in_each_others_way() {
    let mut service = sealed(27_500).await;
    service.restart().await;
    let dir = service.root().join("snapshots");
    for n in 0..6 {
        let name = if n % 2 == 0 { format!("{n}") } else { format!("{n}.acta") };
        let target = dir.join(name);
        let args = ["snapshot", "create", text(&target)];
        let later = async {
            begun(&target).await;
            service.acta(&args).await
        };
        let (first, second) = tokio::join!(service.acta(&args), later);
        let taken = [&first, &second].into_iter().filter(|ran| ran.code == 0).count();
        assert_eq!(taken, 1, "{first:?} {second:?}");
        let other = if first.code == 0 { second } else { first };
        let said = &other.stderr;
        assert!(said.contains("another process is making") || said.contains("is there already"));
        alone(service.root(), &["snapshot", "verify", text(&target)]).await.ok();
    }
    assert!(is_clean(&dir));
}

#[tokio::test]
async fn what_another_one_is_needed_for_is_nothing_to_build_upon() {
    let mut service = sealed(27_500).await;
    service.restart().await;
    let dir = service.root().join("snapshots");
    let [first, second, third] = ["1.acta", "2.acta", "3.acta"].map(|name| dir.join(name));
    create(&service, &first, &[]).await;
    service.spawn("echo").await;
    create(&service, &second, &["--base", text(&first)]).await;
    let args = ["snapshot", "create", text(&third), "--base", text(&second)];
    let ran = service.acta(&args).await;
    assert!(ran.code == 1 && ran.stderr.contains("Take one without --base"), "{ran:?}");
    assert!(!third.exists());
    // A directory on top of a file has all of it.
    let whole = dir.join("whole");
    create(&service, &whole, &["--base", text(&first)]).await;
    alone(service.root(), &["snapshot", "verify", text(&whole)]).await.ok();
    assert!(is_clean(&dir));
}

#[tokio::test]
async fn a_snapshot_that_is_not_whole_is_nothing_to_build_upon() {
    let mut service = sealed(27_500).await;
    service.restart().await;
    let dir = service.root().join("snapshots");
    let base = dir.join("base");
    create(&service, &base, &[]).await;
    let segment = segments(&base).remove(0);
    let end = fs::metadata(&segment).unwrap().len();
    // The service has the same file, under another name.
    let copy = fs::read(&segment).unwrap();
    fs::remove_file(&segment).unwrap();
    fs::write(&segment, &copy[..copy.len() / 2]).unwrap();
    for name in ["next", "next.acta"] {
        let args =
            ["snapshot", "create", text(&dir.join(name)), "--base", text(&base)].map(String::from);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let ran = service.acta(&args).await;
        assert!(ran.code != 0 && ran.stderr.contains("cut short"), "{ran:?}");
        assert!(!dir.join(name).exists());
    }
    assert_eq!(segments(&service.data()).remove(0).metadata().unwrap().len(), end);
    fs::remove_file(&segment).unwrap();
    let ran = alone(service.root(), &["snapshot", "verify", text(&base)]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("the first bad record is 1"), "{ran:?}");
    assert!(is_clean(&dir));
}

#[tokio::test]
async fn a_log_without_one_of_its_segments_is_in_no_snapshot() {
    let mut service = sealed(55_000).await;
    service.restart().await;
    let (data, aside) = (service.data(), service.root().join("aside.seg"));
    let all = segments(&data);
    assert!(all.len() > 1, "{all:?}");
    fs::rename(&all[0], &aside).unwrap();
    let target = service.root().join("snapshot");
    let ran = service.acta(&["snapshot", "create", text(&target)]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("are in no file below segments/"), "{ran:?}");
    assert!(!target.exists());
    fs::rename(&aside, &all[0]).unwrap();
    create(&service, &target, &[]).await;
    alone(service.root(), &["snapshot", "verify", text(&target)]).await.ok();
}

/// Restores are kept apart in the same way, from the first byte to the name at the end.
#[tokio::test]
async fn two_restores_to_one_place_make_one_log() {
    let service = Service::start().await;
    service.spawn("echo").await;
    let snapshot = service.root().join("snapshot");
    create(&service, &snapshot, &[]).await;
    let root = service.root();
    for n in 0..8 {
        let data = root.join(format!("data-{n}"));
        let args = ["restore", text(&snapshot), "--data", text(&data)];
        let later = async {
            begun(&data).await;
            alone(root, &args).await
        };
        let (first, second) = tokio::join!(alone(root, &args), later);
        let restored = [&first, &second].into_iter().filter(|ran| ran.code == 0).count();
        assert_eq!(restored, 1, "{first:?} {second:?}");
        alone(root, &["verify", text(&data)]).await.ok();
    }
    assert!(is_clean(root));
}

/// An agent that comes for its messages may have done what they ask for after the snapshot.
#[tokio::test]
async fn a_paused_service_gives_agents_nothing_either() {
    let mut service = Service::start().await;
    let mut agent = Deployed::connected(&service).await;
    let seq = service.input(&agent.id, "do it").await["event_id"].as_u64().unwrap();
    let snapshot = service.root().join("snapshot");
    create(&service, &snapshot, &[]).await;
    service.stop().await;
    restore(&service, &snapshot, &[]).await;
    service.restart().await;
    let token = agent.created["connection"]["auth_token"].as_str().unwrap().to_owned();
    agent.client = service.with_token(&token);
    let would = service.get("/v1/dispatch").await.ok()["dispatch"]["would"].clone();
    let deliver = json!({
        "runtime_id": "external", "worker_id": agent.id, "action": "deliver",
        "records": [seq], "count": 1,
    });
    assert!(would["intents"].as_array().unwrap().contains(&deliver), "{would}");
    assert_eq!(agent.poll().await, Vec::<serde_json::Value>::new());
    let mut waits = pin!(agent.rows(None, "&wait=30"));
    let given = tokio::time::timeout(Duration::from_millis(500), &mut waits).await;
    assert!(given.is_err(), "it is given {given:?} before the service is resumed");
    service.post("/v1/dispatch/resume", &json!({})).await.ok();
    let rows = waits.await;
    assert_eq!(rows.len(), 1, "{rows:?}");
}
