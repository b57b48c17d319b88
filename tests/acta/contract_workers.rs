//! Making workers, and what they look like.

use crate::support::{Options, Service, keys};
use serde_json::{Value, json};

const DETAIL_KEYS: [&str; 13] = [
    "execution",
    "intent",
    "last_event_id",
    "profile",
    "revision",
    "runtime_id",
    "sequence",
    "status",
    "template",
    "transcript_len",
    "version",
    "worker_id",
    "worker_ref",
];

fn with<'a>(base: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut all: Vec<_> = base.iter().chain(more).copied().collect();
    all.sort_unstable();
    all
}

fn request() -> Value {
    json!({"intent": {"kind": "assistant"}, "profile": {"kind": "runtime_default"}})
}

fn full_request() -> Value {
    json!({
        "intent": {"kind": "task", "objective": "Write the report"},
        "profile": {"kind": "builtin", "value": "builtin:coder"},
        "requested_capabilities": [{"name": "read"}, {"name": "write", "reason": "to save"}],
        "workspace_refs": [{"name": "main", "reference": "workspace:main"}],
        "mount_refs": [{"name": "docs", "reference": "mount:docs"}],
        "template": "echo",
    })
}

#[tokio::test]
async fn the_runtime_has_the_shape_of_the_contract() {
    let service = Service::start().await;
    let body = service.get("/v1/runtime").await.ok();
    assert_eq!(keys(&body), ["runtime"]);
    let runtime = &body["runtime"];
    assert_eq!(
        keys(runtime),
        [
            "active_worker_count",
            "backend",
            "cancelled_worker_count",
            "diagnostic_count",
            "display_name",
            "limits",
            "runtime_id",
            "status",
            "stopped_worker_count",
            "worker_count",
        ]
    );
    assert_eq!(runtime["runtime_id"], "embedded-worker-runtime");
    assert_eq!(runtime["status"], "running");
    assert_eq!(
        runtime["limits"],
        json!({"max_transcript_projection_items": 256, "max_event_batch_items": 256})
    );
    for count in ["worker", "active_worker", "stopped_worker", "cancelled_worker", "diagnostic"] {
        assert_eq!(runtime[format!("{count}_count")], 0);
    }
}

#[tokio::test]
async fn the_runtime_is_called_what_it_is_told_to_be() {
    let options = Options::default().arg("--runtime-id=mine").arg("--display-name").arg("My own");
    let service = options.start().await;
    let runtime = service.get("/v1/runtime").await.ok()["runtime"].clone();
    assert_eq!(
        (&runtime["runtime_id"], &runtime["display_name"]),
        (&json!("mine"), &json!("My own"))
    );
    let worker = service.spawn("echo").await;
    assert_eq!(service.worker(&worker).await["runtime_id"], "mine");
    let list = service.get("/v1/workers").await.ok();
    assert_eq!(
        list["workers"][0]["worker_ref"],
        json!({"runtime_id": "mine", "worker_id": worker})
    );
}

#[tokio::test]
async fn the_runtime_counts_its_workers_and_what_they_complain_about() {
    let service = Service::start().await;
    for end in ["stop", "cancel", "cancel"] {
        let worker = service.spawn("echo").await;
        service.post_empty(&format!("/v1/workers/{worker}/{end}")).await.ok();
    }
    let worker = service.spawn("complains").await;
    service.input(&worker, "way").await;
    crate::support::eventually("a diagnostic is counted", || async {
        let runtime = service.get("/v1/runtime").await.ok()["runtime"].clone();
        (runtime["diagnostic_count"] == 1).then_some(())
    })
    .await;
    let runtime = service.get("/v1/runtime").await.ok()["runtime"].clone();
    let counts = ["worker", "active_worker", "stopped_worker", "cancelled_worker"];
    let counts = counts.map(|count| runtime[format!("{count}_count")].as_u64().unwrap());
    assert_eq!(counts, [4, 1, 1, 2]);
}

#[tokio::test]
async fn a_worker_detail_has_the_shape_of_the_contract() {
    let service = Service::start().await;
    let body = service.post("/v1/workers", &full_request()).await.ok();
    assert_eq!(keys(&body), ["worker"]);
    let created = &body["worker"];
    let lists = ["mount_refs", "requested_capabilities", "workspace_refs"];
    assert_eq!(keys(created), with(&DETAIL_KEYS, &lists));
    let id = created["worker_id"].as_str().unwrap();
    let address = json!({"runtime_id": "embedded-worker-runtime", "worker_id": id});
    assert_eq!(created["worker_ref"], address);
    assert_eq!(created["runtime_id"], "embedded-worker-runtime");
    assert_eq!(created["status"], "running");
    assert_eq!(created["template"], "echo");
    assert_eq!(created["transcript_len"], 0);
    assert_eq!((&created["version"], &created["revision"]), (&json!(1), &json!(1)));
    assert!(created["last_event_id"].is_u64());
    assert_eq!(created["sequence"], created["last_event_id"]);
    for name in ["intent", "profile", "requested_capabilities", "workspace_refs", "mount_refs"] {
        assert_eq!(created[name], full_request()[name], "{name}");
    }
    let later = service.run_state(id, "idle").await;
    assert_eq!(keys(&later), with(&DETAIL_KEYS, &lists));
    assert_eq!(keys(&later["execution"]), ["backend", "last_result", "run_state"]);
    assert_eq!(
        later["execution"],
        json!({
            "backend": "connected",
            "run_state": "idle",
            "last_result": {"operation": "spawn", "outcome": "accepted", "run_state": "idle"},
        })
    );
    assert!(later["last_event_id"].as_u64() > created["last_event_id"].as_u64());
}

