//! `acta import`: a log that was carried away in an archive goes on elsewhere as it was.

use super::{
    support::{Options, Ran, Service, bare_command, run},
    survive_measure::{files_in, seeded},
};
use rand::Rng as _;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// A service whose log has large contents, of which one is erased, and what was archived of it.
struct Archived {
    service: Service,
    key: String,
    archive: PathBuf,
    records: Vec<Value>,
}

async fn archived() -> Archived {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    let mut inputs = Vec::new();
    for n in 0..4 {
        inputs.push(said(&service, &worker, &"large ".repeat(1 + 9_000 * (n % 2)), n as u64).await);
    }
    let redacted = json!({"sequence": inputs[3], "reason": "a secret"});
    service.post("/v1/redactions", &redacted).await.ok();
    let key = service.acta(&["key", "show", "--data", service.data().to_str().unwrap()]).await;
    let key = key.ok().to_owned();
    let archive = service.root().join("log.acta");
    service.acta(&["export", "--format", "archive", archive.to_str().unwrap()]).await.ok();
    let records = service.events("after=0&limit=1000&watching=1").await;
    service.stop().await;
    fs::rename(service.data(), service.root().join("origin")).unwrap();
    Archived { service, key, archive, records }
}

/// Gives an echo its n-th input, and waits for the answer; the sequence of the input.
async fn said(service: &Service, worker: &str, text: &str, n: u64) -> u64 {
    let ack = service.input(worker, text).await;
    service.rests(worker, 2 * (n + 1)).await;
    ack["event_id"].as_u64().unwrap()
}

async fn acta(home: &Path, args: &[&str]) -> Ran {
    let mut command = bare_command(home);
    command.args(args);
    run(command, "").await
}

impl Archived {
    async fn import(&self, archive: &Path, data: &Path, more: &[&str]) -> Ran {
        let (archive, data) = (archive.to_str().unwrap(), data.to_str().unwrap());
        acta(self.service.root(), &[&["import", archive, "--data", data], more].concat()).await
    }

    async fn verify(&self, target: &Path) -> (i32, Value) {
        let args = ["verify", "-o", "json", target.to_str().unwrap(), "--key", &self.key];
        let ran = acta(self.service.root(), &args).await;
        (ran.code, serde_json::from_str(&ran.stdout).unwrap_or_default())
    }
}

#[tokio::test]
async fn it_goes_on_elsewhere_with_everything_that_an_archive_has() {
    let mut it = archived().await;
    let data = it.service.data();
    let log_key = it.service.root().join("origin/log.key");
    let ran = it.import(&it.archive, &data, &["--log-key", log_key.to_str().unwrap()]).await;
    assert!(ran.ok().contains(" large contents are in "), "{ran:?}");
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    let (archive, imported) = (it.verify(&it.archive).await, it.verify(&data).await);
    assert_eq!((archive.0, imported.0), (0, 0), "{archive:?} {imported:?}");
    for name in ["root", "size", "views", "erased", "contents"] {
        assert_eq!(archive.1[name], imported.1[name], "{name}");
    }
    assert!(imported.1["contents"].as_u64() > Some(0), "{imported:?}");
    assert_eq!(imported.1["signed"][0]["holds"], true);
    it.service.restart().await;
    let records = it.service.events("after=0&limit=1000&watching=1").await;
    assert_eq!(records[..it.records.len()], it.records);
    assert!(records.len() > it.records.len(), "and it goes on");
    it.service.stop().await;
    let after = it.verify(&data).await;
    assert_eq!((after.0, &after.1["signed"][0]["holds"]), (0, &true.into()), "{after:?}");
}

#[tokio::test]
async fn without_a_key_it_is_to_be_looked_at() {
    let mut it = archived().await;
    let data = it.service.data();
    let ran = it.import(&it.archive, &data, &["--key", &it.key]).await;
    assert!(ran.stderr.contains("it has no key to sign with"), "{ran:?}");
    assert_eq!(it.verify(&data).await.0, 0);
    let (status, said) = it.service.restart_refused().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("log.key is missing"), "{said}");
    fs::copy(it.service.root().join("origin/log.key"), data.join("log.key")).unwrap();
    it.service.restart().await;
    it.service.stop().await;
    fs::remove_dir_all(&data).unwrap();
    it.import(&it.archive, &data, &["--key", &it.key, "--new-key"]).await.ok();
    it.service.restart().await;
    it.service.stop().await;
    assert_eq!(it.verify(&data).await.0, 4, "whoever knows the old key notices");
}

