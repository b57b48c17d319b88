//! Nothing that the registry says has a place of the machine, a secret or a connection in it.

use super::support::{Client, Options, Service, eventually};
use serde_json::{Value, json};
use std::fs;

/// What stands in every place that could leak.
const CANARY: &str = "c4n4ry";

fn manifest(root: &str) -> Value {
    let say =
        format!("echo {CANARY}-stderr >&2; printf '%s' \"$CANARY_TOKEN\" > {root}/seen; exec cat");
    json!({
        "default_template": "echo",
        "note": format!("{CANARY}-note"),
        "workspace_templates": [
            {"name": "echo", "exec": {
                "argv": ["sh", "-c", say], "mode": "session", "framing": "text", "turn_idle_ms": 40,
                "env": ["CANARY_TOKEN"],
            }},
            {"name": "absent", "exec": {"argv": [format!("/{CANARY}/program"), format!("--{CANARY}-option")]}},
            {"name": "library", "note": format!("{CANARY} library"), "path": format!("/{CANARY}/workspace")},
        ],
    })
}

fn pod(name: &str, root: &str) -> Value {
    json!({
        "worker_name": name,
        "workspace_root": root,
        "active": {"session_id": format!("{CANARY}-session"), "segment_id": format!("{CANARY}-segment")},
        "socket_path": format!("/{CANARY}/socket"),
        "token": format!("{CANARY}-pod-token"),
        "resolved_manifest_snapshot": {
            "role": "coder", "profile_selector": {"name": "builtin:coder", "path": format!("/{CANARY}/profile")},
            "provider": {"api_key": format!("{CANARY}-credential")},
        },
    })
}

/// Everything that the registry can be asked for, and what it said.
async fn everything(client: &Client) -> Vec<(String, String)> {
    let mut said = Vec::new();
    let mut paths = vec!["/v1/runtimes".to_owned(), "/v1/hosts".to_owned()];
    let runtimes = client.get("/v1/runtimes").await.ok();
    for runtime in runtimes["items"].as_array().unwrap() {
        let runtime = format!("/v1/runtimes/{}", runtime["runtime_id"].as_str().unwrap());
        let workers = client.get(&format!("{runtime}/workers")).await.ok();
        paths.extend([runtime.clone(), format!("{runtime}/workers")]);
        for worker in workers["items"].as_array().unwrap() {
            let worker = format!("{runtime}/workers/{}", worker["worker_id"].as_str().unwrap());
            paths.extend(
                ["", "/transcript", "/connect-points"].map(|what| format!("{worker}{what}")),
            );
            let input = client.post(&format!("{worker}/input"), &json!({"content": "hello"})).await;
            said.push((format!("POST {worker}/input"), input.text()));
        }
        for name in ["none", "..%2fsecret", "%20"] {
            paths.push(format!("{runtime}/workers/{name}"));
        }
        let spawn = json!({
            "intent": {"kind": "ticket_role", "ticket_id": "T-1", "role": "coder"},
            "acceptance": {"kind": "run_accepted", "expected_segments": 1},
            "requested_worker_name": "a-name",
        });
        let spawned = client.post(&format!("{runtime}/workers"), &spawn).await;
        said.push((format!("POST {runtime}/workers"), spawned.text()));
    }
    for host in client.get("/v1/hosts").await.ok()["items"].as_array().unwrap() {
        let host = format!("/v1/hosts/{}", host["host_id"].as_str().unwrap());
        paths.extend([host.clone(), format!("{host}/workers")]);
    }
    for path in paths {
        let answer = client.get(&path).await;
        said.push((path, answer.text()));
    }
    said
}

fn check(service: &Service, said: &[(String, String)], secrets: &[String]) {
    let root = service.root().to_str().unwrap().to_owned();
    let files = ["metadata.json", "manifest.json", "operator.token", "commit-", ".sled", "/proc/"];
    let mut never: Vec<String> = files.map(str::to_owned).into();
    never.extend([CANARY.to_owned(), root, service.token()]);
    never.extend(secrets.iter().cloned());
    for (path, text) in said {
        for leak in &never {
            assert!(!text.contains(leak.as_str()), "{path} tells `{leak}`: {text}");
        }
    }
}

#[tokio::test]
async fn nothing_leaks() {
    let there = Service::start().await;
    let pods = tempfile::tempdir().unwrap();
    let workspace = format!("/{CANARY}/workspace");
    for (name, text) in [
        ("mine", pod("mine", &workspace).to_string()),
        ("other", pod("other", &format!("/{CANARY}/elsewhere")).to_string()),
        ("broken", format!("{{\"{CANARY}\": ")),
        ("rootless", json!({"worker_name": CANARY}).to_string()),
    ] {
        let dir = pods.path().join("pods").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("metadata.json"), text).unwrap();
    }
    let scratch = tempfile::tempdir().unwrap();
    let service = Options::default()
        .manifest(manifest(scratch.path().to_str().unwrap()))
        .env("CANARY_TOKEN", &format!("{CANARY}-environment"))
        .env("ELSEWHERE_TOKEN", &there.token())
        .arg("--workspace-id=local:test")
        .arg(format!("--workspace-root={workspace}"))
        .arg(format!("--pods-dir={}/pods", pods.path().display()))
        .start()
        .await;
    let issued = service.issue(&json!({"role": "observer", "label": "watch"})).await;
    let issued = issued["token"].as_str().unwrap().to_owned();
    for (id, url) in [("elsewhere", there.base.clone()), ("down", "http://127.0.0.1:9".into())] {
        let body = json!({"runtime_id": id, "kind": "remote_http", "url": url, "token_env": "ELSEWHERE_TOKEN"});
        service.post("/v1/runtimes", &body).await.ok();
    }
    let talks = service.spawn("echo").await;
    service.input(&talks, "hello").await;
    eventually("the secret reached the worker", || async {
        fs::read_to_string(scratch.path().join("seen")).ok().filter(|seen| seen.contains(CANARY))
    })
    .await;
    let fails = service.spawn("absent").await;
    service.run_state(&fails, "errored").await;
    let shown = service.worker(&fails).await.to_string();
    assert!(shown.contains("spawn"), "{shown}");
    eventually("the pods", || async {
        let listed = service.get("/v1/runtimes/local-worker-runtime/workers").await.ok();
        (listed["items"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    let secrets = [
        issued,
        there.token(),
        pods.path().to_str().unwrap().to_owned(),
        scratch.path().to_str().unwrap().to_owned(),
    ];
    let said = everything(&service).await;
    assert!(said.len() > 30, "{}", said.len());
    check(&service, &said, &secrets);
    // A broken manifest is told, and not where it is.
    fs::write(service.root().join("manifest.json"), format!("{{\"{CANARY}\"")).unwrap();
    eventually("the diagnostic", || async {
        let listed = service.get("/v1/runtimes").await.ok();
        listed.to_string().contains("manifest_unreadable").then_some(())
    })
    .await;
    check(&service, &everything(&service).await, &secrets);
}
