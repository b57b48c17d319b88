//! A history that was sealed: read through everything that reads, killed on, and damaged.

use super::support::{Service, bare_command, run};
use serde_json::Value;
use std::{fs, path::PathBuf};

/// Enough for two segments and a tail.
const RECORDS: u64 = 60_000;

/// A stopped service on a generated history.
async fn sealed() -> Service {
    let mut service = Service::start().await;
    service.stop().await;
    fs::remove_dir_all(service.data()).unwrap();
    let data = service.data();
    let records = RECORDS.to_string();
    let args = ["bench", "generate", data.to_str().unwrap(), "--records", &records];
    let mut command = bare_command(service.root());
    command.args(args);
    let ran = run(command, "").await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    service
}

async fn listed(service: &Service) -> Vec<Value> {
    let mut command = bare_command(service.root());
    command.args(["segments", "-o", "json", "--data", service.data().to_str().unwrap()]);
    let ran = run(command, "").await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let listed: Value = serde_json::from_str(&ran.stdout).unwrap();
    listed["segments"].as_array().unwrap().clone()
}

async fn verify(service: &Service) -> (i32, String) {
    let mut command = bare_command(service.root());
    command.args(["verify", service.data().to_str().unwrap()]);
    let ran = run(command, "").await;
    (ran.code, ran.stdout + &ran.stderr)
}

fn file_of(service: &Service, segment: &Value) -> PathBuf {
    let (first, last) = (segment["first"].as_u64().unwrap(), segment["last"].as_u64().unwrap());
    service.data().join(format!("segments/{first:020}-{last:020}.seg"))
}

#[tokio::test]
async fn a_sealed_history_is_read_as_one_and_damage_of_it_is_named() {
    let mut service = sealed().await;
    let segments = listed(&service).await;
    assert!(segments.len() >= 2, "{segments:?}");
    let mut next = 1;
    for segment in &segments {
        assert_eq!(segment["first"], next);
        assert!(segment["damage"].is_null(), "{segment}");
        next = segment["last"].as_u64().unwrap() + 1;
    }
    // Everything can be read, and written on, also after kills.
    for _ in 0..2 {
        service.restart().await;
        let worker = service.spawn("echo").await;
        service.input(&worker, "hello").await;
        service.kill9().await;
    }
    service.restart().await;
    let head = service.head().await;
    assert!(head > RECORDS);
    let mut after = 0;
    while after < head {
        let events = service.events(&format!("after={after}&limit=1000")).await;
        for event in &events {
            after += 1;
            assert_eq!(event["seq"], after);
        }
        assert!(!events.is_empty(), "nothing after {after}");
    }
    let seam = segments[1]["first"].as_u64().unwrap();
    let past = service.get(&format!("/v1/workers?at={seam}")).await.ok();
    assert!(!past["workers"].as_array().unwrap().is_empty());
    service.stop().await;
    let (code, said) = verify(&service).await;
    assert_eq!(code, 0, "{said}");

    // One bit of the second segment.
    let victim = file_of(&service, &segments[1]);
    let whole = fs::read(&victim).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 16;
    fs::write(&victim, &bytes).unwrap();
    let (code, said) = verify(&service).await;
    assert_eq!(code, 3, "{said}");
    let named = said.split("first bad record is ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let digits: String = named.chars().take_while(char::is_ascii_digit).collect();
    let first: u64 = digits.parse().unwrap();
    let last = segments[1]["last"].as_u64().unwrap();
    assert!(seam <= first && first <= last, "{first} is not in {seam} to {last}");
    let (status, said) = service.restart_refused().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("are damaged or missing") && !said.contains("panicked"), "{said}");

    // It is gone.
    fs::remove_file(&victim).unwrap();
    let (code, said) = verify(&service).await;
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(&format!("first bad record is {seam}")), "{said}");
    let (status, said) = service.restart_refused().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(&format!("records {seam} to {last} are damaged")), "{said}");

    // And the one before it is not what it was: each is named, and what is intact up to the first.
    let before = file_of(&service, &segments[0]);
    let sound = fs::read(&before).unwrap();
    let mut bytes = sound.clone();
    bytes[sound.len() / 2] ^= 16;
    fs::write(&before, &bytes).unwrap();
    let (code, said) = verify(&service).await;
    assert_eq!(code, 3, "{said}");
    let named = said.split("first bad record is ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let digits: String = named.chars().take_while(char::is_ascii_digit).collect();
    let first: u64 = digits.parse().unwrap();
    assert!(1 < first && first < seam, "{said}");
    assert!(said.contains(&format!("records {seam} to {last}: ")), "{said}");
    assert!(said.contains(&format!("records 1 to {} are certainly intact", first - 1)), "{said}");
    fs::write(&before, &sound).unwrap();
    fs::write(&victim, &whole).unwrap();
    service.restart().await;
    assert_eq!(service.events(&format!("after={}&limit=1", seam - 1)).await[0]["seq"], seam);
}
