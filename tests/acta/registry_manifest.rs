//! The manifest of a running service is watched, and can be checked without one.

use super::support::{Service, eventually, manifest};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

fn write(service: &Service, text: &str) {
    // In one step, as editors do.
    let (path, aside) = (service.root().join("manifest.json"), service.root().join("aside"));
    fs::write(&aside, text).unwrap();
    fs::rename(aside, path).unwrap();
}

async fn templates(service: &Service) -> Vec<String> {
    let runtime = service.get("/v1/runtimes/embedded-worker-runtime").await.ok();
    let templates = runtime["runtime"]["templates"].as_array().unwrap().clone();
    templates.iter().map(|each| each["name"].as_str().unwrap().to_owned()).collect()
}

async fn updates(service: &Service) -> usize {
    let page = service.get("/v1/events?after=0&type=runtime_updated").await.ok();
    page["events"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_changed_manifest_needs_no_restart_and_a_broken_one_changes_nothing() {
    let mut service = Service::start().await;
    let before = templates(&service).await;
    let mut changed = manifest();
    let entries = changed["workspace_templates"].as_array_mut().unwrap();
    entries.push(json!({"name": "fresh-default", "exec": {"argv": ["cat"]}}));
    write(&service, &changed.to_string());
    eventually("the new template is known", || async {
        templates(&service).await.contains(&"fresh".to_owned()).then_some(())
    })
    .await;
    assert_eq!(updates(&service).await, 1);
    let worker = service.spawn("fresh").await;
    assert_eq!(service.worker(&worker).await["template"], "fresh");

    write(&service, "{\"workspace_templates\": [");
    eventually("the broken edit is told of", || async {
        service.log().contains("the templates stay as they were").then_some(())
    })
    .await;
    service.spawn("fresh").await;
    assert_eq!(updates(&service).await, 1, "nothing is recorded of it");

    // The old list again, then a restart without a change: one event, then none.
    write(&service, &manifest().to_string());
    eventually("the template is gone", || async {
        (templates(&service).await == before).then_some(())
    })
    .await;
    assert_eq!(updates(&service).await, 2);
    service.stop().await;
    service.restart().await;
    assert_eq!(updates(&service).await, 2);
    assert_eq!(templates(&service).await, before);
}

fn check(path: &Path) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_acta"))
        .args(["manifest", "check", "-o", "json"])
        .arg(path)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_manifest_is_checked_with_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.json");
    let rows: [(&[u8], &str); 6] = [
        (b"{\n  \"workspace_templates\": 5}", "line 2, column"),
        (b"", "line 1, column"),
        (b"{\n \xff\xfe", "valid UTF-8 (line 2, column 2)"),
        (
            b"{\"workspace_templates\": [\n {\"name\": \"a\",\n  \"exec\": {\"argv\": []}}]}",
            "`exec` at line 3, column 11",
        ),
        (b"{\"default_template\": \"nothing\"}", "`default_template` is `nothing`"),
        (
            b"{\"default_template\": 1,\n\"workspace_templates\": [7]}",
            "2 problem(s):\n  entry 1: invalid type: integer",
        ),
    ];
    for (text, expected) in rows {
        fs::write(&path, text).unwrap();
        let (code, _, stderr) = check(&path);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(expected) && stderr.contains("m.json"), "{expected}: {stderr}");
    }
    fs::remove_file(&path).unwrap();
    assert!(check(&path).2.contains("No such file"));
    fs::write(&path, manifest().to_string()).unwrap();
    let (code, stdout, _) = check(&path);
    assert_eq!(code, 0);
    let said: Value = serde_json::from_str(&stdout).unwrap();
    let names: Vec<_> = said["templates"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
    assert!(names.contains(&&json!("external")), "{names:?}");
}
