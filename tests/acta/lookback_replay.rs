//! Rebuilding the views up to a moment, and comparing two moments.

use crate::support::{Service, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn a_replay_shows_the_same_from_a_service_and_from_its_data() {
    let mut service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "first").await;
    service.rests(&worker, 2).await;
    let middle = service.head().await;
    let other = service.spawn("refuses").await;
    service.post("/v1/config-bundles", &json!({"bundle": crate::contract_bundles::bundle()})).await;
    service.issue(&json!({"role": "auditor"})).await;
    service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();
    service.run_state(&other, "idle").await;
    let now = service.head().await;
    let time = service.events(&format!("after={}&limit=1", middle - 1)).await[0]["time"].clone();

    let moments = ["0".to_owned(), "3".into(), middle.to_string(), now.to_string()];
    let moments = moments.into_iter().chain([time.as_str().unwrap().to_owned()]);
    let commands: Vec<Vec<String>> = moments
        .flat_map(|moment| {
            let plain = vec!["--to".to_owned(), moment.clone()];
            let some = [&plain[..], &["--worker".into(), worker[..12].into()]].concat();
            let stopped = [&plain[..], &["--status".into(), "stopped".into()]].concat();
            let told = [&plain[..], &["--events".into()]].concat();
            let json = [&told[..], &["-o".into(), "json".into()]].concat();
            let typed =
                [&told[..], &["--type".into(), "worker_created,token_issued".into()]].concat();
            [plain, some, stopped, told, json, typed]
        })
        .collect();
    let mut live = Vec::new();
    for command in &commands {
        let args: Vec<&str> = ["replay"].into_iter().chain(command.iter().map(|a| &**a)).collect();
        live.push(service.acta(&args).await.ok().to_owned());
    }
    // At the moment, the worker had not been stopped.
    assert!(live[2 * 6].contains("running") && !live[2 * 6].contains("stopped"), "{}", live[12]);
    assert!(live[3 * 6 + 2].contains(&worker), "{}", live[20]);
    assert!(!live[3 * 6 + 2].contains(&other), "{}", live[20]);
    assert!(live[2 * 6 + 3].contains("user> first"), "{}", live[15]);
    assert_eq!(live[3 * 6 + 4].lines().count() as u64, now + 1);

    service.kill9().await;
    let data = service.data();
    for (command, live) in commands.iter().zip(&live) {
        let mut args = vec!["replay", "--data", data.to_str().unwrap()];
        args.extend(command.iter().map(|arg| &**arg));
        assert_eq!(service.acta(&args).await.ok(), live, "{command:?}");
    }
    // What a rebuild without the service shows is what the service shows again.
    service.restart().await;
    let again = service.get(&format!("/v1/views?at={now}")).await.ok();
    let last: Value = serde_json::from_str(live[3 * 6 + 4].lines().last().unwrap()).unwrap();
    assert_eq!(again, last);
    let refused = service.acta(&["replay", "--data", data.to_str().unwrap()]).await;
    assert_eq!(refused.code, 1, "the service runs: {refused:?}");
    // Where the data is, is no reason not to ask the service.
    let mut named = service.command();
    named.arg("replay").env("ACTA_DATA", &data);
    crate::support::run(named, "").await.ok();
    for unknown in [["--worker", "zz"], ["--runtime", "nope"]] {
        let ran = service.acta(&[&["replay"], &unknown[..]].concat()).await;
        assert!(ran.code == 1 && ran.stderr.contains("there is no"), "{ran:?}");
    }
    let ahead = service.acta(&["replay", "--to", "100000"]).await;
    assert_eq!(ahead.code, 1, "{ahead:?}");
    for bad in ["at=100000", "status=asleep", "runtime=a%20b", "limit=-1"] {
        assert_eq!(service.get(&format!("/v1/views?{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_diff_tells_fields_turns_and_what_was_said_between_two_moments() {
    let service = Service::start().await;
    let worker = service.spawn("echo").await;
    service.input(&worker, "before").await;
    service.rests(&worker, 2).await;
    let from = service.head().await;
    service.input(&worker, "between").await;
    service.rests(&worker, 4).await;
    let to = eventually("nothing moves", || async {
        let head = service.head().await;
        (service.events("type=worker_turn_ended").await.len() == 2).then_some(head)
    })
    .await;
    service.input(&worker, "after").await;
    service.post_empty(&format!("/v1/workers/{worker}/stop")).await.ok();

    let (from, to) = (from.to_string(), to.to_string());
    let args = ["diff", "worker", &worker[..14], "--from", &from, "--to", &to];
    let json = service.acta(&[&args[..], &["-o", "json"]].concat()).await;
    let diff: Value = serde_json::from_str(json.ok()).unwrap();
    let said: Vec<_> = diff["items"].as_array().unwrap().iter().map(|i| &i["content"]).collect();
    assert_eq!(said[0], "between");
    assert!(said[1].as_str().unwrap().starts_with("between"), "{diff}");
    let turns = diff["turns"].as_array().unwrap().iter();
    let turns: Vec<_> = turns.map(|t| (t["turn"].clone(), t["what"].clone())).collect();
    assert_eq!(turns, [(json!(2), json!("begun")), (json!(2), json!("ended"))]);
    let fields = diff["fields"].as_array().unwrap();
    let of = |name: &str| fields.iter().find(|field| field["field"] == name);
    let items = of("transcript_len").unwrap();
    assert_eq!((&items["from"], &items["to"]), (&json!(2), &json!(4)));
    assert!(of("status").is_none() && of("template").is_none(), "{diff}");

    let text = service.acta(&args).await;
    assert!(text.ok().contains("user> between"), "{text:?}");
    assert!(!text.ok().contains("after"), "{text:?}");
    let whole = service.acta(&["diff", "worker", &worker, "--from", "0", "-o", "json"]).await;
    let whole: Value = serde_json::from_str(whole.ok()).unwrap();
    let status = whole["fields"].as_array().unwrap().iter().find(|f| f["field"] == "status");
    assert_eq!(status.unwrap(), &json!({"field": "status", "from": null, "to": "stopped"}));
    let same = service.acta(&["diff", "worker", &worker, "--from", &to, "--to", &to]).await;
    assert!(same.ok().ends_with("nothing changed"), "{same:?}");
    let mixed = service.acta(&["diff", "worker", &worker, "--from", &to, "--to", &from]).await;
    assert_eq!(mixed.code, 2, "{mixed:?}");
    let none = service.acta(&["diff", "worker", "nobody", "--from", "0"]).await;
    assert_eq!(none.code, 1, "{none:?}");
}
