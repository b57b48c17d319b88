//! Config bundles.

use crate::support::{Service, keys};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The digest of a bundle, by the words of the contract alone.
fn digest(bundle: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &bundle["metadata"];
    let mut lines: Vec<Vec<String>> = vec![
        vec!["id".into(), text(&metadata["id"])],
        vec!["revision".into(), text(&metadata["revision"])],
        vec!["workspace_id".into(), text(&metadata["workspace_id"])],
        vec!["created_at".into(), text(&metadata["created_at"])],
        vec!["provenance.source".into(), text(&metadata["provenance"]["source"])],
        vec!["provenance.detail".into(), text(&metadata["provenance"]["detail"])],
    ];
    for profile in bundle["profiles"].as_array().into_iter().flatten() {
        let mut line = vec!["profile".to_owned()];
        match &profile["selector"] {
            Value::String(value) => line.push(value.clone()),
            selector => {
                line.push(text(&selector["kind"]));
                line.extend(selector["value"].as_str().map(str::to_owned));
            }
        }
        line.push(text(&profile["label"]));
        lines.push(line);
    }
    for declaration in bundle["declarations"].as_array().into_iter().flatten() {
        let fields = ["kind", "name", "reference"].map(|name| text(&declaration[name]));
        lines.push(["declaration".to_owned()].into_iter().chain(fields).collect());
    }
    let mut lines: Vec<String> = lines.iter().map(|line| line.join("\0") + "\n").collect();
    lines.sort();
    let hash = Sha256::digest(lines.concat());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signed(mut bundle: Value) -> Value {
    bundle["metadata"]["digest"] = digest(&bundle).into();
    bundle
}

pub fn bundle() -> Value {
    signed(json!({
        "metadata": {
            "id": "team-1",
            "digest": "",
            "revision": "r7",
            "workspace_id": "workspace-main",
            "created_at": "2026-11-20T19:14:00Z",
            "provenance": {"source": "control-plane", "detail": "made by hand"},
        },
        "profiles": [
            {"selector": {"kind": "named", "value": "reviewer"}, "label": "Reviewer"},
            {"selector": {"kind": "builtin", "value": "builtin:coder"}},
            {"selector": {"kind": "runtime_default"}},
        ],
        "declarations": [
            {"kind": "secret_ref", "name": "github", "reference": "secret:github"},
            {"kind": "mount_grant", "name": "docs", "reference": "mount:docs"},
        ],
    }))
}

fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut bundle = bundle();
    change(&mut bundle);
    json!({ "bundle": signed(bundle) })
}

#[tokio::test]
async fn a_stored_bundle_is_available_under_its_digest() {
    let service = Service::start().await;
    let bundle = bundle();
    let body = service.post("/v1/config-bundles", &json!({"bundle": bundle})).await.ok();
    assert_eq!(keys(&body), ["availability"]);
    let digest = digest(&bundle);
    assert_eq!(
        body["availability"],
        json!({
            "reference": {"id": "team-1", "digest": digest},
            "summary": {
                "id": "team-1",
                "digest": digest,
                "digest_algorithm": "sha256",
                "revision": "r7",
                "workspace_id": "workspace-main",
                "created_at": "2026-11-20T19:14:00Z",
                "provenance": {"source": "control-plane", "detail": "made by hand"},
                "profile_count": 3,
                "declaration_count": 2,
            },
        })
    );
    let path = format!("/v1/config-bundles/team-1/availability?digest={digest}");
    assert_eq!(service.get(&path).await.ok(), body);
    let list = service.get("/v1/config-bundles").await.ok();
    assert_eq!(list, json!({"bundles": [body["availability"]["summary"]]}));
    // Once more is not one more.
    assert_eq!(service.post("/v1/config-bundles", &json!({"bundle": bundle})).await.ok(), body);
    assert_eq!(service.events("type=config_bundle_stored").await.len(), 1);
}

#[tokio::test]
async fn bundles_survive_a_restart() {
    let mut service = Service::start().await;
    service.post("/v1/config-bundles", &json!({"bundle": bundle()})).await.ok();
    let before = service.get("/v1/config-bundles").await.ok();
    service.kill9().await;
    service.restart().await;
    assert_eq!(service.get("/v1/config-bundles").await.ok(), before);
}

#[tokio::test]
async fn a_bundle_without_lists_or_detail_is_fine() {
    let service = Service::start().await;
    let body = changed(|bundle| {
        let metadata = &bundle["metadata"];
        *bundle = json!({"metadata": metadata});
        bundle["metadata"]["provenance"] = json!({"source": "x"});
    });
    let stored = service.post("/v1/config-bundles", &body).await.ok();
    let summary = &stored["availability"]["summary"];
    assert_eq!((&summary["profile_count"], &summary["declaration_count"]), (&json!(0), &json!(0)));
    assert_eq!(summary["provenance"], json!({"source": "x"}));
}

