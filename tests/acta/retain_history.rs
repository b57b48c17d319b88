//! History that expires by policy: what is left of it, who is told, and what stays provable.

use super::{
    snapshot_restore::{alone, create, restore},
    support::{Deployed, Incoming, Options, Service, eventually},
};
use serde_json::{Value, json};
use std::{fs, path::Path};

const SEGMENT: u64 = 16;
const SMALL: [&str; 2] = ["--segment-records-max", "16"];
/// Nothing but the newest segment.
const EXPIRES: [&str; 4] = ["--segment-records-max", "16", "--history-keep-bytes", "1"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Records something small until the log goes beyond a sequence.
async fn fill(service: &Service, beyond: u64) {
    while service.head().await <= beyond {
        for _ in 0..16 {
            service.issue(&json!({"role": "observer"})).await;
        }
    }
}

async fn history(service: &Service) -> Value {
    service.get("/v1/status").await.ok()["status"]["history"].clone()
}

/// Lets history expire at least so far, and no further afterwards. Up to where it has.
async fn expire(service: &mut Service, at_least: u64) -> u64 {
    service.stop().await;
    service.set_args(EXPIRES);
    service.restart().await;
    expired(service, at_least).await;
    service.stop().await;
    service.set_args(SMALL);
    service.restart().await;
    first_on_disk(service) - 1
}

fn first_on_disk(service: &Service) -> u64 {
    segments(&service.data()).first().expect("a segment is left").0
}

/// Up to where history has expired, once that is at least so far and the files are gone. With the next
/// segment it may go on.
async fn expired(service: &Service, at_least: u64) -> u64 {
    eventually("history to expire", || async {
        let history = history(service).await;
        let through = history["expired"]["through"].as_u64().unwrap_or(0);
        assert_eq!(history["first"].as_u64().unwrap(), through + 1);
        let first = segments(&service.data()).first().map(|(first, _)| *first);
        (through >= at_least && first == Some(through + 1)).then_some(through)
    })
    .await
}

fn segments(data: &Path) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data.join("segments")).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some((first, last)) = name.trim_end_matches(".seg").split_once('-') else { continue };
        found.extend(first.parse().ok().zip(last.parse().ok()));
    }
    found.sort_unstable();
    found
}

fn files_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files_below(&path) } else { 1 }).sum()
}

/// A service with a worker, a large content, a keyed input, and several segments behind that.
/// The last record of all that.
async fn old() -> (Service, String, u64) {
    let service = Options::default().arg(SMALL[0]).arg(SMALL[1]).start().await;
    let worker = service.spawn("echo").await;
    let keyed = json!({"kind": "user", "content": "hello"});
    let path = format!("/v1/workers/{worker}/input");
    service.post_keyed(&path, "early", &keyed).await.ok();
    service.rests(&worker, 2).await;
    service.input(&worker, &"large ".repeat(10_000)).await;
    service.rests(&worker, 4).await;
    let last = service.head().await;
    fill(&service, last + 3 * SEGMENT).await;
    (service, worker, last)
}

#[tokio::test]
async fn what_is_older_than_wanted_expires_and_what_is_younger_stays() {
    let (mut service, _, old) = old().await;
    for (seconds, expires) in [("86400", false), ("1", true)] {
        eventually("all of it to be older than a second", || async {
            let status = service.get("/v1/status").await.ok();
            let newest = status["status"]["last_record_at"].as_str().unwrap();
            let age = jiff::Timestamp::now().duration_since(newest.parse().unwrap());
            (age.as_millis() > 1000).then_some(())
        })
        .await;
        service.stop().await;
        service.set_args([SMALL[0], SMALL[1], "--history-keep-s", seconds]);
        service.restart().await;
        if expires {
            let through = expired(&service, old).await;
            assert!(through < service.head().await, "the newest segment stays");
        } else {
            // What would expire does so with the first look, and a look comes with each segment.
            fill(&service, service.head().await + 2 * SEGMENT).await;
            assert_eq!(history(&service).await["first"], 1);
        }
    }
}

