//! The form of refusals, and what every route refuses alike.

use crate::{
    lookback_auditors::routes,
    support::{Options, Service},
};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::json;
use std::fs;

/// The routes that anybody may ask.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// Routes with something in the place of each parameter.
fn filled(routes: Vec<(Method, String)>) -> impl Iterator<Item = (Method, String)> {
    routes.into_iter().map(|(method, path)| {
        let segments = path.split('/').map(|part| if part.starts_with('{') { "x-1" } else { part });
        (method, segments.collect::<Vec<_>>().join("/"))
    })
}

#[tokio::test]
async fn every_route_needs_a_token() {
    let service = Service::start().await;
    let clients = [
        service.anonymous(),
        service.with_token("wrong"),
        service.with_token(&service.token()[..42]),
        service.with_token(&format!("{}a", service.token())),
    ];
    let theirs: Vec<_> = filled(routes()).filter(|(_, path)| !OPEN.contains(&&**path)).collect();
    assert!(theirs.len() > 50, "{theirs:?}");
    for client in &clients {
        for (method, path) in &theirs {
            let answer = client.send(client.request(method.clone(), path)).await;
            answer.refused(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    let basic = service.anonymous().request(Method::GET, "/v1/runtime");
    let basic = basic.header("authorization", format!("Basic {}", service.token()));
    service.send(basic).await.refused(401, "unauthorized");
}

#[tokio::test]
async fn without_a_token_nothing_is_said_about_whether_a_route_exists() {
    let service = Service::start().await;
    let client = service.anonymous();
    let known = client.get("/v1/runtime").await;
    for (method, path) in [
        (Method::GET, "/v1/no-such-route"),
        (Method::GET, "/"),
        (Method::DELETE, "/v1/runtime"),
        (Method::GET, "/v1/workers/no-such-worker"),
        (Method::GET, "/v1/workers/%20"),
        (Method::GET, "/v1/workers?limit=x"),
    ] {
        let answer = client.send(client.request(method, path)).await;
        answer.refused(401, "unauthorized");
        assert_eq!(answer.body, known.body, "{path}");
    }
}

#[tokio::test]
async fn healthz_and_readyz_need_no_token_and_say_no_more_than_ready() {
    let service = Service::start().await;
    let client = service.anonymous();
    assert_eq!(client.get("/healthz").await.ok(), json!({"status": "ok"}));
    assert_eq!(client.get("/readyz").await.ok(), json!({"status": "ready"}));
}

#[tokio::test]
async fn an_unknown_route_is_404_not_found() {
    let service = Service::start().await;
    for path in ["/", "/v1", "/v2/runtime", "/v1/runtime/", "/v1/workers/w/nothing", "/%00"] {
        service.get(path).await.refused(404, "not_found");
    }
    let message = service.get(&format!("/{}", "long".repeat(100))).await.refused(404, "not_found");
    assert!(message.len() < 200, "the offending value is cut: {message}");
}

#[tokio::test]
async fn a_wrong_method_is_405_method_not_allowed() {
    let service = Service::start().await;
    for (_, path) in filled(routes()) {
        let request = service.request(Method::PATCH, &path);
        service.send(request).await.refused(405, "method_not_allowed");
    }
    service.post_empty("/v1/runtime").await.refused(405, "method_not_allowed");
}

#[tokio::test]
async fn a_wrong_content_type_is_415_unsupported_media_type() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let post = |path: &str, media_type: Option<&str>, body: &str| {
        let request = service.request(Method::POST, path).body(body.to_owned());
        match media_type {
            Some(media_type) => request.header(CONTENT_TYPE, media_type),
            None => request,
        }
    };
    let paths =
        ["/v1/workers".into(), format!("/v1/workers/{worker}/input"), "/v1/config-bundles".into()];
    for path in &paths {
        for media_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
            let answer = service.send(post(path, media_type, "{}")).await;
            answer.refused(415, "unsupported_media_type");
        }
    }
    let input = format!("/v1/workers/{worker}/input");
    for media_type in ["application/json; charset=utf-8", "Application/JSON", "application/a+json"]
    {
        let body = r#"{"kind":"user","content":"x"}"#;
        service.send(post(&input, Some(media_type), body)).await.ok();
    }
    for (path, media_type) in [("cancel", Some("text/plain")), ("stop", None)] {
        let path = format!("/v1/workers/{worker}/{path}");
        service.send(post(&path, media_type, r#"{"reason":"any type"}"#)).await.ok();
    }
}

#[tokio::test]
async fn an_oversized_body_is_413_payload_too_large() {
    let options = Options::default().arg("--body-bytes-max=2000").arg("--content-bytes-max=1000");
    let service = options.start().await;
    let worker = service.spawn("echo").await;
    let path = format!("/v1/workers/{worker}/input");
    let input = |len: usize| json!({"kind": "user", "content": "x".repeat(len)});
    service.post(&path, &input(1000)).await.ok();
    let message = service.post(&path, &input(1001)).await.refused(413, "payload_too_large");
    assert!(message.contains("1001") && message.contains("1000"), "{message}");
    service.post(&path, &input(2000)).await.refused(413, "payload_too_large");
    let chunks = (0..10).map(|_| Ok::<_, std::io::Error>("y".repeat(500)));
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let request = service.request(Method::POST, &path).header(CONTENT_TYPE, "application/json");
    service.send(request.body(chunked)).await.refused(413, "payload_too_large");
    service
        .post_bytes(&format!("/v1/workers/{worker}/stop"), vec![b' '; 2001])
        .await
        .refused(413, "payload_too_large");
    assert_eq!(service.worker(&worker).await["status"], "running");
}

#[tokio::test]
async fn a_body_of_another_shape_is_invalid_json() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let input = format!("/v1/workers/{worker}/input");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [&[u8]; 12] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b"{}",
        br#"{"kind":"assistant","content":"x"}"#,
        br#"{"kind":"user"}"#,
        br#"{"kind":"user","content":7}"#,
        br#"{"kind":"user","content":"x"} trailing"#,
        b"{\"kind\":\"user\",\"content\":\"\xff\"}",
        deep.as_bytes(),
    ];
    for body in bodies {
        for path in [input.as_str(), "/v1/workers", "/v1/config-bundles", "/v1/tokens"] {
            service.post_bytes(path, body).await.refused(400, "invalid_json");
        }
    }
    for body in ["{", "[7]", r#"{"reason":7}"#] {
        let path = format!("/v1/workers/{worker}/stop");
        service.post_bytes(&path, body).await.refused(400, "invalid_json");
    }
    assert_eq!(service.worker(&worker).await["transcript_len"], 0);
    assert_eq!(service.worker(&worker).await["status"], "running");
}

#[tokio::test]
async fn unknown_fields_of_a_request_are_ignored() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let body = json!({"kind": "user", "content": "x", "unknown": {"deep": [1, 2]}});
    service.post(&format!("/v1/workers/{worker}/input"), &body).await.ok();
}

