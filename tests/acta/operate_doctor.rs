//! `acta doctor`: what is wrong is found, named and explained, and nothing is changed.

use crate::support::{Ran, Service, bare_command, run};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

async fn doctor(home: &Path, env: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = bare_command(home);
    command.current_dir(home).envs(env.iter().copied()).arg("doctor").args(args);
    run(command, "").await
}

/// Verdict and text of what was found about something; all of it, if there is more.
fn found(ran: &Ran, what: &str) -> (String, String) {
    let told: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
    let all = told["findings"].as_array().unwrap();
    let of: Vec<_> = all.iter().filter(|finding| finding["what"] == what).collect();
    let join = |field: &str| {
        of.iter().map(|finding| finding[field].as_str().unwrap()).collect::<Vec<_>>().join(" ")
    };
    (join("verdict"), join("text"))
}

/// Every file below a directory with its bytes and times.
fn contents(dir: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            all.insert(path.display().to_string(), (fs::read(&path).unwrap(), modified));
        }
    }
    all
}

#[tokio::test]
async fn a_sound_service_has_nothing_wrong_whether_it_runs_or_not() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "hello").await;
    service.rests(&worker, 2).await;
    let data = service.data().display().to_string();
    let listen = service.base.strip_prefix("http://").unwrap().to_owned();
    let env = [("ACTA_LISTEN", listen.as_str())];
    let args = ["--data", &data, "--manifest", "manifest.json", "-o", "json"];
    let ran = doctor(service.root(), &env, &args).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(found(&ran, "log").1.contains("a service has it open"), "{ran:?}");
    assert_eq!(found(&ran, "address").0, "ok", "{ran:?}");
    let head = service.head().await;
    service.kill9().await;
    let before = contents(&service.data());
    let ran = doctor(service.root(), &env, &args).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let (verdict, text) = found(&ran, "log");
    assert_eq!((verdict.as_str(), text), ("ok", format!("it opens, and ends with record {head}")));
    for what in
        ["configuration", "data", "operator token", "signing key", "checkpoint", "disk", "clock"]
    {
        assert_eq!(found(&ran, what).0, "ok", "{what}: {ran:?}");
    }
    // One template of the tests names a program that is not there.
    assert!(found(&ran, "manifest").1.contains("`absent`"), "{ran:?}");
    assert_eq!(contents(&service.data()), before, "looking changed something");
    assert!(!ran.stdout.contains("hello"));
    let text = doctor(service.root(), &env, &args[..4]).await;
    assert!(text.ok().lines().any(|line| line.starts_with("ok       log")), "{text:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_data_directory_is_named() {
    let mut service = Service::start().await;
    service.spawn("echo").await;
    let data = service.data();
    service.stop().await;
    let data_arg = data.display().to_string();
    let check = async |what: &str, expected: &str| {
        let ran = doctor(service.root(), &[], &["--data", &data_arg, "-o", "json"]).await;
        let (verdict, text) = found(&ran, what);
        assert!(verdict.contains("wrong") && text.contains(expected), "{what}: {ran:?}");
        assert_eq!(ran.code, 1, "{ran:?}");
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(&data, 0o755);
    check("data", "chmod 700").await;
    mode(&data, 0o700);
    mode(&data.join("operator.token"), 0o644);
    check("operator token", "chmod 600").await;
    mode(&data.join("operator.token"), 0o600);
    fs::rename(data.join("log.key"), service.root().join("log.key")).unwrap();
    check("signing key", "Restore it from a backup").await;
    fs::rename(service.root().join("log.key"), data.join("log.key")).unwrap();
    // Each of these keeps a service from starting.
    type Damage = fn(&mut Vec<u8>);
    let damaged: [(&str, Damage, &str, &str); 4] = [
        ("operator.token", Vec::clear, "operator token", "acta token reset"),
        ("operator.token", |bytes| bytes.fill(0xff), "operator token", "is not a token"),
        ("log.key", |bytes| bytes[3] ^= 1, "signing key", "holds no signing key"),
        ("checkpoint", |bytes| bytes[60] ^= 1, "checkpoint", "cannot be used"),
    ];
    for (name, damage, what, expected) in damaged {
        let bytes = fs::read(data.join(name)).unwrap();
        let mut other = bytes.clone();
        damage(&mut other);
        fs::write(data.join(name), other).unwrap();
        check(what, expected).await;
        fs::write(data.join(name), bytes).unwrap();
    }
    fs::rename(data.join("checkpoint"), service.root().join("checkpoint")).unwrap();
    check("checkpoint", "is missing from the data directory").await;
    fs::rename(service.root().join("checkpoint"), data.join("checkpoint")).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(data.join("HEAD"), Some(65_534), None).unwrap();
        check("data", "chown -R").await;
        std::os::unix::fs::chown(data.join("HEAD"), Some(0), None).unwrap();
    }
    // A clock that was ahead when the data was written.
    let head = File::options().write(true).open(data.join("HEAD")).unwrap();
    let later = SystemTime::now() + Duration::from_secs(3_600);
    head.set_modified(later).unwrap();
    let ran = doctor(service.root(), &[], &["--data", &data_arg, "--quick", "-o", "json"]).await;
    assert_eq!(found(&ran, "clock").0, "wrong", "{ran:?}");
    head.set_modified(SystemTime::now()).unwrap();
    let bytes = fs::read(data.join("HEAD")).unwrap();
    fs::write(data.join("HEAD"), vec![0xff; bytes.len()]).unwrap();
    check("log", "HEAD").await;
    fs::write(data.join("HEAD"), bytes).unwrap();
    fs::rename(data.join("acta.json"), data.join("acta.json.bak")).unwrap();
    check("log", "acta.json").await;
}

