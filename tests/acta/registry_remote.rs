//! Runtimes of other services, under an alias.

use super::support::{Incoming, Options, Service, eventually};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const ALIAS: &str = "/v1/runtimes/elsewhere";

/// Two services, the second known to the first, which reaches it at `url`.
async fn joined(there: &Service, url: &str) -> Service {
    let here = Options::default().env("ELSEWHERE_TOKEN", &there.token()).start().await;
    let registered = here.post("/v1/runtimes", &request("elsewhere", url)).await.ok();
    assert_eq!(registered["runtime"]["status"], "running", "{registered}");
    here
}

fn request(id: &str, url: &str) -> Value {
    json!({
        "runtime_id": id, "kind": "remote_http", "label": "Elsewhere", "url": url,
        "token_env": "ELSEWHERE_TOKEN",
    })
}

fn spawn() -> Value {
    json!({
        "intent": {"kind": "ticket_role", "ticket_id": "T-1", "role": "coder"},
        "acceptance": {"kind": "run_accepted", "expected_segments": 0},
    })
}

async fn spawned(here: &Service) -> String {
    let spawned = here.post(&format!("{ALIAS}/workers"), &spawn()).await.ok();
    assert_eq!(spawned["state"], "accepted", "{spawned}");
    spawned["worker"]["worker_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn everything_reaches_the_other_service_under_the_alias() {
    let there = Service::start().await;
    let here = joined(&there, &there.base).await;
    let worker = spawned(&here).await;
    assert_eq!(there.worker(&worker).await["profile"]["value"], "builtin:coder");
    let at = |what: &str| format!("{ALIAS}/workers/{worker}{what}");
    there.run_state(&worker, "idle").await;
    let shown = here.get(&at("")).await.ok()["worker"].clone();
    assert_eq!(
        (&shown["runtime_id"], &shown["role"], &shown["implementation"]["kind"]),
        (&json!("elsewhere"), &json!("coder"), &json!("remote_http")),
    );
    let listed = here.get(&format!("{ALIAS}/workers")).await.ok();
    assert_eq!(listed["items"], json!([shown]));
    let host = shown["host_id"].as_str().unwrap();
    let of_host = here.get(&format!("/v1/hosts/{host}/workers")).await.ok();
    assert_eq!(of_host, listed);

    let input = here.post(&at("/input"), &json!({"content": "hello"})).await.ok();
    assert_eq!((&input["state"], &input["runtime_id"]), (&json!("accepted"), &json!("elsewhere")));
    assert_eq!(input["transcript_sequence"], 1);
    let said = eventually("an answer", || async {
        let said = here.get(&at("/transcript?limit=10")).await.ok();
        (said["total_items"] == 2).then_some(said)
    })
    .await;
    assert_eq!(said["runtime_id"], "elsewhere");
    assert_eq!(said["items"][0]["content"], "hello");
    assert_eq!(said["items"][1]["role"], "assistant");
    assert!(said.get("next_start").is_none() && said["items"][0].get("worker_ref").is_none());
    let points = here.get(&at("/connect-points")).await.ok();
    assert_eq!(points["items"][0]["status"], "available");

    let stopped = here.post(&at("/stop"), &json!({"mode": "graceful"})).await.ok();
    assert_eq!(stopped["state"], "accepted");
    assert_eq!(there.worker(&worker).await["status"], "stopped");
    let late = here.post(&at("/input"), &json!({"content": "late"})).await.ok();
    assert_eq!(
        (&late["state"], &late["diagnostics"][0]["code"]),
        (&json!("rejected"), &json!("invalid_request"))
    );
    let own = here.get("/v1/workers").await.ok();
    assert_eq!(own["workers"], json!([]), "nothing of it is in this service's own runtime");
}

#[tokio::test]
async fn unknown_workers_and_wrong_limits_are_told_as_everywhere() {
    let there = Service::start().await;
    let here = joined(&there, &there.base).await;
    let at = |what: &str| format!("{ALIAS}/workers/w-none{what}");
    here.get(&at("")).await.refused(404, "unknown_worker");
    here.get(&at("/transcript")).await.refused(404, "unknown_worker");
    here.post(&at("/input"), &json!({"content": "x"})).await.refused(404, "unknown_worker");
    here.post(&at("/stop"), &json!({})).await.refused(404, "unknown_worker");
    let (status, body) = here.watch_refused(&at("/events/ws")).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("unknown_worker")));
    here.get(&at("/transcript?limit=257")).await.refused(400, "limit_too_large");
    here.get(&format!("{ALIAS}/workers/a%20b")).await.refused(400, "invalid_identifier");
}

