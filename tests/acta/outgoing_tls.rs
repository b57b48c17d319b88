//! TLS to whomever this process connects to: who is believed, and what is said about the others.

use super::support::{
    Authority, Connector, Deployed, Options, Ran, Service, eventually,
    platform::{Platform, TOKEN, WORKER},
    run,
};
use axum::{Json, Router, http::HeaderMap, routing::post};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// What is said of a certificate that nobody known has signed.
const NAME_IT: &str = "--ca FILE, or ACTA_CA";

/// Runs a command against a service at another address than its own.
async fn acta(service: &Service, url: &str, args: &[&str], ca: Option<&str>) -> Ran {
    let mut command = service.command();
    command.env("ACTA_URL", url).env("ACTA_TOKEN", service.token()).args(args);
    if let Some(ca) = ca {
        command.args(["--ca", ca]);
    }
    run(command, "").await
}

#[tokio::test]
async fn the_command_line_believes_who_is_signed_by_an_authority_that_it_knows() {
    let service = Service::start().await;
    let authority = Authority::new();
    let front = authority.front("localhost", &service.base).await;
    let (file, at) = (authority.file(), front.at("localhost"));
    let file = file.to_str().unwrap();
    let commands: [&[&str]; 3] = [&["ls", "runtimes"], &["tail", "--no-follow"], &["export"]];
    for command in commands {
        let known = acta(&service, &at, command, Some(file)).await;
        assert!(known.ok().contains("embedded-worker-runtime"), "{known:?}");
        let unknown = acta(&service, &at, command, None).await;
        assert!(unknown.code == 1 && unknown.stderr.contains(NAME_IT), "{unknown:?}");
        let other = acta(&service, &front.at("127.0.0.1"), command, Some(file)).await;
        assert!(other.code == 1 && other.stderr.contains("another host name"), "{other:?}");
        // Its port without TLS.
        let plain = service.base.replacen("http", "https", 1);
        let plain = acta(&service, &plain, command, Some(file)).await;
        assert!(plain.code == 1 && plain.stderr.contains("does not speak TLS"), "{plain:?}");
    }
    let mut by_variable = service.command();
    by_variable.env("ACTA_URL", &at).env("ACTA_TOKEN", service.token()).env("ACTA_CA", file);
    by_variable.args(["ls", "hosts"]);
    run(by_variable, "").await.ok();
    let missing = acta(&service, &at, &["ls"], Some("nowhere.pem")).await;
    assert!(missing.code == 1 && missing.stderr.contains("nowhere.pem"), "{missing:?}");
    let refused = service.command().args(["serve", "--ca", "nowhere.pem"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}

fn remote(id: &str, url: &str) -> Value {
    json!({"runtime_id": id, "kind": "remote_http", "url": url, "token_env": "ELSEWHERE_TOKEN"})
}

#[tokio::test]
async fn another_service_is_asked_and_observed_over_tls() {
    let there = Service::start().await;
    let authority = Authority::new();
    let front = authority.front("localhost", &there.base).await;
    let options = || Options::default().env("ELSEWHERE_TOKEN", &there.token());
    let here = options().arg("--ca").arg(authority.file().to_str().unwrap()).start().await;
    let known = here.post("/v1/runtimes", &remote("known", &front.at("localhost"))).await.ok();
    assert_eq!(known["runtime"]["status"], "running", "{known}");
    let worker = there.spawn("echo").await;
    let path = format!("/v1/runtimes/known/workers/{worker}");
    here.post(&format!("{path}/input"), &json!({"content": "hello"})).await.ok();
    there.rests(&worker, 2).await;
    let said = here.get(&format!("{path}/transcript")).await.ok();
    assert_eq!(said["items"][0]["content"], "hello");
    let mut seen = here.watch(&format!("{path}/events/ws?after=0")).await;
    seen.until(|frame| frame["envelope"]["payload"]["event"] == "turn_end").await;

    let ignorant = options().start().await;
    for (service, host, why) in
        [(&here, "127.0.0.1", "another host name"), (&ignorant, "localhost", NAME_IT)]
    {
        let asked = remote("unknown", &front.at(host));
        let runtime = service.post("/v1/runtimes", &asked).await.ok()["runtime"].clone();
        let diagnostic = &runtime["diagnostics"][0];
        let expected = (&json!("unavailable"), &json!("remote_untrusted"));
        assert_eq!((&runtime["status"], &diagnostic["code"]), expected, "{runtime}");
        assert!(diagnostic["message"].as_str().unwrap().contains(why), "{runtime}");
        let path = format!("/v1/runtimes/unknown/workers/{worker}");
        let input = service.post(&format!("{path}/input"), &json!({"content": "x"})).await.ok();
        assert_eq!(
            (&input["state"], &input["diagnostics"][0]["code"]),
            (&json!("rejected"), &json!("remote_untrusted"))
        );
        let said = service.get(&path).await.refused(503, "runtime_unavailable");
        assert!(said.contains(why), "{said}");
        let (status, body) = service.watch_refused(&format!("{path}/events/ws")).await;
        assert!(status == 503 && body.to_string().contains(why), "{body}");
    }
    assert_eq!(there.transcript(&worker).await["total_items"], 2, "nobody else was let through");
}

/// An agent that notes the `Host` of what it is given.
async fn agent() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let hosts = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&hosts);
    let answer = move |headers: HeaderMap, Json(body): Json<Value>| async move {
        noted.lock().unwrap().push(headers["host"].to_str().unwrap().to_owned());
        let text = body["params"]["message"]["parts"][0]["text"].as_str().unwrap_or_default();
        let parts = json!([{"kind": "text", "text": format!("answer to {text}")}]);
        let message = json!({"kind": "message", "role": "agent", "messageId": "x", "parts": parts});
        Json(json!({"jsonrpc": "2.0", "id": body["id"], "result": message}))
    };
    let router = Router::new().route("/agent", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, hosts)
}

