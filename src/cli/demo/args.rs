//! What `acta demo` can be told.

use clap::Args;
use std::path::PathBuf;

const HELP: &str = "\
Examples:
  acta demo
  acta demo \"first line\" \"second line\"
  acta demo -f lines.txt
  git log --oneline -20 | acta demo

Everything runs in a temporary directory, on a free port of the loopback address, and is gone
afterwards. If anything does not hold it says what was expected and what was seen, keeps the
directory, and ends with 1.";

/// Options of `acta demo`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct DemoArgs {
    /// What the workers are sent, one input each; `-`, or nothing in a pipe, reads lines from
    /// standard input
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    pub(super) text: Vec<String>,

    /// A file whose lines the workers are sent; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,

    /// What the two workers are made from [default: echo,stream, or the first templates of the
    /// manifest that can be started]
    #[arg(long, value_name = "A,B", value_delimiter = ',', num_args = 1..=2)]
    pub(super) template: Vec<String>,

    /// The templates that workers are made from, found as `acta serve` finds them; without any,
    /// those that Acta is shipped with
    #[arg(long, value_name = "FILE", env = "ACTA_MANIFEST")]
    pub(super) manifest: Option<PathBuf>,

    /// How long the workers may take for their answers
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) timeout: u64,

    /// Leave the data directory there
    #[arg(long)]
    pub(super) keep: bool,
}
