//! `acta connect` asks for messages, has them answered, and replies, whatever the platform does.

use crate::support::{
    Connector,
    platform::{Fault, Platform, TOKEN, WORKER},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{fs, time::Instant};

const MOCK: [&str; 2] = ["--backend", "mock"];

fn agent(platform: &Platform, args: &[&str]) -> Connector {
    Connector::new(&platform.url, WORKER, TOKEN, args)
}

fn said(body: &Value) -> &str {
    body["params"]["message"]["parts"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_message_is_answered_to_the_letter_of_the_wire() {
    let platform = Platform::start().await;
    let mut agent = agent(&platform, &MOCK).started();
    let row = platform.message(Some("w-2"), "m-1", "marmalade");
    let reply = platform.after("a2a", 1).await.remove(0);
    assert_eq!((reply.worker.as_str(), reply.authorized), ("w-2", true));
    let expected = json!({
        "jsonrpc": "2.0", "id": row, "method": "message/send",
        "params": { "message": {
            "role": "agent", "messageId": format!("reply-{row}"), "task_id": "task-m-1",
            "parts": [{ "type": "text", "kind": "text", "text": "echo: marmalade" }],
        } },
    });
    assert_eq!(reply.body, expected);
    platform.all_consumed().await;

    let register = platform.calls("register").remove(0).body;
    assert_eq!(register["id"], WORKER);
    assert_eq!(register["delivery_mode"], "poll");
    assert!(register["agent_card"]["version"].is_string() && register.get("url").is_none());
    // The first heartbeat comes at once.
    let beat = platform.after("heartbeat", 1).await.remove(0).body;
    assert_eq!((&beat["workspace_id"], &beat["runtime_state"]), (&json!(WORKER), &json!("ok")));
    let poll = platform.calls("poll").remove(0).query;
    assert_eq!((poll["type"].as_str(), poll.get("since_id")), ("a2a_receive", None));
    assert_eq!(poll["wait"], "30");

    agent.stop().await;
    assert_eq!(agent.state()["last_since_id"], row);
    let log = agent.log();
    assert!(log.contains("connected") && log.contains("working on a message"), "{log}");
    assert!(!log.contains(TOKEN) && !log.contains("marmalade"), "{log}");
}

#[tokio::test]
async fn a_person_is_answered_through_notify() {
    let platform = Platform::start().await;
    let _agent = agent(&platform, &MOCK).started();
    let row = platform.message(None, "m-1", "hello");
    let notice = platform.after("notify", 1).await.remove(0);
    assert_eq!(notice.worker, WORKER);
    assert_eq!(
        (&notice.body["message"], &notice.body["reply_to"]),
        (&json!("echo: hello"), &json!(row))
    );
    platform.all_consumed().await;
    assert!(platform.calls("a2a").is_empty());
}

#[tokio::test]
async fn a_waiting_poll_gets_its_message_at_once_and_an_old_platform_is_polled() {
    let platform = Platform::start().await;
    let _first = agent(&platform, &MOCK).started();
    platform.asked("poll", 1).await;
    let begun = Instant::now();
    platform.message(Some("w-2"), "m-1", "x");
    platform.after("a2a", 1).await;
    let polls = platform.calls("poll").len();
    assert!(polls <= 3, "{polls} polls in {:?}", begun.elapsed());

    let old = Platform::start_without_waiting().await;
    let _second = agent(&old, &MOCK).started();
    old.asked("poll", 5).await;
    old.message(Some("w-2"), "m-1", "x");
    old.after("a2a", 1).await;
    old.all_consumed().await;
}

#[tokio::test]
async fn a_batch_is_worked_on_in_order_and_what_is_malformed_is_skipped() {
    let platform = Platform::start().await;
    platform.message(Some("w-2"), "m-1", "1");
    platform.row(json!({ "id": "act-2", "request_body": null }));
    platform.row(json!({ "id": "act-3", "source_id": "w-2", "request_body": "{" }));
    platform.row(json!({ "id": "act-4", "source_id": "w-2", "request_body": { "params": { "message": { "parts": [{ "type": "moon" }] } } } }));
    platform.row(json!({ "no": "id" }));
    platform.message(Some("w-2"), "m-2", "2");
    for n in 3..=60 {
        platform.message(Some("w-2"), &format!("m-{n}"), &n.to_string());
    }
    let mut agent = agent(&platform, &MOCK).started();
    let replies = platform.after("a2a", 60).await;
    let texts: Vec<String> = replies.iter().map(|call| said(&call.body).into()).collect();
    let expected: Vec<String> = (1..=60).map(|n| format!("echo: {n}")).collect();
    assert_eq!(texts, expected);
    platform.all_consumed().await;
    assert_eq!(agent.log().matches("malformed").count(), 4, "{}", agent.log());
    // A row without an id at the end blocks nothing and is not asked for without a pause.
    platform.row(json!(17));
    let polls = platform.calls("poll").len();
    platform.asked("poll", polls + 3).await;
    platform.message(Some("w-2"), "m-61", "61");
    platform.after("a2a", 61).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_forgotten_cursor_is_begun_anew_and_nothing_is_answered_twice() {
    let platform = Platform::start().await;
    platform.message(Some("w-2"), "m-1", "1");
    let mut agent = agent(&platform, &MOCK).started();
    platform.all_consumed().await;
    agent.stop().await;
    platform.forget_cursors();
    // The same message again, in another row, and a new one.
    platform.message(Some("w-2"), "m-1", "1");
    platform.message(Some("w-3"), "m-1", "of another caller");
    agent.start();
    platform.all_consumed().await;
    let replies = platform.calls("a2a");
    let texts: Vec<&str> = replies.iter().map(|call| said(&call.body)).collect();
    assert_eq!(texts, ["echo: 1", "echo: of another caller"]);
    assert!(agent.log().contains("does not know the cursor"), "{}", agent.log());
}

#[tokio::test]
async fn an_idempotency_key_comes_before_the_message_id() {
    let platform = Platform::start().await;
    let envelope = |id: &str, key: &str, text: &str| {
        json!({ "jsonrpc": "2.0", "method": "message/send", "params": { "message": {
            "messageId": id, "idempotency_key": key, "parts": [{ "type": "text", "text": text }] } } })
    };
    platform.envelope(Some("w-2"), envelope("m-1", "k-1", "first"));
    platform.envelope(Some("w-2"), envelope("m-2", "k-1", "a repeat"));
    platform.envelope(Some("w-2"), envelope("m-1", "k-2", "another"));
    let _agent = agent(&platform, &MOCK).started();
    platform.all_consumed().await;
    let replies = platform.calls("a2a");
    let texts: Vec<&str> = replies.iter().map(|call| said(&call.body)).collect();
    assert_eq!(texts, ["echo: first", "echo: another"]);
}

#[tokio::test]
async fn faults_of_the_platform_are_outlived_and_each_message_is_answered_once() {
    let faults = [
        Fault::Status(500),
        Fault::Garbage,
        Fault::HangUp,
        Fault::Later(429, 1),
        Fault::Later(503, 0),
        Fault::Slow(100),
        Fault::Status(502),
    ];
    let platform = Platform::start().await;
    platform.fail("register", [Fault::Status(503), Fault::HangUp]);
    platform.fail("poll", faults.clone());
    platform.fail("heartbeat", [Fault::Status(500), Fault::HangUp]);
    // What was taken although the answer was lost is recognised.
    platform.fail("a2a", [Fault::HangUp, Fault::Lost, Fault::Status(500), Fault::Later(503, 1)]);
    platform.fail("notify", [Fault::Lost, Fault::Status(502)]);
    let agent = agent(&platform, &MOCK).started();
    for n in 0..4 {
        platform.message(Some("w-2"), &format!("m-{n}"), &n.to_string());
    }
    platform.message(None, "m-9", "9");
    platform.all_consumed().await;
    let replies = platform.counted("a2a");
    let texts: Vec<&str> = replies.iter().map(|call| said(&call.body)).collect();
    assert_eq!(texts, ["echo: 0", "echo: 1", "echo: 2", "echo: 3"]);
    assert_eq!(platform.counted("notify").len(), 1);
    assert!(platform.calls("a2a").len() > 4, "repeats were sent");
    assert!(platform.calls("report").is_empty(), "{}", agent.log());
    platform.after("heartbeat", 1).await;
}

#[tokio::test]
async fn a_reply_that_is_refused_is_reported_and_does_not_make_it_deaf() {
    let platform = Platform::start().await;
    platform.fail("a2a", [Fault::Status(404), Fault::Status(413)]);
    let _agent = agent(&platform, &MOCK).started();
    let rows: Vec<_> =
        (0..3).map(|n| platform.message(Some("w-2"), &format!("m-{n}"), "x")).collect();
    platform.all_consumed().await;
    let reports = platform.counted("report");
    assert_eq!(reports.len(), 2);
    for (report, row) in reports.iter().zip(&rows) {
        assert_eq!(report.body["activity_type"], "error");
        assert_eq!(report.body["reply_to"], *row);
        let detail = report.body["error_detail"].as_str().unwrap();
        assert!(
            detail.contains("could not be delivered") && detail.contains("made up"),
            "{detail}"
        );
    }
    assert_eq!(platform.counted("a2a").len(), 1);
}

#[tokio::test]
async fn a_platform_that_fails_at_a_reply_for_long_is_told_of_it() {
    let platform = Platform::start().await;
    platform.fail("a2a", vec![Fault::Status(500); 5]);
    platform.fail("report", [Fault::Status(500), Fault::Lost]);
    let _agent = agent(&platform, &MOCK).started();
    platform.message(Some("w-2"), "m-1", "x");
    platform.message(Some("w-2"), "m-2", "x");
    platform.all_consumed().await;
    assert_eq!(platform.counted("report").len(), 1);
    assert_eq!(platform.counted("a2a").len(), 1);
}

#[tokio::test]
async fn a_failing_backend_is_tried_again_and_then_reported() {
    let platform = Platform::start().await;
    let args = ["--backend", "exec", "--backend-opt", "cmd=cat >> tries; echo oops >&2; exit 3"];
    let mut agent = agent(&platform, &args).started();
    let row = platform.message(Some("w-2"), "m-1", "x");
    let report = platform.after("report", 1).await.remove(0);
    assert_eq!(report.body["reply_to"], row);
    assert_eq!(report.body["status"], "error");
    let detail = report.body["error_detail"].as_str().unwrap();
    assert!(detail.contains("status 3") && detail.contains("oops"), "{detail}");
    platform.all_consumed().await;
    assert_eq!(fs::read_to_string(agent.home().join("tries")).unwrap(), "xxx");
    // The next start does not try again.
    agent.stop().await;
    agent.start();
    platform.message(Some("w-2"), "m-2", "y");
    platform.after("report", 2).await;
    assert_eq!(fs::read_to_string(agent.home().join("tries")).unwrap(), "xxxyyy");
}

#[tokio::test]
async fn who_is_shut_out_ends_and_says_why() {
    let check = async |route: &'static str, faults: Vec<Fault>| {
        let platform = Platform::start().await;
        platform.fail(route, faults.clone());
        let ran = agent(&platform, &MOCK).run().await;
        assert_eq!(ran.code, 1, "{route} {faults:?}: {ran:?}");
        assert!(ran.stderr.contains("made up (status"), "{ran:?}");
        platform
    };
    for status in [400, 401, 404] {
        let platform = check("register", vec![Fault::Status(status)]).await;
        assert_eq!(platform.calls("register").len(), 1, "it is not tried again");
    }
    check("poll", vec![Fault::Status(401)]).await;
    check("poll", vec![Fault::Status(404)]).await;
    // Removed: there was no cursor that could be unknown.
    check("poll", vec![Fault::Status(410)]).await;
}

#[tokio::test]
async fn a_revoked_token_leaves_the_message_for_the_next_start() {
    let platform = Platform::start().await;
    platform.fail("a2a", [Fault::Status(401)]);
    let mut agent = agent(&platform, &MOCK).started();
    platform.message(Some("w-2"), "m-1", "x");
    assert_eq!(agent.ended().await.code(), Some(1));
    assert!(platform.calls("report").is_empty());
    agent.start();
    platform.all_consumed().await;
    assert_eq!(platform.counted("a2a").len(), 1);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_platform_that_is_silent() {
    let platform = Platform::start().await;
    platform.fail("a2a", [Fault::LostHold]);
    let mut agent = agent(&platform, &MOCK).started();
    platform.message(Some("w-2"), "m-1", "x");
    platform.asked("a2a", 1).await;
    agent.signal(Signal::SIGINT);
    agent.says("stopping").await;
    let begun = Instant::now();
    agent.stop().await;
    assert!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
    assert_eq!(agent.state()["pending"]["row_id"], "act-1");
    agent.start();
    platform.all_consumed().await;
    assert_eq!((platform.calls("a2a").len(), platform.counted("a2a").len()), (2, 1));
}

#[tokio::test]
async fn a_refused_heartbeat_is_told_loudly_and_polling_goes_on() {
    let platform = Platform::start().await;
    platform.fail("heartbeat", [Fault::Status(404)]);
    let agent = agent(&platform, &MOCK).started();
    agent.says("THE HEARTBEAT HAS STOPPED").await;
    platform.message(Some("w-2"), "m-1", "x");
    platform.all_consumed().await;
    assert_eq!(platform.calls("heartbeat").len(), 1);
}

#[tokio::test]
async fn registering_is_given_up_after_five_attempts() {
    let platform = Platform::start().await;
    platform.fail("register", vec![Fault::Status(500); 5]);
    let begun = Instant::now();
    let ran = agent(&platform, &MOCK).run().await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(platform.calls("register").len(), 5);
    let secs = begun.elapsed().as_secs();
    assert!((15..19).contains(&secs), "1 + 2 + 4 + 8 s, not {secs}");
}

#[tokio::test]
async fn what_the_state_says_is_obeyed_or_refused_by_name() {
    let platform = Platform::start().await;
    let mut first = agent(&platform, &MOCK).started();
    first.says("connected").await;
    let second = Connector::new(&platform.url, WORKER, TOKEN, &MOCK)
        .env("XDG_CONFIG_HOME", first.home().join(".config").to_str().unwrap());
    let ran = second.run().await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("another acta connect"), "{ran:?}");
    first.stop().await;
    fs::write(first.state_file(), "{\"workspace_id\":\"w-1\",\"last").unwrap();
    let ran = first.run().await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains(first.state_file().to_str().unwrap()), "{ran:?}");
}

#[tokio::test]
async fn since_secs_and_log_json_are_handed_on() {
    let platform = Platform::start().await;
    let args = ["--backend", "mock", "--since-secs", "60", "--log", "json"];
    let mut agent = agent(&platform, &args).started();
    platform.message(Some("w-2"), "m-1", "x");
    platform.all_consumed().await;
    agent.stop().await;
    assert!(platform.calls("poll").iter().all(|call| call.query["since_secs"] == "60"));
    let log = agent.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["fields"]["message"] == "connected"), "{log}");
}
