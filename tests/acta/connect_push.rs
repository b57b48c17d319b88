//! `acta connect --mode push`: the platform brings the messages.

use crate::support::{
    Answer, Client, Connector, eventually,
    platform::{Platform, TOKEN, WORKER},
};
use serde_json::{Value, json};
use std::fs;

fn envelope(id: &str, text: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": format!("act-{id}"), "method": "message/send",
        "params": { "message": {
            "messageId": id, "parts": [{ "type": "text", "kind": "text", "text": text }],
        } },
    })
}

/// An agent, and a platform's client of its endpoint.
struct Pushed {
    platform: Platform,
    agent: Connector,
    starts: usize,
}

impl Pushed {
    async fn start(args: &[&str]) -> (Self, Client) {
        let platform = Platform::start().await;
        let mut all = vec!["--mode", "push"];
        all.extend(args);
        let agent = Connector::new(&platform.url, WORKER, TOKEN, &all);
        let mut pushed = Self { platform, agent, starts: 0 };
        let client = pushed.again().await;
        (pushed, client)
    }

    async fn again(&mut self) -> Client {
        self.agent.start();
        self.starts += 1;
        let register = self.platform.after("register", self.starts).await.pop().unwrap();
        assert_eq!(register.body["delivery_mode"], "push");
        Client::new(register.body["url"].as_str().unwrap().to_owned(), None)
    }
}

fn said(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["result"]["parts"][0]["text"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_answer_to_a_message_that_is_brought_is_the_response() {
    let (mut pushed, client) = Pushed::start(&["--backend", "mock"]).await;
    let answer = client.post("", &envelope("m-1", "ping")).await;
    assert_eq!(said(&answer), "echo: ping");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &json!("act-m-1")));
    assert_eq!(body["result"]["messageId"], "reply-act-m-1");
    pushed.platform.after("heartbeat", 1).await;
    assert!(pushed.platform.calls("poll").is_empty() && pushed.platform.calls("a2a").is_empty());
    pushed.agent.stop().await;
    assert!(!pushed.agent.log().contains(TOKEN));
}

#[tokio::test]
async fn a_message_that_is_brought_again_gets_the_answer_that_was_recorded() {
    let args = ["--backend", "exec", "--backend-opt", "cmd=echo x >> runs; sleep 0.3; cat"];
    let (mut pushed, client) = Pushed::start(&args).await;
    // The second comes while the first is worked on.
    let message = envelope("m-1", "a");
    let (first, second) = tokio::join!(client.post("", &message), client.post("", &message));
    assert_eq!((said(&first), said(&second)), ("a".into(), "a".into()));
    pushed.agent.kill9().await;
    let client = pushed.again().await;
    assert_eq!(said(&client.post("", &message).await), "a");
    assert_eq!(fs::read_to_string(pushed.agent.home().join("runs")).unwrap(), "x\n");
    let other = client.request(reqwest::Method::POST, "").header("x-acta-source-id", "w-9");
    assert_eq!(said(&client.send(other.json(&message)).await), "a");
    assert_eq!(fs::read_to_string(pushed.agent.home().join("runs")).unwrap(), "x\nx\n");
}

#[tokio::test]
async fn a_failure_is_a_json_rpc_error_and_final() {
    let args = ["--backend", "exec", "--backend-opt", "cmd=echo x >> runs; exit 7"];
    let (pushed, client) = Pushed::start(&args).await;
    for _ in 0..2 {
        let answer = client.post("", &envelope("m-1", "a")).await;
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(body["error"]["message"].as_str().unwrap().contains("status 7"), "{body}");
    }
    assert_eq!(fs::read_to_string(pushed.agent.home().join("runs")).unwrap(), "x\nx\nx\n");
}

#[tokio::test]
async fn whoever_does_not_know_the_address_or_the_form_is_refused() {
    let (pushed, client) = Pushed::start(&["--backend", "mock"]).await;
    let (base, secret) = client.base.rsplit_once('/').unwrap();
    assert!(secret.len() >= 32, "{secret}");
    let check = |answer: Answer, status: u16| assert_eq!(answer.status, status, "{answer:?}");
    let stranger = Client::new(base.into(), None);
    check(stranger.post("/guess", &envelope("m", "x")).await, 404);
    check(stranger.post("", &envelope("m", "x")).await, 404);
    check(client.get("").await, 405);
    check(client.post_bytes("", "{").await, 400);
    check(client.post_bytes("", vec![0xff; 10]).await, 400);
    check(client.post("", &json!({ "params": {} })).await, 400);
    check(client.post("", &json!({ "parts": [{ "type": "text", "text": "no id" }] })).await, 400);
    check(client.post_bytes("", vec![b' '; (1 << 20) + 1]).await, 413);
    assert_eq!(said(&client.post("", &envelope("m", "x")).await), "echo: x");
    assert!(!pushed.agent.log().contains(secret), "{}", pushed.agent.log());
}

#[tokio::test]
async fn a_stop_asks_the_platform_to_come_again() {
    let cmd = "cmd=echo $$ >> pids; sleep 100";
    let (mut pushed, client) = Pushed::start(&["--backend", "exec", "--backend-opt", cmd]).await;
    let message = envelope("m-1", "a");
    let bringing = tokio::spawn(async move { client.post("", &message).await });
    let pids = pushed.agent.home().join("pids");
    eventually("the work", || async { pids.exists().then_some(()) }).await;
    pushed.agent.signal(nix::sys::signal::Signal::SIGTERM);
    pushed.agent.says("stopping").await;
    pushed.agent.stop().await;
    let answer = bringing.await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
}
