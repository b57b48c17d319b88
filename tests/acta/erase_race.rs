//! Contents that are erased while the log is carried away, or looked at, from outside. A proxy
//! holds a chosen request back until the erasure is ordered, so that the order of things is certain.

use super::{
    erase_redact::{holds, secret},
    support::{Ran, Service, run},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Semaphore,
    task::JoinHandle,
};

/// Between a client and the service; holds back one request.
struct Gate {
    url: String,
    held: Arc<Held>,
}

/// The request that is held back.
struct Held {
    /// What its head begins with.
    begins: String,
    /// How many come before it, and itself.
    left: AtomicUsize,
    /// It has come.
    came: Semaphore,
    /// It may go on.
    open: Semaphore,
}

impl Gate {
    /// Before the n-th request, from 1, for a path that begins so.
    async fn before(service: &Service, path: &str, n: usize) -> Self {
        let target = service.base.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let held = Arc::new(Held {
            begins: format!("GET {path}"),
            left: AtomicUsize::new(n),
            came: Semaphore::new(0),
            open: Semaphore::new(0),
        });
        let gate = Self { url, held: Arc::clone(&held) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&target).await.unwrap();
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = server.into_split();
                tokio::spawn(async move {
                    drop(tokio::io::copy(&mut from_server, &mut to_client).await);
                });
                let held = Arc::clone(&held);
                tokio::spawn(async move { held.pass(from_client, to_server).await });
            }
        });
        gate
    }

    /// Waits until the request of a command is there, does something, and lets it go on.
    async fn meanwhile(&self, mut ran: JoinHandle<Ran>, what: impl Future<Output = ()>) -> Ran {
        tokio::select! {
            came = self.held.came.acquire() => came.unwrap().forget(),
            ended = &mut ran => panic!("it ended without that request: {:?}", ended.unwrap()),
        }
        what.await;
        self.held.open.add_permits(1);
        ran.await.unwrap()
    }
}

