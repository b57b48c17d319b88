//! The service that is demonstrated: the same binary, as a process of its own.

use crate::cli::credentials::OPERATOR_TOKEN_FILE;
use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use std::{
    fs::{self, OpenOptions},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

const START_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// How much of what the service logged is shown when it does not start, in lines.
const LOG_LINES_SHOWN: usize = 8;

/// Where everything of the demonstration lies.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) dir: PathBuf,
    pub(super) manifest: PathBuf,
}

impl Home {
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What the service writes about itself.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("service.log")
    }

    pub(super) fn operator_token(&self) -> Result<String> {
        let path = self.data().join(OPERATOR_TOKEN_FILE);
        let token = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(token.trim().to_owned())
    }
}

/// What the service says when it listens.
#[derive(Debug, Deserialize)]
pub(super) struct Listening {
    pub(super) listening: String,
    pub(super) log_id: String,
    pub(super) head: u64,
}

/// A running service. Dropping it kills it.
pub(super) struct Service {
    child: Child,
    pub(super) pid: u32,
    pub(super) at: Listening,
}

impl Service {
    /// Starts it on a free port, and waits until it listens.
    pub(super) async fn start(home: &Home) -> Result<Self> {
        let binary = std::env::current_exe().context("the path of this program is not known")?;
        let log = OpenOptions::new().create(true).append(true).open(home.log())?;
        let mut command = Command::new(binary);
        // What the user has set for a service of their own is not meant for this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ACTA_") {
                command.env_remove(name);
            }
        }
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(home.data())
            .arg("--manifest")
            .arg(&home.manifest)
            .env("XDG_STATE_HOME", home.dir.join("state"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // A Ctrl-C in the terminal is for this process, which ends the service itself.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().context("the service could not be started")?;
        let pid = child.id().context("the service ended at once")?;
        let stdout = child.stdout.take().context("the service has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = match timeout(START_DEADLINE, lines.next_line()).await {
            Err(_) => bail!(
                "the service did not listen within {} s{}",
                START_DEADLINE.as_secs(),
                last_words(home)
            ),
            Ok(Ok(Some(line))) => line,
            Ok(_) => {
                let status = timeout(STOP_DEADLINE, child.wait()).await;
                let how = status.ok().and_then(Result::ok).map_or("ended".into(), described);
                bail!("the service {how} before it listened{}", last_words(home));
            }
        };
        let at = serde_json::from_str(&line)
            .with_context(|| format!("the service said something else than expected: {line}"))?;
        Ok(Self { child, pid, at })
    }

    /// Kills it as a power switch would, and waits until it is gone.
    pub(super) async fn kill(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        let gone = timeout(STOP_DEADLINE, self.child.wait()).await;
        let gone = gone.map_err(|_| anyhow!("the killed service is still there after 15 s"))?;
        gone.context("the killed service could not be waited for")
    }

    /// Ends it in good order; if it does not, without.
    pub(super) async fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        if let Ok(ended) = timeout(STOP_DEADLINE, self.child.wait()).await {
            return ended.context("the service could not be waited for");
        }
        self.kill().await?;
        bail!("the service did not stop within {} s of SIGTERM", STOP_DEADLINE.as_secs())
    }

    /// It was not waited for yet, so that its number is its own.
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid)?);
        kill(pid, signal).with_context(|| format!("{signal} could not be sent to the service"))
    }
}

/// How a process ended, for people.
pub(super) fn described(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

fn last_words(home: &Home) -> String {
    let log = fs::read_to_string(home.log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    if last.is_empty() { String::new() } else { format!(". It logged:\n  {}", last.join("\n  ")) }
}

/// A process that a worker was given, as its events name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkerProcess {
    pub(super) pid: u32,
    pub(super) started_ticks: u64,
}

impl WorkerProcess {
    /// Its parent, if it is still there.
    pub(super) fn parent(&self) -> Option<u32> {
        let (parent, started_ticks) = stat(self.pid)?;
        (started_ticks == self.started_ticks).then_some(parent)
    }

    /// Kills it and its group, if it is still there. Only for a service that is gone.
    pub(super) fn kill_group(&self) {
        if self.parent().is_some()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            // Whoever is gone meanwhile is gone, which is what was wanted.
            let _ = nix::sys::signal::killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Parent and start time of a process.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    Some((parent, fields.nth(17)?.parse().ok()?))
}
