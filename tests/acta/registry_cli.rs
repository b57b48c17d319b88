//! Workers of any runtime from the command line, as RUNTIME/ID.

use super::support::{Options, Service};
use serde_json::{Value, json};

/// A template whose turns end with its process, and not by a silence that may be this machine's.
const ANSWERS: &str = "lines";

async fn joined(there: &Service) -> Service {
    let here = Options::default().env("ELSEWHERE_TOKEN", &there.token()).start().await;
    let remote = json!({
        "runtime_id": "elsewhere", "kind": "remote_http", "url": there.base,
        "token_env": "ELSEWHERE_TOKEN",
    });
    let registered = here.post("/v1/runtimes", &remote).await.ok();
    assert_eq!(registered["runtime"]["status"], "running", "{registered}");
    here
}

/// The least of an id that another one does not have.
fn beginning(id: &str, other: &str) -> String {
    let shared = id.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    id[..=shared].to_owned()
}

fn resume(stderr: &str) -> String {
    stderr.lines().find_map(|line| line.strip_prefix("resume from: ")).unwrap().to_owned()
}

#[tokio::test]
async fn a_worker_of_another_service_is_spoken_to_like_an_own_one() {
    let there = Service::start().await;
    let here = joined(&there).await;
    let (worker, other) = (there.spawn(ANSWERS).await, there.spawn(ANSWERS).await);
    there.run_state(&worker, "idle").await;
    let address = format!("elsewhere/{}", beginning(&worker, &other));
    let sent = here.acta(&["send", &address, "hello", "there"]).await;
    assert!(sent.ok().starts_with("accepted as item 1, sequence "), "{sent:?}");
    there.rests(&worker, 2).await;
    let answer = here.acta(&["send", &address, "--wait", "again"]).await;
    assert_eq!(answer.ok().trim(), "1\tagain", "{answer:?}");
    let told = here.acta(&["send", &address, "--wait", "-o", "json", "more"]).await;
    let told: Value = serde_json::from_str(told.ok()).unwrap();
    let text = told["text"].as_str().unwrap().trim();
    assert_eq!((text, &told["result"]), ("1\tmore", &json!("finished")));
    there.rests(&worker, 6).await;

    let said = here.acta(&["transcript", &address, "--limit", "2"]).await;
    assert!(said.ok().contains("user> hello there"), "{said:?}");
    assert!(said.stderr.contains("there are 6 items; go on with --start 2"), "{said:?}");
    let all = here.acta(&["transcript", &address, "--all", "-o", "json"]).await;
    let all: Value = serde_json::from_str(all.ok()).unwrap();
    assert_eq!(all["items"].as_array().unwrap().len(), 6);
    assert_eq!(all["items"][2]["content"], "again");
    let shown = here.acta(&["show", &address]).await;
    assert!(shown.ok().contains(&worker) && shown.ok().contains("elsewhere"), "{shown:?}");

    let stopped = here.acta(&["stop", &address, "--reason", "done"]).await;
    assert_eq!(stopped.ok(), format!("elsewhere/{worker} is ended"));
    assert_eq!(there.worker(&worker).await["status"], "stopped");
    let late = here.acta(&["send", &address, "late"]).await;
    assert_eq!(late.code, 1);
    assert!(late.stderr.contains("rejected: ") && late.stderr.contains("(invalid_request)"));
    here.acta(&["cancel", &format!("elsewhere/{other}")]).await.ok();
    assert_eq!(there.worker(&other).await["status"], "cancelled");
}

#[tokio::test]
async fn a_worker_of_another_service_is_followed_and_resumed() {
    let there = Service::start().await;
    let here = joined(&there).await;
    let worker = there.spawn(ANSWERS).await;
    there.input(&worker, "one").await;
    there.rests(&worker, 2).await;
    let address = format!("elsewhere/{worker}");
    let tail = |from: &str, more: &[&str]| {
        let args = ["tail", &address, "--no-follow", "--from", from];
        let args: Vec<String> = args.iter().chain(more).map(|&arg| arg.to_owned()).collect();
        let here = &here;
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            here.acta(&args).await
        }
    };
    let lines = tail("start", &[]).await;
    for expected in ["user> one", "turn 1 begins", "agent>      1\tone", "turn 1 finished"] {
        assert_eq!(lines.ok().matches(expected).count(), 1, "{expected}: {lines:?}");
    }
    let cursor = resume(&lines.stderr);
    let nothing = tail(&cursor, &[]).await;
    assert_eq!(nothing.ok(), "");
    there.input(&worker, "two").await;
    there.rests(&worker, 4).await;
    let rest = tail(&cursor, &["--json"]).await;
    let events: Vec<Value> =
        rest.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["payload"]["data"]["segments"][0]["content"], "two");
    assert_eq!(events.last().unwrap()["cursor"], json!(resume(&rest.stderr)));
    let path = format!("/v1/workers/{worker}/events/ws?cursor={cursor}");
    let mut straight = there.watch(&path).await;
    straight.frame().await;
    for event in &events {
        assert_eq!(&straight.frame().await["envelope"], event);
    }
    let chosen = here.acta(&["tail", &address, "--type", "worker_output"]).await;
    assert_eq!(chosen.code, 2, "{chosen:?}");
    let past = format!("/v1/runtimes/elsewhere/workers/{worker}/transcript?at=1");
    here.get(&past).await.refused(400, "invalid_query");
}

#[tokio::test]
async fn what_is_not_one_worker_is_told_with_what_there_is() {
    let there = Service::start().await;
    let here = joined(&there).await;
    let (first, second) = (there.spawn("echo").await, there.spawn("slow").await);
    let shared = &first[..beginning(&first, &second).len() - 1];
    let several = here.acta(&["show", &format!("elsewhere/{shared}")]).await;
    assert_eq!(several.code, 1);
    for expected in ["several workers of elsewhere", &first, &second, "slow"] {
        assert!(several.stderr.contains(expected), "{expected}: {several:?}");
    }
    for (address, expected) in [
        ("elsewhere/nobody", "unknown_worker"),
        ("nowhere/w-1", "unknown_runtime"),
        ("embedded-worker-runtime/nobody", "unknown_worker"),
    ] {
        for command in [&["stop"][..], &["show"], &["transcript"], &["tail"]] {
            let ran = here.acta(&[command, &[address]].concat()).await;
            assert_eq!(ran.code, 1, "{ran:?}");
            assert!(ran.stderr.contains(expected), "{address}: {ran:?}");
        }
    }
    // Whoever is at work may answer something else first.
    there.input(&second, "begin").await;
    there.run_state(&second, "busy").await;
    let busy = here.acta(&["send", &format!("elsewhere/{second}"), "x", "--wait"]).await;
    assert!(busy.code == 1 && busy.stderr.contains("is at work"), "{busy:?}");

    // The own runtime can be named as well.
    let own = here.spawn(ANSWERS).await;
    let address = format!("embedded-worker-runtime/{}", &own[..own.len() - 2]);
    let answer = here.acta(&["send", &address, "--wait", "mine"]).await;
    assert_eq!(answer.ok().trim(), "1\tmine", "{answer:?}");
    let stopped = here.acta(&["stop", &address]).await;
    assert_eq!(stopped.ok(), format!("{own} is stopped"));
    let down = json!({"runtime_id": "down", "kind": "remote_http", "url": "http://127.0.0.1:9"});
    here.post("/v1/runtimes", &down).await.ok();
    let gone = here.acta(&["send", "down/w-1", "x"]).await;
    assert!(gone.code == 1 && gone.stderr.contains("runtime_unavailable"), "{gone:?}");
}
