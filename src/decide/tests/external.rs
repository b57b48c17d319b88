//! Agents that connect in: what is refused, what is no news, and what happens.

use super::{Given, check, events, given, input, make_echo, runtime};
use crate::{
    command::{AgentHealth, Command, ExternalChange, NewExternal, RedactionTarget},
    engine::tests::history::{created, id, register, text, worker},
};
use acta_events::{
    ActivityKind, DegradedReason, Delivery, DeliveryMode, Digest, Event, Header, Inbox, InputKind,
    MessageReceived, Record, Role, Sequence, TokenIssued, Version, WorkerRef,
};
use acta_projections::{Presence, WAITING_MAX};
use std::sync::Arc;

fn agent(n: u8) -> WorkerRef {
    WorkerRef { runtime_id: id("external"), worker_id: id(&format!("x{n}")) }
}

fn new(n: u8, url: Option<&str>, token: bool) -> Command {
    let token = token.then(|| TokenIssued {
        token: id(&format!("t-{n}")),
        digest: Digest([n; 32]),
        role: Role::Worker,
        label: None,
        worker: Some(agent(n)),
        host: None,
    });
    let url = url.map(Into::into);
    let new = NewExternal { created: created(None), label: Some("one".into()), url, token };
    Command::CreateExternal { worker: agent(n), new: Box::new(new) }
}

fn change(n: u8, change: ExternalChange) -> Command {
    Command::External { worker: agent(n), change: Box::new(change) }
}

fn registers(n: u8) -> Command {
    let delivery = Delivery { mode: DeliveryMode::Poll, url: None };
    change(n, ExternalChange::Register { delivery, card: None })
}

fn beats(health: AgentHealth) -> Command {
    change(0, ExternalChange::Beat { health, sample: None })
}

fn is_asked(n: u8, by: Option<u8>) -> Command {
    let (source, method) = (by.map(agent), "message/send".into());
    change(n, ExternalChange::Message { source, method, content: text("what?") })
}

fn answers(message: u64, asker: Option<u8>) -> Command {
    let (message, asker, answer) = (Sequence(message), asker.map(agent), text("that"));
    let reply = asker.is_some().then(|| text("that"));
    change(0, ExternalChange::Answer { message, asker, answer, reply })
}

fn notifies(message: Option<u64>) -> Command {
    let message = message.map(Sequence);
    change(0, ExternalChange::Notify { message, content: text("look") })
}

fn reports() -> Command {
    let activity = ActivityKind::TaskUpdate;
    change(0, ExternalChange::Report { activity, message: None, content: text("at it") })
}

fn reads(inbox: Inbox, through: u64) -> Command {
    change(0, ExternalChange::Read { inbox, through: Sequence(through) })
}

fn delivered(message: u64) -> Command {
    let message = Sequence(message);
    change(0, ExternalChange::Delivered { message, attempts: 1, answer: None })
}

fn fails(message: u64) -> Command {
    let (message, reason) = (Sequence(message), "it answered 503".into());
    change(0, ExternalChange::DeliveryFailed { message, attempts: 8, reason })
}

fn retried(message: u64) -> Command {
    change(0, ExternalChange::RetryDelivery { message: Sequence(message) })
}

fn removed() -> Command {
    Command::Stop { worker: agent(0), reason: None }
}

/// The runtime and a worker that waits for its agent: three records.
fn awaited() -> Vec<Command> {
    vec![register("external"), new(0, None, false)]
}

/// With its agent, and then more; what comes first is record 5.
fn online(more: impl IntoIterator<Item = Command>) -> Vec<Command> {
    [awaited(), vec![registers(0)], more.into_iter().collect()].concat()
}

/// Whatever an agent, or somebody about it, can ask for.
fn everything() -> Vec<Command> {
    vec![
        registers(0),
        beats(AgentHealth::Good),
        is_asked(0, None),
        notifies(None),
        reports(),
        retried(5),
    ]
}

