use super::*;
use acta_events::{LocalPodProblem, LocalPodsState, LocalWorkerStatus};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

const ROOT: &str = "/workspace/project";

struct Pods {
    dir: TempDir,
    source: Source,
}

impl Pods {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::new("local:test", Path::new(ROOT), Some(dir.path().to_owned()));
        Self { dir, source }
    }

    fn raw(&self, name: &str, text: &[u8]) {
        fs::create_dir_all(self.dir.path().join(name)).unwrap();
        fs::write(self.dir.path().join(name).join("metadata.json"), text).unwrap();
    }

    fn pod(&self, name: &str, metadata: &Value) {
        self.raw(name, metadata.to_string().as_bytes());
    }

    fn scan(&self) -> Scan {
        scan(&self.source)
    }
}

fn coder() -> Value {
    json!({"worker_name": "Coder", "workspace_root": ROOT})
}

#[test]
fn what_counts_is_metadata_of_the_same_workspace_root() {
    let check = |metadata: Value, expected: Result<(), LocalPodProblem>| {
        let pods = Pods::new();
        pods.pod("one", &metadata);
        let scan = pods.scan();
        let problems: Vec<_> = scan.inspected.problems.into_keys().collect();
        assert_eq!(problems, expected.err().into_iter().collect::<Vec<_>>(), "{metadata}");
        assert_eq!(scan.workers.len(), usize::from(expected.is_ok()), "{metadata}");
    };
    let with_root = |root: Value| {
        let mut metadata = coder();
        metadata["workspace_root"] = root;
        metadata
    };
    check(coder(), Ok(()));
    check(with_root(json!("/workspace/project///")), Ok(()));
    check(with_root(json!("\\workspace\\project\\")), Ok(()));
    check(with_root(json!("/workspace/project2")), Err(LocalPodProblem::WorkspaceNotVisible));
    check(with_root(json!("/workspace")), Err(LocalPodProblem::WorkspaceNotVisible));
    check(with_root(json!("")), Err(LocalPodProblem::WorkspaceNotVisible));
    check(with_root(json!(null)), Err(LocalPodProblem::WorkspaceRootMissing));
    check(json!({"worker_name": "x"}), Err(LocalPodProblem::WorkspaceRootMissing));
    check(with_root(json!(5)), Err(LocalPodProblem::MetadataInvalid));
    check(json!({"workspace_root": ROOT}), Err(LocalPodProblem::MetadataInvalid));
    check(json!([]), Err(LocalPodProblem::MetadataInvalid));
}

#[test]
fn a_worker_has_its_id_from_the_directory_and_the_rest_from_the_metadata() {
    let check = |fields: Value, role: Option<&str>, profile: Option<&str>, status| {
        let pods = Pods::new();
        let mut metadata = coder();
        metadata.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        pods.pod("foo.bar", &metadata);
        let scan = pods.scan();
        let (id, found) = scan.workers.first_key_value().unwrap();
        assert_eq!(id.as_str(), generated_id("local-worker-", "foo.bar"));
        assert_eq!((found.label.as_str(), found.hint.as_str()), ("Coder", "foo.bar"));
        assert_eq!((found.role.as_deref(), found.profile.as_deref()), (role, profile), "{fields}");
        assert_eq!(found.status, status, "{fields}");
        assert_eq!(found.host.as_str(), generated_id("local-", "local:test"));
    };
    let only = LocalWorkerStatus::MetadataOnly;
    check(json!({}), None, None, only);
    check(json!({"active": null}), None, None, only);
    check(json!({"active": {}}), None, None, LocalWorkerStatus::PendingSegment);
    check(json!({"active": {"segment_id": null}}), None, None, LocalWorkerStatus::PendingSegment);
    check(json!({"active": {"segment_id": "s"}}), None, None, LocalWorkerStatus::Segment);
    let snapshot = |value: Value| json!({ "resolved_manifest_snapshot": value });
    check(
        snapshot(json!({"role": "coder", "profile_selector": "builtin:coder"})),
        Some("coder"),
        Some("builtin:coder"),
        only,
    );
    check(
        snapshot(json!({"role": {"name": "coder"}, "profile_selector": {"name": "p"}})),
        Some("coder"),
        Some("p"),
        only,
    );
    check(snapshot(json!({"role": 5, "profile_selector": "/etc/profile.json"})), None, None, only);
    check(snapshot(json!("text")), None, None, only);
}

