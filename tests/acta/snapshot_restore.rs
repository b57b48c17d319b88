//! Snapshots of a running service, and data directories made from them.

use super::{
    erase_redact::{found_in, holds, secret},
    external_push::{Endpoint, options as push_options, registered},
    support::{Options, Ran, Service, bare_command, eventually, run},
    survive_measure::{files_in, seeded},
};
use rand::Rng as _;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// Runs the binary without any service.
pub async fn alone(root: &Path, args: &[&str]) -> Ran {
    let mut command = bare_command(root);
    command.args(args);
    run(command, "").await
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Takes a snapshot; what was said of it.
pub async fn create(service: &Service, path: &Path, more: &[&str]) -> Value {
    let args = [&["snapshot", "create", text(path), "-o", "json"], more].concat();
    serde_json::from_str(service.acta(&args).await.ok()).unwrap()
}

/// Moves the data of a stopped service away and restores in its place.
pub async fn restore(service: &Service, snapshot: &Path, more: &[&str]) -> Value {
    let old = service.root().join(format!("old-{}", rand::random::<u32>()));
    fs::rename(service.data(), old).unwrap();
    let data = service.data();
    let args = [&["restore", text(snapshot), "--data", text(&data), "-o", "json"], more].concat();
    serde_json::from_str(alone(service.root(), &args).await.ok()).unwrap()
}

async fn is_paused(service: &Service) -> bool {
    let answer = service.get("/readyz").await;
    match answer.status {
        200 => false,
        _ => {
            assert_eq!(answer.json(), json!({"status": "not_ready", "reason": "dispatch_paused"}));
            true
        }
    }
}

/// The records with this text, among all.
async fn records_with(service: &Service, text: &str, after: u64) -> Vec<u64> {
    let (mut found, mut after) = (Vec::new(), after);
    loop {
        let page = service.get(&format!("/v1/events?after={after}&limit=500")).await.ok();
        let events = page["events"].as_array().unwrap();
        let Some(last) = events.last() else { return found };
        after = last["seq"].as_u64().unwrap();
        let with = events.iter().filter(|it| it["content"].to_string().contains(text));
        found.extend(with.map(|it| it["seq"].as_u64().unwrap()));
    }
}

async fn redact(service: &Service, seq: u64) {
    let body = json!({"sequence": seq, "reason": "it was a password"});
    service.post("/v1/redactions", &body).await.ok();
}

#[tokio::test]
async fn a_restored_service_is_the_same_in_an_epoch_of_its_own_and_waits() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "before").await;
    service.rests(&worker, 2).await;
    let large = secret(60_000);
    service.input(&worker, &large).await;
    service.rests(&worker, 4).await;
    let before = service.get("/v1/events?limit=3").await.ok()["cursor"].clone();
    let issued = service.issue(&json!({"role": "observer"})).await["token"].clone();
    let snapshot = service.root().join("snapshot");
    let told = create(&service, &snapshot, &[]).await;
    let fork = told["sequence"].as_u64().unwrap();
    assert!(fork >= records_with(&service, &large, 0).await[0], "{told}");
    let views = service.get(&format!("/v1/views?at={fork}")).await.ok()["digests"].clone();
    let transcript = service.transcript(&worker).await;
    service.input(&worker, "after").await;
    service.rests(&worker, 6).await;
    let after = service.get("/v1/events?limit=1000").await.ok()["cursor"].clone();

    // Neither a key nor a token is in it.
    let key = fs::read_to_string(service.data().join("log.key")).unwrap();
    let private = key.trim().rsplit('+').next().unwrap();
    for secret in [private, &service.token(), issued.as_str().unwrap()] {
        assert_eq!(found_in(&snapshot, secret), Vec::<String>::new());
    }
    assert!(!found_in(&snapshot, &large[..40]).is_empty(), "what is there is found");

    service.stop().await;
    let old_token = service.token();
    let verifier = alone(service.root(), &["key", "show", "--data", text(&service.data())]).await;
    let restored =
        restore(&service, &snapshot, &["--reason", "the disk is gone", "--key", verifier.ok()])
            .await;
    assert_eq!((&restored["epoch"], &restored["fork"]), (&json!(2), &json!(fork)));
    let name = format!("acta/epoch-2/{}", restored["log_id"].as_str().unwrap());
    assert!(restored["verifier_key"].as_str().unwrap().starts_with(&name), "{restored}");
    service.restart().await;
    assert_eq!(service.listening["epoch"], 2);
    assert_ne!(service.token(), old_token);
    assert!(is_paused(&service).await);
    let forked = &service.events(&format!("after={fork}&limit=1")).await[0];
    assert_eq!(forked["type"], "log_forked");
    let data = &forked["data"];
    assert_eq!(
        (&data["epoch"], &data["parent"], &data["fork"]),
        (&json!(2), &json!(1), &json!(fork))
    );
    assert_eq!(data["root"].as_str().unwrap().len(), 64);
    assert_eq!(forked["content"], "the disk is gone");
    assert_eq!(service.get(&format!("/v1/views?at={fork}")).await.ok()["digests"], views);
    assert_eq!(service.transcript(&worker).await["items"], transcript["items"]);

    // Cursors of before.
    let page = service.get(&format!("/v1/events?cursor={}", before.as_str().unwrap())).await.ok();
    assert_eq!(page["events"][0]["seq"], 4);
    assert_eq!(page["epoch_changed"], json!({"from": 1, "epoch": 2, "fork": fork}));
    let mut socket =
        service.watch(&format!("/v1/events/ws?cursor={}", before.as_str().unwrap())).await;
    let first = socket.frame().await;
    assert_eq!(first["diagnostic"]["code"], "runtime.epoch_changed", "{first}");
    assert_eq!(socket.frame().await["record"]["seq"], 4);
    let path = format!("/v1/events?cursor={}", after.as_str().unwrap());
    let message = service.get(&path).await.refused(409, "cursor_diverged");
    assert!(message.contains(&format!("agree up to {fork}")), "{message}");
    let back = message.rsplit(' ').next().unwrap();
    let page = service.get(&format!("/v1/events?cursor={back}&limit=1")).await.ok();
    assert_eq!(page["events"][0]["seq"], fork + 1);

    // It takes commands, and does nothing about them before it is told to.
    let seq = service.input(&worker, "waits").await["event_id"].as_u64().unwrap();
    let shown = service.get("/v1/dispatch").await.ok()["dispatch"].clone();
    let give = json!({
        "runtime_id": "embedded-worker-runtime", "worker_id": worker, "action": "give_input",
        "records": [seq], "count": 1,
    });
    assert!(shown["would"]["intents"].as_array().unwrap().contains(&give), "{shown}");
    let said = service.acta(&["resume", "--dry-run"]).await;
    assert!(said.ok().contains("give input") && said.ok().contains(&seq.to_string()), "{said:?}");
    assert!(is_paused(&service).await, "looking changes nothing");
    service.kill9().await;
    service.restart().await;
    assert!(is_paused(&service).await, "nor does a crash");
    assert_eq!(service.transcript(&worker).await["items"].as_array().unwrap().len(), 5);
    service.acta(&["resume"]).await.ok();
    assert!(!is_paused(&service).await);
    service.rests(&worker, 6).await;
    service.kill9().await;
    service.restart().await;
    assert!(!is_paused(&service).await, "it is durable");
    service.input(&worker, "and on").await;
    service.rests(&worker, 8).await;
    service.stop().await;
    alone(service.root(), &["verify", text(&service.data())]).await.ok();
}