#[tokio::test]
async fn a_cursor_is_resumed_from_through_the_other_service() {
    let there = Service::start().await;
    let here = joined(&there, &there.base).await;
    let worker = spawned(&here).await;
    here.post(&format!("{ALIAS}/workers/{worker}/input"), &json!({"content": "one"})).await.ok();
    there.rests(&worker, 2).await;
    let path = format!("{ALIAS}/workers/{worker}/events/ws");
    let straight = format!("/v1/workers/{worker}/events/ws");
    let mut seen = there.watch(&format!("{straight}?after=0")).await;
    let all = seen.until(|frame| frame["envelope"]["payload"]["event"] == "turn_end").await;
    for (n, frame) in all.iter().enumerate().skip(1) {
        let cursor = frame["envelope"]["cursor"].as_str().unwrap();
        let mut resumed = here.watch(&format!("{path}?cursor={cursor}")).await;
        let snapshot = resumed.frame().await;
        assert_eq!(snapshot["envelope"]["cursor"], cursor);
        for entry in snapshot["envelope"]["payload"]["data"]["entries"].as_array().unwrap() {
            assert_eq!(entry["worker_ref"]["runtime_id"], "elsewhere");
        }
        for expected in &all[n + 1..] {
            assert_eq!(&resumed.frame().await, expected);
        }
    }
    let mut wrong = here.watch(&format!("{path}?cursor=nonsense")).await;
    assert_eq!(wrong.refusal().await, ("runtime.cursor_malformed".into(), 4400));
}

#[tokio::test]
async fn an_observer_through_the_alias_hears_of_the_end_and_may_not_speak() {
    let mut there = Service::start().await;
    let here = joined(&there, &there.base).await;
    let worker = spawned(&here).await;
    there.run_state(&worker, "idle").await;
    let path = format!("{ALIAS}/workers/{worker}/events/ws");
    let mut talker = here.watch(&path).await;
    talker.frame().await;
    talker.say("hello".into()).await;
    assert_eq!(talker.refusal().await.0, "runtime.observation_only");
    let mut observer = here.watch(&path).await;
    observer.frame().await;
    there.kill9().await;
    loop {
        match observer.next().await {
            Incoming::Frame(_) => {}
            Incoming::Close(code, _) => {
                assert_eq!(code, 1001);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Passes connections on; once armed, it loses one answer to an input.
async fn lossy(to: String, armed: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = to.strip_prefix("http://").unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, armed) = (to.clone(), Arc::clone(&armed));
            tokio::spawn(async move { pass_on(client, &to, &armed).await });
        }
    });
    url
}

async fn pass_on(mut client: TcpStream, to: &str, armed: &AtomicBool) -> std::io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    let mut is_input = false;
    loop {
        tokio::select! {
            n = client.read(&mut from_client) => match n? {
                0 => return Ok(()),
                n => {
                    let text = String::from_utf8_lossy(&from_client[..n]);
                    is_input |= text.contains("/input HTTP");
                    server.write_all(&from_client[..n]).await?;
                }
            },
            n = server.read(&mut from_server) => match n? {
                0 => return Ok(()),
                n if is_input && armed.swap(false, Ordering::SeqCst) => {
                    assert!(from_server[..n].starts_with(b"HTTP/1.1 200"));
                    return Ok(());
                }
                n => client.write_all(&from_server[..n]).await?,
            },
        }
    }
}

