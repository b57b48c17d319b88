//! Given what is durable, when this is asked, then that happens.

mod external;

use super::{Decision, Draft, Facts, decide, decide_outcome};
use crate::{
    command::{Command, Outcome},
    engine::tests::history::{created, id, register, text, worker},
    error::Rejection,
};
use acta_events::{
    Actor, BundleRef, ConfigBundleStored, Digest, Event, ExitStatus, Header, HostCapabilities,
    HostRegistered, InputKind, OutputKind, ProcessRef, ProfileSelector, Provenance, Record,
    RemoteAddress, RemoteRuntimeRegistered, Revision, Role, RuntimeId, Sequence, Timestamp,
    TokenIssued, TurnResult, Version,
};
use acta_projections::{Backend, Child, Projections, RunState, WorkerState};

const NOW: Timestamp = Timestamp(1_795_000_000_000_000);

/// What is durable, made by deciding.
#[derive(Clone, Default)]
struct Given(Projections);

impl Given {
    fn facts<'a>(&'a self, command: &Command, actor: &'a Actor) -> Facts<'a> {
        let worker = command
            .worker()
            .and_then(|worker| self.0.workers.get(&worker.runtime_id, &worker.worker_id));
        let peer =
            command.peer().and_then(|peer| self.0.workers.get(&peer.runtime_id, &peer.worker_id));
        Facts { globals: &self.0, worker, peer, actor, now: NOW }
    }

    fn record(&mut self, decision: Decision) {
        decision.drafts().into_iter().for_each(|draft| self.record_one(draft));
    }

    fn record_one(&mut self, draft: Draft) {
        let known = draft.runtime.as_ref().zip(draft.worker.as_ref());
        let state = known.and_then(|(runtime, worker)| self.0.workers.get(runtime, worker));
        let header = Header {
            seq: self.0.position().next(),
            id: uuid::Uuid::nil(),
            time: NOW,
            version: draft
                .worker
                .as_ref()
                .map(|_| state.map_or(Version(1), |state| state.version.next())),
            runtime: draft.runtime,
            worker: draft.worker,
            actor: id("operator"),
            command: None,
            trace: None,
            event: draft.event,
        };
        self.0.apply(&Record::new(header, draft.content).unwrap()).unwrap();
    }

    fn decide(&self, command: &Command) -> Result<Vec<Decision>, Rejection> {
        if let Command::Report { worker, outcomes } = command {
            let mut given = self.clone();
            let mut decisions = Vec::new();
            for outcome in outcomes {
                let state = given.0.workers.get(&worker.runtime_id, &worker.worker_id).unwrap();
                let decision = decide_outcome(state, outcome)?;
                given.record(decision.clone());
                decisions.push(decision);
            }
            return Ok(decisions);
        }
        let actor = id("operator");
        decide(self.facts(command, &actor), command).map(|decision| vec![decision])
    }

    fn worker(&self, n: u8) -> &WorkerState {
        let worker = worker(n);
        self.0.workers.get(&worker.runtime_id, &worker.worker_id).unwrap()
    }
}

fn given(commands: impl IntoIterator<Item = Command>) -> Given {
    let mut given = Given::default();
    for command in commands {
        let decisions = given.decide(&command).unwrap_or_else(|error| panic!("{error}"));
        decisions.into_iter().for_each(|decision| given.record(decision));
    }
    given
}

/// The names of what is recorded, `-` for nothing, or the code of the refusal.
fn shown(decided: &Result<Vec<Decision>, Rejection>) -> String {
    match decided {
        Err(rejection) => format!("refused {}", rejection.code),
        Ok(decisions) => {
            let names = decisions.iter().map(|decision| match decision {
                Decision::Unchanged => "-".to_owned(),
                recorded => {
                    let drafts = recorded.clone().drafts();
                    drafts.iter().map(|draft| draft.event.name()).collect::<Vec<_>>().join("+")
                }
            });
            names.collect::<Vec<_>>().join(" ")
        }
    }
}

