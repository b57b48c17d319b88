//! What dispatch would do if it began now, without doing anything.

use super::{address, is_left_over, is_over, wants_actor};
use crate::{
    log::{Log, ReadFault},
    manifest::Manifest,
};
use acta_events::{Event, RuntimeId, Sequence, WorkerRef};
use acta_projections::{Child, EXTERNAL_RUNTIME, WorkerState, WorkerStatus};
use serde::Serialize;
use std::sync::Arc;

/// How many workers are told of at most.
const INTENTS_MAX: usize = 1_000;
/// How many records of one worker are told of at most.
const RECORDS_MAX: usize = 64;

/// What would be done for one worker.
#[derive(Clone, Debug, Serialize)]
pub struct Intent {
    /// The worker.
    #[serde(flatten)]
    pub worker: WorkerRef,
    /// `settle`, `start`, `give_input`, `give_again`, or `deliver`.
    pub action: &'static str,
    /// The inputs or messages, the first of them.
    pub records: Vec<Sequence>,
    /// How many there are.
    pub count: u64,
    /// Where messages would be posted to: the origin only, since a URL may have a secret part. None of an agent
    /// that comes for them itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What would be done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Preview {
    /// The first of it, by worker.
    pub intents: Vec<Intent>,
    /// How many further workers are not told of.
    pub more: u64,
}

/// Looks at all workers that dispatch and deliveries are for. Blocking.
pub fn preview(log: &Log, runtime: &RuntimeId, manifest: &Manifest) -> Result<Preview, ReadFault> {
    let states: Vec<Arc<WorkerState>> = {
        let views = log.views().read();
        let external = RuntimeId::parse(EXTERNAL_RUNTIME).ok();
        let of = |runtime: &RuntimeId| views.workers.of(runtime, None).cloned().collect::<Vec<_>>();
        let mut states = of(runtime);
        states.extend(external.iter().flat_map(of));
        states
    };
    let mut preview = Preview::default();
    for state in states {
        let intents = match state.runtime == *runtime {
            true => of_child(log, &state, manifest)?,
            false => of_agent(&state).into_iter().collect(),
        };
        for intent in intents {
            if preview.intents.len() < INTENTS_MAX {
                preview.intents.push(intent);
            } else {
                preview.more += 1;
            }
        }
    }
    Ok(preview)
}

fn intent(state: &WorkerState, action: &'static str, records: Vec<Sequence>, count: u64) -> Intent {
    Intent { worker: address(state), action, records, count, to: None }
}

fn of_child(log: &Log, state: &WorkerState, manifest: &Manifest) -> Result<Vec<Intent>, ReadFault> {
    let Some(template) = &state.spec.template else { return Ok(Vec::new()) };
    let mut intents = Vec::new();
    let running = state.status == WorkerStatus::Running;
    let over = is_over(state.child);
    if is_left_over(state) {
        intents.push(intent(state, "settle", Vec::new(), 0));
        let again = manifest.exec_of(template).is_some_and(|exec| exec.rerun_interrupted);
        let input = state.open_turn.and_then(|turn| turn.input);
        if let Some(input) = input.filter(|_| running && again && !over) {
            intents.push(intent(state, "give_again", vec![input], 1));
        }
    }
    if wants_actor(state) && state.child == Child::Starting {
        intents.push(intent(state, "start", Vec::new(), 0));
    }
    if wants_actor(state) && state.pending > 0 {
        let inputs = inputs(log, state)?;
        intents.push(intent(state, "give_input", inputs, state.pending));
    }
    Ok(intents)
}

/// The accepted inputs that the worker was not given yet, the first of them.
fn inputs(log: &Log, state: &WorkerState) -> Result<Vec<Sequence>, ReadFault> {
    let (mut found, mut after) = (Vec::new(), state.settled);
    while found.len() < RECORDS_MAX {
        let postings = log.index().after(state.ordinal, after, log.head(), 256)?;
        let Some(last) = postings.last() else { break };
        after = last.seq;
        let records = log.records_of(&postings)?;
        let records = records.iter().map(|logged| &logged.record);
        let inputs = records.filter(|it| matches!(it.header.event, Event::WorkerInputAccepted(_)));
        found.extend(inputs.map(|record| record.seq()));
    }
    found.truncate(RECORDS_MAX);
    Ok(found)
}

/// The messages that would be posted to an agent, or given to it when it asks.
fn of_agent(state: &WorkerState) -> Option<Intent> {
    let agent = state.external.as_ref().filter(|_| state.status == WorkerStatus::Running)?;
    let records: Vec<_> = agent.waiting.iter().take(RECORDS_MAX).copied().collect();
    let count = agent.waiting.len() as u64;
    let url = agent.delivery.url.as_ref().and_then(|url| reqwest::Url::parse(url).ok());
    let to = url.map(|url| url.origin().ascii_serialization());
    (count > 0).then(|| Intent { to, ..intent(state, "deliver", records, count) })
}
