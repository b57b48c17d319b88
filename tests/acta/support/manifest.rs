//! Templates for tests. Each is a few words of shell.

use serde_json::{Value, json};

/// Every payload that a worker may report, one a line, in the order of the contract.
pub const PAYLOADS: &str = r#"{"event":"turn_start","data":{"turn":1}}
{"event":"status","data":{"status":"running"}}
{"event":"thinking_start","data":{}}
{"event":"thinking_delta","data":{"text":"hm"}}
{"event":"thinking_done","data":{"text":"hm"}}
{"event":"text_delta","data":{"text":"one "}}
{"event":"text_delta","data":{"text":"two"}}
{"event":"text_done","data":{"text":"one two"}}
{"event":"tool_call_start","data":{"id":"c1","name":"read"}}
{"event":"tool_call_args_delta","data":{"id":"c1","json":"{\"a\":"}}
{"event":"tool_call_done","data":{"id":"c1","name":"read","arguments":"{\"a\":1}"}}
{"event":"tool_result","data":{"id":"c1","summary":"read it","output":"text","is_error":false}}
{"event":"usage","data":{"input_tokens":3,"output_tokens":2,"cache_read_input_tokens":1}}
{"event":"error","data":{"code":"tool_error","message":"no such file"}}
{"event":"alert","data":{"level":"warn","source":"worker","message":"slow","timestamp_ms":7}}
{"event":"turn_end","data":{"turn":1,"result":"finished"}}
{"event":"run_end","data":{"result":"limit_reached"}}"#;

fn shell(name: &str, mode: &str, framing: &str, script: &str) -> Value {
    json!({
        "name": name,
        "exec": {"argv": ["sh", "-c", script], "mode": mode, "framing": framing, "turn_idle_ms": 100, "stop_grace_ms": 300},
    })
}

/// What workers are made from, unless a test brings its own.
pub fn manifest() -> Value {
    let jsonl = format!("while IFS= read -r line; do cat <<'END'\n{PAYLOADS}\nEND\ndone");
    json!({
        "default_template": "echo",
        "profiles": {"builtin:numbered": "lines", "builtin:nothing": "library"},
        "workspace_templates": [
            shell("echo", "session", "text", "exec cat"),
            shell("lines", "per_input", "text", "exec cat -n"),
            shell("jsonl", "session", "jsonl", &jsonl),
            shell("mirror", "session", "jsonl", MIRROR),
            shell("slow", "per_input", "text", "echo begun; exec sleep 60"),
            shell("stubborn", "session", "text", "trap '' TERM; while :; do read -r line || sleep 0.05; done"),
            shell("complains", "session", "text", "while read -r line; do echo \"no $line\" >&2; done"),
            shell("quits", "session", "text", "read -r line; exit 0"),
            shell("breaks", "session", "text", "read -r line; exit 3"),
            shell("refuses", "per_input", "text", "cat >/dev/null; exit 3"),
            {"name": "absent", "exec": {"argv": ["/nowhere/to/be/found"]}},
            {"name": "library", "note": "A library."},
        ],
    })
}

/// Answers a line of input with that line, so that a test sees what a child is given.
const MIRROR: &str = r#"while IFS= read -r line; do
  escaped=$(printf '%s' "$line" | sed 's/\\/\\\\/g; s/"/\\"/g')
  printf '{"event":"text_delta","data":{"text":"%s"}}\n' "$escaped"
  printf '{"event":"turn_end","data":{"turn":1,"result":"finished"}}\n'
done"#;
