//! `Idempotency-Key` and `If-Match`.

use crate::support::{Answer, Client, Service};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const REPLAYED: &str = "idempotent-replayed";

fn if_match(client: &Client, path: &str, tag: &str, body: &Value) -> RequestBuilder {
    client.request(Method::POST, path).header("if-match", tag).json(body)
}

fn is_replayed(answer: &Answer) -> bool {
    match answer.header(REPLAYED) {
        "" => false,
        "true" => true,
        other => panic!("{other}"),
    }
}

fn create() -> Value {
    json!({
        "intent": {"kind": "assistant", "purpose": "To help"},
        "profile": {"kind": "runtime_default"},
        "template": "echo",
    })
}

#[tokio::test]
async fn a_repeated_key_answers_again_with_equal_json_across_kill_9() {
    let mut service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let ended = service.spawn("echo").await;
    let bundle = json!({"bundle": {"metadata": {}}});
    let commands = [
        ("/v1/workers".to_owned(), create()),
        (format!("/v1/workers/{worker}/input"), json!({"kind": "user", "content": "once"})),
        (format!("/v1/workers/{ended}/cancel"), json!({"reason": "enough"})),
        (format!("/v1/workers/{ended}/stop"), json!({})),
    ];
    let mut answers = Vec::new();
    for (n, (path, body)) in commands.iter().enumerate() {
        let answer = service.post_keyed(path, &format!("key-{n}"), body).await;
        assert!(!is_replayed(&answer), "{path}");
        answers.push(answer.ok());
    }
    service.post_keyed("/v1/config-bundles", "key-0", &bundle).await.refused(400, "invalid_json");
    let recorded = service.events("").await.len();
    for restart in [false, true, true] {
        if restart {
            service.kill9().await;
            service.restart().await;
        }
        // The last one had nothing to record, as the worker had ended: that is so each time.
        for (n, (path, body)) in commands.iter().enumerate() {
            let answer = service.post_keyed(path, &format!("key-{n}"), body).await;
            assert_eq!(answer.ok(), answers[n], "{path}, after a restart: {restart}");
            assert_eq!(is_replayed(&answer), n < 3, "{path}");
        }
        // More time has passed than the workers' own doings: no input came twice.
        let inputs = service.events(&format!("worker={worker}&type=worker_input_accepted")).await;
        assert_eq!(inputs.len(), 1);
        assert_eq!(service.events("type=worker_created").await.len(), 3);
    }
    assert!(service.events("").await.len() >= recorded);
}

#[tokio::test]
async fn a_key_of_another_command_is_422_and_names_the_first_sequence() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let other = service.spawn("refuses").await;
    let path = format!("/v1/workers/{worker}/input");
    let input = |kind: &str, content: &str| json!({"kind": kind, "content": content});
    let first = service.post_keyed(&path, "k", &input("user", "one")).await.ok();
    let sequence = first["ack"]["sequence"].to_string();
    for (path, body) in [
        (path.clone(), input("user", "two")),
        (path.clone(), input("system", "one")),
        (format!("/v1/workers/{other}/input"), input("user", "one")),
        (format!("/v1/workers/{worker}/stop"), json!({})),
        ("/v1/workers".into(), create()),
    ] {
        let answer = service.post_keyed(&path, "k", &body).await;
        let message = answer.refused(422, "idempotency_key_reused");
        assert!(message.split(|c: char| !c.is_ascii_digit()).any(|n| n == sequence), "{message}");
    }
    let again = service.post_keyed(&path, "k", &input("user", "one")).await;
    assert_eq!((again.ok(), is_replayed(&again)), (first, true));
}

#[tokio::test]
async fn the_same_content_in_other_bytes_is_the_same_command() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let path = format!("/v1/workers/{worker}/input");
    let first =
        service.post_keyed(&path, "k", &json!({"kind": "user", "content": "é\n"})).await.ok();
    let request = service.request(Method::POST, &path).header("idempotency-key", "k");
    let request = request.header("content-type", "application/json");
    let spelt = br#" { "content" : "\u00e9\u000a", "more": 1, "kind" : "user" } "#;
    let again = service.send(request.body(&spelt[..])).await;
    assert_eq!((again.ok(), is_replayed(&again)), (first, true));
}

#[tokio::test]
async fn keys_are_told_apart_by_who_sends_them() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let path = format!("/v1/workers/{worker}/input");
    let token = service.issue(&json!({"role": "operator"})).await;
    let second = service.with_token(token["token"].as_str().unwrap());
    let first = service.post_keyed(&path, "k", &json!({"kind": "user", "content": "a"})).await.ok();
    let other = second.post_keyed(&path, "k", &json!({"kind": "user", "content": "b"})).await;
    assert!(!is_replayed(&other));
    assert_ne!(other.ok(), first);
}

