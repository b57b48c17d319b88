use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Computed by another program from the description of the digest.
const GOLDEN: &str = "24a2ca879ee8ad738e2f3b3743b3737b74d8c252bd2f5445ad1ea37b07f2caf7";

fn example() -> Value {
    json!({
        "metadata": {
            "id": "bundle-1",
            "digest": GOLDEN,
            "revision": "rev-1",
            "workspace_id": "workspace-1",
            "created_at": "2026-06-26T00:00:00Z",
            "provenance": {"source": "test"},
            "unknown": 1,
        },
        "profiles": [
            {"selector": {"kind": "builtin", "value": "builtin:coder"}, "label": "Coder"},
            {"selector": {"kind": "runtime_default"}},
            {"selector": "reviewer"},
        ],
        "declarations": [
            {"kind": "secret_ref", "name": "credential", "reference": "secret:github-token"},
            {"kind": "mount_grant", "name": "repo", "reference": "mount:repo"},
        ],
        "unknown": {},
    })
}

fn bundle(json: Value) -> ConfigBundle {
    serde_json::from_value(json).expect("it has the shape of a bundle")
}

/// With its own digest right, so that only what follows can be wrong.
fn signed(json: Value) -> ConfigBundle {
    let mut bundle = bundle(json);
    bundle.metadata.digest = digest(&bundle).to_string();
    bundle
}

fn with(pointer: &str, value: Value) -> Value {
    let mut json = example();
    *json.pointer_mut(pointer).expect("the example has that field") = value;
    json
}

#[test]
fn the_digest_is_the_one_that_other_implementations_compute() {
    check(bundle(example())).expect("its digest was computed by hand");
}

#[test]
fn a_stored_bundle_says_what_it_is_without_its_document() {
    let checked = check(bundle(example())).unwrap();
    let profiles: Vec<_> = checked.stored.profiles.iter().map(String::as_str).collect();
    assert_eq!(profiles, ["builtin:coder", "reviewer", "runtime_default"]);
    let summary = json!({
        "id": "bundle-1",
        "digest": GOLDEN,
        "digest_algorithm": "sha256",
        "revision": "rev-1",
        "workspace_id": "workspace-1",
        "created_at": "2026-06-26T00:00:00Z",
        "provenance": {"source": "test"},
        "profile_count": 3,
        "declaration_count": 2,
    });
    let reference = json!({"id": "bundle-1", "digest": GOLDEN});
    assert_eq!(
        serde_json::to_value(Availability::from(&checked.stored)).unwrap(),
        json!({"reference": reference, "summary": summary})
    );
    let again: ConfigBundle = serde_json::from_slice(&checked.document).unwrap();
    assert_eq!(check(again).unwrap(), checked, "a document that was read back is the same");
}

#[test]
fn what_is_wrong_is_named() {
    let long = "x".repeat(2049);
    let many: Vec<_> = (0..257).map(|n| json!({"selector": format!("p{n}")})).collect();
    let secrets: Vec<_> = (0..257)
        .map(|n| json!({"kind": "secret_ref", "name": format!("{n}"), "reference": "secret:a"}))
        .collect();
    let wide: Vec<_> =
        (0..100).map(|n| json!({"selector": format!("{n}{}", "p".repeat(200))})).collect();
    let rows = [
        ("/metadata/id", json!(""), "invalid_request", "metadata.id"),
        ("/metadata/id", json!("-a"), "invalid_request", "metadata.id"),
        ("/metadata/id", json!("bundle/1"), "invalid_request", "metadata.id"),
        ("/metadata/id", json!("a".repeat(129)), "invalid_request", "metadata.id"),
        ("/metadata/revision", json!(" "), "invalid_request", "metadata.revision"),
        ("/metadata/revision", json!(long), "invalid_request", "2048 characters"),
        ("/metadata/workspace_id", json!("~/x"), "invalid_request", "metadata.workspace_id"),
        ("/metadata/created_at", json!("a\nb"), "invalid_request", "a\\nb"),
        ("/metadata/provenance/source", json!(""), "invalid_request", "provenance.source"),
        ("/metadata/provenance/source", json!("/etc"), "invalid_request", "provenance.source"),
        ("/profiles", json!(many), "invalid_request", "at most 256"),
        ("/profiles", json!(wide), "invalid_request", "profile selectors"),
        ("/profiles/2/selector", json!(" "), "invalid_profile_selector", "profiles[2].selector"),
        ("/profiles/2/selector", json!("/bin"), "invalid_profile_selector", "profiles[2].selector"),
        ("/profiles/0/label", json!("\u{1b}[1m"), "invalid_request", "profiles[0].label"),
        ("/declarations", json!(secrets), "invalid_request", "at most 256"),
        ("/declarations/1/name", json!(""), "invalid_request", "declarations[1].name"),
        ("/declarations/1/kind", json!("unsupported"), "unsupported_config_declaration", "`repo`"),
        ("/declarations/1/kind", json!("magic"), "unsupported_config_declaration", "mount_grant"),
        ("/declarations/1/kind", json!("git_policy"), "unsupported_config_declaration", "git:"),
        ("/declarations/1/reference", json!(" "), "invalid_request", "declarations[1].reference"),
    ];
    for (pointer, value, code, named) in rows {
        let refused = check(signed(with(pointer, value.clone()))).expect_err(pointer);
        assert_eq!(refused.code.as_str(), code, "{pointer} = {value}: {refused}");
        assert!(refused.message.contains(named), "{pointer} = {value}: {refused}");
    }
}