/// A service with something of everything, and a snapshot of it as a directory and as a file.
async fn with_snapshots() -> (Service, PathBuf, PathBuf) {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, &secret(50_000)).await;
    service.rests(&worker, 2).await;
    // A start leaves a checkpoint of the views and tiles.
    service.stop().await;
    service.restart().await;
    let (dir, file) = (service.root().join("not/yet/there/dir"), service.root().join("file.acta"));
    create(&service, &dir, &[]).await;
    create(&service, &file, &[]).await;
    service.stop().await;
    (service, dir, file)
}

#[tokio::test]
async fn damage_anywhere_is_found_and_not_restored() {
    let (service, dir, file) = with_snapshots().await;
    let root = service.root();
    let mut random = seeded("damage_anywhere_is_found_and_not_restored");
    for whole in [&dir, &file] {
        alone(root, &["snapshot", "verify", text(whole)]).await.ok();
    }
    let parts: Vec<PathBuf> = files_in(&dir).into_iter().filter(|it| it.is_file()).collect();
    let of = |name: &str| parts.iter().find(|it| text(it).contains(name)).unwrap();
    let target = root.join("target");
    for victim in [of("tail/"), of("content/"), of("manifest.json"), of("checkpoint"), &file] {
        let whole = fs::read(victim).unwrap();
        let mut bytes = whole.clone();
        let at = random.random_range(0..bytes.len());
        bytes[at] ^= 1 << random.random_range(0..8);
        fs::write(victim, &bytes).unwrap();
        let snapshot = if *victim == file { &file } else { &dir };
        let shown = victim.file_name().unwrap().to_str().unwrap();
        let what = format!("byte {at} of {shown}");
        let ran = alone(root, &["snapshot", "verify", text(snapshot)]).await;
        // The first bytes of a file and of a manifest say that it is a snapshot at all.
        let begins = *victim == file || shown == "manifest.json";
        let expected: &[i32] = if begins { &[3, 1] } else { &[3] };
        assert!(expected.contains(&ran.code), "{what}: {ran:?}");
        let args = ["restore", text(snapshot), "--data", text(&target)];
        let ran = alone(root, &args).await;
        assert!(expected.contains(&ran.code), "{what}: {ran:?}");
        assert!(!target.exists() && !root.join(".target.unfinished").exists(), "{what}");
        fs::write(victim, &whole).unwrap();
    }
    fs::rename(of("content/"), root.join("elsewhere")).unwrap();
    let ran = alone(root, &["snapshot", "verify", text(&dir)]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("part content/") && ran.stderr.contains("is missing"), "{ran:?}");
}

