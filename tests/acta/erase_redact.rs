//! Redacting: the content and its salt are gone from every byte of the data directory, whenever
//! the service is killed, and everything still verifies and says by whose order.

use super::{
    support::{Options, Service, bare_command, eventually, run},
    survive_measure::{copy_dir, files_in},
};
use rand::{Rng as _, distr::Alphanumeric};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

pub fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    memchr_like(bytes, needle).next().is_some()
}

/// Where a needle begins.
fn memchr_like<'a>(bytes: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = needle[0];
    let ends = bytes.len().saturating_sub(needle.len() - 1);
    bytes[..ends]
        .iter()
        .enumerate()
        .filter(move |(at, byte)| **byte == first && bytes[*at..].starts_with(needle))
        .map(|(at, _)| at)
}

/// The files in which a text stands, as it is or within something that was compressed.
pub fn found_in(data: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in files_in(data) {
        let Ok(bytes) = fs::read(&path) else { continue };
        let plain = holds(&bytes, needle.as_bytes());
        let packed = memchr_like(&bytes, &ZSTD_MAGIC).any(|at| {
            let mut out = Vec::new();
            let mut frame = zstd::stream::read::Decoder::new(&bytes[at..]).unwrap().single_frame();
            // What only looks like a frame ends in an error, behind what could be read.
            drop(std::io::copy(&mut frame, &mut out));
            holds(&out, needle.as_bytes())
        });
        if plain || packed {
            found.push(path.display().to_string());
        }
    }
    found
}

/// A text that nothing else holds and that does not become smaller.
pub fn secret(len: usize) -> String {
    let text: String = rand::rng().sample_iter(Alphanumeric).take(len).map(char::from).collect();
    format!("{text}-{}", rand::random::<u64>())
}

async fn redact(service: &Service, seq: u64) -> Value {
    let body = json!({"sequence": seq, "reason": "it was a password"});
    service.post("/v1/redactions", &body).await.ok()
}

/// A worker with some inputs and answers; the sequence and text of each input.
async fn with_secrets(service: &Service, lens: &[usize]) -> (String, Vec<(u64, String)>) {
    let worker = service.spawn("echo").await;
    let mut secrets = Vec::new();
    for (n, len) in lens.iter().enumerate() {
        let text = secret(*len);
        let ack = service.input(&worker, &text).await;
        service.rests(&worker, 2 * (n as u64 + 1)).await;
        secrets.push((ack["event_id"].as_u64().unwrap(), text));
    }
    (worker, secrets)
}

