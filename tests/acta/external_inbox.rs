//! What an agent is told, and how it gets at it.

use crate::support::{Deployed, Service, envelope, keys};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn texts(rows: &[Value]) -> Vec<&str> {
    let part = "/request_body/params/message/parts/0/text";
    rows.iter().map(|row| row.pointer(part).unwrap().as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_row_is_what_deployed_clients_read() {
    let service = Service::start().await;
    let (asker, mut agent) =
        (Deployed::connected(&service).await, Deployed::connected(&service).await);
    asker.ask(&agent, "m-1", "ping").await;
    let rows = agent.poll().await;
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let expected = [
        "activity_type",
        "created_at",
        "duration_ms",
        "error_detail",
        "id",
        "method",
        "request_body",
        "response_body",
        "source_id",
        "status",
        "summary",
        "target_id",
        "workspace_id",
    ];
    assert_eq!(keys(row), expected);
    assert!(row["id"].as_str().unwrap().starts_with("act-"));
    assert_eq!(row["workspace_id"], agent.id.as_str());
    assert_eq!(row["target_id"], agent.id.as_str());
    assert_eq!(row["source_id"], asker.id.as_str());
    assert_eq!(row["activity_type"], "a2a_receive");
    assert_eq!(row["method"], "message/send");
    assert_eq!(row["summary"], "ping");
    assert_eq!(row["status"], "ok");
    for absent in ["response_body", "duration_ms", "error_detail"] {
        assert_eq!(row[absent], Value::Null);
    }
    let mut asked = envelope("m-1", "ping");
    asked["params"]["message"]["parts"][0]["kind"] = "text".into();
    assert_eq!(row["request_body"], asked);
}

#[tokio::test]
async fn a_bare_payload_is_wrapped_and_a_person_has_no_source() {
    let service = Service::start().await;
    let mut agent = Deployed::connected(&service).await;
    service
        .post(&agent.path("/a2a"), &json!({"parts": [{"kind": "text", "text": "one"}]}))
        .await
        .ok();
    service.post(&agent.path("/a2a"), &json!({"message": {"text": "two"}})).await.ok();
    service.input(&agent.id, "three").await;
    let rows = agent.poll().await;
    assert_eq!(texts(&rows), ["one", "two", "three"]);
    for row in &rows {
        assert_eq!(row["source_id"], Value::Null);
        let message = &row["request_body"]["params"]["message"];
        assert!(!message["messageId"].as_str().unwrap().is_empty());
        assert_eq!(message["parts"][0]["type"], "text");
        assert_eq!(message["parts"][0]["kind"], "text");
    }
    for bad in ["", "[]", "7", "{", "\"\\ud800\""] {
        let refused = service.post_bytes(&agent.path("/a2a"), bad).await;
        refused.refused(400, "invalid_json");
    }
    service.post("/workspaces/w-nobody/a2a", &json!({})).await.refused(404, "worker_not_found");
}

#[tokio::test]
async fn a_cursor_moves_on_and_is_committed_by_reading_with_it() {
    let service = Service::start().await;
    let agent = Deployed::connected(&service).await;
    for n in 1..=5 {
        service.input(&agent.id, &format!("{n}")).await;
    }
    let all = agent.rows(None, "").await;
    assert_eq!(texts(&all), ["1", "2", "3", "4", "5"]);
    assert_eq!(agent.rows(None, "").await, all, "reading without a cursor deals with nothing");
    let id = |n: usize| all[n]["id"].as_str();
    let query = agent.path("/activity?type=a2a_receive&limit=2");
    assert_eq!(texts(agent.client.get(&query).await.ok().as_array().unwrap()), ["1", "2"]);
    // An operator looks on without moving anything.
    let seen = service.get(&format!("{query}&since_id={}", id(3).unwrap())).await.ok();
    assert_eq!(texts(seen.as_array().unwrap()), ["5"]);
    assert_eq!(agent.rows(None, "").await.len(), 5);
    assert_eq!(texts(&agent.rows(id(1), "").await), ["3", "4", "5"]);
    assert_eq!(texts(&agent.rows(None, "").await), ["3", "4", "5"], "two are dealt with");
    assert_eq!(texts(&agent.rows(id(0), "").await), ["2", "3", "4", "5"], "back is allowed");
    assert_eq!(texts(&agent.rows(None, "").await), ["3", "4", "5"], "and changes nothing");
    let shown = service.get(&agent.path("")).await.ok();
    assert_eq!(shown["read_through"], all[1]["id"]);
    assert_eq!(shown["waiting_messages"], 3);
    let read = agent.events(&service).await;
    assert_eq!(read.iter().filter(|kind| *kind == "inbox_read").count(), 1);
    // What is read is no news to those who watch.
    let quiet = service.events(&format!("worker={}&runtime=external", agent.id)).await;
    assert!(quiet.iter().all(|record| record["type"] != "inbox_read"));
}

#[tokio::test]
async fn a_cursor_that_is_none_of_this_worker_is_gone() {
    let service = Service::start().await;
    let (agent, other) = (Deployed::connected(&service).await, Deployed::connected(&service).await);
    service.input(&agent.id, "mine").await;
    service.input(&other.id, "theirs").await;
    let theirs = other.rows(None, "").await[0]["id"].as_str().unwrap().to_owned();
    let registered = agent.records(&service).await[2]["seq"].as_u64().unwrap();
    let no_row = format!("act-{registered}");
    for id in [theirs.as_str(), &no_row, "act-0", "act-999999", "act-", "act-x", "17", "act-01"] {
        let query = agent.path(&format!("/activity?type=a2a_receive&since_id={id}"));
        agent.client.get(&query).await.refused(410, "activity_unknown");
    }
    assert_eq!(texts(&agent.rows(None, "").await), ["mine"]);
}

#[tokio::test]
async fn what_is_asked_for_is_checked() {
    let service = Service::start().await;
    let (asker, agent) = (Deployed::connected(&service).await, Deployed::connected(&service).await);
    asker.ask(&agent, "m", "from an agent").await;
    service.input(&agent.id, "from a person").await;
    assert_eq!(texts(&agent.rows(None, "&source=agent").await), ["from an agent"]);
    assert_eq!(texts(&agent.rows(None, "&source=canvas").await), ["from a person"]);
    assert_eq!(agent.rows(None, "&since_secs=2592000").await.len(), 2);
    for bad in [
        "since_secs=0",
        "since_secs=-1",
        "since_secs=2592001",
        "since_secs=x",
        "limit=0",
        "limit=x",
        "type=nonsense",
        "source=x",
        "wait=x",
    ] {
        let query = agent.path(&format!("/activity?{bad}"));
        agent.client.get(&query).await.refused(400, "invalid_query");
    }
    assert_eq!(
        agent.client.get(&agent.path("/activity?limit=9999")).await.ok().as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn an_answer_is_recorded_once_and_is_no_message_to_the_asker() {
    let service = Service::start().await;
    let (mut asker, mut agent) =
        (Deployed::connected(&service).await, Deployed::connected(&service).await);
    asker.ask(&agent, "m-1", "ping").await;
    let row = agent.poll().await.remove(0);
    for _ in 0..3 {
        agent.reply(&row, "pong").await;
    }
    assert!(asker.poll().await.is_empty());
    let replies = asker.replies().await;
    let [reply] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(reply["activity_type"], "a2a_reply");
    assert_eq!(reply["source_id"], agent.id.as_str());
    assert_eq!(reply["summary"], "pong");
    assert_eq!(reply["in_reply_to"], row["id"]);
    let both = asker.client.get(&asker.path("/activity")).await.ok();
    assert_eq!(both.as_array().unwrap().len(), 1);
    let answered = &agent.rows(None, "").await[0];
    assert_eq!(answered["response_body"]["params"]["message"]["parts"][0]["text"], "pong");
    assert!(answered["duration_ms"].is_i64());
    // Reading replies with a cursor deals with them.
    let query =
        asker.path(&format!("/activity?type=a2a_reply&since_id={}", reply["id"].as_str().unwrap()));
    assert_eq!(asker.client.get(&query).await.ok(), json!([]));
    assert!(asker.replies().await.is_empty());
    let kinds = agent.events(&service).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "message_answered").count(), 1);
}

#[tokio::test]
async fn a_reply_to_a_worker_that_is_gone_is_no_error() {
    let service = Service::start().await;
    let (asker, mut agent) =
        (Deployed::connected(&service).await, Deployed::connected(&service).await);
    asker.ask(&agent, "m-1", "ping").await;
    let row = agent.poll().await.remove(0);
    service.delete(&asker.path("")).await.ok();
    agent.reply(&row, "pong").await;
    agent.reply(&row, "pong").await;
    let kinds = agent.events(&service).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "message_answered").count(), 1);
}

