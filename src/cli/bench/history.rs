//! The records of a generated log: many workers at once, each in its turns.

use super::prose::Prose;
use crate::journal::EncodedBlock;
use acta_events::{
    Actor, Content, Digest, Epoch, Event, Header, IdempotencyKey, InputKind, IntentKind, MediaType,
    OutputKind, ProfileSelector, Record, Revision, RuntimeId, Sequence, ServiceStarted, TextSpan,
    Timestamp, TurnResult, Version, WorkerConnected, WorkerCreated, WorkerId, WorkerInputAccepted,
    WorkerInputDispatched, WorkerOutput, WorkerStopped, WorkerTurnEnded,
    block::{Block, BlockBuilder},
    record::CommandRef,
};
use anyhow::{Context as _, Result};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use std::{collections::VecDeque, sync::Arc};

/// The time of the first record.
pub(super) const BEGIN_US: i64 = 1_767_225_600_000_000;
/// Records of a worker before it is stopped, about.
const WORKER_RECORDS: u64 = 2_000;
const BLOCK_RECORDS: u64 = 24;

/// Something that a worker does next.
enum Step {
    Connected,
    Input,
    Dispatched,
    Delta,
    Payload(OutputKind),
    TextDone,
    TurnEnded,
    Stopped,
}

struct Worker {
    id: WorkerId,
    version: u64,
    revision: u64,
    turn: u64,
    items: u64,
    input: Sequence,
    text: Option<TextSpan>,
    records: u64,
    steps: VecDeque<Step>,
}

pub(super) struct History {
    random: StdRng,
    prose: Prose,
    runtime: RuntimeId,
    seq: u64,
    time_us: i64,
    previous: Digest,
    workers: Vec<Worker>,
    at_once: usize,
    made: u64,
    content_bytes: u64,
}

impl History {
    pub(super) fn new(genesis: Digest, seed: u64, workers: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        Self {
            prose: Prose::new(&mut random),
            random,
            runtime: RuntimeId::parse("embedded-worker-runtime").expect("it is an identifier"),
            seq: 0,
            time_us: BEGIN_US,
            previous: genesis,
            workers: Vec::new(),
            at_once: workers,
            made: 0,
            content_bytes: 0,
        }
    }

    pub(super) fn written(&self) -> u64 {
        self.seq
    }

    pub(super) fn workers(&self) -> u64 {
        self.made
    }

    pub(super) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// The next block, which ends at `until` at the latest.
    pub(super) fn block(&mut self, until: u64) -> Result<(Block, EncodedBlock)> {
        let mut builder = BlockBuilder::new(Epoch(1), self.previous);
        let wanted = self.random.random_range(1..=BLOCK_RECORDS * 2);
        let mut records = 0;
        while records < wanted && self.seq < until {
            let record = self.record()?;
            records += 1;
            let full = !builder.fits(40_000);
            builder.push(Arc::new(record));
            if full {
                break;
            }
        }
        let (block, bytes) = builder.finish().context("a block has records")?;
        self.previous = block.digest;
        let encoded = EncodedBlock::new(&block, bytes);
        Ok((block, encoded))
    }

    fn record(&mut self) -> Result<Record> {
        if self.seq == 0 {
            let event = ServiceStarted { acta: env!("CARGO_PKG_VERSION").into() };
            return self.finish(false, Actor::service(), event.into(), None);
        }
        if self.workers.len() < self.at_once {
            return self.create();
        }
        // A worker that says something mostly goes on for a while.
        let last = self.workers.len() - 1;
        if self.random.random_ratio(1, 4) {
            let chosen = self.random.random_range(0..=last);
            self.workers.swap(chosen, last);
        }
        self.step()
    }

