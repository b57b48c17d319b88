//! What happens before the crash. Each step asserts; none goes on from what it did not see.

use super::{
    api::Told,
    checks::{self, Violation},
    screen::Screen,
    stage::{Sent, Stage},
    story_crash, views,
};
use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};

/// Under which name the observer commits how far it has read.
pub(super) const CURSOR: &str = "demo-observer";

/// What happened, for the end.
pub(super) struct History {
    pub(super) events: usize,
}

/// The whole job.
pub(super) async fn tell(stage: &mut Stage, screen: &mut Screen<'_>) -> Result<History> {
    begin(stage, screen).await?;
    spawn(stage, screen).await?;
    let first = send(stage, screen).await?;
    cut_off(stage, screen).await?;
    look(stage, screen).await?;
    story_crash::tell(stage, screen, &first).await
}

async fn begin(stage: &mut Stage, screen: &mut Screen<'_>) -> Result<()> {
    screen.step("The service starts")?;
    let dir = stage.home().dir.display().to_string();
    let service = stage.start().await?;
    let (pid, url) = (service.pid, service.at.listening.clone());
    let log = service.at.log_id.clone();
    screen.aside(&format!("process {pid} listens on {url}, its data is in {dir}/data"))?;
    screen.aside(&format!("log {log}, templates from {}", stage.cast.source))?;
    let ready = stage.operator()?.ask(Method::GET, "/readyz", None, None).await?;
    let verdict = checks::is(ready.status == 200, "status 200 on /readyz", || {
        format!("status {}: {}", ready.status, ready.text())
    });
    screen.check("the service is ready", verdict)
}

