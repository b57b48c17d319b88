//! An agent that connects in, as the deployed client of the original platform does it.

use super::{Client, Service};
use serde_json::{Value, json};

/// An external worker and its agent.
pub struct Deployed {
    /// The worker's id.
    pub id: String,
    /// The answer that made it.
    pub created: Value,
    /// Its own client.
    pub client: Client,
    cursor: Option<String>,
}

impl Deployed {
    /// Makes a worker, with nobody there for it yet.
    pub async fn awaited(service: &Service) -> Self {
        let created = service
            .post("/workspaces", &json!({"name": "an agent", "runtime": "external"}))
            .await
            .created();
        let token = created["connection"]["auth_token"].as_str().unwrap();
        let client = service.with_token(token);
        let id = created["id"].as_str().unwrap().to_owned();
        Self { id, created, client, cursor: None }
    }

    /// Makes a worker and registers its agent, which polls.
    pub async fn connected(service: &Service) -> Self {
        let agent = Self::awaited(service).await;
        agent.register().await;
        agent
    }

    /// The worker's path with something below it.
    pub fn path(&self, below: &str) -> String {
        format!("/workspaces/{}{below}", self.id)
    }

    /// Exactly what the deployed client sends.
    pub async fn register(&self) {
        let card = json!({
            "name": "agent", "description": "molecule connect (CLI bridge)", "version": "0.1.0",
        });
        let body = json!({"id": self.id, "agent_card": card, "delivery_mode": "poll"});
        let answer = self.client.post("/registry/register", &body).await.ok();
        assert_eq!(answer, json!({"status": "registered", "delivery_mode": "poll"}));
    }

    /// Exactly what the deployed client sends.
    pub async fn beat(&self) {
        self.beat_with(json!({})).await;
    }

    pub async fn beat_with(&self, more: Value) {
        let mut body = json!({"workspace_id": self.id, "runtime_state": "ok", "uptime_seconds": 0});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = self.client.post("/registry/heartbeat", &body).await.ok();
        assert_eq!(answer, json!({"status": "ok"}));
    }

    /// One poll of the deployed client's loop, which keeps its cursor.
    pub async fn poll(&mut self) -> Vec<Value> {
        let rows = self.rows(self.cursor.clone().as_deref(), "").await;
        if let Some(last) = rows.last() {
            self.cursor = last["id"].as_str().map(Into::into);
        }
        rows
    }

    /// Messages after a row, or all that wait.
    pub async fn rows(&self, since: Option<&str>, more: &str) -> Vec<Value> {
        let since = since.map(|id| format!("&since_id={id}")).unwrap_or_default();
        let query = self.path(&format!("/activity?type=a2a_receive&limit=50{since}{more}"));
        let Value::Array(rows) = self.client.get(&query).await.ok() else {
            panic!("not a bare array")
        };
        rows
    }

    /// What it asked others and was answered.
    pub async fn replies(&self) -> Vec<Value> {
        let answer = self.client.get(&self.path("/activity?type=a2a_reply")).await.ok();
        answer.as_array().unwrap().clone()
    }

    /// Sends a message to another worker.
    pub async fn ask(&self, to: &Deployed, message: &str, text: &str) {
        let answer = self.client.post(&to.path("/a2a"), &envelope(message, text)).await.ok();
        let expected =
            json!({"status": "queued", "delivery_mode": "poll", "method": "message/send"});
        assert_eq!(answer, expected);
    }

    /// Answers a row as the deployed client does: by the same call on the worker it came from.
    pub async fn reply(&self, row: &Value, text: &str) {
        let source = row["source_id"].as_str().unwrap();
        let body = reply_to(row, text);
        self.client.post(&format!("/workspaces/{source}/a2a"), &body).await.ok();
    }

    /// What the worker's status is, as its operator sees it.
    pub async fn status(&self, service: &Service) -> String {
        let state = service.get(&self.path("/state")).await.ok();
        state["status"].as_str().unwrap().to_owned()
    }

    /// The types of its records, oldest first.
    pub async fn events(&self, service: &Service) -> Vec<String> {
        let records = self.records(service).await;
        records.iter().map(|record| record["type"].as_str().unwrap().to_owned()).collect()
    }

    /// Its records, oldest first, with those about watching.
    pub async fn records(&self, service: &Service) -> Vec<Value> {
        let path = format!("/v1/events?worker={}&runtime=external&watching=true", self.id);
        let answer = service.get(&path).await.ok();
        answer["events"].as_array().unwrap().clone()
    }
}

/// A message as one agent sends it to another.
pub fn envelope(message: &str, text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": message, "method": "message/send", "params": {"message": {
        "role": "user", "messageId": message, "parts": [{"type": "text", "text": text}],
    }}})
}

/// An answer as the deployed client sends it.
pub fn reply_to(row: &Value, text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": row["id"], "method": "message/send", "params": {"message": {
        "role": "agent", "messageId": format!("reply-{}", row["id"].as_str().unwrap()),
        "task_id": row["request_body"]["params"]["message"]["task_id"],
        "parts": [{"type": "text", "text": text}],
    }}})
}
