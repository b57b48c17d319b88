//! Answers with what Claude Code says: `exec` with `claude -p`.

use super::exec::Exec;
use crate::{
    connect::{backend::Backend, options::BackendOptions},
    trust::Trust,
};
use std::{sync::Arc, time::Duration};

const BIN_DEFAULT: &str = "claude";
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Options: `bin`, `args` as a shell reads them, `timeout`, `pass_meta`.
pub(super) fn build(options: &BackendOptions, _: &Trust) -> Result<Arc<dyn Backend>, String> {
    options.only(&["bin", "args", "timeout", "pass_meta"])?;
    let timeout = options.duration("timeout", TIMEOUT_DEFAULT)?;
    let pass_meta = options.flag("pass_meta", true)?;
    let command = command(options.get("bin").unwrap_or(BIN_DEFAULT), options.get("args"));
    Ok(Arc::new(Exec::new(&command, timeout, pass_meta)?))
}

/// The program is one word, whatever is in its path.
fn command(bin: &str, args: Option<&str>) -> String {
    let bin = bin.replace('\'', r"'\''");
    match args {
        Some(args) => format!("exec '{bin}' -p {args}"),
        None => format!("exec '{bin}' -p"),
    }
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn the_program_is_one_word_and_its_arguments_are_the_shells() {
        assert_eq!(command("claude", None), "exec 'claude' -p");
        assert_eq!(
            command("/a b/c'd", Some("--model 'x y'")),
            r"exec '/a b/c'\''d' -p --model 'x y'"
        );
    }
}