#[tokio::test]
async fn a_query_of_another_shape_is_invalid_query() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let of_worker = |rest: &str| format!("/v1/workers/{worker}{rest}");
    for path in [
        of_worker("/transcript?start=x"),
        of_worker("/transcript?start=-1"),
        of_worker("/transcript?limit=many"),
        of_worker("/transcript?limit=99999999999999999999999"),
        of_worker("?at=yesterday"),
        of_worker("?at=999999"),
        of_worker("/events/ws?after=x"),
        "/v1/workers?limit=x".into(),
        "/v1/workers?at=".into(),
        "/v1/runtime?at=2026-13-01T00:00:00Z".into(),
        "/v1/events?after=x".into(),
        "/v1/events?limit=-1".into(),
        "/v1/events?type=no_such_event".into(),
        "/v1/config-bundles/b/availability".into(),
    ] {
        service.get(&path).await.refused(400, "invalid_query");
    }
}

#[tokio::test]
async fn what_is_no_worker_id_is_invalid_worker_id() {
    let service = Service::start().await;
    let long = "x".repeat(121);
    for id in ["%20", "a%20b", "a%2Fb", "..%2F", "a.b", "%C3%A9", "%00", "%ff", &long] {
        for rest in ["", "/transcript", "/events/ws"] {
            let answer = service.get(&format!("/v1/workers/{id}{rest}")).await;
            answer.refused(400, "invalid_worker_id");
        }
        for (rest, body) in
            [("input", json!({"kind": "user", "content": "x"})), ("stop", json!({}))]
        {
            let answer = service.post(&format!("/v1/workers/{id}/{rest}"), &body).await;
            answer.refused(400, "invalid_worker_id");
        }
    }
}