#[tokio::test]
async fn an_input_whose_answer_was_lost_arrives_once() {
    let there = Service::start().await;
    let armed = Arc::new(AtomicBool::new(false));
    let here = joined(&there, &lossy(there.base.clone(), Arc::clone(&armed)).await).await;
    let worker = spawned(&here).await;
    let path = format!("{ALIAS}/workers/{worker}/input");
    for n in 1..=3_u64 {
        armed.store(true, Ordering::SeqCst);
        let input = here.post(&path, &json!({"content": format!("input {n}")})).await.ok();
        assert!(!armed.load(Ordering::SeqCst), "the answer was lost");
        assert_eq!(input["state"], "accepted");
        there.rests(&worker, 2 * n).await;
        let items = there.transcript(&worker).await;
        let said = items["items"].as_array().unwrap().iter();
        assert_eq!(said.filter(|item| item["role"] == "user").count() as u64, n);
    }
    // The caller's own repeat, and the same key of somebody else, who means something else.
    let body = json!({"content": "again"});
    let first = here.post_keyed(&path, "k-1", &body).await;
    let second = here.post_keyed(&path, "k-1", &body).await;
    assert_eq!(first.ok(), second.ok());
    assert_eq!(second.header("idempotent-replayed"), "true");
    let other = here.issue(&json!({"role": "operator"})).await;
    let other = here.with_token(other["token"].as_str().unwrap());
    let third = other.post_keyed(&path, "k-1", &json!({"content": "another"})).await.ok();
    assert_ne!(third["event_id"], first.ok()["event_id"]);
}

/// Answers every connection with these bytes, or never.
async fn saying(answer: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            match answer {
                None => held.push(stream),
                Some(answer) => {
                    tokio::spawn(async move {
                        let mut request = [0; 4096];
                        drop(stream.read(&mut request).await);
                        drop(stream.write_all(answer.as_bytes()).await);
                        drop(stream.shutdown().await);
                    });
                }
            }
        }
    });
    url
}