#[tokio::test]
async fn what_is_there_is_never_touched() {
    let (service, dir, file) = with_snapshots().await;
    let root = service.root();
    let data = service.data();
    let before: BTreeMap<PathBuf, Vec<u8>> = contents(&data);
    let ran = alone(root, &["restore", text(&dir), "--data", text(&data)]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("is there already"), "{ran:?}");
    assert!(contents(&data) == before, "the data was changed");
    let ran = alone(root, &["restore", text(&data), "--data", "x"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("not a snapshot"), "{ran:?}");
    let ran = alone(root, &["restore", text(&file), "--data", "x", "--to-seq", "99999"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("none of these moments"), "{ran:?}");
    assert!(!root.join("x").exists() && !root.join(".x.unfinished").exists());
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_in(dir).into_iter().filter(|path| path.is_file());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn a_restore_that_is_killed_leaves_nothing_half_made() {
    let (service, dir, _) = with_snapshots().await;
    let root = service.root();
    let mut random = seeded("a_restore_that_is_killed_leaves_nothing_half_made");
    let target = root.join("target");
    let mut cut_off = 0;
    for _ in 0..6 {
        let mut command = bare_command(root);
        command.args(["restore", text(&dir), "--data", text(&target)]);
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if !target.exists() {
            assert!(!status.success());
            cut_off += 1;
            continue;
        }
        // It was through before it was killed, so that all of it is there.
        alone(root, &["verify", text(&target)]).await.ok();
        fs::remove_dir_all(&target).unwrap();
    }
    println!("{cut_off} of 6 were cut off");
    fs::create_dir_all(root.join(".target.unfinished/segments")).unwrap();
    alone(root, &["restore", text(&dir), "--data", text(&target)]).await.ok();
    alone(root, &["verify", text(&target)]).await.ok();
    assert!(!root.join(".target.unfinished").exists());
}

#[tokio::test]
async fn a_second_restore_keeps_the_whole_chain() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "one").await;
    service.rests(&worker, 2).await;
    let cursor = service.get("/v1/events?limit=2").await.ok()["cursor"].clone();
    let first = service.root().join("first");
    let forks = [create(&service, &first, &[]).await["sequence"].clone()];
    service.stop().await;
    restore(&service, &first, &[]).await;
    service.restart().await;
    service.acta(&["resume"]).await.ok();
    service.input(&worker, "two").await;
    service.rests(&worker, 4).await;
    let middle = service.get("/v1/events?limit=1000").await.ok()["cursor"].clone();
    service.input(&worker, "three").await;
    service.rests(&worker, 6).await;
    let second = service.root().join("second");
    let whole = create(&service, &second, &[]).await["sequence"].as_u64().unwrap();
    assert!(second.join("ancestors/epoch-1/checkpoint").exists());
    alone(service.root(), &["snapshot", "verify", text(&second)]).await.ok();
    let between = (records_with(&service, "three", 0).await[0] - 1).to_string();
    service.stop().await;
    let restored = restore(&service, &second, &["--to-seq", &between]).await;
    assert_eq!((&restored["epoch"], &restored["parent"]), (&json!(3), &json!(2)));
    assert!(between.parse::<u64>().unwrap() < whole);
    service.restart().await;
    assert_eq!(service.listening["epoch"], 3);
    assert_eq!(service.transcript(&worker).await["items"].as_array().unwrap().len(), 4);
    for epoch in ["epoch-1", "epoch-2"] {
        assert!(service.data().join("ancestors").join(epoch).join("verifier.key").exists());
    }
    for (cursor, from, fork) in
        [(&cursor, 1, forks[0].clone()), (&middle, 2, json!(between.parse::<u64>().unwrap()))]
    {
        let path = format!("/v1/events?cursor={}&limit=1", cursor.as_str().unwrap());
        let page = service.get(&path).await.ok();
        assert_eq!(page["epoch_changed"], json!({"from": from, "epoch": 3, "fork": fork}));
    }
    let third = service.root().join("third");
    create(&service, &third, &[]).await;
    alone(service.root(), &["snapshot", "verify", text(&third)]).await.ok();
    assert!(third.join("ancestors/epoch-2/checkpoint").exists());
    // What an ancestor signed counts.
    let signed = third.join("ancestors/epoch-1/verifier.key");
    fs::copy(third.join("verifier.key"), signed).unwrap();
    assert_eq!(alone(service.root(), &["snapshot", "verify", text(&third)]).await.code, 3);
}

#[tokio::test]
async fn what_was_erased_is_not_in_a_snapshot_nor_in_what_is_restored() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    let secrets = [secret(60), secret(60_000)];
    for (n, text) in (1..).zip(&secrets) {
        service.input(&worker, text).await;
        service.rests(&worker, 2 * n).await;
    }
    let early = service.root().join("early");
    create(&service, &early, &[]).await;
    for text in &secrets {
        assert!(!found_in(&early, &text[..40]).is_empty(), "the test can find what is there");
        for seq in records_with(&service, &text[..40], 0).await {
            redact(&service, seq).await;
        }
    }
    let (late, alone_file) = (service.root().join("late"), service.root().join("late.acta"));
    let told = create(&service, &late, &["--base", text(&early)]).await;
    create(&service, &alone_file, &[]).await;
    let data = service.root().join("files");
    fs::create_dir(&data).unwrap();
    fs::rename(&alone_file, data.join("late.acta")).unwrap();
    for text in &secrets {
        for dir in [&late, &data] {
            assert_eq!(found_in(dir, &text[..40]), Vec::<String>::new());
        }
    }
    assert!(told["parts_in_base"].as_u64().is_some());
    let list = service.root().join("redactions.ndjson");
    fs::write(&list, service.acta(&["redactions", "export"]).await.ok()).unwrap();
    service.stop().await;
    let told = restore(&service, &early, &["--redactions", text(&list)]).await;
    assert!(told["redactions"]["erased"].as_u64().unwrap() >= 4, "{told}");
    for text in &secrets {
        assert_eq!(found_in(&service.data(), &text[..40]), Vec::<String>::new());
    }
    alone(service.root(), &["verify", text(&service.data())]).await.ok();
}

