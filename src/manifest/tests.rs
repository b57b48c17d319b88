use super::*;
use crate::error::Code;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

const SHIPPED: &str = include_str!("../../manifest.json");

/// The templates of the shipped manifest that run on any Linux machine.
const ANYWHERE: [&str; 5] = ["echo", "upper", "lines", "stream", "jsonl"];

fn manifest(json: &Value) -> Manifest {
    Manifest::parse(&json.to_string()).expect("the manifest makes sense")
}

fn names(manifest: &Manifest) -> Vec<String> {
    manifest.templates().into_iter().map(|template| template.name).collect()
}

fn cat() -> Value {
    json!({"argv": ["cat"]})
}

fn example() -> Manifest {
    manifest(&json!({
        "workspace_templates": [
            {"name": "langgraph", "repo": "x", "note": "install it"},
            {"name": " claude-code-default ", "exec": cat()},
            {"name": " "},
            {"repo": "nameless"},
            {"name": "-default"},
            {"name": "external", "exec": cat()},
            {"name": "hermes-minimax", "runtime": "hermes", "exec": {"argv": ["one"]}},
            {"name": "hermes-anthropic", "runtime": "hermes", "exec": {"argv": ["two"]}},
            {"name": "twice-default-default"},
        ],
        "default_template": "claude-code-default",
        "profiles": {"builtin:coder": "hermes", "builtin:planner": "langgraph", "mine": "claude-code"},
        "unknown": [],
    }))
}

#[test]
fn names_lose_one_suffix_and_variants_share_the_name_of_their_runtime() {
    let expected = ["langgraph", "claude-code", "hermes", "twice-default", "external"];
    assert_eq!(names(&example()), expected);
    let startable: Vec<bool> =
        example().templates().into_iter().map(|template| template.startable).collect();
    assert_eq!(startable, [false, true, true, false, false]);
    assert_eq!(names(&manifest(&json!({}))), ["external"]);
    assert_eq!(names(&Manifest::fallback()).len(), 10);
}

#[test]
fn the_first_variant_is_what_the_name_of_a_runtime_means() {
    let manifest = example();
    for (name, program) in [
        ("hermes", Some("one")),
        ("hermes-minimax", Some("one")),
        ("hermes-anthropic", Some("two")),
        ("claude-code", Some("cat")),
        ("claude-code-default", Some("cat")),
        ("langgraph", None),
        ("external", None),
        ("nothing", None),
    ] {
        let exec = manifest.exec_of(name);
        assert_eq!(exec.map(|exec| exec.argv[0].as_str()), program, "{name}");
    }
}

#[test]
fn a_template_that_is_named_is_taken_or_refused_never_replaced() {
    let manifest = example();
    let choose = |name| manifest.choose(Some(name), &ProfileSelector::RuntimeDefault);
    for (named, chosen) in [
        ("claude-code", "claude-code"),
        (" claude-code-default ", "claude-code"),
        ("hermes", "hermes"),
        ("hermes-anthropic", "hermes-anthropic"),
    ] {
        assert_eq!(choose(named).unwrap().as_deref(), Some(chosen));
    }
    for (named, why) in [
        ("nothing", "langgraph, claude-code, hermes (hermes-minimax, hermes-anthropic), twice"),
        ("", "there is no template ``"),
        ("Hermes", "there is no template `Hermes`"),
        ("langgraph", "no `exec`"),
        ("langgraph", "install it"),
        ("external", "POST /workspaces"),
    ] {
        let refused = choose(named).unwrap_err();
        assert_eq!(refused.code, Code::InvalidRequest);
        assert!(refused.message.contains(why), "{refused}");
    }
    let fallback = Manifest::fallback();
    let refused = fallback.choose(Some("codex"), &ProfileSelector::RuntimeDefault).unwrap_err();
    assert!(refused.message.contains("--manifest"), "{refused}");
}

#[test]
fn without_a_name_the_profile_decides_then_the_default_then_what_can_be_started() {
    use ProfileSelector::{Builtin, Named, RuntimeDefault};
    let with_default = example();
    let without =
        manifest(&json!({"workspace_templates": [{"name": "a"}, {"name": "b", "exec": cat()}]}));
    let unstartable = manifest(
        &json!({"workspace_templates": [{"name": "a"}, {"name": "b", "exec": cat()}], "default_template": "a"}),
    );
    let builtin = |value: &str| Builtin(value.into());
    let rows = [
        (&with_default, RuntimeDefault, Some("claude-code")),
        (&with_default, builtin("builtin:coder"), Some("hermes")),
        (&with_default, builtin("coder"), Some("hermes")),
        (&with_default, builtin("builtin:hermes-anthropic"), Some("hermes-anthropic")),
        (&with_default, builtin("builtin:reviewer"), Some("claude-code")),
        // It stands for what cannot be started, and nothing else takes its place.
        (&with_default, builtin("builtin:planner"), None),
        (&with_default, builtin("builtin:langgraph"), None),
        (&with_default, Named("mine".into()), Some("claude-code")),
        (&with_default, Named("hermes".into()), Some("claude-code")),
        (&without, RuntimeDefault, Some("b")),
        (&without, builtin("builtin:a"), None),
        (&unstartable, RuntimeDefault, None),
        (&Manifest::fallback(), RuntimeDefault, None),
        (&Manifest::fallback(), builtin("builtin:coder"), None),
    ];
    for (manifest, profile, chosen) in rows {
        let answer = manifest.choose(None, &profile).unwrap();
        assert_eq!(answer.as_deref(), chosen, "{profile:?}");
        assert!(answer.is_none_or(|name| manifest.exec_of(&name).is_some()));
    }
}

