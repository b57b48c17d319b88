//! Auditors: they read everything, they change nothing, and what they read can be recorded.

use crate::support::{Client, Options, Service, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path};

/// Every route of the service with its methods, as the source names them.
pub(crate) fn routes() -> Vec<(Method, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let mut routes = Vec::new();
    let files = [dir.clone(), dir.join("external")].map(|dir| fs::read_dir(dir).unwrap());
    for entry in files.into_iter().flatten() {
        let Ok(text) = fs::read_to_string(entry.unwrap().path()) else { continue };
        for route in text.split(".route(").skip(1) {
            let mut quoted = route.split('"');
            let (Some(""), Some(path)) = (quoted.next().map(str::trim), quoted.next()) else {
                continue;
            };
            let handlers = route.split(".route(").next().unwrap();
            let handlers = handlers.split([';', '\n']).next().unwrap();
            for (word, method) in [
                ("get(", Method::GET),
                ("post(", Method::POST),
                ("put(", Method::PUT),
                ("delete(", Method::DELETE),
                ("patch(", Method::PATCH),
            ] {
                if handlers.contains(word) {
                    routes.push((method, path.to_owned()));
                }
            }
        }
    }
    assert!(routes.len() > 20, "{routes:?}");
    routes
}

async fn with_role(service: &Service, role: &str) -> Client {
    let token = service.issue(&json!({ "role": role })).await;
    service.with_token(token["token"].as_str().unwrap())
}

#[tokio::test]
async fn whoever_only_reads_can_change_nothing_by_any_route() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.run_state(&worker, "idle").await;
    let (auditor, observer) =
        (with_role(&service, "auditor").await, with_role(&service, "observer").await);
    let before = service.head().await;
    let mut refused = 0;
    for (method, path) in routes() {
        let own = method == Method::PUT && path == "/v1/cursors/{name}";
        if method == Method::GET || own {
            continue;
        }
        let path =
            path.replace("{worker_id}", &worker).replace("{runtime_id}", "embedded-worker-runtime");
        let path = path.replace("{id}", "t-1").replace("{host_id}", "h-1");
        for client in [&auditor, &observer] {
            let request = client.request(method.clone(), &path).json(&json!({}));
            let answer = client.send(request).await;
            // Whose token it has to be is told by the body.
            let is_refused = matches!(answer.status, 401 | 403)
                || (path.starts_with("/registry/") && answer.status == 400);
            assert!(is_refused, "{method} {path}: {}", answer.text());
            refused += 1;
        }
    }
    assert!(refused >= 14, "{refused}");
    assert_eq!(service.events(&format!("after={before}&watching=1")).await, Vec::<Value>::new());
    for path in ["/v1/events", "/v1/tokens", "/v1/views", "/v1/events?order=newest"] {
        auditor.get(path).await.ok();
        observer.get(path).await.refused(403, "forbidden");
    }
}

/// What those who speak for a host or a worker may do at all, by route.
const THEIRS: [(&str, &str); 2] =
    [("POST", "/v1/hosts"), ("POST", "/v1/hosts/{host_id}/heartbeat")];

#[tokio::test]
async fn hosts_and_workers_read_and_change_nothing_that_is_not_theirs_by_any_route() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.run_state(&worker, "idle").await;
    let address = json!({"runtime_id": "embedded-worker-runtime", "worker_id": worker});
    let host = json!({"role": "host", "host": "h-2"});
    let own = json!({"role": "worker", "worker": address});
    let mut holders = Vec::new();
    for request in [host, own] {
        let issued = service.issue(&request).await;
        let role = request["role"].as_str().unwrap().to_owned();
        holders.push((role, service.with_token(issued["token"].as_str().unwrap())));
    }
    let before = service.head().await;
    let mut refused = 0;
    for (method, path) in routes() {
        if ["/healthz", "/readyz"].contains(&&*path) {
            continue;
        }
        let theirs = THEIRS.contains(&(method.as_str(), &*path))
            || !path.starts_with("/v1/") && !PRIVATE.contains(&&*path);
        let path = path.replace("{worker_id}", &worker).replace("{host_id}", "h-1");
        let path = path.replace("{runtime_id}", "embedded-worker-runtime").replace("{id}", "t-1");
        let path = path.replace("{*path}", "0/000").replace("{name}", "c");
        for (role, client) in &holders {
            let request = client.request(method.clone(), &path).json(&json!({}));
            let answer = client.send(request).await;
            if !theirs {
                assert!(
                    matches!(answer.status, 401 | 403),
                    "{role} {method} {path}: {}",
                    answer.text()
                );
                refused += 1;
            } else {
                assert!(
                    answer.status >= 400,
                    "{role} {method} {path}: an empty request does nothing"
                );
            }
        }
    }
    assert!(refused >= 60, "{refused}");
    assert_eq!(service.events(&format!("after={before}&watching=1")).await, Vec::<Value>::new());
}

