//! The log as a record a line, for other tools.

use crate::support::{Client, Service, run};
use serde_json::{Value, json};
use std::{fs, path::Path};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A log with texts of every kind in it, a large content, and a committed cursor.
async fn told() -> Service {
    let service = Service::start().await;
    let (echo, jsonl) = (service.spawn("lines").await, service.spawn("jsonl").await);
    service.input(&echo, "tw\u{f6}\nlines \u{1f600} and a \\ \"quote\"").await;
    service.input(&echo, &"large ".repeat(10_000)).await;
    service.input(&jsonl, "go").await;
    service.rests(&echo, 4).await;
    service.rests(&jsonl, 2).await;
    let cursor = service.get("/v1/events?limit=3").await.ok()["cursor"].clone();
    service.put("/v1/cursors/mine", &json!({ "cursor": cursor })).await.ok();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let input = json!({"kind": "user", "content": "traced"});
    let request = service.request(reqwest::Method::POST, &format!("/v1/workers/{echo}/input"));
    service.send(request.header("traceparent", trace).json(&input)).await.ok();
    service.rests(&echo, 6).await;
    service
}

async fn all(service: &Client) -> Vec<Value> {
    service.events("watching=1").await
}

#[tokio::test]
async fn an_export_has_every_record_as_the_service_tells_it() {
    let service = told().await;
    let records = all(&service).await;
    let ran = service.acta(&["export"]).await;
    assert_eq!(lines(ran.ok()), records);
    assert!(records.iter().any(|record| record["type"] == "cursor_committed"));
    let cursor = ran.stderr.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(ran.stderr, format!("{} records; go on with --from {cursor}\n", records.len()));

    // From there on there is nothing yet, and then what came since.
    let ran = service.acta(&["export", "--from", &cursor]).await;
    assert_eq!(ran.ok(), "");
    service.spawn("refuses").await;
    let ran = service.acta(&["export", "--from", &cursor]).await;
    let more = lines(ran.ok());
    assert_eq!(
        more,
        service
            .events(&format!("after={}&until={}", records.len(), more.len() + records.len()))
            .await
    );
    let some = service.acta(&["export", "--since", "3", "--until", "6"]).await;
    assert_eq!(lines(some.ok()), records[2..6]);
    let ran = service.acta(&["export", "--type", "worker_created", "--actor", "operator"]).await;
    assert_eq!(lines(ran.ok()).len(), 3);
    for (bad, code) in [("now", 2), ("yesterday", 2), ("100000", 1)] {
        assert_eq!(service.acta(&["export", "--from", bad]).await.code, code, "{bad}");
    }
}

#[tokio::test]
async fn cloudevents_have_what_the_specification_asks_for_and_lose_nothing() {
    let service = told().await;
    let records = all(&service).await;
    let ran = service.acta(&["export", "--format", "cloudevents"]).await;
    let events = lines(ran.ok());
    assert_eq!(events.len(), records.len());
    let source = format!("urn:uuid:{}", service.listening["log_id"].as_str().unwrap());
    for (event, record) in events.iter().zip(&records) {
        let event = event.as_object().unwrap();
        for (name, value) in event {
            let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            assert!(is_name && name.len() <= 20, "an attribute's name: {name}");
            assert!(
                name == "data" || value.as_str().is_some_and(|text| !text.is_empty()),
                "{name}"
            );
        }
        let kind = format!("acta.{}.v{}", record["type"].as_str().unwrap(), record["v"]);
        let sequence = format!("{:020}", record["seq"].as_u64().unwrap());
        let expected = [
            ("specversion", json!("1.0")),
            ("datacontenttype", json!("application/json")),
            ("id", record["id"].clone()),
            ("time", record["time"].clone()),
            ("actor", record["actor"].clone()),
            ("source", json!(source)),
            ("type", json!(kind)),
            ("sequence", json!(sequence)),
        ];
        for (name, value) in expected {
            assert_eq!(event[name], value, "{name}");
        }
        let part = |name: &str| record[name].as_str();
        let subject = match (part("runtime"), part("worker")) {
            (Some(runtime), Some(worker)) => Some(format!("{runtime}/{worker}")),
            (runtime, _) => runtime.map(str::to_owned),
        };
        assert_eq!(event.get("subject").and_then(Value::as_str), subject.as_deref());
        assert_eq!(event.get("traceparent"), record.get("trace"));
        for name in ["data", "content", "content_type", "redacted", "command", "version"] {
            assert_eq!(event["data"].get(name), record.get(name), "{name}");
        }
    }
    assert!(events.iter().any(|event| event.get("traceparent").is_some()));
}