#[test]
fn a_directory_is_there_or_not_known_or_cannot_be_read() {
    let state = |pods| scan(&Source::new("w", Path::new(ROOT), pods)).inspected.state;
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(state(None), LocalPodsState::Unavailable);
    assert_eq!(state(Some(dir.path().to_owned())), LocalPodsState::Available);
    assert_eq!(state(Some(dir.path().join("absent"))), LocalPodsState::Unreadable);
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(state(Some(file)), LocalPodsState::Unreadable);
}

#[test]
fn what_else_stands_in_the_directory_does_no_harm() {
    use std::os::unix::fs::symlink;
    let pods = Pods::new();
    pods.pod("good", &coder());
    fs::write(pods.dir.path().join("a-file"), "x").unwrap();
    symlink(pods.dir.path().join("good"), pods.dir.path().join("link")).unwrap();
    fs::create_dir(pods.dir.path().join("empty")).unwrap();
    fs::create_dir(pods.dir.path().join("linked")).unwrap();
    let target = pods.dir.path().join("good/metadata.json");
    symlink(target, pods.dir.path().join("linked/metadata.json")).unwrap();
    fs::create_dir_all(pods.dir.path().join("directory/metadata.json")).unwrap();
    fs::create_dir(pods.dir.path().join("pipe")).unwrap();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&pods.dir.path().join("pipe/metadata.json"), mode).unwrap();
    let huge = usize::try_from(FILE_BYTES_MAX).unwrap() + 1;
    pods.raw("huge", &vec![b' '; huge]);
    pods.raw("broken", b"{\"worker_name\": ");
    pods.raw("not-utf8", b"{\"worker_name\": \"\xff\"}");
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    pods.raw("deep", &deep);
    let scan = pods.scan();
    assert_eq!(scan.workers.len(), 1);
    let problems =
        [(LocalPodProblem::MetadataUnreadable, 5), (LocalPodProblem::MetadataInvalid, 3)];
    assert_eq!(scan.inspected.problems, problems.into());
}

#[test]
fn only_so_many_pods_are_looked_at() {
    let pods = Pods::new();
    for n in 0..PODS_MAX + 3 {
        fs::create_dir(pods.dir.path().join(format!("p-{n:05}"))).unwrap();
    }
    pods.pod("p-00000", &coder());
    pods.pod(&format!("p-{:05}", PODS_MAX + 2), &coder());
    let scan = pods.scan();
    assert_eq!(scan.workers.len(), 1, "the first by name");
    assert_eq!(scan.inspected.problems[&LocalPodProblem::TooMany], 1);
}

#[test]
fn names_that_look_alike_and_long_ones_stay_apart_and_bounded() {
    let pods = Pods::new();
    let long = "x".repeat(250);
    for name in ["foo.bar", "foo-bar", long.as_str()] {
        let mut metadata = coder();
        metadata["worker_name"] = format!("../../{}\u{7}", "y".repeat(500)).into();
        pods.pod(name, &metadata);
    }
    let scan = pods.scan();
    assert_eq!(scan.workers.len(), 3);
    for (id, found) in scan.workers {
        assert!(id.as_str().len() <= 120);
        assert_eq!(found.label.chars().count(), 80);
        assert!(!found.label.contains(['/', '\u{7}']) && found.hint.chars().count() <= 80);
    }
}

#[test]
fn nothing_of_the_machine_is_in_what_was_found() {
    let pods = Pods::new();
    let mut metadata = coder();
    metadata["active"] = json!({"segment_id": "canary-segment", "session": "canary-session"});
    metadata["socket_path"] = "/run/canary.sock".into();
    metadata["token"] = "canary-token".into();
    metadata["resolved_manifest_snapshot"] = json!({"role": "/canary/role", "profile_selector": {"name": "/canary/p", "path": "/canary"}});
    pods.pod("coder", &metadata);
    pods.raw("other", b"canary that is no JSON");
    let scan = pods.scan();
    let found = scan.workers.into_values().next().unwrap();
    let text = format!(
        "{}{}",
        serde_json::to_string(&found).unwrap(),
        serde_json::to_string(&scan.inspected).unwrap()
    );
    let place = pods.dir.path().to_str().unwrap();
    for leak in ["canary", ROOT, place] {
        assert!(!text.contains(leak), "{leak} in {text}");
    }
}