#[tokio::test]
async fn a_missing_worker_is_404_and_its_message_names_the_id() {
    let service = Service::start().await;
    let longest = "x".repeat(120);
    for id in ["worker-missing", "W_1:a", &longest] {
        let path = |rest: &str| format!("/v1/workers/{id}{rest}");
        let input = json!({"kind": "user", "content": "x"});
        let answers = [
            service.get(&path("")).await,
            service.get(&path("/transcript")).await,
            service.get(&path("/events/ws")).await,
            service.post(&path("/input"), &input).await,
            service.post_empty(&path("/stop")).await,
            service.post_empty(&path("/cancel")).await,
        ];
        for answer in answers {
            assert!(answer.refused(404, "worker_not_found").contains(id));
        }
    }
}

#[tokio::test]
async fn a_missing_or_damaged_content_is_told_and_never_passed_over() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let text = "A content of this size has a file of its own. ".repeat(1000);
    let first = service.input(&worker, &text).await;
    service.input(&worker, "small").await;
    service.run_state(&worker, "idle").await;
    let files: Vec<_> = fs::read_dir(service.data().join("content"))
        .unwrap()
        .flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    let [file] = &files[..] else { panic!("one file: {files:?}") };
    let whole = fs::read(file).unwrap();
    let transcript = format!("/v1/workers/{worker}/transcript");
    assert_eq!(service.get(&transcript).await.ok()["transcript"]["items"][0]["content"], text);

    let mut bad = whole.clone();
    bad[20_000] ^= 1;
    fs::write(file, &bad).unwrap();
    let message = service.get(&transcript).await.refused(500, "store_corrupt");
    assert!(message.contains(&first["event_id"].to_string()), "which record: {message}");
    assert!(!message.contains(service.root().to_str().unwrap()), "no path: {message}");

    fs::remove_file(file).unwrap();
    let message = service.get(&transcript).await.refused(500, "store_missing");
    assert!(message.contains(&first["event_id"].to_string()), "which record: {message}");
    assert!(!message.contains(service.root().to_str().unwrap()), "no path: {message}");
    // What does not need it goes on.
    assert_eq!(service.get(&format!("{transcript}?start=1")).await.ok()["transcript"]["start"], 1);

    fs::write(file, whole).unwrap();
    service.get(&transcript).await.ok();
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_with_a_code() {
    let service = Service::start().await;
    let own = "/v1/runtimes/embedded-worker-runtime/workers";
    let rows = [
        ("GET", "/v1/workers/%ff".to_owned(), "invalid_worker_id"),
        ("POST", "/v1/workers/%ff/input".into(), "invalid_worker_id"),
        ("GET", "/v1/workers/%ff/events/ws".into(), "invalid_worker_id"),
        ("GET", "/v1/runtimes/%ff".into(), "invalid_identifier"),
        ("DELETE", "/v1/runtimes/%ff".into(), "invalid_identifier"),
        ("GET", "/v1/runtimes/%ff/workers".into(), "invalid_identifier"),
        ("POST", "/v1/runtimes/%c3%28/workers".into(), "invalid_identifier"),
        ("GET", "/v1/runtimes/%ff/workers/w-1".into(), "invalid_identifier"),
        ("GET", format!("{own}/%ff"), "invalid_identifier"),
        ("GET", format!("{own}/%ff/transcript"), "invalid_identifier"),
        ("GET", format!("{own}/%ff/connect-points"), "invalid_identifier"),
        ("GET", format!("{own}/%ff/events/ws"), "invalid_identifier"),
        ("POST", format!("{own}/%ff/input"), "invalid_identifier"),
        ("POST", format!("{own}/%ff/stop"), "invalid_identifier"),
        ("POST", format!("{own}/%ff/cancel"), "invalid_identifier"),
        ("GET", "/v1/hosts/%ff".into(), "invalid_identifier"),
        ("GET", "/v1/hosts/%ff/workers".into(), "invalid_identifier"),
        ("POST", "/v1/hosts/%ff/heartbeat".into(), "invalid_identifier"),
    ];
    for (method, path, code) in &rows {
        let request = service.request(method.parse().unwrap(), path).json(&json!({}));
        service.send(request).await.refused(400, code);
    }
    for (method, path) in [
        ("GET", "/v1/cursors/%ff"),
        ("DELETE", "/v1/tokens/%ff"),
        ("GET", "/v1/config-bundles/%ff/availability?digest=x"),
        ("GET", "/workspaces/%ff/activity"),
        ("POST", "/workspaces/%ff/a2a"),
        ("POST", "/workspaces/%ff/deliveries/act-1/retry"),
        ("POST", "/workspaces/w-1/deliveries/%ff/retry"),
        ("GET", "/tile/%ff"),
        ("GET", "/%ff"),
    ] {
        let request = service.request(method.parse().unwrap(), path).json(&json!({}));
        let answer = service.send(request).await;
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
        let code = answer.json()["error"]["code"].as_str().unwrap().to_owned();
        answer.refused(answer.status, &code);
    }
}