#[tokio::test]
async fn empty_lists_are_left_out_of_a_detail() {
    let service = Service::start().await;
    for lists in [json!([]), Value::Null] {
        let mut request = request();
        for name in ["requested_capabilities", "workspace_refs", "mount_refs"] {
            request[name] = lists.clone();
        }
        let created = service.post("/v1/workers", &request).await.ok()["worker"].clone();
        assert_eq!(keys(&created), DETAIL_KEYS);
    }
}

#[tokio::test]
async fn a_worker_summary_counts_in_place_of_the_lists() {
    let service = Service::start().await;
    let full = service.post("/v1/workers", &full_request()).await.ok()["worker"].clone();
    let bare = service.post("/v1/workers", &request()).await.ok()["worker"].clone();
    let body = service.get("/v1/workers").await.ok();
    assert_eq!(keys(&body), ["workers"]);
    let workers = body["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    let summary = |worker: &Value| {
        let found = workers.iter().find(|each| each["worker_id"] == worker["worker_id"]);
        found.unwrap().clone()
    };
    for (worker, capabilities) in [(&full, 2), (&bare, 0)] {
        let summary = summary(worker);
        let counts = ["has_config_bundle", "requested_capability_count"];
        assert_eq!(keys(&summary), with(&DETAIL_KEYS, &counts));
        assert_eq!(summary["requested_capability_count"], capabilities);
        assert_eq!(summary["has_config_bundle"], false);
        for name in ["worker_ref", "intent", "profile", "status", "template"] {
            assert_eq!(summary[name], worker[name], "{name}");
        }
    }
}