#[tokio::test]
async fn a_redaction_meanwhile_leaves_nothing_in_the_snapshot() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    for n in 1..=4_u64 {
        let canary = secret(200);
        service.input(&worker, &canary).await;
        service.rests(&worker, 2 * n).await;
        let records = records_with(&service, &canary[..40], 0).await;
        let path = service.root().join(format!("snapshot-{n}"));
        let erase = async {
            for seq in &records {
                redact(&service, *seq).await;
            }
        };
        let (_, told) = tokio::join!(erase, create(&service, &path, &[]));
        // An order that is in the snapshot was carried out in it.
        let through = told["sequence"].as_u64().unwrap();
        let listed = service.get("/v1/redactions").await.ok();
        let orders = listed["redactions"].as_array().unwrap();
        let ordered = |seq: &u64| {
            orders.iter().any(|it| it["record"] == *seq && it["sequence"].as_u64() <= Some(through))
        };
        if records.iter().all(ordered) {
            assert_eq!(found_in(&path, &canary[..40]), Vec::<String>::new());
        }
        alone(service.root(), &["snapshot", "verify", text(&path)]).await.ok();
    }
}

/// A stopped service on a generated history with a segment and a tail.
pub async fn sealed(records: u64) -> Service {
    let mut service = Service::start().await;
    service.stop().await;
    fs::remove_dir_all(service.data()).unwrap();
    let (data, records) = (service.data(), records.to_string());
    let args = ["bench", "generate", text(&data), "--records", &records];
    alone(service.root(), &args).await.ok();
    service
}

