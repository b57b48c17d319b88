//! Hosts: registered, beating, lost and found.

use super::support::{Client, Options, Service, bare_command, eventually};
use serde_json::{Value, json};
use std::process::{Child, Stdio};

async fn host(service: &Client, id: &str) -> Value {
    service.get(&format!("/v1/hosts/{id}")).await.ok()["host"].clone()
}

async fn count(service: &Client, kind: &str) -> usize {
    service.events(&format!("after=0&type={kind}")).await.len()
}

async fn status(service: &Client, id: &str, status: &str) -> Value {
    eventually(&format!("host {id} is {status}"), || async {
        let host = host(service, id).await;
        (host["status"] == status).then_some(host)
    })
    .await
}

fn asked(id: &str) -> Value {
    json!({
        "host_id": id,
        "label": "A machine",
        "capabilities": {"os": "linux", "arch": "aarch64", "has_shell": true, "max_workers": 4},
    })
}

async fn of_host(service: &Service, id: &str) -> Client {
    let issued = service.issue(&json!({"role": "host", "host": id})).await;
    service.with_token(issued["token"].as_str().unwrap())
}

#[tokio::test]
async fn a_host_is_registered_once_and_what_changes_is_an_event() {
    let service = Service::start().await;
    let registered = service.post("/v1/hosts", &asked("build-7")).await.ok();
    assert_eq!(registered["state"], "registered");
    assert_eq!(registered["runtime_id"], "embedded-worker-runtime");
    assert_eq!(registered["lease_ms"], 60_000);
    let head = service.head().await;
    let again = service.post("/v1/hosts", &asked("build-7")).await.ok();
    assert_eq!((&again["state"], &again["event_id"]), (&json!("unchanged"), &Value::Null));
    assert_eq!(service.head().await, head, "nothing is recorded of it");

    let mut changed = asked("build-7");
    changed["capabilities"]["has_git"] = true.into();
    let updated = service.post_keyed("/v1/hosts", "k1", &changed).await;
    assert_eq!(updated.ok()["state"], "updated");
    assert_eq!(updated.ok()["event_id"], head + 1);
    let repeated = service.post_keyed("/v1/hosts", "k1", &changed).await;
    assert_eq!(repeated.header("idempotent-replayed"), "true");
    assert_eq!(repeated.ok(), updated.ok());
    assert_eq!(
        (count(&service, "host_registered").await, count(&service, "host_updated").await),
        (2, 1)
    );

    let shown = host(&service, "build-7").await;
    let said = json!({"os": "linux", "arch": "aarch64", "has_workspace_fs": false,
        "has_shell": true, "has_git": true, "supports_worktrees": false, "max_workers": 4,
        "can_list_workers": true, "workspace_scope": "backend_internal"});
    for (name, value) in said.as_object().unwrap() {
        assert_eq!(&shown["capabilities"][name], value, "{name}");
    }
    assert_eq!((&shown["kind"], &shown["label"]), (&json!("worker-host"), &json!("A machine")));
    assert_eq!((&shown["status"], &shown["diagnostics"]), (&json!("online"), &json!([])));
    let before = service.get(&format!("/v1/hosts/build-7?at={head}")).await.ok();
    assert_eq!(before["host"]["capabilities"]["has_git"], false, "as it was then");
    let runtime = service.get("/v1/runtimes/embedded-worker-runtime").await.ok();
    assert!(runtime["runtime"]["host_ids"].as_array().unwrap().contains(&json!("build-7")));
}

