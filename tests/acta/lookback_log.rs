//! Looking back over what happened: from its end, by who, when and what.

use crate::support::{Client, Service, eventually};
use serde_json::{Value, json};

fn seqs(records: &[Value]) -> Vec<u64> {
    records.iter().map(|record| record["seq"].as_u64().unwrap()).collect()
}

/// All pages from the end to the beginning.
async fn newest_first(client: &Client, query: &str) -> Vec<Value> {
    let (mut records, mut before) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/events?order=newest&{query}{before}");
        let page = client.get(&path).await.ok();
        records.extend(page["events"].as_array().unwrap().iter().cloned());
        match page["before"].as_u64() {
            Some(seq) => before = format!("&before={seq}"),
            None => return records,
        }
    }
}

/// A service with two workers that have spoken, and that does nothing more.
async fn busy() -> (Service, String, String) {
    let service = Service::start().await;
    let (one, two) = (service.spawn("echo").await, service.spawn("lines").await);
    for round in 1..=3 {
        service.input(&one, &format!("Alpha number {round}")).await;
        service.input(&two, &format!("beta number {round}")).await;
        service.rests(&one, 2 * round).await;
        service.rests(&two, 2 * round).await;
    }
    let request = json!({"role": "auditor", "label": "an auditor"});
    service.issue(&request).await;
    (service, one, two)
}

#[tokio::test]
async fn the_log_is_read_backwards_as_it_is_read_forwards() {
    let (service, one, _) = busy().await;
    for filter in [
        String::new(),
        format!("worker={one}"),
        "type=worker_input_accepted,token_issued".into(),
        format!("worker={one}&type=worker_output"),
        "actor=operator".into(),
        "actor=nobody".into(),
        "grep=ALPHA".into(),
        "since=4&until=9".into(),
        format!("since=4&until=9&worker={one}"),
        "after=5".into(),
        "since=100000".into(),
    ] {
        let mut forwards = service.events(&filter).await;
        forwards.reverse();
        for limit in [1, 2, 7, 1000] {
            let backwards = newest_first(&service, &format!("limit={limit}&{filter}")).await;
            assert_eq!(seqs(&backwards), seqs(&forwards), "{filter} limit {limit}");
            assert_eq!(backwards, forwards, "{filter}");
        }
    }
}

