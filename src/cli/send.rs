//! `acta send`.

use super::client::{Call, Client};
use super::follower::{Filter, Follower, Frame, Start};
use super::observed::Payload;
use super::output::{Format, Output};
use super::timeline::{RecordView, exit, said};
use super::worker_address::{Found, WorkerAddress};
use super::{CommandOptions, usage};
use acta_events::{ActivityKind, Event, ExitStatus, OutputKind, Sequence, TurnResult};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::{
    io::{self, IsTerminal, Read},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// After news that makes an end of the turn unlikely, how long it is waited for all the same.
const LAST_WORDS: Duration = Duration::from_secs(2);

const HELP: &str = "\
Examples:
  acta send 0193e4 hello there
  git diff | acta send 0193e4 --wait
  acta send berlin/0193e4 hello              to a worker of another runtime
  acta send 0193e4 --wait - < question.txt
One newline at the end of standard input is not sent.";

/// Options of `acta send`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct SendArgs {
    /// The worker, or the beginning of its id; RUNTIME/ID for one of another runtime
    worker: WorkerAddress,

    /// What to send, joined by spaces; `-`, or nothing in a pipe, is standard input
    text: Vec<String>,

    /// Who it speaks for
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,

    /// Wait for the end of the turn, and print what the worker says in it
    #[arg(long)]
    wait: bool,

    /// How long to wait; the input stays accepted
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
    timeout: u64,

    #[command(flatten)]
    options: CommandOptions,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A person or another agent
    #[default]
    User,
    /// The surroundings
    System,
}

pub(super) async fn run(args: SendArgs, client: &Client, out: &mut Output) -> anyhow::Result<()> {
    let kind = match args.kind {
        Kind::User => "user",
        Kind::System => "system",
    };
    let content = content(&args.text)?;
    let worker = args.worker.find(client).await?;
    if args.wait && worker.through.is_some() && worker.is_busy() {
        bail!(
            "{} is at work, and which of its next turns is the answer to this input is known to its \
             own service only: send without --wait, then look with `acta tail` or `acta transcript`",
            worker.shown()
        );
    }
    let call = Call::post(&worker.path("input"), json!({ "kind": kind, "content": content }))
        .key(args.options.idempotency_key.as_ref())
        .if_revision(args.options.if_revision);
    let mut answer = client.send(call).await?;
    if out.format == Format::Json && worker.accepted(&answer).is_err() {
        out.json(&answer)?;
    }
    worker.accepted(&answer)?;
    let ack = if worker.through.is_some() { &answer } else { &answer["ack"] };
    let item = ack["transcript_sequence"].as_u64().unwrap_or_default();
    let Some(input) = ack["event_id"].as_u64().map(Sequence) else {
        return Err(client.not_acta("an acknowledgement without an event id").into());
    };
    if args.wait {
        let start = Start::After(input);
        let Found { id, through, .. } = worker;
        let mut turn = Turn::new(input, through.is_some());
        let filter = Filter { worker: Some(id), through, ..Filter::default() };
        let deadline = Instant::now() + Duration::from_secs(args.timeout);
        let ended = follow(Follower::new(client, start, filter), &mut turn, deadline, out).await;
        return finish(ended, &turn, &mut answer, out);
    }
    match out.format {
        Format::Json => out.json(&answer),
        Format::Table => out.line(&format!("accepted as item {item}, sequence {input}")),
    }
}

fn content(words: &[String]) -> anyhow::Result<String> {
    match words {
        [] if io::stdin().is_terminal() => {
            Err(usage("there is nothing to send: give a text, or `-`"))
        }
        [dash] if dash == "-" => standard_input(),
        [] => standard_input(),
        words => Ok(words.join(" ")),
    }
}

fn standard_input() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    let mut text = String::from_utf8(bytes).context("standard input is not UTF-8 text")?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// How the wait for an answer stands.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// Nothing about it.
    Other,
    /// The worker said this.
    Said(String),
    /// It is over.
    Ended(End),
    /// It may be over without an end of the turn, for this reason.
    Doubtful(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// An agent that connects in answered; it has no turns.
    Answered,
    Turn {
        result: &'static str,
        exit: Option<ExitStatus>,
    },
    Failed(String),
}

