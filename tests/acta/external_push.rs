//! Agents with a URL: messages are posted to them, at least once, in order, and given up in the
//! end where an operator sees it.

use crate::support::{Deployed, Options, PATIENCE, Service, envelope, eventually};
use axum::{Router, extract::State, http::HeaderMap, routing::post};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, time::timeout};

type Answers = Arc<Mutex<VecDeque<(u16, String)>>>;
type Posts = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// An agent that answers as it is told, and else with an echo.
pub struct Endpoint {
    pub url: String,
    answers: Answers,
    posts: Posts,
}

async fn take(
    State((answers, posts)): State<(Answers, Posts)>,
    headers: HeaderMap,
    body: String,
) -> axum::response::Response {
    let body: Value = serde_json::from_str(&body).unwrap();
    let text = body["params"]["message"]["parts"][0]["text"].as_str().unwrap().to_owned();
    posts.lock().unwrap().push((headers, body));
    let next = answers.lock().unwrap().pop_front();
    let echo = json!({"jsonrpc": "2.0", "result": {"parts": [{"text": format!("echo: {text}")}]}});
    let (status, body) = next.unwrap_or((200, echo.to_string()));
    let mut response = axum::http::Response::builder().status(status);
    if status == 302 {
        response = response.header("location", "http://127.0.0.1:1/");
    }
    response.body(body.into()).unwrap()
}

impl Endpoint {
    pub async fn open() -> Self {
        let (answers, posts) = (Answers::default(), Posts::default());
        let app = Router::new()
            .route("/a2a", post(take))
            .with_state((Arc::clone(&answers), Arc::clone(&posts)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a2a", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, answers, posts }
    }

    fn will_answer(&self, answers: &[(u16, &str)]) {
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned()));
        self.answers.lock().unwrap().extend(answers);
    }

    pub fn texts(&self) -> Vec<String> {
        let text = |body: &Value| {
            body["params"]["message"]["parts"][0]["text"].as_str().unwrap().to_owned()
        };
        self.posts.lock().unwrap().iter().map(|(_, body)| text(body)).collect()
    }
}

pub fn options(attempts: u32) -> Options {
    Options::default()
        .arg("--push-allow=127.0.0.0/8")
        .arg("--push-pause-ms=20")
        .arg(format!("--push-attempts-max={attempts}"))
}

pub async fn registered(service: &Service, url: &str) -> Deployed {
    let agent = Deployed::awaited(service).await;
    let body = json!({"id": agent.id, "agent_card": {"name": "x"}, "url": url});
    let answer = agent.client.post("/registry/register", &body).await.ok();
    assert_eq!(answer, json!({"status": "registered", "delivery_mode": "push"}));
    agent
}

#[tokio::test]
async fn the_answer_to_a_message_is_the_agents_own() {
    let service = options(3).start().await;
    let endpoint = Endpoint::open().await;
    let (asker, agent) =
        (Deployed::connected(&service).await, registered(&service, &endpoint.url).await);
    let message = envelope("m-1", "ping");
    let answer = asker.client.post(&agent.path("/a2a"), &message).await.ok();
    assert_eq!(answer["result"]["parts"][0]["text"], "echo: ping");
    let again = asker.client.post(&agent.path("/a2a"), &message).await.ok();
    assert_eq!(again, answer);
    assert_eq!(endpoint.texts(), ["ping"], "a repeat is answered from the log");
    let (headers, body) = endpoint.posts.lock().unwrap()[0].clone();
    assert_eq!(body["params"]["message"]["messageId"], "m-1");
    assert_eq!(headers["x-acta-source-id"], asker.id.as_str());
    assert!(headers["x-acta-row-id"].to_str().unwrap().starts_with("act-"));
    assert_eq!(asker.replies().await.len(), 1);
    let events = agent.events(&service).await;
    assert_eq!(events[3..], ["message_received", "message_delivered", "message_answered"]);
    // A person's input, and the answer in the transcript.
    service.input(&agent.id, "hello").await;
    eventually("a person is answered", || async {
        let transcript = service.transcript(&agent.id).await;
        let last = transcript["items"].as_array().unwrap().last().cloned();
        (last.unwrap()["content"] == "echo: hello").then_some(())
    })
    .await;
    // Neither lists nor the state show more of the URL than where it leads.
    let shown = service.get(&agent.path("")).await.ok();
    assert_eq!(format!("{}/a2a", shown["url"].as_str().unwrap()), endpoint.url);
}