#[tokio::test]
async fn an_array_does_not_pass_for_the_fields_of_an_object() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let own = "/v1/runtimes/embedded-worker-runtime/workers";
    let created = service.post("/workspaces", &json!({"runtime": "external"})).await.json();
    let external = created["id"].as_str().unwrap().to_owned();
    let default = json!({"kind": "runtime_default"});
    let run = json!({"kind": "run_accepted", "expected_segments": 0});
    let capabilities = json!(["linux", "x86_64", true, true, true, true, 1]);
    let reference = [("workspace_refs", json!([["a", "b"]])), ("config_bundle", json!(["a", "b"]))];
    let mut rows = vec![
        (format!("/v1/workers/{worker}/input"), json!(["user", "hello"])),
        (format!("/v1/workers/{worker}/stop"), json!(["done", "graceful"])),
        (format!("/v1/workers/{worker}/cancel"), json!(["done", "graceful"])),
        (format!("{own}/{worker}/input"), json!(["user", "hello"])),
        (format!("{own}/{worker}/stop"), json!(["done", "graceful"])),
        (own.into(), json!([{"kind": "workspace_companion"}, null, run])),
        (own.into(), json!({"intent": ["workspace_companion"], "acceptance": run})),
        (
            own.into(),
            json!({"intent": {"kind": "workspace_companion"}, "acceptance": ["run_accepted", 0]}),
        ),
        ("/v1/workers".into(), json!([{"kind": "assistant"}, default])),
        ("/v1/workers".into(), json!({"intent": ["assistant", null], "profile": default})),
        (
            "/v1/workers".into(),
            json!({"intent": {"kind": "assistant"}, "profile": ["builtin", "builtin:coder"]}),
        ),
        ("/v1/runtimes".into(), json!(["r", "remote_http", null, "http://127.0.0.1:9", null])),
        ("/v1/hosts".into(), json!(["h", null, null, null, {}])),
        ("/v1/hosts".into(), json!({"host_id": "h", "capabilities": capabilities})),
        ("/v1/tokens".into(), json!(["observer", null, null, null])),
        ("/v1/tokens".into(), json!({"role": "worker", "worker": ["external", external]})),
        ("/v1/redactions".into(), json!([1, "why"])),
        ("/v1/config-bundles".into(), json!([crate::contract_bundles::bundle()])),
        ("/v1/config-bundles".into(), json!({"bundle": [{}, [], []]})),
        ("/workspaces".into(), json!(["name", "external", false, null])),
        ("/registry/register".into(), json!([external, null, "poll", null])),
        ("/registry/heartbeat".into(), json!([external, "ok", 0.0, null])),
        (format!("/workspaces/{external}/notify"), json!(["hello", null, null])),
        (format!("/workspaces/{external}/activity"), json!(["x"])),
        (format!("/workspaces/{external}/a2a"), json!([{"text": "x"}])),
    ];
    for (name, value) in reference {
        let mut body = json!({"intent": {"kind": "assistant"}, "profile": default});
        body[name] = value;
        rows.push(("/v1/workers".into(), body));
    }
    let head = service.head().await;
    for (path, body) in &rows {
        let said = service.post(path, body).await.refused(400, "invalid_json");
        assert!(said.contains("object"), "{path}: {said}");
    }
    service.put("/v1/cursors/c", &json!(["x"])).await.refused(400, "invalid_json");
    let created = service.events(&format!("after={head}")).await;
    let made = |kind: &str| created.iter().any(|event| event["type"] == kind);
    for kind in ["worker_created", "worker_input_accepted", "token_issued", "worker_stopped"] {
        assert!(!made(kind), "{created:?}");
    }
}