async fn given_up(service: &Service, agent: &str) -> String {
    let query = format!("after={}&type=delivery_failed", service.head().await);
    service.input(agent, "are you there").await;
    eventually("the message was given up", || async {
        let failed = service.events(&query).await;
        failed.last().map(|event| event["data"]["reason"].as_str().unwrap().to_owned())
    })
    .await
}

async fn registered(service: &Service, url: &str) -> Deployed {
    let agent = Deployed::awaited(service).await;
    let body = json!({"id": agent.id, "url": url, "delivery_mode": "push"});
    agent.client.post("/registry/register", &body).await.ok();
    agent
}

#[tokio::test]
async fn messages_are_posted_over_tls_to_the_address_that_was_looked_at() {
    let (url, hosts) = agent().await;
    let authority = Authority::new();
    let front = authority.front("localhost", &url).await;
    let file = format!("--ca={}", authority.file().display());
    let allow = "--push-allow=127.0.0.0/8,::1/128";
    let once = "--push-attempts-max=1";
    let mut service = Options::default().arg(&file).arg(allow).arg(once).start().await;
    let posted = format!("{}/agent", front.at("localhost"));
    let agent = registered(&service, &posted).await;
    service.input(&agent.id, "hello").await;
    eventually("an answer", || async {
        let said = service.transcript(&agent.id).await;
        said.to_string().contains("answer to hello").then_some(())
    })
    .await;
    assert_eq!(front.asked(), ["localhost"], "the name of the URL, whichever address it has");
    assert_eq!(*hosts.lock().unwrap(), [format!("localhost:{}", front.port)]);
    let other = registered(&service, &format!("{}/agent", front.at("127.0.0.1"))).await;
    assert!(given_up(&service, &other.id).await.contains("another host name"));

    // What may not be reached is not reached over TLS either.
    service.kill9().await;
    service.set_args([file.as_str(), once]);
    service.restart().await;
    assert!(given_up(&service, &agent.id).await.contains("--push-allow"));
    let refused = json!({"id": agent.id, "url": posted, "delivery_mode": "push"});
    let again = service.with_token(agent.client.bearer.as_deref().unwrap());
    again.post("/registry/register", &refused).await.refused(400, "url_refused");

    let ignorant = Options::default().arg(allow).arg(once).start().await;
    let agent = registered(&ignorant, &posted).await;
    assert!(given_up(&ignorant, &agent.id).await.contains(NAME_IT));
    assert_eq!((front.asked().len(), hosts.lock().unwrap().len()), (1, 1), "nothing else came");
}

#[tokio::test]
async fn an_agent_connects_and_asks_its_backend_over_tls() {
    let platform = Platform::start().await;
    let (url, hosts) = agent().await;
    let authority = Authority::new();
    let outer = authority.front("localhost", &platform.url).await;
    let inner = authority.front("localhost", &url).await;
    let backend = format!("url={}/agent", inner.at("localhost"));
    let file = authority.file();
    let args = ["--backend", "a2a", "--backend-opt", &backend];
    let known = [&args[..], &["--ca", file.to_str().unwrap()]].concat();
    let _agent = Connector::new(&outer.at("localhost"), WORKER, TOKEN, &known).started();
    platform.message(Some("w-2"), "m-1", "hello");
    let reply = platform.after("a2a", 1).await.remove(0);
    let said = &reply.body["params"]["message"]["parts"][0]["text"];
    assert_eq!((said, hosts.lock().unwrap().len()), (&json!("answer to hello"), 1));
    // One that is not believed is not asked again and again.
    let ignorant = Connector::new(&outer.at("localhost"), WORKER, TOKEN, &args);
    let ran = ignorant.run().await;
    assert!(ran.code == 1 && ran.stderr.contains(NAME_IT), "{ran:?}");
    let misled = Connector::new(&outer.at("127.0.0.1"), WORKER, TOKEN, &known).run().await;
    assert!(misled.code == 1 && misled.stderr.contains("another host name"), "{misled:?}");
}