#[tokio::test]
async fn a_service_that_is_not_well_is_unavailable_and_slows_nobody() {
    let here = Options::default().env("ELSEWHERE_TOKEN", "x").start().await;
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
    let version: &'static str = format!("{json}{{\"runtime\":{{\"id\":7,\"v\":2}}}}").leak();
    let ids: &'static str =
        format!("{json}{{\"runtime\":{{\"runtime_id\":\"../x\",\"status\":\"running\"}}}}").leak();
    let rows = [
        ("hangs", saying(None).await, "remote_unavailable"),
        ("refuses", refused, "remote_unavailable"),
        ("garbage", saying(Some("hello\n")).await, "remote_unavailable"),
        ("empty", saying(Some("")).await, "remote_unavailable"),
        (
            "half",
            saying(Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")).await,
            "remote_unavailable",
        ),
        (
            "page",
            saying(Some("HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n<p>no")).await,
            "remote_not_understood",
        ),
        ("version", saying(Some(version)).await, "remote_not_understood"),
        ("ids", saying(Some(ids)).await, "remote_not_understood"),
        (
            "denied",
            saying(Some("HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n")).await,
            "remote_unauthorized",
        ),
        (
            "moved",
            saying(Some("HTTP/1.1 302 Found\r\nlocation: /x\r\nconnection: close\r\n\r\n")).await,
            "remote_not_understood",
        ),
    ];
    for (id, url, _) in &rows {
        let began = Instant::now();
        let registered = here.post("/v1/runtimes", &request(id, url)).await.ok();
        assert_eq!(registered["runtime"]["status"], "unavailable", "{id}");
        assert!(began.elapsed() < Duration::from_secs(20), "{id}: {:?}", began.elapsed());
    }
    let none = json!({"runtime_id": "no-token", "kind": "remote_http", "url": rows[1].1, "token_env": "NO_SUCH_VARIABLE"});
    let none = here.post("/v1/runtimes", &none).await.ok();
    assert_eq!(none["runtime"]["diagnostics"][0]["code"], "remote_token_missing");
    let began = Instant::now();
    let listed = here.get("/v1/runtimes").await.ok();
    let own = here.spawn("echo").await;
    here.input(&own, "still there").await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(listed["diagnostics"].as_array().unwrap().len() <= 16);
    for (id, url, code) in &rows {
        let item =
            listed["items"].as_array().unwrap().iter().find(|item| item["runtime_id"] == *id);
        let item = item.unwrap();
        assert_eq!(
            (&item["status"], &item["diagnostics"][0]["code"]),
            (&json!("unavailable"), &json!(code)),
            "{id}"
        );
        assert_eq!(item["capabilities"]["can_spawn_worker"], false);
        assert!(!item.to_string().contains(url.as_str()), "{item}");
        let workers = here.get(&format!("/v1/runtimes/{id}/workers")).await.ok();
        assert_eq!(
            (&workers["items"], &workers["diagnostics"][0]["code"]),
            (&json!([]), &json!(code))
        );
        let path = format!("/v1/runtimes/{id}/workers/w-1");
        here.get(&path).await.refused(503, "runtime_unavailable");
        let (status, body) = here.watch_refused(&format!("{path}/events/ws")).await;
        assert_eq!((status, &body["error"]["code"]), (503, &json!("runtime_unavailable")), "{id}");
    }
    let input = |id: &str| format!("/v1/runtimes/{id}/workers/w-1/input");
    let body = json!({"content": "x"});
    here.post(&input("hangs"), &body).await.refused(503, "outcome_unknown");
    here.post(&input("half"), &body).await.refused(503, "outcome_unknown");
    let down = here.post(&input("refuses"), &body).await.ok();
    assert_eq!(
        (&down["state"], &down["diagnostics"][0]["code"]),
        (&json!("rejected"), &json!("remote_unavailable"))
    );
}

#[tokio::test]
async fn a_service_that_comes_back_is_available_again() {
    let mut there = Service::start().await;
    let here = joined(&there, &there.base).await;
    there.kill9().await;
    let status = |wanted: &'static str| {
        let here = &here;
        eventually(wanted, move || async move {
            (here.get(ALIAS).await.ok()["runtime"]["status"] == wanted).then_some(())
        })
    };
    status("unavailable").await;
    there.restart_here().await;
    status("running").await;
    there.post_empty("/v1/runtime/stop").await.ok();
    status("stopped").await;
    let refused = here.post(&format!("{ALIAS}/workers"), &spawn()).await.ok();
    assert_eq!(
        (&refused["state"], &refused["diagnostics"][0]["code"]),
        (&json!("rejected"), &json!("runtime_stopped"))
    );
}