/// What the service notices by itself.
fn noticed() -> Vec<Command> {
    vec![
        change(0, ExternalChange::Lost),
        change(0, ExternalChange::WentDeaf),
        change(0, ExternalChange::Listens),
        reads(Inbox::All, 5),
        delivered(5),
        fails(5),
    ]
}

#[test]
fn a_worker_for_an_agent_is_made_once_in_a_runtime_that_runs() {
    let stopped = Command::StopRuntime { runtime: id("external") };
    check(vec![
        (vec![], new(0, None, true), "refused unknown_runtime"),
        (vec![register("external"), stopped], new(0, None, true), "refused runtime_stopped"),
        (awaited(), new(0, None, false), "refused invalid_request"),
        (
            vec![register("external")],
            new(0, None, true),
            "worker_created+agent_awaited+token_issued",
        ),
        (
            vec![register("external")],
            new(0, Some("http://a.example/"), false),
            "worker_created+agent_awaited+agent_registered",
        ),
    ]);
}

#[test]
fn nothing_is_said_to_or_by_a_worker_that_is_not_there_or_has_no_agent() {
    let mut rows = Vec::new();
    for asked in everything().into_iter().chain(noticed()).chain([answers(5, None)]) {
        rows.push((vec![register("external")], asked.clone(), "refused worker_not_found"));
        let Command::External { change, .. } = asked else { panic!() };
        let of_another = Command::External { worker: worker(0), change };
        rows.push((vec![runtime(), make_echo()], of_another, "refused invalid_request"));
    }
    check(rows);
}

#[test]
fn to_a_removed_worker_nothing_happens_but_an_answer_that_was_under_way() {
    let gone = || online([is_asked(0, Some(1)), removed()]);
    let mut rows = Vec::new();
    for asked in everything() {
        rows.push((gone(), asked, "refused worker_execution_rejected"));
    }
    for late in noticed() {
        rows.push((gone(), late, "-"));
    }
    rows.push((gone(), answers(5, None), "message_answered"));
    rows.push((gone(), removed(), "-"));
    check(rows);
}

#[test]
fn what_ends_a_worker_revokes_its_token() {
    let made = vec![register("external"), new(0, None, true)];
    let cancelled = Command::Cancel { worker: agent(0), reason: None };
    check(vec![
        (made.clone(), removed(), "worker_stopped+token_revoked"),
        (made, cancelled, "worker_cancelled+token_revoked"),
    ]);
}

#[test]
fn presence_is_an_event_only_where_it_changes() {
    let (stuck, errors) = (DegradedReason::Wedged, DegradedReason::ErrorRate);
    let bad = |reason| beats(AgentHealth::Bad(reason));
    let lost = || change(0, ExternalChange::Lost);
    let deaf = || change(0, ExternalChange::WentDeaf);
    let listens = || change(0, ExternalChange::Listens);
    let (good, fair) = (|| beats(AgentHealth::Good), || beats(AgentHealth::Fair));
    let entered = || vec![register("external"), new(0, Some("http://a.example/"), false)];
    check(vec![
        (awaited(), good(), "worker_online"),
        (awaited(), fair(), "worker_online"),
        (awaited(), bad(stuck), "worker_degraded"),
        (awaited(), lost(), "-"),
        (awaited(), deaf(), "-"),
        (online([]), good(), "-"),
        (online([]), fair(), "-"),
        (online([]), lost(), "worker_offline"),
        (online([]), deaf(), "worker_degraded"),
        (online([]), listens(), "-"),
        (online([bad(stuck)]), bad(stuck), "-"),
        (online([bad(stuck)]), bad(errors), "worker_degraded"),
        (online([bad(stuck)]), fair(), "-"),
        (online([bad(stuck)]), good(), "worker_recovered"),
        (online([bad(stuck)]), lost(), "worker_offline"),
        // It is of limited use already, and for a reason that it said itself.
        (online([bad(stuck)]), deaf(), "-"),
        (online([deaf()]), good(), "-"),
        (online([deaf()]), listens(), "worker_recovered"),
        (online([deaf()]), registers(0), "agent_registered"),
        // With a URL it was entered as online, and has no lease until it beats.
        (entered(), good(), "worker_online"),
        ([entered(), vec![good()]].concat(), good(), "-"),
    ]);
    let recovered = given(online([deaf(), registers(0)]));
    let state = recovered.0.workers.get(&id("external"), &id("x0")).unwrap();
    assert_eq!(state.external.as_ref().unwrap().presence, Presence::Online);
}