#[tokio::test]
async fn since_and_until_take_times_and_sequences() {
    let (service, ..) = busy().await;
    let all = service.events("").await;
    for at in [0, 3, all.len() - 1] {
        let (seq, time) = (all[at]["seq"].as_u64().unwrap(), all[at]["time"].as_str().unwrap());
        let from: Vec<u64> = seqs(&all).into_iter().filter(|each| *each >= seq).collect();
        assert_eq!(seqs(&service.events(&format!("since={seq}")).await), from);
        let to: Vec<u64> = seqs(&all).into_iter().filter(|each| *each <= seq).collect();
        assert_eq!(seqs(&service.events(&format!("until={seq}")).await), to);
        // Records of one commit may have the same time.
        let since: Vec<_> = all.iter().filter(|each| each["time"].as_str() >= Some(time)).collect();
        let until: Vec<_> = all.iter().filter(|each| each["time"].as_str() <= Some(time)).collect();
        let found = service.events(&format!("since={time}")).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), since);
        let found = service.events(&format!("until={time}")).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), until);
    }
    assert_eq!(service.events("until=1990-01-01T00:00:00Z").await, Vec::<Value>::new());
    for bad in ["since=yesterday", "until=-1", "order=up", "order=newest&before=0", "actor=a%20b"] {
        assert_eq!(service.get(&format!("/v1/events?{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_text_is_found_in_what_was_said_in_one_piece_or_in_several() {
    let (service, one, _) = busy().await;
    let jsonl = service.spawn("jsonl").await;
    service.input(&jsonl, "go").await;
    eventually("the answer", || async {
        let state = service.worker(&jsonl).await;
        (state["transcript_len"] == 2).then_some(())
    })
    .await;
    let check = async |grep: &str, kinds: &[&str]| {
        let found = service.events(&format!("grep={grep}")).await;
        let found: Vec<_> = found.iter().map(|record| record["type"].as_str().unwrap()).collect();
        assert_eq!(found, kinds, "{grep}");
    };
    check("alpha%20NUMBER%202", &["worker_input_accepted", "worker_output", "worker_output"]).await;
    // It came in two pieces, so it stands in the completed text alone.
    check("one%20two", &["worker_output"]).await;
    check("an%20auditor", &["token_issued"]).await;
    check("nowhere%20at%20all", &[]).await;
    let path = format!("/v1/events?worker={one}&follow=false&grep=number%203&until=100000");
    let request = service.request(reqwest::Method::GET, &path);
    let lines = service.send(request.header("accept", "application/x-ndjson")).await;
    assert_eq!(lines.text().lines().count(), 3);
}

#[tokio::test]
async fn acta_log_tells_who_did_what_when_and_by_which_command() {
    let (service, one, _) = busy().await;
    let input = json!({"kind": "user", "content": "the last word"});
    let path = format!("/v1/workers/{one}/input");
    service.post_keyed(&path, "key-of-mine", &input).await.ok();
    service.rests(&one, 8).await;
    let ran = service.acta(&["log", "-n", "1", "--type", "worker_input_accepted"]).await;
    let line = ran.ok();
    assert!(line.contains("  operator  "), "{line}");
    assert!(line.ends_with("user> the last word  (key-of-mine)"), "{line}");
    let time = line.get(..19).unwrap();
    assert!(time.as_bytes()[10] == b' ' && time.starts_with("20"), "{line}");

    let newest = service.acta(&["log", "-n", "5", "-o", "json"]).await;
    let oldest = service.acta(&["log", "-n", "5", "--reverse", "-o", "json"]).await;
    let mut lines: Vec<&str> = newest.ok().lines().collect();
    lines.reverse();
    assert_eq!(lines, oldest.ok().lines().collect::<Vec<_>>());
    assert_eq!(lines.len(), 5);
    let last: Value = serde_json::from_str(lines[4]).unwrap();
    assert_eq!(last["seq"].as_u64().unwrap(), service.head().await);

    let all = service.acta(&["log", "--reverse", "-o", "json"]).await;
    let seqs: Vec<u64> = (all.ok().lines())
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=service.head().await).collect::<Vec<_>>());

    let of_worker = service.acta(&["log", "--worker", &one[..14], "--grep", "alpha"]).await;
    assert_eq!(of_worker.ok().lines().filter(|line| line.contains("user> Alpha")).count(), 3);
    assert_eq!(service.acta(&["log", "--since", "tomorrow"]).await.code, 2);
}

#[tokio::test]
async fn tokens_bundles_and_cursors_are_shown_as_they_were() {
    let service = Service::start().await;
    let before = service.head().await;
    let bundle = json!({"bundle": crate::contract_bundles::bundle()});
    service.post("/v1/config-bundles", &bundle).await.ok();
    let stored = service.head().await;
    let token = service.issue(&json!({"role": "observer", "label": "old"})).await;
    let id = token["id"].as_str().unwrap().to_owned();
    let issued = service.head().await;
    service.delete(&format!("/v1/tokens/{id}")).await.ok();
    let cursor = service.get("/v1/events?limit=1").await.ok()["cursor"].clone();
    service.put("/v1/cursors/mine", &json!({ "cursor": cursor })).await.ok();
    let now = service.head().await;

    let list = async |path: &str, name: &str, at: u64| {
        service.get(&format!("{path}?at={at}")).await.ok()[name].as_array().unwrap().clone()
    };
    assert_eq!(list("/v1/config-bundles", "bundles", before).await.len(), 0);
    assert_eq!(list("/v1/config-bundles", "bundles", stored).await.len(), 1);
    assert_eq!(list("/v1/tokens", "tokens", stored).await.len(), 0);
    assert_eq!(list("/v1/tokens", "tokens", issued).await[0]["revoked_at"], Value::Null);
    assert_ne!(list("/v1/tokens", "tokens", now).await[0]["revoked_at"], Value::Null);
    assert_eq!(list("/v1/cursors", "cursors", issued).await.len(), 0);
    assert_eq!(list("/v1/cursors", "cursors", now).await.len(), 1);
    service.get(&format!("/v1/cursors/mine?at={issued}")).await.refused(404, "unknown_cursor");
    // The first record of a log says that the service started; its runtime, that of agents that
    // connect in, and its host come after it.
    assert_eq!(list("/v1/runtimes", "items", 1).await.len(), 0);
    assert_eq!(list("/v1/runtimes", "items", before).await.len(), 2);
    assert_eq!(list("/v1/hosts", "items", 1).await.len(), 0);
    assert_eq!(list("/v1/hosts", "items", before).await.len(), 1);
    let runtime = "/v1/runtimes/embedded-worker-runtime";
    service.get(&format!("{runtime}?at={before}")).await.ok();
    service.get(&format!("{runtime}?at=1")).await.refused(404, "unknown_runtime");
    let lists = ["/v1/config-bundles", "/v1/tokens", "/v1/cursors", "/v1/runtimes", "/v1/hosts"];
    for path in lists {
        service.get(&format!("{path}?at={}", now + 1)).await.refused(400, "invalid_query");
    }

    let at = issued.to_string();
    let shown = service.acta(&["show", "token", &id, "--at", &at, "-o", "json"]).await;
    let shown: Value = serde_json::from_str(shown.ok()).unwrap();
    assert_eq!(shown["token"]["revoked_at"], Value::Null);
    service.acta(&["show", "bundle", "team-1"]).await.ok();
    service.acta(&["show", "cursor", "mine"]).await.ok();
    let missing = service.acta(&["show", "bundle", "team-1", "--at", &before.to_string()]).await;
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("at that moment"), "{missing:?}");
}