fn parts(snapshot: &Path) -> BTreeMap<String, String> {
    let manifest = fs::read_to_string(snapshot.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(manifest.lines().nth(1).unwrap()).unwrap();
    let part = |it: &Value| {
        (it["name"].as_str().unwrap().to_owned(), it["sha256"].as_str().unwrap().to_owned())
    };
    manifest["parts"].as_array().unwrap().iter().map(part).collect()
}

#[tokio::test]
async fn a_snapshot_on_top_of_another_is_as_good_as_a_whole_one() {
    let mut service = sealed(27_500).await;
    service.restart().await;
    let base = service.root().join("base");
    let whole = create(&service, &base, &[]).await;
    let worker = service.spawn("echo").await;
    service.input(&worker, &secret(60_000)).await;
    service.rests(&worker, 2).await;
    let on_base = service.root().join("on-base");
    let told = create(&service, &on_base, &["--base", text(&base)]).await;
    let (sent, all) = (told["bytes_sent"].as_u64().unwrap(), whole["bytes_sent"].as_u64().unwrap());
    assert!(told["parts_in_base"].as_u64().unwrap() >= 1, "{told}");
    assert!(sent < all, "{sent} of {all} bytes were sent");
    let file = service.root().join("on-base.acta");
    create(&service, &file, &["--base", text(&base)]).await;
    service.stop().await;
    let (first, second) = (parts(&base), parts(&on_base));
    let lasting = |name: &&String| name.starts_with("segments/") || name.starts_with("content/");
    for name in first.keys().filter(lasting) {
        assert_eq!(first.get(name), second.get(name), "{name}");
    }
    assert!(first.keys().any(|name| name.starts_with("segments/")), "{first:?}");
    // What the base has of the views is not sent again: it is one more name of the same file.
    let of_views: Vec<_> = first.keys().filter(|name| name.starts_with("checkpoints/")).collect();
    assert!(!of_views.is_empty(), "{first:?}");
    for name in of_views {
        assert_eq!(first.get(name), second.get(name), "{name}");
        let file = |dir: &Path| fs::metadata(dir.join(name)).unwrap().ino();
        assert_eq!(file(&base), file(&on_base), "{name}");
    }
    let root = service.root();
    let ran = alone(root, &["snapshot", "verify", text(&file)]).await;
    assert!(ran.code == 1 && ran.stderr.contains("--base"), "{ran:?}");
    // A directory stands by itself, and a record within a block of a segment is a moment too.
    fs::rename(&base, root.join("elsewhere")).unwrap();
    alone(root, &["snapshot", "verify", text(&on_base)]).await.ok();
    let views = {
        service.restart().await;
        let views = service.get("/v1/views?at=777").await.ok()["digests"].clone();
        service.stop().await;
        views
    };
    let elsewhere = service.root().join("elsewhere");
    let told = restore(&service, &file, &["--base", text(&elsewhere), "--to-seq", "777"]).await;
    assert_eq!((&told["fork"], &told["head"]), (&json!(777), &json!(778)));
    service.restart().await;
    assert_eq!(service.get("/v1/views?at=777").await.ok()["digests"], views);
    assert_eq!(service.events("after=776&limit=9").await[1]["type"], "log_forked");
    assert!(!service.data().join("content").exists() || !holds_any(&service.data()));
}

fn holds_any(data: &Path) -> bool {
    files_in(&data.join("content")).iter().any(|path| path.is_file())
}

#[tokio::test]
async fn snapshots_are_taken_by_the_clock_and_a_drill_tries_one() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("snapshots");
    let service = Options::default()
        .arg(format!("--snapshot-dir={}", dir.display()))
        .arg("--snapshot-every-s=1")
        .arg("--snapshot-keep=1")
        .start()
        .await;
    let worker = service.spawn("echo").await;
    service.input(&worker, &secret(40_000)).await;
    service.rests(&worker, 2).await;
    let names = || {
        let listed = fs::read_dir(&dir).into_iter().flatten().flatten();
        let names = listed.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("acta-")).collect();
        names.sort();
        names
    };
    let first = eventually("a snapshot", || async { names().first().cloned() }).await;
    let gone = || async { (!names().contains(&first)).then_some(()) };
    eventually("the first to be removed", gone).await;
    assert!((1..=2).contains(&names().len()), "{:?}", names());
    let status = service.get("/v1/status").await.ok();
    assert!(status["status"]["snapshot"]["sequence"].as_u64().unwrap() > 0, "{status}");
    assert!(service.acta(&["status"]).await.ok().contains("\nsnapshot "));
    let ran = service.acta(&["drill", "-o", "json"]).await;
    let told: Value = serde_json::from_str(ran.ok()).unwrap();
    assert_eq!(told["holds"], true, "{told}");
    let steps: Vec<_> = told["steps"].as_array().unwrap().iter().map(|it| &it["step"]).collect();
    assert_eq!(steps, ["snapshot", "verify", "restore", "compare"]);
    let ran = alone(service.root(), &["snapshot", "ls", text(&dir), "-o", "json"]).await;
    let listed: Value = serde_json::from_str(ran.ok()).unwrap();
    let newest = listed["snapshots"].as_array().unwrap().last().unwrap();
    assert_eq!(newest["log_id"], service.listening["log_id"]);
    for role in ["auditor", "observer"] {
        let token = service.issue(&json!({"role": role})).await["token"].clone();
        let other = service.with_token(token.as_str().unwrap());
        other.post("/v1/snapshots", &json!({})).await.refused(403, "forbidden");
    }
    assert!(!holds(service.log().as_bytes(), b"panicked"));
}

