//! The real binary, run for one test.

use super::{Client, PATIENCE, Socket, eventually, manifest, soon};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
};
use tempfile::TempDir;

/// How a service is started.
#[derive(Clone, Debug)]
pub struct Options {
    manifest: Value,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { manifest: manifest(), args: Vec::new(), env: Vec::new() }
    }
}

impl Options {
    /// With other templates than those of [`manifest`].
    pub fn manifest(mut self, manifest: Value) -> Self {
        self.manifest = manifest;
        self
    }

    /// With a further argument of `acta serve`.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With a variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it on an empty data directory.
    pub async fn start(self) -> Service {
        let root = tempfile::tempdir().unwrap();
        let text = serde_json::to_vec_pretty(&self.manifest).unwrap();
        fs::write(root.path().join("manifest.json"), text).unwrap();
        let mut service = Service {
            client: Client::new(String::new(), None),
            listening: Value::Null,
            options: self,
            process: None,
            root,
        };
        service.launch("127.0.0.1:0").await;
        service
    }
}

/// A running service, and an operator's client of it.
pub struct Service {
    client: Client,
    /// The line that it printed when it began to listen.
    pub listening: Value,
    options: Options,
    process: Option<(Child, BufReader<ChildStdout>)>,
    root: TempDir,
}

impl Deref for Service {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Service {
    /// Starts one with the templates of [`manifest`] on an empty data directory.
    pub async fn start() -> Self {
        Options::default().start().await
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// The directory that holds everything of this test.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The operator's token, as it stands in its file.
    pub fn token(&self) -> String {
        fs::read_to_string(self.data().join("operator.token")).unwrap().trim().to_owned()
    }

    /// What it has logged so far, of all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.root.path().join("stderr.log")
    }

    /// A client without a token.
    pub fn anonymous(&self) -> Client {
        Client::new(self.client.base.clone(), None)
    }

    /// A client with another token.
    pub fn with_token(&self, token: &str) -> Client {
        Client::new(self.client.base.clone(), Some(token.into()))
    }

    /// A command of the same binary, which finds the service and its token by itself.
    pub fn command(&self) -> Command {
        let mut command = bare_command(self.root.path());
        command.env("ACTA_URL", &self.client.base);
        command
    }

    /// Observes over WebSocket.
    pub async fn watch(&self, path: &str) -> Socket {
        self.client.watch(path).await
    }

    fn serve_command(&self, listen: &str) -> Command {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = bare_command(self.root.path());
        command
            .arg("serve")
            .arg("--data")
            .arg(self.data())
            .args(["--listen", listen])
            .arg("--manifest")
            .arg(self.root.path().join("manifest.json"))
            .args(&self.options.args)
            .envs(self.options.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(log);
        command
    }

    async fn launch(&mut self, listen: &str) {
        let mut child = self.serve_command(listen).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            (line, stdout)
        });
        let (line, stdout) = soon("the listening line", reading).await.unwrap();
        self.process = Some((child, stdout));
        self.listening = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("not a listening line: {line:?}\n{}", self.log()));
        let base = self.listening["listening"].as_str().unwrap().to_owned();
        let token = self.data().join("operator.token");
        let token = fs::read_to_string(token).ok().map(|token| token.trim().to_owned());
        self.client = Client::new(base, token);
    }

    /// Starts it anew after [`Self::kill9`] or [`Self::stop`], on a port of its own.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        self.launch("127.0.0.1:0").await;
    }

    /// From the next start on it has these arguments, and no other ones of the test.
    pub fn set_args<'a>(&mut self, args: impl IntoIterator<Item = &'a str>) {
        self.options.args = args.into_iter().map(Into::into).collect();
    }

    /// As [`Self::restart`], on the port that it had, so that clients find it again.
    pub async fn restart_here(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let listen = self.client.base.strip_prefix("http://").unwrap().to_owned();
        self.launch(&listen).await;
    }

    /// Starts it anew where it is expected to refuse: how it ended, and what it said.
    pub async fn restart_refused(&mut self) -> (ExitStatus, String) {
        assert!(self.process.is_none(), "it runs");
        let before = self.log().len();
        let mut child = self.serve_command("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        self.process = Some((child, stdout));
        let status = self.ended().await;
        (status, self.log()[before..].to_owned())
    }

    /// The process that serves.
    pub fn pid(&self) -> Pid {
        let (child, _) = self.process.as_ref().expect("it runs");
        Pid::from_raw(i32::try_from(child.id()).unwrap())
    }

    /// SIGKILL: it gets no chance to do anything more.
    pub async fn kill9(&mut self) {
        kill(self.pid(), Signal::SIGKILL).unwrap();
        self.ended().await;
    }

    /// SIGTERM: it ends in good order.
    pub async fn stop(&mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let status = self.ended().await;
        assert!(status.success(), "it ended with {status}");
    }

    async fn ended(&mut self) -> ExitStatus {
        let (mut child, _stdout) = self.process.take().expect("it runs");
        let status = eventually("the end of the process", || {
            let status = child.try_wait().unwrap();
            async move { status }
        });
        status.await
    }
}

/// The binary with nothing of this machine's surroundings.
pub fn bare_command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acta"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ACTA_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("WORKSPACE_MANIFEST_PATH")
        .env_remove("RUST_LOG")
        .env("HOME", home)
        .env("XDG_STATE_HOME", home.join("state"))
        .current_dir(home);
    command
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.process.take() {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            let mut said = String::new();
            if let Ok(mut log) = File::open(self.log_path()) {
                drop(std::io::Read::read_to_string(&mut log, &mut said));
            }
            eprintln!("what the service said (each wait may take {PATIENCE:?}):\n{said}");
        }
    }
}