#[tokio::test]
async fn the_order_of_profiles_and_declarations_does_not_matter() {
    let service = Service::start().await;
    let first = service.post("/v1/config-bundles", &json!({"bundle": bundle()})).await.ok();
    let body = changed(|bundle| {
        bundle["profiles"].as_array_mut().unwrap().reverse();
        bundle["declarations"].as_array_mut().unwrap().reverse();
    });
    assert_eq!(service.post("/v1/config-bundles", &body).await.ok(), first);
}

#[tokio::test]
async fn availability_needs_a_digest_and_tells_missing_from_mismatched() {
    let service = Service::start().await;
    service.post("/v1/config-bundles", &json!({"bundle": bundle()})).await.ok();
    let path = |id: &str, rest: &str| format!("/v1/config-bundles/{id}/availability{rest}");
    let other = format!("?digest={}", "0".repeat(64));
    service.get(&path("team-1", "")).await.refused(400, "invalid_query");
    service.get(&path("team-1", "?digest=short")).await.refused(400, "invalid_request");
    service.get(&path("a%20b", &other)).await.refused(400, "invalid_request");
    service.get(&path("team-1", &other)).await.refused(400, "config_bundle_digest_mismatch");
    let message = service.get(&path("team-2", &other)).await.refused(404, "config_bundle_missing");
    assert!(message.contains("team-2"), "{message}");
}

#[tokio::test]
async fn a_bundle_whose_own_digest_does_not_match_is_refused() {
    let service = Service::start().await;
    let changes: [fn(&mut Value); 9] = [
        |bundle| bundle["metadata"]["digest"] = json!("0".repeat(64)),
        |bundle| bundle["metadata"]["id"] = json!("team-2"),
        |bundle| bundle["metadata"]["revision"] = json!("r8"),
        |bundle| bundle["metadata"]["workspace_id"] = json!("other"),
        |bundle| bundle["metadata"]["created_at"] = json!("2026-11-20T19:14:01Z"),
        |bundle| bundle["metadata"]["provenance"]["source"] = json!("other"),
        |bundle| bundle["metadata"]["provenance"]["detail"] = json!("other"),
        |bundle| bundle["profiles"][0]["label"] = json!("Other"),
        |bundle| bundle["declarations"][0]["reference"] = json!("secret:gitlab"),
    ];
    for change in changes {
        let mut bundle = bundle();
        change(&mut bundle);
        let answer = service.post("/v1/config-bundles", &json!({ "bundle": bundle })).await;
        answer.refused(400, "config_bundle_digest_mismatch");
    }
    assert_eq!(service.get("/v1/config-bundles").await.ok(), json!({"bundles": []}));
}

