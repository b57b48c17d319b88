//! Whatever shows a record whose content is erased says so, with by whom, when and why.

use super::{
    erase_redact::secret,
    support::{Deployed, Service, bare_command, eventually, run},
};
use serde_json::{Value, json};

const WHY: &str = "it was a password";

/// Redacts records, and gives the order of the last.
async fn redact(service: &Service, records: &[u64]) -> Value {
    let mut order = Value::Null;
    for seq in records {
        let body = json!({"sequence": seq, "reason": WHY});
        order = service.post("/v1/redactions", &body).await.ok()["redaction"].take();
    }
    order
}

fn check_note(note: &Value, record: u64) {
    let told = (&note["record"], &note["by"], &note["reason"]);
    assert_eq!(told, (&record.into(), &"operator".into(), &WHY.into()), "{note}");
    assert!(note["at"].is_string() && note["sequence"].is_u64(), "{note}");
}

fn seq_of(record: &Value) -> u64 {
    record["seq"].as_u64().unwrap()
}

/// A service with a worker whose objective, input and answer are erased; the worker, and the records.
async fn erased() -> (Service, String, Vec<u64>) {
    let service = Service::start().await;
    let text = secret(60);
    let request = json!({
        "intent": {"kind": "task", "objective": text},
        "profile": {"kind": "runtime_default"}, "template": "echo",
    });
    let created = service.post("/v1/workers", &request).await.ok();
    let worker = created["worker"]["worker_id"].as_str().unwrap().to_owned();
    service.input(&worker, &text).await;
    service.rests(&worker, 2).await;
    service.input(&worker, "this is kept").await;
    service.rests(&worker, 4).await;
    let events = service.events("limit=1000").await;
    let holds = |record: &&Value| record["content"].to_string().contains(&text);
    let records: Vec<u64> = events.iter().filter(holds).map(seq_of).collect();
    assert!(records.len() >= 3, "created, said, answered: {events:?}");
    redact(&service, &records).await;
    (service, worker, records)
}

#[tokio::test]
async fn views_and_their_past_say_by_whose_order_something_is_missing() {
    let (service, worker, records) = erased().await;
    let note = "[redacted by operator at ";
    for (args, times) in [
        (vec!["ls"], 1),
        (vec!["ls", "--at", "100000000"], 0),
        (vec!["diff", "worker", &worker, "--from", "0"], 2),
        (vec!["transcript", &worker], 2),
        (vec!["log", "-n", "1000"], records.len()),
        (vec!["replay", "--events"], records.len()),
    ] {
        let ran = service.acta(&args).await;
        assert_eq!(ran.stdout.matches(note).count(), times, "{args:?}: {ran:?}");
        assert!(times == 0 || ran.ok().contains(WHY), "{args:?}: {ran:?}");
    }
    let head = service.head().await.to_string();
    for at in [vec![], vec!["--at", "5"], vec!["--at", &head]] {
        let shown = service.acta(&[&["show", &worker], &at[..]].concat()).await;
        let is_told = |line: &str| line.starts_with("redacted.by ") && line.ends_with("operator");
        assert!(shown.ok().lines().any(is_told), "{at:?}: {shown:?}");
        assert!(shown.stdout.contains(WHY), "{at:?}: {shown:?}");
        let listed = service.acta(&[&["ls"], &at[..]].concat()).await;
        assert!(listed.ok().contains(note), "{at:?}: {listed:?}");
    }
    let views = service.get("/v1/views").await.ok();
    assert_eq!(views["redactions"]["total"], records.len());
    assert_eq!(views["redactions"]["items"][0]["record"], records[0]);
    assert_eq!(views["redactions"]["items"][0]["by"], "operator");
    let gone = service.get(&format!("/v1/contents?seq={}", records[0])).await;
    assert!(gone.refused(410, "content_erased").contains("by operator at "));
}

