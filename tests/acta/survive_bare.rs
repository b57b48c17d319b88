//! A service without the comfort of [`Service`](super::support::Service): it may refuse to
//! start, stand on a directory that is not its own, or run under a limit.

use super::support::{Client, bare_command, soon};
use nix::unistd::Pid;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The token that it is given beside its own.
pub const TOKEN: &str = "the-token-of-this-test";

/// A process that was asked to serve.
pub struct Bare {
    process: Child,
    stderr: PathBuf,
    /// None if it ended instead of listening.
    pub client: Option<Client>,
}

impl Bare {
    /// Starts it on a data directory, and waits until it listens or ends. `home` is for what
    /// it says and for whatever is looked for at home.
    pub async fn start(home: &Path, data: &Path, manifest: &Value) -> Self {
        Self::start_with(&[], home, data, manifest).await
    }

    /// As [`Self::start`], with options.
    pub async fn start_with(args: &[&str], home: &Path, data: &Path, manifest: &Value) -> Self {
        let mut command = bare_command(home);
        command.arg("serve").args(args);
        Self::launch(command, home, data, manifest).await
    }

    /// As [`Self::start`], for a shell that sets limits first.
    pub async fn start_limited(limits: &str, home: &Path, data: &Path, manifest: &Value) -> Self {
        let service = bare_command(home);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limits}; exec \"$0\" serve \"$@\"")]);
        command.arg(service.get_program()).current_dir(home).env_clear();
        command.envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
        command.env("HOME", home).env("XDG_STATE_HOME", home.join("state"));
        Self::launch(command, home, data, manifest).await
    }

    async fn launch(mut command: Command, home: &Path, data: &Path, manifest: &Value) -> Self {
        let templates = home.join("templates.json");
        fs::write(&templates, manifest.to_string()).unwrap();
        let stderr = home.join("bare-stderr");
        let mut process = command
            .args(["--listen", "127.0.0.1:0", "--token", TOKEN, "--data"])
            .arg(data)
            .arg("--manifest")
            .arg(templates)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut bare = Self { process, stderr, client: None };
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line
        });
        let line = soon("it listens or ends", reading).await.unwrap();
        if let Ok(line) = serde_json::from_str::<Value>(&line) {
            let base = line["listening"].as_str().unwrap().to_owned();
            bare.client = Some(Client::new(base, Some(TOKEN.into())));
        }
        bare
    }

    /// Its client, where it is expected to listen.
    #[track_caller]
    pub fn client(&self) -> &Client {
        self.client.as_ref().unwrap_or_else(|| panic!("it does not listen: {}", self.said()))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap())
    }

    /// How it ended by itself; none if it does not in good time.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < super::support::PATIENCE {
            if let Some(status) = self.process.try_wait().unwrap() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// Kills it.
    pub fn kill9(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }

    /// What it wrote to standard error.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("what it said:\n{}", self.said());
        }
    }
}
