//! The crash, and what comes after it.

use super::{
    api::Told,
    checks::{self, Violation},
    history,
    observer::Seen,
    screen::Screen,
    service::described,
    stage::{Sent, Stage},
    story::{self, CURSOR, History},
    views::{self, View},
};
use crate::cli::rebuild;
use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt as _;

/// What there was right before the crash.
struct Before {
    head: u64,
    log: Vec<Told>,
    past: Vec<View>,
    kept: Vec<View>,
}

pub(super) async fn tell(
    stage: &mut Stage,
    screen: &mut Screen<'_>,
    first: &Sent,
) -> Result<History> {
    let before = kill(stage, screen).await?;
    start_again(stage, screen, &before).await?;
    let log = resume(stage, screen).await?;
    repeat(stage, screen, first).await?;
    show_history(screen, &log)?;
    stop(stage, screen, &log).await?;
    Ok(History { events: log.len() })
}

/// Whether a worker is in the middle of its answer to an input, or done with it.
pub(super) fn has_begun_to_answer(seen: &Seen, worker: &str, input: u64) -> bool {
    let of_it = |told: &&Told| told.seq > input && told.json.contains(worker);
    let answers = seen.events.iter().rev().take_while(|told| told.seq > input).filter(of_it);
    let mut pieces = 0;
    for told in answers {
        pieces += u32::from(told.json.contains("\"text_delta\""));
        if told.json.contains("\"worker_turn_ended\"") || pieces >= 2 {
            return true;
        }
    }
    false
}

async fn kill(stage: &mut Stage, screen: &mut Screen<'_>) -> Result<Before> {
    screen.step("The service is killed in the middle of an answer (SIGKILL)")?;
    let excerpt = stage.inputs.excerpt();
    let input = story::event_id(&stage.send(1, &excerpt).await?)?;
    let worker = stage.workers[1].clone();
    let what = format!("{} to answer", stage.cast.roles[1].name);
    stage.watch(screen, &what, |seen| has_begun_to_answer(seen, &worker, input)).await?;
    stage.end_of_step(screen)?;
    let (operator, consumer) = (stage.operator()?, stage.consumer()?);
    let head = operator.head().await?;
    let past = views::past(&operator, Some(head), &stage.workers).await?;
    let kept = views::kept(&operator, &consumer, CURSOR, head).await?;
    let log = operator.log(head, true).await?;
    let service = stage.service.take().context("the service does not run")?;
    let pid = service.pid;
    let status = service.kill().await?;
    screen.aside(&format!(
        "{} views and cursors taken at sequence {head}",
        past.len() + kept.len()
    ))?;
    let verdict = checks::is(status.signal() == Some(9), "ended by signal 9", || described(status));
    screen.check(format!("process {pid} is gone, without a chance to say goodbye"), verdict)?;
    stage.observer.cut().await;
    Ok(Before { head, log, past, kept })
}

async fn start_again(stage: &mut Stage, screen: &mut Screen<'_>, before: &Before) -> Result<()> {
    screen.step("It starts again on the same data")?;
    let service = stage.start().await?;
    let (pid, url, found) = (service.pid, service.at.listening.clone(), service.at.head);
    let head = before.head;
    screen.aside(&format!("process {pid} listens on {url}, its log goes to {found}"))?;
    let (operator, consumer) = (stage.operator()?, stage.consumer()?);
    let verdict = checks::is(found >= head, &format!("at least {head}"), || found.to_string());
    screen.check(format!("nothing that was seen is gone: the log goes beyond {head}"), verdict)?;
    let log = operator.log(head, true).await?;
    let verdict = checks::same_records(&before.log, &log);
    screen.check(format!("records 1 to {head} are what they were, byte for byte"), verdict)?;
    let past = views::past(&operator, Some(head), &stage.workers).await?;
    for (now, was) in past.iter().zip(&before.past) {
        screen.check(format!("{} as of {head} is what it was", now.name), now.same_as(was))?;
    }
    let kept = views::kept(&operator, &consumer, CURSOR, head).await?;
    let names: Vec<&str> = kept.iter().map(|view| view.name.as_str()).collect();
    let name = format!("so are {}", names.join(", "));
    screen.check(name, views::same(&before.kept, &kept))
}

