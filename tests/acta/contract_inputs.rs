//! Giving workers input, and what becomes of it in each mode.

use crate::support::{Client, Service, eventually, keys};
use serde_json::{Value, json};

/// Role and content of every transcript item.
async fn said(service: &Client, worker: &str) -> Vec<(String, String)> {
    let transcript = service.transcript(worker).await;
    let items = transcript["items"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    items.map(|item| (text(&item["role"]), text(&item["content"]))).collect()
}

fn pairs(items: &[(&str, &str)]) -> Vec<(String, String)> {
    items.iter().map(|(role, content)| ((*role).into(), (*content).into())).collect()
}

#[tokio::test]
async fn an_input_ack_has_the_shape_of_the_contract() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let before = service.run_state(&worker, "idle").await;
    let path = format!("/v1/workers/{worker}/input");
    let body = service.post(&path, &json!({"kind": "user", "content": "hello"})).await.ok();
    assert_eq!(keys(&body), ["ack"]);
    let ack = &body["ack"];
    assert_eq!(
        keys(ack),
        [
            "event_id",
            "revision",
            "sequence",
            "status",
            "transcript_sequence",
            "version",
            "worker_ref"
        ]
    );
    assert_eq!(ack["worker_ref"], before["worker_ref"]);
    assert_eq!(ack["status"], "running");
    assert_eq!(ack["transcript_sequence"], 1, "counted from 1");
    assert_eq!(ack["version"].as_u64(), before["version"].as_u64().map(|version| version + 1));
    assert_eq!(ack["revision"].as_u64(), before["revision"].as_u64().map(|revision| revision + 1));
    assert_eq!(ack["event_id"], ack["sequence"]);
    let event =
        service.events(&format!("after={}&limit=1", ack["event_id"].as_u64().unwrap() - 1)).await;
    assert_eq!(
        (&event[0]["type"], &event[0]["content"]),
        (&json!("worker_input_accepted"), &json!("hello"))
    );
    let second = service.post(&path, &json!({"kind": "system", "content": "rules"})).await.ok();
    assert_eq!(second["ack"]["transcript_sequence"], 2);
}

#[tokio::test]
async fn blank_content_is_invalid_request() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    for content in ["", " ", "\n\t\r ", "\u{2003}"] {
        let body = json!({"kind": "user", "content": content});
        let answer = service.post(&format!("/v1/workers/{worker}/input"), &body).await;
        answer.refused(400, "invalid_request");
    }
    assert_eq!(service.worker(&worker).await["transcript_len"], 0);
}

#[tokio::test]
async fn input_to_an_unconnected_worker_is_409_and_nothing_enters_the_transcript() {
    let service = Service::start().await;
    let request = json!({
        "intent": {"kind": "assistant"},
        "profile": {"kind": "builtin", "value": "nothing"},
    });
    let created = service.post("/v1/workers", &request).await.ok()["worker"].clone();
    let worker = created["worker_id"].as_str().unwrap();
    let head = service.head().await;
    let body = json!({"kind": "user", "content": "anyone?"});
    let answer = service.post(&format!("/v1/workers/{worker}/input"), &body).await;
    answer.refused(409, "worker_execution_unavailable");
    assert_eq!(service.worker(worker).await, created);
    assert_eq!(service.transcript(worker).await["total_items"], 0);
    assert_eq!(service.head().await, head, "nothing was recorded");
    let ack = service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    assert_eq!(ack["ack"]["status"], "stopped", "it can be ended all the same");
}

#[tokio::test]
async fn input_that_is_known_to_be_refused_is_409_and_nothing_enters_the_transcript() {
    let service = Service::start().await;
    for (template, run_state, items) in
        [("absent", "errored", 0), ("quits", "stopped", 1), ("breaks", "errored", 1)]
    {
        let worker = service.spawn(template).await;
        if items == 1 {
            service.input(&worker, "first").await;
        }
        let ended = service.run_state(&worker, run_state).await;
        assert_eq!(ended["status"], "running", "only stop and cancel end a worker for good");
        assert_eq!(ended["execution"]["backend"], "connected");
        let body = json!({"kind": "user", "content": "more"});
        let answer = service.post(&format!("/v1/workers/{worker}/input"), &body).await;
        answer.refused(409, "worker_execution_rejected");
        assert_eq!(service.transcript(&worker).await["total_items"], items, "{template}");
    }
}