#[tokio::test]
async fn what_makes_no_host_is_refused_with_a_reason() {
    let service = Service::start().await;
    service.post("/v1/hosts", &asked("known")).await.ok();
    let with = |id: &str, name: &str, value: Value| {
        let mut body = asked(id);
        body[name] = value;
        body
    };
    let rows = [
        (with("../secret", "label", json!("x")), 400, "invalid_identifier"),
        (with("", "label", json!("x")), 400, "invalid_identifier"),
        (with(&"x".repeat(121), "label", json!("x")), 400, "invalid_identifier"),
        (json!({"label": "no id"}), 400, "invalid_json"),
        (json!({"host_id": 5}), 400, "invalid_json"),
        (json!([]), 400, "invalid_json"),
        (with("h", "runtime_id", json!("nope")), 404, "unknown_runtime"),
        (with("h", "runtime_id", json!("a b")), 400, "invalid_identifier"),
        (with("h", "label", json!("/etc/passwd")), 400, "invalid_request"),
        (with("h", "label", json!("a\u{7}b")), 400, "invalid_request"),
        (with("h", "label", json!("x".repeat(121))), 400, "invalid_request"),
        (with("h", "kind", json!("")), 400, "invalid_request"),
        (with("h", "capabilities", json!({"max_workers": -1})), 400, "invalid_json"),
        (with("known", "kind", json!("another-kind")), 400, "invalid_request"),
    ];
    for (body, status, code) in rows {
        service.post("/v1/hosts", &body).await.refused(status, code);
    }
    service.post_bytes("/v1/hosts", b"\xff\xfe".to_vec()).await.refused(400, "invalid_json");
    let unknown = service.post("/v1/hosts/none/heartbeat", &json!({})).await;
    assert!(unknown.refused(404, "unknown_host").contains("register it first"));
    let bad = service.post("/v1/hosts/..%2Fsecret/heartbeat", &json!({})).await;
    bad.refused(400, "invalid_identifier");
    service.get("/v1/hosts/none").await.refused(404, "unknown_host");
    service.get("/v1/hosts/known?at=1").await.refused(404, "unknown_host");
    service.get("/v1/hosts?after=a%20b").await.refused(400, "invalid_identifier");
    assert_eq!(count(&service, "host_registered").await, 2);
}

#[tokio::test]
async fn a_host_token_speaks_for_its_own_host_only() {
    let service = Service::start().await;
    let own = of_host(&service, "mine").await;
    own.post("/v1/hosts/mine/heartbeat", &json!({})).await.refused(404, "unknown_host");
    own.post("/v1/hosts", &asked("mine")).await.ok();
    own.post("/v1/hosts/mine/heartbeat", &json!({})).await.ok();
    own.post("/v1/hosts", &asked("other")).await.refused(403, "forbidden");
    service.post("/v1/hosts", &asked("other")).await.ok();
    own.post("/v1/hosts/other/heartbeat", &json!({})).await.refused(403, "forbidden");
    own.get("/v1/hosts").await.refused(403, "forbidden");
    own.get("/v1/hosts/mine").await.refused(403, "forbidden");
    for role in ["observer", "auditor"] {
        let issued = service.issue(&json!({"role": role})).await;
        let reader = service.with_token(issued["token"].as_str().unwrap());
        reader.get("/v1/hosts/mine").await.ok();
        reader.post("/v1/hosts", &asked("mine")).await.refused(403, "forbidden");
        reader.post("/v1/hosts/mine/heartbeat", &json!({})).await.refused(403, "forbidden");
    }
    service.anonymous().post("/v1/hosts", &asked("mine")).await.refused(401, "unauthorized");
    let registered = service.events("after=0&type=host_registered").await;
    assert!(registered[1]["actor"].as_str().unwrap().starts_with("token:"), "{registered:?}");
}

#[tokio::test]
async fn a_silent_host_is_lost_and_found_when_it_beats() {
    let mut service = Options::default().arg("--host-lease-ms").arg("2000").start().await;
    let own = of_host(&service, "h").await;
    own.post("/v1/hosts", &asked("h")).await.ok();
    let beaten = own.post("/v1/hosts/h/heartbeat", &json!({})).await.ok();
    assert_eq!((&beaten["status"], &beaten["lease_ms"]), (&json!("online"), &json!(2000)));
    let heard = host(&service, "h").await["last_seen_at"].clone();
    assert_eq!(heard, beaten["last_seen_at"], "the present view knows of beats");

    let lost = status(&service, "h", "lost").await;
    assert_eq!(lost["last_seen_at"], heard);
    assert_eq!(lost["diagnostics"][0]["code"], "host_lost");
    let at = service.head().await;
    let past = || async { service.get(&format!("/v1/hosts/h?at={at}")).await.ok()["host"].clone() };
    let then = past().await;
    assert_eq!((&then["status"], &then["last_seen_at"]), (&json!("lost"), &heard));
    service.post("/v1/hosts", &asked("later")).await.ok();
    status(&service, "later", "lost").await;
    assert_eq!(count(&service, "host_lost").await, 2, "each once");

    own.post("/v1/hosts/h/heartbeat", &json!({})).await.ok();
    // It is recorded before it is said.
    assert_eq!(count(&service, "host_found").await, 1);
    assert_eq!(host(&service, "h").await["diagnostics"], json!([]));
    assert_eq!(past().await, then, "the past stays what it was");
    status(&service, "h", "lost").await;
    // Registering again is a sign of life as well.
    own.post("/v1/hosts", &asked("h")).await.ok();
    assert_eq!(count(&service, "host_found").await, 2);

    // Nobody is blamed for the time when the service was down: the lease begins anew.
    service.kill9().await;
    // Longer than the lease.
    tokio::time::sleep(std::time::Duration::from_millis(2_200)).await;
    service.restart().await;
    let lost = count(&service, "host_lost").await;
    assert_eq!((lost, host(&service, "h").await["status"].clone()), (3, json!("online")));
    status(&service, "h", "lost").await;
    let hosts = service.get("/v1/hosts").await.ok();
    let online = hosts["items"].as_array().unwrap().iter().filter(|h| h["status"] == "online");
    assert_eq!(online.count(), 1, "this machine is there as long as the service is: {hosts}");
}

