//! An operator makes a worker, and gets everything that an agent needs, once.

use crate::support::{Deployed, Options, Service, eventually, keys};
use serde_json::json;
use std::process::Stdio;

#[tokio::test]
async fn the_answer_has_all_that_an_agent_needs() {
    let service = Service::start().await;
    for asked in
        [json!({"name": "x", "runtime": "external"}), json!({"name": "x", "external": true})]
    {
        let answer = service.post("/workspaces", &asked).await.created();
        assert_eq!(answer["external"], true);
        assert_eq!(answer["status"], "awaiting_agent");
        let connection = &answer["connection"];
        assert_eq!(connection["workspace_id"], answer["id"]);
        let base = service.listening["listening"].as_str().unwrap();
        assert_eq!(connection["platform_url"], base);
        assert_eq!(connection["registry_endpoint"], format!("{base}/registry/register"));
        assert_eq!(connection["heartbeat_endpoint"], format!("{base}/registry/heartbeat"));
        let token = connection["auth_token"].as_str().unwrap();
        assert_eq!(token.len(), 43);
        for snippet in ["curl_register_template", "python_snippet"] {
            let snippet = connection[snippet].as_str().unwrap();
            assert!(snippet.contains("ACTA_WORKER_TOKEN") && !snippet.contains(token));
        }
        let id = answer["id"].as_str().unwrap();
        // The token is in no other answer, and not in what the service writes.
        for path in ["/workspaces", "/v1/tokens", "/v1/events", "/v1/views"] {
            assert!(!service.get(path).await.text().contains(token), "{path}");
        }
        assert!(!service.get(&format!("/workspaces/{id}")).await.text().contains(token));
        assert!(!service.log().contains(token));
    }
}

#[tokio::test]
async fn the_platform_is_named_as_configured_or_as_asked() {
    let create = async |service: &Service, headers: &[(&str, &str)]| {
        let mut request = service.request(reqwest::Method::POST, "/workspaces");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        service.send(request.json(&json!({"name": "x", "runtime": "external"}))).await
    };
    let service = Service::start().await;
    let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "acta.example.org:8443")];
    let answer = create(&service, &forwarded).await.created();
    assert_eq!(answer["connection"]["platform_url"], "https://acta.example.org:8443");
    for bad in ["a'; rm -rf ~; '", "a b", "$(x)", "a/b", ""] {
        create(&service, &[("x-forwarded-host", bad)]).await.refused(400, "invalid_request");
    }
    create(&service, &[("x-forwarded-proto", "javascript")]).await.refused(400, "invalid_request");
    let configured = Options::default()
        .env("EXTERNAL_PLATFORM_URL", "https://platform.example.org/base/")
        .start()
        .await;
    let answer = create(&configured, &forwarded).await.created();
    assert_eq!(answer["connection"]["platform_url"], "https://platform.example.org/base");
}

#[tokio::test]
async fn with_a_url_it_is_online_and_has_no_connection() {
    let service = Options::default().arg("--push-allow=127.0.0.0/8").start().await;
    let asked = json!({"name": "x", "runtime": "external", "url": "http://127.0.0.1:9/a2a"});
    let answer = service.post("/workspaces", &asked).await.created();
    assert_eq!(keys(&answer), ["external", "id", "status"]);
    assert_eq!(answer["status"], "online");
    let refused = json!({"name": "x", "external": true, "url": "http://169.254.169.254/"});
    service.post("/workspaces", &refused).await.refused(400, "url_refused");
}

#[tokio::test]
async fn another_runtime_is_a_template() {
    let service = Service::start().await;
    let answer =
        service.post("/workspaces", &json!({"name": "x", "runtime": "echo"})).await.created();
    assert_eq!(answer["external"], false);
    let path = format!("/workspaces/{}/state", answer["id"].as_str().unwrap());
    eventually("it runs", || async {
        let state = service.get(&path).await.ok();
        (state["status"] == "online").then_some(())
    })
    .await;
    let unknown = json!({"name": "x", "runtime": "no-such-template"});
    let refused = service.post("/workspaces", &unknown).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("no-such-template"), "{}", refused.text());
    service.post("/workspaces", &json!({"name": "x"})).await.refused(400, "invalid_request");
    let long = json!({"name": "x".repeat(121), "runtime": "external"});
    service.post("/workspaces", &long).await.refused(400, "invalid_request");
}

