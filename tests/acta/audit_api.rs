//! Checkpoints, tiles, proofs and receipts over HTTP and on the command line, and what a start
//! makes of a log that is not what was signed.

use super::{
    support::{Options, Service, eventually},
    survive_measure::copy_dir,
};
use acta::audit::{Receipt, SignedCheckpoint, VerifierKey};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt as _};

async fn key_of(service: &Service) -> VerifierKey {
    let data = service.data();
    let ran = service.acta(&["key", "show", "--data", data.to_str().unwrap()]).await;
    ran.ok().parse().unwrap()
}

/// How much the newest checkpoint covers.
async fn signed(service: &Service) -> u64 {
    let text = service.get("/checkpoint").await.text();
    SignedCheckpoint::verify(&text, &key_of(service).await).unwrap().size()
}

#[tokio::test]
async fn the_key_is_private_and_stays_the_same() {
    let mut service = Service::start().await;
    let key = key_of(&service).await;
    let file = service.data().join("log.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let shown = service
        .acta(&["key", "show", "--data", service.data().to_str().unwrap(), "-o", "json"])
        .await;
    let shown: serde_json::Value = serde_json::from_str(shown.ok()).unwrap();
    assert_eq!(shown, json!({"name": key.name(), "verifier_key": key.to_string()}));
    service.stop().await;
    service.restart().await;
    assert_eq!(key_of(&service).await, key);
    let elsewhere = service.acta(&["key", "show", "--data", "nowhere"]).await;
    assert_eq!(elsewhere.code, 1);
    assert!(elsewhere.stderr.contains("nowhere"), "{elsewhere:?}");
    let secret = fs::read_to_string(file).unwrap();
    let secret = secret.trim().rsplit('+').next().unwrap();
    assert!(!service.log().contains(secret));
}

#[tokio::test]
async fn a_checkpoint_follows_the_log_by_itself() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "hello").await;
    let head = service.head().await;
    eventually("a checkpoint of what is there", || async {
        (signed(&service).await >= head).then_some(())
    })
    .await;
    service.stop().await;
    let text = fs::read_to_string(service.data().join("checkpoint")).unwrap();
    let end = SignedCheckpoint::parse(&text).unwrap().size();
    assert!(end > head, "the end of the service is signed too");
    service.restart().await;
    assert!(signed(&service).await >= end);
}

#[tokio::test]
async fn only_who_may_read_the_whole_log_reads_its_proofs() {
    let service = Service::start().await;
    let routes = [
        "/checkpoint",
        "/tile/0/000.p/1",
        "/tile/entries/000.p/1",
        "/v1/proofs/inclusion?seq=1",
        "/v1/proofs/consistency?from=1",
    ];
    for (role, may) in [("operator", true), ("auditor", true), ("observer", false), ("host", false)]
    {
        let issued = service.issue(&json!({ "role": role })).await;
        let client = service.with_token(issued["token"].as_str().unwrap());
        for route in routes {
            let answer = client.get(route).await;
            if may {
                assert_eq!(answer.status, 200, "{role} {route}: {}", answer.text());
            } else {
                answer.refused(403, "forbidden");
            }
        }
    }
    for route in routes {
        service.anonymous().get(route).await.refused(401, "unauthorized");
    }
    let public = Options::default().arg("--public-log").start().await;
    for (n, route) in routes.into_iter().enumerate() {
        let answer = public.anonymous().get(route).await;
        if n < 3 {
            assert_eq!(answer.status, 200, "{route}: {}", answer.text());
        } else {
            answer.refused(401, "unauthorized");
        }
    }
    let cache = public.anonymous().get("/tile/0/000.p/1").await;
    assert_eq!(cache.header("cache-control"), "public, max-age=31536000, immutable");
    let cache = service.get("/tile/0/000.p/1").await;
    assert_eq!(cache.header("cache-control"), "private, max-age=31536000, immutable");
    assert_eq!(service.get("/checkpoint").await.header("cache-control"), "no-cache");
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_not_there() {
    let service = Service::start().await;
    for path in [
        "0/000",
        "1/000.p/1",
        "entries/000",
        "entries/x001/000",
        "0/0",
        "8/0/000",
        "x/000",
        "64/000",
    ] {
        service.get(&format!("/tile/{path}")).await.refused(404, "not_found");
    }
    for query in ["seq=0", "seq=999999", "seq=18446744073709551615"] {
        service.get(&format!("/v1/proofs/inclusion?{query}")).await.refused(404, "not_found");
    }
    for query in ["", "seq=", "seq=x", "seq=-1", "seq=18446744073709551616"] {
        let answer = service.get(&format!("/v1/proofs/inclusion?{query}")).await;
        answer.refused(400, "invalid_query");
    }
    for (query, status, code) in [
        ("from=0", 200, ""),
        ("from=1&to=2", 200, ""),
        ("from=2&to=1", 400, "invalid_query"),
        ("from=1&to=x", 400, "invalid_query"),
        ("from=999999", 404, "not_found"),
        ("from=1&to=999999", 404, "not_found"),
    ] {
        let answer = service.get(&format!("/v1/proofs/consistency?{query}")).await;
        if status == 200 {
            answer.ok();
        } else {
            answer.refused(status, code);
        }
    }
}

#[tokio::test]
async fn a_receipt_convinces_without_a_service_and_an_altered_one_does_not() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    let acknowledged = service.input(&worker, "pay 100 euros").await;
    let head = service.head().await;
    let seq = acknowledged["event_id"].as_u64().unwrap_or(head).to_string();
    let receipt = service.acta(&["receipt", &seq]).await;
    let receipt = receipt.ok().to_owned() + "\n";
    let key = key_of(&service).await;
    let other = Service::start().await;
    let other = key_of(&other).await;
    service.kill9().await;
    let file = service.root().join("r.tlog-proof");
    let (path, key_text) = (file.to_str().unwrap(), key.to_string());
    fs::write(&file, &receipt).unwrap();
    let ran = service.acta(&["verify", "receipt", path, "--key", &key_text]).await;
    assert!(ran.ok().contains(&format!("record {seq} is in ")), "{ran:?}");
    assert!(ran.ok().contains("worker"), "the header is shown: {ran:?}");
    let stranger = service.acta(&["verify", "receipt", path, "--key", &other.to_string()]).await;
    assert_eq!(stranger.code, 4, "{stranger:?}");
    // No change of any byte goes unnoticed.
    for at in 0..receipt.len() {
        let mut bytes = receipt.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let verified = String::from_utf8(bytes)
            .is_ok_and(|text| Receipt::parse(&text).and_then(|it| it.verify(&key)).is_ok());
        assert!(!verified, "byte {at}");
    }
    for (altered, code) in [
        (receipt.replacen("index ", "index 1", 1), 4),
        (receipt.replacen("extra ", "extra A", 1), 3),
        (receipt[..receipt.len() / 2].to_owned(), 3),
        (String::new(), 3),
    ] {
        fs::write(&file, altered).unwrap();
        let ran = service.acta(&["verify", "receipt", path, "--key", &key_text]).await;
        assert_eq!(ran.code, code, "{ran:?}");
    }
    for key in ["", "x", "a+b+c"] {
        assert_eq!(service.acta(&["verify", "receipt", path, "--key", key]).await.code, 2);
    }
}