#[tokio::test]
async fn exports_and_replays_without_a_service_say_so_too() {
    let (mut service, _, records) = erased().await;
    let lines = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let told = lines(service.acta(&["export"]).await.ok());
    let events = lines(service.acta(&["export", "--format", "cloudevents"]).await.ok());
    for seq in &records {
        let at = usize::try_from(*seq).unwrap() - 1;
        for shown in [&told[at], &events[at]["data"]] {
            assert_eq!(
                (&shown["content_type"], shown.get("content")),
                (&"erased".into(), Some(&Value::Null))
            );
            check_note(&shown["redacted"], *seq);
        }
    }
    let data = service.data();
    let data = data.to_str().unwrap();
    let key = service.acta(&["key", "show", "--data", data]).await.ok().to_owned();
    let archive = service.root().join("log.acta");
    let archive = archive.to_str().unwrap();
    service.acta(&["export", "--format", "archive", archive]).await.ok();
    let live = service.acta(&["replay", "--events", "-o", "json"]).await.ok().to_owned();
    service.kill9().await;
    let stopped = service.acta(&["replay", "--data", data, "--events", "-o", "json"]).await;
    assert_eq!(stopped.ok(), live);
    let replayed = lines(&live);
    for seq in &records {
        check_note(&replayed[usize::try_from(*seq).unwrap() - 1]["redacted"], *seq);
    }
    for target in [archive, data] {
        let mut command = bare_command(service.root());
        command.args(["verify", target, "--key", &key]);
        let said = run(command, "").await;
        for seq in &records {
            let told = format!("erased     record {seq}: [redacted by operator at ");
            assert!(said.ok().contains(&told), "{target}: {said:?}");
        }
        assert!(said.stdout.contains(WHY), "{target}: {said:?}");
    }
}

/// Text that is not complete has a gap where a piece of it is erased.
#[tokio::test]
async fn a_snapshot_says_what_is_missing_from_text_that_is_not_complete() {
    let service = Service::start().await;
    let worker = service.spawn("slow").await;
    service.input(&worker, "go").await;
    let begun = eventually("the worker to begin", || async {
        let events = service.events("type=worker_output").await;
        events.iter().find(|record| record["content"] == "begun\n").map(seq_of)
    })
    .await;
    redact(&service, &[begun]).await;
    let head = service.head().await;
    let path = format!("/v1/workers/{worker}/events/ws?after={head}");
    let mut socket = service.watch(&path).await;
    let snapshot = socket.frame().await;
    let entries = snapshot["envelope"]["payload"]["data"]["entries"].as_array().unwrap();
    let partial = entries.last().unwrap();
    assert_eq!(
        (&partial["partial"], &partial["content"]),
        (&true.into(), &"".into()),
        "{snapshot}"
    );
    check_note(&partial["redacted"][0], begun);
}

/// A row whose message, or whose answer, is erased.
#[tokio::test]
async fn a_row_of_an_agent_says_why_its_message_is_empty() {
    let service = Service::start().await;
    let (asker, agent) = (Deployed::connected(&service).await, Deployed::connected(&service).await);
    for n in 1..=3 {
        asker.ask(&agent, &format!("m-{n}"), &format!("message {n}")).await;
    }
    let rows = agent.rows(None, "").await;
    agent.reply(&rows[2], "an answer").await;
    let id = |n: usize| rows[n]["id"].as_str();
    assert_eq!(agent.rows(id(2), "").await, Vec::<Value>::new(), "all are dealt with");
    let message: u64 = id(1).unwrap().strip_prefix("act-").unwrap().parse().unwrap();
    let answers = service.events("runtime=external&type=message_answered").await;
    let answer = seq_of(&answers[0]);
    redact(&service, &[message, answer]).await;
    let again = agent.rows(id(0), "").await;
    assert_eq!((&again[0]["request_body"], &again[0]["summary"]), (&Value::Null, &"".into()));
    check_note(&again[0]["redacted"][0], message);
    assert_eq!(again[1]["request_body"], rows[2]["request_body"]);
    assert_eq!(again[1]["response_body"], Value::Null);
    check_note(&again[1]["redacted"][0], answer);
}