#[test]
fn a_message_is_answered_once() {
    let pair =
        |more: Vec<Command>| online([vec![new(1, None, false), registers(1)], more].concat());
    // Three records more than with one alone.
    let asked = || pair(vec![is_asked(0, Some(1))]);
    check(vec![
        (asked(), answers(8, Some(1)), "message_answered+reply_received"),
        ([asked(), vec![answers(8, Some(1))]].concat(), answers(8, Some(1)), "-"),
        // Whoever asked is gone: that it was answered is still a fact.
        (
            [asked(), vec![Command::Stop { worker: agent(1), reason: None }]].concat(),
            answers(8, Some(1)),
            "message_answered",
        ),
        (online([is_asked(0, None)]), notifies(Some(5)), "worker_notified"),
        (online([is_asked(0, None), notifies(Some(5))]), notifies(Some(5)), "-"),
        (online([is_asked(0, None), notifies(Some(5))]), answers(5, None), "-"),
        (online([is_asked(0, None), answers(5, None)]), notifies(Some(5)), "-"),
        (online([]), notifies(None), "worker_notified"),
        (online([]), reports(), "worker_reported"),
    ]);
    let itself = given(online([is_asked(0, Some(0))]));
    let both = events(&itself, answers(5, Some(0)));
    let [Event::MessageAnswered(answered), Event::ReplyReceived(reply)] = &both[..] else {
        panic!("{both:?}")
    };
    assert_eq!((answered.item, reply.item), (2, 3), "one that asks itself gets both, in order");
}

#[test]
fn a_cursor_only_moves_forward() {
    let two = || vec![is_asked(0, None), is_asked(0, None)];
    let read = |inbox, through| [two(), vec![reads(inbox, through)]].concat();
    check(vec![
        (online(two()), reads(Inbox::Messages, 5), "inbox_read"),
        (online(read(Inbox::Messages, 6)), reads(Inbox::Messages, 6), "-"),
        (online(read(Inbox::Messages, 6)), reads(Inbox::Messages, 5), "-"),
        (online(read(Inbox::Messages, 6)), reads(Inbox::Replies, 5), "inbox_read"),
        (online(read(Inbox::All, 6)), reads(Inbox::Replies, 5), "-"),
        (online(two()), reads(Inbox::All, 0), "-"),
    ]);
    let given = given(online(read(Inbox::Messages, 6)));
    let [Event::InboxRead(read)] = &events(&given, reads(Inbox::All, 6))[..] else { panic!() };
    assert_eq!(read.inbox, Inbox::Replies, "what was read already is not read again");
}

#[test]
fn a_delivery_ends_once_and_only_what_failed_is_tried_again() {
    let asked = || is_asked(0, None);
    check(vec![
        (online([asked()]), delivered(5), "message_delivered"),
        (online([asked(), delivered(5)]), delivered(5), "-"),
        (online([asked()]), fails(5), "delivery_failed"),
        (online([asked(), fails(5)]), fails(5), "-"),
        (online([asked(), delivered(5)]), fails(5), "-"),
        (online([asked(), fails(5)]), retried(5), "delivery_retried"),
        (online([asked(), fails(5), retried(5)]), retried(5), "-"),
        (online([asked()]), retried(5), "-"),
        (online([asked(), delivered(5)]), retried(5), "refused not_undelivered"),
        (online([asked()]), retried(4), "refused not_undelivered"),
        (
            online([asked(), fails(5), retried(5), delivered(5)]),
            retried(5),
            "refused not_undelivered",
        ),
    ]);
    let given = given(online([
        asked(),
        asked(),
        asked(),
        fails(5),
        fails(6),
        retried(6),
        retried(5),
        asked(),
    ]));
    assert_eq!(waiting(&given), [5, 6, 7, 12], "they wait in the order in which they came");
}

