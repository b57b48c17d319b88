//! The bounds of the registry, and where its templates come from.

use super::{
    registry_rules::{codes, spawn},
    support::{Options, Service},
};
use serde_json::{Value, json};
use std::fs;

const OWN: &str = "embedded-worker-runtime";

#[tokio::test]
async fn an_identifier_has_120_characters_and_no_more() {
    let service = Service::start().await;
    let (most, more) = ("x".repeat(120), "x".repeat(121));
    let own = format!("/v1/runtimes/{OWN}/workers");
    for (path, id, code) in [
        ("/v1/runtimes/{}", most.as_str(), "unknown_runtime"),
        ("/v1/runtimes/{}/workers", &most, "unknown_runtime"),
        ("/v1/hosts/{}", &most, "unknown_host"),
        ("/v1/hosts/{}/workers", &most, "unknown_host"),
        (&format!("{own}/{{}}"), &most, "unknown_worker"),
        (&format!("{own}/{{}}/transcript"), "A-Z_a:9", "unknown_worker"),
    ] {
        service.get(&path.replace("{}", id)).await.refused(404, code);
        for wrong in [&more, "..%2Fsecret", "%20", "a.b", "%C3%A9", "a%0Ab"] {
            let path = path.replace("{}", wrong);
            let said = service.get(&path).await.refused(400, "invalid_identifier");
            assert!(!said.contains(&more), "{said}");
            assert!(*wrong != more || said.contains(&most), "cut to 120: {said}");
        }
    }
    for list in ["/v1/runtimes", "/v1/hosts", &own] {
        let said = service.get(&format!("{list}?after=..%2Fsecret")).await;
        said.refused(400, "invalid_identifier");
        service.get(&format!("{list}?limit=257")).await.refused(400, "limit_too_large");
    }
    let host = |id: &str| json!({"host_id": id});
    service.post("/v1/hosts", &host(&most)).await.ok();
    service.post("/v1/hosts", &host(&more)).await.refused(400, "invalid_identifier");
    assert_eq!(service.get(&format!("/v1/hosts/{most}")).await.ok()["host"]["host_id"], most);
}

#[tokio::test]
async fn a_list_is_told_in_pages_with_at_most_sixteen_diagnostics() {
    let service = Service::start().await;
    for n in 0..20 {
        let remote = json!({
            "runtime_id": format!("down-{n:02}"), "kind": "remote_http",
            "url": "http://127.0.0.1:9", "token_env": "NO_SUCH_VARIABLE",
        });
        service.post("/v1/runtimes", &remote).await.ok();
    }
    for (list, id) in [("/v1/runtimes", "runtime_id"), ("/v1/hosts", "host_id")] {
        let whole = service.get(list).await.ok();
        let items = whole["items"].as_array().unwrap();
        assert!(items.len() > 20, "{whole}");
        assert_eq!(codes(&whole), ["remote_token_missing"; 16]);
        let mut pages = Vec::new();
        let mut after = String::new();
        loop {
            let page = service.get(&format!("{list}?limit=3{after}")).await.ok();
            let page = page["items"].as_array().unwrap().clone();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 3);
            after = format!("&after={}", last[id].as_str().unwrap());
            pages.extend(page);
        }
        let ids = |items: &[Value]| items.iter().map(|item| item[id].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&pages), ids(items), "each once, in the same order");
    }
}

#[tokio::test]
async fn an_input_is_a_users_unless_it_says_otherwise_and_a_caller_names_no_place() {
    let service = Service::start().await;
    let own = format!("/v1/runtimes/{OWN}/workers");
    let mut asked = spawn();
    for (name, value) in [
        ("working_directory", json!("/canary-directory")),
        ("cwd", json!("/canary-directory")),
        ("executable", json!("/canary-program")),
        ("argv", json!(["/canary-program"])),
        ("env", json!({"CANARY": "canary-value"})),
    ] {
        asked[name] = value.clone();
        asked["intent"][name] = value;
    }
    let spawned = service.post(&own, &asked).await.ok();
    let worker = spawned["worker"]["worker_id"].as_str().unwrap().to_owned();
    service.run_state(&worker, "idle").await;
    let input = format!("{own}/{worker}/input");
    service.post(&input, &json!({"content": "one"})).await.ok();
    // One after the other, so that there are two answers.
    service.rests(&worker, 2).await;
    service.post(&input, &json!({"kind": "system", "content": "two"})).await.ok();
    service
        .post(&input, &json!({"kind": "robot", "content": "x"}))
        .await
        .refused(400, "invalid_json");
    service.rests(&worker, 4).await;
    let said = service.transcript(&worker).await;
    let items = said["items"].as_array().unwrap();
    let roles: Vec<_> = items.iter().map(|item| item["role"].as_str().unwrap()).collect();
    assert_eq!(roles.iter().filter(|role| **role == "user").count(), 1, "{said}");
    assert_eq!(roles.iter().filter(|role| **role == "system").count(), 1, "{said}");
    let events = service.get("/v1/events?after=0").await.text();
    assert!(!events.contains("canary"), "{events}");
}

