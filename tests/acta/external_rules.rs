//! Bounds of the inbox and of lists, what agents report, and what may be erased when.

use crate::support::{Deployed, Service, eventually};
use serde_json::{Value, json};

fn texts(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["summary"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_message_is_not_erased_before_its_agent_has_dealt_with_it() {
    let service = Service::start().await;
    let (asker, mut agent) =
        (Deployed::connected(&service).await, Deployed::connected(&service).await);
    asker.ask(&agent, "m-1", "a password").await;
    service.input(&agent.id, "another one").await;
    let rows = agent.poll().await;
    let redact = async |row: &Value| {
        let seq: u64 = row["id"].as_str().unwrap()[4..].parse().unwrap();
        let body = json!({"sequence": seq, "reason": "it was pasted"});
        service.post("/v1/redactions", &body).await
    };
    for row in &rows {
        let why = redact(row).await.refused(409, "input_pending");
        assert!(why.contains("its agent has not dealt with"), "{why}");
    }
    // The cursor goes beyond both.
    assert!(agent.poll().await.is_empty());
    for row in &rows {
        redact(row).await.ok();
    }
    let again = service.get(&agent.path("/activity?since_id=")).await.ok();
    assert_eq!(again, json!([]));
    // Whoever goes back finds that there was a message, and nothing of it.
    asker.ask(&agent, "m-2", "kept").await;
    let first = rows[0]["id"].as_str().unwrap();
    let back = agent.rows(Some(first), "").await;
    let shown: Vec<_> =
        back.iter().map(|row| (&row["summary"], row["request_body"].is_null())).collect();
    assert_eq!(shown, [(&json!(""), true), (&json!("kept"), false)]);
    // To a worker that was removed nothing is delivered any more.
    let left = back[1].clone();
    redact(&left).await.refused(409, "input_pending");
    service.delete(&agent.path("")).await.ok();
    redact(&left).await.ok();
}

#[tokio::test]
async fn since_secs_leaves_out_what_is_older_and_deals_with_nothing() {
    let service = Service::start().await;
    let agent = Deployed::connected(&service).await;
    service.input(&agent.id, "old").await;
    assert_eq!(texts(&agent.rows(None, "&since_secs=3600").await), ["old"]);
    eventually("a second has gone by", || async {
        agent.rows(None, "&since_secs=1").await.is_empty().then_some(())
    })
    .await;
    service.input(&agent.id, "new").await;
    let all = agent.rows(None, "").await;
    assert_eq!(texts(&all), ["old", "new"], "what was left out still waits");
    let first = all[0]["id"].as_str();
    assert_eq!(texts(&agent.rows(first, "&since_secs=2592000").await), ["new"]);
}

#[tokio::test]
async fn workers_are_listed_in_pages() {
    let service = Service::start().await;
    assert_eq!(service.get("/workspaces").await.ok(), json!([]));
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(Deployed::awaited(&service).await.id);
    }
    made.sort();
    let page = async |query: &str| {
        let list = service.get(&format!("/workspaces{query}")).await.ok();
        let list = list.as_array().unwrap().clone();
        list.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(page("").await, made);
    assert_eq!(page("?limit=2").await, made[..2]);
    assert_eq!(page(&format!("?limit=2&after={}", made[1])).await, made[2..4]);
    assert_eq!(page(&format!("?limit=2&after={}", made[4])).await, Vec::<String>::new());
    // What was removed stays in the list, as what it is.
    service.delete(&format!("/workspaces/{}", made[0])).await.ok();
    let list = service.get("/workspaces?limit=1").await.ok();
    assert_eq!((&list[0]["id"], &list[0]["status"]), (&json!(made[0]), &json!("removed")));
    service.get("/workspaces?limit=x").await.refused(400, "invalid_query");
}

#[tokio::test]
async fn a_page_has_a_hundred_rows_unless_more_are_asked_for() {
    let service = Service::start().await;
    let agent = Deployed::connected(&service).await;
    let all: Vec<String> = (0..120).map(|n| format!("message {n}")).collect();
    for text in &all {
        service.input(&agent.id, text).await;
    }
    let page = async |query: &str| {
        let answer = agent.client.get(&agent.path(&format!("/activity{query}"))).await.ok();
        answer.as_array().unwrap().clone()
    };
    let first = page("").await;
    assert_eq!(texts(&first), all[..100]);
    let last = first.last().unwrap()["id"].as_str().unwrap();
    assert_eq!(texts(&page(&format!("?since_id={last}")).await), all[100..]);
    assert_eq!(page(&format!("?limit=7&since_id={last}")).await.len(), 7);
    assert_eq!(page("?limit=500").await.len(), 20, "a hundred are dealt with");
}

#[tokio::test]
async fn every_kind_of_report_is_in_the_events_and_in_the_transcript() {
    let service = Service::start().await;
    let agent = Deployed::connected(&service).await;
    let kinds = [
        "a2a_send",
        "a2a_receive",
        "task_update",
        "agent_log",
        "skill_promotion",
        "memory_write",
        "error",
    ];
    for kind in kinds {
        let report = json!({"activity_type": kind, "summary": format!("of {kind}"), "own": 7});
        let answer = agent.client.post(&agent.path("/activity"), &report).await.ok();
        assert_eq!(answer["status"], "ok");
        let again = agent.client.post(&agent.path("/activity"), &json!({})).await;
        again.refused(400, "invalid_request");
    }
    let attached = json!({"message": "look", "attachments": [{"uri": "http://f.example/a"}]});
    agent.client.post(&agent.path("/notify"), &attached).await.ok();
    let records = agent.records(&service).await;
    let reported: Vec<_> = records.iter().filter(|it| it["type"] == "worker_reported").collect();
    let found: Vec<_> =
        reported.iter().map(|it| it["data"]["activity"].as_str().unwrap()).collect();
    assert_eq!(found, kinds);
    assert!(reported.iter().all(|it| it["content"]["own"] == 7), "{reported:?}");
    let notified = records.iter().find(|it| it["type"] == "worker_notified").unwrap();
    assert_eq!(notified["content"]["attachments"], attached["attachments"]);
    let transcript = service.transcript(&agent.id).await;
    let said: Vec<_> = transcript["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["content"].as_str().unwrap().to_owned())
        .collect();
    let mut expected: Vec<String> = kinds.iter().map(|kind| format!("of {kind}")).collect();
    expected.push("look".into());
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_worker_shows_how_its_agent_is() {
    let service = Service::start().await;
    let agent = Deployed::awaited(&service).await;
    assert_eq!(service.worker(&agent.id).await["agent"]["presence"], "awaiting_agent");
    agent.register().await;
    service.input(&agent.id, "hello").await;
    // What a beat says beside is for whoever wants it.
    agent.beat_with(json!({"active_tasks": 3, "current_task": "t", "error_rate": 0.7})).await;
    let shown = service.worker(&agent.id).await["agent"].clone();
    assert_eq!(shown["name"], "an agent");
    assert_eq!(
        (&shown["presence"], &shown["degraded"]),
        (&json!("degraded"), &json!("error_rate"))
    );
    assert_eq!((&shown["delivery_mode"], &shown["waiting_messages"]), (&json!("poll"), &json!(1)));
    assert_eq!(shown["undelivered_messages"], 0);
    let echo = service.spawn("echo").await;
    assert_eq!(service.worker(&echo).await.get("agent"), None);
}