fn check(rows: Vec<(Vec<Command>, Command, &str)>) {
    for (n, (before, when, then)) in rows.into_iter().enumerate() {
        let decided = given(before).decide(&when);
        assert_eq!(shown(&decided), then, "row {n}: {when:?}");
    }
}

/// The events of what is decided.
fn events(given: &Given, when: Command) -> Vec<Event> {
    let decisions = given.decide(&when).unwrap();
    decisions.into_iter().flat_map(Decision::drafts).map(|draft| draft.event).collect()
}

fn runtime() -> Command {
    register("r")
}

fn make(template: Option<&str>, profile: ProfileSelector, bundle: Option<BundleRef>) -> Command {
    let mut created = created(template);
    created.profile = profile;
    created.config_bundle = bundle;
    Command::CreateWorker { worker: worker(0), created: Box::new(created), texts: None }
}

fn make_echo() -> Command {
    make(Some("echo"), ProfileSelector::RuntimeDefault, None)
}

fn input() -> Command {
    Command::Input { worker: worker(0), kind: InputKind::User, content: text("hello") }
}

fn stop() -> Command {
    Command::Stop { worker: worker(0), reason: None }
}

fn cancel() -> Command {
    Command::Cancel { worker: worker(0), reason: Some(text("enough")) }
}

fn stop_runtime() -> Command {
    Command::StopRuntime { runtime: id("r") }
}

fn report(outcomes: impl Into<Vec<Outcome>>) -> Command {
    Command::Report { worker: worker(0), outcomes: outcomes.into() }
}

fn connected() -> Outcome {
    Outcome::Connected { backend: "process", process: Some(process()) }
}

fn process() -> ProcessRef {
    ProcessRef { pid: 7, started_ticks: 1, boot: "b".into() }
}

fn failed() -> Outcome {
    Outcome::SpawnFailed { message: "no".into() }
}

fn exited(code: i32) -> Outcome {
    Outcome::Exited { exit: ExitStatus { code: Some(code), signal: None } }
}

fn dispatching(input: u64, turn: u64) -> Outcome {
    Outcome::Dispatching { input: Sequence(input), turn }
}

fn delta(words: &str) -> Outcome {
    Outcome::Output { turn: 1, kind: OutputKind::TextDelta, content: text(words) }
}

fn turn_ended() -> Outcome {
    Outcome::TurnEnded { turn: 1, result: TurnResult::Finished, exit: None }
}

fn input_failed(input: u64) -> Outcome {
    Outcome::InputFailed { input: Sequence(input), message: "no".into() }
}

fn interrupted(again: bool) -> Outcome {
    Outcome::Interrupted { reason: "service_lost", again }
}

fn bundle(profiles: &[&str]) -> Command {
    let stored = ConfigBundleStored {
        bundle: bundle_ref("a"),
        revision: "1".into(),
        workspace_id: "ws".into(),
        created_at: "then".into(),
        provenance: Provenance { source: "test".into(), detail: None },
        profiles: profiles.iter().map(|name| (*name).into()).collect(),
        declaration_count: 0,
    };
    Command::StoreBundle { stored: Box::new(stored), document: text("{}") }
}

fn bundle_ref(digit: &str) -> BundleRef {
    BundleRef { id: "bundle".into(), digest: digit.repeat(64) }
}

/// Runtime and worker, and what its backend reported.
fn with(outcomes: impl Into<Vec<Outcome>>) -> Vec<Command> {
    vec![runtime(), make_echo(), report(outcomes)]
}