#[test]
fn an_exec_has_defaults_and_keeps_what_it_is_given() {
    let parsed = manifest(&json!({"workspace_templates": [
        {"name": "short", "exec": {"argv": ["a", ""], "unknown": 1}},
        {"name": "null", "exec": null},
        {"name": "long", "exec": {
            "argv": ["b"], "mode": "per_input", "framing": "jsonl", "env": ["A_1", "_b"],
            "turn_idle_ms": 1, "stop_grace_ms": 0, "rerun_interrupted": true}},
    ]}));
    let short = Exec {
        argv: vec!["a".into(), String::new()],
        mode: Mode::Session,
        framing: Framing::Text,
        env: vec![],
        turn_idle_ms: None,
        stop_grace_ms: None,
        rerun_interrupted: false,
    };
    let long = Exec {
        argv: vec!["b".into()],
        mode: Mode::PerInput,
        framing: Framing::Jsonl,
        env: vec!["A_1".into(), "_b".into()],
        turn_idle_ms: Some(1),
        stop_grace_ms: Some(0),
        rerun_interrupted: true,
    };
    assert_eq!(parsed.exec_of("short"), Some(&short));
    assert_eq!(parsed.exec_of("null"), None);
    assert_eq!(parsed.exec_of("long"), Some(&long));
}