impl Held {
    /// Passes requests without a body on, head by head.
    async fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        const END: &[u8] = b"\r\n\r\n";
        let mut bytes = Vec::new();
        while from.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
            while let Some(at) = bytes.windows(END.len()).position(|window| window == END) {
                let head: Vec<u8> = bytes.drain(..at + END.len()).collect();
                if head.starts_with(self.begins.as_bytes())
                    && self.left.fetch_sub(1, Ordering::SeqCst) == 1
                {
                    self.came.add_permits(1);
                    self.open.acquire().await.unwrap().forget();
                }
                if to.write_all(&head).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The sequence of a new record that holds this text.
async fn written(service: &Service, text: &str) -> u64 {
    let intent = json!({"kind": "task", "objective": text});
    let request = json!({"intent": intent, "profile": {"kind": "runtime_default"}});
    let answer = service.post("/v1/workers", &request).await.ok();
    answer["worker"]["sequence"].as_u64().unwrap()
}

/// Contents at the beginning of a log and at its end, inline and in files. They are in several
/// answers of `GET /v1/blocks`, which gives 64 blocks at a time, a block for each.
struct Log {
    service: Service,
    key: String,
    early: (u64, String),
    large: (u64, String),
    late: (u64, String),
    head: u64,
}

impl Log {
    async fn with_secrets() -> Self {
        let service = Service::start().await;
        let [early, large, late] = [200, 40_000, 200].map(secret);
        let early = (written(&service, &early).await, early);
        let large = (written(&service, &large).await, large);
        for n in 0..70 {
            written(&service, &format!("something else {n}")).await;
        }
        let late = (written(&service, &late).await, late);
        let data = service.data();
        let key = service.acta(&["key", "show", "--data", data.to_str().unwrap()]).await;
        let (key, head) = (key.ok().to_owned(), service.head().await);
        // All of it is signed, and not just what was there a second ago.
        service.get(&format!("/v1/proofs/inclusion?seq={head}")).await.ok();
        Self { service, key, early, large, late, head }
    }

    /// Runs a command against the service, through a gate.
    fn through(&self, gate: &Gate, args: &[&str]) -> JoinHandle<Ran> {
        let mut command = self.service.command();
        command
            .args(args)
            .arg(format!("--token={}", self.service.token()))
            .env("ACTA_URL", &gate.url);
        tokio::spawn(async move { run(command, "").await })
    }

    /// Writes an archive while something happens.
    async fn archive(&self, gate: &Gate, name: &str, what: impl Future<Output = ()>) -> PathBuf {
        let path = self.service.root().join(name);
        let export = self.through(gate, &["export", "--format", "archive", path.to_str().unwrap()]);
        gate.meanwhile(export, what).await.ok();
        path
    }

    async fn redact(&self, secrets: &[&(u64, String)]) {
        for (seq, _) in secrets {
            let body = json!({"sequence": seq, "reason": "it was a password"});
            let answer = self.service.post("/v1/redactions", &body).await.ok();
            assert_eq!(answer["erased"], true, "{answer}");
        }
    }

    /// Checks that an archive is intact and holds just these of the three; what was found.
    async fn check(&self, archive: &Path, held: &[&(u64, String)]) -> Value {
        let bytes = fs::read(archive).unwrap();
        for secret in [&self.early, &self.large, &self.late] {
            let expected = held.iter().any(|held| held.0 == secret.0);
            assert_eq!(holds(&bytes, &secret.1.as_bytes()[..40]), expected, "of {}", secret.0);
        }
        let target = archive.to_str().unwrap();
        let ran = self.service.acta(&["verify", target, "--key", &self.key, "-o", "json"]).await;
        serde_json::from_str(ran.ok()).unwrap()
    }
}

fn records(verdict: &Value) -> Vec<u64> {
    let erased = verdict["erased"].as_array().unwrap();
    erased.iter().map(|erased| erased["record"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn an_archive_holds_nothing_that_was_ordered_away_before_its_end() {
    let log = Log::with_secrets().await;
    // The first blocks are written, the order comes behind what was signed for the archive.
    let gate = Gate::before(&log.service, "/v1/blocks", 2).await;
    let path = log.archive(&gate, "a", log.redact(&[&log.early])).await;
    let verdict = log.check(&path, &[&log.early, &log.large, &log.late]).await;
    assert_eq!((records(&verdict), &verdict["size"]), (vec![], &log.head.into()), "{verdict}");

    // One that is shown without its content makes the archive go on to its order, and with that
    // to the order for one that was written already.
    let log = Log::with_secrets().await;
    let gate = Gate::before(&log.service, "/v1/blocks", 2).await;
    let both = [&log.early, &log.late];
    let path = log.archive(&gate, "b", log.redact(&both)).await;
    let verdict = log.check(&path, &[&log.large]).await;
    assert_eq!(records(&verdict), [log.early.0, log.late.0], "{verdict}");
    assert!(verdict["size"].as_u64() > Some(log.head), "{verdict}");

    // A file whose block is written already.
    let log = Log::with_secrets().await;
    let gate = Gate::before(&log.service, "/v1/contents", 1).await;
    let path = log.archive(&gate, "c", log.redact(&[&log.large])).await;
    let verdict = log.check(&path, &[&log.early, &log.late]).await;
    assert_eq!(records(&verdict), [log.large.0], "{verdict}");
}

#[tokio::test]
async fn a_service_verifies_while_contents_are_erased() {
    let log = Log::with_secrets().await;
    for (path, n, secrets) in
        [("/v1/contents", 1, vec![&log.large]), ("/v1/blocks", 2, vec![&log.early, &log.late])]
    {
        let gate = Gate::before(&log.service, path, n).await;
        let verify = log.through(&gate, &["verify", &gate.url, "--key", &log.key, "-o", "json"]);
        let ran = gate.meanwhile(verify, log.redact(&secrets)).await;
        let verdict: Value = serde_json::from_str(ran.ok()).unwrap();
        assert_eq!(verdict["intact"], true, "{verdict}");
        for (seq, _) in secrets {
            assert!(records(&verdict).contains(seq), "{seq}: {verdict}");
        }
    }
}
