//! `acta verify`: of a stopped data directory, of a running service, of an archive.
//!
//! Whatever is altered, dropped, inserted, swapped or repeated anywhere: either it is found, and
//! the place is right, or what is read is what was written.

use super::{
    support::{Ran, Service, bare_command, run},
    survive_measure::{copy_dir, files_in, seeded},
};
use acta_events::{ContentBody, block::Block};
use rand::Rng as _;
use serde_json::Value;
use std::{fs, path::Path};
use tempfile::TempDir;

async fn acta(home: &Path, args: &[&str]) -> Ran {
    let mut command = bare_command(home);
    command.args(args);
    run(command, "").await
}

/// How a verification ended, and what it said, as JSON where it came to that.
async fn verify(home: &Path, target: &Path, more: &[&str]) -> (i32, Value, String) {
    let target = target.to_str().unwrap();
    let args = [&["verify", "-o", "json", target], more].concat();
    let ran = acta(home, &args).await;
    (ran.code, serde_json::from_str(&ran.stdout).unwrap_or_default(), ran.stderr)
}

/// A stopped service with some history, and its key.
async fn stopped() -> (Service, String) {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    for n in 0..40 {
        service.input(&worker, &format!("input {n}")).await;
    }
    service.input(&worker, &"large ".repeat(20_000)).await;
    let data = service.data();
    let key =
        service.acta(&["key", "show", "--data", data.to_str().unwrap()]).await.ok().to_owned();
    service.stop().await;
    (service, key)
}

/// The root and the size of what was read, and the digest of all views.
fn essence(verdict: &Value) -> [Value; 3] {
    [verdict["root"].clone(), verdict["size"].clone(), verdict["views"].clone()]
}

#[tokio::test]
async fn an_intact_log_is_intact_however_it_is_looked_at() {
    let (mut service, key) = stopped().await;
    let home = service.root().to_owned();
    let earlier = home.join("earlier");
    fs::copy(service.data().join("checkpoint"), &earlier).unwrap();
    let before = files_in(&service.data());
    let (code, verdict, said) = verify(&home, &service.data(), &[]).await;
    assert_eq!((code, &verdict["intact"]), (0, &true.into()), "{verdict} {said}");
    assert!(verdict["contents"].as_u64() >= Some(1), "the large input lies in a file: {verdict}");
    assert_eq!(verdict["signed"][0]["holds"], true);
    assert_eq!(verdict["intact_through"], verdict["records"]);
    assert_eq!(files_in(&service.data()), before, "nothing was made or removed");
    service.restart().await;
    let base = service.base.clone();
    let running = verify(&home, &service.data(), &[]).await;
    assert_eq!(running.0, 1, "{running:?}");
    let earlier = earlier.to_str().unwrap();
    let with = ["--key", &key, "--checkpoint", earlier];
    let remote = service.acta(&[&["verify", "-o", "json", &base], &with[..]].concat()).await;
    let remote: Value = serde_json::from_str(remote.ok()).unwrap();
    assert_eq!(remote["signed"][1]["which"], "earlier");
    assert_eq!(remote["signed"][1]["holds"], true, "it only grew since");
    let file = home.join("log.acta");
    let path = file.to_str().unwrap();
    service.acta(&["export", "--format", "archive", path]).await.ok();
    let again = service.acta(&["export", "--format", "archive", path]).await;
    assert_eq!(again.code, 1, "no file is written over: {again:?}");
    assert!(again.stderr.contains("is there already; remove it"), "{again:?}");
    service.stop().await;
    let (code, archived, said) = verify(&home, &file, &with).await;
    assert_eq!(code, 0, "{archived} {said}");
    assert!(archived["size"].as_u64() >= verdict["size"].as_u64());
    let (code, after, said) = verify(&home, &service.data(), &with).await;
    assert_eq!(code, 0, "{after} {said}");
    let table = acta(&home, &["verify", service.data().to_str().unwrap()]).await;
    assert!(table.ok().contains("intact     records 1 to "), "{table:?}");
}

