use super::*;
use serde_json::json;
use std::collections::BTreeSet;

/// A row: event, data, content, and what a person reads.
fn rows() -> Vec<(&'static str, Value, Value, &'static str)> {
    let none = Value::Null;
    let digest = "ab".repeat(32);
    let template = json!({"name": "echo", "startable": true});
    let process = json!({"pid": 42, "started_ticks": 1, "boot": "b"});
    let capabilities = json!({"os": "linux", "arch": "x86_64"});
    let created = |intent| json!({"intent": intent, "profile": {"kind": "runtime_default"}});
    let output = |event: &str| json!({"event": event, "turn": 1});
    vec![
        ("service_started", json!({"acta": "0.1.0"}), none.clone(), "service started (acta 0.1.0)"),
        ("service_stopped", json!({"reason": "signal"}), none.clone(), "service stopped: signal"),
        (
            "log_forked",
            json!({"epoch": 2, "parent": 1, "fork": 120, "digest": digest, "root": digest}),
            none.clone(),
            "epoch 2 began, from epoch 1 at sequence 120",
        ),
        (
            "dispatch_resumed",
            json!({"epoch": 2}),
            none.clone(),
            "epoch 2 acts upon what the log asks for",
        ),
        (
            "history_expired",
            json!({
                "through": 90, "base": digest, "root": digest, "segments": 2, "bytes": 7,
                "policy": {"keep_s": 60},
            }),
            none.clone(),
            "records 1 to 90 expired by policy: keep 60 s",
        ),
        (
            "runtime_registered",
            json!({"kind": "embedded_worker_runtime", "label": "Here", "templates": [template]}),
            none.clone(),
            "runtime r registered: Here (embedded_worker_runtime), 1 template",
        ),
        (
            "runtime_updated",
            json!({"label": "Here"}),
            none.clone(),
            "runtime r updated: Here, 0 templates",
        ),
        ("runtime_stopped", json!({}), none.clone(), "runtime r stopped"),
        (
            "remote_runtime_registered",
            json!({"label": "L", "remote": {"url": "http://x", "token_env": "T"}}),
            none.clone(),
            "runtime r registered: L (http://x)",
        ),
        ("runtime_retired", json!({}), none.clone(), "runtime r retired"),
        (
            "host_registered",
            json!({"host": "h", "kind": "k", "label": "L", "capabilities": capabilities}),
            none.clone(),
            "host h registered: L (k, linux x86_64)",
        ),
        (
            "host_updated",
            json!({"host": "h", "label": "L", "capabilities": capabilities}),
            none.clone(),
            "host h updated: L (linux x86_64)",
        ),
        ("host_lost", json!({"host": "h"}), none.clone(), "host h lost"),
        (
            "local_worker_found",
            json!({"worker": "lw", "host": "h", "label": "Coder", "hint": "c", "status": "active:segment"}),
            none.clone(),
            "local worker lw found: Coder (active:segment)",
        ),
        ("local_worker_lost", json!({"worker": "lw"}), none.clone(), "local worker lw lost"),
        (
            "local_pods_inspected",
            json!({"host": "h", "state": "available", "problems": {"metadata_invalid": 2}}),
            none.clone(),
            "local pods on host h: available, 2 problems",
        ),
        ("host_found", json!({"host": "h"}), none.clone(), "host h found"),
        (
            "config_bundle_stored",
            json!({
                "bundle": {"id": "team", "digest": "d"}, "revision": "7", "workspace_id": "w",
                "created_at": "t", "provenance": {"source": "s"}, "profiles": ["a"], "declaration_count": 2
            }),
            json!({"metadata": {}}),
            "bundle team@d stored: revision 7, 1 profile, 2 declarations",
        ),
        (
            "worker_created",
            created(json!({"kind": "assistant"})),
            none.clone(),
            "created without a template: assistant",
        ),
        (
            "worker_created",
            created(json!({"kind": "role", "role": "coder"})),
            json!({"purpose": "to code"}),
            "created without a template: role coder: to code",
        ),
        (
            "worker_connected",
            json!({"backend": "process", "incarnation": 1, "process": process}),
            none.clone(),
            "connected: process, start 1, process 42",
        ),
        ("worker_spawn_failed", json!({"message": "no"}), none.clone(), "not started: no"),
        (
            "worker_input_accepted",
            json!({"kind": "user", "item": 1, "revision": 2}),
            json!("hello\nthere\n"),
            "user> hello\n                                  there",
        ),
        (
            "worker_input_accepted",
            json!({"kind": "system", "item": 1, "revision": 2}),
            json!("\u{1b}[2Jx"),
            "system> \\u{1b}[2Jx",
        ),
        (
            "worker_input_dispatched",
            json!({"input": 12, "turn": 1}),
            none.clone(),
            "turn 1 begins with input 12",
        ),
        (
            "worker_process_started",
            json!({"turn": 1, "process": process}),
            none.clone(),
            "process 42 serves turn 1",
        ),
        ("worker_process_ended", json!({}), none.clone(), "its process is gone"),
        ("worker_process_ended", json!({"turn": 2}), none.clone(), "its process is gone in turn 2"),
        (
            "worker_input_failed",
            json!({"through": 14, "count": 2, "message": "gone"}),
            none.clone(),
            "2 inputs up to 14 not delivered: gone",
        ),
        (
            "worker_interrupted",
            json!({"reason": "service_lost", "turn": 3, "again": true}),
            none.clone(),
            "interrupted in turn 3: service_lost; its input is given again",
        ),
        ("worker_output", output("text_delta"), json!("hello\n"), "agent> hello"),
        (
            "worker_output",
            json!({"event": "text_done", "turn": 1, "text": {"first": 2, "bytes": 6, "item": 2}}),
            none.clone(),
            "text complete: 6 bytes, item 2",
        ),
        ("worker_output", output("thinking_start"), json!({}), "thinks"),
        ("worker_output", output("thinking_delta"), json!({"text": "hm"}), "agent thinks> hm"),
        ("worker_output", output("thinking_done"), json!({}), "thought it over"),
        (
            "worker_output",
            output("tool_call_start"),
            json!({"id": "c", "name": "ls"}),
            "calls ls (c)",
        ),
        ("worker_output", output("tool_call_args_delta"), json!({"id": "c", "json": "{"}), "(c) {"),
        (
            "worker_output",
            output("tool_call_done"),
            json!({"id": "c", "name": "ls", "arguments": {"a": 1}}),
            "called ls({\"a\":1})",
        ),
        (
            "worker_output",
            output("tool_result"),
            json!({"id": "c", "summary": "2 files", "is_error": false}),
            "tool answered: 2 files",
        ),
        (
            "worker_output",
            output("usage"),
            json!({"input_tokens": 10, "output_tokens": 20}),
            "used 10 tokens in, 20 out",
        ),
        ("worker_output", output("run_end"), json!({"result": "finished"}), "run ended: finished"),
        (
            "worker_output",
            output("error"),
            json!({"code": "internal", "message": "oh"}),
            "error internal: oh",
        ),
        ("worker_output", output("status"), json!({"status": "idle"}), "reports to be idle"),
        ("worker_output", output("alert"), json!({"level": "warn", "message": "low"}), "warn: low"),
        // What was erased is not there any more.
        ("worker_output", output("text_delta"), none.clone(), "agent>"),
        (
            "worker_turn_ended",
            json!({"turn": 1, "result": "finished", "exit": {"code": 3}}),
            none.clone(),
            "turn 1 finished, exited with 3",
        ),
        ("worker_diagnosed", json!({"source": "stderr"}), json!("oops\n"), "stderr> oops"),
        ("worker_exited", json!({"exit": {"signal": 9}}), none.clone(), "exited on signal 9"),
        ("worker_stopped", json!({"revision": 4}), json!("done"), "stopped: done"),
        ("worker_cancelled", json!({"revision": 4}), none.clone(), "cancelled"),
        (
            "token_issued",
            json!({"token": "t1", "digest": digest, "role": "observer", "label": "board"}),
            none.clone(),
            "token t1 issued: observer (board)",
        ),
        ("token_revoked", json!({"token": "t1"}), none.clone(), "token t1 revoked"),
        (
            "cursor_committed",
            json!({"name": "export", "cursor": "c", "position": 9}),
            none.clone(),
            "cursor export committed at 9",
        ),
        (
            "reads_recorded",
            json!({"reads": [{"what": "/v1/workers", "count": 2, "head": 9}], "more": 1}),
            none.clone(),
            "read 3 times: /v1/workers",
        ),
        (
            "agent_awaited",
            json!({"label": "my laptop"}),
            none.clone(),
            "waits for an agent to connect (my laptop)",
        ),
        (
            "agent_registered",
            json!({"delivery": {"mode": "push", "url": "https://agent.example/secret"}, "leased": true}),
            none.clone(),
            "agent registered, messages are posted to its URL",
        ),
        (
            "agent_registered",
            json!({"delivery": {"mode": "poll"}, "leased": true}),
            none.clone(),
            "agent registered, it polls",
        ),
        ("worker_online", json!({}), none.clone(), "agent online"),
        ("worker_offline", json!({}), none.clone(), "agent lost: its lease ran out"),
        (
            "worker_degraded",
            json!({"reason": "deaf"}),
            none.clone(),
            "agent degraded: it beats, but does not ask for messages that wait",
        ),
        ("worker_recovered", json!({}), none.clone(), "agent recovered"),
        (
            "message_received",
            json!({"method": "message/send", "item": 5}),
            json!("hello"),
            "user> hello",
        ),
        (
            "reply_received",
            json!({"source": {"runtime_id": "r", "worker_id": "w-9"}, "message": 4, "item": 5}),
            json!("yes"),
            "w-9 answers> yes",
        ),
        ("message_answered", json!({"message": 4, "item": 6}), json!("yes"), "agent> yes"),
        ("worker_notified", json!({"message": 4, "item": 6}), json!("look"), "agent> look"),
        (
            "worker_reported",
            json!({"activity": "task_update", "item": 6}),
            json!("at it"),
            "agent, on its task> at it",
        ),
        (
            "inbox_read",
            json!({"inbox": "all", "through": 9}),
            none.clone(),
            "messages and replies up to 9 dealt with",
        ),
        (
            "message_delivered",
            json!({"message": 4, "attempts": 2}),
            none.clone(),
            "message 4 delivered, attempt 2",
        ),
        (
            "delivery_failed",
            json!({"message": 4, "attempts": 8, "reason": "it answered 503"}),
            none.clone(),
            "message 4 not delivered after attempt 8: it answered 503",
        ),
        ("delivery_retried", json!({"message": 4}), none.clone(), "message 4 is to be tried again"),
        (
            "content_redacted",
            json!({"sequence": 7, "content": "08".repeat(32)}),
            json!("a password"),
            "content of 7 redacted: a password",
        ),
    ]
}

