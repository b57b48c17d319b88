//! `acta connect` is killed at each step; each message is answered exactly once all the same.

use crate::support::{
    Connector, eventually,
    platform::{Fault, Platform, TOKEN, WORKER},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{collections::BTreeMap, fs, time::Duration};

/// Notes each message that the backend sees, by its id, before the work and after it.
const NOTING: &str = "cmd=echo $ACTA_MESSAGE_ID >> seen; [ -e hold ] && exec sleep 100; \
                      cat; echo $ACTA_MESSAGE_ID >> done";

fn agent(platform: &Platform) -> Connector {
    let args = ["--backend", "exec", "--backend-opt", NOTING, "--backend-opt", "pass_meta=true"];
    Connector::new(&platform.url, WORKER, TOKEN, &args)
}

fn lines(agent: &Connector, name: &str) -> Vec<String> {
    let text = fs::read_to_string(agent.home().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// How often each of these was counted.
fn counts(names: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_kill_at_a_request_costs_and_doubles_nothing() {
    // The route, what becomes of the request before the kill, and how often the backend runs.
    let check = async |route: &'static str, fault: Fault, person: bool| {
        let platform = Platform::start().await;
        platform.fail(route, [fault.clone()]);
        let mut agent = agent(&platform).started();
        platform.message((!person).then_some("w-2"), "m-1", "x");
        platform.asked(route, 1).await;
        agent.kill9().await;
        agent.start();
        platform.all_consumed().await;
        let answers = platform.counted("a2a").len() + platform.counted("notify").len();
        assert_eq!(answers, 1, "{route} {fault:?}");
        assert_eq!(lines(&agent, "seen"), ["m-1"], "{route} {fault:?}");
        agent.stop().await;
    };
    for fault in [Fault::Hold, Fault::LostHold] {
        check("register", fault.clone(), false).await;
        check("poll", fault.clone(), false).await;
        check("a2a", fault.clone(), false).await;
        check("notify", fault.clone(), true).await;
    }
}

#[tokio::test]
async fn a_kill_during_the_work_repeats_it_with_the_same_id_and_ends_what_was_left() {
    let platform = Platform::start().await;
    let mut agent = agent(&platform);
    fs::write(agent.home().join("hold"), "").unwrap();
    agent.start();
    platform.message(Some("w-2"), "m-1", "x");
    let running = eventually("a process in the state", || async {
        let text = fs::read(agent.state_file()).ok()?;
        let state: serde_json::Value = serde_json::from_slice(&text).ok()?;
        state["running"]["pid"].as_u64()
    })
    .await;
    eventually("the work", || async { (!lines(&agent, "seen").is_empty()).then_some(()) }).await;
    agent.kill9().await;
    let alive =
        || fs::read_to_string(format!("/proc/{running}/stat")).is_ok_and(|s| !s.contains(") Z"));
    assert!(alive(), "a command outlives a SIGKILL of the agent");
    fs::remove_file(agent.home().join("hold")).unwrap();
    agent.start();
    platform.all_consumed().await;
    assert!(!alive(), "the next start ends it");
    assert_eq!(lines(&agent, "seen"), ["m-1", "m-1"]);
    assert_eq!(lines(&agent, "done"), ["m-1"]);
    assert_eq!(platform.counted("a2a").len(), 1);
}

#[tokio::test]
async fn kills_at_any_moment_leave_each_message_answered_once() {
    const MESSAGES: usize = 40;
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let platform = Platform::start().await;
    let mut agent = agent(&platform);
    for n in 0..MESSAGES {
        let source = if n % 4 == 0 { None } else { Some("w-2") };
        platform.message(source, &format!("m-{n}"), "x");
    }
    let mut kills = 0;
    while platform.counted("a2a").len() + platform.counted("notify").len() < MESSAGES {
        agent.start();
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..250))).await;
        agent.kill9().await;
        kills += 1;
        assert!(kills < 1000, "it does not come forward");
    }
    agent.start();
    platform.all_consumed().await;
    let answered = platform.counted("a2a").into_iter().chain(platform.counted("notify"));
    let answered = counts(answered.map(|call| call.key.unwrap()));
    assert_eq!(answered.len(), MESSAGES);
    assert!(answered.values().all(|count| *count == 1), "{answered:?}");
    let done = counts(lines(&agent, "done"));
    assert_eq!(done.len(), MESSAGES, "each was worked on");
    // A repeat costs a kill: there are no more of them than kills.
    let repeats: usize = done.values().map(|count| count - 1).sum();
    assert!(repeats <= kills, "{repeats} repeats, {kills} kills");
    println!("{kills} kills, {repeats} repeats");
    assert!(platform.counted("report").is_empty());
}