#[tokio::test]
async fn a_key_is_1_to_255_visible_ascii_characters() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let path = format!("/v1/workers/{worker}/input");
    let input = json!({"kind": "user", "content": "x"});
    for key in ["!", "~", "a\"b:{}", &"k".repeat(255)] {
        service.post_keyed(&path, key, &input).await.ok();
    }
    for key in ["", "a b", &"k".repeat(256)] {
        service.post_keyed(&path, key, &input).await.refused(400, "invalid_request");
    }
    let request = service.request(Method::POST, &path).json(&input);
    let request = request.header("idempotency-key", &b"\xc3\xa9"[..]);
    service.send(request).await.refused(400, "invalid_request");
}

#[tokio::test]
async fn two_at_once_are_one_decision_with_one_answer() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let path = format!("/v1/workers/{worker}/input");
    for round in 0..10 {
        let (key, body) = (format!("k{round}"), json!({"kind": "user", "content": "x"}));
        let posts = (0..8).map(|_| service.post_keyed(&path, &key, &body));
        let answers = futures_util::future::join_all(posts).await;
        let fresh = answers.iter().filter(|answer| !is_replayed(answer)).count();
        assert_eq!(fresh, 1);
        assert!(answers.iter().all(|answer| answer.ok() == answers[0].ok()));
    }
    let inputs = service.events(&format!("worker={worker}&type=worker_input_accepted")).await;
    assert_eq!(inputs.len(), 10);
    let creates = (0..8).map(|_| async { service.post_keyed("/v1/workers", "c", &create()).await });
    let answers = futures_util::future::join_all(creates).await;
    assert!(answers.iter().all(|answer| answer.ok() == answers[0].ok()));
    assert_eq!(service.get("/v1/workers").await.ok()["workers"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_command_that_was_rejected_is_not_remembered() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let path = format!("/v1/workers/{worker}/input");
    service
        .post_keyed(&path, "k", &json!({"kind": "user", "content": " "}))
        .await
        .refused(400, "invalid_request");
    let answer = service.post_keyed(&path, "k", &json!({"kind": "user", "content": "x"})).await;
    assert!(!is_replayed(&answer));
    answer.ok();
    let stale = if_match(&service, &path, "\"99\"", &json!({"kind": "user", "content": "y"}));
    service.send(stale.header("idempotency-key", "l")).await.refused(412, "version_conflict");
    let fresh = service.post_keyed(&path, "l", &json!({"kind": "user", "content": "y"})).await;
    assert!(!is_replayed(&fresh));
    fresh.ok();
}

#[tokio::test]
async fn the_key_is_looked_at_before_if_match() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let revision = service.run_state(&worker, "idle").await["revision"].to_string();
    let path = format!("/v1/workers/{worker}/input");
    let body = json!({"kind": "user", "content": "x"});
    let send = || {
        let tag = format!("\"{revision}\"");
        let request = if_match(&service, &path, &tag, &body).header("idempotency-key", "k");
        service.send(request)
    };
    let first = send().await;
    let again = send().await;
    assert_eq!(again.ok(), first.ok());
    assert!(is_replayed(&again), "the revision has moved on, but the command was done");
}

#[tokio::test]
async fn if_match_takes_the_revision_and_conflicts_are_412_with_the_current_one() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let state = service.run_state(&worker, "idle").await;
    let path = |end: &str| format!("/v1/workers/{worker}/{end}");
    let input = json!({"kind": "user", "content": "x"});
    let revision = state["revision"].as_u64().unwrap();
    for wrong in [0, revision - 1, revision + 1] {
        for (end, body) in [("input", &input), ("stop", &json!({})), ("cancel", &json!({}))] {
            let tag = format!("\"{wrong}\"");
            let answer = service.send(if_match(&service, &path(end), &tag, body)).await;
            let message = answer.refused(412, "version_conflict");
            assert!(message.contains(&revision.to_string()), "{message}");
        }
    }
    let tag = format!("\"{revision}\"");
    let ack = service.send(if_match(&service, &path("input"), &tag, &input)).await.ok();
    assert_eq!(ack["ack"]["revision"], revision + 1);
    // What the worker says does not count.
    let rested = service.rests(&worker, 2).await;
    assert_eq!(rested["revision"], revision + 1);
    assert!(rested["version"].as_u64().unwrap() > revision + 1);
    service
        .send(if_match(&service, &path("input"), &tag, &input))
        .await
        .refused(412, "version_conflict");
    let tag = format!("\"{}\"", revision + 1);
    service.send(if_match(&service, &path("stop"), &tag, &json!({}))).await.ok();
    for bad in ["x", "\"\"", "-1", "1.5"] {
        let answer = service.send(if_match(&service, &path("stop"), bad, &json!({}))).await;
        answer.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn of_several_with_the_same_revision_one_wins() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let revision = service.run_state(&worker, "idle").await["revision"].to_string();
    let path = format!("/v1/workers/{worker}/input");
    let posts = (0..8).map(|n| {
        let body = json!({"kind": "user", "content": format!("writer {n}")});
        let tag = format!("\"{revision}\"");
        service.send(if_match(&service, &path, &tag, &body))
    });
    let answers = futures_util::future::join_all(posts).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    let lost = answers.iter().filter(|answer| answer.status == 412).count();
    assert_eq!((won, lost), (1, 7));
}
