//! `acta completions`.

use super::Cli;
use super::output::Output;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

const HELP: &str = "\
Examples:
  acta completions bash > ~/.local/share/bash-completion/completions/acta
  acta completions zsh  > \"${fpath[1]}/_acta\"
  acta completions fish > ~/.config/fish/completions/acta.fish";

/// Options of `acta completions`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, out: &mut Output) -> anyhow::Result<()> {
    // Made first and written after, since the generator panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "acta", &mut script);
    out.text(&String::from_utf8(script)?)?;
    out.flush()
}
