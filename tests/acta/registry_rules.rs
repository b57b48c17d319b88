//! The rules of the registry that hold for every kind of runtime: what a runtime says it can do is what
//! it does, look-ups stay within their runtime, and everything is bounded.

use super::support::{Deployed, Options, Service, eventually, keys};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

const EMBEDDED: &str = "embedded-worker-runtime";
const LOCAL: &str = "local-worker-runtime";

/// A service with a worker in a runtime of each kind, and a runtime of a service that is not there.
struct All {
    here: Service,
    there: Service,
    agent: Deployed,
    /// Runtimes with a worker of theirs.
    workers: Vec<(&'static str, String)>,
    _pods: TempDir,
}

async fn all() -> All {
    let pods = tempfile::tempdir().unwrap();
    let pod = pods.path().join("pods/one");
    fs::create_dir_all(&pod).unwrap();
    let metadata = json!({"worker_name": "one", "workspace_root": "/canary/workspace"});
    fs::write(pod.join("metadata.json"), metadata.to_string()).unwrap();
    let there = Service::start().await;
    let here = Options::default()
        .env("ELSEWHERE_TOKEN", &there.token())
        .arg("--workspace-id=local:test")
        .arg("--workspace-root=/canary/workspace")
        .arg("--pods-scan-ms=50")
        .arg(format!("--pods-dir={}/pods", pods.path().display()))
        .start()
        .await;
    for (id, url) in [("elsewhere", there.base.as_str()), ("down", "http://127.0.0.1:9")] {
        let remote = json!({
            "runtime_id": id, "kind": "remote_http", "url": url, "token_env": "ELSEWHERE_TOKEN",
        });
        here.post("/v1/runtimes", &remote).await.ok();
    }
    let local = eventually("the local worker", || async {
        let list = here.get(&format!("/v1/runtimes/{LOCAL}/workers")).await.ok();
        list["items"][0]["worker_id"].as_str().map(str::to_owned)
    })
    .await;
    let agent = Deployed::connected(&here).await;
    let own = here.spawn("echo").await;
    let other = there.spawn("echo").await;
    here.run_state(&own, "idle").await;
    there.run_state(&other, "idle").await;
    let workers =
        vec![(EMBEDDED, own), (LOCAL, local), ("external", agent.id.clone()), ("elsewhere", other)];
    All { here, there, agent, workers, _pods: pods }
}

pub fn spawn() -> Value {
    json!({
        "intent": {"kind": "workspace_companion"},
        "acceptance": {"kind": "run_accepted", "expected_segments": 0},
    })
}

pub fn codes(answer: &Value) -> Vec<&str> {
    let all = answer["diagnostics"].as_array().unwrap().iter();
    all.map(|diagnostic| diagnostic["code"].as_str().unwrap()).collect()
}

/// Whether something was done that was said to be possible, or refused by name that was not.
#[track_caller]
fn check(what: &str, can: &Value, answer: &Value, code: &str) {
    match can.as_bool().unwrap() {
        true => {
            assert_eq!((&answer["state"], codes(answer).len()), (&json!("accepted"), 0), "{what}")
        }
        false => {
            assert_eq!(answer["state"], "unsupported", "{what}: {answer}");
            assert_eq!(codes(answer), [code], "{what}");
        }
    }
}

#[tokio::test]
async fn what_a_runtime_says_it_can_do_it_does_and_the_rest_is_refused_by_name() {
    let all = all().await;
    let here = &all.here;
    for (runtime, worker) in &all.workers {
        let path = format!("/v1/runtimes/{runtime}");
        let can = here.get(&path).await.ok()["runtime"]["capabilities"].clone();
        let at = |what: &str| format!("{path}/workers/{worker}{what}");
        let named = |what: &str| format!("{runtime}: {what}");
        for list in ["can_list_hosts", "can_list_workers", "can_get_worker"] {
            assert_eq!(can[list], true, "{runtime}: {list}");
        }
        let listed = here.get(&format!("{path}/workers")).await.ok();
        assert_eq!(listed["items"][0]["worker_id"], worker.as_str());
        let shown = here.get(&at("")).await.ok()["worker"].clone();
        assert_eq!(listed["items"][0]["host_id"], shown["host_id"]);
        let own = &shown["capabilities"];

        let spawned = here.post(&format!("{path}/workers"), &spawn()).await.ok();
        let pending = "worker_spawn_resolver_pending";
        check(&named("spawn"), &can["can_spawn_worker"], &spawned, pending);
        assert_eq!(spawned.get("worker").is_some(), can["can_spawn_worker"] == true);

        let input = here.post(&at("/input"), &json!({"content": "hello"})).await.ok();
        check(&named("input"), &can["can_accept_input"], &input, "worker_input_pending");
        assert_eq!(own["can_accept_input"], can["can_accept_input"], "{runtime}");
        let evidence = ["event_id", "transcript_sequence"];
        let has =
            evidence.map(|name| input.get(name).is_some() == (can["can_accept_input"] == true));
        assert_eq!(has, [true; 2], "{runtime}: {input}");
        let said = here.get(&at("/transcript")).await.ok();
        let reads = &can["can_read_bounded_transcript"];
        check(&named("transcript"), reads, &said, "worker_transcript_pending");
        assert_eq!(own["can_read_bounded_transcript"], *reads, "{runtime}");
        if *reads == true {
            assert_eq!(said["items"][0]["content"], "hello", "{runtime}: {said}");
            let expected = [
                "diagnostics",
                "items",
                "limit",
                "runtime_id",
                "start",
                "state",
                "total_items",
                "worker_id",
            ];
            assert_eq!(keys(&said), expected, "{runtime}");
            let expected = ["content", "event_id", "role", "sequence"];
            assert_eq!(keys(&said["items"][0]), expected, "{runtime}");
        }

        let streams = can["can_stream_events"].as_bool().unwrap();
        assert_eq!(own["can_stream_events"], streams, "{runtime}");
        let points = here.get(&at("/connect-points")).await.ok()["items"][0].clone();
        let (status, expected) = match streams {
            true => ("available", Vec::new()),
            false => ("unsupported", vec!["worker_proxy_pending"]),
        };
        assert_eq!((&points["status"], codes(&points)), (&json!(status), expected), "{runtime}");
        if streams {
            let route = points["route"].as_str().unwrap();
            let snapshot = here.watch(route).await.frame().await;
            assert_eq!(snapshot["envelope"]["payload"]["event"], "snapshot", "{runtime}");
        } else {
            let (status, refused) = here.watch_refused(&at("/events/ws")).await;
            assert_eq!(status, 400);
            assert!(refused.to_string().contains("worker_proxy_pending"), "{refused}");
        }

        for how in ["/stop", "/cancel"] {
            let ended = here.post(&at(how), &json!({})).await.ok();
            check(&named(how), &can["can_stop_worker"], &ended, "worker_stop_pending");
        }
        assert_eq!(own["can_stop"], can["can_stop_worker"], "{runtime}");
    }
    let down = here.get("/v1/runtimes/down").await.ok()["runtime"].clone();
    for (name, can) in down["capabilities"].as_object().unwrap() {
        let known = name == "can_list_hosts" || !can.is_boolean();
        assert!(known || *can == false, "{name}: {down}");
    }
    let refused = here.post("/v1/runtimes/down/workers", &spawn()).await.ok();
    let expected = (&json!("rejected"), vec!["remote_unavailable"]);
    assert_eq!((&refused["state"], codes(&refused)), expected);
}

#[tokio::test]
async fn a_worker_is_known_to_its_own_runtime_only() {
    let all = all().await;
    for (runtime, _) in &all.workers {
        for (of, worker) in &all.workers {
            let path = format!("/v1/runtimes/{runtime}/workers/{worker}");
            if of == runtime {
                assert_eq!(all.here.get(&path).await.ok()["worker"]["runtime_id"], *runtime);
                continue;
            }
            for what in ["", "/transcript", "/connect-points"] {
                let answer = all.here.get(&format!("{path}{what}")).await;
                answer.refused(404, "unknown_worker");
            }
            for (what, body) in [("input", json!({"content": "x"})), ("stop", json!({}))] {
                let answer = all.here.post(&format!("{path}/{what}"), &body).await;
                answer.refused(404, "unknown_worker");
            }
        }
        let (_, worker) = &all.workers[0];
        let none = format!("/v1/runtimes/{runtime}x/workers/{worker}");
        all.here.get(&none).await.refused(404, "unknown_runtime");
    }
    // The host of one runtime has nobody of another one.
    for host in all.here.get("/v1/hosts").await.ok()["items"].as_array().unwrap() {
        let path = format!("/v1/hosts/{}/workers", host["host_id"].as_str().unwrap());
        for worker in all.here.get(&path).await.ok()["items"].as_array().unwrap() {
            let address = ["runtime_id", "host_id"].map(|name| &worker[name]);
            assert_eq!(address, ["runtime_id", "host_id"].map(|name| &host[name]), "{worker}");
        }
    }
    assert_eq!(all.agent.status(&all.here).await, "online");
    assert_eq!(all.there.get("/v1/workers").await.ok()["workers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn every_source_has_the_same_shapes() {
    let all = all().await;
    let list = |path: &'static str| async { all.here.get(path).await.ok() };
    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    let can = sorted(vec![
        "can_list_hosts",
        "can_list_workers",
        "can_get_worker",
        "can_spawn_worker",
        "can_stop_worker",
        "can_accept_input",
        "can_stream_events",
        "can_read_bounded_transcript",
        "has_workspace_fs",
        "has_shell",
        "has_git",
        "supports_worktrees",
        "supports_backend_internal_tools",
        "local_pod_inspection",
        "workspace_scope",
        "max_workers",
        "os",
        "arch",
    ]);
    let (runtimes, hosts) = (list("/v1/runtimes").await, list("/v1/hosts").await);
    let mut sources = Vec::new();
    for runtime in runtimes["items"].as_array().unwrap() {
        let expected = [
            "capabilities",
            "diagnostics",
            "host_ids",
            "kind",
            "label",
            "runtime_id",
            "source",
            "status",
            "templates",
        ];
        assert_eq!(keys(runtime), expected, "{runtime}");
        assert_eq!(keys(&runtime["capabilities"]), can, "{runtime}");
        let source = &runtime["source"];
        assert_eq!(keys(source), ["identity_authority", "kind", "note", "status"], "{runtime}");
        assert_eq!(source["identity_authority"], "runtime_registry_projection");
        let local = runtime["runtime_id"] == LOCAL;
        let scope = if local { "current_workspace" } else { "backend_internal" };
        let pods = if local { "available" } else { "not_applicable" };
        let said = &runtime["capabilities"];
        let said = (&said["workspace_scope"], &said["local_pod_inspection"]);
        assert_eq!(said, (&json!(scope), &json!(pods)), "{runtime}");
        sources.push((runtime["runtime_id"].clone(), source["kind"].clone()));
        for host in runtime["host_ids"].as_array().unwrap() {
            let path = format!("/v1/hosts/{}", host.as_str().unwrap());
            assert_eq!(all.here.get(&path).await.ok()["host"]["runtime_id"], runtime["runtime_id"]);
        }
    }
    let expected = [
        ("down", "remote_http"),
        ("elsewhere", "remote_http"),
        (EMBEDDED, "embedded_worker_runtime"),
        ("external", "external"),
        (LOCAL, "local_compatibility"),
    ];
    assert_eq!(sources, expected.map(|(id, kind)| (json!(id), json!(kind))));
    for host in hosts["items"].as_array().unwrap() {
        let expected = [
            "capabilities",
            "diagnostics",
            "host_id",
            "kind",
            "label",
            "last_seen_at",
            "observed_at",
            "runtime_id",
            "status",
        ];
        assert_eq!(keys(host), expected, "{host}");
        assert_eq!(keys(&host["capabilities"]), can, "{host}");
    }
    for (runtime, _) in &all.workers {
        let workers = all.here.get(&format!("/v1/runtimes/{runtime}/workers")).await.ok();
        assert_eq!(keys(&workers), ["diagnostics", "items"]);
        let worker = &workers["items"][0];
        let expected = [
            "capabilities",
            "diagnostics",
            "host_id",
            "implementation",
            "label",
            "last_seen_at",
            "profile",
            "role",
            "runtime_id",
            "state",
            "status",
            "worker_id",
            "workspace",
        ];
        assert_eq!(keys(worker), expected, "{worker}");
        let expected = [
            "can_accept_input",
            "can_read_bounded_transcript",
            "can_spawn_followup",
            "can_stop",
            "can_stream_events",
        ];
        assert_eq!(keys(&worker["capabilities"]), expected, "{worker}");
        assert_eq!(keys(&worker["workspace"]), ["identity", "visibility"]);
        assert_eq!(keys(&worker["implementation"]), ["display_hint", "kind"]);
    }
    for diagnostic in hosts["diagnostics"].as_array().unwrap() {
        assert_eq!(keys(diagnostic), ["code", "message", "severity"]);
    }
    // A host of a service that is not there says so, in the list and by itself.
    let items = hosts["items"].as_array().unwrap();
    let down = items.iter().find(|host| host["runtime_id"] == "down").unwrap();
    assert_eq!((&down["status"], codes(down)), (&json!("unavailable"), vec!["remote_unavailable"]));
    assert_eq!(codes(&hosts), ["remote_unavailable"]);
    let up = items.iter().find(|host| host["runtime_id"] == "elsewhere").unwrap();
    assert_eq!((&up["status"], codes(up)), (&json!("online"), Vec::new()));
    let shown = all.here.acta(&["show", "runtime", "down"]).await;
    let said = shown.ok().lines().find(|line| line.starts_with("diagnostics ")).unwrap();
    assert!(said.contains("  error: runtime `down`: it cannot be reached"), "{said}");
    let path = format!("/v1/hosts/{}", down["host_id"].as_str().unwrap());
    assert_eq!(codes(&all.here.get(&path).await.ok()["host"]), ["remote_unavailable"]);
    let workers = all.here.get(&format!("{path}/workers")).await.ok();
    assert_eq!((&workers["items"], codes(&workers)), (&json!([]), vec!["remote_unavailable"]));
}

#[tokio::test]
async fn local_workers_are_in_all_views_and_in_a_replay() {
    let mut all = all().await;
    let (_, local) = all.workers[1].clone();
    let views = all.here.get("/v1/views").await.ok();
    let shown = views["local_workers"].clone();
    assert_eq!((&shown["total"], &shown["items"][0]["worker_id"]), (&json!(1), &json!(local)));
    assert_eq!(
        (&shown["items"][0]["label"], &shown["items"][0]["runtime_id"]),
        (&json!("one"), &json!(LOCAL))
    );
    assert!(!views.to_string().contains("canary"), "{views}");
    let total = |query: &'static str| {
        let here = &all.here;
        async move {
            here.get(&format!("/v1/views?{query}")).await.ok()["local_workers"]["total"].clone()
        }
    };
    for (query, expected) in [
        ("at=1", 0),
        ("runtime=external", 0),
        ("runtime=local-worker-runtime", 1),
        ("worker=local-", 1),
        ("worker=w-", 0),
        ("status=running", 0),
    ] {
        assert_eq!(total(query).await, expected, "{query}");
    }
    let none = all.here.get("/v1/views?limit=0").await.ok()["local_workers"].clone();
    assert_eq!(none, json!({"total": 1, "items": []}));
    let live = all.here.acta(&["replay", "--worker", &local[..12], "--events"]).await;
    for expected in ["LOCAL WORKER", &local, "local worker"] {
        assert!(live.ok().contains(expected), "{expected}: {live:?}");
    }
    assert!(!live.ok().contains("user>"), "only what is about it: {live:?}");
    let head = all.here.head().await.to_string();
    let args = ["replay", "--to", &head, "--runtime", LOCAL];
    let live = all.here.acta(&args).await;
    all.here.kill9().await;
    let data = all.here.data();
    let stopped = [&args[..], &["--data", data.to_str().unwrap()]].concat();
    assert_eq!(all.here.acta(&stopped).await.ok(), live.ok());
}