#[tokio::test]
async fn what_has_expired_is_refused_by_name_and_the_rest_goes_on() {
    let (mut service, worker, old) = old().await;
    let cursor_at = async |after: u64| {
        let page = service.get(&format!("/v1/events?after={after}&limit=1")).await.ok();
        page["cursor"].as_str().unwrap().to_owned()
    };
    let early = cursor_at(4).await;
    assert!(files_below(&service.data().join("content")) > 0);
    let views = service.get("/v1/views").await.ok()["digests"].clone();
    let head = service.head().await;
    let through = expire(&mut service, old).await;
    assert!(through < head, "something is left");

    // Of the log.
    let page = service.get("/v1/events?limit=5").await.ok();
    assert_eq!(
        (&page["events"][0]["seq"], &page["expired_through"]),
        (&json!(through + 1), &json!(through))
    );
    for query in [format!("cursor={early}"), "after=0".into(), format!("after={}", through - 1)] {
        let said = service.get(&format!("/v1/events?{query}")).await.refused(410, "cursor_expired");
        let first = said.split("cursor ").last().unwrap().split(',').next().unwrap().to_owned();
        let next = service.get(&format!("/v1/events?cursor={first}&limit=1")).await.ok();
        assert_eq!(next["events"][0]["seq"], through + 1, "{said}");
    }
    let next = service.get(&format!("/v1/events?after={through}&limit=1")).await.ok();
    assert_eq!(next["events"][0]["seq"], through + 1);
    let mut before = String::new();
    let oldest = loop {
        let page = service.get(&format!("/v1/events?order=newest&limit=50{before}")).await.ok();
        let last = page["events"].as_array().unwrap().last().unwrap()["seq"].clone();
        match page["before"].as_u64() {
            Some(next) => before = format!("&before={next}"),
            None => break last,
        }
    };
    assert_eq!(oldest, through + 1);
    for (path, code) in [
        ("/v1/events/ws?after=1".to_owned(), "runtime.cursor_expired"),
        (format!("/v1/workers/{worker}/events/ws?cursor={early}"), "runtime.cursor_expired"),
    ] {
        let mut socket = service.watch(&path).await;
        let frame = socket.frame().await;
        assert_eq!(frame["diagnostic"]["code"], code, "{path}: {frame}");
        assert!(matches!(socket.next().await, Incoming::Close(..)), "{path}");
    }

    for args in [vec!["tail"], vec!["tail", &worker]] {
        let ran = service.acta(&[&args[..], &["--from", "start", "--no-follow"]].concat()).await;
        ran.ok();
        assert!(ran.stderr.contains(&format!("records 1 to {through} have expired")), "{ran:?}");
    }
    let said = service.acta(&["transcript", &worker]).await;
    assert!(said.stderr.contains("items 1 to 4 have expired"), "{said:?}");

    // Of the past.
    for path in ["/v1/workers", "/v1/views", &format!("/v1/workers/{worker}")] {
        let said = service.get(&format!("{path}?at=3")).await.refused(410, "history_expired");
        assert!(said.contains(&format!("{}", through + 1)), "{said}");
        service.get(&format!("{path}?at={through}")).await.ok();
    }
    service.get("/v1/workers?at=2001-01-01T00:00:00Z").await.refused(410, "history_expired");
    let past = service.get(&format!("/v1/views?at={head}")).await.ok()["digests"].clone();
    assert_eq!(past, views, "what is there leads to what it led to");

    // Of a worker.
    let detail = service.worker(&worker).await;
    assert_eq!(detail["transcript_len"], 4);
    let transcript = service.transcript(&worker).await;
    assert_eq!((&transcript["total_items"], &transcript["items"]), (&json!(4), &json!([])));
    assert_eq!(transcript["truncated_before"], 5);
    service.input(&worker, "again").await;
    service.rests(&worker, 6).await;
    let transcript = service.transcript(&worker).await;
    assert_eq!(transcript["items"][0]["content"], "again", "{transcript}");
    let mut socket = service.watch(&format!("/v1/workers/{worker}/events/ws")).await;
    let frame = socket.frame().await;
    let data = &frame["envelope"]["payload"]["data"];
    assert_eq!(data["entries"][0]["content"], "again", "{data}");
    assert_eq!(data["truncated_before"], 5, "{data}");

    // Of what could be done with it.
    let redaction = json!({"sequence": 5, "reason": "x"});
    service.post("/v1/redactions", &redaction).await.refused(410, "history_expired");
    let input = json!({"kind": "user", "content": "something else"});
    let path = format!("/v1/workers/{worker}/input");
    let again = service.post_keyed(&path, "early", &input).await;
    assert_eq!(again.status, 200, "the key is not known any more: {}", again.text());
    assert_eq!(again.header("idempotent-replayed"), "");
    service.rests(&worker, 8).await;
    assert_eq!(files_below(&service.data().join("content")), 0, "large contents go too");

    // Of proofs.
    let proof = service.get("/v1/proofs/inclusion?seq=2").await.ok();
    assert_eq!((&proof["expired"], &proof["receipt"]), (&json!(true), &Value::Null));
    service.get("/v1/proofs/consistency?from=5").await.ok();
    assert_eq!(service.get("/tile/0/000.p/7").await.status, 200);
    service.get("/tile/entries/000.p/7").await.refused(410, "history_expired");
    let metrics = service.get("/metrics").await.text();
    assert!(metrics.contains(&format!("acta_first_record {}", through + 1)), "{metrics}");

    // Of the command line.
    let said = service.acta(&["status"]).await;
    assert!(said.ok().contains(&format!("records 1 to {through}")), "{said:?}");
    let said = service.acta(&["log"]).await;
    assert!(said.stderr.contains(&format!("records 1 to {through} have expired")), "{said:?}");
    let exported = service.acta(&["export"]).await;
    assert!(exported.ok().starts_with(&format!("{{\"seq\":{}", through + 1)), "{exported:?}");
    assert!(exported.stderr.contains(&format!("records 1 to {through} have expired")));
    let file = service.root().join("log.acta");
    let refused = service.acta(&["export", "--format", "archive", text(&file)]).await;
    assert!(refused.code == 1 && refused.stderr.contains("snapshot create"), "{refused:?}");
    assert!(!file.exists());
    let receipt = service.acta(&["receipt", "3"]).await;
    assert!(receipt.code == 1 && receipt.stderr.contains("has expired"), "{receipt:?}");
}

