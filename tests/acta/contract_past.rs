//! `?at=`: the past as it was.

use crate::support::{Client, Service, eventually};
use serde_json::{Value, json};

/// Everything that can be asked about a moment.
async fn views(service: &Client, worker: &str, at: &str) -> Vec<Value> {
    let mut views = Vec::new();
    for path in [
        format!("/v1/workers/{worker}?at={at}"),
        format!("/v1/workers/{worker}/transcript?at={at}"),
        format!("/v1/workers?at={at}"),
        format!("/v1/runtime?at={at}"),
    ] {
        views.push(service.get(&path).await.json());
    }
    views
}

async fn views_now(service: &Client, worker: &str) -> Vec<Value> {
    let mut views = Vec::new();
    for path in [
        format!("/v1/workers/{worker}"),
        format!("/v1/workers/{worker}/transcript"),
        "/v1/workers".into(),
        "/v1/runtime".into(),
    ] {
        views.push(service.get(&path).await.json());
    }
    views
}

#[tokio::test]
async fn what_was_seen_at_a_moment_is_seen_again_by_sequence_and_by_time() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.run_state(&worker, "idle").await;
    let mut seen = Vec::new();
    for round in 0..4 {
        match round {
            0 => {}
            1 | 2 => {
                service.input(&worker, &format!("round {round}")).await;
                service.rests(&worker, 2 * round).await;
            }
            _ => {
                service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
                service.spawn("refuses").await;
            }
        }
        let (head, views) = eventually("nothing moves", || async {
            let before = service.head().await;
            let views = views_now(&service, &worker).await;
            (service.head().await == before).then_some((before, views))
        })
        .await;
        let record = service.events(&format!("after={}&limit=1", head - 1)).await[0].clone();
        seen.push((head, record["time"].as_str().unwrap().to_owned(), views));
    }
    service.spawn("refuses").await;
    for restart in [false, true] {
        if restart {
            service.kill9().await;
            service.restart().await;
        }
        for (head, time, expected) in &seen {
            assert_eq!(&views(&service, &worker, &head.to_string()).await, expected, "at {head}");
            assert_eq!(&views(&service, &worker, time).await, expected, "at {time}");
        }
    }
}

#[tokio::test]
async fn before_it_was_made_a_worker_is_not_there() {
    let service = Service::start().await;
    let before = service.head().await;
    let worker = service.spawn("echo").await;
    let created = service.events(&format!("worker={worker}&type=worker_created")).await[0].clone();
    let sequence = created["seq"].as_u64().unwrap();
    for at in [0, 1, before] {
        for rest in ["", "/transcript"] {
            let path = format!("/v1/workers/{worker}{rest}?at={at}");
            let message = service.get(&path).await.refused(404, "worker_not_found");
            assert!(message.contains(&worker), "{message}");
        }
        let list = service.get(&format!("/v1/workers?at={at}")).await.ok();
        assert_eq!(list, json!({"workers": []}));
    }
    let first = service.get(&format!("/v1/workers/{worker}?at={sequence}")).await.ok();
    assert_eq!(
        (&first["worker"]["version"], &first["worker"]["last_event_id"]),
        (&json!(1), &json!(sequence))
    );
    let day_before = "2001-01-01T00:00:00Z";
    service
        .get(&format!("/v1/workers/{worker}?at={day_before}"))
        .await
        .refused(404, "worker_not_found");
    service.get("/v1/runtime?at=0").await.refused(404, "unknown_runtime");
}

#[tokio::test]
async fn every_sequence_gives_the_worker_of_that_record() {
    let service = Service::start().await;
    let worker = service.spawn("lines").await;
    service.input(&worker, "one").await;
    service.rests(&worker, 2).await;
    let records = service.events(&format!("worker={worker}")).await;
    let last = records.last().unwrap()["seq"].as_u64().unwrap();
    let first = records[0]["seq"].as_u64().unwrap();
    for at in first..=last {
        let state = service.get(&format!("/v1/workers/{worker}?at={at}")).await.ok();
        let upto = records.iter().take_while(|record| record["seq"].as_u64().unwrap() <= at);
        let record = upto.last().unwrap();
        assert_eq!(state["worker"]["last_event_id"], record["seq"]);
        assert_eq!(state["worker"]["version"], record["version"], "versions are gapless: {record}");
        let transcript =
            service.get(&format!("/v1/workers/{worker}/transcript?at={at}")).await.ok();
        let items = transcript["transcript"]["items"].as_array().unwrap().len();
        assert_eq!(state["worker"]["transcript_len"], items);
        assert_eq!(transcript["transcript"]["total_items"], items);
    }
}

