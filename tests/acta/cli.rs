//! The command line, against the real service.

use crate::support::{Options, Ran, Service, bare_command, eventually, run, soon};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    sync::mpsc,
};

async fn alone(args: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let mut command = bare_command(home.path());
    command.args(args);
    run(command, "").await
}

#[tokio::test]
async fn a_usage_error_exits_2() {
    let hex = "0".repeat(64);
    let rows: [&[&str]; 14] = [
        &[],
        &["no-such-command"],
        &["serve", "--no-such-flag"],
        &["serve", "--listen"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--store=paper"],
        &["serve", "--token="],
        &["serve", "--token", ""],
        &["serve", "--token-env=ACTA_TEST_ABSENT"],
        &["serve", "--no-auth", "--token=x"],
        &["serve", "--no-auth", "--listen=0.0.0.0:0"],
        &["serve", "--observer-idle-ms=0"],
        &["spawn", "--profile", "king"],
        &["bundle", "check", "only-an-id", &hex, "more"],
    ];
    for args in rows {
        let ran = alone(args).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}: {ran:?}");
        assert!(!ran.stderr.is_empty());
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_not_shown() {
    for args in
        [["serve", "--token=canary\t"], ["ls", "--token=canary\t"], ["ls", "--token= canary"]]
    {
        let ran = alone(&args).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("--token") && !ran.stderr.contains("canary"), "{ran:?}");
    }
}

#[tokio::test]
async fn any_other_error_exits_1() {
    let nobody = ["--url", "http://127.0.0.1:9"];
    let ran = alone(&[&["ls"][..], &nobody].concat()).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("acta serve"), "{}", ran.stderr);
    let ran = alone(&["serve", "--listen=192.0.2.1:1", "--data=data"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let service = Service::start().await;
    for args in [
        &["show", "missing"][..],
        &["send", "missing", "hello"],
        &["stop", "missing"],
        &["spawn", "--template", "no-such"],
        &["ls", "--token", "wrong"],
        &["ls", "--token", "-wrong"],
        &["cursor", "get", "missing"],
    ] {
        let ran = service.acta(args).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{args:?}: {ran:?}");
        assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    }
}

#[tokio::test]
async fn flags_take_their_value_with_and_without_an_equals_sign() {
    for args in
        [["--runtime-id=mine", "--log=json"].as_slice(), &["--runtime-id", "mine", "--log", "json"]]
    {
        let options = args.iter().fold(Options::default(), |options, arg| options.arg(*arg));
        let service = options.start().await;
        assert_eq!(service.get("/v1/runtime").await.ok()["runtime"]["runtime_id"], "mine");
        let log = service.log();
        let line = log.lines().next().unwrap();
        assert!(serde_json::from_str::<Value>(line).unwrap().is_object(), "{line}");
    }
}

#[tokio::test]
async fn help_version_and_completions_need_no_service() {
    assert!(alone(&["--help"]).await.ok().contains("acta serve"));
    assert!(alone(&["serve", "--help"]).await.ok().contains("--data"));
    assert!(alone(&["--version"]).await.ok().starts_with("acta "));
    for shell in ["bash", "zsh", "fish"] {
        let script = alone(&["completions", shell]).await;
        assert!(script.ok().contains("acta") && script.ok().contains("transcript"), "{shell}");
    }
    assert_eq!(alone(&["completions", "no-shell"]).await.code, 2);
}

#[tokio::test]
async fn spawn_send_wait_and_transcript() {
    let service = Service::start().await;
    let worker = service.acta(&["spawn", "--template", "lines"]).await.ok().to_owned();
    assert_eq!(service.worker(&worker).await["template"], "lines");
    let sent = service.acta(&["send", &worker, "--wait", "hello", "there"]).await;
    assert_eq!(sent.ok(), "     1\thello there");
    let piped = service.acta_with(&["send", &worker, "--wait", "-"], "one\ntwo\n").await;
    assert_eq!(piped.ok(), "     1\tone\n     2\ttwo");
    let sent = service.acta(&["send", &worker, "--wait", "-o", "json", "again"]).await;
    let answer: Value = serde_json::from_str(sent.ok()).unwrap();
    assert_eq!((&answer["text"], &answer["result"]), (&"     1\tagain".into(), &"finished".into()));
    let transcript = service.acta(&["transcript", &worker]).await;
    for text in ["user> hello there", "assistant> ", "one", "two"] {
        assert!(transcript.ok().contains(text), "{text}: {transcript:?}");
    }
    let json = service.acta(&["transcript", &worker, "-o", "json"]).await;
    let json: Value = serde_json::from_str(json.ok()).unwrap();
    assert_eq!(json["transcript"], service.transcript(&worker).await);
    let failed = service.acta(&["spawn", "--template", "refuses"]).await.ok().to_owned();
    let failed = service.acta(&["send", &failed, "--wait", "x"]).await;
    assert_eq!(failed.code, 1, "{failed:?}");
}

#[tokio::test]
async fn lists_are_tables_for_people_and_json_for_programs() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    let table = service.acta(&["ls"]).await;
    assert!(table.ok().starts_with("WORKER") && table.ok().lines().count() == 2, "{table:?}");
    for (what, path) in
        [("workers", "/v1/workers"), ("runtimes", "/v1/runtimes"), ("hosts", "/v1/hosts")]
    {
        let json = service.acta(&["ls", what, "-o", "json"]).await;
        let json: Value = serde_json::from_str(json.ok()).unwrap();
        let answer = service.get(path).await.ok();
        assert_eq!(json.as_object().map(|o| o.len()), answer.as_object().map(|o| o.len()));
        assert!(service.acta(&["ls", what]).await.ok().lines().count() > 1);
    }
    let ids = service.acta(&["ls", "-o", "json"]).await;
    let ids: Value = serde_json::from_str(ids.ok()).unwrap();
    assert_eq!(ids["workers"][0]["worker_id"], worker);
    let shown = service.acta(&["show", &worker[..worker.len() - 2], "-o", "json"]).await;
    let shown: Value = serde_json::from_str(shown.ok()).unwrap();
    assert_eq!(shown["worker"]["worker_id"], worker, "the beginning of an id is enough");
}

#[tokio::test]
async fn stop_cancel_and_the_runtime() {
    let service = Service::start().await;
    for (end, status) in [("stop", "stopped"), ("cancel", "cancelled")] {
        let worker = service.spawn("echo").await;
        service.acta(&[end, &worker]).await.ok();
        assert_eq!(service.worker(&worker).await["status"], status);
    }
    service.acta(&["runtime", "stop"]).await.ok();
    assert_eq!(service.get("/v1/runtime").await.ok()["runtime"]["status"], "stopped");
}

#[tokio::test]
async fn tokens_are_issued_listed_and_revoked() {
    let mut service = Service::start().await;
    let issued = service.acta(&["token", "issue", "--role", "observer", "--label", "screen"]).await;
    let token = issued.ok().to_owned();
    let observer = service.with_token(&token);
    observer.get("/v1/workers").await.ok();
    let list = service.acta(&["token", "ls"]).await;
    assert!(list.ok().contains("screen") && !list.ok().contains(&token), "{list:?}");
    let ids = service.get("/v1/tokens").await.ok();
    service.acta(&["token", "revoke", ids["tokens"][0]["id"].as_str().unwrap()]).await.ok();
    observer.get("/v1/workers").await.refused(401, "unauthorized");
    let (lost, data) = (service.token(), service.data());
    service.stop().await;
    service.acta(&["token", "reset", "--data", data.to_str().unwrap()]).await.ok();
    service.restart().await;
    assert_ne!(service.token(), lost);
    service.with_token(&lost).get("/v1/workers").await.refused(401, "unauthorized");
    service.acta(&["ls"]).await.ok();
}

/// A command that goes on, its lines as they come.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn begin(service: &Service, args: &[&str]) -> Self {
        let mut command = service.command();
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .take_while(|line| sender.send(line.clone()).is_ok())
                .for_each(drop);
        });
        Self { child, lines }
    }

    /// Records up to and with the first that is looked for.
    async fn until(&self, mut found: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut records = Vec::new();
        loop {
            let line = eventually("a line", || async { self.lines.try_recv().ok() }).await;
            records.push(serde_json::from_str(&line).unwrap());
            if records.last().is_some_and(&mut found) {
                return records;
            }
        }
    }

    /// Asks it to end; what it said on standard error.
    async fn end(mut self) -> String {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGINT).unwrap();
        let ending = tokio::task::spawn_blocking(move || {
            let mut said = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            assert!(self.child.wait().unwrap().success());
            said
        });
        soon("the end of a command", ending).await.unwrap()
    }
}

