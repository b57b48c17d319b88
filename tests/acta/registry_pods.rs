//! Local pods: a read-only view of a directory, with its history.

use super::support::{Options, Service, eventually};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};
use tempfile::TempDir;

const RUNTIME: &str = "/v1/runtimes/local-worker-runtime";
const ROOT: &str = "/workspace/canary-project";

struct Pods(TempDir);

impl Pods {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("pods")
    }

    fn write(&self, name: &str, text: &str) {
        let pod = self.dir().join(name);
        fs::create_dir_all(&pod).unwrap();
        // In one step, as whoever runs pods is expected to.
        fs::write(pod.join("aside"), text).unwrap();
        fs::rename(pod.join("aside"), pod.join("metadata.json")).unwrap();
    }

    fn pod(&self, name: &str, fields: &Value) {
        let mut metadata = json!({
            "worker_name": name.to_uppercase(), "workspace_root": ROOT,
            "socket": "/run/canary.sock", "token": "canary-token",
        });
        metadata.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.write(name, &metadata.to_string());
    }

    fn options(&self) -> Options {
        let options = Options::default();
        let options = options.arg("--workspace-id").arg("local:test").arg("--workspace-root");
        options.arg(format!("{ROOT}/")).arg("--pods-scan-ms").arg("50")
    }

    async fn start(&self) -> Service {
        fs::create_dir_all(self.dir()).unwrap();
        self.options().arg("--pods-dir").arg(self.dir().to_str().unwrap()).start().await
    }
}

async fn workers(service: &Service) -> Vec<Value> {
    let list = service.get(&format!("{RUNTIME}/workers")).await.ok();
    list["items"].as_array().unwrap().clone()
}

async fn listed(service: &Service, count: usize) -> Vec<Value> {
    eventually(&format!("{count} local workers"), || async {
        let workers = workers(service).await;
        (workers.len() == count).then_some(workers)
    })
    .await
}

async fn host(service: &Service) -> Value {
    let hosts = service.get("/v1/hosts").await.ok();
    let mut hosts = hosts["items"].as_array().unwrap().clone().into_iter();
    hosts.find(|host| host["kind"] == "local-worker-host").unwrap()
}

