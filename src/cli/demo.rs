//! `acta demo`: the main job, from end to end, with assertions.
//!
//! It runs the service as a process of its own and talks to it as any client does, so whatever
//! it asserts is what a user would see. Everything lies in a temporary directory.

mod api;
mod args;
mod cast;
mod checks;
mod history;
mod input;
mod observer;
mod screen;
mod service;
mod stage;
mod story;
mod story_crash;
mod views;

pub(crate) use args::DemoArgs;

use super::{
    output::{Output, OutputClosed, note, with_causes},
    tail::interrupted,
};
use anyhow::{Context as _, Result, anyhow, bail};
use screen::Screen;
use serde_json::json;
use stage::Stage;
use std::path::Path;
use tempfile::TempDir;

/// Runs the demonstration.
pub(crate) async fn run(args: DemoArgs, out: &mut Output) -> Result<()> {
    let inputs = input::gather(&args).await?;
    let dir = tempfile::Builder::new()
        .prefix("acta-demo-")
        .tempdir()
        .context("a temporary directory could not be made")?;
    let cast = cast::choose(&args, dir.path())?;
    let mut stage = Stage::new(dir.path(), cast, inputs, args.timeout);
    let mut screen = Screen::new(out);
    let told = tokio::select! {
        biased;
        () = interrupted() => Told::Interrupted,
        told = Box::pin(story::tell(&mut stage, &mut screen)) => match told {
            Ok(history) => Told::ToTheEnd(history),
            Err(error) => Told::Broken(error),
        },
    };
    let ended = stage.end().await;
    screen.end_step();
    finish(told, ended, dir, args.keep, &mut screen)
}

enum Told {
    /// With the lines of the history and the number of events.
    ToTheEnd(story::History),
    Broken(anyhow::Error),
    Interrupted,
}

/// Says how it went, and removes or keeps the directory.
fn finish(
    told: Told,
    ended: Result<()>,
    dir: TempDir,
    keep: bool,
    screen: &mut Screen<'_>,
) -> Result<()> {
    let (events, broken) = match told {
        Told::Interrupted => bail!("interrupted; everything that was started has been ended"),
        Told::ToTheEnd(history) => (history.events, None),
        // Whoever was watching has gone: nobody is left to be told.
        Told::Broken(error) if error.is::<OutputClosed>() => return Err(error),
        Told::Broken(error) => (0, Some(error)),
    };
    let broken = broken.or(ended.err());
    let (failed, checked) = (screen.failed(), screen.checks.len());
    let failure = match (broken, failed) {
        (None, 0) => None,
        (Some(error), _) => Some(error),
        (None, _) => Some(anyhow!("{failed} of {checked} checks do not hold")),
    };
    let kept = (keep || failure.is_some()).then(|| dir.keep());
    let kept = kept.as_deref().map(Path::display);
    if screen.is_json() {
        screen.document(&json!({
            "ok": failure.is_none(),
            "checks": screen.checks,
            "events": events,
            "seconds": screen.elapsed().as_secs_f64(),
            "steps": screen.steps,
            "kept": kept.as_ref().map(ToString::to_string),
            "failure": failure.as_ref().map(with_causes),
        }))?;
    } else if failure.is_none() {
        let steps: Vec<String> =
            screen.steps.iter().map(|step| format!("{:.1}", step.seconds)).collect();
        screen.say("")?;
        screen.say(&format!(
            "✓ all {checked} checks hold: {events} events, {:.1} s (by step: {})",
            screen.elapsed().as_secs_f64(),
            steps.join(", "),
        ))?;
    }
    if let Some(kept) = kept {
        note(&format!("the data directory and the log of the service are kept in {kept}"));
    }
    failure.map_or(Ok(()), Err)
}
