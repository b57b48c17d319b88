//! Worker ids that are short enough to read, and finding a worker by the beginning of its id.

use super::client::{Call, Client, ClientError};
use anyhow::bail;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
};

/// What is shown of an id even if less would do, in characters.
const SHOWN_CHARS_MIN: usize = 8;
/// How many candidates an ambiguous beginning is answered with.
const CANDIDATES_MAX: usize = 10;

/// Abbreviates ids to a beginning that no other id seen so far has.
#[derive(Debug, Default)]
pub(super) struct ShortIds {
    seen: BTreeSet<String>,
}

impl ShortIds {
    pub(super) fn of<'a>(ids: impl IntoIterator<Item = &'a str>) -> Self {
        Self { seen: ids.into_iter().map(str::to_owned).collect() }
    }

    /// Ids are ASCII.
    pub(super) fn shorten<'a>(&mut self, id: &'a str) -> &'a str {
        if !self.seen.contains(id) {
            self.seen.insert(id.to_owned());
        }
        // In their order, the ids with the longest common beginning are next to each other.
        let before = self.seen.range::<str, _>((Unbounded, Excluded(id))).next_back();
        let after = self.seen.range::<str, _>((Excluded(id), Unbounded)).next();
        let shared = before.into_iter().chain(after).map(|other| common(id, other)).max();
        let mut len = SHOWN_CHARS_MIN.max(shared.map_or(0, |shared| shared + 1));
        // A hyphen at the end would look like a mistake.
        if id.as_bytes().get(len.wrapping_sub(1)) == Some(&b'-') {
            len += 1;
        }
        id.get(..len).unwrap_or(id)
    }
}

fn common(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// The full id of the worker that is meant by an id or its beginning.
pub(super) async fn resolve_worker(client: &Client, given: &str) -> anyhow::Result<String> {
    let missing = match client.send(Call::get(&["workers", given])).await {
        Ok(_) => return Ok(given.into()),
        Err(error) if is_unknown(&error) => error,
        Err(error) => return Err(error.into()),
    };
    // In their order, those with this beginning are the next ones after it.
    let page = Call::get(&["workers"]).query("after", Some(given));
    let answer = client.send(page.query("limit", Some(10 * CANDIDATES_MAX))).await?;
    let workers = answer["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    match choose(given, workers) {
        Choice::One(id) => Ok(id),
        Choice::None => Err(missing.into()),
        Choice::Several(candidates) => {
            bail!("`{given}` is the beginning of several workers:\n{candidates}")
        }
    }
}

fn is_unknown(error: &ClientError) -> bool {
    matches!(error.code(), Some("worker_not_found" | "unknown_worker"))
}

/// What an id, or the beginning of one, stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    None,
    One(String),
    Several(String),
}

pub(super) fn choose(given: &str, workers: &[Value]) -> Choice {
    let id = |worker: &'_ Value| worker["worker_id"].as_str().map(str::to_owned);
    let found: Vec<(String, &Value)> = workers
        .iter()
        .filter_map(|worker| Some((id(worker)?, worker)))
        .filter(|(id, _)| id.starts_with(given))
        .collect();
    match found.as_slice() {
        [] => Choice::None,
        [(only, _)] => Choice::One(only.clone()),
        several => {
            let line = |(id, worker): &(String, &Value)| {
                let status = worker["status"].as_str().unwrap_or_default();
                let hint = &worker["implementation"]["display_hint"];
                let template = worker["template"].as_str().or(hint.as_str()).unwrap_or_default();
                format!("  {id}  {status}  {template}").trim_end().to_owned()
            };
            let mut lines: Vec<String> = several.iter().take(CANDIDATES_MAX).map(line).collect();
            if several.len() > CANDIDATES_MAX {
                lines.push(format!("  and {} more", several.len() - CANDIDATES_MAX));
            }
            Choice::Several(lines.join("\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_id_is_shortened_to_what_no_other_has() {
        let mut ids = ShortIds::of(["0193e4a2-7c3b-7000", "0193e4a2-7c3b-7fff", "b"]);
        let mut check = |id, expected| assert_eq!(ids.shorten(id), expected);
        check("0193e4a2-7c3b-7000", "0193e4a2-7c3b-70");
        check("0193e4a2-7c3b-7fff", "0193e4a2-7c3b-7f");
        check("b", "b");
        check("abcdefgh-ijkl", "abcdefgh");
        check("abcdefgh-xyz", "abcdefgh-x");
        check("1234567-89", "1234567-8");
    }

    #[test]
    fn a_worker_is_found_by_the_beginning_of_its_id() {
        let workers = [
            json!({"worker_id": "abc-1", "status": "running", "template": "echo"}),
            json!({"worker_id": "abc-2", "status": "stopped"}),
            json!({"worker_id": "xyz"}),
        ];
        let check = |given, expected| assert_eq!(choose(given, &workers), expected, "{given}");
        check("x", Choice::One("xyz".into()));
        check("abc-2", Choice::One("abc-2".into()));
        check("q", Choice::None);
        check("ab", Choice::Several("  abc-1  running  echo\n  abc-2  stopped".into()));
    }
}