#[test]
fn input_goes_to_what_runs_or_will_run() {
    let nobody = make(None, ProfileSelector::RuntimeDefault, None);
    check(vec![
        (vec![], input(), "refused worker_not_found"),
        (vec![runtime()], input(), "refused worker_not_found"),
        // Starting, at hand, busy, and cut off.
        (vec![runtime(), make_echo()], input(), "worker_input_accepted"),
        (with([connected()]), input(), "worker_input_accepted"),
        ([with([connected()]), vec![input()]].concat(), input(), "worker_input_accepted"),
        (with([connected(), interrupted(false)]), input(), "worker_input_accepted"),
        // Nobody runs it; nothing enters the transcript.
        (vec![runtime(), nobody], input(), "refused worker_execution_unavailable"),
        // Known to be refused.
        (with([failed()]), input(), "refused worker_execution_rejected"),
        (with([connected(), exited(0)]), input(), "refused worker_execution_rejected"),
        (with([connected(), exited(3)]), input(), "refused worker_execution_rejected"),
        // Ended for good.
        (vec![runtime(), make_echo(), stop()], input(), "refused invalid_request"),
        (vec![runtime(), make_echo(), cancel()], input(), "refused invalid_request"),
        ([with([failed()]), vec![stop()]].concat(), input(), "refused invalid_request"),
        // Stopping the runtime stops its workers one by one, not by itself.
        (vec![runtime(), make_echo(), stop_runtime()], input(), "worker_input_accepted"),
    ]);
}

#[test]
fn the_first_terminal_state_wins() {
    let ended = |how: Command| vec![runtime(), make_echo(), how];
    check(vec![
        (vec![runtime(), make_echo()], stop(), "worker_stopped"),
        (vec![runtime(), make_echo()], cancel(), "worker_cancelled"),
        (ended(stop()), stop(), "-"),
        (ended(stop()), cancel(), "-"),
        (ended(cancel()), stop(), "-"),
        (ended(cancel()), cancel(), "-"),
        (with([connected(), exited(1)]), stop(), "worker_stopped"),
        (
            vec![runtime(), make(None, ProfileSelector::RuntimeDefault, None)],
            stop(),
            "worker_stopped",
        ),
        (vec![runtime(), make_echo(), stop_runtime()], stop(), "worker_stopped"),
        (vec![runtime()], stop(), "refused worker_not_found"),
        (vec![runtime()], cancel(), "refused worker_not_found"),
    ]);
    let given = given([runtime(), make_echo(), stop(), cancel(), stop()]);
    let terminal = given.worker(0).terminal.unwrap();
    assert_eq!(
        (terminal.seq, terminal.version, terminal.revision),
        (Sequence(3), Version(2), Revision(2))
    );
    assert_eq!(given.0.position(), Sequence(3));
}

#[test]
fn profiles_are_declared_by_bundles() {
    use ProfileSelector::{Builtin, Named, RuntimeDefault};
    let named = || Named("reviewer".into());
    let builtin = || Builtin("coder".into());
    let stored = || vec![runtime(), bundle(&["reviewer"])];
    let make = |profile, bundle| make(None, profile, bundle);
    let a = || Some(bundle_ref("a"));
    check(vec![
        (stored(), make(named(), a()), "worker_created"),
        (stored(), make(named(), None), "refused invalid_profile_selector"),
        (stored(), make(Named("other".into()), a()), "refused invalid_profile_selector"),
        (stored(), make(builtin(), None), "worker_created"),
        (stored(), make(builtin(), a()), "refused invalid_profile_selector"),
        (vec![runtime(), bundle(&["coder"])], make(builtin(), a()), "worker_created"),
        (stored(), make(RuntimeDefault, a()), "worker_created"),
        (stored(), make(named(), Some(bundle_ref("b"))), "refused config_bundle_digest_mismatch"),
        (vec![runtime()], make(named(), a()), "refused config_bundle_missing"),
        (vec![runtime()], make(RuntimeDefault, a()), "refused config_bundle_missing"),
        (stored(), bundle(&["reviewer"]), "-"),
    ]);
}

#[test]
fn workers_are_made_in_running_runtimes_once() {
    check(vec![
        (vec![], make_echo(), "refused unknown_runtime"),
        (vec![register("other")], make_echo(), "refused unknown_runtime"),
        (vec![runtime()], make_echo(), "worker_created"),
        (vec![runtime(), make_echo()], make_echo(), "refused invalid_request"),
        (vec![runtime(), make_echo(), stop()], make_echo(), "refused invalid_request"),
        (vec![runtime(), stop_runtime()], make_echo(), "refused runtime_stopped"),
    ]);
}