#[tokio::test]
async fn a_delivery_is_tried_again_in_order_and_survives_a_restart() {
    let mut service = options(100).start().await;
    let endpoint = Endpoint::open().await;
    let agent = registered(&service, &endpoint.url).await;
    endpoint.will_answer(&[(503, ""), (500, "oh"), (429, ""), (200, "")]);
    for text in ["one", "two"] {
        service.input(&agent.id, text).await;
    }
    eventually("both are delivered", || async { (endpoint.texts().len() == 5).then_some(()) })
        .await;
    assert_eq!(endpoint.texts(), ["one", "one", "one", "one", "two"]);
    endpoint.will_answer(&vec![(503, ""); 10_000]);
    service.input(&agent.id, "three").await;
    service.input(&agent.id, "four").await;
    eventually("it is tried", || async { (endpoint.texts().len() > 6).then_some(()) }).await;
    service.kill9().await;
    endpoint.answers.lock().unwrap().clear();
    let before = endpoint.texts().len();
    service.restart().await;
    eventually("it goes on", || async { (endpoint.texts().len() >= before + 2).then_some(()) })
        .await;
    assert_eq!(endpoint.texts()[before..], ["three", "four"]);
}

#[tokio::test]
async fn what_cannot_be_delivered_is_seen_and_tried_again_by_an_operator() {
    let service = options(3).start().await;
    let endpoint = Endpoint::open().await;
    let agent = registered(&service, &endpoint.url).await;
    for (answer, reason) in [((404, "who?"), "404"), ((302, ""), "302"), ((503, ""), "503")] {
        let times = if answer.0 == 503 { 3 } else { 1 };
        let before = endpoint.texts().len();
        endpoint.will_answer(&vec![answer; times]);
        let message = json!({"message": {"text": reason}});
        let refused = service.post(&agent.path("/a2a"), &message).await;
        let why = refused.refused(502, "delivery_failed");
        assert!(why.contains(reason), "{why}");
        assert_eq!(endpoint.texts().len(), before + times, "{reason}");
    }
    let shown = service.get(&agent.path("")).await.ok();
    assert_eq!(shown["waiting_messages"], 0);
    let dead = shown["undelivered"].as_array().unwrap();
    assert_eq!(dead.len(), 3);
    assert_eq!(shown["diagnostics"][0]["code"], "delivery_failed");
    let first = dead[0]["id"].as_str().unwrap();
    let retry = agent.path(&format!("/deliveries/{first}/retry"));
    agent.client.post(&retry, &json!({})).await.refused(403, "forbidden");
    service.post(&retry, &json!({})).await.ok();
    eventually("it is delivered", || async {
        let shown = service.get(&agent.path("")).await.ok();
        (shown["undelivered"].as_array().unwrap().len() == 2 && shown["waiting_messages"] == 0)
            .then_some(())
    })
    .await;
    service.post(&retry, &json!({})).await.refused(409, "not_undelivered");
    let events = agent.events(&service).await;
    for kind in ["delivery_failed", "delivery_retried", "message_delivered"] {
        assert!(events.iter().any(|found| found == kind), "{kind}");
    }
}

