//! Who may do what, over HTTP.

use crate::{
    observe_worker::path,
    support::{Client, Incoming, Options, Service, Socket, keys, soon},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

#[tokio::test]
async fn the_operator_finds_its_token_in_a_file_that_only_its_owner_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut service = Service::start().await;
    let token = service.token();
    assert_eq!(token.len(), 43, "32 bytes as base64url");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&service.data().join("operator.token")), 0o600);
    assert_eq!(mode(&service.data()), 0o700);
    service.stop().await;
    service.restart().await;
    assert_eq!(service.token(), token);
    service.get("/v1/runtime").await.ok();
}

#[tokio::test]
async fn an_empty_token_is_refused() {
    let mut service = Service::start().await;
    service.with_token("").get("/v1/runtime").await.refused(401, "unauthorized");
    service.stop().await;
    fs::write(service.data().join("operator.token"), "").unwrap();
    let (status, said) = service.restart_refused().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("acta token reset"), "{said}");
}

#[tokio::test]
async fn the_listening_line_tells_log_epoch_and_head() {
    let mut service = Service::start().await;
    let first = service.listening.clone();
    assert_eq!(keys(&first), ["epoch", "head", "listening", "log_id"]);
    assert_eq!((&first["epoch"], &first["head"]), (&json!(1), &json!(service.head().await)));
    service.spawn("refuses").await;
    service.kill9().await;
    service.restart().await;
    let second = &service.listening;
    assert_eq!((&second["log_id"], &second["epoch"]), (&first["log_id"], &first["epoch"]));
    assert!(second["head"].as_u64() > first["head"].as_u64());
}

#[tokio::test]
async fn configured_tokens_have_any_form_and_are_the_operators() {
    let options = Options::default()
        .arg("--token")
        .arg("short")
        .arg("--token=a tökén, of any form!")
        .arg("--token-env=ACTA_TEST_SECRET")
        .env("ACTA_TEST_SECRET", "from the environment");
    let service = options.start().await;
    for token in ["short", "a tökén, of any form!", "from the environment", &service.token()] {
        let client = service.with_token(token);
        client.get("/v1/runtime").await.ok();
        client.spawn("echo").await;
    }
    service.with_token("shor").get("/v1/runtime").await.refused(401, "unauthorized");
    let log = service.log();
    assert!(!log.contains("of any form") && !log.contains("from the env"), "{log}");
}

#[tokio::test]
async fn without_auth_anybody_is_an_operator() {
    let service = Options::default().arg("--no-auth").start().await;
    let client = service.anonymous();
    client.get("/v1/runtime").await.ok();
    let worker = client.spawn("echo").await;
    let created = client.events(&format!("worker={worker}&type=worker_created")).await;
    assert_eq!(created[0]["actor"], "anonymous");
    client.get("/no-such-route").await.refused(404, "not_found");
}

/// Everybody, by role.
async fn everybody(service: &Service, worker: &str) -> Vec<(&'static str, Client)> {
    let address = json!({"runtime_id": "embedded-worker-runtime", "worker_id": worker});
    let mut everybody = Vec::new();
    for role in ["operator", "auditor", "observer", "host", "worker"] {
        let mut request = json!({"role": role, "label": format!("the {role}")});
        if role == "worker" {
            request["worker"] = address.clone();
        }
        let token = service.issue(&request).await["token"].as_str().unwrap().to_owned();
        everybody.push((role, service.with_token(&token)));
    }
    everybody
}

