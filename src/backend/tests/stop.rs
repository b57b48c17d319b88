//! Ways to end a worker from outside.

use super::*;

#[tokio::test]
async fn a_graceful_stop_lets_the_child_finish_its_words() {
    let text = "exec 2>&-; trap 'echo bye; exit 0' TERM; echo on; while :; do sleep 0.01; done";
    let rig = Rig::start(script(text));
    rig.until_text("on\n").await;
    let process = rig.process().await;
    let (ended, reports) = rig.stop(StopMode::Graceful).await;
    assert_eq!(ended, Ended::Stopped);
    assert_eq!(brief(&reports), ["connected", "text 1 on\nbye\n", "done 1", "end 1 Finished"]);
    assert!(!std::fs::exists(format!("/proc/{}", process.pid)).unwrap_or(true), "it was reaped");
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed_after_the_grace() {
    let mut spec = script("trap '' TERM; echo on; while :; do sleep 0.01; done");
    spec.stop_grace = Duration::from_millis(300);
    let rig = Rig::start(spec);
    rig.until_text("on\n").await;
    let process = rig.process().await;
    let begun = std::time::Instant::now();
    assert_eq!(rig.stop(StopMode::Graceful).await.0, Ended::Stopped);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    group_gone(process.pid).await;
}

#[tokio::test]
async fn a_graceful_stop_can_be_forced() {
    let rig = Rig::start(script("trap 'echo no' TERM; echo on; while :; do sleep 0.01; done"));
    rig.until_text("on\n").await;
    rig.stop.send_replace(Some(StopMode::Graceful));
    rig.until_text("no\n").await;
    let (ended, _) = timeout(Duration::from_secs(60), rig.stop(StopMode::Force))
        .await
        .expect("it does not wait for the grace");
    assert_eq!(ended, Ended::Stopped);
}

#[tokio::test]
async fn a_suspended_child_can_be_stopped() {
    let rig = Rig::start(script("echo on; kill -STOP $$; exec sleep 1000"));
    rig.until_text("on\n").await;
    assert_eq!(rig.stop(StopMode::Graceful).await.0, Ended::Stopped);
}

#[tokio::test]
async fn a_flooding_child_can_be_stopped() {
    for mode in [StopMode::Graceful, StopMode::Force] {
        let rig = Rig::start(session(&["yes"]));
        rig.until_text("y\n").await;
        let (ended, reports) = rig.stop(mode).await;
        assert_eq!(ended, Ended::Stopped);
        let lines = brief(&reports[reports.len() - 2..]);
        assert_eq!(lines, ["done 1", "end 1 Finished"]);
    }
}

#[tokio::test]
async fn members_of_the_group_go_with_the_child() {
    // The grandchild ignores SIGTERM and holds no pipe.
    let grandchild = "(trap '' TERM; while :; do sleep 0.01; done) >&- 2>&- <&- &";
    let rig = Rig::start(script(&format!("{grandchild} echo on; exec sleep 1000")));
    rig.until_text("on\n").await;
    let process = rig.process().await;
    assert_eq!(rig.stop(StopMode::Graceful).await.0, Ended::Stopped);
    group_gone(process.pid).await;

    let rig = Rig::start(script(&format!("{grandchild} echo on")));
    let process = rig.process().await;
    assert!(matches!(rig.end().await.0, Ended::Exited(_)));
    group_gone(process.pid).await;
}

#[tokio::test]
async fn a_grandchild_that_left_the_group_does_not_hold_the_worker() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "setsid sh -c 'echo $$ > pid; echo away; exec sleep 1000' & read x";
    let mut rig = Rig::start(ExecSpec { work_dir: dir.path().into(), ..script(text) });
    rig.until_text("away\n").await;
    rig.input("go");
    let (ended, _) = rig.end().await;
    assert_eq!(ended, Ended::Exited(ExitStatus { code: Some(0), signal: None }));
    let pid = std::fs::read_to_string(dir.path().join("pid")).expect("it wrote its number");
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it was out of reach");
}

#[tokio::test]
async fn dropping_the_future_kills_and_reaps() {
    let rig = Rig::start(script("trap '' TERM; sleep 1000 & echo on; wait"));
    rig.until_text("on\n").await;
    let process = rig.process().await;
    rig.task.abort();
    group_gone(process.pid).await;
    gone(process.pid).await;
}

#[tokio::test]
async fn the_end_of_the_inlet_or_of_the_owner_stops_the_worker() {
    for text in ["exec sleep 1000", "exec cat"] {
        let mut rig = Rig::start(script(text));
        rig.process().await;
        rig.inputs = None;
        assert_eq!(rig.end().await.0, Ended::Stopped);
    }
    let mut rig = Rig::start(script("exec sleep 1000"));
    rig.process().await;
    rig.stop = watch::channel(None).0;
    assert_eq!(rig.end().await.0, Ended::Stopped);
}

#[tokio::test]
async fn a_stop_that_came_first_starts_nothing() {
    for mode in [Mode::Session, Mode::PerInput] {
        let (_inputs, inlet) = mpsc::unbounded_channel();
        let (_stop, stopped) = watch::channel(Some(StopMode::Graceful));
        let log = Arc::<Log>::default();
        let outlet = TestOutlet { log: log.clone(), gate: Arc::new(Semaphore::new(9)) };
        let spec = spec(mode, Framing::Text, &["cat"]);
        assert_eq!(run(spec, 1, TestInlet(inlet), outlet, stopped).await, Ended::Stopped);
        assert!(log.vectors.lock().is_empty());
    }
}

#[tokio::test]
async fn a_closed_outlet_ends_the_worker() {
    for mode in [Mode::Session, Mode::PerInput] {
        let mut rig =
            Rig::start(spec(mode, Framing::Text, &["sh", "-c", "while echo x; do :; done"]));
        rig.input("go");
        let process = rig.process().await;
        rig.gate.close();
        assert_eq!(rig.end().await.0, Ended::Closed);
        group_gone(process.pid).await;
        gone(process.pid).await;
    }
}

#[tokio::test]
async fn a_child_is_killed_while_the_outlet_is_stuck() {
    let rig = Rig::gated(session(&["yes"]), 2);
    let process = rig.process().await;
    rig.until_text("y\n").await;
    rig.stop.send_replace(Some(StopMode::Force));
    group_gone(process.pid).await;
    // Nobody takes the last words, so they are given up.
    assert_eq!(rig.end().await.0, Ended::Closed);
    gone(process.pid).await;
}
