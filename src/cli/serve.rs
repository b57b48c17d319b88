//! `acta serve`: the service itself.

use super::serve_args::ServeArgs;
use anyhow::{Result, bail};

/// Runs the service until it is told to stop.
#[expect(clippy::unused_async, reason = "the service that will run here is asynchronous")]
pub(crate) async fn run(_args: ServeArgs) -> Result<()> {
    bail!("this build has no service yet")
}