#[tokio::test]
async fn the_same_message_twice_is_delivered_once() {
    let service = Service::start().await;
    let (asker, mut agent) =
        (Deployed::connected(&service).await, Deployed::connected(&service).await);
    asker.ask(&agent, "m-1", "ping").await;
    asker.ask(&agent, "m-1", "ping, said otherwise").await;
    let keyed = |key: &str, message: &str| json!({"idempotency_key": key, "message": {"messageId": message, "text": "keyed"}});
    for body in [keyed("k", "m-2"), keyed("k", "m-3")] {
        asker.client.post(&agent.path("/a2a"), &body).await.ok();
    }
    let header = json!({"message": {"text": "by header"}});
    for _ in 0..2 {
        asker.client.post_keyed(&agent.path("/a2a"), "h", &header).await.ok();
    }
    // Another caller's ids are its own.
    service.post(&agent.path("/a2a"), &envelope("m-1", "theirs")).await.ok();
    assert_eq!(texts(&agent.poll().await), ["ping", "keyed", "by header", "theirs"]);
}

#[tokio::test]
async fn a_page_is_never_larger_than_clients_read() {
    let service = Service::start().await;
    let mut agent = Deployed::connected(&service).await;
    let big = "x".repeat(700 << 10);
    for n in 0..3 {
        service.post(&agent.path("/a2a"), &envelope(&format!("m-{n}"), &big)).await.ok();
    }
    let too_big = envelope("m-9", &"x".repeat(769 << 10));
    service.post(&agent.path("/a2a"), &too_big).await.refused(413, "payload_too_large");
    let escaped = json!({"kind": "user", "content": "\u{1}".repeat(200 << 10)});
    let path = format!("/v1/workers/{}/input", agent.id);
    service.post(&path, &escaped).await.refused(413, "payload_too_large");
    let mut read = 0;
    while read < 3 {
        let query = agent.path("/activity?type=a2a_receive&limit=50");
        assert!(agent.client.get(&query).await.body.len() < 1 << 20);
        let rows = agent.poll().await;
        assert_eq!(rows.len(), 1);
        read += rows.len();
        // An answer does not make the row too large either.
        let row = json!({"message": big, "reply_to": rows[0]["id"]});
        agent.client.post(&agent.path("/notify"), &row).await.ok();
        assert!(agent.client.get(&query).await.body.len() < 1 << 20);
    }
    assert!(agent.poll().await.is_empty());
}