/// The worker's answers hold the text too: the sequences of the records with this text.
async fn records_with(service: &Service, text: &str) -> Vec<u64> {
    let holds = |record: &Value| record["content"].to_string().contains(text);
    let events = service.events("limit=1000").await;
    events.iter().filter(|it| holds(it)).map(|it| it["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn what_is_redacted_is_gone_from_every_byte_and_still_verifies() {
    let mut service = Service::start().await;
    let (worker, secrets) = with_secrets(&service, &[40, 9_000, 50_000]).await;
    let kept = service.input(&worker, "this is kept").await["event_id"].clone();
    service.rests(&worker, 8).await;
    for (_, text) in &secrets {
        let part = &text[..40];
        assert!(!found_in(&service.data(), part).is_empty(), "the test can find what is there");
        // Deltas of the echo hold pieces of it.
        for seq in records_with(&service, part).await {
            let answer = redact(&service, seq).await;
            assert_eq!(answer["erased"], true, "{answer}");
            assert_eq!(answer["redaction"]["record"], seq);
        }
        assert_eq!(found_in(&service.data(), part), Vec::<String>::new());
    }
    let shown = service.get("/v1/events?limit=1000").await.ok();
    for (seq, text) in &secrets {
        let record = shown["events"].as_array().unwrap().iter().find(|it| it["seq"] == *seq);
        let record = record.unwrap();
        assert_eq!((&record["content"], &record["content_type"]), (&Value::Null, &"erased".into()));
        let redacted = &record["redacted"];
        assert_eq!(
            (&redacted["by"], &redacted["reason"]),
            (&json!("operator"), &json!("it was a password"))
        );
        assert!(redacted["at"].is_string() && redacted["sequence"].is_u64());
        assert!(!shown.to_string().contains(&text[..40]));
    }
    let transcript = service.transcript(&worker).await;
    assert_eq!(transcript["items"][0]["content"], "");
    assert_eq!(transcript["items"][0]["redacted"][0]["reason"], "it was a password");
    assert_eq!(transcript["items"][6]["content"], "this is kept");
    assert_eq!(transcript["items"][6].get("redacted"), None);
    let mut socket = service.watch(&format!("/v1/workers/{worker}/events/ws?after=0")).await;
    let seq = secrets[0].0;
    let is_input = |frame: &Value| frame["envelope"]["payload"]["event"] == "user_message";
    let frames = socket.until(is_input).await;
    let frame = frames.last().unwrap();
    assert_eq!(frame["envelope"]["payload"]["data"]["redacted"][0]["record"], seq);
    let said = service.acta(&["log", "--worker", &worker]).await;
    assert!(said.ok().contains("[redacted by operator at "), "{said:?}");
    assert!(said.ok().contains("it was a password"), "{said:?}");
    let said = service.acta(&["transcript", &worker]).await;
    assert!(said.ok().contains("[redacted by operator at "), "{said:?}");
    let kept = kept.as_u64().unwrap();
    let past = service.get(&format!("/v1/workers/{worker}/transcript?at={kept}")).await.ok();
    assert_eq!(past["transcript"]["items"][0]["content"], "", "the past forgets it too");
    for at in 0..2 {
        service.stop().await;
        for (_, text) in &secrets {
            assert_eq!(found_in(&service.data(), &text[..40]), Vec::<String>::new(), "stop {at}");
        }
        let mut command = bare_command(service.root());
        command.args(["verify", "-o", "json"]).arg(service.data());
        let ran = run(command, "").await;
        let verdict: Value = serde_json::from_str(ran.ok()).unwrap();
        assert_eq!(verdict["intact"], true, "{verdict}");
        assert_eq!(verdict["erased"][0]["record"], seq);
        assert_eq!(verdict["erased"][0]["by"], "operator");
        assert_eq!(verdict["erased"][0]["reason"], "it was a password");
        service.restart().await;
    }
    let again = service.get("/v1/events?limit=1000").await.ok();
    let redacted =
        |page: &Value| page["events"].as_array().unwrap()[..secrets[2].0 as usize].to_vec();
    assert_eq!(redacted(&again), redacted(&shown), "a start changes nothing");
    service.input(&worker, "goes on").await;
}

#[tokio::test]
async fn what_cannot_be_redacted_is_told() {
    let service = Service::start().await;
    let (_, secrets) = with_secrets(&service, &[20]).await;
    let seq = secrets[0].0;
    let service = &service;
    let try_it = |body: Value| async move { service.post("/v1/redactions", &body).await };
    for (sequence, status, code) in
        [(0, 404, "unknown_record"), (9_999, 404, "unknown_record"), (1, 409, "nothing_to_redact")]
    {
        try_it(json!({"sequence": sequence, "reason": "x"})).await.refused(status, code);
    }
    for reason in ["", "  \n", &"x".repeat(4097)] {
        try_it(json!({"sequence": seq, "reason": reason})).await.refused(400, "invalid_request");
    }
    for body in [json!({"sequence": seq}), json!({"sequence": "1", "reason": "x"}), json!([])] {
        try_it(body).await.refused(400, "invalid_json");
    }
    for role in ["auditor", "observer"] {
        let token = service.issue(&json!({"role": role})).await["token"].clone();
        let other = service.with_token(token.as_str().unwrap());
        let body = json!({"sequence": seq, "reason": "x"});
        other.post("/v1/redactions", &body).await.refused(403, "forbidden");
    }
    let first = redact(service, seq).await;
    let head = service.head().await;
    let second = redact(service, seq).await;
    assert_eq!(first, second, "it is so already");
    assert_eq!(service.head().await, head);
    let order = first["redaction"]["sequence"].as_u64().unwrap();
    let of_the_reason = redact(service, order).await;
    assert_eq!(of_the_reason["redaction"]["record"], order, "a reason can be erased too");
    let listed = service.get("/v1/redactions").await.ok();
    assert_eq!(listed["redactions"][0]["record"], seq);
    assert_eq!(listed["redactions"][0].get("reason"), None);
}

#[tokio::test]
async fn an_input_that_waits_is_not_redacted() {
    let service = Service::start().await;
    let worker = service.spawn("slow").await;
    let first = service.input(&worker, "first").await["event_id"].as_u64().unwrap();
    let second = service.input(&worker, "second").await["event_id"].as_u64().unwrap();
    for seq in [first, second] {
        let body = json!({"sequence": seq, "reason": "x"});
        service.post("/v1/redactions", &body).await.refused(409, "input_pending");
    }
    service.post(&format!("/v1/workers/{worker}/cancel"), &json!({})).await.ok();
    for seq in [first, second] {
        assert_eq!(redact(&service, seq).await["erased"], true);
    }
}

#[tokio::test]
async fn a_repeat_of_a_redacted_command_happens_once_and_leaves_nothing() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let path = format!("/v1/workers/{worker}/stop");
    let text = secret(60_000);
    let body = json!({"reason": text});
    let first = service.post_keyed(&path, "k", &body).await.ok();
    // Each repeat brings the content once more, under another salt.
    assert_eq!(service.post_keyed(&path, "k", &body).await.ok(), first);
    let seq = records_with(&service, &text[..40]).await[0];
    redact(&service, seq).await;
    assert_eq!(service.post_keyed(&path, "k", &body).await.ok(), first);
    let gone = || async { found_in(&service.data(), &text[..40]).is_empty().then_some(()) };
    eventually("the content of the repeat to go", gone).await;
}

#[tokio::test]
async fn whenever_it_is_killed_the_content_is_finally_gone() {
    let mut service = Options::default().start().await;
    let other = service.spawn("echo").await;
    // Something to rewrite.
    for _ in 0..60 {
        service.input(&other, &secret(30_000)).await;
    }
    service.run_state(&other, "idle").await;
    for delay in [0, 3, 10, 30, 60, 100, 180] {
        let len = if delay % 4 == 0 { 200 } else { 60_000 };
        let text = secret(len);
        let spare = service.spawn("refuses").await;
        let body = json!({"reason": text});
        service.post(&format!("/v1/workers/{spare}/cancel"), &body).await.ok();
        let head = service.head().await;
        let seq = records_with_tail(&service, &text[..40], head).await;
        let client = service.with_token(&service.token());
        let order = tokio::spawn(async move {
            let body = json!({"sequence": seq, "reason": "x"});
            let request = client.request(reqwest::Method::POST, "/v1/redactions").json(&body);
            drop(request.send().await);
        });
        tokio::time::sleep(Duration::from_millis(delay)).await;
        service.kill9().await;
        order.await.unwrap();
        service.restart().await;
        let known = service.get("/v1/redactions").await.ok().to_string();
        if known.contains(&format!("\"record\":{seq},")) {
            let gone = || async { found_in(&service.data(), &text[..40]).is_empty().then_some(()) };
            eventually("the content to go", gone).await;
        } else {
            redact(&service, seq).await;
            assert!(found_in(&service.data(), &text[..40]).is_empty());
        }
        assert_eq!(stores(&service.data()), 1, "no copy is left");
    }
    service.stop().await;
    let mut command = bare_command(service.root());
    command.arg("verify").arg(service.data());
    run(command, "").await.ok();
}

fn stores(data: &Path) -> usize {
    let names = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("log-")).count()
}

