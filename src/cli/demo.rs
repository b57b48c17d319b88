//! `acta demo`: the main job, from end to end, with assertions.

use super::serve_args::DemoArgs;
use anyhow::{Result, bail};

/// Runs the demonstration.
#[expect(clippy::unused_async, reason = "the demonstration that will run here is asynchronous")]
pub(crate) async fn run(_args: DemoArgs) -> Result<()> {
    bail!("this build has no demonstration yet")
}