/// An entry of the index is altered, and the checksum of its page is made right again.
#[tokio::test]
async fn an_index_that_is_not_of_the_log_is_named_and_can_be_removed() {
    let (mut service, _) = stopped().await;
    let (home, index) = (service.root().to_owned(), service.data().join("index"));
    let (code, verdict, _) = verify(&home, &service.data(), &[]).await;
    assert_eq!((code, &verdict["index_runs"]), (0, &2.into()), "{verdict}");
    let names = fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    let name = names.iter().find(|name| name.starts_with("postings-")).unwrap();
    let (first, last) = name["postings-".len()..].trim_end_matches(".idx").split_once('-').unwrap();
    let number = |digits: &str| digits.parse::<u64>().unwrap().to_be_bytes();
    let mut bytes = fs::read(index.join(name)).unwrap();
    // What the second entry of the first page is: a piece of text, or a message, or neither.
    bytes[2 + 5] ^= 1;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&1_u16.to_be_bytes());
    for part in [&number(first)[..], &number(last), &[0; 8], &bytes[..4092]] {
        checksum.update(part);
    }
    bytes[4092..4096].copy_from_slice(&checksum.finalize().to_be_bytes());
    fs::write(index.join(name), &bytes).unwrap();
    let (code, verdict, said) = verify(&home, &service.data(), &[]).await;
    assert_eq!(code, 3, "{verdict} {said}");
    let problems = verdict["problems"].as_array().unwrap();
    let what = problems[0]["what"].as_str().unwrap();
    assert_eq!(problems.len(), 1, "{verdict}");
    let (first, last) = (first.trim_start_matches('0'), last.trim_start_matches('0'));
    assert!(what.contains(&format!("records {first} to {last}: its entries are not")), "{what}");
    assert!(what.contains("costs a replay"), "{what}");
    assert_eq!(verdict["intact_through"], verdict["records"], "it is about no record");
    fs::remove_dir_all(&index).unwrap();
    assert_eq!(verify(&home, &service.data(), &[]).await.0, 0);
    service.restart().await;
    service.stop().await;
    let (code, verdict, _) = verify(&home, &service.data(), &[]).await;
    assert_eq!((code, &verdict["index_runs"]), (0, &2.into()), "it is made anew: {verdict}");
}

#[tokio::test]
async fn what_cannot_be_verified_is_no_verdict() {
    let (service, key) = stopped().await;
    let home = service.root();
    let file = home.join("nonsense");
    for (bytes, code) in [
        ("", 3),
        ("hello\n", 3),
        ("acta-archive 1\nx\n", 3),
        ("acta-archive 2\nx\n", 3),
        ("acta-archive 9\nx\n", 1),
    ] {
        fs::write(&file, bytes).unwrap();
        assert_eq!(verify(home, &file, &["--key", &key]).await.0, code, "{bytes:?}");
    }
    assert_eq!(verify(home, &file, &[]).await.0, 1, "an archive needs a key");
    assert_eq!(verify(home, &home.join("nowhere"), &["--key", &key]).await.0, 1);
    let empty = home.join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(verify(home, &empty, &[]).await.0, 1);
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    assert_eq!(verify(home, &service.data(), &["--checkpoint", "nowhere"]).await.0, 1);
    fs::write(&file, "no checkpoint\n").unwrap();
    let with = ["--key", &key, "--checkpoint", file.to_str().unwrap()];
    assert_eq!(verify(home, &service.data(), &with).await.0, 1, "the log is not damaged");
    for address in ["127.0.0.1:8080", "ftp://127.0.0.1"] {
        let ran = acta(home, &["verify", address]).await;
        assert!(ran.code == 1 && ran.stderr.contains("a service is named by http://"), "{ran:?}");
    }
    assert_eq!(acta(home, &["verify"]).await.code, 2);
    assert_eq!(acta(home, &["verify", "http://127.0.0.1:1", "--key", &key]).await.code, 1);
    assert_eq!(acta(home, &["verify", "ftp://x", "--key", &key]).await.code, 1);
}

/// Another history with the same key: what an operator who has everything could put in place.
async fn forged(service: &Service) -> TempDir {
    let mut other = Service::start().await;
    for _ in 0..60 {
        other.spawn("echo").await;
    }
    other.stop().await;
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&other.data(), &dir.path().join("data")).unwrap();
    let data = dir.path().join("data");
    for name in ["log.key", "checkpoint"] {
        fs::copy(service.data().join(name), data.join(name)).unwrap();
    }
    dir
}