fn codes(diagnostics: &Value) -> Vec<&str> {
    diagnostics.as_array().unwrap().iter().map(|each| each["code"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn local_workers_are_listed_with_what_their_metadata_says() {
    let pods = Pods::new();
    pods.pod("foo.bar", &json!({"active": {"segment_id": "canary-segment"}}));
    let snapshot = json!({"role": {"name": "coder"}, "profile_selector": "builtin:coder"});
    pods.pod("foo-bar", &json!({"active": {}, "resolved_manifest_snapshot": snapshot}));
    pods.pod("idle", &json!({}));
    pods.write("broken", "{");
    pods.write("rootless", "{\"worker_name\": \"x\"}");
    pods.pod("elsewhere", &json!({"workspace_root": "/workspace/canary-other"}));
    fs::create_dir_all(pods.dir().join("empty")).unwrap();
    let service = pods.start().await;
    let all = listed(&service, 3).await;
    let of = |hint: &str| {
        all.iter().find(|w| w["implementation"]["display_hint"] == hint).unwrap().clone()
    };
    let (segment, pending, idle) = (of("foo.bar"), of("foo-bar"), of("idle"));
    assert_ne!(segment["worker_id"], pending["worker_id"]);
    let said = |w: &Value| (w["state"].clone(), w["status"].clone());
    assert_eq!(said(&segment), (json!("active"), json!("active:segment")));
    assert_eq!(said(&pending), (json!("active"), json!("active:pending_segment")));
    assert_eq!(said(&idle), (json!("metadata_only"), json!("metadata_only")));
    assert_eq!((&pending["role"], &pending["profile"]), (&json!("coder"), &json!("builtin:coder")));
    assert_eq!((&idle["label"], &idle["role"]), (&json!("IDLE"), &Value::Null));
    let visible = json!({"visibility": "current_workspace", "identity": "runtime_workspace"});
    assert_eq!(idle["workspace"], visible);
    assert_eq!(idle["implementation"]["kind"], "local_pod");
    for can in idle["capabilities"].as_object().unwrap().values() {
        assert_eq!(can, &json!(false));
    }
    for worker in &all {
        let path = format!("{RUNTIME}/workers/{}", worker["worker_id"].as_str().unwrap());
        assert_eq!(service.get(&path).await.ok()["worker"], *worker, "what is listed is found");
    }
    let none = service.get(&format!("{RUNTIME}/workers/local-worker-none")).await;
    none.refused(404, "unknown_worker");

    let host = host(&service).await;
    assert_eq!(
        (&host["status"], &host["runtime_id"]),
        (&json!("online"), &json!("local-worker-runtime"))
    );
    let id = host["host_id"].as_str().unwrap();
    assert!(id.starts_with("local-local-test-"), "{id}");
    let here = service.get(&format!("/v1/hosts/{id}/workers")).await.ok();
    assert_eq!(here["items"], json!(all));
    let expected = [
        "local_pod_metadata_unreadable",
        "local_pod_metadata_invalid",
        "local_pod_workspace_root_missing",
        "local_pod_workspace_not_visible",
    ];
    assert_eq!(codes(&here["diagnostics"]), expected);
    let page = service.get(&format!("{RUNTIME}/workers?limit=2")).await.ok();
    assert_eq!(page["items"].as_array().unwrap(), &all[..2]);
    let after = all[1]["worker_id"].as_str().unwrap();
    let rest = service.get(&format!("{RUNTIME}/workers?after={after}")).await.ok();
    assert_eq!(rest["items"].as_array().unwrap(), &all[2..]);

    let runtime = service.get(RUNTIME).await.ok()["runtime"].clone();
    assert_eq!((&runtime["kind"], &runtime["host_ids"]), (&json!("local_pod"), &json!([id])));
    assert_eq!(runtime["source"]["kind"], "local_compatibility");
    let can = &runtime["capabilities"];
    assert_eq!(can["workspace_scope"], "current_workspace");
    assert_eq!(can["local_pod_inspection"], "available");
    for can_not in ["can_spawn_worker", "can_stop_worker", "can_accept_input", "can_stream_events"]
    {
        assert_eq!(can[can_not], false, "{can_not}");
    }

    let events = service.get("/v1/events?after=0").await.text();
    let answers = [json!(all), runtime, here, host].map(|answer| answer.to_string()).concat();
    let place = pods.0.path().to_str().unwrap().to_owned();
    for leak in ["canary", place.as_str(), &service.token()] {
        assert!(!answers.contains(leak) && !events.contains(leak), "{leak}");
        assert!(!service.log().contains(leak), "{leak}");
    }
}

#[tokio::test]
async fn what_is_found_and_lost_is_history() {
    let pods = Pods::new();
    pods.pod("one", &json!({}));
    let mut service = pods.start().await;
    let one = listed(&service, 1).await[0].clone();
    let first = service.head().await;
    pods.pod("two", &json!({}));
    listed(&service, 2).await;
    pods.pod("one", &json!({"active": {"segment_id": 7}}));
    eventually("it is active", || async {
        workers(&service).await.iter().any(|w| w["status"] == "active:segment").then_some(())
    })
    .await;
    let both = service.head().await;
    fs::remove_dir_all(pods.dir().join("one")).unwrap();
    let left = listed(&service, 1).await;
    assert_eq!(left[0]["label"], "TWO");
    let at = |seq: u64| format!("{RUNTIME}/workers?at={seq}");
    assert_eq!(service.get(&at(first)).await.ok()["items"], json!([one]));
    assert_eq!(service.get(&at(both)).await.ok()["items"].as_array().unwrap().len(), 2);
    let path = format!("{RUNTIME}/workers/{}", one["worker_id"].as_str().unwrap());
    service.get(&path).await.refused(404, "unknown_worker");
    assert_eq!(service.get(&format!("{path}?at={first}")).await.ok()["worker"], one);
    assert_eq!(service.events("after=0&type=local_worker_found").await.len(), 3);
    assert_eq!(service.events("after=0&type=local_worker_lost").await.len(), 1);

    // A directory that is away says nothing of who was in it, and one that is as it was is no news.
    fs::rename(pods.dir(), pods.0.path().join("away")).unwrap();
    let degraded = eventually("the host is degraded", || async {
        let host = host(&service).await;
        (host["status"] == "degraded").then_some(host)
    })
    .await;
    assert_eq!(codes(&degraded["diagnostics"]), ["local_pod_registry_unreadable"]);
    assert_eq!(workers(&service).await, left);
    fs::rename(pods.0.path().join("away"), pods.dir()).unwrap();
    eventually("the host is online", || async {
        (host(&service).await["status"] == "online").then_some(())
    })
    .await;
    service.kill9().await;
    service.restart().await;
    assert_eq!(workers(&service).await, left);
    pods.pod("three", &json!({}));
    listed(&service, 2).await;
    assert_eq!(service.events("after=0&type=local_worker_found").await.len(), 4);
    assert_eq!(service.events("after=0&type=local_worker_lost").await.len(), 1);
}

#[tokio::test]
async fn without_a_directory_the_host_is_degraded_and_unconfigured_there_is_no_runtime() {
    let service = Pods::new().options().start().await;
    let host = eventually("the directory was looked for", || async {
        let host = host(&service).await;
        (host["diagnostics"] != json!([])).then_some(host)
    })
    .await;
    assert_eq!(host["status"], "degraded");
    assert_eq!(codes(&host["diagnostics"]), ["local_pod_registry_unavailable"]);
    let runtime = service.get(RUNTIME).await.ok()["runtime"].clone();
    assert_eq!(runtime["capabilities"]["local_pod_inspection"], "unavailable");
    let list = service.get(&format!("{RUNTIME}/workers")).await.ok();
    assert_eq!(
        (&list["items"], codes(&list["diagnostics"])),
        (&json!([]), vec!["local_pod_registry_unavailable"])
    );

    let bare = Service::start().await;
    bare.get(RUNTIME).await.refused(404, "unknown_runtime");
    for args in [&["--pods-dir", "x"][..], &["--workspace-id", "x"], &["--workspace-root", "x"]] {
        let output = bare.command().arg("serve").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
