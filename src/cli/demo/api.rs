//! Requests of the demonstration. Answers are kept as the bytes that came, to be compared.

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::time::Duration;

const REQUEST_DEADLINE: Duration = Duration::from_secs(20);
const PAGE: usize = 1_000;

/// The service, as one of its users.
#[derive(Clone)]
pub(super) struct Api {
    http: reqwest::Client,
    pub(super) base: String,
    pub(super) token: String,
}

/// An answer, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) replayed: bool,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("an answer is not JSON")
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A record as the service tells it, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) seq: u64,
    pub(super) json: Box<str>,
}

impl Told {
    pub(super) fn new(raw: &RawValue) -> Result<Self> {
        #[derive(Deserialize)]
        struct Place {
            seq: u64,
        }
        let Place { seq } = serde_json::from_str(raw.get()).context("a record has no sequence")?;
        Ok(Self { seq, json: raw.get().into() })
    }
}

impl Api {
    pub(super) fn new(base: &str, token: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_DEADLINE).build()?;
        Ok(Self { http, base: base.into(), token: token.into() })
    }

    /// The same service, as another user.
    pub(super) fn with_token(&self, token: &str) -> Self {
        Self { token: token.into(), ..self.clone() }
    }

    /// Any answer, whatever its status.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let failed = || format!("{method} {path}");
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        request = request.bearer_auth(&self.token);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(failed)?;
        let status = response.status().as_u16();
        let replayed = response.headers().get("idempotent-replayed");
        let replayed = replayed.is_some_and(|value| value == "true");
        let body = response.bytes().await.with_context(failed)?;
        Ok(Answer { status, replayed, body })
    }

    /// What is there.
    pub(super) async fn get(&self, path: &str) -> Result<Answer> {
        let answer = self.ask(Method::GET, path, None, None).await?;
        succeeded(answer, path)
    }

    /// A command that has to succeed.
    pub(super) async fn command(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &Value,
    ) -> Result<Answer> {
        let answer = self.ask(method, path, key, Some(body)).await?;
        succeeded(answer, path)
    }

    /// The last sequence of the log.
    pub(super) async fn head(&self) -> Result<u64> {
        let page = self.get("/v1/events?limit=0").await?.json()?;
        page["head"].as_u64().ok_or_else(|| anyhow!("a page of events has no head"))
    }

    /// Everything in the log up to a sequence, page by page; with the records about watching
    /// itself, if they are wanted.
    pub(super) async fn log(&self, through: u64, watching: bool) -> Result<Vec<Told>> {
        #[derive(Deserialize)]
        struct Page<'a> {
            #[serde(borrow)]
            events: Vec<&'a RawValue>,
            cursor: String,
        }
        let mut told = Vec::new();
        let mut place = "after=0".to_owned();
        loop {
            let watching = u8::from(watching);
            let path = format!("/v1/events?limit={PAGE}&watching={watching}&{place}");
            let answer = self.get(&path).await?;
            let page: Page<'_> =
                serde_json::from_slice(&answer.body).context("a page of events is malformed")?;
            let next = format!("cursor={}", page.cursor);
            for raw in &page.events {
                let record = Told::new(raw)?;
                if record.seq > through {
                    return Ok(told);
                }
                told.push(record);
            }
            if page.events.is_empty() || next == place {
                return Ok(told);
            }
            place = next;
        }
    }
}

fn succeeded(answer: Answer, path: &str) -> Result<Answer> {
    if answer.status == 200 {
        return Ok(answer);
    }
    bail!("{path} was answered with status {}: {}", answer.status, answer.text().trim())
}
