//! A running `acta connect`.

use super::{PATIENCE, Ran, bare_command, eventually, run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};
use tempfile::TempDir;

/// An agent with a home of its own, which it keeps from start to start.
pub struct Connector {
    root: TempDir,
    url: String,
    worker: String,
    token: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    process: Option<Child>,
}

impl Connector {
    /// Not started yet.
    pub fn new(url: &str, worker: &str, token: &str, args: &[&str]) -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            url: url.into(),
            worker: worker.into(),
            token: token.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: Vec::new(),
            process: None,
        }
    }

    /// With a variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Its home directory, which is also where it runs.
    pub fn home(&self) -> &Path {
        self.root.path()
    }

    /// The file that it keeps its state in.
    pub fn state_file(&self) -> PathBuf {
        self.home().join(format!(".config/acta/state/{}.json", self.worker))
    }

    pub fn state(&self) -> Value {
        serde_json::from_slice(&fs::read(self.state_file()).unwrap()).unwrap()
    }

    /// What it has said so far, of all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home().join("stderr.log")).unwrap_or_default()
    }

    fn has_interval(&self) -> bool {
        self.args.iter().any(|arg| arg == "--interval-ms")
    }

    fn command(&self) -> Command {
        let mut command = bare_command(self.home());
        command
            .args(["connect", &self.worker])
            .args(["--interval-ms", "20"].iter().filter(|_| !self.has_interval()))
            .args(&self.args)
            .env("ACTA_WORKER_TOKEN", &self.token)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("MOLECULE_WORKSPACE_TOKEN")
            .env_remove("MOLECULE_API_URL")
            .envs(Some(("ACTA_URL", &self.url)).filter(|(_, url)| !url.is_empty()))
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn start(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let path = self.home().join("stderr.log");
        let log = OpenOptions::new().create(true).append(true).open(path).unwrap();
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// Started.
    pub fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Runs it where it is expected to end by itself.
    pub async fn run(&self) -> Ran {
        run(self.command(), "").await
    }

    pub fn pid(&self) -> Pid {
        let child = self.process.as_ref().expect("it runs");
        Pid::from_raw(i32::try_from(child.id()).unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// SIGKILL: it gets no chance to do anything more.
    pub async fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended().await;
    }

    /// SIGTERM: it ends in good order.
    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.ended().await;
        assert!(status.success(), "it ended with {status}: {}", self.log());
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("it runs");
        eventually("the end of the agent", || {
            let status = child.try_wait().unwrap();
            async move { status }
        })
        .await
    }

    /// Waits until it says something.
    pub async fn says(&self, what: &str) {
        eventually(what, || async { self.log().contains(what).then_some(()) }).await;
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("what the agent said (each wait may take {PATIENCE:?}):\n{}", self.log());
        }
    }
}