#[test]
fn runtimes_and_hosts_are_registered_and_updated() {
    let labelled = |label: &str| {
        let Command::RegisterRuntime { runtime, mut registered } = runtime() else {
            unreachable!()
        };
        registered.label = label.into();
        Command::RegisterRuntime { runtime, registered }
    };
    let host = |label: &str| {
        let registered = HostRegistered {
            host: id("h"),
            kind: "test".into(),
            label: label.into(),
            capabilities: HostCapabilities::of_machine("linux", "x86_64"),
        };
        Command::RegisterHost { runtime: id::<RuntimeId>("r"), registered }
    };
    let lose = || Command::LoseHost { host: id("h"), last_seen_at: None };
    let find = || Command::FindHost { host: id("h") };
    let (mut other, mut elsewhere, mut other_kind) = (runtime(), host("a"), host("a"));
    if let Command::RegisterRuntime { runtime, .. } = &mut other {
        *runtime = id("other");
    }
    if let Command::RegisterHost { runtime, .. } = &mut elsewhere {
        *runtime = id("other");
    }
    if let Command::RegisterHost { registered, .. } = &mut other_kind {
        registered.kind = "another".into();
    }
    let remote = |runtime: &str, label: &str, url: &str| {
        let remote = RemoteAddress { url: url.into(), token_env: None };
        let registered = RemoteRuntimeRegistered { label: label.into(), remote };
        Command::RegisterRemote { runtime: id::<RuntimeId>(runtime), registered }
    };
    let retire = |runtime: &str| Command::RetireRuntime { runtime: id::<RuntimeId>(runtime) };
    check(vec![
        (vec![], remote("a", "A", "http://x"), "remote_runtime_registered"),
        (vec![remote("a", "A", "http://x")], remote("a", "A", "http://x"), "-"),
        (
            vec![remote("a", "A", "http://x")],
            remote("a", "B", "http://x"),
            "remote_runtime_registered",
        ),
        (
            vec![remote("a", "A", "http://x")],
            remote("a", "A", "http://y"),
            "remote_runtime_registered",
        ),
        (vec![runtime()], remote("r", "A", "http://x"), "refused invalid_request"),
        (vec![runtime()], retire("r"), "refused invalid_request"),
        (vec![], retire("a"), "refused unknown_runtime"),
        (vec![remote("a", "A", "http://x")], retire("a"), "runtime_retired"),
        (vec![remote("a", "A", "http://x"), retire("a")], retire("a"), "refused unknown_runtime"),
        (vec![], runtime(), "runtime_registered"),
        (vec![runtime()], runtime(), "-"),
        (vec![runtime()], labelled("new"), "runtime_updated"),
        (vec![runtime(), labelled("new")], labelled("new"), "-"),
        (vec![runtime(), stop_runtime()], runtime(), "-"),
        (vec![runtime()], stop_runtime(), "runtime_stopped"),
        (vec![runtime(), stop_runtime()], stop_runtime(), "-"),
        (vec![], stop_runtime(), "refused unknown_runtime"),
        (vec![runtime()], host("a"), "host_registered"),
        (vec![runtime(), host("a")], host("a"), "-"),
        (vec![runtime(), host("a")], host("b"), "host_updated"),
        (vec![], host("a"), "refused unknown_runtime"),
        (vec![runtime(), other.clone(), host("a")], elsewhere, "refused wrong_runtime"),
        (vec![runtime(), host("a")], other_kind, "refused invalid_request"),
        (vec![runtime(), host("a")], lose(), "host_lost"),
        (vec![runtime(), host("a"), lose()], lose(), "-"),
        (vec![runtime(), host("a"), lose()], host("a"), "-"),
        (vec![runtime(), host("a"), lose()], host("b"), "host_updated"),
        (vec![runtime(), host("a"), lose()], find(), "host_found"),
        (vec![runtime(), host("a")], find(), "-"),
        (vec![runtime()], lose(), "-"),
        (vec![runtime()], find(), "refused unknown_host"),
    ]);
}

