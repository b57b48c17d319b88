//! Configuration by file, environment and flags, and where each value comes from.

use crate::support::{Options, Ran, bare_command, run};
use serde_json::Value;
use std::{fs, path::Path};

async fn acta(home: &Path, env: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = bare_command(home);
    command.current_dir(home).envs(env.iter().copied()).args(args);
    run(command, "").await
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_and_the_environment_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = "listen = \"127.0.0.1:1\"\nno-auth = false\nallowed-host = [\"a\", \"b\"]\n\
                [limits]\nevent_page_max = 11\ntranscript_page_max = 12\n[audit]\nreads = true\n";
    fs::write(dir.path().join("acta.toml"), file).unwrap();
    let env = [
        ("ACTA_CONFIG", "acta.toml"),
        ("ACTA_LISTEN", "127.0.0.1:2"),
        ("ACTA_EVENT_PAGE_MAX", "21"),
        ("ACTA_TOKEN", "t-canary"),
    ];
    let args = ["config", "show", "--event-page-max", "31"];
    let ran = acta(dir.path(), &env, &[&args[..], &["-o", "json"]].concat()).await;
    let shown: Value = serde_json::from_str(ran.ok()).unwrap();
    for (name, value, source, place) in [
        ("event-page-max", "31", "flag", None),
        ("listen", "127.0.0.1:2", "environment", Some("ACTA_LISTEN")),
        ("token", "(hidden)", "environment", Some("ACTA_TOKEN")),
        ("transcript-page-max", "12", "file", Some("acta.toml")),
        ("allowed-host", "a, b", "file", Some("acta.toml")),
        ("audit-reads", "true", "file", Some("acta.toml")),
        ("no-auth", "false", "file", Some("acta.toml")),
        ("observer-idle-ms", "30000", "default", None),
        ("data", "./acta-data", "default", None),
        ("lease-ms", "60000", "default", None),
        ("host-lease-ms", "60000", "default", None),
    ] {
        let option = &shown["options"][name];
        let seen = (&option["value"], &option["source"], option["place"].as_str());
        assert_eq!(seen, (&value.into(), &source.into(), place), "{name}: {shown:#}");
    }
    assert_eq!(shown["options"]["manifest"]["source"], "unset");
    let text = acta(dir.path(), &env, &args).await;
    assert!(!text.stdout.contains("canary") && !ran.stdout.contains("canary"));
    let line = text.ok().lines().find(|line| line.starts_with("transcript-page-max")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[1..], ["12", "file", "acta.toml"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_told_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let check = async |text: &[u8], expected: &str| {
        fs::write(dir.path().join("acta.toml"), text).unwrap();
        for args in
            [&["serve", "--config=acta.toml"][..], &["config", "show", "--config=acta.toml"]]
        {
            let ran = acta(dir.path(), &[], args).await;
            assert_eq!(ran.code, 2, "{ran:?}");
            let is_said = ran.stderr.contains(expected) && ran.stderr.contains("acta.toml");
            assert!(is_said && ran.stdout.is_empty(), "{expected}: {ran:?}");
        }
    };
    check(b"lisen = \"127.0.0.1:0\"", "no option `lisen`").await;
    check(b"listen = \"over there\"", "over there").await;
    check(b"token = \"t-1\"", "token-env").await;
    check(b"event-page-max = 0", "event-page-max").await;
    check(b"listen = [", "TOML").await;
    check(b"\xff\xfe", "UTF-8").await;
    check(&b"#\n".repeat(1 << 20), "bytes").await;
    fs::remove_file(dir.path().join("acta.toml")).unwrap();
    let ran = acta(dir.path(), &[], &["serve", "--config=acta.toml"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(!dir.path().join("acta-data").exists(), "nothing was started");
    // What contradicts itself is shown, and refused.
    fs::write(dir.path().join("acta.toml"), "no-auth = true\nlisten = \"0.0.0.0:1\"").unwrap();
    let ran = acta(dir.path(), &[], &["config", "show", "--config=acta.toml"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("loopback") && ran.stdout.contains("0.0.0.0:1"), "{ran:?}");
}

#[tokio::test]
async fn a_service_takes_its_file_and_its_variables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("acta.toml");
    fs::write(&path, "[limits]\nevent-page-max = 2\n").unwrap();
    let config = format!("--config={}", path.display());
    let options = Options::default().arg(config).env("ACTA_TRANSCRIPT_PAGE_MAX", "1");
    let service = options.start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "hello").await;
    service.rests(&worker, 2).await;
    assert_eq!(service.events("after=0").await.len(), 2);
    assert_eq!(service.transcript(&worker).await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_configuration_that_is_shipped_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/acta.toml"));
    // What is proposed in comments is to be right as well.
    let proposed = |line: &str| match line.strip_prefix("# ") {
        Some(setting) if setting.contains(" = ") => setting.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<_> = shipped.unwrap().lines().map(proposed).collect();
    fs::write(dir.path().join("acta.toml"), all.join("\n")).unwrap();
    let env = [("ACTA_CONFIG", "acta.toml"), ("ACTA_OPERATOR", "t-1")];
    let ran = acta(dir.path(), &env, &["config", "show", "-o", "json"]).await;
    let shown: Value = serde_json::from_str(ran.ok()).unwrap();
    let from_file = shown["options"].as_object().unwrap().values();
    assert!(from_file.filter(|option| option["source"] == "file").count() >= 9, "{shown:#}");
}
