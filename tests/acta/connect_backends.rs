//! `acta connect`: backends at work, as the platform sees them.

use crate::support::{
    Connector, eventually,
    platform::{Platform, TOKEN, WORKER},
};
use axum::{Json, Router, response::IntoResponse as _, routing::post};
use futures_util::{StreamExt as _, stream};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Instant};
use tokio::sync::Notify;

fn agent(platform: &Platform, args: &[&str]) -> Connector {
    Connector::new(&platform.url, WORKER, TOKEN, args)
}

fn said(body: &Value) -> &str {
    body["params"]["message"]["parts"][0]["text"].as_str().unwrap_or_default()
}

async fn file(path: &Path) -> String {
    eventually(&format!("{}", path.display()), || async {
        fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
    })
    .await
}

fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z"))
}

async fn gone(pid: &str) {
    eventually("the end of a child", || async { (!is_alive(pid)).then_some(()) }).await;
}

#[tokio::test]
async fn no_child_gets_the_token() {
    let platform = Platform::start().await;
    let args = [
        "--backend",
        "exec",
        "--backend-opt",
        "pass_meta=true",
        "--backend-opt",
        "cmd=env; cat /proc/self/environ /proc/self/cmdline | tr '\\0' '\\n'",
    ];
    let _agent = agent(&platform, &args)
        .env("ACTA_TOKEN", "operator-secret")
        .env("MOLECULE_WORKSPACE_TOKEN", "third-secret")
        .env("THEIR_KEY", "kept")
        .started();
    platform.message(Some("w-2"), "m-1", "x");
    let reply = platform.after("a2a", 1).await.remove(0);
    let env = said(&reply.body);
    for line in [
        "ACTA_WORKER_ID=w-1",
        "ACTA_CALLER_ID=w-2",
        "ACTA_MESSAGE_ID=m-1",
        "ACTA_TASK_ID=task-m-1",
        "ACTA_METHOD=message/send",
        "THEIR_KEY=kept",
    ] {
        assert!(env.lines().any(|got| got == line), "{line}: {env}");
    }
    for secret in [TOKEN, "operator-secret", "third-secret"] {
        assert!(!env.contains(secret), "{env}");
    }
}

#[tokio::test]
async fn what_exec_prints_is_shown_while_it_is_printed() {
    let platform = Platform::start().await;
    // It goes on when it is told to, so the piece cannot have waited for the end.
    let cmd = "cmd=echo begun; while ! [ -e go ]; do sleep 0.05; done; echo ended";
    let agent = agent(&platform, &["--backend", "exec", "--backend-opt", cmd]).started();
    let row = platform.message(Some("w-2"), "m-1", "x");
    let piece = platform.after("piece", 1).await.remove(0);
    assert_eq!(piece.body["summary"], "begun\n");
    assert_eq!(piece.body["reply_to"], row);
    assert_eq!(piece.body["method"], "text_delta");
    assert!(platform.calls("a2a").is_empty());
    fs::write(agent.home().join("go"), "").unwrap();
    let reply = platform.after("a2a", 1).await.remove(0);
    assert_eq!(said(&reply.body), "begun\nended");
}

#[tokio::test]
async fn claude_code_gets_the_message_on_its_standard_input() {
    let platform = Platform::start().await;
    let args = ["--backend-opt", "bin=./my claude", "--backend-opt", "args=--model 'a b'"];
    let mut agent = agent(&platform, &args);
    let bin = agent.home().join("my claude");
    fs::write(&bin, "#!/bin/sh\nprintf '%s|' \"$@\"\necho \"$ACTA_MESSAGE_ID|$(cat)\"\n").unwrap();
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
    agent.start();
    platform.message(Some("w-2"), "m-1", "do it; $(now)");
    let reply = platform.after("a2a", 1).await.remove(0);
    assert_eq!(said(&reply.body), "-p|--model|a b|m-1|do it; $(now)");
}

#[tokio::test]
async fn a2a_forwards_to_an_agent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url=http://{}/agent", listener.local_addr().unwrap());
    let answer = async |Json(body): Json<Value>| {
        let message = &body["params"]["message"];
        let parts = match body["method"].as_str().unwrap() {
            "tasks/get" => json!([{ "kind": "text", "text": "later" }]),
            _ => match message["parts"][0]["text"].as_str().unwrap() {
                "fail" => {
                    return Json(json!({ "jsonrpc": "2.0", "id": body["id"],
                        "error": { "code": -1, "message": "no idea" } }));
                }
                "task" => {
                    return Json(json!({ "jsonrpc": "2.0", "id": body["id"],
                        "result": { "id": "t-1", "status": { "state": "working" } } }));
                }
                text => {
                    json!([{ "kind": "text", "text": format!("{text} {}", message["messageId"]) }])
                }
            },
        };
        Json(json!({ "jsonrpc": "2.0", "id": body["id"],
            "result": { "kind": "message", "role": "agent", "messageId": "x", "parts": parts } }))
    };
    let router = Router::new().route("/agent", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let platform = Platform::start().await;
    let _agent = agent(&platform, &["--backend", "a2a", "--backend-opt", &url]).started();
    for (id, text) in [("m-1", "hello"), ("m-2", "task"), ("m-3", "fail")] {
        platform.message(Some("w-2"), id, text);
    }
    platform.all_consumed().await;
    let replies = platform.counted("a2a");
    let texts: Vec<&str> = replies.iter().map(|call| said(&call.body)).collect();
    assert_eq!(texts, ["hello \"m-1\"", "later"]);
    let detail = platform.counted("report")[0].body["error_detail"].to_string();
    assert!(detail.contains("no idea"), "{detail}");
}