#[test]
fn tokens_are_issued_and_revoked() {
    let issue = |role, worker| {
        let digest = Digest([1; 32]);
        Command::IssueToken(Box::new(TokenIssued {
            token: id("t"),
            digest,
            role,
            label: None,
            worker,
            host: None,
        }))
    };
    let revoke = || Command::RevokeToken { token: id("t") };
    check(vec![
        (vec![], issue(Role::Operator, None), "token_issued"),
        (vec![], issue(Role::Worker, None), "refused invalid_request"),
        (vec![runtime()], issue(Role::Worker, Some(worker(0))), "refused unknown_worker"),
        (vec![runtime(), make_echo()], issue(Role::Worker, Some(worker(0))), "token_issued"),
        (vec![], revoke(), "refused unknown_token"),
        (vec![issue(Role::Operator, None)], revoke(), "token_revoked"),
        (vec![issue(Role::Operator, None), revoke()], revoke(), "-"),
    ]);
    let given = given([issue(Role::Operator, None), revoke()]);
    assert!(given.0.tokens.valid(&Digest([1; 32])).is_none());
}

#[test]
fn cursors_come_to_rest() {
    let commit = |cursor: &str, position, steps| Command::CommitCursor {
        name: id("c"),
        cursor: cursor.into(),
        position: Sequence(position),
        steps,
    };
    let there = || vec![commit("x", 5, true)];
    check(vec![
        (vec![], commit("x", 5, false), "cursor_committed"),
        (there(), commit("x", 5, true), "-"),
        (there(), commit("y", 6, true), "cursor_committed"),
        (there(), commit("y", 6, false), "-"),
        // Back is a decision of its own.
        (there(), commit("w", 4, false), "cursor_committed"),
    ]);
}

#[test]
fn late_reports_of_an_ended_worker() {
    let ended = |outcomes: Vec<Outcome>| [with(outcomes), vec![stop()]].concat();
    let spoke = || vec![connected(), delta("hi")];
    check(vec![
        // It happened all the same.
        (ended(spoke()), report([delta("late")]), "worker_output"),
        (ended(spoke()), report([Outcome::TextDone { turn: 1 }]), "worker_output"),
        (ended(spoke()), report([turn_ended()]), "worker_turn_ended"),
        (ended(spoke()), report([exited(143)]), "worker_exited"),
        // Once, and only where there is something that can be gone.
        (ended(spoke()), report([interrupted(true)]), "worker_process_ended"),
        (
            ended(spoke()),
            report([interrupted(false), interrupted(false)]),
            "worker_process_ended -",
        ),
        (ended(Vec::new()), report([interrupted(true)]), "-"),
        // It has no meaning any more.
        (ended(spoke()), report([failed()]), "-"),
        (ended(spoke()), report([input_failed(9)]), "-"),
        // It must not begin.
        (ended(spoke()), report([connected()]), "refused invalid_request"),
        (ended(spoke()), report([dispatching(9, 2)]), "refused invalid_request"),
        (
            ended(spoke()),
            report([Outcome::Started { turn: 2, process: process() }]),
            "refused invalid_request",
        ),
    ]);
    let given = given([ended(spoke()), vec![report([delta("late"), exited(0)])]].concat());
    assert_eq!(given.worker(0).run_state(), RunState::Stopped);
}

#[test]
fn text_is_done_once_and_refers_to_its_deltas() {
    let done = || Outcome::TextDone { turn: 1 };
    check(vec![
        (with([connected()]), report([done()]), "-"),
        (with([connected(), delta("a")]), report([done(), done()]), "worker_output -"),
    ]);
    let given = given(with([connected(), delta("one"), delta("four"), done(), delta("five5")]));
    let [Event::WorkerOutput(output)] = &events(&given, report([done()]))[..] else { panic!() };
    let span = output.text.unwrap();
    assert_eq!((span.first, span.bytes, span.item), (Sequence(7), 5, 2));
    assert_eq!(given.worker(0).items, 1);
}

/// Inputs 3, 4 and 5 were accepted.
fn three_inputs() -> Vec<Command> {
    vec![runtime(), make_echo(), input(), input(), input(), report([connected()])]
}

