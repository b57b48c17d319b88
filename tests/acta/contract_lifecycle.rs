//! Ending workers, and the runtime itself.

use crate::support::{Service, eventually, keys};
use serde_json::json;

#[tokio::test]
async fn a_lifecycle_ack_has_the_shape_of_the_contract() {
    let service = Service::start().await;
    for (end, status) in [("stop", "stopped"), ("cancel", "cancelled")] {
        let worker = service.spawn("echo").await;
        let before = service.run_state(&worker, "idle").await;
        let body = service.post_empty(&format!("/v1/workers/{worker}/{end}")).await.ok();
        assert_eq!(keys(&body), ["ack"]);
        let ack = &body["ack"];
        assert_eq!(
            keys(ack),
            ["event_id", "revision", "sequence", "status", "version", "worker_ref"]
        );
        assert_eq!(ack["status"], status);
        assert_eq!(ack["worker_ref"], before["worker_ref"]);
        assert_eq!(ack["revision"].as_u64(), before["revision"].as_u64().map(|n| n + 1));
        assert_eq!(ack["version"].as_u64(), before["version"].as_u64().map(|n| n + 1));
        assert_eq!(ack["event_id"], ack["sequence"]);
        let after = service.worker(&worker).await;
        assert_eq!(after["status"], status);
        assert_eq!(after["execution"]["run_state"], "stopped");
        assert_eq!(after["execution"]["last_result"]["operation"], end);
        assert_eq!(after["execution"]["last_result"]["outcome"], "accepted");
    }
}

#[tokio::test]
async fn an_empty_body_is_fine_and_a_reason_is_recorded() {
    let service = Service::start().await;
    for (end, event) in [("stop", "worker_stopped"), ("cancel", "worker_cancelled")] {
        for body in ["", "  \n", "{}", r#"{"reason":null}"#, r#"{"reason":"Enough of it"}"#] {
            let worker = service.spawn("echo").await;
            service.post_bytes(&format!("/v1/workers/{worker}/{end}"), body).await.ok();
            let events = service.events(&format!("worker={worker}&type={event}")).await;
            assert_eq!(events.len(), 1);
            let reason = body.contains("Enough").then(|| json!("Enough of it"));
            assert_eq!(events[0].get("content"), reason.as_ref(), "{body}");
        }
    }
}

#[tokio::test]
async fn the_first_terminal_state_wins_and_later_calls_answer_alike() {
    let service = Service::start().await;
    for (first, status) in [("stop", "stopped"), ("cancel", "cancelled")] {
        let worker = service.spawn("echo").await;
        let path = |end: &str| format!("/v1/workers/{worker}/{end}");
        let ack = service.post_empty(&path(first)).await.ok();
        assert_eq!(ack["ack"]["status"], status);
        for again in ["stop", "cancel", "stop", "cancel"] {
            let later = service.post(&path(again), &json!({"reason": "again"})).await;
            assert_eq!(later.ok(), ack);
            assert_eq!(later.header("idempotent-replayed"), "");
        }
        let query = format!("worker={worker}&type=worker_stopped,worker_cancelled");
        assert_eq!(service.events(&query).await.len(), 1);
    }
}

#[tokio::test]
async fn input_to_a_terminal_worker_is_invalid_request() {
    let service = Service::start().await;
    for end in ["stop", "cancel"] {
        let worker = service.spawn("echo").await;
        service.post_empty(&format!("/v1/workers/{worker}/{end}")).await.ok();
        let body = json!({"kind": "user", "content": "too late"});
        let answer = service.post(&format!("/v1/workers/{worker}/input"), &body).await;
        answer.refused(400, "invalid_request");
        assert_eq!(service.transcript(&worker).await["total_items"], 0);
    }
}

#[tokio::test]
async fn stop_ends_the_child_gracefully_and_then_by_force() {
    let service = Service::start().await;
    let pids = || {
        let of = service.pid().to_string();
        let tasks = std::fs::read_dir(format!("/proc/{of}/task")).unwrap();
        let children = tasks
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).ok());
        children.collect::<String>().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for (template, end) in
        [("echo", "stop"), ("stubborn", "stop"), ("stubborn", "cancel"), ("slow", "stop")]
    {
        let worker = service.spawn(template).await;
        service.input(&worker, "work").await;
        eventually("a child runs", || async { (!pids().is_empty()).then_some(()) }).await;
        service.post_empty(&format!("/v1/workers/{worker}/{end}")).await.ok();
        eventually("the child is gone", || async { pids().is_empty().then_some(()) }).await;
    }
}

#[tokio::test]
async fn stopping_the_runtime_stops_its_workers_and_reading_goes_on() {
    let service = Service::start().await;
    let running = [service.spawn("echo").await, service.spawn("lines").await];
    let cancelled = service.spawn("echo").await;
    service.post_empty(&format!("/v1/workers/{cancelled}/cancel")).await.ok();
    service.input(&running[0], "hello").await;
    service.rests(&running[0], 2).await;
    let body = service.post_empty("/v1/runtime/stop").await.ok();
    assert_eq!(keys(&body), ["runtime"]);
    assert_eq!(body["runtime"]["status"], "stopped");
    eventually("its workers are stopped", || async {
        let runtime = service.get("/v1/runtime").await.ok()["runtime"].clone();
        (runtime["stopped_worker_count"] == 2).then_some(())
    })
    .await;
    for worker in &running {
        assert_eq!(service.worker(worker).await["status"], "stopped");
    }
    assert_eq!(service.worker(&cancelled).await["status"], "cancelled");
    assert_eq!(service.transcript(&running[0]).await["total_items"], 2);
    assert_eq!(service.get("/v1/workers").await.ok()["workers"].as_array().unwrap().len(), 3);

    let request = json!({"intent": {"kind": "assistant"}, "profile": {"kind": "runtime_default"}});
    service.post("/v1/workers", &request).await.refused(409, "runtime_stopped");
    let again = service.post_empty("/v1/runtime/stop").await.ok();
    assert_eq!(again["runtime"]["status"], "stopped");
    assert_eq!(service.events("type=runtime_stopped").await.len(), 1);
}

#[tokio::test]
async fn a_stopped_runtime_is_stopped_after_a_restart() {
    let mut service = Service::start().await;
    service.post_empty("/v1/runtime/stop").await.ok();
    service.kill9().await;
    service.restart().await;
    assert_eq!(service.get("/v1/runtime").await.ok()["runtime"]["status"], "stopped");
    let request = json!({"intent": {"kind": "assistant"}, "profile": {"kind": "runtime_default"}});
    service.post("/v1/workers", &request).await.refused(409, "runtime_stopped");
}
