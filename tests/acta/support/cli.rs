//! Running the command line against a service.

use super::{Service, soon};
use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// How a command ended, and what it printed.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What a success printed, without the last newline.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout.trim_end_matches('\n')
    }
}

/// Runs a command to its end, off this thread.
pub async fn run(mut command: Command, stdin: &str) -> Ran {
    let stdin = stdin.to_owned();
    let running = tokio::task::spawn_blocking(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that does not read its input may be gone already.
        drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    });
    soon("the end of a command", running).await.unwrap()
}

impl Service {
    /// Runs `acta …` against this service.
    pub async fn acta(&self, args: &[&str]) -> Ran {
        self.acta_with(args, "").await
    }

    /// As [`Self::acta`], with something on standard input.
    pub async fn acta_with(&self, args: &[&str], stdin: &str) -> Ran {
        let mut command = self.command();
        command.args(args);
        run(command, stdin).await
    }
}
