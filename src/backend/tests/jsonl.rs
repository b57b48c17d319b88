//! Framing `jsonl` in a session.

use super::*;

/// A session that prints `lines` and ends.
async fn say(lines: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("lines"), lines.join("\n")).expect("it can be written");
    let mut spec = spec(Mode::Session, Framing::Jsonl, &["cat", "lines"]);
    spec.work_dir = dir.path().into();
    let (_, reports) = Rig::start(spec).end().await;
    let lines = brief(&reports);
    assert_eq!(lines.first().map(String::as_str), Some("connected"));
    assert_eq!(lines.last().map(String::as_str), Some("exited Some(0) None"));
    lines[1..lines.len() - 1].to_vec()
}

#[tokio::test]
async fn payloads_of_the_runtime_api_are_taken() {
    let check = async |lines: &[&str], expected: &[&str]| {
        assert_eq!(say(lines).await, expected, "{lines:?}");
    };
    let delta = r#"{"event":"text_delta","data":{"text":"a"}}"#;
    check(&[], &[]).await;
    check(&[delta, delta], &["text 1 aa", "done 1", "end 1 Finished"]).await;
    check(
        &[
            r#"{"event":"turn_start","data":{"turn":5}}"#,
            delta,
            r#"{"event":"text_done","data":{"text":"ignored"}}"#,
            r#"{"event":"text_done","data":{"text":"whole"}}"#,
            r#"{"event":"text_done","data":{"text":""}}"#,
            r#"{"event":"turn_end","data":{"turn":5,"result":"paused"}}"#,
            r#"{"event":"run_end","data":{"result":"limit_reached"}}"#,
            delta,
            r#"{"event":"status","data":{"status":"running"}}"#,
            r#"{"event":"status","data":{"status":"idle"}}"#,
        ],
        &[
            "text 1 a",
            "done 1",
            "text 1 whole",
            "done 1",
            "end 1 Paused",
            r#"RunEnd 1 {"result":"limit_reached"}"#,
            "text 2 a",
            r#"Status 2 {"status":"running"}"#,
            "done 2",
            "end 2 Finished",
            r#"Status 2 {"status":"idle"}"#,
        ],
    )
    .await;
    check(
        &[
            r#"{"event":"thinking_start"}"#,
            r#"{"data":{"text":"hm","more":1},"event":"thinking_delta"}"#,
            r#"{"event":"thinking_done","data":{"text":"hm"}}"#,
            r#"{"event":"tool_call_start","data":{"id":"1","name":"n"}}"#,
            r#"{"event":"tool_call_args_delta","data":{"id":"1","json":"{"}}"#,
            r#"{"event":"tool_call_done","data":{"id":"1","name":"n","arguments":"{}"}}"#,
            r#"{"event":"tool_result","data":{"id":"1","summary":"s","is_error":false}}"#,
            r#"{"event":"usage","data":{"input_tokens":1,"output_tokens":2}}"#,
            r#"{"event":"error","data":{"code":"tool_error","message":"m"}}"#,
            r#"{"event":"alert","data":{"level":"warn","source":"worker","message":"m","timestamp_ms":3}}"#,
        ],
        &[
            "ThinkingStart 1 ",
            r#"ThinkingDelta 1 {"text":"hm"}"#,
            r#"ThinkingDone 1 {"text":"hm"}"#,
            r#"ToolCallStart 1 {"id":"1","name":"n"}"#,
            r#"ToolCallArgsDelta 1 {"id":"1","json":"{"}"#,
            r#"ToolCallDone 1 {"id":"1","name":"n","arguments":"{}"}"#,
            r#"ToolResult 1 {"id":"1","summary":"s","is_error":false}"#,
            r#"Usage 1 {"input_tokens":1,"output_tokens":2}"#,
            r#"Error 1 {"code":"tool_error","message":"m"}"#,
            r#"Alert 1 {"level":"warn","source":"worker","message":"m","timestamp_ms":3}"#,
            "end 1 Finished",
        ],
    )
    .await;
}