#[tokio::test]
async fn the_form_of_id_and_digest_is_checked() {
    let service = Service::start().await;
    for id in ["a", "0", "A-b_c.d:e", &"x".repeat(128)] {
        let body = changed(|bundle| bundle["metadata"]["id"] = json!(id));
        service.post("/v1/config-bundles", &body).await.ok();
    }
    for id in ["", "-a", ".a", ":a", "_a", "a b", "a/b", "ä", &"x".repeat(129)] {
        let body = changed(|bundle| bundle["metadata"]["id"] = json!(id));
        service.post("/v1/config-bundles", &body).await.refused(400, "invalid_request");
    }
    let upper = digest(&bundle()).to_uppercase();
    for digest in ["", "0", &"g".repeat(64), &"0".repeat(65), &upper] {
        let mut bundle = bundle();
        bundle["metadata"]["digest"] = json!(digest);
        let answer = service.post("/v1/config-bundles", &json!({ "bundle": bundle })).await;
        answer.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn every_kind_takes_its_own_prefixes_only() {
    let service = Service::start().await;
    let kinds: [(&str, &[&str]); 6] = [
        ("secret_ref", &["secret:", "secret-ref:", "vault:", "keyring:"]),
        ("mount_grant", &["mount:", "mount-grant:"]),
        ("network_policy", &["network:", "network-policy:"]),
        ("shell_policy", &["shell:", "shell-policy:"]),
        ("git_policy", &["git:", "git-policy:"]),
        ("capability_grant", &["capability:", "capability-grant:"]),
    ];
    let every: Vec<&str> = kinds.iter().flat_map(|(_, prefixes)| *prefixes).copied().collect();
    for (kind, own) in kinds {
        for prefix in &every {
            let body = changed(|bundle| {
                let reference = format!("{prefix}A-1_b.c@d+e");
                bundle["declarations"] =
                    json!([{"kind": kind, "name": "n", "reference": reference}]);
            });
            let answer = service.post("/v1/config-bundles", &body).await;
            if own.contains(prefix) {
                answer.ok();
            } else {
                answer.refused(400, "unsupported_config_declaration");
            }
        }
    }
    for (kind, reference) in [
        ("unsupported", "secret:x"),
        ("other", "secret:x"),
        ("", "secret:x"),
        ("secret_ref", "github"),
        ("secret_ref", "secret:"),
        ("secret_ref", "SECRET:x"),
    ] {
        let body = changed(|bundle| {
            bundle["declarations"] = json!([{"kind": kind, "name": "n", "reference": reference}]);
        });
        let answer = service.post("/v1/config-bundles", &body).await;
        answer.refused(400, "unsupported_config_declaration");
    }
}

#[tokio::test]
async fn a_reference_has_only_the_characters_of_references() {
    let service = Service::start().await;
    for bad in
        ["secret:a b", "secret:a/b", "secret:ä", "secret:a\\b", "secret:$(x)", "secret:a=b", ""]
    {
        let body = changed(|bundle| bundle["declarations"][0]["reference"] = json!(bad));
        let message =
            service.post("/v1/config-bundles", &body).await.refused(400, "invalid_request");
        assert!(bad.is_empty() || !message.contains(bad), "it may be a secret: {message}");
    }
    let long = format!("secret:{}", "x".repeat(2048));
    let body = changed(|bundle| bundle["declarations"][0]["reference"] = json!(long));
    service.post("/v1/config-bundles", &body).await.refused(400, "invalid_request");
}

#[tokio::test]
async fn texts_are_bounded_and_name_no_place_on_a_machine() {
    let service = Service::start().await;
    let long = "x".repeat(2049);
    let bad = [
        "a\u{7}",
        "a\nb",
        "a\0b",
        "/etc/passwd",
        "~/x",
        " /x",
        "a.sock",
        "unix:/run/x",
        "~",
        ".cache/x",
        &long,
    ];
    let fields: [(&str, &[&str]); 8] = [
        ("/metadata/revision", &[]),
        ("/metadata/workspace_id", &[]),
        ("/metadata/created_at", &[]),
        ("/metadata/provenance/source", &[]),
        ("/metadata/provenance/detail", &[""]),
        ("/profiles/0/label", &[""]),
        ("/declarations/0/name", &[]),
        ("/profiles/0/selector/value", &[]),
    ];
    for (field, fine) in fields {
        let code = if field.ends_with("selector/value") {
            "invalid_profile_selector"
        } else {
            "invalid_request"
        };
        let with = |text: &str| changed(|bundle| *bundle.pointer_mut(field).unwrap() = json!(text));
        for text in bad {
            service.post("/v1/config-bundles", &with(text)).await.refused(400, code);
        }
        for text in ["", " "] {
            if field.ends_with("detail") || field.ends_with("label") {
                continue;
            }
            service.post("/v1/config-bundles", &with(text)).await.refused(400, code);
        }
        for text in fine {
            service.post("/v1/config-bundles", &with(text)).await.ok();
        }
    }
    let most = "x".repeat(2048);
    let body = changed(|bundle| bundle["metadata"]["provenance"]["detail"] = json!(most));
    service.post("/v1/config-bundles", &body).await.ok();
}

#[tokio::test]
async fn with_a_bundle_the_profile_must_be_declared_in_it() {
    let service = Service::start().await;
    let bundle = bundle();
    service.post("/v1/config-bundles", &json!({"bundle": bundle})).await.ok();
    let reference = json!({"id": "team-1", "digest": digest(&bundle)});
    let create = |profile: Value, bundle: Value| {
        let request = json!({
            "intent": {"kind": "assistant"}, "profile": profile, "config_bundle": bundle,
        });
        let service = &service;
        async move { service.post("/v1/workers", &request).await }
    };
    for profile in [
        json!({"kind": "named", "value": "reviewer"}),
        json!({"kind": "builtin", "value": "builtin:coder"}),
        json!({"kind": "runtime_default"}),
    ] {
        let worker = create(profile.clone(), reference.clone()).await.ok()["worker"].clone();
        assert_eq!((&worker["config_bundle"], &worker["profile"]), (&reference, &profile));
    }
    let list = service.get("/v1/workers").await.ok();
    let workers = list["workers"].as_array().unwrap();
    assert!(workers.iter().all(|worker| worker["has_config_bundle"] == true));
    for profile in
        [json!({"kind": "named", "value": "other"}), json!({"kind": "builtin", "value": "other"})]
    {
        let answer = create(profile, reference.clone()).await;
        answer.refused(400, "invalid_profile_selector");
    }
    let profile = json!({"kind": "runtime_default"});
    for (id, digest, status, code) in [
        ("team-2", "0".repeat(64), 404, "config_bundle_missing"),
        ("team-1", "0".repeat(64), 400, "config_bundle_digest_mismatch"),
        ("team-1", "short".into(), 400, "invalid_request"),
        ("a b", "0".repeat(64), 400, "invalid_request"),
    ] {
        let answer = create(profile.clone(), json!({"id": id, "digest": digest})).await;
        answer.refused(status, code);
    }
}

#[tokio::test]
async fn a_bundle_whose_profile_is_a_plain_text_can_be_selected() {
    let service = Service::start().await;
    let body = changed(|bundle| bundle["profiles"] = json!([{"selector": "reviewer"}]));
    let stored = service.post("/v1/config-bundles", &body).await.ok();
    let request = json!({
        "intent": {"kind": "assistant"},
        "profile": {"kind": "named", "value": "reviewer"},
        "config_bundle": stored["availability"]["reference"],
    });
    service.post("/v1/workers", &request).await.ok();
}