#[tokio::test]
async fn what_fails_after_it_was_accepted_is_an_event_and_the_item_stays() {
    let service = Service::start().await;
    let worker = service.spawn("absent").await;
    let body = json!({"kind": "user", "content": "in time"});
    let answer = service.post(&format!("/v1/workers/{worker}/input"), &body).await;
    let ended = service.run_state(&worker, "errored").await;
    if answer.status == 200 {
        assert_eq!(ended["transcript_len"], 1);
        eventually("the input has failed", || async {
            let failed = service.events(&format!("worker={worker}&type=worker_input_failed")).await;
            (!failed.is_empty()).then_some(())
        })
        .await;
    } else {
        // It had failed to start by then.
        answer.refused(409, "worker_execution_rejected");
    }
    let worker = service.spawn("refuses").await;
    service.input(&worker, "x").await;
    let ended = eventually("the turn has ended", || async {
        service.events(&format!("worker={worker}&type=worker_turn_ended")).await.pop()
    })
    .await;
    assert_eq!(ended["data"]["exit"], json!({"code": 3}));
    assert_eq!(said(&service, &worker).await, pairs(&[("user", "x")]));
}

#[tokio::test]
async fn a_failed_start_is_told() {
    let service = Service::start().await;
    let worker = service.spawn("absent").await;
    let state = service.run_state(&worker, "errored").await;
    let last = &state["execution"]["last_result"];
    assert_eq!(keys(last), ["message", "operation", "outcome", "run_state"]);
    assert_eq!((&last["operation"], &last["outcome"]), (&json!("spawn"), &json!("errored")));
    assert_eq!(last["run_state"], "errored");
}

#[tokio::test]
async fn a_text_session_answers_every_line() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "hello").await;
    service.rests(&worker, 2).await;
    service.input(&worker, "grüße — 你好").await;
    let state = service.rests(&worker, 4).await;
    assert_eq!(state["execution"]["run_state"], "idle");
    let expected = [
        ("user", "hello"),
        ("assistant", "hello\n"),
        ("user", "grüße — 你好"),
        ("assistant", "grüße — 你好\n"),
    ];
    assert_eq!(said(&service, &worker).await, pairs(&expected));
}

#[tokio::test]
async fn a_child_per_input_reads_the_content_from_its_standard_input() {
    let service = Service::start().await;
    let worker = service.spawn("lines").await;
    service.input(&worker, "first\nsecond").await;
    service.rests(&worker, 2).await;
    service.input(&worker, "third\n").await;
    service.rests(&worker, 4).await;
    let expected = [
        ("user", "first\nsecond"),
        ("assistant", "     1\tfirst\n     2\tsecond"),
        ("user", "third\n"),
        ("assistant", "     1\tthird\n"),
    ];
    assert_eq!(said(&service, &worker).await, pairs(&expected));
    let ended = service.events(&format!("worker={worker}&type=worker_turn_ended")).await;
    assert!(ended.iter().all(|event| event["data"]["exit"] == json!({"code": 0})), "{ended:?}");
}

#[tokio::test]
async fn a_jsonl_child_is_given_message_id_kind_and_content() {
    let service = Service::start().await;
    let worker = service.spawn("mirror").await;
    for (n, kind) in [(0, "user"), (2, "system")] {
        let content = "two\nlines, \"quoted\"";
        let body = json!({"kind": kind, "content": content});
        service.post(&format!("/v1/workers/{worker}/input"), &body).await.ok();
        service.rests(&worker, n + 2).await;
        let answer = said(&service, &worker).await.pop().unwrap().1;
        let given: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(keys(&given), ["content", "kind", "message_id"]);
        assert_eq!((&given["kind"], &given["content"]), (&json!(kind), &json!(content)));
        assert!(!given["message_id"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn inputs_to_a_busy_worker_queue_up_in_order() {
    let service = Service::start().await;
    let worker = service.spawn("lines").await;
    let contents: Vec<String> = (0..20).map(|n| format!("number {n}")).collect();
    for (n, content) in contents.iter().enumerate() {
        let ack = service.input(&worker, content).await;
        assert!(ack["transcript_sequence"].as_u64().unwrap() > n as u64);
    }
    service.rests(&worker, 40).await;
    let said = said(&service, &worker).await;
    let of = |role: &str| -> Vec<String> {
        said.iter().filter(|item| item.0 == role).map(|item| item.1.clone()).collect()
    };
    assert_eq!(of("user"), contents);
    let answers: Vec<String> = contents.iter().map(|text| format!("     1\t{text}")).collect();
    assert_eq!(of("assistant"), answers);
}

#[tokio::test]
async fn standard_error_becomes_a_diagnostic_and_no_transcript_item() {
    let service = Service::start().await;
    let worker = service.spawn("complains").await;
    service.input(&worker, "way").await;
    let event = eventually("standard error is recorded", || async {
        service.events(&format!("worker={worker}&type=worker_diagnosed")).await.pop()
    })
    .await;
    assert_eq!(event["content"], "no way\n");
    assert_eq!(service.transcript(&worker).await["total_items"], 1);
}
