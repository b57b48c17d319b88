//! Processes of an earlier life of the service.

use super::*;
use std::{os::unix::process::CommandExt as _, process::Command};

/// A child of nobody's actor, in its own group, that is reaped when it ends.
fn orphan(text: &str) -> ProcessRef {
    let mut child =
        Command::new("sh").args(["-c", text]).process_group(0).spawn().expect("sh can be started");
    let process = process::identify(child.id()).expect("the kernel tells");
    std::thread::spawn(move || child.wait());
    process
}

async fn exists(path: &std::path::Path) {
    let wait = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the child gets ready");
}

#[tokio::test]
async fn a_leftover_group_is_ended() {
    let process = orphan("sleep 1000 & sleep 1000");
    assert!(is_alive(&process));
    assert_eq!(end_leftover(&process, PATIENCE).await, LeftoverEnd::Terminated);
    assert!(!is_alive(&process));
    assert_eq!(end_leftover(&process, PATIENCE).await, LeftoverEnd::Gone);
    group_gone(process.pid).await;
}

#[tokio::test]
async fn a_stubborn_leftover_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let ready = dir.path().join("ready");
    let process =
        orphan(&format!("trap '' TERM; echo > {}; while :; do sleep 0.01; done", ready.display()));
    exists(&ready).await;
    let ended = end_leftover(&process, Duration::from_millis(100)).await;
    assert_eq!(ended, LeftoverEnd::Killed);
    group_gone(process.pid).await;
}

#[tokio::test]
async fn members_outlive_a_leader_that_obeys() {
    let dir = tempfile::tempdir().expect("a directory");
    let ready = dir.path().join("ready");
    let process = orphan(&format!(
        "(trap '' TERM; echo > {}; while :; do sleep 0.01; done) & exec sleep 1000",
        ready.display()
    ));
    exists(&ready).await;
    let ended = end_leftover(&process, Duration::from_millis(100)).await;
    assert_eq!(ended, LeftoverEnd::Killed);
    group_gone(process.pid).await;
}

#[tokio::test]
async fn a_stranger_with_the_same_number_is_left_alone() {
    let process = orphan("exec sleep 1000");
    let later = ProcessRef { started_ticks: process.started_ticks + 1, ..process.clone() };
    let other_boot = ProcessRef { boot: "another".into(), ..process.clone() };
    for stranger in [later, other_boot] {
        assert!(!is_alive(&stranger));
        assert_eq!(end_leftover(&stranger, PATIENCE).await, LeftoverEnd::Gone);
    }
    assert!(is_alive(&process));
    assert_eq!(end_leftover(&process, PATIENCE).await, LeftoverEnd::Terminated);
}