/// The last record with this text.
async fn records_with_tail(service: &Service, text: &str, head: u64) -> u64 {
    let after = head.saturating_sub(10);
    let events = service.events(&format!("after={after}&limit=100")).await;
    let found = events.iter().rev().find(|it| it["content"].to_string().contains(text));
    found.unwrap()["seq"].as_u64().unwrap()
}

#[tokio::test]
async fn an_older_copy_forgets_what_was_redacted_since() {
    let mut service = Service::start().await;
    let (_, secrets) = with_secrets(&service, &[60, 60_000]).await;
    let early = records_with(&service, &secrets[0].1[..40]).await;
    redact(&service, early[0]).await;
    service.stop().await;
    let older = service.root().join("older");
    copy_dir(&service.data(), &older).unwrap();
    service.restart().await;
    let mut all = Vec::new();
    for (_, text) in &secrets {
        all.extend(records_with(&service, &text[..40]).await);
    }
    for seq in &all {
        redact(&service, *seq).await;
    }
    let list = service.acta(&["redactions", "export"]).await.ok().to_owned();
    assert_eq!(list.lines().count(), all.len() + 1);
    let file = service.root().join("list");
    fs::write(&file, &list).unwrap();
    assert!(!found_in(&older, &secrets[1].1[..40]).is_empty());
    let apply = || async {
        let mut command = bare_command(service.root());
        command.args(["redactions", "apply", "-o", "json", "--data"]).arg(&older).arg(&file);
        run(command, "").await
    };
    let applied: Value = serde_json::from_str(apply().await.ok()).unwrap();
    assert_eq!(applied, json!({"erased": all.len(), "already": 1, "absent": 0}));
    for (_, text) in &secrets {
        assert_eq!(found_in(&older, &text[..40]), Vec::<String>::new());
    }
    let applied: Value = serde_json::from_str(apply().await.ok()).unwrap();
    assert_eq!(applied["already"], all.len() + 1, "it may be repeated");
    let mut command = bare_command(service.root());
    command.args(["verify", "-o", "json"]).arg(&older);
    let verdict: Value = serde_json::from_str(run(command, "").await.ok()).unwrap();
    assert_eq!(verdict["erased"][1]["reason"], "it was a password");
    assert_eq!(verdict["erased"][1]["by"], "service", "recorded anew, by the service");
    let own = service.listening["log_id"].as_str().unwrap();
    for bad in
        [list.replace(own, "01a0f000-0000-7000-8000-000000000000"), "{}\n".into(), "x".into()]
    {
        fs::write(&file, bad).unwrap();
        assert_eq!(apply().await.code, 1);
    }
}