#[tokio::test]
async fn tail_resumes_by_itself_when_the_service_is_killed() {
    let mut service = Service::start().await;
    let worker = service.spawn("lines").await;
    let tail = Running::begin(&service, &["tail", &worker, "--from", "start", "--json"]);
    service.input(&worker, "before").await;
    let mut records = tail.until(|record| record["type"] == "worker_turn_ended").await;
    service.kill9().await;
    service.restart_here().await;
    service.input(&worker, "after").await;
    records.extend(tail.until(|record| record["type"] == "worker_turn_ended").await);
    let said = tail.end().await;
    let whole = service.events(&format!("worker={worker}")).await;
    assert_eq!(records, whole, "no event is missing and none comes twice");

    let cursor = said.lines().find_map(|line| line.strip_prefix("resume from: ")).unwrap();
    service.input(&worker, "later").await;
    let resumed = Running::begin(&service, &["tail", &worker, "--from", cursor, "--json"]);
    let more = resumed.until(|record| record["type"] == "worker_turn_ended").await;
    assert!(more[0]["seq"].as_u64() > whole.last().unwrap()["seq"].as_u64());
    assert_eq!(more[0]["content"], "later");
    resumed.end().await;
}

#[tokio::test]
async fn tail_without_follow_prints_the_history_and_ends() {
    let service = Service::start().await;
    let worker = service.spawn("refuses").await;
    service.run_state(&worker, "idle").await;
    let json = service.acta(&["tail", "--no-follow", "--json"]).await;
    let records: Vec<Value> =
        json.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records, service.events("").await);
    let people = service.acta(&["tail", "--no-follow", "--type", "worker_created"]).await;
    assert_eq!(people.ok().lines().count(), 1, "{people:?}");
    assert_eq!(service.acta(&["tail", "--no-follow", "--from", "now"]).await.code, 2);
    assert_eq!(service.acta(&["tail", "--type", "no_such_event"]).await.code, 2);
    assert_eq!(service.acta(&["tail", "--from", "nowhere"]).await.code, 2);
}

#[tokio::test]
async fn whoever_stops_reading_ends_a_command_quietly() {
    let service = Service::start().await;
    let mut command = service.command();
    command.args(["tail", "--from", "start", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let status = eventually("the end of the command", || {
        let status = child.try_wait().unwrap();
        let service = &service;
        async move {
            if status.is_none() {
                service.spawn("refuses").await;
            }
            status
        }
    })
    .await;
    assert_eq!(status.code(), Some(0));
}