/// The turn that one input starts, as far as the events tell.
#[derive(Debug)]
struct Turn {
    input: Sequence,
    number: Option<u64>,
    text: String,
    /// Whether it is told by frames of another service, which do not say what a turn is about: the
    /// worker had nothing else to do, so its next turn it is.
    by_frames: bool,
}

impl Turn {
    fn new(input: Sequence, by_frames: bool) -> Self {
        Self { input, number: None, text: String::new(), by_frames }
    }

    /// What a record, or an envelope, says about it.
    fn hear(&mut self, told: &str) -> anyhow::Result<News> {
        if self.by_frames {
            return Ok(self.see(&Payload::of(told)?));
        }
        let record = serde_json::from_str(told).context("a record was not understood")?;
        Ok(self.observe(&record))
    }

    fn see(&mut self, payload: &Payload) -> News {
        let ours = payload.turn().is_some() && payload.turn() == self.number;
        match payload.event.as_str() {
            "turn_start" if self.number.is_none() => {
                self.number = payload.turn();
                News::Other
            }
            "text_delta" if self.number.is_some() => {
                self.text.push_str(payload.text("text"));
                News::Said(payload.text("text").to_owned())
            }
            // An agent that connects in has no turns.
            "text_done" if self.number.is_none() => {
                payload.text("text").clone_into(&mut self.text);
                News::Ended(End::Answered)
            }
            "turn_end" if ours => {
                let paused = payload.text("result") == "paused";
                let result = if paused { "paused" } else { "finished" };
                News::Ended(End::Turn { result, exit: None })
            }
            "error" => News::Doubtful(format!("the worker failed: {}", payload.text("message"))),
            "alert" if payload.text("level") == "error" => {
                News::Doubtful(payload.text("message").to_owned())
            }
            "shutdown" => News::Doubtful("the worker was ended".into()),
            _ => News::Other,
        }
    }

    fn observe(&mut self, record: &RecordView<'_>) -> News {
        let ours = |turn: u64| self.number == Some(turn);
        match record.event() {
            Some(Event::WorkerInputDispatched(e)) if e.input == self.input => {
                self.number = Some(e.turn);
                News::Other
            }
            Some(Event::WorkerOutput(e)) if e.event == OutputKind::TextDelta && ours(e.turn) => {
                self.text.push_str(record.text());
                News::Said(record.text().to_owned())
            }
            Some(Event::WorkerTurnEnded(e)) if ours(e.turn) => {
                let result = match e.result {
                    TurnResult::Finished => "finished",
                    TurnResult::Paused => "paused",
                };
                News::Ended(End::Turn { result, exit: e.exit })
            }
            Some(Event::WorkerInputFailed(e))
                if e.through >= self.input && self.number.is_none() =>
            {
                News::Ended(End::Failed(format!("the input was not delivered: {}", e.message)))
            }
            Some(Event::WorkerInterrupted(e)) if e.input == Some(self.input) && !e.again => {
                News::Ended(End::Failed(format!("the worker was interrupted: {}", e.reason)))
            }
            Some(Event::WorkerNotified(e)) if e.message == Some(self.input) => {
                self.text = said(record);
                News::Ended(End::Answered)
            }
            Some(Event::MessageAnswered(e)) if e.message == self.input => {
                self.text = said(record);
                News::Ended(End::Answered)
            }
            Some(Event::WorkerReported(e))
                if e.message == Some(self.input) && e.activity == ActivityKind::Error =>
            {
                News::Ended(End::Failed(format!("the agent failed: {}", said(record))))
            }
            Some(Event::WorkerExited(e)) => News::Doubtful(format!("the worker {}", exit(e.exit))),
            Some(Event::WorkerStopped(_)) => News::Doubtful("the worker was stopped".into()),
            Some(Event::WorkerCancelled(_)) => News::Doubtful("the worker was cancelled".into()),
            Some(Event::WorkerSpawnFailed(e)) => {
                News::Doubtful(format!("the worker was not started: {}", e.message))
            }
            _ => News::Other,
        }
    }
}