async fn resume(stage: &mut Stage, screen: &mut Screen<'_>) -> Result<Vec<Told>> {
    screen.step("The observer resumes, and work goes on")?;
    let last = stage.observer.look(|seen| seen.events.last().map_or(0, |told| told.seq));
    screen.aside(&format!("it resumes from its cursor, after sequence {last}"))?;
    stage.connect_observer().await?;
    let again = stage.inputs.lines.first().cloned().unwrap_or_default();
    let input = story::event_id(&stage.send(0, &again).await?)?;
    let worker = stage.workers[0].clone();
    let what = format!("{} to work again", stage.cast.roles[0].name);
    stage.watch(screen, &what, |seen| has_begun_to_answer(seen, &worker, input)).await?;
    let head = stage.quiet(screen).await?;
    let log = story::compare_observer(stage, screen, head, "observer, over the crash").await?;
    Ok(log)
}

async fn repeat(stage: &mut Stage, screen: &mut Screen<'_>, first: &Sent) -> Result<()> {
    screen.step("A command from before the crash is repeated")?;
    let api = stage.operator()?;
    let head = api.head().await?;
    let Sent { path, key, body, answer } = first;
    let again = api.ask(Method::POST, path, Some(key), Some(body)).await?;
    let verdict = checks::same_answer(answer, &again);
    screen.check("it is acknowledged with the same bytes as the first time", verdict)?;
    let verdict =
        checks::is(again.replayed, "Idempotent-Replayed: true", || "an answer without it".into());
    screen.check("and marked Idempotent-Replayed", verdict)?;
    let other = json!({"kind": "user", "content": "something else"});
    let refused = api.ask(Method::POST, path, Some(key), Some(&other)).await?;
    let code: Value = serde_json::from_slice(&refused.body).unwrap_or_default();
    let code = code["error"]["code"].as_str().unwrap_or_default();
    let verdict =
        checks::is(refused.status == 422 && code == "idempotency_key_reused", "status 422", || {
            format!("status {}: {}", refused.status, refused.text())
        });
    screen.check("the same key for something else is refused", verdict)?;
    let now = api.head().await?;
    let verdict = checks::is(now == head, &format!("the log at {head}"), || format!("at {now}"));
    screen.check("nothing happened a second time", verdict)
}

fn show_history(screen: &mut Screen<'_>, log: &[Told]) -> Result<()> {
    screen.step("What happened")?;
    for line in history::lines(log, screen.paint())? {
        screen.say(&format!("   {line}"))?;
    }
    Ok(())
}

async fn stop(stage: &mut Stage, screen: &mut Screen<'_>, log: &[Told]) -> Result<()> {
    screen.step("The service stops, and its views are rebuilt from the log alone")?;
    stage.observer.cut().await;
    let service = stage.service.take().context("the service does not run")?;
    let status = service.stop().await?;
    let verdict = checks::is(status.success(), "exit code 0", || described(status));
    screen.check("it stopped in good order", verdict)?;
    let data = stage.home().data();
    let report = tokio::task::spawn_blocking(move || rebuild::examine(&data)).await??;
    let enough = report.records >= log.len() as u64;
    let verdict = match report.fault() {
        Some(fault) => Err(Violation::new("equal digests", fault)),
        None => checks::is(enough, &format!("at least {} records", log.len()), || {
            format!("{} records", report.records)
        }),
    };
    let name = format!(
        "{} records and {} checkpoint(s) give the same views: {}…",
        report.records,
        report.checkpoints.len(),
        &report.digest.to_string()[..16]
    );
    screen.check(name, verdict)
}