#[tokio::test]
async fn nothing_is_made_of_what_is_damaged_or_in_the_place_of_something() {
    let it = archived().await;
    let (home, data) = (it.service.root(), it.service.data());
    let before = files_in(home);
    let with = ["--key", it.key.as_str()];
    let origin = it.import(&it.archive, &home.join("origin"), &with).await;
    assert_eq!(origin.code, 1, "{origin:?}");
    assert!(origin.stderr.contains("is there already"), "{origin:?}");
    assert_eq!(it.import(&home.join("nowhere"), &data, &with).await.code, 1);
    assert_eq!(it.import(&it.archive, &data, &[]).await.code, 2, "a key is needed");
    let key_file = home.join("origin/log.key");
    let other = it.key.replace("acta/", "beta/");
    let both = ["--key", &other, "--log-key", key_file.to_str().unwrap()];
    assert_ne!(it.import(&it.archive, &data, &both).await.code, 0);
    let stranger = Service::start().await;
    let strange = stranger.data();
    let strange = stranger.acta(&["key", "show", "--data", strange.to_str().unwrap()]).await;
    assert_eq!(it.import(&it.archive, &data, &["--key", strange.ok()]).await.code, 4);
    let whole = fs::read(&it.archive).unwrap();
    let mut random = seeded("an archive that is imported");
    let bad = home.join("bad.acta");
    for n in 0..12 {
        let mut bytes = whole.clone();
        let at = random.random_range(0..bytes.len());
        match n {
            0 => bytes.truncate(bytes.len() - 1),
            1 => bytes.push(0),
            n if n % 3 == 0 => bytes.truncate(at),
            _ => bytes[at] ^= 1 << random.random_range(0..8),
        }
        fs::write(&bad, &bytes).unwrap();
        let ran = it.import(&bad, &data, &with).await;
        assert!(matches!(ran.code, 3 | 4), "{n} at {at}: {ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    }
    fs::remove_file(&bad).unwrap();
    assert_eq!(files_in(home), before, "nothing was made, and nothing is left");
}

/// The same records as version 1 had them.
fn to_version_1(archive: &[u8]) -> Vec<u8> {
    let mut lines = archive.splitn(3, |byte| *byte == b'\n');
    let (magic, log, mut rest) = (lines.next(), lines.next(), lines.next().unwrap());
    assert_eq!(magic, Some(&b"acta-archive 2"[..]));
    let (mut blocks, mut checkpoint) = (Vec::new(), Vec::new());
    while let Some((kind, after)) = rest.split_first() {
        let length = u64::from_be_bytes(after[..8].try_into().unwrap()) as usize;
        let bytes = &after[8..8 + length];
        match kind {
            1 => blocks.extend([&(length as u32).to_be_bytes()[..], bytes].concat()),
            3 => checkpoint = bytes.to_vec(),
            _ => {}
        }
        rest = &after[8 + length..];
    }
    let log = std::str::from_utf8(log.unwrap()).unwrap();
    let head = format!("acta-archive 1\n{log}\n{}\n", checkpoint.len());
    [head.as_bytes(), &checkpoint, &blocks, &[0; 4]].concat()
}

#[tokio::test]
async fn an_older_archive_still_verifies() {
    let it = archived().await;
    let older = it.service.root().join("older.acta");
    fs::write(&older, to_version_1(&fs::read(&it.archive).unwrap())).unwrap();
    let (new, old) = (it.verify(&it.archive).await, it.verify(&older).await);
    assert_eq!((new.0, old.0), (0, 0), "{old:?}");
    assert_eq!([&new.1["root"], &new.1["size"]], [&old.1["root"], &old.1["size"]]);
    assert!(new.1["contents"].as_u64() > Some(0) && old.1["contents"] == 0, "{old:?}");
    // It lacks a content, so that nothing complete could be made of it.
    let ran = it.import(&older, &it.service.data(), &["--key", &it.key]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("no contents above 32 KiB"), "{ran:?}");
    assert!(!it.service.data().exists());
    // One without large contents is as good as a new one.
    let mut service = Options::default().start().await;
    let key = service.acta(&["key", "show", "--data", service.data().to_str().unwrap()]).await;
    let path = service.root().join("small.acta");
    service.acta(&["export", "--format", "archive", path.to_str().unwrap()]).await.ok();
    service.stop().await;
    fs::write(&path, to_version_1(&fs::read(&path).unwrap())).unwrap();
    it.import(&path, &it.service.data(), &["--key", key.ok()]).await.ok();
}

#[tokio::test]
async fn contents_are_given_as_they_are_stored() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    for (n, text) in ["small".to_owned(), "large".repeat(9_000)].into_iter().enumerate() {
        let seq = said(&service, &worker, &text, n as u64).await;
        let request = service.request(reqwest::Method::GET, &format!("/v1/contents?seq={seq}"));
        let bytes = request.send().await.unwrap().bytes().await.unwrap();
        assert_eq!(&bytes[16..], text.as_bytes());
        let order = json!({"sequence": seq, "reason": "try"});
        service.post("/v1/redactions", &order).await.ok();
        service.get(&format!("/v1/contents?seq={seq}")).await.refused(410, "content_erased");
    }
    for (query, status, code) in [
        ("seq=0", 404, "unknown_record"),
        ("seq=1", 404, "unknown_record"),
        ("seq=999999", 404, "unknown_record"),
        ("seq=x", 400, "invalid_query"),
        ("", 400, "invalid_query"),
    ] {
        service.get(&format!("/v1/contents?{query}")).await.refused(status, code);
    }
    let token = service.issue(&json!({"role": "observer", "label": "o"})).await;
    let observer = service.with_token(token["token"].as_str().unwrap());
    observer.get("/v1/contents?seq=1").await.refused(403, "forbidden");
}

/// The last frame of an archive: what was signed.
fn checkpoint_frame(archive: &[u8]) -> usize {
    let is_frame = |at: &usize| {
        let (kind, rest) = archive[*at..].split_first().unwrap();
        let len = rest.first_chunk().map(|len| u64::from_be_bytes(*len));
        *kind == 3 && len == Some(rest.len() as u64 - 8)
    };
    (0..archive.len() - 9).rev().find(is_frame).expect("a checkpoint")
}

/// Whoever has no key can write more records behind what was signed, and orders to erase among them.
#[tokio::test]
async fn what_nobody_signed_is_in_no_archive() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    let input = said(&service, &worker, "what was said", 0).await;
    let key = service.acta(&["key", "show", "--data", service.data().to_str().unwrap()]).await;
    let key = key.ok().to_owned();
    let export = async |name: &str| {
        let path = service.root().join(name);
        service.acta(&["export", "--format", "archive", path.to_str().unwrap()]).await.ok();
        path
    };
    let before = export("before.acta").await;
    let signed = service.head().await;
    let order = json!({"sequence": input, "reason": "nobody said so"});
    service.post("/v1/redactions", &order).await.ok();
    let after = export("after.acta").await;
    service.stop().await;
    let (before, mut forged) = (fs::read(before).unwrap(), fs::read(&after).unwrap());
    forged.truncate(checkpoint_frame(&forged));
    forged.extend_from_slice(&before[checkpoint_frame(&before)..]);
    fs::write(&after, forged).unwrap();
    let home = service.root();
    let archive = after.to_str().unwrap();
    let ran = acta(home, &["verify", "-o", "json", archive, "--key", &key]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    let verdict: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&verdict["erased"], verdict["intact"].as_bool()), (&json!([]), Some(false)));
    let problems = verdict["problems"].as_array().unwrap();
    let beyond = problems.iter().find(|it| it["first"] == signed + 1).expect("a problem there");
    assert!(beyond["what"].as_str().unwrap().contains("signed by nobody"), "{verdict}");
    assert!(problems.iter().any(|it| it["first"] == input), "{verdict}");
    let data = home.join("imported");
    let args = ["import", archive, "--data", data.to_str().unwrap(), "--key", &key];
    let ran = acta(home, &args).await;
    assert!(ran.code == 4 && !data.exists(), "{ran:?}");
}
