//! Hostile clients: each gets the answer of the contract, or none; everybody else gets theirs
//! as ever, and the memory of the service stays bounded.

use super::{
    support::{Service, eventually},
    survive_raw::{address, connect, head, is_well, raw, said, statuses},
};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::json;
use std::time::Duration;
use tokio::{io::AsyncWriteExt as _, task::JoinSet};

/// In place of a status: the connection is closed without an answer.
const CLOSED: &str = "closed";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_not_what_they_should_be() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let (input, create) = (format!("/v1/workers/{worker}/input"), "/v1/workers".to_owned());
    let deep = |open: &str, close: &str| {
        format!("{}{}", open.repeat(100_000), close.repeat(100_000)).into_bytes()
    };
    let nested = format!(
        r#"{{"kind":"user","content":"x","more":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        (&input, b"".to_vec(), "invalid_json"),
        (&input, b"   ".to_vec(), "invalid_json"),
        (&input, b"{".to_vec(), "invalid_json"),
        (&input, b"null".to_vec(), "invalid_json"),
        (&input, b"[]".to_vec(), "invalid_json"),
        (&input, b"{\"kind\":\"user\",\"content\":\"\xff\xfe\"}".to_vec(), "invalid_json"),
        (&input, b"{\"kind\":\"user\",\"content\":\"\xed\xa0\x80\"}".to_vec(), "invalid_json"),
        (&input, br#"{"kind":"user","content":"\ud800"}"#.to_vec(), "invalid_json"),
        (&input, b"\xff\xfe{\x00}\x00".to_vec(), "invalid_json"),
        (&input, br#"{"kind":"user","content":7}"#.to_vec(), "invalid_json"),
        (&input, br#"{"kind":"user","content":null}"#.to_vec(), "invalid_json"),
        (&input, br#"{"kind":1e999,"content":"x"}"#.to_vec(), "invalid_json"),
        (&input, br#"{"kind":-1,"content":"x"}"#.to_vec(), "invalid_json"),
        (&input, br#"{"kind":"nobody","content":"x"}"#.to_vec(), "invalid_json"),
        (&input, br#"{"kind":"user","kind":"system","content":"x"}"#.to_vec(), "invalid_json"),
        (&input, br#"{"kind":"user","content":"x"} trailing"#.to_vec(), "invalid_json"),
        (&input, br#"{"kind":"user","content":" \n\t "}"#.to_vec(), "invalid_request"),
        (&input, deep("[", "]"), "invalid_json"),
        (&input, deep("{\"a\":", "}"), "invalid_json"),
        (&create, deep("[", "]"), "invalid_json"),
        (&create, deep("{\"intent\":", "}"), "invalid_json"),
        (&create, br#"{"intent":7,"profile":[]}"#.to_vec(), "invalid_json"),
        (&create, br#"{"intent":{"kind":"assistant"}}"#.to_vec(), "invalid_json"),
        (&create, br#"{"profile":{"kind":"runtime_default"}}"#.to_vec(), "invalid_json"),
        ("/v1/config-bundles", deep("{\"bundle\":", "}"), "invalid_json"),
        ("/v1/config-bundles", br#"{"bundle":{"metadata":-1}}"#.to_vec(), "invalid_json"),
        ("/v1/tokens", br#"{"role":"root"}"#.to_vec(), "invalid_json"),
    ];
    for (path, body, code) in rows {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let message = service.post_bytes(path, body).await.refused(400, code);
        assert!(message.chars().count() < 400, "{shown}: {message}");
    }
    let put = service.request(Method::PUT, "/v1/cursors/mine").json(&json!({"cursor": -1}));
    service.send(put).await.refused(400, "invalid_json");
    let stop = format!("/v1/workers/{worker}/stop");
    service.post_bytes(&stop, deep("[", "]")).await.refused(400, "invalid_json");
    service.post_bytes(&stop, b"{\"reason\":-1e999}".to_vec()).await.refused(400, "invalid_json");
    assert_eq!(service.worker(&worker).await["transcript_len"], 0, "nothing happened");

    // Unknown fields are ignored, however strange.
    let odd =
        br#"{"kind":"user","content":"x","n":-99999999999999999999999,"m":1e308,"u":{"v":[]}}"#;
    assert_eq!(service.post_bytes(&input, odd.to_vec()).await.status, 200);
    assert_eq!(service.post_bytes(&input, nested.into_bytes()).await.status, 200);
    // So is what an input holds: it is only text.
    let text = "\u{0}\u{1}\u{7f}\u{feff}\u{202e}\u{10ffff}'\";--{{}}%s\r\n";
    service.input(&worker, text).await;
    let items = service.transcript(&worker).await["items"].clone();
    assert_eq!(items.as_array().unwrap().iter().filter(|item| item["content"] == text).count(), 1);
    let request = service.request(Method::POST, &input).header(CONTENT_TYPE, "text/plain");
    service.send(request.body("{}")).await.refused(415, "unsupported_media_type");
    is_well(&service, &worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_paths_and_headers_that_mean_harm() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let long = "a".repeat(10_000);
    let transcript = format!("/v1/workers/{worker}/transcript");
    let rows = [
        (format!("{transcript}?start=-1"), 400, "invalid_query"),
        (format!("{transcript}?limit=-1"), 400, "invalid_query"),
        (format!("{transcript}?limit=1e3"), 400, "invalid_query"),
        (format!("{transcript}?limit=99999999999999999999999"), 400, "invalid_query"),
        (format!("{transcript}?limit=257"), 400, "limit_too_large"),
        (format!("{transcript}?limit=18446744073709551615"), 400, "limit_too_large"),
        (format!("{transcript}?at=-1"), 400, "invalid_query"),
        (format!("{transcript}?at=18446744073709551615"), 400, "invalid_query"),
        (format!("{transcript}?at={long}"), 400, "invalid_query"),
        (format!("{transcript}?start=1&start=2"), 400, "invalid_query"),
        ("/v1/events?after=-1".into(), 400, "invalid_query"),
        ("/v1/events?after=18446744073709551615".into(), 409, "cursor_ahead"),
        ("/v1/events?cursor=%00".into(), 400, "cursor_malformed"),
        (format!("/v1/events?cursor={long}"), 400, "cursor_malformed"),
        ("/v1/events?type=%ff".into(), 400, "invalid_query"),
        ("/v1/workers/%20".into(), 400, "invalid_worker_id"),
        ("/v1/workers/..%2f..%2f..%2fetc%2fpasswd".into(), 400, "invalid_worker_id"),
        ("/v1/workers/%2e%2e%2f%2e%2e".into(), 400, "invalid_worker_id"),
        ("/v1/workers/%00".into(), 400, "invalid_worker_id"),
        ("/v1/workers/a%0d%0aSet-Cookie:%20a=b".into(), 400, "invalid_worker_id"),
        (format!("/v1/workers/{long}"), 400, "invalid_worker_id"),
        ("/v1/workers/no-such".into(), 404, "worker_not_found"),
        ("/v1/cursors/..%2f..%2fHEAD".into(), 400, "invalid_identifier"),
        ("/v1/runtimes/..%2f".into(), 400, "invalid_identifier"),
        ("/v1//workers".into(), 404, "not_found"),
        ("/etc/passwd".into(), 404, "not_found"),
        (format!("/{long}"), 404, "not_found"),
    ];
    for (path, status, code) in rows {
        let message = service.get(&path).await.refused(status, code);
        assert!(message.chars().count() < 1_200, "{path}: {message}");
        assert!(!message.contains("/tmp"), "a path of the server: {message}");
    }
    // A cursor far beyond everything must not make arithmetic wrap.
    let page = service.get("/v1/events?after=1&limit=0").await;
    assert_eq!(page.ok()["events"], json!([]));

    let list = |more: &str| head(&service, "GET /v1/workers HTTP/1.1", more);
    let raw_rows: Vec<(String, &[&str])> = vec![
        // Names of paths are not resolved, in whatever form they come.
        (
            head(&service, "GET /v1/workers/../../etc/passwd HTTP/1.1", "Connection: close\r\n"),
            &["404"],
        ),
        (
            head(&service, "GET /v1/workers/x/../../../etc HTTP/1.1", "Connection: close\r\n"),
            &["404"],
        ),
        // Methods that nobody has.
        (head(&service, "BREW /v1/workers HTTP/1.1", "Connection: close\r\n"), &["405"]),
        (head(&service, "TRACE /v1/workers HTTP/1.1", "Connection: close\r\n"), &["405"]),
        (head(&service, "DELETE /v1/workers HTTP/1.1", "Connection: close\r\n"), &["405"]),
        (head(&service, "get /v1/workers HTTP/1.1", "Connection: close\r\n"), &["405"]),
        (
            head(&service, "CONNECT 127.0.0.1:1 HTTP/1.1", "Connection: close\r\n"),
            &["404", "400", "403"],
        ),
        // Versions that are older or newer.
        (head(&service, "GET /v1/workers HTTP/1.0", ""), &["200"]),
        ("GET /healthz HTTP/1.0\r\n\r\n".into(), &["200"]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &[CLOSED]),
        ("GET / HTTP/9.9\r\n\r\n".into(), &["400", "505"]),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}hello, TLS".into(), &["400"]),
        ("GET /v1/workers\r\n\r\n".into(), &["400"]),
        // Heads that do not end, or have too much in them.
        (list(&format!("X: {}\r\n", "x".repeat(1 << 20))), &["431", "400"]),
        (list(&"X: y\r\n".repeat(2_000)), &["431", "400"]),
        (
            head(&service, &format!("GET /{} HTTP/1.1", "x".repeat(70_000)), ""),
            &["414", "404", "431"],
        ),
        // A body of two lengths: whatever is done, it is one request.
        (
            head(
                &service,
                "POST /v1/workers HTTP/1.1",
                "Content-Type: application/json\r\nContent-Length: 5\r\nContent-Length: 6\r\nConnection: close\r\n",
            ) + "{}{}{}",
            &["400"],
        ),
        (
            head(
                &service,
                "POST /v1/workers HTTP/1.1",
                "Content-Type: application/json\r\nContent-Length: -5\r\nConnection: close\r\n",
            ) + "{}",
            &["400"],
        ),
        (
            head(
                &service,
                "POST /v1/workers HTTP/1.1",
                "Content-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n",
            ) + "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
            &["400"],
        ),
        (
            head(
                &service,
                "POST /v1/workers HTTP/1.1",
                "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n",
            ) + "zz\r\n{}\r\n",
            &["400"],
        ),
        // Nobody in particular.
        (
            head(
                &service,
                "GET /v1/workers HTTP/1.1",
                "Authorization: Bearer x\r\nConnection: close\r\n",
            ),
            &["200", "401"],
        ),
        (
            format!(
                "GET /v1/workers HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer \u{fc}\r\nConnection: close\r\n\r\n",
                address(&service)
            ),
            &["401"],
        ),
        (
            "GET /v1/workers HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".into(),
            &["403"],
        ),
        // What would end one header and begin another is no key.
        (
            head(
                &service,
                &format!("POST /v1/workers/{worker}/stop HTTP/1.1"),
                "Idempotency-Key: a\tb\r\nContent-Length: 0\r\nConnection: close\r\n",
            ),
            &["400"],
        ),
        (
            head(
                &service,
                &format!("POST /v1/workers/{worker}/stop HTTP/1.1"),
                &format!(
                    "Idempotency-Key: {}\r\nContent-Length: 0\r\nConnection: close\r\n",
                    "k".repeat(256)
                ),
            ),
            &["400"],
        ),
        (
            head(
                &service,
                &format!("POST /v1/workers/{worker}/stop HTTP/1.1"),
                "If-Match: -1\r\nContent-Length: 0\r\nConnection: close\r\n",
            ),
            &["400"],
        ),
    ];
    for (bytes, expected) in raw_rows {
        let answer = raw(&service, bytes.as_bytes()).await;
        let (found, shown) = (statuses(&answer), &bytes[..bytes.len().min(120)]);
        assert!(found.len() <= 1, "{shown:?}: {answer}");
        let found = found.first().copied().unwrap_or(CLOSED);
        assert!(expected.contains(&found), "{shown:?}: {answer}");
        assert!(!answer.contains("root:"), "{answer}");
    }
    assert_eq!(service.worker(&worker).await["status"], "running");

    // Many requests at once in one connection are answered in their order.
    let mut many = String::new();
    for n in 0..100 {
        many += &head(&service, &format!("GET /v1/workers/none-{n} HTTP/1.1"), "");
    }
    let answers = raw(&service, many.as_bytes()).await;
    assert_eq!(statuses(&answers), vec!["404"; 100]);
    let mut rest = answers.as_str();
    for n in 0..100 {
        let name = format!("`none-{n}`");
        let at = rest.find(&name).unwrap_or_else(|| panic!("{name} is missing or out of order"));
        rest = &rest[at..];
    }
    is_well(&service, &worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_too_large_or_lie_about_it() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let path = format!("/v1/workers/{worker}/input");
    let body = |len: usize| format!(r#"{{"kind":"user","content":"{}"}}"#, "x".repeat(len));
    service.post_bytes(&path, body(17 << 20)).await.refused(413, "payload_too_large");
    service.post_bytes(&path, body((16 << 20) + 1)).await.refused(413, "payload_too_large");
    assert_eq!(service.post_bytes(&path, body(16 << 20)).await.status, 200);

    let line = format!("POST {path} HTTP/1.1");
    let json = "Content-Type: application/json\r\n";
    // Announced: refused before it is sent.
    let huge = head(&service, &line, &format!("{json}Content-Length: 99999999999\r\n"));
    let answer = raw(&service, huge.as_bytes()).await;
    assert_eq!(statuses(&answer), ["413"], "{answer}");
    assert!(answer.contains("payload_too_large"), "{answer}");
    let beyond = head(&service, &line, &format!("{json}Content-Length: 99999999999999999999\r\n"));
    assert_eq!(statuses(&raw(&service, beyond.as_bytes()).await), ["400"]);
    // Not announced: refused once it is too much, with nothing kept of it.
    let mut stream = connect(&service).await;
    let chunked = head(&service, &line, &format!("{json}Transfer-Encoding: chunked\r\n"));
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let mut sent = 0;
    while sent < 160 && stream.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 160, "it reads on and on");
    // Announced, but the rest never comes: nothing is recorded.
    for _ in 0..20 {
        let lie = head(&service, &line, &format!("{json}Content-Length: 500\r\n")) + &body(10);
        let mut stream = connect(&service).await;
        stream.write_all(lie.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(said(&mut stream, Duration::from_secs(2)).await);
    }
    eventually("the echo of the large input ends", || async {
        let state = service.worker(&worker).await;
        (state["execution"]["run_state"] != "busy").then_some(())
    })
    .await;
    let inputs = service.events(&format!("worker={worker}&type=worker_input_accepted")).await;
    assert_eq!(inputs.len(), 1);
    // Twelve at once must not be twelve times as much for long.
    let mut at_once = JoinSet::new();
    for _ in 0..12 {
        let (client, path, body) =
            (service.with_token(&service.token()), path.clone(), body(17 << 20));
        at_once.spawn(async move { client.post_bytes(&path, body).await.status });
    }
    while let Some(status) = at_once.join_next().await {
        assert_eq!(status.unwrap(), 413);
    }
    is_well(&service, &worker).await;
}
