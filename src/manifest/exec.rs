//! How a template is started.

use serde::Deserialize;

/// The longest command line: program and arguments.
const ARGV_MAX: usize = 256;

/// The most variables that are passed through.
const ENV_MAX: usize = 64;

/// The longest time that a manifest may ask for, in milliseconds: an hour.
const WAIT_MS_MAX: u64 = 60 * 60 * 1000;

/// What an `exec` looks like, for messages.
pub(super) const FORM: &str = "an `exec` is {\"argv\": [\"command\", …], \"mode\": \"session\" or \
     \"per_input\", \"framing\": \"text\" or \"jsonl\", \"env\": [\"NAME\", …]}, and only `argv` is required";

/// How a template is started. Nothing in it comes from a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Exec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// How long a process lives.
    #[serde(default)]
    pub mode: Mode,
    /// How it speaks.
    #[serde(default)]
    pub framing: Framing,
    /// Names of variables of the service's environment that it is given; never values.
    #[serde(default)]
    pub env: Vec<String>,
    /// Milliseconds of silence after which the turn of a text session is over.
    #[serde(default)]
    pub turn_idle_ms: Option<u64>,
    /// Milliseconds between SIGTERM and SIGKILL.
    #[serde(default)]
    pub stop_grace_ms: Option<u64>,
    /// Whether an input that was cut off by the end of the service may be run again.
    #[serde(default)]
    pub rerun_interrupted: bool,
}

/// How long a process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One process for the whole worker.
    #[default]
    Session,
    /// One process per input.
    PerInput,
}

/// How a process speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Plain text.
    #[default]
    Text,
    /// One JSON object a line.
    Jsonl,
}

impl Exec {
    /// Says what is wrong, if the values make no sense though their types are right.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.argv.first().is_none_or(|program| program.trim().is_empty()) {
            return Err("`argv` names no command".into());
        }
        if self.argv.len() > ARGV_MAX {
            return Err(format!("`argv` has {} parts; at most {ARGV_MAX}", self.argv.len()));
        }
        if self.argv.iter().any(|part| part.contains('\0')) {
            return Err("`argv` contains a NUL character".into());
        }
        if self.env.len() > ENV_MAX {
            return Err(format!("`env` has {} names; at most {ENV_MAX}", self.env.len()));
        }
        if let Some(name) = self.env.iter().find(|name| !is_variable_name(name)) {
            // What follows an equals sign may be a secret.
            let name = name.split('=').next().unwrap_or_default();
            let name = crate::error::shown(name);
            return Err(format!(
                "`env` has `{name}`, which is not the name of a variable: only names stand \
                 there, a letter or `_` and then letters, digits or `_`, never values"
            ));
        }
        let waits = [("turn_idle_ms", self.turn_idle_ms), ("stop_grace_ms", self.stop_grace_ms)];
        for (field, wait) in waits {
            if wait.is_some_and(|ms| ms > WAIT_MS_MAX || (ms == 0 && field == "turn_idle_ms")) {
                return Err(format!(
                    "`{field}` is out of range; it is milliseconds, at most {WAIT_MS_MAX}"
                ));
            }
        }
        Ok(())
    }
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let is_first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    bytes.next().is_some_and(is_first) && bytes.all(|b| is_first(b) || b.is_ascii_digit())
}
