//! Dispatch as it is, with its actors, on a clock that only goes on when everybody waits. Its commands wait
//! here until a step of the run takes them to be decided.

use super::{
    super::history::{id, text},
    machine::Machine,
};
use crate::{
    command::{Answer, Command, Outcome},
    dispatch::{Dispatch as Real, Kills, Surroundings},
    engine::{EngineHandle, Message, QueueLimits, Reply, core::Submission, outcome_unknown},
    error::{Code, Rejection},
    log::Log,
    manifest::Manifest,
};
use acta_events::{ContentBody, Event, Header, Record, RuntimeId, Sequence, WorkerRef};
use acta_projections::{WorkerState, WorkerStatus};
use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::Duration,
};

/// Its workers are in a runtime of their own.
pub(super) const RUNTIME: &str = "dispatched";

const MANIFEST: &str =
    r#"{"workspace_templates": [{"name": "echo", "exec": {"argv": ["echo"], "mode": "session"}}]}"#;

pub(super) fn worker(n: u8) -> WorkerRef {
    WorkerRef { runtime_id: id(RUNTIME), worker_id: id(&format!("d{n}")) }
}

pub(super) fn create(n: u8) -> Command {
    let created = Box::new(super::super::history::created(Some("echo")));
    Command::CreateWorker { worker: worker(n), created, texts: None }
}

pub(super) fn input(n: u8, words: usize) -> Command {
    let content = text(&"word ".repeat(words + 1));
    Command::Input { worker: worker(n), kind: acta_events::InputKind::User, content }
}

pub(super) fn stop(n: u8) -> Command {
    Command::Stop { worker: worker(n), reason: None }
}

/// One life of dispatch.
pub(super) struct Dispatch {
    task: tokio::task::JoinHandle<()>,
    _shutdown: tokio::sync::mpsc::Sender<()>,
    messages: mpsc::Receiver<Message>,
    /// Who waits for what became of which command.
    replies: BTreeMap<usize, Reply>,
}

fn states(log: &Log) -> Vec<Arc<WorkerState>> {
    log.views().read().workers.of(&id::<RuntimeId>(RUNTIME), None).cloned().collect()
}

impl Dispatch {
    /// The service starts.
    pub(super) fn start(log: &Arc<Log>, machine: &Machine) -> Self {
        let (engine, messages) = EngineHandle::new(Arc::clone(log), QueueLimits::default());
        let manifest = Manifest::parse(MANIFEST).expect("a manifest");
        let around = Surroundings {
            backend: machine.clone(),
            log: Arc::clone(log),
            engine,
            manifest: Arc::new(RwLock::new(Arc::new(manifest))),
            runtime: id(RUNTIME),
            work_dir: "nowhere".into(),
            kills: Kills::default(),
            stop_grace: Duration::from_millis(100),
        };
        let (shutdown, stopped) = tokio::sync::mpsc::channel(1);
        let task = tokio::spawn(Real::new(around).run(stopped));
        Self { task, _shutdown: shutdown, messages, replies: BTreeMap::new() }
    }

    /// The service is killed, with all that it was about to do.
    pub(super) async fn kill(&mut self, machine: &Machine) {
        machine.killing(true);
        self.task.abort();
        let ended = (&mut self.task).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "dispatch has ended by itself");
        // Its actors end with it, at the next occasion.
        super::quiet().await;
        machine.killing(false);
    }

    /// What was given meanwhile. Everybody waits for one answer at most, and who came first is a matter of
    /// threads, so that they are put in order.
    pub(super) fn commands(&self) -> Vec<Submission<Reply>> {
        let mut given: Vec<_> = self
            .messages
            .try_iter()
            .filter_map(|message| match message {
                Message::Submit(submission) => Some(*submission),
                Message::Close => None,
            })
            .collect();
        for submission in &mut given {
            salt_anew(&mut submission.request.command);
        }
        given.sort_by_key(|submission| format!("{:?}", submission.request.command));
        given
    }

    pub(super) fn waits(&mut self, n: usize, reply: Reply) {
        self.replies.insert(n, reply);
    }

    pub(super) fn answered(&mut self, n: usize, answer: &Answer) {
        if let Some(reply) = self.replies.remove(&n) {
            reply.send(answer.clone());
        }
    }

    /// The outcome is unknown, or nothing was written.
    pub(super) fn lost(&mut self, n: usize, certainly: bool) {
        let refused = || Rejection::new(Code::StoreIo, "the disk is full");
        let answer = Err(if certainly { refused() } else { outcome_unknown() });
        self.answered(n, &answer);
    }

    /// Who still has something to do; none if nobody was forgotten.
    pub(super) fn at_work(&self, log: &Log) -> Option<String> {
        assert!(!self.task.is_finished(), "dispatch has ended by itself");
        let is_idle = |state: &WorkerState| {
            let runs = state.status == WorkerStatus::Running;
            let is_left = if runs { state.pending > 0 } else { state.process.is_some() };
            state.open_turn.is_none() && !is_left
        };
        let busy = states(log).into_iter().find(|state| !is_idle(state));
        let waiting = self.replies.len();
        (waiting > 0 || busy.is_some()).then(|| format!("{waiting} wait; {busy:?}"))
    }
}

/// The salts of contents come from the system; here they follow from what is salted.
fn salt_anew(command: &mut Command) {
    let Command::Report { outcomes, .. } = command else { return };
    for outcome in outcomes {
        if let Outcome::Output { content, .. } = outcome
            && let ContentBody::Inline { bytes, .. } = &content.body
        {
            *content = text(std::str::from_utf8(bytes).expect("it is text"));
        }
    }
}

/// The inputs of each worker that the log says were dispatched, in order.
pub(super) fn dispatched(records: &[Arc<Record>]) -> BTreeMap<String, Vec<Sequence>> {
    let mut dispatched: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for header in records.iter().map(|record| &record.header).filter(|header| is_ours(header)) {
        if let (Event::WorkerInputDispatched(given), Some(worker)) = (&header.event, &header.worker)
        {
            dispatched.entry(worker.to_string()).or_default().push(given.input);
        }
    }
    dispatched
}

fn is_ours(header: &Header) -> bool {
    header.runtime.as_ref().is_some_and(|runtime| runtime.as_str() == RUNTIME)
}

/// An input is dispatched once, after it was accepted, and in order; between a fork and the word
/// of an operator nothing is done; and no child was given what the log does not say.
pub(super) fn check(records: &[Arc<Record>], machine: &Machine) {
    let mut is_paused = false;
    let mut accepted: BTreeMap<String, Vec<Sequence>> = BTreeMap::new();
    for record in records {
        match &record.header.event {
            Event::LogForked(_) => is_paused = true,
            Event::DispatchResumed(_) => is_paused = false,
            Event::WorkerInputDispatched(_) if is_ours(&record.header) => {
                assert!(!is_paused, "{} is done while dispatch is paused", record.seq());
            }
            Event::WorkerInputAccepted(_) if is_ours(&record.header) => {
                let worker = record.header.worker.as_ref().expect("a worker").to_string();
                accepted.entry(worker).or_default().push(record.seq());
            }
            _ => {}
        }
    }
    let dispatched = dispatched(records);
    for (worker, dispatched) in &dispatched {
        assert!(accepted[worker].starts_with(dispatched), "{worker}: {dispatched:?}");
    }
    for (worker, given) in machine.given() {
        let known = dispatched.get(&worker).map_or(&[][..], Vec::as_slice);
        let unknown = given.iter().find(|input| !known.contains(input));
        assert_eq!(unknown, None, "{worker} was given it, and the log does not know");
    }
}