#[tokio::test]
async fn templates_are_what_the_manifest_says_and_without_one_a_list_of_names() {
    let exec = json!({"argv": ["cat"]});
    let templates = json!([
        {"name": "  echo-default ", "exec": exec, "unheard": ["of"]},
        {"name": "   ", "exec": exec},
        {"exec": exec},
        {"name": "hermes-minimax", "runtime": "hermes", "exec": exec},
        {"name": "hermes-anthropic", "runtime": "hermes", "exec": {"argv": ["cat", "-u"]}},
        {"name": "library", "note": "A library."},
    ]);
    let manifest = json!({
        "workspace_templates": templates, "profiles": {"builtin:coder": "hermes-anthropic"},
        "default_template": "echo", "unheard": "of",
    });
    let mut service = Options::default().manifest(manifest).start().await;
    let known = |service: &Service| {
        let runtime = service.request(reqwest::Method::GET, &format!("/v1/runtimes/{OWN}"));
        let client = service.with_token(&service.token());
        async move {
            let runtime = client.send(runtime).await.ok()["runtime"].clone();
            let all = runtime["templates"].as_array().unwrap().clone();
            all.iter().map(|each| each["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(known(&service).await, ["echo", "hermes", "library", "external"]);
    let create = |template: Value, profile: Value| json!({"intent": {"kind": "assistant"}, "profile": profile, "template": template});
    let default = json!({"kind": "runtime_default"});
    let coder = json!({"kind": "builtin", "value": "builtin:coder"});
    let by_name = json!({"kind": "builtin", "value": "builtin:hermes"});
    for (template, profile, chosen) in [
        (json!("echo-default"), &default, "echo"),
        (json!("hermes"), &default, "hermes"),
        (json!(null), &coder, "hermes-anthropic"),
        (json!(null), &by_name, "hermes"),
        (json!(null), &default, "echo"),
    ] {
        let made = service.post("/v1/workers", &create(template, profile.clone())).await.ok();
        assert_eq!(made["worker"]["template"], chosen);
    }
    for (template, why) in [("library", "exec"), ("nothing", "echo, hermes")] {
        let asked = create(json!(template), default.clone());
        let said = service.post("/v1/workers", &asked).await.refused(400, "invalid_request");
        assert!(said.contains(why), "{said}");
    }

    fs::remove_file(service.root().join("manifest.json")).unwrap();
    service.kill9().await;
    let before = service.log().len();
    service.restart().await;
    let fallback = [
        "langgraph",
        "claude-code",
        "openclaw",
        "crewai",
        "autogen",
        "deepagents",
        "hermes",
        "codex",
        "gemini-cli",
        "external",
    ];
    assert_eq!(known(&service).await, fallback);
    let log = service.log()[before..].to_owned();
    assert!(log.contains("manifest.json") && log.contains("No such file"), "{log}");
    let made = service.post("/v1/workers", &create(json!(null), default.clone())).await.ok();
    assert_eq!(made["worker"]["execution"]["backend"], "unconnected");
    let asked = create(json!("codex"), default);
    service.post("/v1/workers", &asked).await.refused(400, "invalid_request");
    // What was recorded is the history of the list.
    let then = service.get(&format!("/v1/runtimes/{OWN}?at=3")).await.ok();
    assert_eq!(then["runtime"]["templates"][0]["name"], "echo");
}

#[tokio::test]
async fn what_the_runtime_cannot_read_is_rejected_by_name_and_no_path_is_told() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    let path = format!("/v1/runtimes/{OWN}/workers/{worker}/transcript");
    let large = service.get(&format!("{path}?start=2&limit=257")).await.ok();
    assert_eq!(codes(&large), ["embedded_runtime_limit_too_large"]);
    let page = (&large["state"], &large["start"], &large["limit"], &large["items"]);
    assert_eq!(page, (&json!("rejected"), &json!(2), &json!(257), &json!([])));
    service.get(&format!("{path}?limit=x")).await.refused(400, "invalid_query");

    let text = "A content of this size has a file of its own. ".repeat(1_000);
    service.input(&worker, &text).await;
    service.run_state(&worker, "idle").await;
    for dir in fs::read_dir(service.data().join("content")).unwrap() {
        for file in fs::read_dir(dir.unwrap().path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    let missing = service.get(&path).await.ok();
    assert_eq!(
        (&missing["state"], codes(&missing)),
        (&json!("rejected"), vec!["embedded_runtime_store_error"])
    );
    assert!(!missing.to_string().contains(service.root().to_str().unwrap()), "{missing}");
}
