//! What has to hold, compared; a violation tells what was expected and what was seen.

use super::api::{Answer, Told};
use serde::Serialize;
use std::collections::BTreeMap;

/// Something does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Violation {
    pub(super) expected: String,
    pub(super) seen: String,
}

impl Violation {
    pub(super) fn new(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { expected: expected.into(), seen: seen.into() }
    }
}

/// Whether something holds.
pub(super) type Verdict = Result<(), Violation>;

/// How many sequences are listed of many.
const LISTED_MAX: usize = 12;
/// How much of a text is shown on either side of where two differ, in characters.
const AROUND_CHARS: usize = 60;

/// It is so, or not.
pub(super) fn is(holds: bool, expected: &str, seen: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Violation::new(expected, seen())) }
}

/// Every event of the log was seen, once, in order, and as the log has it.
pub(super) fn exactly_once(log: &[Told], seen: &[Told]) -> Verdict {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for told in seen {
        *counts.entry(told.seq).or_default() += 1;
    }
    let expected = format!("the {} events of the log, each once", log.len());
    let violated = |what: &str, which: Vec<u64>| {
        Err(Violation::new(expected.clone(), format!("{what}: {}", listed(&which))))
    };
    let missing: Vec<u64> =
        log.iter().map(|told| told.seq).filter(|seq| !counts.contains_key(seq)).collect();
    if !missing.is_empty() {
        return violated("these never came", missing);
    }
    let twice: Vec<u64> =
        counts.iter().filter(|(_, count)| **count > 1).map(|(seq, _)| *seq).collect();
    if !twice.is_empty() {
        return violated("these came more than once", twice);
    }
    let in_log: BTreeMap<u64, &Told> = log.iter().map(|told| (told.seq, told)).collect();
    let foreign: Vec<u64> =
        counts.keys().copied().filter(|seq| !in_log.contains_key(seq)).collect();
    if !foreign.is_empty() {
        return violated("these came, but are not in the log", foreign);
    }
    let unordered = seen.windows(2).find(|pair| pair[0].seq >= pair[1].seq);
    if let Some(pair) = unordered {
        return violated("these came in this order", vec![pair[0].seq, pair[1].seq]);
    }
    same_records(log, seen)
}

/// The same records, byte for byte.
pub(super) fn same_records(before: &[Told], now: &[Told]) -> Verdict {
    let differs = before.iter().zip(now).find(|(before, now)| before != now);
    if let Some((before, now)) = differs {
        let (expected, seen) = apart(&before.json, &now.json);
        return Err(Violation::new(
            format!("record {}: {expected}", before.seq),
            format!("record {}: {seen}", now.seq),
        ));
    }
    is(before.len() == now.len(), &format!("{} records", before.len()), || {
        format!("{} records", now.len())
    })
}

/// Every sequence from 1 to the head, and nothing else.
pub(super) fn gapless(log: &[Told], head: u64) -> Verdict {
    let expected = format!("the sequences 1 to {head} without a gap");
    for (place, told) in (1..).zip(log) {
        if told.seq != place {
            return Err(Violation::new(expected, format!("{} where {place} should be", told.seq)));
        }
    }
    is(log.len() as u64 == head, &expected, || format!("{} records", log.len()))
}

/// Two answers with the same status and the same bytes.
pub(super) fn same_answer(before: &Answer, now: &Answer) -> Verdict {
    if before.status != now.status {
        return Err(Violation::new(
            format!("status {}", before.status),
            format!("status {}: {}", now.status, now.text().trim()),
        ));
    }
    let (expected, seen) = apart(&before.text(), &now.text());
    is(before.body == now.body, &expected, || seen)
}

/// Two texts around where they begin to differ.
pub(super) fn apart(one: &str, other: &str) -> (String, String) {
    let common = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let skipped = common.saturating_sub(AROUND_CHARS);
    let around = |text: &str| {
        let shown: String = text.chars().skip(skipped).take(2 * AROUND_CHARS).collect();
        let before = if skipped > 0 { "…" } else { "" };
        let after = if text.chars().nth(skipped + 2 * AROUND_CHARS).is_some() { "…" } else { "" };
        format!("{before}{}{after}", shown.escape_debug())
    };
    (around(one), around(other))
}

fn listed(which: &[u64]) -> String {
    let shown: Vec<String> = which.iter().take(LISTED_MAX).map(u64::to_string).collect();
    let more = which.len().saturating_sub(LISTED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(seqs: &[u64]) -> Vec<Told> {
        let record = |&seq| Told { seq, json: format!("{{\"seq\":{seq}}}").into() };
        seqs.iter().map(record).collect()
    }

    fn check(verdict: Verdict, expected: Option<&str>) {
        match (verdict, expected) {
            (Ok(()), None) => {}
            (Err(violation), Some(text)) => {
                assert!(violation.seen.contains(text), "{violation:?}, not {text}");
            }
            (verdict, expected) => panic!("{verdict:?}, not {expected:?}"),
        }
    }

    #[test]
    fn an_event_that_is_missing_repeated_moved_foreign_or_altered_is_noticed() {
        let log = told(&[1, 2, 4]);
        check(exactly_once(&log, &told(&[1, 2, 4])), None);
        check(exactly_once(&log, &told(&[1, 4])), Some("never came: 2"));
        check(exactly_once(&log, &told(&[1, 2])), Some("never came: 4"));
        check(exactly_once(&log, &[]), Some("never came: 1, 2, 4"));
        check(exactly_once(&log, &told(&[1, 2, 2, 4])), Some("more than once: 2"));
        check(exactly_once(&log, &told(&[1, 2, 4, 1])), Some("more than once: 1"));
        check(exactly_once(&log, &told(&[2, 1, 4])), Some("in this order: 2, 1"));
        check(exactly_once(&log, &told(&[1, 2, 3, 4])), Some("not in the log: 3"));
        let mut altered = told(&[1, 2, 4]);
        altered[1].json = "{\"seq\":2 }".into();
        check(exactly_once(&log, &altered), Some("record 2: {\\\"seq\\\":2 }"));
    }

    #[test]
    fn a_log_that_lost_gained_or_changed_records_is_noticed() {
        check(gapless(&told(&[1, 2, 3]), 3), None);
        check(gapless(&told(&[1, 3]), 3), Some("3 where 2 should be"));
        check(gapless(&told(&[2, 3]), 3), Some("2 where 1 should be"));
        check(gapless(&told(&[1, 2]), 3), Some("2 records"));
        check(same_records(&told(&[1, 2]), &told(&[1, 2])), None);
        check(same_records(&told(&[1, 2]), &told(&[1])), Some("1 records"));
        check(same_records(&told(&[1]), &told(&[1, 2])), Some("2 records"));
        check(same_records(&told(&[1, 2]), &told(&[1, 3])), Some("record 3"));
    }

    #[test]
    fn answers_that_differ_in_one_byte_are_noticed_there() {
        let answer =
            |status, body: &str| Answer { status, replayed: false, body: body.to_owned().into() };
        check(same_answer(&answer(200, "{}"), &answer(200, "{}")), None);
        check(same_answer(&answer(200, "{}"), &answer(404, "no")), Some("status 404: no"));
        let long = "x".repeat(500);
        let (one, other) = (format!("{long}1{long}"), format!("{long}2{long}"));
        check(same_answer(&answer(200, &one), &answer(200, &other)), Some("x2x"));
        check(same_answer(&answer(200, "ab"), &answer(200, "a")), Some("a"));
        assert_eq!(listed(&(1..=20).collect::<Vec<_>>()).matches("and 8 more").count(), 1);
    }
}
