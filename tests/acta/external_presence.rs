//! That an agent is there is seen from its beats, and nothing but changes is recorded.

use crate::support::{Deployed, Options, Service, eventually};
use serde_json::json;

async fn becomes(service: &Service, agent: &Deployed, status: &str) {
    let what = format!("the worker is {status}");
    eventually(&what, || async { (agent.status(service).await == status).then_some(()) }).await;
}

#[tokio::test]
async fn a_lease_ends_and_a_beat_alone_brings_the_agent_back() {
    let service = Options::default().arg("--lease-ms=1500").start().await;
    let agent = Deployed::awaited(&service).await;
    assert_eq!(agent.status(&service).await, "awaiting_agent");
    agent.register().await;
    assert_eq!(agent.status(&service).await, "online");
    becomes(&service, &agent, "awaiting_agent").await;
    agent.beat().await;
    assert_eq!(agent.status(&service).await, "online");
    becomes(&service, &agent, "awaiting_agent").await;
    let expected = [
        "worker_created",
        "agent_awaited",
        "agent_registered",
        "worker_offline",
        "worker_online",
        "worker_offline",
    ];
    assert_eq!(agent.events(&service).await, expected);
}

#[tokio::test]
async fn an_agent_that_does_badly_is_degraded_until_it_does_well() {
    let service = Service::start().await;
    let agent = Deployed::connected(&service).await;
    let rows = [
        (json!({"runtime_state": "wedged"}), "degraded"),
        (json!({"runtime_state": "busy"}), "degraded"),
        (json!({"runtime_state": "ok", "error_rate": 0.3}), "degraded"),
        (json!({"runtime_state": "ok"}), "online"),
        (json!({"error_rate": 0.49}), "online"),
        (json!({"error_rate": 0.5, "sample_error": "it broke"}), "degraded"),
        (json!({"error_rate": 0.9}), "degraded"),
        (json!({"error_rate": 0.1}), "degraded"),
        (json!({"runtime_state": "", "error_rate": 0.09}), "online"),
    ];
    for (beat, status) in rows {
        agent.beat_with(beat.clone()).await;
        assert_eq!(agent.status(&service).await, status, "{beat}");
    }
    let events = agent.events(&service).await;
    let changes = ["worker_degraded", "worker_recovered", "worker_degraded", "worker_recovered"];
    assert_eq!(events[3..], changes);
    let sample = &agent.records(&service).await[5]["content"];
    assert_eq!(sample, "it broke");
}

#[tokio::test]
async fn lists_show_whether_the_agent_is_there() {
    let service = Service::start().await;
    let agent = Deployed::awaited(&service).await;
    let hint = async || {
        let list = service.get("/v1/runtimes/external/workers").await.ok();
        list["items"][0]["implementation"].clone()
    };
    assert_eq!(hint().await, json!({"kind": "external", "display_hint": "awaiting_agent"}));
    agent.register().await;
    assert_eq!(hint().await["display_hint"], "online");
    agent.beat_with(json!({"runtime_state": "wedged"})).await;
    assert_eq!(hint().await["display_hint"], "degraded");
    let ran = service.command().args(["ls", "workers", "--all"]).output().unwrap();
    let table = String::from_utf8(ran.stdout).unwrap();
    assert!(table.contains("degraded") && !table.contains("unconnected"), "{table}");
}