fn waiting(given: &Given) -> Vec<u64> {
    let state = given.0.workers.get(&id("external"), &id("x0")).unwrap();
    state.external.as_ref().unwrap().waiting.iter().map(|seq| seq.0).collect()
}

#[test]
fn no_more_messages_wait_than_there_is_room_for() {
    let content = text("what?");
    let mut full = given(online([]));
    for n in 0..WAITING_MAX as u64 {
        let received = MessageReceived { source: None, method: "message/send".into(), item: n + 1 };
        let header = Header {
            seq: full.0.position().next(),
            id: uuid::Uuid::nil(),
            time: super::NOW,
            version: Some(Version(4 + n)),
            runtime: Some(id("external")),
            worker: Some(id("x0")),
            actor: id("operator"),
            command: None,
            trace: None,
            event: received.into(),
        };
        full.0.apply(&Record::new(header, Some(content.clone())).unwrap()).unwrap();
    }
    let said = Command::Input { worker: agent(0), kind: InputKind::User, content: text("hello") };
    for more in [is_asked(0, None), said] {
        assert_eq!(super::shown(&full.decide(&more)), "refused overloaded");
    }
    let fails = full.decide(&fails(5)).unwrap();
    fails.into_iter().for_each(|decision| full.record(decision));
    assert_eq!(super::shown(&full.decide(&is_asked(0, None))), "message_received");
}

/// The erasure of a record of this agent, whatever it is.
fn redacts(seq: u64, content: &str) -> Command {
    let received = MessageReceived { source: None, method: "message/send".into(), item: 1 };
    let header = Header {
        seq: Sequence(seq),
        id: uuid::Uuid::nil(),
        time: super::NOW,
        version: Some(Version(4)),
        runtime: Some(id("external")),
        worker: Some(id("x0")),
        actor: id("operator"),
        command: None,
        trace: None,
        event: received.into(),
    };
    let record = Record::new(header, Some(text(content))).unwrap();
    let target = RedactionTarget::new(Arc::new(record));
    Command::Redact { target, reason: Some(text("a password")), repeats: None }
}

#[test]
fn a_message_is_not_erased_before_its_agent_has_dealt_with_it() {
    let asked = || is_asked(0, None);
    check(vec![
        (online([asked()]), redacts(5, "what?"), "refused input_pending"),
        (online([asked(), reads(Inbox::Messages, 5)]), redacts(5, "what?"), "content_redacted"),
        (online([asked(), delivered(5)]), redacts(5, "what?"), "content_redacted"),
        (online([asked(), fails(5)]), redacts(5, "what?"), "content_redacted"),
        (online([asked(), fails(5), retried(5)]), redacts(5, "what?"), "refused input_pending"),
        (online([asked(), removed()]), redacts(5, "what?"), "content_redacted"),
        // Answered, but the cursor is not behind it yet: the agent would get it once more.
        (online([asked(), answers(5, None)]), redacts(5, "what?"), "refused input_pending"),
    ]);
    // An input that somebody gave by `acta send` waits with the messages.
    let to_agent = |mut command: Command| {
        if let Command::Input { worker, .. } = &mut command {
            *worker = agent(0);
        }
        command
    };
    check(vec![(online([to_agent(input())]), redacts(5, "hello"), "refused input_pending")]);
}