/// Lets so many bytes of an answer through on each connection, then cuts it.
async fn cutting_proxy(target: String, bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let target = target.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect(target).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    drop(tokio::io::copy(&mut from_client, &mut to_server).await);
                });
                let mut answer = from_server.take(bytes as u64);
                drop(tokio::io::copy(&mut answer, &mut to_client).await);
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn an_export_goes_on_over_connections_that_break_and_after_a_file_that_was_cut() {
    let service = told().await;
    let whole = service.acta(&["export"]).await.ok().to_owned() + "\n";
    let largest = whole.lines().map(str::len).max().unwrap();
    let target = service.base.strip_prefix("http://").unwrap().to_owned();
    let proxy = cutting_proxy(target, largest + 2_000).await;
    let mut command = service.command();
    command.arg("export").arg(format!("--token={}", service.token())).env("ACTA_URL", proxy);
    let ran = run(command, "").await;
    assert_eq!(ran.ok().to_owned() + "\n", whole);

    let path = service.root().join("log.ndjson");
    let file = path.to_str().unwrap();
    service.acta(&["export", file]).await.ok();
    let again = service.acta(&["export", file]).await;
    assert!(again.code == 1 && again.stderr.contains("--resume"), "{again:?}");
    let check = async |path: &Path, whole: &str, args: &[&str]| {
        assert_eq!(fs::read_to_string(path).unwrap(), whole);
        for kept in [0, 1, 700, whole.len() - 300, whole.len() - 1, whole.len()] {
            fs::write(path, &whole.as_bytes()[..kept]).unwrap();
            service
                .acta(&[&["export", path.to_str().unwrap(), "--resume"], args].concat())
                .await
                .ok();
            assert_eq!(fs::read_to_string(path).unwrap(), whole, "from {kept} bytes on");
        }
    };
    check(&path, &whole, &[]).await;
    let path = service.root().join("events.json");
    let args = ["--format", "cloudevents"];
    service.acta(&[&["export", path.to_str().unwrap()], &args[..]].concat()).await.ok();
    let whole = fs::read_to_string(&path).unwrap();
    check(&path, &whole, &args).await;
}

#[tokio::test]
async fn a_file_of_another_log_or_format_is_not_gone_on_with() {
    let (service, other) = (told().await, told().await);
    let (records, events) = (service.root().join("records"), service.root().join("events"));
    let (records, events) = (records.to_str().unwrap(), events.to_str().unwrap());
    let with = ["--format", "cloudevents"];
    service.acta(&["export", records]).await.ok();
    service.acta(&[&["export", events], &with[..]].concat()).await.ok();
    let check = async |asked: &Service, file: &str, args: &[&str], said: &str| {
        let before = fs::read(file).unwrap();
        let ran = asked.acta(&[&["export", file, "--resume"], args].concat()).await;
        assert!(ran.code == 1 && ran.stderr.contains(said), "{ran:?}");
        assert_eq!(fs::read(file).unwrap(), before, "{said}");
    };
    check(&other, records, &[], "is of another log").await;
    check(&other, events, &with, "is of another log").await;
    check(&service, records, &with, "go on with it by --format ndjson").await;
    check(&service, events, &[], "go on with it by --format cloudevents").await;
}

#[tokio::test]
async fn only_who_may_read_everything_may_export_it() {
    let service = told().await;
    for (role, code) in [("auditor", 0), ("observer", 1)] {
        let token = service.issue(&json!({ "role": role })).await;
        // A token may begin with a dash.
        let token = format!("--token={}", token["token"].as_str().unwrap());
        let ran = service.acta(&["export", &token]).await;
        assert_eq!(ran.code, code, "{role}: {ran:?}");
    }
}
