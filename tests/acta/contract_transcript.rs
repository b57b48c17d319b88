//! What was said, in pages.

use crate::support::{Options, Service, keys};
use serde_json::{Value, json};

#[tokio::test]
async fn a_transcript_has_the_shape_of_the_contract() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let system = json!({"kind": "system", "content": "Be brief"});
    let first = service.post(&format!("/v1/workers/{worker}/input"), &system).await.ok();
    service.rests(&worker, 2).await;
    service.input(&worker, "hello").await;
    service.rests(&worker, 4).await;
    let body = service.get(&format!("/v1/workers/{worker}/transcript")).await.ok();
    assert_eq!(keys(&body), ["transcript"]);
    let transcript = &body["transcript"];
    assert_eq!(
        keys(transcript),
        ["items", "limit", "next_start", "start", "total_items", "worker_ref"]
    );
    let address = service.worker(&worker).await["worker_ref"].clone();
    assert_eq!(transcript["worker_ref"], address);
    assert_eq!((&transcript["start"], &transcript["limit"]), (&json!(0), &json!(256)));
    assert_eq!((&transcript["total_items"], &transcript["next_start"]), (&json!(4), &Value::Null));
    let items = transcript["items"].as_array().unwrap();
    let expected = [
        ("system", "Be brief"),
        ("assistant", "Be brief\n"),
        ("user", "hello"),
        ("assistant", "hello\n"),
    ];
    assert_eq!(items.len(), expected.len());
    let mut last_event = 0;
    for (n, (item, (role, content))) in items.iter().zip(expected).enumerate() {
        assert_eq!(keys(item), ["content", "event_id", "role", "sequence", "worker_ref"]);
        assert_eq!(item["sequence"], n + 1);
        assert_eq!(item["worker_ref"], address);
        assert_eq!((&item["role"], &item["content"]), (&json!(role), &json!(content)));
        let event = item["event_id"].as_u64().unwrap();
        assert!(event > last_event);
        last_event = event;
    }
    assert_eq!(items[0]["event_id"], first["ack"]["event_id"]);
}

#[tokio::test]
async fn pages_of_any_size_add_up_to_the_whole() {
    let service = Service::start().await;
    let worker = service.spawn("lines").await;
    for n in 0..5 {
        service.input(&worker, &format!("number {n}")).await;
    }
    service.rests(&worker, 10).await;
    let page = |start: u64, limit: u64| {
        let path = format!("/v1/workers/{worker}/transcript?start={start}&limit={limit}");
        let service = &service;
        async move { service.get(&path).await.ok()["transcript"].clone() }
    };
    let whole = page(0, 256).await["items"].clone();
    for limit in [1, 3, 9, 10, 11] {
        let (mut start, mut items) = (0, Vec::new());
        loop {
            let page = page(start, limit).await;
            assert_eq!((&page["start"], &page["limit"]), (&json!(start), &json!(limit)));
            items.extend_from_slice(page["items"].as_array().unwrap());
            let Some(next) = page["next_start"].as_u64() else { break };
            assert_eq!(next, items.len() as u64);
            start = next;
        }
        assert_eq!(json!(items), whole, "pages of {limit}");
    }
    for start in [10, 11, u64::MAX] {
        let page = page(start, 5).await;
        assert_eq!((&page["items"], &page["next_start"]), (&json!([]), &Value::Null), "{start}");
    }
}

#[tokio::test]
async fn a_limit_of_0_is_fine() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let path = format!("/v1/workers/{worker}/transcript?limit=0");
    assert_eq!(service.get(&path).await.ok()["transcript"]["next_start"], Value::Null);
    service.input(&worker, "x").await;
    let page = service.get(&path).await.ok()["transcript"].clone();
    assert_eq!((&page["items"], &page["total_items"]), (&json!([]), &json!(1)));
    assert_eq!((&page["limit"], &page["next_start"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn a_limit_above_the_maximum_is_limit_too_large_before_the_worker_is_looked_at() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    for id in [worker.as_str(), "no-such-worker"] {
        let path = format!("/v1/workers/{id}/transcript?limit=257");
        service.get(&path).await.refused(400, "limit_too_large");
    }
    service.get(&format!("/v1/workers/{worker}/transcript?limit=256")).await.ok();

    let service = Options::default().arg("--transcript-page-max=3").start().await;
    let worker = service.spawn("echo").await;
    let path = format!("/v1/workers/{worker}/transcript");
    assert_eq!(service.get(&path).await.ok()["transcript"]["limit"], 3);
    service.get(&format!("{path}?limit=4")).await.refused(400, "limit_too_large");
    let runtime = service.get("/v1/runtime").await.ok();
    assert_eq!(runtime["runtime"]["limits"]["max_transcript_projection_items"], 3);
}

#[tokio::test]
async fn a_transcript_survives_a_restart() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "hello").await;
    service.rests(&worker, 2).await;
    let before = service.transcript(&worker).await;
    service.kill9().await;
    service.restart().await;
    assert_eq!(service.transcript(&worker).await, before);
    service.stop().await;
    service.restart().await;
    assert_eq!(service.transcript(&worker).await, before);
}
