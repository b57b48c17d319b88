//! What a person copies to connect an agent. Both run as they are; the token comes from the
//! environment, so that it need not stand in a file or a shell's history.

use serde_json::{Value, json};

/// The environment variable that both read the token from.
pub(super) const TOKEN_VARIABLE: &str = "ACTA_WORKER_TOKEN";

/// Everything that is needed to connect an agent. It holds the token.
pub(super) fn connection(worker: &str, platform: &str, token: &str) -> Value {
    json!({
        "workspace_id": worker,
        "platform_url": platform,
        "auth_token": token,
        "token_variable": TOKEN_VARIABLE,
        "registry_endpoint": format!("{platform}/registry/register"),
        "heartbeat_endpoint": format!("{platform}/registry/heartbeat"),
        "curl_register_template": filled(CURL, worker, platform),
        "python_snippet": filled(PYTHON, worker, platform),
        "connect_command": filled(CONNECT, worker, platform),
    })
}

/// Neither value has a character that shells or Python treat in a special way: an identifier,
/// and a URL that was checked.
fn filled(template: &str, worker: &str, platform: &str) -> String {
    template.replace("@WORKER@", worker).replace("@PLATFORM@", platform)
}

const CONNECT: &str =
    "ACTA_WORKER_TOKEN=\"${ACTA_WORKER_TOKEN:?}\" acta connect @WORKER@ --url '@PLATFORM@'";

const CURL: &str = r#"# Put the token into the environment first:  export ACTA_WORKER_TOKEN=...
curl -fsS -X POST '@PLATFORM@/registry/register' \
  -H "Authorization: Bearer ${ACTA_WORKER_TOKEN:?set it to the token of this worker}" \
  -H 'Content-Type: application/json' \
  -d '{"id":"@WORKER@","agent_card":{"name":"@WORKER@","description":"registered with curl","version":"0.1.0"},"delivery_mode":"poll"}'
"#;

const PYTHON: &str = r#"#!/usr/bin/env python3
"""Connects an agent. Needs Python 3 and nothing else.

Put the token into the environment first:  export ACTA_WORKER_TOKEN=...
"""
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

PLATFORM = "@PLATFORM@"
WORKER = "@WORKER@"
TOKEN = os.environ["ACTA_WORKER_TOKEN"]


def call(method, path, body=None):
    request = urllib.request.Request(PLATFORM + path, method=method)
    request.add_header("Authorization", "Bearer " + TOKEN)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read() or b"null")


def answer(text):
    """Put your agent here: what it makes of a message."""
    return "echo: " + text


def register():
    card = {"name": WORKER, "description": "python snippet", "version": "0.1.0"}
    call("POST", "/registry/register",
         {"id": WORKER, "agent_card": card, "delivery_mode": "poll"})


def heartbeats():
    begun = time.monotonic()
    while True:
        try:
            call("POST", "/registry/heartbeat",
                 {"workspace_id": WORKER, "runtime_state": "ok",
                  "uptime_seconds": int(time.monotonic() - begun)})
        except OSError as error:
            print("heartbeat:", error, flush=True)
        time.sleep(30)


def reply(row):
    message = ((row["request_body"] or {}).get("params") or {}).get("message") or {}
    parts = message.get("parts") or []
    text = "\n".join(part.get("text") or "" for part in parts)
    said = answer(text)
    if row["source_id"] is None:
        # A person asked: whoever watches this worker sees the answer.
        call("POST", "/workspaces/%s/notify" % WORKER,
             {"message": said, "reply_to": row["id"]})
        return
    call("POST", "/workspaces/%s/a2a" % row["source_id"], {
        "jsonrpc": "2.0", "id": row["id"], "method": "message/send",
        "params": {"message": {
            "role": "agent", "messageId": "reply-" + row["id"],
            "task_id": message.get("task_id"),
            "parts": [{"type": "text", "kind": "text", "text": said}]}}})


def poll():
    cursor = ""
    while True:
        query = {"type": "a2a_receive", "limit": 50, "wait": 30}
        if cursor:
            query["since_id"] = cursor
        try:
            rows = call("GET", "/workspaces/%s/activity?%s"
                        % (WORKER, urllib.parse.urlencode(query)))
            for row in rows:
                reply(row)
                cursor = row["id"]
        except urllib.error.HTTPError as error:
            if error.code == 410:
                cursor = ""
                continue
            print("poll:", error, flush=True)
            if error.code == 401:
                raise SystemExit("the token is not accepted any more")
            time.sleep(1)
        except OSError as error:
            print("poll:", error, flush=True)
            time.sleep(1)


register()
print("connected to", PLATFORM, "as", WORKER, flush=True)
threading.Thread(target=heartbeats, daemon=True).start()
poll()
"#;