fn line(timeline: &mut Timeline, kind: &str, data: &Value, content: &Value) -> String {
    let known = Event::KINDS.iter().find(|(name, _)| *name == kind);
    let version = known.map_or(1, |(_, version)| *version);
    let mut record = json!({
        "seq": 12, "id": "i", "time": "2026-11-20T19:14:05.000001Z", "type": kind, "v": version,
        "runtime": "r", "worker": "w-1", "actor": "operator", "data": data
    });
    if !content.is_null() {
        record["content"] = content.clone();
    }
    timeline.line(&serde_json::from_str(&record.to_string()).unwrap())
}

#[test]
fn every_event_has_a_line_of_its_own() {
    let mut told = BTreeSet::new();
    for (kind, data, content, expected) in rows() {
        // A fresh one, since workers are remembered.
        let line = line(&mut Timeline::default(), kind, &data, &content);
        assert_eq!(line, format!("19:14:05      12  w-1       {expected}"), "{kind} {data}");
        told.insert(kind);
    }
    let names: BTreeSet<&str> = Event::KINDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(told, names, "each event that this build writes needs a row");
}

#[test]
fn an_agent_speaks_under_the_name_of_its_template() {
    let mut timeline = Timeline::default();
    let created = json!({
        "intent": {"kind": "task"}, "profile": {"kind": "runtime_default"}, "template": "echo"
    });
    let mut check = |kind: &str, data: Value, content: Value, expected: &str| {
        let line = line(&mut timeline, kind, &data, &content);
        assert_eq!(line, format!("19:14:05      12  w-1       {expected}"));
    };
    check(
        "worker_created",
        created,
        json!({"objective": "say it"}),
        "created from echo: task: say it",
    );
    check("worker_output", json!({"event": "text_delta", "turn": 1}), json!("hi"), "echo> hi");
}

#[test]
fn an_event_of_a_later_version_is_shown_as_it_is() {
    let shown = line(&mut Timeline::default(), "worker_danced", &json!({"steps": 3}), &Value::Null);
    assert_eq!(shown, "19:14:05      12  w-1       worker_danced {\"steps\":3}");
}

#[test]
fn colours_are_for_those_who_want_them() {
    let mut timeline = Timeline::new(Paint { colours: true });
    let said = json!({"kind": "user", "item": 1, "revision": 2});
    let line = line(&mut timeline, "worker_input_accepted", &said, &json!("hello"));
    assert!(line.ends_with("\x1b[36muser> \x1b[0mhello"), "{line:?}");
}