#[tokio::test]
async fn a_removed_worker_stays_removed() {
    let service = Service::start().await;
    let agent = Deployed::connected(&service).await;
    assert_eq!(agent.status(&service).await, "online");
    let answer = service.delete(&agent.path("")).await.ok();
    assert_eq!(answer, json!({"status": "removed"}));
    assert_eq!(agent.status(&service).await, "removed");
    let beat = json!({"workspace_id": agent.id, "runtime_state": "ok", "uptime_seconds": 0});
    agent.client.post("/registry/heartbeat", &beat).await.refused(401, "unauthorized");
    let register = json!({"id": agent.id, "delivery_mode": "poll"});
    agent.client.post("/registry/register", &register).await.refused(401, "unauthorized");
    service.post("/registry/register", &register).await.refused(409, "worker_execution_rejected");
    service.post("/registry/heartbeat", &beat).await.refused(409, "worker_execution_rejected");
    assert_eq!(agent.status(&service).await, "removed");
    assert_eq!(service.delete(&agent.path("")).await.ok(), json!({"status": "removed"}));
    let message = json!({"message": {"parts": [{"text": "hello"}]}});
    let sent = service.post(&agent.path("/a2a"), &message).await;
    sent.refused(409, "worker_execution_rejected");
}

#[tokio::test]
async fn the_curl_snippet_runs_as_it_is() {
    let service = Service::start().await;
    let agent = Deployed::awaited(&service).await;
    let connection = &agent.created["connection"];
    let run = |token: Option<&str>| {
        let mut command = tokio::process::Command::new("sh");
        command.arg("-c").arg(connection["curl_register_template"].as_str().unwrap());
        command.env_remove("ACTA_WORKER_TOKEN").stdin(Stdio::null());
        command.env("no_proxy", "127.0.0.1");
        if let Some(token) = token {
            command.env("ACTA_WORKER_TOKEN", token);
        }
        command.output()
    };
    assert!(!run(None).await.unwrap().status.success());
    let ran = run(connection["auth_token"].as_str()).await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{ran:?}");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said, json!({"status": "registered", "delivery_mode": "poll"}));
    assert_eq!(agent.status(&service).await, "online");
}

#[tokio::test]
async fn the_python_snippet_runs_as_it_is() {
    let service = Service::start().await;
    let mut asker = Deployed::connected(&service).await;
    let agent = Deployed::awaited(&service).await;
    let connection = &agent.created["connection"];
    let mut child = tokio::process::Command::new("python3")
        .arg("-c")
        .arg(connection["python_snippet"].as_str().unwrap())
        .env("ACTA_WORKER_TOKEN", connection["auth_token"].as_str().unwrap())
        .env("no_proxy", "127.0.0.1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually("it registers", || async {
        (agent.status(&service).await == "online").then_some(())
    })
    .await;
    asker.ask(&agent, "m-1", "ping").await;
    let reply = eventually("an agent is answered", || async { asker.replies().await.pop() }).await;
    assert_eq!(reply["request_body"]["params"]["message"]["parts"][0]["text"], "echo: ping");
    assert!(asker.poll().await.is_empty(), "a reply is no message");
    // A person asks, and sees the answer in the transcript.
    let input = json!({"kind": "user", "content": "are you there?"});
    service.post(&format!("/v1/workers/{}/input", agent.id), &input).await.ok();
    eventually("a person is answered", || async {
        let path = format!("/v1/workers/{}/transcript", agent.id);
        let transcript = service.get(&path).await.ok();
        let items = transcript["transcript"]["items"].as_array().unwrap();
        let said = items.last().map(|item| (&item["role"], &item["content"]));
        (said == Some((&json!("assistant"), &json!("echo: are you there?")))).then_some(())
    })
    .await;
    child.kill().await.unwrap();
}