    fn create(&mut self) -> Result<Record> {
        self.made += 1;
        let id = format!("w-{:012x}{:08x}", self.time_us / 1_000, self.random.random::<u32>());
        let id = WorkerId::parse(&id)?;
        self.workers.push(Worker {
            id,
            version: 0,
            revision: 1,
            turn: 0,
            items: 0,
            input: Sequence::ZERO,
            text: None,
            records: WORKER_RECORDS / 2 + self.random.random_range(0..WORKER_RECORDS),
            steps: VecDeque::from([Step::Connected]),
        });
        let event = WorkerCreated {
            intent: IntentKind::Task,
            profile: ProfileSelector::RuntimeDefault,
            template: Some("codex".into()),
            host: None,
            config_bundle: None,
            requested_capabilities: vec!["workspace.read".into(), "workspace.write".into()],
            workspace_refs: Vec::new(),
            mount_refs: Vec::new(),
        };
        let objective = self.prose.sentences(&mut self.random, 120);
        let texts = json!({"objective": objective}).to_string();
        let actor = Actor::operator();
        self.finish(true, actor, event.into(), Some((MediaType::Json, texts)))
    }

    /// What the last of the workers does next.
    fn step(&mut self) -> Result<Record> {
        let seq = Sequence(self.seq + 1);
        let worker = self.workers.last_mut().context("there are workers")?;
        let step = match worker.steps.pop_front() {
            Some(step) => step,
            None => {
                plan(worker, &mut self.random);
                worker.steps.pop_front().context("a turn has steps")?
            }
        };
        let (turn, text) = (worker.turn, MediaType::Text);
        let output = |event, text| Event::from(WorkerOutput { event, turn, text });
        let (random, prose) = (&mut self.random, &self.prose);
        let (event, content): (Event, _) = match step {
            Step::Connected => {
                let backend = "process".into();
                (WorkerConnected { backend, incarnation: 1, process: None }.into(), None)
            }
            Step::Input => {
                (worker.items, worker.revision) = (worker.items + 1, worker.revision + 1);
                worker.input = seq;
                let (item, revision) = (worker.items, Revision(worker.revision));
                let bytes = random.random_range(20..600);
                let said = prose.sentences(random, bytes);
                let kind = InputKind::User;
                (WorkerInputAccepted { kind, item, revision }.into(), Some((text, said)))
            }
            Step::Dispatched => (WorkerInputDispatched { input: worker.input, turn }.into(), None),
            Step::Delta => {
                let bytes = random.random_range(10..400);
                let said = prose.sentences(random, bytes);
                let first = worker.text.map_or(seq, |span| span.first);
                let before = worker.text.map_or(0, |span| span.bytes);
                let bytes = before + said.len() as u64;
                worker.text = Some(TextSpan { first, bytes, item: worker.items + 1 });
                (output(OutputKind::TextDelta, None), Some((text, said)))
            }
            Step::Payload(kind) => {
                let data = payload(kind, random, prose);
                (output(kind, None), Some((MediaType::Json, data)))
            }
            Step::TextDone => {
                worker.items += 1;
                (output(OutputKind::TextDone, worker.text.take()), None)
            }
            Step::TurnEnded => {
                let result = TurnResult::Finished;
                (WorkerTurnEnded { turn, result, exit: None }.into(), None)
            }
            Step::Stopped => {
                worker.revision += 1;
                (WorkerStopped { revision: Revision(worker.revision) }.into(), None)
            }
        };
        let commanded = matches!(step, Step::Input | Step::Stopped);
        let actor = if commanded { Actor::operator() } else { Actor::service() };
        let record = self.finish(true, actor, event, content)?;
        if matches!(step, Step::Stopped) {
            self.workers.pop();
        }
        Ok(record)
    }

