//! Mode `session`, framing `text`.

use super::*;

#[tokio::test]
async fn each_input_is_a_turn_of_one_child() {
    let mut rig = Rig::start(session(&["cat"]));
    rig.input("one\ntwo");
    rig.until_text("two\n").await;
    rig.input("three");
    rig.until_text("three\n").await;
    let vectors = rig.log.vectors.lock().clone();
    let next = vectors.iter().find(|vector| brief(vector).contains(&"dispatching 2 2".into()));
    // The end of one turn and the beginning of the next are one block.
    let next = next.expect("the second input was dispatched");
    assert_eq!(brief(next), ["done 1", "end 1 Finished", "dispatching 2 2"]);
    let (ended, reports) = rig.stop(StopMode::Graceful).await;
    assert_eq!(ended, Ended::Stopped);
    assert_eq!(
        brief(&reports),
        [
            "connected",
            "dispatching 1 1",
            "text 1 one\ntwo\n",
            "done 1",
            "end 1 Finished",
            "dispatching 2 2",
            "text 2 three\n",
            "done 2",
            "end 2 Finished",
        ]
    );
}

#[tokio::test]
async fn silence_ends_a_turn_and_unasked_speech_opens_one() {
    let mut rig = Rig::start(ExecSpec {
        turn_idle: Duration::from_millis(50),
        ..script("read a; read b; echo first; read c; echo second")
    });
    let ends = |wanted: usize| {
        move |reports: &[Report]| {
            let ended = |report: &&Report| matches!(report, Report::TurnEnded { .. });
            reports.iter().filter(ended).count() == wanted
        }
    };
    rig.input("a");
    rig.until("the end of a silent turn", ends(1)).await;
    rig.input("b");
    rig.until("the end of the second turn", ends(2)).await;
    rig.input("c");
    let (ended, reports) = rig.end().await;
    assert_eq!(ended, Ended::Exited(ExitStatus { code: Some(0), signal: None }));
    assert_eq!(
        brief(&reports),
        [
            "connected",
            "dispatching 1 1",
            "end 1 Finished",
            "dispatching 2 2",
            "text 2 first\n",
            "done 2",
            "end 2 Finished",
            "dispatching 3 3",
            "text 3 second\n",
            "done 3",
            "end 3 Finished",
            "exited Some(0) None",
        ]
    );
}

#[tokio::test]
async fn a_child_may_speak_before_it_is_asked() {
    let (_, reports) = Rig::start(script("echo ready")).end().await;
    let expected =
        ["connected", "text 1 ready\n", "done 1", "end 1 Finished", "exited Some(0) None"];
    assert_eq!(brief(&reports), expected);
}

#[tokio::test]
async fn an_end_is_told_with_its_code_or_signal() {
    let check = async |text: &str, code: Option<i32>, signal: Option<i32>| {
        let (ended, reports) = Rig::start(script(text)).end().await;
        let exit = ExitStatus { code, signal };
        assert_eq!(ended, Ended::Exited(exit), "{text}");
        assert_eq!(reports.last(), Some(&Report::Exited { exit }), "{text}");
    };
    check("exit 0", Some(0), None).await;
    check("exit 3", Some(3), None).await;
    check("kill -KILL $$", None, Some(9)).await;
    check("kill -TERM $$", None, Some(15)).await;
}

#[tokio::test]
async fn dispatching_is_durable_before_the_child_is_given_its_input() {
    for mode in [Mode::Session, Mode::PerInput] {
        let dir = tempfile::tempdir().expect("a directory");
        let exists = |name: &str| dir.path().join(name).exists();
        let text = "echo > begun; read x; echo > read; echo $x";
        let mut spec = spec(mode, Framing::Text, &["sh", "-c", text]);
        spec.work_dir = dir.path().into();
        let mut rig = Rig::gated(spec, 1);
        rig.input("x\n");
        rig.asked_for("dispatching 1 1").await;
        if mode == Mode::Session {
            rig.made(&dir, "begun").await;
        }
        // Time in which a child that had its input would have read it.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!exists("read"), "{mode:?}");
        assert_eq!(exists("begun"), mode == Mode::Session);
        rig.gate.add_permits(1);
        if mode == Mode::PerInput {
            rig.asked_for("started 1").await;
            rig.made(&dir, "begun").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!exists("read"), "{mode:?}");
        }
        rig.gate.add_permits(100);
        rig.until_text("x\n").await;
        assert!(exists("read"));
    }
}

#[tokio::test]
async fn a_program_with_dialogue_answers() {
    let mut rig = Rig::start(session(&["bc"]));
    rig.input("2^64");
    rig.until_text("18446744073709551616\n").await;
    rig.input("quit");
    let (ended, _) = rig.end().await;
    assert_eq!(ended, Ended::Exited(ExitStatus { code: Some(0), signal: None }));
}