#[tokio::test]
async fn only_the_workers_own_token_speaks_for_it() {
    let service = Service::start().await;
    let (one, other) = (Deployed::awaited(&service).await, Deployed::awaited(&service).await);
    let register = json!({"id": one.id, "delivery_mode": "poll"});
    let beat = json!({"workspace_id": one.id});
    let anonymous = service.anonymous();
    for client in [&other.client, &anonymous, &service.with_token("nonsense")] {
        client.post("/registry/register", &register).await.refused(401, "unauthorized");
        client.post("/registry/heartbeat", &beat).await.refused(401, "unauthorized");
        client.get(&one.path("/activity")).await.refused(401, "unauthorized");
        let report = json!({"activity_type": "agent_log"});
        client.post(&one.path("/activity"), &report).await.refused(401, "unauthorized");
        let notify = json!({"message": "x"});
        client.post(&one.path("/notify"), &notify).await.refused(401, "unauthorized");
    }
    let issued = service.get("/v1/tokens").await.ok();
    let tokens = issued["tokens"].as_array().unwrap();
    let own = tokens.iter().find(|token| token["worker"]["worker_id"] == one.id.as_str()).unwrap();
    let path = format!("/v1/tokens/{}", own["id"].as_str().unwrap());
    one.register().await;
    service.delete(&path).await.ok();
    one.client.post("/registry/register", &register).await.refused(401, "unauthorized");
    // It may not do what operators do.
    for path in ["/workspaces", "/v1/events", "/v1/tokens"] {
        other.client.get(path).await.refused(403, "forbidden");
    }
    other.client.post("/workspaces", &json!({"external": true})).await.refused(403, "forbidden");
    other.client.delete(&other.path("")).await.refused(403, "forbidden");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let service = Service::start().await;
    let agent = Deployed::awaited(&service).await;
    let (client, id) = (&agent.client, agent.id.as_str());
    let rows = [
        (json!({"id": id, "delivery_mode": "pull"}), 400, "invalid_request"),
        (json!({"id": id, "delivery_mode": "push"}), 400, "invalid_request"),
        (json!({"id": id, "url": "ftp://8.8.8.8/"}), 400, "url_refused"),
        (json!({"id": id, "url": "http://127.0.0.1/"}), 400, "url_refused"),
        (json!({"id": id, "url": "http://localhost:1/"}), 400, "url_refused"),
        (json!({"id": id, "url": "http://10.0.0.1/"}), 400, "url_refused"),
        (json!({"id": id, "url": "http://[::ffff:127.0.0.1]/"}), 400, "url_refused"),
        (
            json!({"id": id, "delivery_mode": "push", "url": "http://u:p@8.8.8.8/"}),
            400,
            "url_refused",
        ),
        (json!({"id": "../x"}), 400, "invalid_worker_id"),
        (json!({}), 400, "invalid_json"),
        (json!({"id": 7}), 400, "invalid_json"),
        (json!({"id": "w-nobody"}), 401, "unauthorized"),
    ];
    for (body, status, code) in rows {
        client.post("/registry/register", &body).await.refused(status, code);
    }
    let nobody = json!({"id": "w-nobody", "delivery_mode": "poll"});
    service.post("/registry/register", &nobody).await.refused(404, "worker_not_found");
    let card = json!({"id": id, "agent_card": {"name": "x".repeat(70_000)}});
    client.post("/registry/register", &card).await.refused(413, "payload_too_large");
    // With `poll` nobody looks at the URL.
    let polls = json!({"id": id, "delivery_mode": "poll", "url": "http://127.0.0.1/"});
    client.post("/registry/register", &polls).await.ok();
    client.post_bytes("/registry/heartbeat", "{").await.refused(400, "invalid_json");
    client.post_bytes("/registry/heartbeat", vec![0xff, 0xfe]).await.refused(400, "invalid_json");
}

#[tokio::test]
async fn a_fleet_at_rest_writes_nothing() {
    let service = Service::start().await;
    let mut agents = Vec::new();
    for _ in 0..5 {
        agents.push(Deployed::connected(&service).await);
    }
    let (first, rest) = agents.split_first_mut().unwrap();
    rest[0].ask(first, "m", "hello").await;
    first.poll().await;
    first.poll().await;
    let head = service.head().await;
    for _ in 0..5 {
        for agent in &mut agents {
            agent.beat().await;
            assert!(agent.poll().await.is_empty());
        }
    }
    assert_eq!(service.head().await, head);
}

#[tokio::test]
async fn an_agent_that_beats_but_does_not_poll_is_shown_as_deaf() {
    let service = Options::default().arg("--lease-ms=1500").start().await;
    let mut agent = Deployed::connected(&service).await;
    assert!(agent.poll().await.is_empty());
    let text = json!({"message": {"parts": [{"type": "text", "text": "hello?"}]}});
    service.post(&agent.path("/a2a"), &text).await.ok();
    // It beats all the time and says that it is well.
    eventually("it is found deaf", || async {
        agent.beat().await;
        (agent.status(&service).await == "degraded").then_some(())
    })
    .await;
    agent.beat().await;
    assert_eq!(agent.status(&service).await, "degraded", "a beat does not make it listen");
    let state = service.get(&agent.path("/state")).await.ok();
    assert_eq!(state["diagnostics"][0]["code"], "agent_deaf");
    assert_eq!(agent.poll().await.len(), 1);
    assert_eq!(agent.status(&service).await, "online", "a poll does");
    let events = agent.events(&service).await;
    let ends = ["message_received", "worker_degraded", "worker_recovered"];
    assert_eq!(events[events.len() - 3..], ends);
}

#[tokio::test]
async fn after_a_restart_every_lease_is_granted_anew() {
    let mut service = Options::default().arg("--lease-ms=15000").start().await;
    let agent = Deployed::connected(&service).await;
    service.kill9().await;
    service.restart().await;
    assert_eq!(agent.status(&service).await, "online");
    becomes(&service, &agent, "awaiting_agent").await;
}