#[tokio::test]
async fn nothing_is_posted_or_passed_on_before_a_restored_service_is_resumed() {
    let there = Service::start().await;
    let mut service = push_options(3).env("ELSEWHERE_TOKEN", &there.token()).start().await;
    let endpoint = Endpoint::open().await;
    let agent = registered(&service, &endpoint.url).await;
    let remote = json!({
        "runtime_id": "elsewhere", "kind": "remote_http", "label": "Elsewhere",
        "url": there.base, "token_env": "ELSEWHERE_TOKEN",
    });
    service.post("/v1/runtimes", &remote).await.ok();
    let snapshot = service.root().join("snapshot");
    create(&service, &snapshot, &[]).await;
    service.stop().await;
    restore(&service, &snapshot, &[]).await;
    service.restart().await;
    let seq = service.input(&agent.id, "held").await["event_id"].as_u64().unwrap();
    let would = service.get("/v1/dispatch").await.ok()["dispatch"]["would"].clone();
    let origin = endpoint.url.strip_suffix("/a2a").unwrap();
    let deliver = json!({
        "runtime_id": "external", "worker_id": agent.id, "action": "deliver",
        "records": [seq], "count": 1, "to": origin,
    });
    assert!(would["intents"].as_array().unwrap().contains(&deliver), "{would}");
    let spawn = json!({
        "intent": {"kind": "ticket_role", "ticket_id": "T-1", "role": "coder"},
        "acceptance": {"kind": "run_accepted", "expected_segments": 0},
    });
    let path = "/v1/runtimes/elsewhere/workers";
    service.post(path, &spawn).await.refused(409, "dispatch_paused");
    assert_eq!(there.get("/v1/workers").await.ok()["workers"], json!([]));
    assert_eq!(endpoint.texts(), Vec::<String>::new());
    service.post("/v1/dispatch/resume", &json!({})).await.ok();
    let posted = || async { (endpoint.texts() == ["held"]).then_some(()) };
    eventually("the message to be posted", posted).await;
    service.post(path, &spawn).await.ok();
    let again = service.post("/v1/dispatch/resume", &json!({})).await.ok();
    assert_eq!(again, json!({"dispatch": {"paused": false, "epoch": 2}}));
    let resumed = service.events("type=dispatch_resumed").await;
    assert_eq!((resumed.len(), &resumed[0]["actor"]), (1, &json!("operator")));
}