/// What lies outside of `/v1` and is read by whoever reads everything.
const PRIVATE: [&str; 3] = ["/checkpoint", "/tile/{*path}", "/metrics"];

async fn recorded(service: &Client) -> Vec<Value> {
    service.events("type=reads_recorded").await
}

fn whats(records: &[Value]) -> Vec<(String, u64)> {
    let notes = records.iter().flat_map(|record| record["data"]["reads"].as_array().unwrap());
    notes.map(|n| (n["what"].as_str().unwrap().to_owned(), n["count"].as_u64().unwrap())).collect()
}

#[tokio::test]
async fn what_auditors_read_is_recorded_together_and_says_who_read_what() {
    let options =
        Options::default().arg("--audit-reads-interval-ms=300").env("ACTA_AUDIT_READS", "true");
    let mut service = options.start().await;
    let worker = service.spawn("echo").await;
    service.run_state(&worker, "idle").await;
    let issued = service.issue(&json!({"role": "auditor"})).await;
    let auditor = service.with_token(issued["token"].as_str().unwrap());
    let observer = with_role(&service, "observer").await;
    let path = format!("/v1/workers/{worker}");
    for _ in 0..20 {
        auditor.get(&path).await.ok();
        observer.get(&path).await.ok();
        service.get(&path).await.ok();
    }
    auditor.get(&format!("{path}/transcript?at=5&limit=3")).await.ok();
    auditor.get("/v1/events?grep=worker_created&since=2").await.ok();
    auditor.get("/v1/workers/missing").await.refused(404, "worker_not_found");
    auditor.get("/no/such/route").await.refused(404, "not_found");
    auditor.get("/v1/cursors").await.ok();
    let expected: BTreeSet<_> =
        [format!("{path}/transcript?at=5"), path.clone(), "/v1/events?since=2".into()].into();
    let records = eventually("all reads are recorded", || async {
        let records = recorded(&service).await;
        let seen: BTreeSet<_> = whats(&records).into_iter().map(|(what, _)| what).collect();
        (seen == expected).then_some(records)
    })
    .await;
    let times: u64 = whats(&records).iter().filter(|(what, _)| *what == path).map(|(_, n)| n).sum();
    assert_eq!(times, 20);
    assert!(records.len() <= 8, "they are recorded together: {}", records.len());
    let actor = format!("token:{}", issued["id"].as_str().unwrap());
    assert!(records.iter().all(|record| record["actor"] == actor), "{records:?}");
    let log = service.acta(&["log", "--watching"]).await;
    assert!(log.ok().contains("read ") && !log.ok().contains("grep="), "{log:?}");
    // Whoever follows the log does not see them unless they are asked for.
    let all = service.events("").await;
    assert!(all.iter().all(|record| record["type"] != "reads_recorded"));
    // What is not recorded yet is recorded at the end.
    auditor.get("/v1/runtime").await.ok();
    service.stop().await;
    service.restart().await;
    assert!(whats(&recorded(&service).await).contains(&("/v1/runtime".into(), 1)));
}

#[tokio::test]
async fn reading_the_record_of_reads_comes_to_rest() {
    let options = Options::default().arg("--audit-reads").arg("--audit-reads-interval-ms=1");
    let service = options.start().await;
    let auditor = with_role(&service, "auditor").await;
    auditor.get("/v1/workers").await.ok();
    eventually("a read is recorded", || async {
        (!recorded(&service).await.is_empty()).then_some(())
    })
    .await;
    // Each of these goes on where it was, as somebody does who polls. In the end nothing comes.
    let lines = async |query: &str| {
        let request = auditor.request(Method::GET, &format!("/v1/events?{query}&follow=0"));
        auditor.send(request.header("accept", "application/x-ndjson")).await.text().lines().count()
    };
    let mut cursor = 0;
    let mut idle = 0;
    for _ in 0..200 {
        let page = auditor.get(&format!("/v1/events?watching=1&after={cursor}")).await.ok();
        let came = page["events"].as_array().unwrap().len();
        auditor.get(&format!("/v1/events?watching=1&order=newest&after={cursor}")).await.ok();
        auditor.get("/v1/events?type=reads_recorded").await.ok();
        lines(&format!("watching=1&after={cursor}")).await;
        cursor = page["head"].as_u64().unwrap();
        idle = if came == 0 { idle + 1 } else { 0 };
        if idle >= 20 {
            break;
        }
    }
    assert!(idle >= 20, "the log still grows");
}

#[tokio::test]
async fn nothing_is_recorded_unless_it_is_asked_for() {
    for value in ["false", "0", "no"] {
        let options =
            Options::default().arg("--audit-reads-interval-ms=1").env("ACTA_AUDIT_READS", value);
        let mut service = options.start().await;
        let auditor = with_role(&service, "auditor").await;
        auditor.get("/v1/workers").await.ok();
        service.stop().await;
        service.restart().await;
        assert_eq!(recorded(&service).await, Vec::<Value>::new(), "{value}");
    }
}
