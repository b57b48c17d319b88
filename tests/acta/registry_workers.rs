//! Workers of a runtime and of a host, as the registry shows them.

use super::support::{Service, eventually};
use serde_json::{Value, json};

const OWN: &str = "/v1/runtimes/embedded-worker-runtime/workers";

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["worker_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn workers_are_listed_by_runtime_and_by_host_in_a_stable_order() {
    let service = Service::start().await;
    let mut spawned = Vec::new();
    for _ in 0..5 {
        spawned.push(service.spawn("echo").await);
    }
    spawned.sort();
    let hosts = service.get("/v1/hosts").await.ok();
    let host = hosts["items"][0]["host_id"].as_str().unwrap().to_owned();
    for list in [OWN.to_owned(), format!("/v1/hosts/{host}/workers")] {
        assert_eq!(ids(&service.get(&list).await.ok()), spawned);
        let first = service.get(&format!("{list}?limit=2")).await.ok();
        assert_eq!(ids(&first), spawned[..2]);
        assert_eq!(first["diagnostics"], json!([]));
        let next = service.get(&format!("{list}?limit=2&after={}", spawned[1])).await.ok();
        assert_eq!(ids(&next), spawned[2..4]);
        assert_eq!(ids(&service.get(&format!("{list}?limit=0")).await.ok()), Vec::<String>::new());
        let before_all = service.get(&format!("{list}?at=3")).await.ok();
        assert_eq!(ids(&before_all), Vec::<String>::new());
        service.get(&format!("{list}?limit=257")).await.refused(400, "limit_too_large");
        service.get(&format!("{list}?after=a%20b")).await.refused(400, "invalid_identifier");
    }
}

#[tokio::test]
async fn a_worker_is_shown_with_what_it_can_do() {
    let service = Service::start().await;
    let id = service.spawn("echo").await;
    let path = format!("{OWN}/{id}");
    let idle = eventually("it is idle", || async {
        let worker = service.get(&path).await.ok()["worker"].clone();
        (worker["state"] == "idle").then_some(worker)
    })
    .await;
    assert_eq!(idle["runtime_id"], "embedded-worker-runtime");
    assert_eq!(idle["worker_id"], id.as_str());
    assert!(idle["host_id"].as_str().unwrap().starts_with("embedded-"));
    assert_eq!(idle["profile"], "runtime_default");
    let visible = json!({"visibility": "backend_internal", "identity": "runtime_registry_worker"});
    assert_eq!(idle["workspace"], visible);
    assert_eq!(
        idle["implementation"],
        json!({"kind": "embedded_worker_runtime", "display_hint": "echo"})
    );
    let can = |input: bool, stop: bool| {
        json!({"can_accept_input": input, "can_stream_events": true, "can_stop": stop,
            "can_spawn_followup": true, "can_read_bounded_transcript": true})
    };
    assert_eq!(idle["capabilities"], can(true, true));
    service.post(&format!("/v1/workers/{id}/stop"), &json!({})).await.ok();
    let stopped = service.get(&path).await.ok()["worker"].clone();
    assert_eq!(
        (&stopped["status"], &stopped["capabilities"]),
        (&json!("stopped"), &can(false, false))
    );
    let text = stopped.to_string();
    for leak in [service.data().to_str().unwrap(), &service.token(), "pid"] {
        assert!(!text.contains(leak), "{leak} in {text}");
    }
}

#[tokio::test]
async fn what_is_unknown_or_no_identifier_is_told_apart() {
    let service = Service::start().await;
    let rows = [
        ("/v1/runtimes/nope/workers", 404, "unknown_runtime"),
        ("/v1/runtimes/nope/workers/w-1", 404, "unknown_runtime"),
        ("/v1/runtimes/embedded-worker-runtime/workers/w-1", 404, "unknown_worker"),
        ("/v1/hosts/nope/workers", 404, "unknown_host"),
        ("/v1/runtimes/..%2Fsecret/workers", 400, "invalid_identifier"),
        ("/v1/hosts/..%2Fsecret/workers", 400, "invalid_identifier"),
        ("/v1/runtimes/embedded-worker-runtime/workers/a%20b", 400, "invalid_identifier"),
    ];
    for (path, status, code) in rows {
        service.get(path).await.refused(status, code);
    }
}

#[tokio::test]
async fn operations_answer_with_a_state_and_diagnostics() {
    let service = Service::start().await;
    let id = service.spawn("echo").await;
    let at = |name: &str| format!("{OWN}/{id}/{name}");
    let accepted = service.post_keyed(&at("input"), "k1", &json!({"content": "hello"})).await.ok();
    assert_eq!((&accepted["state"], &accepted["diagnostics"]), (&json!("accepted"), &json!([])));
    assert_eq!(accepted["transcript_sequence"], 1);
    let again = service.post_keyed(&at("input"), "k1", &json!({"content": "hello"})).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.ok(), accepted);
    service.rests(&id, 2).await;
    let said = service.get(&at("transcript?limit=1")).await.ok();
    assert_eq!((&said["total_items"], &said["next_start"]), (&json!(2), &json!(1)));
    assert_eq!(said["items"][0]["content"], "hello");
    assert_eq!(said["items"][0]["event_id"], accepted["event_id"]);
    let rest = service.get(&at("transcript?start=1")).await.ok();
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert!(rest.get("next_start").is_none(), "left out at the end");

    let blank = service.post(&at("input"), &json!({"content": " "})).await.ok();
    assert_eq!(blank["state"], "rejected");
    assert_eq!(blank["diagnostics"][0]["code"], "embedded_runtime_invalid_request");
    assert_eq!(blank["diagnostics"][0]["severity"], "error");
    for _ in 0..2 {
        let stopped = service.post(&at("stop"), &json!({"mode": "graceful"})).await.ok();
        assert_eq!(stopped["state"], "accepted");
    }
    let late = service.post(&at("input"), &json!({"content": "late"})).await.ok();
    assert_eq!(late["state"], "rejected");
    let (unknown, none) = (format!("{OWN}/w-1/input"), "/v1/runtimes/nope/workers/w-1/input");
    let body = json!({"content": "x"});
    service.post(&unknown, &body).await.refused(404, "unknown_worker");
    service.post(none, &body).await.refused(404, "unknown_runtime");
    service.get(&format!("{OWN}/w-1/transcript")).await.refused(404, "unknown_worker");
    service.post(&at("input"), &json!({"content": 5})).await.refused(400, "invalid_json");
}