#[tokio::test]
async fn what_is_left_verifies_and_what_does_not_fit_is_found() {
    let (mut service, worker, old) = old().await;
    let through = expire(&mut service, old).await;
    let key = alone(service.root(), &["key", "show", "--data", text(&service.data())]).await;
    let key = key.ok().to_owned();
    let url = service.base.clone();
    let said = service.acta(&["verify", &url, "--key", &key]).await;
    let expected = format!("records 1 to {through} expired by policy");
    assert!(said.ok().contains(&expected), "{said:?}");
    // Also after a kill, without the index, and without checkpoints.
    service.kill9().await;
    fs::remove_dir_all(service.data().join("index")).unwrap();
    drop(fs::remove_dir_all(service.data().join("checkpoints")));
    service.set_args(EXPIRES);
    service.restart().await;
    expired(&service, through).await;
    assert_eq!(service.worker(&worker).await["transcript_len"], 4);
    service.input(&worker, "more").await;
    service.rests(&worker, 6).await;
    service.stop().await;
    let through = first_on_disk(&service) - 1;

    let data = service.data();
    let verify = async || alone(service.root(), &["verify", text(&data)]).await;
    let said = verify().await;
    let expected = format!("records 1 to {through} expired by policy");
    assert!(said.ok().contains(&expected), "{said:?}");
    let rebuilt = alone(service.root(), &["rebuild", "--check", "--data", text(&data)]).await;
    assert!(rebuilt.ok().contains("have expired"), "{rebuilt:?}");
    let listed = alone(service.root(), &["segments", "--data", text(&data)]).await;
    assert!(listed.ok().contains(&format!("records 1 to {through} have expired")), "{listed:?}");
    let replayed = ["replay", "--data", text(&data), "--to", "3"];
    let refused = alone(service.root(), &replayed).await;
    assert!(refused.code == 1 && refused.stderr.contains("history_expired"), "{refused:?}");

    // A base that is damaged, one that is made to fit itself, leaves that are altered.
    let base = data.join(format!("base/{through:020}.base"));
    let whole = fs::read(&base).unwrap();
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&base, &bytes).unwrap();
    let said = verify().await;
    assert_eq!(said.code, 3, "{said:?}");
    fs::write(&base, forged(&whole)).unwrap();
    let said = verify().await;
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stdout.contains("names another base"), "{said:?}");
    fs::write(&base, &whole).unwrap();
    let level = data.join("tree/level-0-00000000");
    let leaves = fs::read(&level).unwrap();
    let mut altered = leaves.clone();
    altered[100] ^= 1;
    fs::write(&level, &altered).unwrap();
    let said = verify().await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stdout.contains("does not hold the leaves"), "{said:?}");
    fs::write(&level, &leaves).unwrap();
    assert_eq!(verify().await.code, 0);

    // Such a log does not start.
    fs::write(&base, forged(&whole)).unwrap();
    let (status, said) = service.restart_refused().await;
    assert!(status.code() == Some(1) && said.contains("not the one that the log names"), "{said}");
    fs::remove_file(&base).unwrap();
    let (status, said) = service.restart_refused().await;
    assert!(status.code() == Some(1) && said.contains("there is no base"), "{said}");
    fs::write(&base, &whole).unwrap();
    let tree = service.root().join("tree");
    fs::rename(data.join("tree"), &tree).unwrap();
    let (status, said) = service.restart_refused().await;
    assert!(status.code() == Some(1) && said.contains("the directory `tree`"), "{said}");
    fs::remove_dir_all(data.join("tree")).unwrap();
    fs::rename(&tree, data.join("tree")).unwrap();
    service.restart().await;
}

