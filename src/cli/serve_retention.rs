//! What `acta serve` is told about how much history it keeps.

use acta_events::RetentionPolicy;
use clap::Args;

/// Options of `acta serve` about history.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "History")]
pub struct RetentionArgs {
    /// How old history may become; whole segments expire, the oldest first. Without this and the next,
    /// everything is kept
    #[arg(long, value_name = "SECONDS", env = "ACTA_HISTORY_KEEP_S", value_parser = clap::value_parser!(u64).range(1..))]
    pub history_keep_s: Option<u64>,

    /// How many bytes of segments are kept, as they lie on the disk; beside them there are contents in
    /// files, the tree, and what is not sealed yet
    #[arg(long, value_name = "BYTES", env = "ACTA_HISTORY_KEEP_BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub history_keep_bytes: Option<u64>,
}

impl RetentionArgs {
    /// How much is kept.
    pub(super) fn policy(&self) -> RetentionPolicy {
        RetentionPolicy { keep_s: self.history_keep_s, keep_bytes: self.history_keep_bytes }
    }
}