#[tokio::test]
async fn an_operator_lists_what_was_given_up_and_has_it_delivered_again_in_order() {
    let service = options(1).start().await;
    let endpoint = Endpoint::open().await;
    let (asker, agent) =
        (Deployed::connected(&service).await, registered(&service, &endpoint.url).await);
    let list = |args: &[&str]| {
        let ran = service.command().arg("delivery").args(args).output().unwrap();
        assert!(ran.status.success(), "{args:?}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    };
    assert_eq!(list(&["ls", "-o", "json"]), "{\"deliveries\":[]}\n");
    endpoint.will_answer(&[(404, "")]);
    let text = |n: u8| envelope(&format!("m-{n}"), &format!("text {n}"));
    asker.client.post(&agent.path("/a2a"), &text(1)).await.refused(502, "delivery_failed");
    endpoint.will_answer(&[(503, ""), (200, "")]);
    asker.client.post(&agent.path("/a2a"), &text(2)).await.refused(502, "delivery_failed");
    asker.client.post(&agent.path("/a2a"), &text(3)).await.ok();

    let listed = service.get("/v1/deliveries").await.ok();
    assert_eq!(listed["next_after"], Value::Null);
    let dead = listed["deliveries"].as_array().unwrap().clone();
    let reasons: Vec<_> = dead.iter().map(|dead| dead["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["it answered 404", "it answered 503"]);
    for dead in &dead {
        assert_eq!(dead["worker_id"], agent.id.as_str());
        assert_eq!(dead["source_id"], asker.id.as_str());
        assert_eq!(dead["attempts"], 1);
        assert!(dead["failed_at"].is_string() && dead["received_at"].is_string());
    }
    let table = list(&["ls", "--worker", &agent.id[..10]]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("it answered 404"), "{table}");
    assert_eq!(list(&["ls", "--worker", "nobody"]).lines().count(), 1);

    // Auditors see it, and leave it.
    let auditor = service.issue(&json!({"role": "auditor"})).await;
    let auditor = service.with_token(auditor["token"].as_str().unwrap());
    assert_eq!(auditor.get("/v1/deliveries").await.ok(), listed);
    let retry = |dead: &Value| format!("/v1/deliveries/{}/retry", dead["id"].as_str().unwrap());
    auditor.post(&retry(&dead[0]), &json!({})).await.refused(403, "forbidden");
    agent.client.get("/v1/deliveries").await.refused(403, "forbidden");
    agent.client.post(&retry(&dead[0]), &json!({})).await.refused(403, "forbidden");

    // All of the worker, by the beginning of its id: both, in order, under their own ids.
    let before = endpoint.texts().len();
    let said = list(&["retry", &agent.id]);
    assert_eq!(said.lines().count(), 2, "{said}");
    eventually("both are delivered", || async {
        let listed = service.get("/v1/deliveries").await.ok();
        let waiting = service.get(&agent.path("")).await.ok()["waiting_messages"].clone();
        (listed["deliveries"] == json!([]) && waiting == 0).then_some(())
    })
    .await;
    assert_eq!(endpoint.texts()[before..], ["text 1", "text 2"]);
    let posts = endpoint.posts.lock().unwrap().clone();
    for (n, (headers, body)) in posts[before..].iter().enumerate() {
        assert_eq!(headers["x-acta-row-id"], dead[n]["id"].as_str().unwrap());
        assert_eq!(body["params"]["message"]["messageId"], format!("m-{}", n + 1));
    }
    assert_eq!(asker.replies().await.len(), 2, "the answers come as if it had gone well at once");

    // What was delivered is not delivered once more.
    let why = service.post(&retry(&dead[0]), &json!({})).await.refused(409, "not_undelivered");
    assert!(why.contains("was delivered") && why.contains("acta delivery ls"), "{why}");
    assert_eq!(endpoint.texts().len(), before + 2);
    for (id, status, code) in [
        ("act-999999", 404, "not_found"),
        ("act-1", 404, "not_found"),
        ("17", 400, "invalid_request"),
    ] {
        let path = format!("/v1/deliveries/{id}/retry");
        service.post(&path, &json!({})).await.refused(status, code);
    }
    let address = format!("external/{}", agent.id);
    let ran = service.command().args(["delivery", "retry", &address]).output().unwrap();
    assert!(!ran.status.success() && ran.stdout.is_empty(), "{ran:?}");
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages_of_whole_workers() {
    let service = options(1).start().await;
    let endpoint = Endpoint::open().await;
    endpoint.will_answer(&[(404, ""); 6]);
    let mut agents = Vec::new();
    for _ in 0..3 {
        let agent = registered(&service, &endpoint.url).await;
        for _ in 0..2 {
            let message = json!({"message": {"text": "x"}});
            service.post(&agent.path("/a2a"), &message).await.refused(502, "delivery_failed");
        }
        agents.push(agent.id);
    }
    agents.sort();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("/v1/deliveries?limit=1{after}")).await.ok();
        let items = page["deliveries"].as_array().unwrap();
        assert_eq!(items.len(), 2, "both of one worker");
        seen.push(items[0]["worker_id"].as_str().unwrap().to_owned());
        let Some(next) = page["next_after"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, agents);
    service.get("/v1/deliveries?limit=0").await.refused(400, "invalid_query");
    service.get("/v1/deliveries?limit=257").await.refused(400, "limit_too_large");
    let gone = format!("/workspaces/{}", agents[0]);
    service.delete(&gone).await.ok();
    let left = service.get("/v1/deliveries").await.ok();
    assert_eq!(left["deliveries"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn where_a_url_leads_is_looked_at_again_when_it_is_connected_to() {
    let mut service = options(3).start().await;
    let endpoint = Endpoint::open().await;
    let by_name = endpoint.url.replace("127.0.0.1", "localhost");
    let literal = registered(&service, &endpoint.url).await;
    // `localhost` may lead to ::1 as well, which has to be allowed too.
    service.stop().await;
    service.set_args(["--push-allow=127.0.0.0/8,::1/128", "--push-pause-ms=20"]);
    service.restart_here().await;
    let named = registered(&service, &by_name).await;
    service.post(&named.path("/a2a"), &json!({"message": {"text": "allowed"}})).await.ok();
    assert_eq!(endpoint.texts(), ["allowed"]);
    // Both lead where they led before, which is not allowed any more.
    service.stop().await;
    service.set_args(["--push-pause-ms=20"]);
    service.restart_here().await;
    for agent in [&literal, &named] {
        let (path, message) = (agent.path("/a2a"), json!({"message": {"text": "x"}}));
        let sent = service.post(&path, &message);
        let why = timeout(PATIENCE, sent).await.unwrap().refused(502, "delivery_failed");
        assert!(why.contains("--push-allow"), "{why}");
    }
    assert_eq!(endpoint.texts(), ["allowed"]);
}