/// Another label in the views, and the digest over them made to fit.
fn forged(base: &[u8]) -> Vec<u8> {
    let at = base.iter().position(|byte| *byte == b'\n').unwrap();
    let mut line: Value = serde_json::from_slice(&base[..at]).unwrap();
    let body = String::from_utf8(base[at + 1..].to_vec()).unwrap();
    let forged = body.replacen("Embedded", "Imbedded", 1);
    assert_ne!(forged, body);
    line["views"] = acta_events::sha256(&[forged.as_bytes()]).to_string().into();
    format!("{line}\n{forged}").into_bytes()
}

#[tokio::test]
async fn snapshots_carry_the_base_along() {
    let (mut service, worker, old) = old().await;
    let through = expire(&mut service, old).await;
    let snapshot = service.root().join("snapshot");
    create(&service, &snapshot, &[]).await;
    service.input(&worker, &"more ".repeat(10_000)).await;
    service.rests(&worker, 6).await;
    let next = service.root().join("next");
    create(&service, &next, &["--base", text(&snapshot)]).await;
    let checked = alone(service.root(), &["snapshot", "verify", text(&next)]).await;
    assert!(checked.ok().contains("expired by policy"), "{checked:?}");
    let drilled = service.acta(&["drill"]).await;
    drilled.ok();
    let views = service.get("/v1/views").await.ok();
    let (at, digests) = (views["sequence"].clone(), views["digests"].clone());
    service.stop().await;
    let to = service.root().join("nowhere");
    let args = ["restore", text(&next), "--data", text(&to), "--to-seq", "5"];
    let refused = alone(service.root(), &args).await;
    assert!(refused.code != 0 && refused.stderr.contains("none of these moments"), "{refused:?}");
    // Up to before the record that says what has expired, too.
    for cut in [None, Some(through + 3)] {
        let cut_text = cut.map(|cut| cut.to_string());
        let more: Vec<&str> = cut_text.iter().flat_map(|cut| ["--to-seq", cut]).collect();
        let restored = restore(&service, &next, &more).await;
        assert_eq!(restored["fork"].as_u64(), cut.or(at.as_u64()), "{restored}");
        let said = alone(service.root(), &["verify", text(&service.data())]).await;
        assert!(said.ok().contains("expired by policy"), "{said:?}");
        service.restart().await;
        assert_eq!(history(&service).await["first"], through + 1);
        let fork = restored["fork"].as_u64().unwrap();
        let past = service.get(&format!("/v1/views?at={fork}")).await.ok();
        if cut.is_none() {
            assert_eq!(past["digests"], digests);
        }
        service.acta(&["resume"]).await.ok();
        service.stop().await;
    }
}

