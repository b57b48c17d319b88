//! `acta connect`: what it is told, and what it refuses before it does anything.

use crate::support::{Connector, Ran, platform::Platform};

async fn connect(url: &str, token: &str, args: &[&str]) -> (Ran, Connector) {
    let agent = Connector::new(url, "w-1", token, args);
    (agent.run().await, agent)
}

#[tokio::test]
async fn what_is_wrong_is_refused_before_any_io() {
    let platform = Platform::start().await;
    let check = async |token: &str, args: &[&str], said: &str| {
        let (ran, agent) = connect(&platform.url, token, args).await;
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(said), "{args:?}: {ran:?}");
        assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
        assert!(!agent.home().join(".config").exists(), "{args:?}: it wrote something");
    };
    check("", &[], "token is missing").await;
    check("s3cret with blanks", &[], "no token has").await;
    check("s3cret", &["--mode", "pull"], "invalid value 'pull'").await;
    check("s3cret", &["--backend", "moon"], "a2a, claude-code, exec, mock").await;
    check("s3cret", &["--backend", "exec"], "--backend-opt cmd=").await;
    check("s3cret", &["--backend-opt", "novalue"], "KEY=VALUE").await;
    check("s3cret", &["--backend", "mock", "--backend-opt", "cmd=x"], "no option \"cmd\"").await;
    check("s3cret", &["--backend-opt", "timeout=5"], "60s, 5m or 1h30m").await;
    check("s3cret", &["--interval-ms", "0"], "--interval-ms").await;
    check("s3cret", &["--since-secs", "0"], "--since-secs").await;
    check("s3cret", &["--url", "ftp://h"], "https://").await;
    for route in ["register", "heartbeat", "poll"] {
        assert!(platform.calls(route).is_empty(), "{route}");
    }
    for id in ["../x", "", "a/b", "a b"] {
        let agent = Connector::new(&platform.url, id, "s3cret", &[]);
        assert_eq!(agent.run().await.code, 2, "{id:?}");
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_touches_nothing() {
    let args = ["--backend", "exec", "--backend-opt", "cmd=a=b", "--dry-run"];
    let (ran, agent) = connect("http://127.0.0.1:9", "s3cret", &args).await;
    let said = ran.ok();
    for part in ["w-1", "http://127.0.0.1:9", "exec", "poll", ".config/acta/state"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!format!("{ran:?}").contains("s3cret"));
    assert!(!agent.home().join(".config").exists());
}

#[tokio::test]
async fn the_variables_of_the_original_are_understood_after_our_own() {
    let check = async |env: &[(&str, &str)], args: &[&str], url: &str| {
        let mut agent = Connector::new("", "w-1", "", args);
        for (name, value) in env {
            agent = agent.env(name, value);
        }
        let ran = agent.run().await;
        assert!(ran.ok().contains(url), "{env:?} {args:?}: {ran:?}");
    };
    let args = ["--backend", "mock", "--dry-run"];
    let theirs = [("MOLECULE_WORKSPACE_TOKEN", "t"), ("MOLECULE_API_URL", "http://theirs:1")];
    check(&theirs, &args, "http://theirs:1").await;
    check(&[theirs[0], theirs[1], ("ACTA_URL", "http://ours:1")], &args, "http://ours:1").await;
    check(&[theirs[0]], &args, "http://127.0.0.1:8080").await;
    let given = ["--backend", "mock", "--dry-run", "--url", "http://given:1"];
    check(&[theirs[0], theirs[1], ("ACTA_URL", "http://ours:1")], &given, "http://given:1").await;
    // The operator's token is not the worker's.
    let ran = Connector::new("", "w-1", "", &args).env("ACTA_TOKEN", "s3cret").run().await;
    assert_eq!(ran.code, 2, "{ran:?}");
    let given = ["--backend", "mock", "--dry-run", "--token", "t"];
    assert_eq!(Connector::new("", "w-1", "", &given).run().await.code, 0);
}

#[tokio::test]
async fn help_names_every_backend_and_its_options() {
    let ran = Connector::new("", "--help", "", &[]).run().await;
    for word in ["claude-code", "exec", "a2a", "mock", "pass_meta", "ACTA_MESSAGE_ID", "--dry-run"]
    {
        assert!(ran.ok().contains(word), "{word}");
    }
}
