//! Answers with what a command prints.
//!
//! The message goes to the command's standard input, never into its command line. The command
//! leads a process group of its own, which does not outlive the answer: it is killed at the
//! deadline, when the backend is closed, when the future is dropped, and also after an answer,
//! for what the command left behind.

use crate::{
    backend::{Group, identify},
    connect::{
        backend::{
            Backend, BackendError, Part, Progress, ProgressSender, Request, Response, shown,
        },
        options::BackendOptions,
    },
    trust::Trust,
};
use futures_util::future::{BoxFuture, FutureExt, ready};
use std::{
    io,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// What is taken of an answer; the rest is cut off, and said to be.
const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// What is kept of the end of standard error.
const COMPLAINT_BYTES_MAX: usize = 2 * 1024;
/// How long the pipes of an ended command may stay open before its group is killed.
const DRAIN_WAIT: Duration = Duration::from_millis(500);
/// How long a closed command has between SIGTERM and SIGKILL.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Nothing of what a child may do needs the token that this side was given.
const SECRET_VARIABLES: [&str; 3] = ["ACTA_WORKER_TOKEN", "MOLECULE_WORKSPACE_TOKEN", "ACTA_TOKEN"];

/// Runs a command for each message.
pub(super) struct Exec {
    command: String,
    timeout: Duration,
    pass_meta: bool,
    closed: CancellationToken,
}

/// Options: `cmd`, `timeout`, `pass_meta`.
pub(super) fn build(options: &BackendOptions, _: &Trust) -> Result<Arc<dyn Backend>, String> {
    options.only(&["cmd", "timeout", "pass_meta"])?;
    let timeout = options.duration("timeout", TIMEOUT_DEFAULT)?;
    let pass_meta = options.flag("pass_meta", false)?;
    Ok(Arc::new(Exec::new(options.require("cmd")?, timeout, pass_meta)?))
}

impl Exec {
    /// `command` is what a shell runs.
    pub(super) fn new(command: &str, timeout: Duration, pass_meta: bool) -> Result<Self, String> {
        if command.contains('\0') {
            return Err("a command has no NUL".into());
        }
        let closed = CancellationToken::new();
        Ok(Self { command: command.into(), timeout, pass_meta, closed })
    }

    fn spawn(&self, request: &Request) -> io::Result<Child> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &self.command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for name in SECRET_VARIABLES {
            command.env_remove(name);
        }
        if self.pass_meta {
            let message_id = &request.message_id;
            for (name, value) in [
                ("ACTA_WORKER_ID", &request.workspace_id),
                ("ACTA_CALLER_ID", &request.caller_id),
                ("ACTA_MESSAGE_ID", message_id),
                ("ACTA_TASK_ID", &request.task_id),
                ("ACTA_METHOD", &request.method),
            ] {
                // A sender may write anything into an id; a variable cannot hold this one.
                command.env(name, value.replace('\0', ""));
            }
        }
        command.spawn()
    }

    async fn run(
        &self,
        request: &Request,
        progress: ProgressSender,
    ) -> Result<Response, BackendError> {
        let failed = |error: io::Error| {
            BackendError::Failed(format!("the command could not be started: {error}"))
        };
        let mut child = self.spawn(request).map_err(failed)?;
        let pid = child.id().ok_or_else(|| failed(io::Error::other("it has no number")))?;
        let mut group = Group::new(pid);
        let deadline = Instant::now() + self.timeout;
        let missing = || failed(io::Error::other("it has no pipes"));
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let mut stdout = child.stdout.take().ok_or_else(missing)?;
        let mut stderr = child.stderr.take().ok_or_else(missing)?;
        if let Some(process) = identify(pid) {
            progress.send(Progress::Process(process)).await;
        }
        let (mut answer, mut complaint) = (Answer::default(), Vec::new());
        let said = {
            let work = async {
                let mut pipes = std::pin::pin!(async {
                    tokio::join!(
                        give(stdin, request.text()),
                        answer.read(&mut stdout, &progress),
                        read_tail(&mut stderr, &mut complaint),
                    )
                });
                // Somebody may hold the pipes open after the command itself has ended.
                tokio::select! {
                    _ = &mut pipes => child.wait().await,
                    status = child.wait() => {
                        group.leader_reaped();
                        let _ = timeout(DRAIN_WAIT, &mut pipes).await;
                        status
                    }
                }
            };
            tokio::select! {
                said = timeout_at(deadline, work) => Some(said),
                () = self.closed.cancelled() => None,
            }
        };
        let status = match said {
            Some(Ok(status)) => status.map_err(failed)?,
            Some(Err(_)) => {
                group.kill();
                let why = format!("no answer within {}", shown(self.timeout));
                return Err(BackendError::Failed(with_tail(why, &complaint)));
            }
            None => {
                group.terminate();
                let _ = timeout(CLOSE_GRACE, child.wait()).await;
                return Err(BackendError::Closed);
            }
        };
        group.leader_reaped();
        group.settle();
        if !status.success() {
            return Err(BackendError::Failed(with_tail(ending(status), &complaint)));
        }
        Ok(answer.finish())
    }
}

impl Backend for Exec {
    fn handle<'a>(
        &'a self,
        request: &'a Request,
        progress: ProgressSender,
    ) -> BoxFuture<'a, Result<Response, BackendError>> {
        self.run(request, progress).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.cancel();
        ready(()).boxed()
    }
}

/// A command that does not want its input has its reasons.
async fn give(mut stdin: ChildStdin, text: String) {
    let _ = stdin.write_all(text.as_bytes()).await;
    let _ = stdin.shutdown().await;
}

/// What a command has printed.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    told: usize,
    cut: u64,
}

impl Answer {
    async fn read(&mut self, stdout: &mut (impl AsyncRead + Unpin), progress: &ProgressSender) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            // A pipe that cannot be read any more has ended.
            let len = stdout.read(&mut buffer).await.unwrap_or(0);
            if len == 0 {
                return;
            }
            let kept = len.min(ANSWER_BYTES_MAX - self.bytes.len());
            self.bytes.extend_from_slice(&buffer[..kept]);
            self.cut += (len - kept) as u64;
            if let Some(text) = self.untold() {
                let piece = Response { parts: vec![Part::text(text)], is_final: false };
                progress.send(Progress::Piece(piece)).await;
            }
        }
    }

    /// What was not told yet, up to the last whole character.
    fn untold(&mut self) -> Option<String> {
        let bytes = &self.bytes[self.told..];
        let whole = match std::str::from_utf8(bytes) {
            Ok(_) => bytes.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => bytes.len(),
        };
        let text = String::from_utf8_lossy(&bytes[..whole]).into_owned();
        self.told += whole;
        (!text.is_empty()).then_some(text)
    }

    /// The answer, without the newline that a command ends its output with.
    fn finish(self) -> Response {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        match self.cut {
            0 => Response::text(text),
            cut => Response::text(format!("{text}\n[{cut} bytes more were cut off]")),
        }
    }
}

async fn read_tail(stderr: &mut (impl AsyncRead + Unpin), tail: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    loop {
        let len = stderr.read(&mut buffer).await.unwrap_or(0);
        if len == 0 {
            return;
        }
        tail.extend_from_slice(&buffer[..len]);
        tail.drain(..tail.len().saturating_sub(COMPLAINT_BYTES_MAX));
    }
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the command ended with status {code}"),
        (None, Some(signal)) => format!("the command was ended by signal {signal}"),
        (None, None) => "the command ended in an unknown way".into(),
    }
}

fn with_tail(what: String, complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    match text.trim() {
        "" => what,
        tail => format!("{what}: {tail}"),
    }
}