#[tokio::test]
async fn registering_is_a_command_like_any_other() {
    let mut here = Service::start().await;
    let url = "http://127.0.0.1:9/";
    let registered = here.post_keyed("/v1/runtimes", "k", &request("elsewhere", url)).await.ok();
    assert_eq!(registered["runtime"]["source"]["kind"], "remote_http");
    let again = here.post_keyed("/v1/runtimes", "k", &request("elsewhere", url)).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    let head = here.head().await;
    here.post("/v1/runtimes", &request("elsewhere", url)).await.ok();
    here.post("/v1/runtimes", &request("elsewhere", "http://127.0.0.1:9")).await.ok();
    assert_eq!(here.head().await, head, "what is known so already is no news");
    let mut other = request("elsewhere", url);
    other["label"] = json!("Renamed");
    here.post("/v1/runtimes", &other).await.ok();
    assert_eq!(here.head().await, head + 1);
    here.kill9().await;
    here.restart().await;
    assert_eq!(here.get(ALIAS).await.ok()["runtime"]["label"], "Renamed");
    let hosts = here.get("/v1/hosts").await.ok().to_string();
    assert!(hosts.contains("remote-http-host"), "{hosts}");
    here.delete(ALIAS).await.ok();
    here.delete(ALIAS).await.refused(404, "unknown_runtime");
    here.get(ALIAS).await.refused(404, "unknown_runtime");
    here.get(&format!("{ALIAS}/workers")).await.refused(404, "unknown_runtime");
    assert!(!here.get("/v1/hosts").await.ok().to_string().contains("remote-http-host"));
    let before = here.get(&format!("{ALIAS}?at={head}")).await.ok();
    assert_eq!(before["runtime"]["label"], "Elsewhere");
    here.delete("/v1/runtimes/embedded-worker-runtime").await.refused(400, "invalid_request");

    let with = |field: &str, value: Value| {
        let mut body = request("elsewhere", url);
        body[field] = value;
        body
    };
    let secret = "s3cr3t-t0k3n";
    for (body, code) in [
        (with("kind", json!("local_pod")), "invalid_request"),
        (with("runtime_id", json!("embedded-worker-runtime")), "invalid_request"),
        (with("runtime_id", json!("../secret")), "invalid_identifier"),
        (with("runtime_id", json!("x".repeat(121))), "invalid_identifier"),
        (with("url", json!("")), "invalid_request"),
        (with("url", json!("ftp://x")), "invalid_request"),
        (with("url", json!(format!("http://u:{secret}@x"))), "invalid_request"),
        (with("url", json!(5)), "invalid_json"),
        (with("token_env", json!(secret)), "invalid_request"),
        (with("label", json!("x".repeat(3_000))), "invalid_request"),
        (json!([]), "invalid_json"),
    ] {
        let said = here.post("/v1/runtimes", &body).await.refused(400, code);
        assert!(!said.contains(secret), "{said}");
    }
    let observer = here.issue(&json!({"role": "observer"})).await;
    let observer = here.with_token(observer["token"].as_str().unwrap());
    observer.post("/v1/runtimes", &request("x", url)).await.refused(403, "forbidden");
    observer.delete(ALIAS).await.refused(403, "forbidden");
}

#[tokio::test]
async fn the_command_line_reaches_the_other_service_too() {
    let there = Service::start().await;
    let here = Options::default().env("ELSEWHERE_TOKEN", &there.token()).start().await;
    let added = here
        .acta(&["runtime", "add", "elsewhere", &there.base, "--token-env", "ELSEWHERE_TOKEN"])
        .await;
    assert_eq!(added.stdout, "runtime elsewhere is registered and running\n", "{added:?}");
    let down = here.acta(&["runtime", "add", "down", "http://127.0.0.1:9"]).await;
    assert!(
        down.stdout.contains("unavailable") && down.stderr.contains("remote_unavailable"),
        "{down:?}"
    );
    let (own, other) = (here.spawn("echo").await, there.spawn("echo").await);
    let all = here.acta(&["ls", "workers", "--all", "-o", "json"]).await;
    let all: Value = serde_json::from_str(&all.stdout).unwrap();
    let ids: Vec<_> =
        all["items"].as_array().unwrap().iter().map(|w| w["worker_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [other.as_str(), own.as_str()], "runtimes by id, then workers by id");
    assert_eq!(all["diagnostics"][0]["code"], "remote_unavailable");
    let listed = here.acta(&["ls", "workers", "--runtime", "elsewhere"]).await;
    assert!(
        listed.stdout.contains("remote_http") && !listed.stdout.contains(&own[..14]),
        "{listed:?}"
    );
    let shown = here.acta(&["show", "worker", &format!("elsewhere/{other}")]).await;
    assert!(shown.stdout.contains("elsewhere") && shown.stdout.contains(&other), "{shown:?}");
    let removed = here.acta(&["runtime", "rm", "elsewhere"]).await;
    assert_eq!(removed.stdout, "runtime elsewhere is forgotten here\n");
    assert_ne!(here.acta(&["runtime", "rm", "elsewhere"]).await.code, 0);
    assert!(here.acta(&["ls", "hosts", "--all"]).await.stderr.contains("acta ls workers"));
}