#[tokio::test]
async fn a_stream_editor_answers_line_by_line() {
    let mut rig = Rig::start(session(&["sed", "-u", "s/^/> /"]));
    for round in 0..20 {
        rig.input(format!("line {round}"));
        rig.until_text(&format!("> line {round}\n")).await;
    }
}

#[tokio::test]
async fn a_child_that_closed_its_input_fails_each_input_and_goes_on() {
    let mut rig = Rig::start(script("exec <&-; echo closed; exec sleep 1000"));
    rig.until_text("closed").await;
    rig.input("a");
    rig.input("b");
    let failed = |report: &&Report| matches!(report, Report::InputFailed { .. });
    let both = |reports: &[Report]| reports.iter().filter(failed).count() == 2;
    let reports = rig.until("two failures", both).await;
    let reason = "the process has closed its standard input (EPIPE)";
    let lines = brief(&reports);
    assert!(lines.contains(&format!("failed 1 {reason}")), "{lines:?}");
    assert!(lines.contains(&format!("failed 2 {reason}")), "{lines:?}");
    assert!(lines.contains(&"dispatching 1 2".into()), "{lines:?}");
    assert!(!lines.contains(&"dispatching 2 3".into()), "{lines:?}");
    assert_eq!(rig.stop(StopMode::Force).await.0, Ended::Stopped);
}

#[tokio::test]
async fn an_input_that_nobody_reads_does_not_stop_the_output() {
    let mut rig = Rig::start(script("read a; seq 1 100000; echo over; exec sleep 1000"));
    rig.input(format!("go\n{}", "x".repeat(1 << 20)));
    rig.until_text("over\n").await;
    assert_eq!(rig.stop(StopMode::Force).await.0, Ended::Stopped);
}

#[tokio::test]
async fn an_input_that_was_not_read_to_its_end_failed() {
    let mut rig = Rig::start(script("read a; echo $a"));
    rig.input(format!("go\n{}", "x".repeat(1 << 20)));
    let (_, reports) = rig.end().await;
    let lines = brief(&reports);
    assert_eq!(lines.iter().filter(|line| line.starts_with("failed 1 ")).count(), 1, "{lines:?}");
    assert_eq!(text(&reports), "go\n");
    assert_eq!(lines.last().map(String::as_str), Some("exited Some(0) None"));
}

#[tokio::test]
async fn an_echo_of_a_large_input_is_whole() {
    let mut rig = Rig::start(session(&["cat"]));
    let large = "0123456789abcdef".repeat(200_000);
    rig.input(large.clone());
    rig.input("last");
    let reports = rig.until("the echo", |reports| text(reports).ends_with("last\n")).await;
    assert_eq!(text(&reports), format!("{large}\nlast\n"));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_told_with_a_remedy() {
    let check = async |mode: Mode, argv: &[&str], expected: &str| {
        let (ended, reports) = Rig::start(spec(mode, Framing::Text, argv)).end().await;
        assert_eq!(ended, Ended::SpawnFailed);
        assert_eq!(brief(&reports), [format!("spawn failed {expected}")]);
    };
    let missing = "cannot start `no-such-agent`: not found in PATH; install it or change \
                   `exec.argv` of the template";
    check(Mode::Session, &["no-such-agent", "-v"], missing).await;
    check(Mode::PerInput, &["no-such-agent"], missing).await;
    let empty = "cannot start: the command line is empty; change `exec.argv` of the template";
    check(Mode::Session, &[], empty).await;
    check(Mode::Session, &["cat", "a\0b"], "cannot start `cat`: its command line holds a NUL byte")
        .await;
    let dir = ExecSpec { work_dir: "/nowhere".into(), ..session(&["cat"]) };
    let (_, reports) = Rig::start(dir).end().await;
    let expected = ["spawn failed cannot start `cat`: its working directory is missing"];
    assert_eq!(brief(&reports), expected);
}

#[tokio::test]
async fn a_child_sees_only_what_its_template_names() {
    let spec = ExecSpec { env: vec!["CARGO_PKG_NAME".into(), "A=B".into()], ..session(&["env"]) };
    let (_, reports) = Rig::start(spec).end().await;
    let text = text(&reports);
    let names: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    assert!(names.contains(&("CARGO_PKG_NAME", "acta")), "{names:?}");
    assert!(names.iter().any(|(name, _)| *name == "PATH"), "{names:?}");
    let short = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "CARGO_PKG_NAME"];
    assert!(names.iter().all(|(name, _)| short.contains(name)), "{names:?}");
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "there is something to hide");
}

#[tokio::test]
async fn a_child_runs_where_it_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let spec = ExecSpec { work_dir: dir.path().into(), ..session(&["pwd", "-P"]) };
    let (_, reports) = Rig::start(spec).end().await;
    let real = dir.path().canonicalize().expect("it exists");
    assert_eq!(text(&reports).trim_end(), real.to_str().expect("it is text"));
}