#[test]
fn a_malformed_entry_is_named_with_its_place_and_what_would_be_right() {
    let rows = [
        (r#"{"argv": "cat"}"#, "expected a sequence (line 3, column 40)"),
        (r#"{}"#, "missing field `argv`"),
        (r#"[]"#, "expected a JSON object"),
        (r#"[["cat"], "session"]"#, "expected a JSON object"),
        (r#""cat""#, "expected a JSON object"),
        (r#"{"argv": []}"#, "names no command"),
        (r#"{"argv": [" "]}"#, "names no command"),
        (r#"{"argv": ["a\u0000"]}"#, "NUL"),
        (r#"{"argv": ["a"], "mode": "forever"}"#, "`session` or `per_input`"),
        (r#"{"argv": ["a"], "framing": "xml"}"#, "`text` or `jsonl`"),
        (r#"{"argv": ["a"], "env": {"A": "secret"}}"#, "expected a sequence"),
        (r#"{"argv": ["a"], "env": ["A=secret"]}"#, "`A`, which is not the name"),
        (r#"{"argv": ["a"], "env": ["1A"]}"#, "only names"),
        (r#"{"argv": ["a"], "env": [""]}"#, "only names"),
        (r#"{"argv": ["a"], "turn_idle_ms": 0}"#, "turn_idle_ms"),
        (r#"{"argv": ["a"], "stop_grace_ms": 3600001}"#, "stop_grace_ms"),
    ];
    for (exec, why) in rows {
        let text = format!(
            "{{\"workspace_templates\": [\n  {{\"name\": \"first\"}},\n  {{\"name\": \"bad\", \"exec\": {exec}}}\n]}}"
        );
        let error = Manifest::parse(&text).expect_err(exec).to_string();
        assert!(error.starts_with("entry 2 (`bad`), `exec` at line 3, column 27: "), "{error}");
        assert!(error.contains(why), "{error}");
        assert!(error.contains("only `argv` is required"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn what_else_is_wrong_with_a_file_is_said() {
    let entries = |count: usize| {
        let entries: Vec<_> = (0..count).map(|n| json!({"name": format!("t{n:0>100}")})).collect();
        json!({"workspace_templates": entries}).to_string()
    };
    let one = |more: &str| format!(r#"{{"workspace_templates": [{{"name": "a"}}], {more}}}"#);
    for (text, why) in [
        (String::new(), "line 1"),
        ("[[]]".into(), "expected a JSON object"),
        (r#"{"workspace_templates": [["a"]]}"#.into(), "entry 1: invalid type: sequence"),
        ("{\n\n\"workspace_templates\": {}}".into(), "line 3"),
        (
            "{\"workspace_templates\": [\n{\"name\": 5}]}".into(),
            "entry 1: invalid type: integer `5`, expected a string (line 2, column 10)",
        ),
        (one(r#""default_template": "b""#), "`b`, which is none of: a, external"),
        (one(r#""default_template": "external""#), "cannot be started here"),
        (one(r#""profiles": {"builtin:x": "b"}"#), "profiles[\"builtin:x\"]"),
        (one(r#""profiles": []"#), "expected a map"),
        (json!({"workspace_templates": [{"name": "n".repeat(121)}]}).to_string(), "at most 120"),
        (entries(257), "more than 256"),
        (entries(100), "names of the templates"),
    ] {
        let error = Manifest::parse(&text).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_each_with_its_place() {
    let text = "{\"default_template\": \"nope\",\n \"profiles\": {\"p\": 7, \"q\": \"external\"},\n \
                \"workspace_templates\": [{\"name\": 5},\n  {\"name\": \"a\", \"exec\": {}}]}";
    let Problems(problems) = Manifest::parse(text).unwrap_err();
    let starts = [
        "entry 1: invalid type: integer `5`, expected a string (line 3, column ",
        "entry 2 (`a`), `exec` at line 4, column 25: missing field `argv`",
        "`profiles[\"p\"]`: invalid type: integer `7`, expected a string (line 2, column ",
        "`profiles[\"q\"]` is `external`, which cannot be started here (line 2, column 28)",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
    }
    let text = "{\"default_template\":\n  \"nope\"}";
    let error = Manifest::parse(text).unwrap_err().to_string();
    assert!(error.ends_with("none of: external (line 2, column 3)"), "{error}");
}

#[test]
fn the_shipped_manifest_makes_sense_and_names_what_the_fallback_names() {
    let manifest = Manifest::parse(SHIPPED).unwrap();
    let known = names(&manifest);
    for name in FALLBACK.iter().chain(&ANYWHERE) {
        assert!(known.iter().any(|known| known == name), "{name}");
    }
    for profile in ["builtin:coder", "builtin:reviewer", "builtin:intake"] {
        let chosen = manifest.choose(None, &ProfileSelector::Builtin(profile.into())).unwrap();
        assert_eq!(chosen.as_deref(), Some("echo"), "{profile} starts on any machine");
    }
    for template in &manifest.templates {
        assert!(template.note.is_some(), "{} says what it is or needs", template.name);
    }
}

#[test]
fn what_the_shipped_manifest_says_to_run_anywhere_does() {
    let manifest = Manifest::parse(SHIPPED).unwrap();
    for (name, input, answer) in [
        ("echo", "one\ntwo\n", "one\ntwo\n"),
        ("upper", "Grüß $HOME \\n *\n", "GRÜß $HOME \\N *\n"),
        ("lines", "a\nb\n", "     1\ta\n     2\tb\n"),
        ("stream", "two * words", "two * words \n"),
    ] {
        // Only bytes of ASCII are certain to have capitals.
        let fold = |text: &str| text.replace(['ü', 'Ü'], "u");
        assert_eq!(fold(&run(manifest.exec_of(name).unwrap(), input)), fold(answer), "{name}");
    }
    let spoken = run(manifest.exec_of("jsonl").unwrap(), "{\"content\":\"%s\"}\n{}\n");
    let events: Vec<Value> =
        spoken.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(events.len(), 16);
    assert_eq!(events[0], json!({"event": "turn_start", "data": {"turn": 1}}));
    assert_eq!(events[15], json!({"event": "turn_end", "data": {"turn": 2, "result": "finished"}}));
}

fn run(exec: &Exec, input: &str) -> String {
    let mut child = Command::new(&exec.argv[0])
        .args(&exec.argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("its program is on this machine");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_shipped_session_answers_each_line_at_once() {
    use std::io::{BufRead, BufReader};
    let manifest = Manifest::parse(SHIPPED).unwrap();
    for name in ["echo", "upper", "jsonl"] {
        let exec = manifest.exec_of(name).unwrap();
        assert_eq!(exec.mode, Mode::Session);
        let mut command = Command::new(&exec.argv[0]);
        command.args(&exec.argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..3 {
            stdin.write_all(b"{}\n").unwrap();
            // With standard input still open, a buffered answer would never come.
            let last = answers.find(|line| {
                let line = line.as_ref().unwrap();
                name != "jsonl" || line.contains("turn_end")
            });
            assert!(last.is_some(), "{name}");
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
}

proptest! {
    #[test]
    fn no_text_makes_reading_fail_in_any_other_way(text in ".{0,200}", exec in "[\\[\\]{}:,\"a-z0-9 ]{0,60}") {
        let _ = Manifest::parse(&text);
        let _ = Manifest::parse(&format!("{{\"workspace_templates\":[{{\"name\":\"ü\",\"exec\":{exec}}}]}}"));
    }

    #[test]
    fn only_names_of_variables_are_passed_through(name in "\\PC{0,12}") {
        let json = json!({"workspace_templates": [{"name": "a", "exec": {"argv": ["a"], "env": [name]}}]});
        let valid = name.chars().enumerate().all(|(at, c)| {
            c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit())
        });
        prop_assert_eq!(Manifest::parse(&json.to_string()).is_ok(), valid && !name.is_empty());
    }
}
