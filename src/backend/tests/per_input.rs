//! Mode `per_input`.

use super::*;

fn per_input(text: &str) -> ExecSpec {
    spec(Mode::PerInput, Framing::Text, &["sh", "-c", text])
}

fn ends(reports: &[Report]) -> usize {
    reports.iter().filter(|report| matches!(report, Report::TurnEnded { .. })).count()
}

#[tokio::test]
async fn each_input_has_its_own_child() {
    let mut rig = Rig::start(per_input("cat; echo; read x || echo end of input"));
    rig.input("one\n");
    rig.input("two");
    rig.until("two turns", |reports| ends(reports) == 2).await;
    let (ended, reports) = rig.stop(StopMode::Graceful).await;
    assert_eq!(ended, Ended::Stopped);
    assert_eq!(
        brief(&reports),
        [
            "connected",
            "dispatching 1 1",
            "started 1",
            "text 1 one\n\nend of input\n",
            "done 1",
            "end 1 Finished Some(0) None",
            "dispatching 2 2",
            "started 2",
            "text 2 two\nend of input\n",
            "done 2",
            "end 2 Finished Some(0) None",
        ]
    );
}

#[tokio::test]
async fn a_turn_ends_only_with_its_child() {
    let mut spec = per_input("echo a; sleep 0.3; echo b");
    spec.turn_idle = Duration::from_millis(10);
    let mut rig = Rig::start(spec);
    rig.input("go");
    let reports = rig.until("the end", |reports| ends(reports) == 1).await;
    assert_eq!(text(&reports), "a\nb\n");
    assert_eq!(brief(&reports).last().map(String::as_str), Some("end 1 Finished Some(0) None"));
}

#[tokio::test]
async fn a_failing_child_is_told_by_its_exit_alone() {
    let check = async |text: &str, end: &str| {
        let mut rig = Rig::start(per_input(text));
        rig.input("x".repeat(1 << 20));
        let reports = rig.until("the end", |reports| ends(reports) == 1).await;
        assert_eq!(brief(&reports)[1..], ["dispatching 1 1", "started 1", end], "{text}");
    };
    check("exit 7", "end 1 Finished Some(7) None").await;
    check("kill -KILL $$", "end 1 Finished None Some(9)").await;
    check("exec <&-; sleep 0.05", "end 1 Finished Some(0) None").await;
}

#[tokio::test]
async fn a_program_that_disappears_fails_the_input_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("agent");
    std::os::unix::fs::symlink("/bin/cat", &program).expect("a link");
    let argv = [program.to_str().expect("it is text")];
    let mut rig = Rig::start(spec(Mode::PerInput, Framing::Text, &argv));
    rig.input("a");
    rig.until("a turn", |reports| ends(reports) == 1).await;
    std::fs::remove_file(&program).expect("it can be removed");
    rig.input("b");
    rig.until("a failure", |reports| ends(reports) == 2).await;
    std::os::unix::fs::symlink("/bin/cat", &program).expect("a link");
    rig.input("c");
    let reports = rig.until("a turn", |reports| ends(reports) == 3).await;
    assert_eq!(
        brief(&reports)[6..],
        [
            "dispatching 2 2",
            "failed 2 cannot start `agent`: there is no such file; change `exec.argv` of the \
             template",
            "end 2 Finished",
            "dispatching 3 3",
            "started 3",
            "text 3 c",
            "done 3",
            "end 3 Finished Some(0) None",
        ]
    );
}

#[tokio::test]
async fn a_grandchild_does_not_hold_the_turn_open() {
    let mut rig = Rig::start(per_input("sleep 1000 & echo $!"));
    rig.input("go");
    let process = rig.process().await;
    let reports = rig.until("the end", |reports| ends(reports) == 1).await;
    group_gone(process.pid).await;
    assert_eq!(brief(&reports).last().map(String::as_str), Some("end 1 Finished Some(0) None"));
}

#[tokio::test]
async fn a_stop_ends_the_child_and_leaves_waiting_inputs_alone() {
    for (mode, end) in [
        (StopMode::Graceful, "end 1 Finished None Some(15)"),
        (StopMode::Force, "end 1 Finished None Some(9)"),
    ] {
        let mut rig = Rig::start(per_input("cat; exec sleep 1000"));
        rig.input("a");
        rig.input("b");
        rig.until_text("a").await;
        let (ended, reports) = rig.stop(mode).await;
        assert_eq!(ended, Ended::Stopped);
        assert_eq!(brief(&reports)[3..], ["text 1 a", "done 1", end]);
    }
}

#[tokio::test]
async fn a_json_child_reads_one_line() {
    let mut spec = per_input(
        r#"read -r line; printf '{"event":"text_delta","data":{"text":"t"}}\n%s\n' \
        '{"event":"turn_end","data":{"turn":9,"result":"paused"}}'; printf '%s' "$line" >&2; cat >&2"#,
    );
    spec.framing = Framing::Jsonl;
    let mut rig = Rig::start(spec);
    rig.input("a \"b\"\nc");
    let reports = rig.until("the end", |reports| ends(reports) == 1).await;
    assert_eq!(stderr(&reports), r#"{"message_id":"m1","kind":"user","content":"a \"b\"\nc"}"#);
    let lines: Vec<_> =
        brief(&reports).into_iter().filter(|line| !line.starts_with("stderr")).collect();
    assert_eq!(lines[3..], ["text 1 t", "done 1", "end 1 Paused Some(0) None"]);
}
