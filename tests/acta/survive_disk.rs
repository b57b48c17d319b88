//! A disk that is full, and writes that fail: nothing acknowledged is lost, whoever asks hears
//! that it may try again, and the service goes on by itself when there is room.

use super::{
    support::{Answer, Client, eventually},
    survive_bare::Bare,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// A file system of a few MiB. Only root can make one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={mib}m,mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "acta"]).arg(at).output();
        mounted.ok()?.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Something that takes room in the log: a command with a content that stays in its block.
pub fn bulky(n: usize) -> (String, Value) {
    let objective = format!("{n} {}", "z".repeat(20_000));
    let body = json!({
        "intent": {"kind": "task", "objective": objective},
        "profile": {"kind": "runtime_default"},
    });
    (format!("key-{n}"), body)
}

/// None: workers stay unconnected, so that nothing but commands is recorded.
pub fn templates() -> Value {
    json!({"workspace_templates": []})
}

/// Gives commands until one fails: that answer. What was acknowledged is remembered.
pub async fn until_it_fails(client: &Client, acked: &mut BTreeMap<u64, usize>) -> (usize, Answer) {
    for n in acked.len()..100_000 {
        let (key, body) = bulky(n);
        let answer = client.post_keyed("/v1/workers", &key, &body).await;
        if answer.status != 200 {
            return (n, answer);
        }
        acked.insert(answer.json()["worker"]["sequence"].as_u64().unwrap(), n);
    }
    panic!("the disk is never full")
}

/// It says that trying again makes sense, and it is true that the command may be tried again.
pub fn may_be_tried_again(answer: &Answer) {
    let code = answer.json()["error"]["code"].as_str().unwrap().to_owned();
    let known = ["store_io", "outcome_unknown", "not_ready"].contains(&code.as_str());
    assert!(known, "{}", answer.text());
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("try again") || message.contains("repeat"), "{message}");
    assert!(answer.status == 500 || answer.header("retry-after") == "1", "{}", answer.text());
}

/// Gives a command until it is acknowledged, which takes no restart.
pub async fn at_last(
    client: &Client,
    acked: &mut BTreeMap<u64, usize>,
    command: fn(usize) -> (String, Value),
) {
    let n = acked.len();
    let (key, body) = command(n);
    let answer = eventually("the command is acknowledged", || async {
        let answer = client.post_keyed("/v1/workers", &key, &body).await;
        if answer.status == 200 {
            return Some(answer.json());
        }
        may_be_tried_again(&answer);
        None
    });
    acked.insert(answer.await["worker"]["sequence"].as_u64().unwrap(), n);
}

/// Every acknowledged command stands where it was acknowledged, and is there once.
pub async fn nothing_is_lost(client: &Client, acked: &BTreeMap<u64, usize>) {
    let mut found = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = client.get(&format!("/v1/events?after={after}&watching=1")).await.ok();
        let events = page["events"].as_array().unwrap();
        if events.is_empty() {
            break;
        }
        for record in events {
            after += 1;
            assert_eq!(record["seq"], after);
            if let Some(key) = record["command"]["key"].as_str() {
                let twice = found.insert(key.to_owned(), after);
                assert_eq!(twice, None, "{key} is there twice");
            }
        }
    }
    for (sequence, n) in acked {
        assert_eq!(found.get(&bulky(*n).0), Some(sequence), "command {n}");
    }
}

pub async fn is_ready(client: &Client) -> bool {
    client.get("/readyz").await.status == 200
}