    /// A record of the last of the workers, or of none.
    fn finish(
        &mut self,
        of_worker: bool,
        actor: Actor,
        event: Event,
        content: Option<(MediaType, String)>,
    ) -> Result<Record> {
        self.seq += 1;
        self.time_us += self.random.random_range(20..40_000);
        let millis = u64::try_from(self.time_us / 1_000).unwrap_or_default();
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &self.random.random());
        let worker = self.workers.last_mut().filter(|_| of_worker);
        let version = worker.map(|worker| {
            worker.version += 1;
            worker.records = worker.records.saturating_sub(1);
            (worker.id.clone(), Version(worker.version))
        });
        let commanded = actor != Actor::service();
        let command = commanded.then(|| -> Result<CommandRef> {
            let key = IdempotencyKey::parse(&format!("{:032x}", self.random.random::<u128>()))?;
            Ok(CommandRef { key, fingerprint: Digest(self.random.random()) })
        });
        let header = Header {
            seq: Sequence(self.seq),
            id: id.into_uuid(),
            time: Timestamp(self.time_us),
            runtime: version.as_ref().map(|_| self.runtime.clone()),
            worker: version.as_ref().map(|(id, _)| id.clone()),
            version: version.map(|(_, version)| version),
            actor,
            command: command.transpose()?,
            trace: None,
            event,
        };
        let content = content.map(|(media_type, text)| {
            self.content_bytes += text.len() as u64;
            Content::new(self.random.random(), media_type, text.into_bytes().into()).to_stored()
        });
        Ok(Record::new(header, content)?)
    }
}

/// The steps of the worker's next turn, or its end.
fn plan(worker: &mut Worker, random: &mut StdRng) {
    if worker.records == 0 {
        worker.steps.push_back(Step::Stopped);
        return;
    }
    worker.turn += 1;
    worker.steps.extend([Step::Input, Step::Dispatched]);
    for _ in 0..random.random_range(1..6) {
        worker.steps.extend((0..random.random_range(1..12)).map(|_| Step::Delta));
        worker.steps.push_back(Step::TextDone);
        if random.random_bool(0.7) {
            let call =
                [OutputKind::ToolCallStart, OutputKind::ToolCallDone, OutputKind::ToolResult];
            worker.steps.extend(call.map(Step::Payload));
        }
    }
    worker.steps.extend([Step::Payload(OutputKind::Usage), Step::TurnEnded]);
}

/// The data of an output payload.
fn payload(kind: OutputKind, random: &mut StdRng, prose: &Prose) -> String {
    let id = format!("call_{:016x}", random.random::<u64>());
    let data = match kind {
        OutputKind::ToolCallStart => json!({"id": id, "name": "shell"}),
        OutputKind::ToolCallDone => {
            let command = format!("cargo test {} -- {}", prose.path(random), prose.word(random));
            json!({"id": id, "name": "shell", "arguments": {"command": command}})
        }
        OutputKind::ToolResult => {
            let bytes = random.random_range(100..4_000);
            json!({"id": id, "status": "success", "summary": "exit 0", "content": prose.lines(random, bytes)})
        }
        _ => json!({
            "input_tokens": random.random_range(500..90_000),
            "output_tokens": random.random_range(20..4_000),
        }),
    };
    data.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use acta_projections::Projections;

    /// What is made follows, is understood, and is the same for the same seed.
    #[test]
    fn a_seed_gives_one_history() {
        let make = |seed| {
            let mut history = History::new(Digest::ZERO, seed, 3);
            let mut blocks = Vec::new();
            while history.written() < 9_000 {
                blocks.push(history.block(9_000).unwrap().0);
            }
            (blocks, history.workers())
        };
        let (blocks, workers) = make(7);
        let mut projections = Projections::default();
        for record in blocks.iter().flat_map(|block| &block.records) {
            projections.apply(record).unwrap();
        }
        assert_eq!(projections.position(), Sequence(9_000));
        assert!(workers > 3, "{workers} workers: some were stopped");
        let digests =
            |blocks: &[Block]| blocks.iter().map(|block| block.digest).collect::<Vec<_>>();
        assert_eq!(digests(&blocks), digests(&make(7).0));
        assert_ne!(digests(&blocks), digests(&make(8).0));
    }
}