#[tokio::test]
async fn lines_out_of_form_are_diagnosed() {
    let check = async |line: &str, why: &str| {
        let reports = say(&[line, r#"{"event":"thinking_start"}"#]).await;
        assert_eq!(reports.len(), 3, "{line}: {reports:?}");
        assert!(reports[0].starts_with(&format!("framing {why}")), "{line}: {reports:?}");
        assert!(reports[0].contains(line), "{line}: {reports:?}");
        assert_eq!(reports[1], "ThinkingStart 1 ", "{line}");
    };
    let form = "not a JSON object with `event` and `data`";
    let shape = "`data` does not have the shape of its event";
    let forbidden = "an event that a worker may not report";
    check("hello", form).await;
    check("[]", form).await;
    check("{}", form).await;
    check(r#"{"event":7}"#, form).await;
    check(r#"{"event":"text_delta","data":{"text":"a"}"#, form).await;
    check(r#"{"event":"text_delta"}"#, shape).await;
    check(r#"{"event":"text_delta","data":{"text":7}}"#, shape).await;
    check(r#"{"event":"text_delta","data":{"text":"\ud800"}}"#, shape).await;
    check(r#"{"event":"turn_end","data":{"turn":1,"result":"gone"}}"#, shape).await;
    check(r#"{"event":"usage","data":{"input_tokens":-1,"output_tokens":2}}"#, shape).await;
    check(r#"{"event":"status","data":{"status":"asleep"}}"#, shape).await;
    check(r#"{"event":"nonsense","data":{}}"#, "an unknown event").await;
    check(r#"{"event":"shutdown"}"#, forbidden).await;
    check(r#"{"event":"snapshot","data":{}}"#, forbidden).await;
    check(r#"{"event":"user_message","data":{"segments":[]}}"#, forbidden).await;
    check(r#"{"event":"system_item","data":{"item":{}}}"#, forbidden).await;
}

#[tokio::test]
async fn a_huge_line_is_skipped_and_the_next_one_heard() {
    let huge = "x".repeat(3 * LINE_BYTES_MAX);
    let fine = r#"{"event":"text_delta","data":{"text":"ok"}}"#;
    let mut spec = spec(Mode::Session, Framing::Jsonl, &["cat", "lines"]);
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("lines"), format!("{huge}\n{fine}")).expect("it can be written");
    spec.work_dir = dir.path().into();
    let (_, reports) = Rig::start(spec).end().await;
    let diagnosed: Vec<_> = reports
        .iter()
        .filter_map(|report| match report {
            Report::Diagnosed { source: "framing", text } => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(diagnosed.len(), 1);
    assert!(diagnosed[0].starts_with("a line longer than 1 MiB was skipped: xxx"));
    assert!(diagnosed[0].len() <= FRAMING_BYTES_MAX);
    assert_eq!(text(&reports), "ok");
}

#[tokio::test]
async fn long_texts_are_split_and_large_results_stand_alone() {
    let long = "€".repeat(40_000);
    let delta = format!(r#"{{"event":"text_delta","data":{{"text":"{long}"}}}}"#);
    let done = r#"{"event":"text_done","data":{"text":""}}"#;
    let output = "o".repeat(100_000);
    let result = format!(
        r#"{{"event":"tool_result","data":{{"id":"1","summary":"s","output":"{output}","is_error":true}}}}"#
    );
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("lines"), format!("{delta}\n{done}\n{result}\n"))
        .expect("written");
    let mut spec = spec(Mode::Session, Framing::Jsonl, &["cat", "lines"]);
    spec.work_dir = dir.path().into();
    let (_, reports) = Rig::start(spec).end().await;
    assert!(text(&reports) == long);
    let whole = |report: &Report| {
        matches!(report, Report::Output { kind: OutputKind::ToolResult, content, .. }
            if content.len() > 100_000)
    };
    assert!(reports.iter().any(whole));
}

#[tokio::test]
async fn an_input_waits_until_the_turn_is_over() {
    // The child reads its second line at once, but must not be given it before it says so.
    let text = r#"read a; read -t 0.3 b && echo early >&2
        echo '{"event":"turn_end","data":{"turn":1,"result":"finished"}}'
        read b; printf '%s\n%s\n' "$a" "$b" >&2"#;
    let mut spec = spec(Mode::Session, Framing::Jsonl, &["bash", "-c", text]);
    spec.turn_idle = Duration::from_millis(1);
    let mut rig = Rig::start(spec);
    rig.input("one");
    rig.input("two");
    let (_, reports) = rig.end().await;
    assert_eq!(
        stderr(&reports),
        "{\"message_id\":\"m1\",\"kind\":\"user\",\"content\":\"one\"}\n\
         {\"message_id\":\"m2\",\"kind\":\"user\",\"content\":\"two\"}\n"
    );
    let lines: Vec<_> =
        brief(&reports).into_iter().filter(|line| !line.starts_with("stderr")).collect();
    assert_eq!(
        lines,
        [
            "connected",
            "dispatching 1 1",
            "end 1 Finished",
            "dispatching 2 2",
            "end 2 Finished",
            "exited Some(0) None",
        ]
    );
}

#[tokio::test]
async fn a_json_child_without_input_fails_all_inputs() {
    let text = "exec <&-; echo ready >&2; exec sleep 1000";
    let mut rig = Rig::start(spec(Mode::Session, Framing::Jsonl, &["sh", "-c", text]));
    rig.until("ready", |reports| stderr(reports).contains("ready")).await;
    rig.input("a");
    rig.input("b");
    rig.input("c");
    let failed = |report: &&Report| matches!(report, Report::InputFailed { .. });
    let all = |reports: &[Report]| reports.iter().filter(failed).count() == 3;
    rig.until("three failures", all).await;
}