/// What an agent answers that streams, a piece only after the first was let go on.
fn streamed(body: &Value, go: Arc<Notify>) -> axum::response::Response {
    assert_eq!(body["method"], "message/stream");
    let id = body["id"].clone();
    let event = move |result: Value| {
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": result});
        Ok::<_, std::io::Error>(format!("data: {answer}\n\n"))
    };
    let piece = |append: bool, text: &str| {
        json!({"kind": "artifact-update", "taskId": "t-1", "append": append,
            "artifact": {"artifactId": "a", "parts": [{"kind": "text", "text": text}]}})
    };
    let begun = stream::iter([
        event(json!({"kind": "task", "id": "t-1", "status": {"state": "submitted"}})),
        event(piece(false, "beg")),
    ]);
    let (more, end) = (
        event(piece(true, "un")),
        event(json!({"kind": "status-update", "taskId": "t-1", "final": true,
            "status": {"state": "completed"}})),
    );
    let rest = stream::once(async move {
        go.notified().await;
        stream::iter([more, end])
    });
    let body = axum::body::Body::from_stream(begun.chain(rest.flatten()));
    ([("content-type", "text/event-stream; charset=utf-8")], body).into_response()
}

#[tokio::test]
async fn what_an_a2a_agent_streams_is_shown_while_it_comes() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url=http://{}/agent", listener.local_addr().unwrap());
    let go = Arc::new(Notify::new());
    let held = Arc::clone(&go);
    let answer = move |Json(body): Json<Value>| {
        let go = Arc::clone(&held);
        async move {
            let text = body["params"]["message"]["parts"][0]["text"].as_str().unwrap();
            let answer = match (text, body["method"].as_str().unwrap()) {
                ("stream", _) => return streamed(&body, go),
                // One that does not stream says so, and is asked for the whole answer.
                (_, "message/stream") => json!({"jsonrpc": "2.0", "id": body["id"],
                    "error": {"code": -32601, "message": "no such method"}}),
                (_, method) => json!({"jsonrpc": "2.0", "id": body["id"], "result":
                    {"kind": "message", "parts": [{"kind": "text", "text": method}]}}),
            };
            Json(answer).into_response()
        }
    };
    let router = Router::new().route("/agent", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let platform = Platform::start().await;
    let args = ["--backend", "a2a", "--backend-opt", &url, "--backend-opt", "stream=true"];
    let _agent = agent(&platform, &args).started();
    platform.message(Some("w-2"), "m-1", "stream");
    let piece = platform.after("piece", 1).await.remove(0);
    assert_eq!(
        (&piece.body["summary"], &piece.body["method"]),
        (&json!("beg"), &json!("text_delta"))
    );
    assert!(platform.calls("a2a").is_empty());
    go.notify_one();
    platform.message(Some("w-2"), "m-2", "whole");
    platform.all_consumed().await;
    let replies = platform.counted("a2a");
    let texts: Vec<&str> = replies.iter().map(|call| said(&call.body)).collect();
    assert_eq!(texts, ["begun", "message/send"]);
}

#[tokio::test]
async fn a_stop_lets_the_message_in_hand_finish() {
    let platform = Platform::start().await;
    let cmd = "cmd=echo $$ > pid; sleep 0.5; cat";
    let mut agent = agent(&platform, &["--backend", "exec", "--backend-opt", cmd]).started();
    platform.message(Some("w-2"), "m-1", "x");
    platform.message(Some("w-2"), "m-2", "y");
    file(&agent.home().join("pid")).await;
    agent.stop().await;
    assert_eq!(platform.counted("a2a").len(), 1, "the one in hand, not the next one");
}

#[tokio::test]
async fn a_stop_ends_the_children_and_leaves_the_message() {
    let platform = Platform::start().await;
    let cmd = "cmd=[ -e go ] && exec cat; echo $$ > pid; sleep 100 & wait";
    let mut agent = agent(&platform, &["--backend", "exec", "--backend-opt", cmd]).started();
    platform.message(Some("w-2"), "m-1", "x");
    let pid = file(&agent.home().join("pid")).await;
    let begun = Instant::now();
    // The first asks, the second does not want to wait.
    agent.signal(Signal::SIGINT);
    agent.says("stopping").await;
    agent.stop().await;
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    gone(&pid).await;
    assert!(platform.calls("a2a").is_empty() && platform.calls("report").is_empty());
    fs::write(agent.home().join("go"), "").unwrap();
    agent.start();
    platform.all_consumed().await;
    assert_eq!(platform.counted("a2a").len(), 1);
}

#[tokio::test]
async fn a_slow_backend_does_not_keep_the_heart_from_beating() {
    let platform = Platform::start().await;
    platform.fail("heartbeat", vec![crate::support::platform::Fault::Status(500); 8]);
    let cmd = "cmd=sleep 100";
    let _agent = agent(&platform, &["--backend", "exec", "--backend-opt", cmd]).started();
    platform.message(Some("w-2"), "m-1", "x");
    platform.asked("heartbeat", 9).await;
    assert!(platform.calls("a2a").is_empty());
}
