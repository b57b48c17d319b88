//! Rules of the deciding half: keys, revisions, and what may be decided upon what.

use super::history::{Drive, create, id, input, keyed, records, register, request, text, worker};
use crate::command::{Command, Outcome, Request};
use acta_events::{Revision, Role, Sequence, TokenIssued};

fn prepared() -> Drive {
    let mut drive = Drive::new();
    drive.submit(0, request(register("r")));
    drive.commit();
    drive.submit(1, request(create(0)));
    drive.commit();
    drive.answers.clear();
    drive
}

/// Gives commands, either all in one batch or each made durable before the next, and compares
/// the beginning of each answer.
fn check(rows: &[(Request, &str)]) {
    for one_by_one in [true, false] {
        let mut drive = prepared();
        for (n, (request, _)) in rows.iter().enumerate() {
            drive.submit(n, request.clone());
            if one_by_one {
                drive.commit();
            }
        }
        let (_, answers) = drive.finish();
        for (n, (answer, (request, expected))) in answers.iter().zip(rows).enumerate() {
            let fits = match expected.strip_prefix("refused: ") {
                Some(code) => answer.starts_with("refused: ") && answer.contains(code),
                None => answer.starts_with(expected),
            };
            assert!(fits, "row {n}: {answer}, not {expected}: {request:?}");
        }
    }
}

fn matching(revision: u64, request: Request) -> Request {
    Request { if_match: Some(Revision(revision)), ..request }
}

fn stop(n: u8) -> Command {
    Command::Stop { worker: worker(n), reason: None }
}

#[test]
fn a_key_is_answered_with_the_first_record() {
    let first = keyed("operator", "k", input(0, "a"));
    check(&[
        (first.clone(), "recorded 3 false"),
        (request(input(0, "b")), "recorded 4 false"),
        (first.clone(), "recorded 3 true"),
        (first, "recorded 3 true"),
        (request(input(0, "a")), "recorded 5 false"),
    ]);
}

#[test]
fn a_key_of_another_command_is_refused_with_its_sequence() {
    check(&[
        (keyed("operator", "k", input(0, "a")), "recorded 3 false"),
        (keyed("operator", "k", input(0, "b")), "refused: recorded as sequence 3;"),
        (keyed("operator", "k", stop(0)), "refused: (idempotency_key_reused)"),
        (keyed("operator", "K", input(0, "a")), "recorded 4 false"),
    ]);
}

#[test]
fn keys_of_different_actors_have_nothing_to_do_with_each_other() {
    check(&[
        (keyed("operator", "k", input(0, "a")), "recorded 3 false"),
        (keyed("token:t", "k", input(0, "a")), "recorded 4 false"),
        (keyed("token:t", "k", input(0, "a")), "recorded 4 true"),
        (keyed("operator", "k", input(0, "a")), "recorded 3 true"),
    ]);
}

#[test]
fn the_key_is_looked_at_before_the_revision() {
    let first = matching(1, keyed("operator", "k", input(0, "a")));
    check(&[
        (first.clone(), "recorded 3 false"),
        (first, "recorded 3 true"),
        (matching(1, keyed("operator", "k", input(0, "b"))), "refused: (idempotency_key_reused)"),
        (matching(1, keyed("operator", "l", input(0, "a"))), "refused: (version_conflict)"),
    ]);
}

#[test]
fn a_command_that_was_refused_is_not_remembered() {
    check(&[
        (matching(9, keyed("operator", "k", input(0, "a"))), "refused: (version_conflict)"),
        (keyed("operator", "k", input(0, "b")), "recorded 3 false"),
        (keyed("operator", "l", input(3, "a")), "refused: (worker_not_found)"),
        (request(create(3)), "recorded 4 false"),
        (keyed("operator", "l", input(3, "a")), "recorded 5 false"),
    ]);
}

#[test]
fn a_command_that_changed_nothing_is_decided_anew() {
    check(&[
        (request(stop(0)), "recorded 3 false"),
        (keyed("operator", "k", stop(0)), "unchanged"),
        (keyed("operator", "k", stop(0)), "unchanged"),
        (keyed("operator", "k", request(create(1)).command), "recorded 4 false"),
    ]);
}