#[tokio::test]
async fn another_history_contradicts_the_signature() {
    let (service, key) = stopped().await;
    let home = service.root();
    let other = forged(&service).await;
    let data = other.path().join("data");
    let (code, verdict, said) = verify(home, &data, &["--key", &key]).await;
    assert_eq!(code, 4, "{verdict} {said}");
    assert_eq!(verdict["signed"][0]["holds"], false);
    // Even if its own checkpoint is replaced by one that fits, an earlier one is not.
    let kept = home.join("kept");
    fs::copy(service.data().join("checkpoint"), &kept).unwrap();
    fs::remove_file(data.join("checkpoint")).unwrap();
    let more = ["--key", &key, "--checkpoint", kept.to_str().unwrap()];
    let (code, verdict, said) = verify(home, &data, &more).await;
    assert_eq!(code, 4, "{verdict} {said}");
    assert_eq!(verdict["signed"][0]["which"], "earlier");
    // And a key of somebody else says nothing about this log.
    let mut stranger = Service::start().await;
    let strange =
        stranger.acta(&["key", "show", "--data", stranger.data().to_str().unwrap()]).await;
    stranger.stop().await;
    assert_eq!(verify(home, &service.data(), &["--key", strange.ok()]).await.0, 4);
    // Nor may it be put in the place of the one that signed.
    fs::copy(stranger.data().join("log.key"), service.data().join("log.key")).unwrap();
    let (code, verdict, said) = verify(home, &service.data(), &["--key", &key]).await;
    assert_eq!(code, 3, "{verdict} {said}");
    let what = verdict["problems"][0]["what"].as_str().unwrap();
    assert!(what.contains("log.key holds another key"), "{what}");
    assert_eq!(verify(home, &service.data(), &[]).await.0, 4);
}

#[tokio::test]
async fn a_start_without_what_was_signed_last_is_refused() {
    let (mut service, key) = stopped().await;
    let home = service.root().to_owned();
    let file = service.data().join("checkpoint");
    let kept = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let (code, verdict, said) = verify(&home, &service.data(), &[]).await;
    assert_eq!(code, 3, "{verdict} {said}");
    assert!(verdict["problems"][0]["what"].as_str().unwrap().contains("the file checkpoint"));
    let (status, said) = service.restart_refused().await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("the file checkpoint, with what was signed last, is missing"), "{said}");
    assert!(!file.exists(), "nothing was signed");
    fs::write(&file, kept).unwrap();
    service.restart().await;
    service.stop().await;
    // Without either of them the log goes on, and whoever knows the key notices.
    fs::remove_file(&file).unwrap();
    fs::remove_file(service.data().join("log.key")).unwrap();
    service.restart().await;
    service.stop().await;
    assert_eq!(verify(&home, &service.data(), &[]).await.0, 0);
    assert_eq!(verify(&home, &service.data(), &["--key", &key]).await.0, 4);
}

#[tokio::test]
async fn an_older_copy_lacks_what_was_signed_since() {
    let (mut service, key) = stopped().await;
    let home = service.root().to_owned();
    let older = home.join("older");
    copy_dir(&service.data(), &older).unwrap();
    let size = verify(&home, &older, &[]).await.1["size"].as_u64().unwrap();
    service.restart().await;
    service.spawn("echo").await;
    service.stop().await;
    let kept = home.join("kept");
    fs::copy(service.data().join("checkpoint"), &kept).unwrap();
    let more = ["--key", &key, "--checkpoint", kept.to_str().unwrap()];
    let (code, verdict, said) = verify(&home, &older, &more).await;
    assert_eq!(code, 4, "{verdict} {said}");
    assert_eq!(verdict["problems"][0]["first"], size + 1);
    assert_eq!(verdict["intact_through"], size);
}

/// What is done to bytes.
fn tamper(bytes: &mut Vec<u8>, random: &mut impl rand::Rng) -> &'static str {
    let len = bytes.len();
    let at = random.random_range(0..len);
    let span = random.random_range(1..=(len - at).min(600));
    match random.random_range(0..6) {
        0 => {
            bytes[at] ^= 1 << random.random_range(0..8);
            "alter"
        }
        1 => {
            bytes.drain(at..at + span);
            "drop"
        }
        2 => {
            let new: Vec<u8> = (0..span).map(|_| random.random()).collect();
            bytes.splice(at..at, new);
            "insert"
        }
        3 => {
            let piece = bytes[at..at + span].to_vec();
            bytes.splice(at..at, piece);
            "repeat"
        }
        4 => {
            let other = random.random_range(0..=len - span);
            for n in 0..span {
                bytes.swap(at + n, other + n);
            }
            "swap"
        }
        _ => {
            bytes.truncate(at);
            "cut"
        }
    }
}