#[tokio::test]
async fn each_role_may_do_what_the_table_says() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let of_worker = |rest: &str| format!("/v1/workers/{worker}{rest}");
    let cursor = service.get("/v1/events?limit=1").await.ok()["cursor"].clone();
    let create = json!({"intent": {"kind": "assistant"}, "profile": {"kind": "runtime_default"}});
    let input = json!({"kind": "user", "content": "x"});
    let spare = service.issue(&json!({"role": "observer"})).await;
    let revoke = format!("/v1/tokens/{}", spare["id"].as_str().unwrap());
    let (get, post) = (Method::GET, Method::POST);
    let readers: &[&str] = &["operator", "auditor", "observer"];
    let all_readers: &[&str] = &["operator", "auditor"];
    let operator: &[&str] = &["operator"];
    let none = Value::Null;
    let table: Vec<(Method, String, Value, &[&str])> = vec![
        (get.clone(), "/v1/runtime".into(), none.clone(), readers),
        (get.clone(), "/v1/runtimes".into(), none.clone(), readers),
        (get.clone(), "/v1/hosts".into(), none.clone(), readers),
        (get.clone(), "/v1/workers".into(), none.clone(), readers),
        (get.clone(), of_worker(""), none.clone(), readers),
        (get.clone(), of_worker("/transcript"), none.clone(), readers),
        (get.clone(), "/v1/config-bundles".into(), none.clone(), readers),
        (get.clone(), format!("/v1/events?worker={worker}"), none.clone(), readers),
        (get.clone(), "/v1/events".into(), none.clone(), all_readers),
        (get.clone(), "/v1/tokens".into(), none.clone(), all_readers),
        (get.clone(), "/v1/redactions".into(), none.clone(), all_readers),
        (get.clone(), "/v1/dispatch".into(), none.clone(), all_readers),
        (post.clone(), "/v1/dispatch/resume".into(), none.clone(), operator),
        (Method::PUT, "/v1/cursors/c".into(), json!({"cursor": cursor}), readers),
        (get.clone(), "/v1/cursors/c".into(), none.clone(), readers),
        (get.clone(), "/v1/cursors".into(), none.clone(), readers),
        (post.clone(), "/v1/workers".into(), create, operator),
        (post.clone(), of_worker("/input"), input, operator),
        (post.clone(), of_worker("/stop"), json!({}), operator),
        (post.clone(), of_worker("/cancel"), json!({}), operator),
        (post.clone(), "/v1/tokens".into(), json!({"role": "observer"}), operator),
        (Method::DELETE, revoke, none.clone(), operator),
        (post, "/v1/runtime/stop".into(), none.clone(), operator),
    ];
    let everybody = everybody(&service, &worker).await;
    for (method, path, body, allowed) in &table {
        for (role, client) in everybody.iter().rev() {
            let mut request = client.request(method.clone(), path);
            if !body.is_null() {
                request = request.json(body);
            }
            let answer = client.send(request).await;
            if allowed.contains(role) {
                answer.ok();
            } else {
                assert!(answer.refused(403, "forbidden").contains(role), "{role} {path}");
            }
        }
    }
    for (role, client) in &everybody {
        for (path, allowed) in [(path(&worker), readers), ("/v1/events/ws".to_owned(), all_readers)]
        {
            if allowed.contains(role) {
                client.watch(&path).await;
            } else {
                let (status, body) = client.watch_refused(&path).await;
                assert_eq!((status, &body["error"]["code"]), (403, &json!("forbidden")), "{role}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_forbidden_is_not_looked_into() {
    let service = Service::start().await;
    let token = service.issue(&json!({"role": "observer"})).await["token"].clone();
    let observer = service.with_token(token.as_str().unwrap());
    observer.post_bytes("/v1/workers", "{").await.refused(403, "forbidden");
    observer.post_empty("/v1/workers/missing/stop").await.refused(403, "forbidden");
    observer.get("/v1/workers/missing").await.refused(404, "worker_not_found");
}

#[tokio::test]
async fn a_token_is_shown_once_and_listed_without_itself() {
    let service = Service::start().await;
    let issued = service.issue(&json!({"role": "auditor", "label": "the yearly audit"})).await;
    assert_eq!(
        keys(&issued),
        ["event_id", "host", "id", "issued_at", "label", "role", "token", "worker"]
    );
    let token = issued["token"].as_str().unwrap();
    assert_eq!(token.len(), 43);
    assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    let list = service.get("/v1/tokens").await.ok();
    assert_eq!(keys(&list), ["tokens"]);
    let listed = &list["tokens"][0];
    assert_eq!(keys(listed), ["host", "id", "issued_at", "label", "revoked_at", "role", "worker"]);
    for name in ["id", "role", "label", "issued_at"] {
        assert_eq!(listed[name], issued[name], "{name}");
    }
    let again = service.request(Method::POST, "/v1/tokens").header("idempotency-key", "k");
    let again = service.send(again.json(&json!({"role": "auditor"}))).await;
    again.refused(400, "invalid_request");
    for bad in [
        json!({"role": "worker"}),
        json!({"role": "observer", "label": "x".repeat(121)}),
        json!({"role": "observer", "label": "a\nb"}),
    ] {
        service.post("/v1/tokens", &bad).await.refused(400, "invalid_request");
    }
    service.post("/v1/tokens", &json!({"role": "king"})).await.refused(400, "invalid_json");
    let missing = json!({"runtime_id": "embedded-worker-runtime", "worker_id": "missing"});
    let missing = service.post("/v1/tokens", &json!({"role": "worker", "worker": missing})).await;
    missing.refused(404, "unknown_worker");
}

#[tokio::test]
async fn a_revoked_token_is_good_for_nothing_from_then_on() {
    let mut service = Service::start().await;
    let issued = service.issue(&json!({"role": "operator"})).await;
    let token = issued["token"].as_str().unwrap();
    let revoke = format!("/v1/tokens/{}", issued["id"].as_str().unwrap());
    service.with_token(token).get("/v1/workers").await.ok();
    let revoked = service.delete(&revoke).await.ok();
    assert!(revoked["token"]["revoked_at"].is_string());
    let again = service.delete(&revoke).await.ok();
    assert_eq!(again, revoked);
    assert_eq!(service.events("type=token_revoked").await.len(), 1);
    service.with_token(token).get("/v1/workers").await.refused(401, "unauthorized");
    service.kill9().await;
    service.restart().await;
    service.with_token(token).get("/v1/workers").await.refused(401, "unauthorized");
    service.delete("/v1/tokens/t-missing").await.refused(404, "unknown_token");
    service.delete("/v1/tokens/%20").await.refused(400, "invalid_identifier");
}

#[tokio::test]
async fn the_open_streams_of_a_revoked_token_close_within_a_second() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.run_state(&worker, "idle").await;
    let issued = service.issue(&json!({"role": "auditor"})).await;
    let other = service.issue(&json!({"role": "auditor"})).await;
    let client = |issued: &Value| service.with_token(issued["token"].as_str().unwrap());
    let mut of_worker = client(&issued).watch(&path(&worker)).await;
    of_worker.frame().await;
    let mut of_log = client(&issued).watch("/v1/events/ws?progress=1").await;
    of_log.until(|frame| frame["kind"] == "caught_up").await;
    let mut others = client(&other).watch(&path(&worker)).await;
    others.frame().await;
    let lines = client(&issued).request(Method::GET, "/v1/events?after=0");
    let lines = lines.header("accept", "application/x-ndjson").send().await.unwrap();

    let begun = Instant::now();
    service.delete(&format!("/v1/tokens/{}", issued["id"].as_str().unwrap())).await.ok();
    assert_eq!(of_worker.refusal().await, ("runtime.unavailable".to_owned(), 4401));
    let refused = loop {
        match of_log.next().await {
            Incoming::Close(code, _) => break code,
            Incoming::Frame(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused, 4401);
    soon("the end of the lines", lines.bytes()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    service.input(&worker, "the others go on").await;
    assert_eq!(others.frame().await["kind"], "event");
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_token_is_in_no_later_answer_and_nowhere_in_the_data_directory() {
    let mut service = Options::default().arg("--token=configured-canary").start().await;
    let issued = service.issue(&json!({"role": "operator", "label": "canary"})).await;
    let token = issued["token"].as_str().unwrap().to_owned();
    let holder = service.with_token(&token);
    let worker = holder.spawn("echo").await;
    holder.input(&worker, "hello").await;
    holder.rests(&worker, 2).await;
    let operator = service.token();
    let secrets = [token.as_str(), "configured-canary", operator.as_str()];
    let contains = |haystack: &[u8], needle: &str| {
        haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
    };
    for path in [
        "/v1/tokens",
        "/v1/events",
        "/v1/runtime",
        "/v1/runtimes",
        "/v1/hosts",
        "/v1/workers",
        "/v1/cursors",
        "/healthz",
        "/readyz",
    ] {
        let answer = holder.get(path).await;
        for secret in secrets {
            assert!(!contains(&answer.body, secret), "{path}: {}", answer.text());
        }
    }
    service.delete(&format!("/v1/tokens/{}", issued["id"].as_str().unwrap())).await.ok();
    service.stop().await;
    let files = files(service.root());
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        for secret in secrets {
            let own = file.ends_with("operator.token") && secret == operator;
            assert_eq!(contains(&bytes, secret), own, "{}", file.display());
        }
    }
}

#[tokio::test]
async fn only_our_own_hosts_and_origins_are_answered() {
    let service = Options::default().arg("--allowed-host=acta.example.org").start().await;
    let port = service.base.rsplit(':').next().unwrap().to_owned();
    let own = format!("127.0.0.1:{port}");
    let get = |host: &str, origin: Option<&str>| {
        let mut request = service.request(Method::GET, "/v1/runtime").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        service.send(request)
    };
    let fine = [
        (own.clone(), None),
        (format!("localhost:{port}"), None),
        ("acta.example.org".into(), None),
        (own.clone(), Some(format!("http://{own}"))),
        (own.clone(), Some("https://acta.example.org".into())),
        ("acta.example.org".into(), Some("https://acta.example.org".into())),
    ];
    for (host, origin) in &fine {
        get(host, origin.as_deref()).await.ok();
    }
    let bad = [
        ("evil.example.com".into(), None),
        (format!("evil.example.com:{port}"), None),
        ("127.0.0.1.evil.example.com".into(), None),
        (own.clone(), Some("http://evil.example.com")),
        (own.clone(), Some("http://127.0.0.1:1")),
        (own.clone(), Some("null")),
        ("acta.example.org".into(), Some("https://evil.example.com")),
    ];
    for (host, origin) in &bad {
        get(host, *origin).await.refused(403, "forbidden");
    }
    let health = service.request(Method::GET, "/healthz").header("host", "evil.example.com");
    service.send(health).await.refused(403, "forbidden");
    let worker = service.spawn("echo").await;
    for (origin, expected) in
        [("http://evil.example.com", Some(403)), (&format!("http://{own}"), None)]
    {
        let opened = Socket::connect(&service, &path(&worker), &[("origin", origin)]).await;
        assert_eq!(opened.err().map(|(status, _)| status), expected, "{origin}");
    }
}

#[tokio::test]
async fn what_people_say_is_not_in_the_services_own_log() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "a-content-canary").await;
    service.rests(&worker, 2).await;
    let body = json!({"kind": "user", "content": "another-canary".repeat(10)});
    service.post("/v1/workers/missing/input", &body).await.refused(404, "worker_not_found");
    let log = service.log();
    assert!(!log.is_empty() && !log.contains("canary"), "{log}");
}