#[test]
fn a_digest_that_is_malformed_or_wrong_is_refused() {
    let upper = GOLDEN.to_uppercase();
    for malformed in ["", "abc", &upper, &format!(" {GOLDEN}")] {
        let refused = check(bundle(with("/metadata/digest", json!(malformed)))).unwrap_err();
        assert_eq!(refused.code, Code::InvalidRequest, "{malformed}");
    }
    let refused = check(bundle(with("/metadata/revision", json!("rev-2")))).unwrap_err();
    assert_eq!(refused.code, Code::ConfigBundleDigestMismatch);
    let actual = signed(with("/metadata/revision", json!("rev-2"))).metadata.digest;
    assert!(refused.message.contains(&actual), "it names the digest that would be right");
    // The digest is checked before what it covers.
    let refused = check(bundle(with("/declarations/0/kind", json!("unsupported")))).unwrap_err();
    assert_eq!(refused.code, Code::ConfigBundleDigestMismatch);
}

#[test]
fn a_reference_to_a_bundle_is_checked_for_its_form() {
    let reference = |id: &str, digest: &str| BundleRef { id: id.into(), digest: digest.into() };
    check_ref(&reference("b.1:x_y-z", &"0".repeat(64))).unwrap();
    for (id, digest) in [("a/b", "0".repeat(64)), ("a", "0".repeat(63)), ("a", "G".repeat(64))] {
        let refused = check_ref(&reference(id, &digest)).unwrap_err();
        assert_eq!(refused.code, Code::InvalidRequest);
    }
}

#[test]
fn everything_that_makes_a_path_is_refused() {
    for reference in [
        "/etc/passwd",
        "~root",
        "secret:a/b",
        "secret:a\\b",
        "secret:a b",
        "secret:",
        "secret",
        "Secret:a",
        "mount:a",
        "hunter2",
        "password=hunter2",
        "secret:x.sock",
        "secret:.cache.x",
        "secret:CACHE_PATH",
        "secret:session_path",
        "secret:é",
        " secret:a",
        "secret:a\n",
    ] {
        let json = with("/declarations/0/reference", json!(reference));
        assert!(check(signed(json)).is_err(), "{reference:?} was accepted");
    }
}

fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 :._-]{0,8}"
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        Just(Selector::Kind(ProfileSelector::RuntimeDefault)),
        "[a-z:]{1,6}".prop_map(|value| Selector::Kind(ProfileSelector::Builtin(value))),
        "[a-z:]{1,6}".prop_map(|value| Selector::Kind(ProfileSelector::Named(value))),
        "[a-z:]{1,6}".prop_map(Selector::Text),
    ]
}

fn any_bundle() -> impl Strategy<Value = ConfigBundle> {
    let profile = (selector(), proptest::option::of(word()))
        .prop_map(|(selector, label)| Profile { selector, label });
    let declaration =
        (0..KINDS.len(), "[a-z]{1,6}", "[a-zA-Z0-9@+]{1,6}", any::<proptest::sample::Index>())
            .prop_map(|(kind, name, rest, prefix)| {
                let (kind, prefixes) = KINDS[kind];
                let reference = format!("{}{rest}", prefixes[prefix.index(prefixes.len())]);
                Declaration { kind: kind.into(), name, reference }
            });
    let lists =
        (proptest::collection::vec(profile, 0..5), proptest::collection::vec(declaration, 0..5));
    ("[a-z0-9][a-z0-9_.:-]{0,8}", "[a-z]{1,4}", "[a-z]{1,4}", proptest::option::of(word()), lists)
        .prop_map(|(id, revision, workspace_id, detail, (profiles, declarations))| {
            let provenance = Provenance { source: "test".into(), detail };
            let metadata = Metadata {
                id,
                digest: String::new(),
                revision,
                workspace_id,
                created_at: "now".into(),
                provenance,
            };
            let mut bundle = ConfigBundle { metadata, profiles, declarations };
            bundle.metadata.digest = digest(&bundle).to_string();
            bundle
        })
}