#[tokio::test]
async fn hosts_are_listed_in_pages() {
    let service = Service::start().await;
    let mut ids: Vec<String> = (0..5).map(|n| format!("m-{n}")).collect();
    for id in ids.iter().rev() {
        service.post("/v1/hosts", &asked(id)).await.ok();
    }
    let own = service.get("/v1/hosts?limit=1").await.ok()["items"][0]["host_id"].clone();
    ids.insert(0, own.as_str().unwrap().into());
    let mut listed: Vec<String> = Vec::new();
    while listed.len() < ids.len() {
        let after = listed.last().map(|id| format!("&after={id}")).unwrap_or_default();
        let page = service.get(&format!("/v1/hosts?limit=2{after}")).await.ok();
        let items = page["items"].as_array().unwrap();
        assert!(!items.is_empty() && items.len() <= 2);
        listed.extend(items.iter().map(|item| item["host_id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(listed, ids);
    service.get("/v1/hosts?limit=257").await.refused(400, "limit_too_large");
}

struct Beating(Child);

impl Drop for Beating {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn a_machine_registers_and_beats_from_the_command_line() {
    let service = Options::default().arg("--host-lease-ms").arg("1500").start().await;
    let run = |args: &[&str]| {
        let output = service.command().args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, token, said) = run(&["token", "issue", "--role", "host", "--host", "box"]);
    assert_eq!(code, Some(0), "{said}");
    let mut own = bare_command(service.root());
    own.env("ACTA_URL", &service.base).env("ACTA_TOKEN", token.trim());
    let added = own.args(["host", "add", "box", "--has", "shell,git"]).output().unwrap();
    let said = String::from_utf8(added.stdout).unwrap();
    assert_eq!(
        said,
        "host box of runtime embedded-worker-runtime is registered; its lease is 1.5 s\n"
    );
    let mut beat = bare_command(service.root());
    beat.env("ACTA_URL", &service.base).env("ACTA_TOKEN", token.trim());
    let beating = beat.args(["host", "beat", "box"]).stdin(Stdio::null()).spawn().unwrap();
    let beating = Beating(beating);
    service.post("/v1/hosts", &asked("silent")).await.ok();
    status(&service, "silent", "lost").await;
    assert_eq!(host(&service, "box").await["status"], "online", "it beats often enough by itself");
    drop(beating);
    status(&service, "box", "lost").await;
    let (code, shown, _) = run(&["show", "host", "box"]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("lost") && shown.contains("acta host beat box"), "{shown}");
    let (code, said, _) = run(&["host", "beat", "box", "--once"]);
    assert_eq!((code, said.as_str()), (Some(0), "host box is online\n"));
    let (code, _, said) = run(&["host", "beat", "nobody"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("register it first"), "{said}");
    assert_eq!(run(&["host", "beat", "box", "--every", "soon"]).0, Some(2));
    assert_eq!(run(&["token", "issue", "--role", "host"]).0, Some(2));
    assert_eq!(run(&["token", "issue", "--role", "observer", "--host", "box"]).0, Some(2));
}