#[tokio::test]
async fn a_time_between_two_records_means_the_earlier_one() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    service.run_state(&worker, "idle").await;
    let before = service.worker(&worker).await;
    let times = |records: &[Value]| -> Vec<String> {
        records.iter().map(|record| record["time"].as_str().unwrap().to_owned()).collect()
    };
    let recorded = times(&service.events("").await);
    assert!(recorded.is_sorted(), "times never go back: {recorded:?}");
    let last = recorded.last().unwrap();
    // One microsecond is the least that two texts of times differ by.
    let now = eventually("time goes on", || async {
        service.input(&worker, "x").await;
        let later = times(&service.events("type=worker_input_accepted").await);
        later.last().filter(|later| *later > last).cloned()
    })
    .await;
    assert!(now > *last);
    let path = format!("/v1/workers/{worker}?at={last}");
    assert_eq!(service.get(&path).await.ok()["worker"], before);
    let future = "2999-01-01T00:00:00Z";
    let state = service.get(&format!("/v1/workers/{worker}?at={future}")).await.ok();
    assert!(state["worker"]["transcript_len"].as_u64().unwrap() >= 1);
}

#[tokio::test]
async fn a_moment_is_understood_or_refused_and_never_passed_over() {
    let service = Service::start().await;
    let before = service.head().await;
    let asked = json!({"name": "one", "runtime": "external"});
    let made = service.post("/workspaces", &asked).await.created();
    let id = made["id"].as_str().unwrap();
    let worker = service.spawn("echo").await;
    service.input(&worker, "hello").await;
    service.rests(&worker, 2).await;
    let input = service.events("type=worker_input_accepted").await[0]["seq"].clone();
    let order = json!({"sequence": input, "reason": "it was a password"});
    let redaction = service.post("/v1/redactions", &order).await.ok();
    let ordered = redaction["redaction"]["sequence"].as_u64().unwrap();
    let count = async |path: &str, field: &str, at: u64| {
        let list = service.get(&format!("{path}?at={at}")).await.json();
        let items = if field.is_empty() { &list } else { &list[field] };
        items.as_array().unwrap_or_else(|| panic!("{path}: {list}")).len()
    };
    let now = service.head().await;
    assert_eq!(count("/workspaces", "", before).await, 0);
    assert_eq!(count("/workspaces", "", now).await, 1);
    assert_eq!(count("/v1/redactions", "redactions", ordered - 1).await, 0);
    assert_eq!(count("/v1/redactions", "redactions", ordered).await, 1);
    assert_eq!(count("/v1/deliveries", "deliveries", before).await, 0);
    let state = format!("/workspaces/{id}/state");
    service.get(&format!("{state}?at={before}")).await.refused(404, "worker_not_found");
    service.get(&format!("{state}?at={now}")).await.ok();
    let points = format!("/v1/runtimes/external/workers/{id}/connect-points");
    for path in ["/v1/dispatch", "/v1/status", &points] {
        service.get(path).await.ok();
        let message = service.get(&format!("{path}?at={now}")).await.refused(400, "invalid_query");
        assert!(message.contains("the present only"), "{message}");
    }
    for path in ["/workspaces", "/v1/redactions", "/v1/deliveries", "/v1/dispatch", &points, &state]
    {
        service.get(&format!("{path}?at=rubbish")).await.refused(400, "invalid_query");
    }
    let late = service.get("/v1/workers?at=9999-12-31T23:59:59Z").await;
    let message = late.refused(400, "invalid_query");
    assert!(message.contains("out of range"), "{message}");
}

#[tokio::test]
async fn a_proof_that_is_asked_for_without_a_record_says_what_is_missing() {
    let service = Service::start().await;
    let check = async |path: &str, expected: &str| {
        let message = service.get(path).await.refused(400, "invalid_query");
        assert!(message.contains(expected), "{path}: {message}");
    };
    check("/v1/proofs/inclusion", "`seq` takes the sequence of a record").await;
    check("/v1/proofs/inclusion?seq=x", "not `x`").await;
    check("/v1/contents", "`seq` takes the sequence of a record").await;
    check("/v1/proofs/consistency", "`from` takes a number of records").await;
    check("/v1/proofs/consistency?from=1&to=-1", "`to` takes a number of records").await;
}