async fn follow(
    mut follower: Follower<'_>,
    turn: &mut Turn,
    mut deadline: Instant,
    out: &mut Output,
) -> anyhow::Result<End> {
    let mut doubt = None;
    loop {
        let record = match timeout_at(deadline, follower.next()).await {
            Ok(Ok(Frame::Event { record, .. })) => record,
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => match doubt {
                Some(reason) => return Ok(End::Failed(reason)),
                None => bail!("the turn did not end in time; the input stays accepted"),
            },
        };
        match turn.hear(record.get())? {
            News::Other => {}
            News::Said(text) if out.format == Format::Table => {
                out.foreign(&text)?;
                out.flush()?;
            }
            News::Said(_) => {}
            News::Ended(end) => {
                if end == End::Answered && out.format == Format::Table {
                    out.foreign(&turn.text)?;
                }
                return Ok(end);
            }
            News::Doubtful(reason) => {
                deadline = deadline.min(Instant::now() + LAST_WORDS);
                doubt = Some(reason);
            }
        }
    }
}

fn finish(
    ended: anyhow::Result<End>,
    turn: &Turn,
    answer: &mut Value,
    out: &mut Output,
) -> anyhow::Result<()> {
    if out.format == Format::Json {
        answer["turn"] = json!(turn.number);
        answer["text"] = turn.text.as_str().into();
        answer["result"] = match &ended {
            Ok(End::Turn { result, .. }) => (*result).into(),
            Ok(End::Answered) => "answered".into(),
            Ok(End::Failed(_)) | Err(_) => "failed".into(),
        };
        out.json(answer)?;
    } else if !turn.text.is_empty() && !turn.text.ends_with('\n') {
        out.text("\n")?;
    }
    out.flush()?;
    match ended? {
        End::Turn { exit: Some(status), .. } if !status.success() => {
            bail!("the worker {}", exit(status))
        }
        End::Turn { .. } | End::Answered => Ok(()),
        End::Failed(reason) => bail!(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_is_said_in_the_turn_of_the_input() {
        let mut turn = Turn::new(Sequence(10), false);
        let mut check = |kind: &str, data: Value, content: Option<&str>, expected: News| {
            let mut record = json!({
                "seq": 11, "time": "2026-11-20T19:14:00Z", "type": kind, "v": 1, "data": data
            });
            if let Some(content) = content {
                record["content"] = content.into();
            }
            let text = record.to_string();
            let record: RecordView<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(turn.observe(&record), expected, "{text}");
        };
        let delta = |turn: u64| json!({"event": "text_delta", "turn": turn});
        let ended = |turn: u64| json!({"turn": turn, "result": "finished", "exit": {"code": 0}});
        // The turn of an earlier input is still going on.
        check("worker_output", delta(4), Some("earlier"), News::Other);
        check("worker_turn_ended", ended(4), None, News::Other);
        check("worker_input_dispatched", json!({"input": 9, "turn": 5}), None, News::Other);
        check("worker_output", delta(5), Some("other"), News::Other);
        check("worker_input_dispatched", json!({"input": 10, "turn": 6}), None, News::Other);
        check("worker_output", delta(6), Some("ours"), News::Said("ours".into()));
        check(
            "worker_exited",
            json!({"exit": {"signal": 9}}),
            None,
            News::Doubtful("the worker exited on signal 9".into()),
        );
        let exit = Some(ExitStatus { code: Some(0), signal: None });
        check(
            "worker_turn_ended",
            ended(6),
            None,
            News::Ended(End::Turn { result: "finished", exit }),
        );
        // An agent that connects in has no turns.
        let answer = |message: u64| json!({"message": message, "item": 2});
        check("worker_notified", answer(9), Some("other"), News::Other);
        let done = News::Ended(End::Answered);
        check("worker_notified", answer(10), Some("done"), done);
        let report = |activity: &str| json!({"activity": activity, "message": 10, "item": 3});
        check("worker_reported", report("task_update"), None, News::Other);
        let failed = News::Ended(End::Failed("the agent failed: why".into()));
        check("worker_reported", report("error"), Some("why"), failed);
        assert_eq!(turn.text, "done");
    }
}