async fn spawn(stage: &mut Stage, screen: &mut Screen<'_>) -> Result<()> {
    screen.step("Two workers are spawned, an observer watches")?;
    stage.admit_observer().await?;
    stage.connect_observer().await?;
    for role in 0..stage.cast.roles.len() {
        stage.spawn(role).await?;
    }
    for (role, id) in stage.cast.roles.iter().zip(&stage.workers) {
        screen.aside(&format!("{} ({}): {id}", role.name, role.mode))?;
    }
    let ids = stage.workers.clone();
    let connected = "both workers to be connected";
    stage
        .watch(screen, connected, |seen| {
            ids.iter().all(|id| seen.events.iter().any(|told| is_start_of(told, id)))
        })
        .await?;
    let list = stage.operator()?.get("/v1/workers").await?.json()?;
    let backends: Vec<&Value> = list["workers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|worker| &worker["execution"]["backend"])
        .collect();
    let verdict = checks::is(backends == ["connected"; 2], "two workers, each connected", || {
        format!("{backends:?}")
    });
    screen.check("both workers are connected to what runs them", verdict)
}

/// Whether a record says that a worker was started, or could not be.
fn is_start_of(told: &Told, worker: &str) -> bool {
    let start =
        told.json.contains("\"worker_connected\"") || told.json.contains("\"worker_spawn_failed\"");
    start && told.json.contains(worker)
}

async fn send(stage: &mut Stage, screen: &mut Screen<'_>) -> Result<Sent> {
    screen.step("They are sent input and answer, live")?;
    let (lines, excerpt) = (stage.inputs.lines.clone(), stage.inputs.excerpt());
    let [fast, slow] = [0, 1].map(|role| stage.cast.roles[role].name.clone());
    let blank = match stage.inputs.blank {
        0 => String::new(),
        blank => format!(" (and {blank} blank)"),
    };
    screen.aside(&format!(
        "{} from {}{blank}: {fast} is sent each, {slow} the first words at once",
        if lines.len() == 1 { "1 input".into() } else { format!("{} inputs", lines.len()) },
        stage.inputs.source
    ))?;
    let slow_input = stage.send(1, &excerpt).await?;
    let slow_seq = event_id(&slow_input)?;
    let mut first = None;
    let mut acknowledged = Vec::with_capacity(lines.len());
    for line in &lines {
        let sent = stage.send(0, line).await?;
        acknowledged.push(sent.answer.json()?["ack"]["transcript_sequence"].as_u64());
        first.get_or_insert(sent);
        stage.show(screen)?;
    }
    let worker = stage.workers[1].clone();
    // Now it is in the middle of its answer, or it was quick.
    let what = format!("{slow} to answer");
    stage
        .watch(screen, &what, |seen| story_crash::has_begun_to_answer(seen, &worker, slow_seq))
        .await?;
    stage.end_of_step(screen)?;
    let in_order = acknowledged.windows(2).all(|pair| pair[0] < pair[1]);
    let in_order = in_order && acknowledged.iter().all(Option::is_some);
    let verdict =
        checks::is(in_order, "acknowledgements that count up", || format!("{acknowledged:?}"));
    screen.check("every input was acknowledged, in order", verdict)?;
    children(stage, screen)?;
    first.context("there was no input")
}

/// The sequence of an acknowledged input.
pub(super) fn event_id(sent: &Sent) -> Result<u64> {
    sent.answer.json()?["ack"]["event_id"].as_u64().context("an acknowledgement without event_id")
}

/// What the workers are: processes of their own, children of the service.
fn children(stage: &Stage, screen: &mut Screen<'_>) -> Result<()> {
    let service = stage.service.as_ref().context("the service does not run")?.pid;
    let processes = stage.observer.look(|seen| seen.processes.clone());
    let running: Vec<_> =
        processes.iter().filter_map(|process| Some((process.pid, process.parent()?))).collect();
    let ours = running.iter().all(|(_, parent)| *parent == service);
    let sessions = stage.cast.roles.iter().filter(|role| role.mode == "session").count();
    let enough = processes.len() >= stage.cast.roles.len() && running.len() >= sessions;
    let expected = format!("a process for each worker, a child of process {service}");
    let pids: Vec<String> = running.iter().map(|(pid, _)| pid.to_string()).collect();
    let verdict = checks::is(ours && enough, &expected, || {
        format!("started: {processes:?}; running, with parents: {running:?}")
    });
    let name = format!("they are real child processes ({})", pids.join(", "));
    screen.check(name, verdict)
}

async fn cut_off(stage: &mut Stage, screen: &mut Screen<'_>) -> Result<()> {
    screen.step("The observer is cut off, and resumes from its cursor")?;
    stage.observer.cut().await;
    let (count, last) = stage
        .observer
        .look(|seen| (seen.events.len(), seen.events.last().map_or(0, |told| told.seq)));
    screen.aside(&format!("cut after {count} events, at sequence {last}; output goes on"))?;
    let again = stage.inputs.lines.first().cloned().unwrap_or_default();
    let unseen = event_id(&stage.send(0, &again).await?)?;
    let head = stage.quiet(screen).await?;
    let seen = stage.observer.look(|seen| seen.events.len());
    let verdict =
        checks::is(seen == count && head >= unseen, "nothing to arrive meanwhile", || {
            format!("{} events arrived", seen - count)
        });
    screen.check(format!("{} events happened while nobody watched", head - last), verdict)?;
    stage.connect_observer().await?;
    compare_observer(stage, screen, head, "observer, cut off and resumed").await?;
    echoes(stage, screen)
}

/// Compares what the observer saw with the log; returns the log with everything in it.
pub(super) async fn compare_observer(
    stage: &mut Stage,
    screen: &mut Screen<'_>,
    head: u64,
    who: &str,
) -> Result<Vec<Told>> {
    let api = stage.consumer()?;
    let log = api.log(head, false).await?;
    let last = log.last().map_or(0, |told| told.seq);
    let arrived = |told: &Told| told.seq >= last;
    stage.watch(screen, "the observer to catch up", |seen| seen.events.iter().any(arrived)).await?;
    stage.end_of_step(screen)?;
    let seen = stage.observer.look(|seen| {
        seen.events.iter().filter(|told| told.seq <= head).cloned().collect::<Vec<_>>()
    });
    let verdict = checks::exactly_once(&log, &seen);
    screen.check(format!("{who}: {} events, none missing, none twice", seen.len()), verdict)?;
    let all = api.log(head, true).await?;
    let verdict = checks::gapless(&all, head);
    screen.check(format!("the log has every sequence from 1 to {head}"), verdict)?;
    Ok(all)
}

/// A worker that echoes has said exactly what it was sent.
fn echoes(stage: &Stage, screen: &mut Screen<'_>) -> Result<()> {
    if !stage.cast.roles[0].echoes {
        return Ok(());
    }
    let sent = stage.inputs.lines.iter().chain(stage.inputs.lines.first());
    let expected: String = sent.flat_map(|line| [line.as_str(), "\n"]).collect();
    let said = stage.observer.look(|seen| said_by(&seen.events, &stage.workers[0]))?;
    let verdict = if said == expected {
        Ok(())
    } else {
        let (expected, seen) = checks::apart(&expected, &said);
        Err(Violation::new(expected, seen))
    };
    let name = format!("{} said exactly what it was sent", stage.cast.roles[0].name);
    screen.check(name, verdict)
}

fn said_by(events: &[Told], worker: &str) -> Result<String> {
    let mut said = String::new();
    for told in events.iter().filter(|told| told.json.contains("\"text_delta\"")) {
        let record: Value = serde_json::from_str(&told.json)?;
        if record["worker"] == worker && record["data"]["event"] == "text_delta" {
            said += record["content"].as_str().unwrap_or_default();
        }
    }
    Ok(said)
}

async fn look(stage: &mut Stage, screen: &mut Screen<'_>) -> Result<()> {
    screen.step("The present is the past of its own sequence")?;
    let api = stage.operator()?;
    let head = stage.quiet(screen).await?;
    let now = views::past(&api, None, &stage.workers).await?;
    let at = views::past(&api, Some(head), &stage.workers).await?;
    let names: Vec<&str> = now.iter().map(|view| view.name.as_str()).collect();
    let name = format!("as of {head} and live are the same: {}", names.join(", "));
    screen.check(name, views::same(&now, &at))?;
    let cursor = stage.observer.look(|seen| seen.cursor.clone()).context("no cursor yet")?;
    let path = format!("/v1/cursors/{CURSOR}");
    let body = json!({"cursor": cursor});
    let answer = stage.consumer()?.command(Method::PUT, &path, None, &body).await?.json()?;
    let verdict = checks::is(answer["cursor"]["cursor"] == cursor, &cursor, || answer.to_string());
    screen.check(format!("the observer commits its place as {CURSOR}"), verdict)
}