/// Every text of a bundle that its digest covers, to be changed.
fn texts(bundle: &mut ConfigBundle) -> Vec<&mut String> {
    let metadata = &mut bundle.metadata;
    let mut texts = vec![
        &mut metadata.id,
        &mut metadata.revision,
        &mut metadata.workspace_id,
        &mut metadata.created_at,
        &mut metadata.provenance.source,
        metadata.provenance.detail.get_or_insert_default(),
    ];
    for profile in &mut bundle.profiles {
        texts.push(profile.label.get_or_insert_default());
        match &mut profile.selector {
            Selector::Kind(ProfileSelector::RuntimeDefault) => {}
            Selector::Kind(ProfileSelector::Builtin(value) | ProfileSelector::Named(value))
            | Selector::Text(value) => texts.push(value),
        }
    }
    for Declaration { kind, name, reference } in &mut bundle.declarations {
        texts.extend([kind, name, reference]);
    }
    texts
}

proptest! {
    #[test]
    fn a_well_formed_bundle_is_accepted(bundle in any_bundle()) {
        prop_assert!(check(bundle).is_ok());
    }

    #[test]
    fn equal_content_means_equal_documents_whatever_the_order(
        bundle in any_bundle(),
        turn in any::<proptest::sample::Index>(),
    ) {
        let mut other = bundle.clone();
        other.profiles.reverse();
        if !other.declarations.is_empty() {
            let turn = turn.index(other.declarations.len());
            other.declarations.rotate_left(turn);
        }
        prop_assert_eq!(digest(&bundle), digest(&other));
        prop_assert_eq!(check(bundle).unwrap(), check(other).unwrap());
    }

    #[test]
    fn any_change_of_a_field_changes_the_digest(
        bundle in any_bundle(),
        which in any::<proptest::sample::Index>(),
        more in "[a-z/:]{1,3}",
    ) {
        let mut other = bundle.clone();
        let mut fields = texts(&mut other);
        let which = which.index(fields.len());
        fields[which].push_str(&more);
        prop_assert_ne!(digest(&bundle), digest(&other));
        let refused = check(other).map(|_| ()).unwrap_err();
        // A change may already be refused for its form.
        prop_assert!(matches!(
            refused.code,
            Code::ConfigBundleDigestMismatch | Code::InvalidRequest
        ));
    }

    #[test]
    fn a_profile_or_declaration_more_or_less_changes_the_digest(bundle in any_bundle()) {
        let mut fewer = bundle.clone();
        if fewer.profiles.pop().is_some() {
            prop_assert_ne!(digest(&bundle), digest(&fewer));
        }
        let mut fewer = bundle.clone();
        if fewer.declarations.pop().is_some() {
            prop_assert_ne!(digest(&bundle), digest(&fewer));
        }
    }

    #[test]
    fn a_reference_with_any_other_character_is_refused(
        before in "[a-z]{0,4}",
        other in "[^A-Za-z0-9:_.@+-]",
        after in "[a-z]{0,4}",
    ) {
        let reference = format!("secret:{before}{other}{after}");
        let json = with("/declarations/0/reference", json!(reference));
        let refused = check(signed(json)).unwrap_err();
        prop_assert_eq!(refused.code, Code::InvalidRequest);
    }

    #[test]
    fn a_reference_with_the_prefix_of_another_kind_is_refused(
        kind in 0..KINDS.len(),
        other in 1..KINDS.len(),
        rest in "[a-z]{1,4}",
    ) {
        let other = KINDS[(kind + other) % KINDS.len()].1[0];
        let mut json = with("/declarations/0/reference", json!(format!("{other}{rest}")));
        json["declarations"][0]["kind"] = json!(KINDS[kind].0);
        let refused = check(signed(json)).unwrap_err();
        prop_assert_eq!(refused.code, Code::UnsupportedConfigDeclaration);
    }
}