#[test]
fn if_match_compares_the_revision_and_output_does_not_count() {
    let output =
        Outcome::Output { turn: 1, kind: acta_events::OutputKind::TextDelta, content: text("hm") };
    let report = Command::Report { worker: worker(0), outcomes: vec![output] };
    check(&[
        (matching(2, request(input(0, "a"))), "refused: is at revision 1, not 2"),
        (matching(1, request(input(0, "a"))), "recorded 3"),
        (request(report), "recorded 4"),
        (matching(1, request(input(0, "b"))), "refused: is at revision 2, not 1"),
        (matching(2, request(stop(0))), "recorded 5"),
        (matching(2, request(stop(0))), "refused: (version_conflict)"),
        (matching(3, request(stop(0))), "unchanged"),
    ]);
}

/// A runtime that is being stopped takes no worker, and a token for a worker that is being
/// created is issued, although neither is durable.
#[test]
fn what_is_not_durable_yet_counts() {
    let issue = TokenIssued {
        token: id("t"),
        digest: acta_events::Digest::ZERO,
        role: Role::Worker,
        label: None,
        worker: Some(worker(1)),
        host: None,
    };
    check(&[
        (request(create(1)), "recorded 3"),
        (request(Command::IssueToken(Box::new(issue))), "recorded 4"),
        (request(Command::StopRuntime { runtime: id("r") }), "recorded 5"),
        (request(create(2)), "refused: (runtime_stopped)"),
        (request(Command::RevokeToken { token: id("t") }), "recorded 6"),
        (request(Command::RevokeToken { token: id("t") }), "unchanged"),
    ]);
}

/// A refusal in the middle of a report used to leave the outcomes before it in the log, and
/// to tell whoever reported that nothing was recorded.
#[test]
fn a_report_that_is_refused_leaves_nothing_behind() {
    let output = Outcome::Output {
        turn: 1,
        kind: acta_events::OutputKind::TextDelta,
        content: text("late"),
    };
    let begin = Outcome::Dispatching { input: Sequence(9), turn: 2 };
    let outcomes = vec![output.clone(), begin];
    check(&[
        (request(stop(0)), "recorded 3"),
        (request(Command::Report { worker: worker(0), outcomes }), "refused: has ended"),
        (request(Command::Report { worker: worker(0), outcomes: vec![output] }), "recorded 4"),
    ]);
}

/// The key of a report was forgotten until it was durable, so that a repeat in between was
/// recorded again.
#[test]
fn a_report_is_recognised_by_its_key_as_well() {
    let outcomes = vec![Outcome::Connected { backend: "test", process: None }];
    let report = keyed("service", "k", Command::Report { worker: worker(0), outcomes });
    check(&[(report.clone(), "recorded 3 false"), (report, "recorded 3 true")]);
}

#[test]
fn the_records_of_one_command_carry_its_key_once() {
    let outcomes = vec![
        Outcome::Connected { backend: "test", process: None },
        Outcome::Dispatching { input: Sequence(3), turn: 1 },
    ];
    let report = keyed("service", "k", Command::Report { worker: worker(0), outcomes });
    let mut drive = prepared();
    drive.submit(0, report);
    let (log, _) = drive.finish();
    let keys: Vec<_> = records(&log).iter().map(|record| record.header.command.is_some()).collect();
    assert_eq!(keys, [false, false, true, false]);
}

#[test]
fn what_does_not_fit_into_a_record_is_refused_and_takes_no_sequence() {
    let mut too_much = request(create(1));
    if let Command::CreateWorker { created, .. } = &mut too_much.command {
        created.requested_capabilities = vec!["x".repeat(200); 100];
    }
    check(&[
        (too_much, "refused: (payload_too_large)"),
        (request(create(1)), "recorded 3"),
        (request(input(1, "a")), "recorded 4"),
    ]);
}

/// More blocks than one, all of them in order and none too large.
#[test]
fn a_full_block_is_followed_by_another() {
    let mut drive = prepared();
    for n in 0..40 {
        drive.submit(n, request(input(0, &"x".repeat(20_000))));
    }
    let (log, _) = drive.finish();
    assert_eq!(records(&log).len(), 42);
    assert_eq!(log.head(), Sequence(42));
}