/// Of a snapshot whose end has expired here nothing can be told any more: a whole one is taken.
#[tokio::test]
async fn a_snapshot_whose_end_has_expired_is_nothing_to_build_upon() {
    let (mut service, ..) = old().await;
    let dir = service.root().join("snapshots");
    let by_clock = [SMALL[0], SMALL[1], "--snapshot-dir", text(&dir), "--snapshot-every-s", "1"];
    let base = service.root().join("base");
    create(&service, &base, &[]).await;
    service.stop().await;
    service.set_args(by_clock);
    service.restart().await;
    let taken = || fs::read_dir(&dir).into_iter().flatten().map(|it| it.unwrap().file_name());
    eventually("one is taken by the clock", || async { taken().next().map(drop) }).await;
    service.stop().await;
    service.set_args(SMALL);
    service.restart().await;
    let end = service.head().await;
    fill(&service, end + 3 * SEGMENT).await;
    expire(&mut service, end).await;
    let next = service.root().join("next");
    let ran = service.acta(&["snapshot", "create", text(&next), "--base", text(&base)]).await;
    assert!(ran.code == 1 && ran.stderr.contains("Take one without --base"), "{ran:?}");
    service.stop().await;
    service.set_args(by_clock);
    let before: Vec<_> = taken().collect();
    service.restart().await;
    eventually("the next one is taken by the clock", || async {
        taken().find(|name| !before.contains(name) && !name.to_string_lossy().starts_with('.'))
    })
    .await;
}

#[tokio::test]
async fn what_is_still_needed_holds_history_up() {
    let mut service = Options::default().arg(SMALL[0]).arg(SMALL[1]).start().await;
    let mut agent = Deployed::connected(&service).await;
    let said = json!({"parts": [{"kind": "text", "text": "do not forget"}]});
    service.post(&agent.path("/a2a"), &said).await.ok();
    let message = service.events("type=message_received").await[0]["seq"].as_u64().unwrap();
    fill(&service, 4 * SEGMENT).await;
    service.stop().await;
    service.set_args(EXPIRES);
    service.restart_here().await;
    let held = eventually("history to be held up", || async {
        let history = history(&service).await;
        (!history["held"].is_null()).then_some(history)
    })
    .await;
    assert_eq!(held["held"]["record"], message, "{held}");
    assert!(held["held"]["by"].as_str().unwrap().contains(&agent.id), "{held}");
    assert!(held["expired"].is_null() && held["first"] == 1, "{held}");
    let said = service.acta(&["status"]).await;
    assert!(said.ok().contains(&format!("record {message} is needed by worker {}", agent.id)));
    // Once the agent has dealt with it, it goes with all that is as old.
    let rows = agent.poll().await;
    assert_eq!(rows.len(), 1, "it was still there: {rows:?}");
    agent.poll().await;
    fill(&service, 6 * SEGMENT).await;
    let through = expired(&service, message).await;
    assert!(through >= message);
    assert!(history(&service).await["held"].is_null());
}

#[tokio::test]
async fn kills_at_any_moment_lose_nothing_that_is_to_be_there() {
    let mut service = Options::default().start().await;
    service.stop().await;
    service.set_args(EXPIRES);
    let mut known = 0;
    for round in 1..=6 {
        service.restart().await;
        let head = service.head().await;
        assert!(head >= known, "acknowledged {known}, found {head}");
        fill(&service, round * 2 * SEGMENT).await;
        known = service.head().await;
        if round == 6 {
            expired(&service, 6 * SEGMENT).await;
        }
        service.kill9().await;
    }
    let said = alone(service.root(), &["verify", text(&service.data())]).await;
    assert!(said.ok().contains("expired by policy"), "{said:?}");
    service.restart().await;
    let first = history(&service).await["first"].as_u64().unwrap();
    let mut after = first - 1;
    let head = service.head().await;
    while after < head {
        for event in service.events(&format!("after={after}&limit=1000")).await {
            after += 1;
            assert_eq!(event["seq"], after);
        }
    }
}