#[tokio::test]
async fn a_poll_that_waits_has_the_message_at_once() {
    let service = Service::start().await;
    let agent = Deployed::connected(&service).await;
    let mut slowest = Duration::ZERO;
    for n in 0..5 {
        let since = agent.rows(None, "").await.last().map(|row| row["id"].clone());
        let since = since.as_ref().and_then(Value::as_str).map(ToOwned::to_owned);
        let waiting = agent.rows(since.as_deref(), "&wait=30");
        let sending = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let begun = Instant::now();
            service.input(&agent.id, &format!("{n}")).await;
            begun
        };
        let (rows, begun) = tokio::join!(waiting, sending);
        slowest = slowest.max(begun.elapsed());
        assert_eq!(texts(&rows), [n.to_string()]);
    }
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    let last = agent.rows(None, "").await.last().unwrap()["id"].as_str().unwrap().to_owned();
    let begun = Instant::now();
    assert!(agent.rows(Some(&last), "&wait=1").await.is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(900));
    // A removed worker's poll does not go on.
    let query = agent.path("/activity?wait=30");
    let waiting = agent.client.get(&query);
    let removing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        service.delete(&agent.path("")).await.ok();
    };
    let (answer, ()) = tokio::join!(waiting, removing);
    answer.refused(401, "unauthorized");
}

#[tokio::test]
async fn a_person_talks_to_an_agent_and_hears_its_answer() {
    let service = Service::start().await;
    let mut agent = Deployed::connected(&service).await;
    let sent =
        service.command().args(["send", &agent.id, "are", "you", "there?"]).output().unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let row = agent.poll().await.remove(0);
    let delta =
        |text: &str| json!({"activity_type": "agent_log", "method": "text_delta", "summary": text});
    let mut watching = service.watch(&format!("/v1/workers/{}/events/ws", agent.id)).await;
    watching.frame().await;
    agent.client.post(&agent.path("/activity"), &delta("I ")).await.ok();
    let frames =
        watching.until(|frame| frame["envelope"]["payload"]["event"] == "text_delta").await;
    assert_eq!(frames.last().unwrap()["envelope"]["payload"]["data"]["text"], "I ");
    let answer = json!({"message": "I am.", "reply_to": row["id"]});
    let first = agent.client.post(&agent.path("/notify"), &answer).await.ok();
    assert_eq!(first["status"], "sent");
    assert_eq!(agent.client.post(&agent.path("/notify"), &answer).await.ok(), first);
    watching.until(|frame| frame["envelope"]["payload"]["data"]["text"] == "I am.").await;
    let report = json!({"activity_type": "task_update", "summary": "half done"});
    agent.client.post(&agent.path("/activity"), &report).await.ok();
    agent
        .client
        .post(&agent.path("/activity"), &json!({"activity_type": "x"}))
        .await
        .refused(400, "invalid_request");
    agent
        .client
        .post(&agent.path("/notify"), &json!({"message": " "}))
        .await
        .refused(400, "invalid_request");
    agent
        .client
        .post(&agent.path("/notify"), &json!({"message": "x", "reply_to": "act-1"}))
        .await
        .refused(400, "invalid_request");
    let transcript = service.transcript(&agent.id).await;
    let said: Vec<_> = transcript["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["role"].as_str().unwrap(), item["content"].as_str().unwrap()))
        .collect();
    assert_eq!(said, [("user", "are you there?"), ("assistant", "I am."), ("system", "half done")]);
    for command in [["tail", "--no-follow"].as_slice(), &["transcript"]] {
        let (name, more) = command.split_first().unwrap();
        let shown = service.command().arg(name).arg(&agent.id).args(more).output().unwrap();
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(text.contains("are you there?") && text.contains("I am."), "{shown:?}");
    }
    agent.poll().await;
    assert_eq!(service.get(&agent.path("")).await.ok()["waiting_messages"], 0);
}