/// A file that leaves only so much room on the disk.
fn fill(path: &Path, leave_bytes: u64) {
    let stat = nix::sys::statvfs::statvfs(path.parent().unwrap()).unwrap();
    let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
    let mut file = File::create(path).unwrap();
    let page = vec![1; 4096];
    for _ in 0..free.saturating_sub(leave_bytes) / 4096 {
        file.write_all(&page).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_is_left_behind() {
    let home = tempfile::tempdir().unwrap();
    let mount = home.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&mount, 96) else {
        eprintln!(
            "NOT TESTED: a full disk, because this user may not mount a tmpfs; \
                   writes_that_fail_lose_nothing covers the rest"
        );
        return;
    };
    let (data, filler) = (mount.join("data"), mount.join("filler"));
    let mut service = Bare::start(home.path(), &data, &templates()).await;
    let client = service.client().clone();
    fill(&filler, 3 << 20);
    let mut acked = BTreeMap::new();
    let (n, answer) = until_it_fails(&client, &mut acked).await;
    may_be_tried_again(&answer);
    assert!(n > 10, "{n} commands fitted");

    // Meanwhile it lives, says why it takes no commands, and still shows what there is.
    assert_eq!(client.get("/healthz").await.status, 200);
    let ready = client.get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    let reason = ready.json()["reason"].as_str().unwrap().to_owned();
    assert!(["journal_recovering", "journal_refusing"].contains(&reason.as_str()), "{reason}");
    nothing_is_lost(&client, &acked).await;
    let (key, body) = bulky(n);
    may_be_tried_again(&client.post_keyed("/v1/workers", &key, &body).await);

    // There is room again: no restart is needed, and the command is recorded once.
    fs::remove_file(&filler).unwrap();
    eventually("it is ready again", || async { is_ready(&client).await.then_some(()) }).await;
    let again = client.post_keyed("/v1/workers", &key, &body).await.ok();
    acked.insert(again["worker"]["sequence"].as_u64().unwrap(), n);
    nothing_is_lost(&client, &acked).await;

    // Killed while the disk is full, and started while it still is.
    fill(&filler, 1 << 20);
    let (_, answer) = until_it_fails(&client, &mut acked).await;
    may_be_tried_again(&answer);
    service.kill9();
    let mut full = Bare::start(home.path(), &data, &templates()).await;
    if full.client.is_none() {
        let status = full.ended().await.expect("it ends");
        assert_eq!(status.code(), Some(1));
        assert!(full.said().contains("error: "), "{}", full.said());
    }
    assert!(!full.said().contains("panicked"), "{}", full.said());
    full.kill9();
    fs::remove_file(&filler).unwrap();
    let service = Bare::start(home.path(), &data, &templates()).await;
    nothing_is_lost(service.client(), &acked).await;
    let (n, (key, body)) = (acked.len(), bulky(acked.len()));
    let answer = service.client().post_keyed("/v1/workers", &key, &body).await.ok();
    acked.insert(answer["worker"]["sequence"].as_u64().unwrap(), n);
    nothing_is_lost(service.client(), &acked).await;
    assert!(!service.said().contains("panicked"), "{}", service.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_fail_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    // A file that grows beyond the limit is refused with an error, as a disk would; the signal
    // that comes with it is ignored.
    let limits = "trap '' XFSZ; ulimit -S -f 4096";
    let service = Bare::start_limited(limits, home.path(), &data, &templates()).await;
    let client = service.client().clone();
    let mut acked = BTreeMap::new();
    let (n, answer) = until_it_fails(&client, &mut acked).await;
    may_be_tried_again(&answer);
    assert!(n > 10, "{n} commands fitted");
    nothing_is_lost(&client, &acked).await;
    assert_eq!(client.get("/readyz").await.status, 503);

    let lifted = Command::new("prlimit")
        .args(["--pid", &service.pid().to_string(), "--fsize=unlimited"])
        .status();
    assert!(lifted.is_ok_and(|status| status.success()), "prlimit of util-linux is needed here");
    eventually("it is ready again", || async { is_ready(&client).await.then_some(()) }).await;
    let (key, body) = bulky(n);
    let answer = client.post_keyed("/v1/workers", &key, &body).await.ok();
    acked.insert(answer["worker"]["sequence"].as_u64().unwrap(), n);
    nothing_is_lost(&client, &acked).await;
    assert!(!service.said().contains("panicked"), "{}", service.said());
}