/// Where in the sequences each byte of an archive belongs: the first sequence of its block, the
/// sequence of its content, or what would come next.
fn first_seq_at(archive: &[u8], at: usize) -> u64 {
    let mut newlines = archive.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let mut position = newlines.nth(1).unwrap().0 + 1;
    let (mut first, mut last, mut contents) = (1, 0, Vec::new().into_iter());
    while position <= at {
        let (kind, length) = (archive[position], &archive[position + 1..position + 9]);
        let length = u64::from_be_bytes(length.try_into().unwrap()) as usize;
        let bytes = &archive[position + 9..position + 9 + length];
        position += 9 + length;
        if kind == 1 {
            let block = Block::decode(bytes.to_vec().into()).unwrap();
            (first, last) = (block.first().0, block.last().0);
            let in_files = block.records.iter().filter(|record| {
                record.content.as_ref().is_some_and(|it| it.body == ContentBody::File)
            });
            contents = in_files.map(|record| record.seq().0).collect::<Vec<_>>().into_iter();
        } else {
            first = contents.next().unwrap_or(last + 1);
        }
    }
    first
}

#[tokio::test]
async fn whatever_is_done_to_an_archive_is_found_in_its_place() {
    let (mut service, key) = stopped().await;
    let home = service.root().to_owned();
    service.restart().await;
    let file = home.join("log.acta");
    service.acta(&["export", "--format", "archive", file.to_str().unwrap()]).await.ok();
    service.stop().await;
    let whole = fs::read(&file).unwrap();
    let good = verify(&home, &file, &["--key", &key]).await;
    assert_eq!(good.0, 0, "{good:?}");
    let mut random = seeded("an archive that was tampered with");
    for n in 0..150 {
        let mut bytes = whole.clone();
        let what = tamper(&mut bytes, &mut random);
        if bytes == whole {
            continue;
        }
        let at = whole.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
        fs::write(&file, &bytes).unwrap();
        let (code, verdict, said) = verify(&home, &file, &["--key", &key]).await;
        let is_newer = said.contains("is an archive of version");
        assert!(matches!(code, 3 | 4) || is_newer, "{n}: {what} at {at}: {code} {verdict} {said}");
        assert!(!said.contains("panicked"), "{said}");
        if let Some(first) = verdict["problems"][0]["first"].as_u64() {
            let expected = first_seq_at(&whole, at);
            assert_eq!(first, expected, "{n}: {what} at {at}: {verdict}");
            assert_eq!(verdict["intact_through"], expected - 1, "{n}: {what} at {at}: {verdict}");
        }
    }
}

#[tokio::test]
async fn whatever_is_done_to_a_data_directory_is_found_or_changes_nothing() {
    let (service, key) = stopped().await;
    let home = service.root();
    let (code, good, said) = verify(home, &service.data(), &["--key", &key]).await;
    assert_eq!(code, 0, "{good} {said}");
    let root = service.data();
    let files: Vec<_> = files_in(&root)
        .into_iter()
        .filter(|path| fs::metadata(path).unwrap().len() > 0)
        .map(|path| path.strip_prefix(&root).unwrap().to_owned())
        .collect();
    let mut random = seeded("a data directory that was tampered with");
    let mut found = 0;
    for n in 0..150 {
        let path = &files[random.random_range(0..files.len())];
        let name = path.display().to_string();
        let copy = tempfile::tempdir_in(home).unwrap();
        let data = copy.path().join("data");
        copy_dir(&service.data(), &data).unwrap();
        let target = data.join(path);
        let what = if random.random_range(0..8) == 0 {
            fs::remove_file(&target).unwrap();
            "remove"
        } else {
            let mut bytes = fs::read(&target).unwrap();
            let what = tamper(&mut bytes, &mut random);
            fs::write(&target, bytes).unwrap();
            what
        };
        let (code, verdict, said) = verify(home, &data, &["--key", &key]).await;
        assert!(!said.contains("panicked"), "{n}: {what} {name}: {said}");
        match code {
            0 => {
                assert_eq!(essence(&verdict), essence(&good), "{n}: {what} {name}: {verdict}");
            }
            3 | 4 => found += 1,
            _ => panic!("{n}: {what} {name}: {code} {said}"),
        }
    }
    assert!(found > 20, "only {found} were found");
}