#[test]
fn inputs_that_fail_are_counted_once() {
    let check = |outcomes: &[Outcome], pending: u64, settled: u64| {
        let given = given([three_inputs(), vec![report(outcomes)]].concat());
        let state = given.worker(0);
        assert_eq!((state.pending, state.settled.0), (pending, settled), "{outcomes:?}");
        assert_eq!(state.items, 3, "the items stay");
    };
    let all = || Outcome::AllInputsFailed { message: "gone".into() };
    check(&[], 3, 2);
    check(&[dispatching(3, 1)], 2, 3);
    check(&[input_failed(3)], 2, 3);
    check(&[dispatching(3, 1), input_failed(3)], 2, 3);
    check(&[input_failed(3), input_failed(3)], 2, 3);
    check(&[dispatching(3, 1), turn_ended(), dispatching(4, 2), input_failed(5)], 0, 5);
    check(&[dispatching(3, 1), all()], 0, 7);
    check(&[all(), all()], 0, 6);
    check(&[all(), input_failed(5)], 0, 6);
}

#[test]
fn an_interrupted_input_is_given_again_if_it_may_be() {
    let events_of = |again| {
        let given = given([three_inputs(), vec![report([dispatching(3, 1)])]].concat());
        events(&given, report([interrupted(again), interrupted(again)]))
    };
    for again in [true, false] {
        let [Event::WorkerInterrupted(first), Event::WorkerInterrupted(second)] =
            &events_of(again)[..]
        else {
            panic!()
        };
        assert_eq!((first.turn, first.input, first.again), (Some(1), Some(Sequence(3)), again));
        assert_eq!((second.turn, second.input, second.again), (None, None, false));
        let given =
            given([three_inputs(), vec![report([dispatching(3, 1), interrupted(again)])]].concat());
        let state = given.worker(0);
        assert_eq!((state.pending, state.settled.0), if again { (3, 2) } else { (2, 3) });
        assert_eq!((state.child, state.open_turn), (Child::Lost, None));
        assert_eq!(state.process, None);
    }
}

#[test]
fn what_a_worker_is_doing() {
    let check = |commands: Vec<Command>, run_state: RunState| {
        let given = given(commands);
        let execution = given.worker(0).execution();
        assert_eq!(execution.run_state, run_state, "{execution:?}");
        let unconnected = run_state == RunState::Unconnected;
        assert_eq!(execution.backend == Backend::Unconnected, unconnected);
    };
    let and = |outcomes: &[Outcome], more: Command| [with(outcomes), vec![more]].concat();
    let nobody = make(None, ProfileSelector::RuntimeDefault, None);
    check(vec![runtime(), nobody], RunState::Unconnected);
    check(vec![runtime(), make_echo()], RunState::Busy);
    check(with([connected()]), RunState::Idle);
    check(with([failed()]), RunState::Errored);
    check(and(&[connected()], input()), RunState::Busy);
    check(
        [and(&[connected()], input()), vec![report([dispatching(4, 1)])]].concat(),
        RunState::Busy,
    );
    check(
        [and(&[connected()], input()), vec![report([dispatching(4, 1), turn_ended()])]].concat(),
        RunState::Idle,
    );
    check(with([connected(), delta("by itself")]), RunState::Busy);
    check(with([connected(), exited(0)]), RunState::Stopped);
    check(with([connected(), exited(1)]), RunState::Errored);
    check(with([connected(), interrupted(false)]), RunState::Idle);
    check(and(&[connected()], stop()), RunState::Stopped);
    check(and(&[connected(), exited(1)], cancel()), RunState::Stopped);
}

#[test]
fn incarnations_and_revisions_count() {
    let given = given(with([connected(), interrupted(false), connected()]));
    let state = given.worker(0);
    assert_eq!((state.incarnation, state.version, state.revision), (2, Version(4), Revision(4)));
    let [Event::WorkerInputAccepted(accepted)] = &events(&given, input())[..] else { panic!() };
    assert_eq!((accepted.item, accepted.revision), (1, Revision(5)));
}