#[tokio::test]
async fn what_is_wrong_around_the_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    fs::write(dir.path().join("bad.toml"), "lisen = 1").unwrap();
    fs::write(dir.path().join("open.toml"), "no-auth = true\nlisten = \"0.0.0.0:1\"").unwrap();
    fs::write(dir.path().join("bad.json"), "{").unwrap();
    let check = async |env: &[(&str, &str)], args: &[&str], what: &str, expected: (&str, &str)| {
        let ran = doctor(dir.path(), env, &[args, &["-o", "json"]].concat()).await;
        let (verdict, text) = found(&ran, what);
        assert_eq!(verdict, expected.0, "{what}: {ran:?}");
        assert!(text.contains(expected.1), "{what}: {ran:?}");
        let any_wrong = ran.stdout.contains("\"wrong\"");
        assert_eq!(ran.code, i32::from(any_wrong), "{ran:?}");
    };
    let listen = [("ACTA_LISTEN", listen.as_str())];
    check(&listen, &[], "address", ("wrong", "another program")).await;
    check(&[], &["--config=bad.toml"], "configuration", ("wrong", "no option `lisen`")).await;
    check(&[], &["--config=none.toml"], "configuration", ("wrong", "none.toml")).await;
    fs::write(dir.path().join("file.toml"), "[snapshot]\ndir = \"bad.json\"").unwrap();
    check(&[], &["--config=file.toml"], "snapshots", ("wrong", "is no directory")).await;
    fs::write(dir.path().join("memory.toml"), "store = \"memory\"\nsnapshot-dir = \"x\"").unwrap();
    check(&[], &["--config=memory.toml"], "configuration", ("wrong", "--store memory")).await;
    check(&[], &["--config=open.toml"], "configuration", ("wrong", "loopback")).await;
    let variable = [("ACTA_EVENT_PAGE_MAX", "many")];
    check(&variable, &[], "configuration", ("wrong", "event-page-max")).await;
    check(&[], &["--manifest=bad.json"], "manifest", ("warning", "bad.json")).await;
    check(&[], &["--data=bad.json"], "data", ("wrong", "is no directory")).await;
    check(&[], &["--data=none"], "data", ("warning", "a start makes it")).await;
    check(&[], &["--data=."], "log", ("wrong", "is not an Acta data directory")).await;
    assert!(!dir.path().join("none").exists());
}