#[tokio::test]
async fn a_log_that_is_shorter_than_what_was_signed_does_not_start() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.stop().await;
    // An older copy, such as a backup, put back.
    let older = service.root().join("older");
    copy_dir(&service.data(), &older).unwrap();
    service.restart().await;
    service.input(&worker, "one more").await;
    service.stop().await;
    let data = service.data();
    let newest = fs::read(data.join("checkpoint")).unwrap();
    fs::remove_dir_all(&data).unwrap();
    copy_dir(&older, &data).unwrap();
    fs::write(data.join("checkpoint"), newest).unwrap();
    let (status, said) = service.restart_refused().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("are missing"), "{said}");
}

#[tokio::test]
async fn a_log_that_differs_from_what_was_signed_does_not_start() {
    let mut service = Service::start().await;
    service.spawn("echo").await;
    service.stop().await;
    let data = service.data();
    // Another history of the same name: the checkpoint of one, the records of the other.
    let (key, signed) =
        (fs::read(data.join("log.key")).unwrap(), fs::read(data.join("checkpoint")).unwrap());
    let mut other = Service::start().await;
    for _ in 0..5 {
        other.spawn("echo").await;
    }
    other.stop().await;
    fs::write(other.data().join("log.key"), key).unwrap();
    fs::write(other.data().join("checkpoint"), signed).unwrap();
    let (status, said) = other.restart_refused().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("are not those that were signed"), "{said}");
    // And a key that is gone does not become another by itself.
    fs::remove_file(data.join("log.key")).unwrap();
    let (status, said) = service.restart_refused().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("log.key is missing"), "{said}");
}

#[tokio::test]
async fn a_tree_that_is_lost_is_made_anew() {
    let mut service = Service::start().await;
    service.spawn("echo").await;
    let head = service.head().await;
    let before = service.get(&format!("/v1/proofs/consistency?from={head}&to={head}")).await.ok();
    service.stop().await;
    fs::remove_dir_all(service.data().join("tree")).unwrap();
    service.restart().await;
    let after = service.get(&format!("/v1/proofs/consistency?from={head}&to={head}")).await.ok();
    assert_eq!(after["to_root"], before["to_root"]);
    service.kill9().await;
    service.restart().await;
    let after = service.get(&format!("/v1/proofs/consistency?from={head}&to={head}")).await.ok();
    assert_eq!(after["to_root"], before["to_root"]);
}