#[tokio::test]
async fn workers_are_listed_whole_or_in_pages() {
    let service = Service::start().await;
    let mut spawned = Vec::new();
    for _ in 0..5 {
        spawned.push(service.spawn("echo").await);
    }
    spawned.sort();
    let ids = |list: Value| -> Vec<String> {
        let workers = list["workers"].as_array().unwrap().iter();
        workers.map(|worker| worker["worker_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(service.get("/v1/workers").await.ok()), spawned);
    let mut paged = Vec::new();
    while let page @ [_, ..] = &ids(match paged.last() {
        None => service.get("/v1/workers?limit=2").await.ok(),
        Some(last) => service.get(&format!("/v1/workers?limit=2&after={last}")).await.ok(),
    })[..]
    {
        assert!(page.len() <= 2);
        paged.extend_from_slice(page);
    }
    assert_eq!(paged, spawned);
    assert_eq!(ids(service.get("/v1/workers?limit=0").await.ok()), [""; 0]);
}

#[tokio::test]
async fn every_kind_of_intent_is_kept_as_it_was_given() {
    let service = Service::start().await;
    for intent in [
        json!({"kind": "assistant"}),
        json!({"kind": "assistant", "purpose": "To help — \"quoted\"\nand more"}),
        json!({"kind": "task", "objective": "Write"}),
        json!({"kind": "role", "role": "reviewer"}),
        json!({"kind": "role", "role": "reviewer", "purpose": "A second pair of eyes"}),
    ] {
        let mut request = request();
        request["intent"] = intent.clone();
        let created = service.post("/v1/workers", &request).await.ok()["worker"].clone();
        assert_eq!(created["intent"], intent);
        let id = created["worker_id"].as_str().unwrap();
        assert_eq!(service.worker(id).await["intent"], intent);
    }
}

#[tokio::test]
async fn intent_and_profile_are_required() {
    let service = Service::start().await;
    for missing in ["intent", "profile"] {
        let mut request = request();
        request.as_object_mut().unwrap().remove(missing);
        let message = service.post("/v1/workers", &request).await.refused(400, "invalid_json");
        assert!(message.contains(missing), "{message}");
    }
    for (field, value) in [
        ("intent", json!({"kind": "dream"})),
        ("intent", json!({"kind": "task"})),
        ("intent", json!({"kind": "role"})),
        ("profile", json!({"kind": "builtin"})),
        ("profile", json!({"kind": "other", "value": "x"})),
        ("requested_capabilities", json!(["read"])),
    ] {
        let mut request = request();
        request[field] = value;
        service.post("/v1/workers", &request).await.refused(400, "invalid_json");
    }
}

#[tokio::test]
async fn blank_texts_are_invalid_request() {
    let service = Service::start().await;
    for blank in ["", " ", "\n\t "] {
        for (field, value) in [
            ("intent", json!({"kind": "task", "objective": blank})),
            ("intent", json!({"kind": "role", "role": blank})),
            ("requested_capabilities", json!([{"name": "read"}, {"name": blank}])),
            ("workspace_refs", json!([{"name": blank, "reference": "r"}])),
            ("mount_refs", json!([{"name": "n", "reference": blank}])),
        ] {
            let mut request = request();
            request[field] = value;
            service.post("/v1/workers", &request).await.refused(400, "invalid_request");
        }
    }
    assert_eq!(service.get("/v1/workers").await.ok()["workers"], json!([]));
}

#[tokio::test]
async fn a_named_profile_needs_a_bundle() {
    let service = Service::start().await;
    let mut request = request();
    request["profile"] = json!({"kind": "named", "value": "reviewer"});
    let message =
        service.post("/v1/workers", &request).await.refused(400, "invalid_profile_selector");
    assert!(message.contains("reviewer"), "{message}");
    for value in ["", " ", "/bin/sh"] {
        request["profile"] = json!({"kind": "builtin", "value": value});
        service.post("/v1/workers", &request).await.refused(400, "invalid_profile_selector");
    }
}

#[tokio::test]
async fn a_template_that_is_named_is_taken_or_refused() {
    let service = Service::start().await;
    let mut request = request();
    request["template"] = json!("lines");
    assert_eq!(service.post("/v1/workers", &request).await.ok()["worker"]["template"], "lines");
    for (template, told) in
        [("no-such", "no-such"), ("library", "library"), ("external", "external")]
    {
        request["template"] = json!(template);
        let message = service.post("/v1/workers", &request).await.refused(400, "invalid_request");
        assert!(message.contains(told), "{message}");
    }
}

#[tokio::test]
async fn without_a_template_the_profile_decides_and_then_the_default() {
    let service = Service::start().await;
    for (profile, template) in [
        (json!({"kind": "runtime_default"}), "echo"),
        (json!({"kind": "builtin", "value": "numbered"}), "lines"),
        (json!({"kind": "builtin", "value": "builtin:numbered"}), "lines"),
        (json!({"kind": "builtin", "value": "builtin:coder"}), "echo"),
    ] {
        let mut request = request();
        request["profile"] = profile;
        let created = service.post("/v1/workers", &request).await.ok();
        assert_eq!(created["worker"]["template"], template);
    }
}

#[tokio::test]
async fn a_worker_whose_template_cannot_be_started_is_created_unconnected() {
    let service = Service::start().await;
    let mut request = request();
    request["profile"] = json!({"kind": "builtin", "value": "nothing"});
    let created = service.post("/v1/workers", &request).await.ok()["worker"].clone();
    assert_eq!(created["execution"], json!({"backend": "unconnected", "run_state": "unconnected"}));
    assert_eq!(created["status"], "running");
    assert!(!keys(&created).contains(&"template"));

    let manifest = json!({"workspace_templates": [{"name": "library"}]});
    let service = Options::default().manifest(manifest).start().await;
    request["profile"] = json!({"kind": "runtime_default"});
    let created = service.post("/v1/workers", &request).await.ok()["worker"].clone();
    assert_eq!(created["execution"]["backend"], "unconnected");
}

#[tokio::test]
async fn hosts_and_runtimes_are_listed() {
    let service = Service::start().await;
    let body = service.get("/v1/runtimes").await.ok();
    assert_eq!(keys(&body), ["diagnostics", "items"]);
    let own = &body["items"][0];
    assert_eq!(own["runtime_id"], "embedded-worker-runtime");
    let startable = |name: &str| {
        let templates = own["templates"].as_array().unwrap();
        templates.iter().find(|each| each["name"] == name).unwrap()["startable"].clone()
    };
    assert_eq!((startable("echo"), startable("library")), (json!(true), json!(false)));
    let one = service.get("/v1/runtimes/embedded-worker-runtime").await.ok();
    assert_eq!(one["runtime"], *own);
    service.get("/v1/runtimes/other").await.refused(404, "unknown_runtime");
    service.get("/v1/runtimes/%20").await.refused(400, "invalid_identifier");
    let hosts = service.get("/v1/hosts").await.ok();
    assert_eq!(hosts["items"].as_array().unwrap().len(), 1);
    assert_eq!(own["host_ids"], json!([hosts["items"][0]["host_id"]]));
    for path in ["/v1/runtimes", "/v1/hosts"] {
        service.get(&format!("{path}?limit=257")).await.refused(400, "limit_too_large");
    }
}
