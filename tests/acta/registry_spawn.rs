//! Spawning by way of the registry: by what a worker is for.

use super::support::{Options, Service, eventually};
use serde_json::{Value, json};

const OWN: &str = "/v1/runtimes/embedded-worker-runtime/workers";

fn run() -> Value {
    json!({"kind": "run_accepted", "expected_segments": 0})
}

fn codes(answer: &Value) -> Vec<&str> {
    let all = answer["diagnostics"].as_array().unwrap().iter();
    all.map(|diagnostic| diagnostic["code"].as_str().unwrap()).collect()
}

fn ticket(role: &str) -> Value {
    json!({"intent": {"kind": "ticket_role", "ticket_id": "00001KVZSGT0Q", "role": role}, "acceptance": run()})
}

#[tokio::test]
async fn a_ticket_gets_a_worker_that_can_be_talked_to_and_nothing_leaks() {
    let service = Service::start().await;
    let mut asked = ticket("coder");
    asked["requested_worker_name"] = json!("friendly-name-is-not-authority");
    let spawned = service.post(OWN, &asked).await.ok();
    assert_eq!(spawned["state"], "accepted");
    assert_eq!(codes(&spawned), ["embedded_worker_name_ignored"]);
    let evidence: Vec<_> =
        spawned["acceptance_evidence"].as_array().unwrap().iter().map(|e| &e["kind"]).collect();
    assert_eq!(
        evidence,
        ["embedded_runtime_worker_created", "embedded_runtime_backend_internal_projection"]
    );
    let worker = &spawned["worker"];
    assert_eq!(worker["profile"], "builtin:coder");
    assert_eq!(worker["role"], "coder");
    assert_eq!(worker["capabilities"]["can_accept_input"], true);
    let id = worker["worker_id"].as_str().unwrap();
    assert_ne!(id, "friendly-name-is-not-authority");
    let input = service
        .post(&format!("{OWN}/{id}/input"), &json!({"content": "hello embedded runtime"}))
        .await
        .ok();
    assert_eq!((&input["state"], &input["transcript_sequence"]), (&json!("accepted"), &json!(1)));
    let transcript = service.get(&format!("{OWN}/{id}/transcript?limit=10")).await.ok();
    assert_eq!(transcript["items"][0]["content"], "hello embedded runtime");
    let runtime = service.get("/v1/runtimes/embedded-worker-runtime").await.ok();
    let text = format!("{runtime}{spawned}{transcript}{input}");
    for word in [
        "/workspace/project",
        "metadata.json",
        "session",
        "socket",
        "token",
        "credential",
        "provider",
    ] {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[tokio::test]
async fn each_intent_has_its_profile_and_each_acceptance_its_answer() {
    let service = Service::start().await;
    for role in ["intake", "orchestrator", "coder", "reviewer"] {
        let worker = service.post(OWN, &ticket(role)).await.ok()["worker"].clone();
        assert_eq!(
            (&worker["role"], &worker["profile"]),
            (&json!(role), &json!(format!("builtin:{role}")))
        );
    }
    for kind in ["workspace_companion", "workspace_orchestrator"] {
        let asked = json!({"intent": {"kind": kind}, "acceptance": {"kind": "run_accepted", "expected_segments": 2}});
        let spawned = service.post(OWN, &asked).await.ok();
        assert_eq!(
            (&spawned["worker"]["role"], &spawned["worker"]["profile"]),
            (&json!(kind), &json!("runtime_default"))
        );
        assert_eq!(codes(&spawned), ["embedded_runtime_tools_less"]);
    }
    let head = service.head().await;
    let asked =
        json!({"intent": {"kind": "workspace_companion"}, "acceptance": {"kind": "socket_ready"}});
    let rejected = service.post(OWN, &asked).await.ok();
    assert_eq!(rejected["state"], "rejected");
    assert!(rejected.get("worker").is_none());
    assert_eq!(codes(&rejected), ["embedded_runtime_no_socket"]);
    let workers = service.events(&format!("after={head}")).await;
    assert!(workers.iter().all(|event| event["type"] != "worker_created"), "{workers:?}");
}

#[tokio::test]
async fn a_spawn_is_repeated_under_its_key_and_refused_where_it_makes_no_sense() {
    let service = Service::start().await;
    let first = service.post_keyed(OWN, "k", &ticket("coder")).await;
    let second = service.post_keyed(OWN, "k", &ticket("coder")).await;
    assert_eq!(first.ok()["worker"]["worker_id"], second.ok()["worker"]["worker_id"]);
    assert_eq!(second.header("idempotent-replayed"), "true");
    service.post_keyed(OWN, "k", &ticket("reviewer")).await.refused(422, "idempotency_key_reused");
    for (body, code) in [
        (json!({"intent": {"kind": "workspace_companion"}}), "invalid_json"),
        (json!({"acceptance": run()}), "invalid_json"),
        (json!({"intent": {"kind": "dream"}, "acceptance": run()}), "invalid_json"),
        (
            json!({"intent": {"kind": "ticket_role", "ticket_id": " ", "role": "coder"}, "acceptance": run()}),
            "invalid_request",
        ),
        (
            json!({"intent": {"kind": "ticket_role", "ticket_id": "x".repeat(121), "role": "coder"}, "acceptance": run()}),
            "invalid_request",
        ),
        (ticket("janitor"), "invalid_json"),
    ] {
        service.post(OWN, &body).await.refused(400, code);
    }
    service
        .post("/v1/runtimes/nope/workers", &ticket("coder"))
        .await
        .refused(404, "unknown_runtime");
    service
        .post("/v1/runtimes/%2e%2e%2fsecret/workers", &ticket("coder"))
        .await
        .refused(400, "invalid_identifier");
    let observer = service.issue(&json!({"role": "observer"})).await;
    let observer = service.with_token(observer["token"].as_str().unwrap());
    observer.post(OWN, &ticket("coder")).await.refused(403, "forbidden");
    service.post_empty("/v1/runtime/stop").await.ok();
    let stopped = service.post(OWN, &ticket("coder")).await.ok();
    assert_eq!(
        (stopped["state"].as_str(), codes(&stopped)),
        (Some("rejected"), vec!["embedded_runtime_stopped"])
    );
}

#[tokio::test]
async fn a_forced_stop_does_not_wait_for_the_grace_period() {
    let mut manifest = super::support::manifest();
    let templates = manifest["workspace_templates"].as_array_mut().unwrap();
    let stubborn = templates.iter_mut().find(|template| template["name"] == "stubborn").unwrap();
    stubborn["exec"]["stop_grace_ms"] = json!(60_000);
    let service = Options::default().manifest(manifest).start().await;
    for path in ["/v1/workers", OWN] {
        let id = service.spawn("stubborn").await;
        service.run_state(&id, "idle").await;
        let pids = || async { service.events("").await };
        let connected = pids()
            .await
            .into_iter()
            .rev()
            .find(|e| e["type"] == "worker_connected" && e["worker"] == id.as_str());
        let pid = connected.unwrap()["data"]["process"]["pid"].as_i64().unwrap();
        let alive = || std::path::Path::new(&format!("/proc/{pid}")).exists();
        let stop = format!("{path}/{id}/stop");
        service.post(&stop, &json!({})).await.ok();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(alive(), "it ignores SIGTERM and has its grace period");
        service.post(&stop, &json!({"mode": "force"})).await.ok();
        eventually("it was killed", || async { (!alive()).then_some(()) }).await;
    }
    service
        .post(&format!("{OWN}/w-1/stop"), &json!({"mode": "rudely"}))
        .await
        .refused(400, "invalid_json");
}
