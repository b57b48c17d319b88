//! What the service shows at a moment, as the bytes of its answers.

use super::{
    api::{Answer, Api},
    checks::{self, Verdict, Violation},
};
use anyhow::Result;

/// Transcripts are read to the end, but not for ever.
const TRANSCRIPT_PAGES_MAX: u64 = 200;

/// A view and the answers that show it, page by page.
#[derive(Debug)]
pub(super) struct View {
    pub(super) name: String,
    answers: Vec<Answer>,
}

impl View {
    /// Whether it is, byte for byte, what it was before.
    pub(super) fn same_as(&self, before: &Self) -> Verdict {
        if self.answers.len() != before.answers.len() {
            return Err(Violation::new(
                format!("{} pages", before.answers.len()),
                format!("{} pages", self.answers.len()),
            ));
        }
        let mut pairs = before.answers.iter().zip(&self.answers);
        pairs.try_for_each(|(before, now)| checks::same_answer(before, now))
    }
}

/// What can be looked at as of a past sequence: runtime, workers, and of each worker its details
/// and its whole transcript. Without a sequence, the present.
pub(super) async fn past(api: &Api, at: Option<u64>, workers: &[String]) -> Result<Vec<View>> {
    let at = at.map(|seq| format!("at={seq}")).unwrap_or_default();
    let mut views = Vec::new();
    for (name, path) in [("runtime", "/v1/runtime"), ("worker list", "/v1/workers")] {
        let answers = vec![api.get(&format!("{path}?{at}")).await?];
        views.push(View { name: name.into(), answers });
    }
    for (number, id) in (1..).zip(workers) {
        let answers = vec![api.get(&format!("/v1/workers/{id}?{at}")).await?];
        views.push(View { name: format!("worker {number}"), answers });
        let mut answers = Vec::new();
        let mut start = Some(0);
        while let Some(from) = start.filter(|_| (answers.len() as u64) < TRANSCRIPT_PAGES_MAX) {
            let path = format!("/v1/workers/{id}/transcript?start={from}&{at}");
            let page = api.get(&path).await?;
            start = page.json()?["transcript"]["next_start"].as_u64();
            answers.push(page);
        }
        views.push(View { name: format!("transcript {number}"), answers });
    }
    Ok(views)
}

/// What is kept as it is until a command changes it: registry, tokens, bundles, and the cursors
/// of a consumer. Hosts are asked for as of a moment: when one was heard of last is not kept.
pub(super) async fn kept(
    operator: &Api,
    consumer: &Api,
    cursor: &str,
    at: u64,
) -> Result<Vec<View>> {
    let hosts = format!("/v1/hosts?at={at}");
    let named = format!("/v1/cursors/{cursor}");
    let asked = [
        ("runtimes", operator, "/v1/runtimes"),
        ("hosts", operator, hosts.as_str()),
        ("tokens", operator, "/v1/tokens"),
        ("bundles", operator, "/v1/config-bundles"),
        ("cursors", consumer, "/v1/cursors"),
        ("named cursor", consumer, named.as_str()),
    ];
    let mut views = Vec::new();
    for (name, api, path) in asked {
        views.push(View { name: name.into(), answers: vec![api.get(path).await?] });
    }
    Ok(views)
}

/// One verdict over several views: the first that is not what it was.
pub(super) fn same(before: &[View], now: &[View]) -> Verdict {
    for (before, now) in before.iter().zip(now) {
        now.same_as(before).map_err(|violation| Violation {
            expected: format!("{}: {}", before.name, violation.expected),
            seen: format!("{}: {}", now.name, violation.seen),
        })?;
    }
    checks::is(before.len() == now.len(), "as many views", || "another number".into())
}
