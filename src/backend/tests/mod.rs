//! The actor against real programs, with an inlet and an outlet made for the purpose.

mod flow;
mod jsonl;
mod leftovers;
mod per_input;
mod session;
mod stop;

use super::*;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};

/// No test needs this long; it is there so that a fault ends in a message.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was reported, vector by vector.
#[derive(Default)]
struct Log {
    vectors: Mutex<Vec<Vec<Report>>>,
    count: watch::Sender<usize>,
    /// What the outlet was last asked to make durable, in brief.
    asked: watch::Sender<Vec<String>>,
}

struct TestInlet(mpsc::UnboundedReceiver<Input>);

impl Inlet for TestInlet {
    async fn next(&mut self) -> Option<Input> {
        self.0.recv().await
    }
}

struct TestOutlet {
    log: Arc<Log>,
    /// Each report takes one permit and keeps it; closed means closed.
    gate: Arc<Semaphore>,
}

impl Outlet for TestOutlet {
    async fn report(&mut self, reports: Vec<Report>) -> Result<(), Closed> {
        let bytes: usize = reports.iter().map(Report::content_bytes).sum();
        assert!(!reports.is_empty() && reports.len() <= REPORTS_MAX);
        assert!(bytes <= REPORT_BYTES_MAX || reports.len() == 1, "{bytes} bytes");
        self.log.asked.send_replace(brief(&reports));
        self.gate.acquire().await.map_err(|_| Closed)?.forget();
        self.log.vectors.lock().push(reports);
        self.log.count.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// A worker under test.
struct Rig {
    inputs: Option<mpsc::UnboundedSender<Input>>,
    stop: watch::Sender<Option<StopMode>>,
    log: Arc<Log>,
    gate: Arc<Semaphore>,
    task: JoinHandle<Ended>,
    sent: u64,
}

fn spec(mode: Mode, framing: Framing, argv: &[&str]) -> ExecSpec {
    ExecSpec {
        argv: argv.iter().map(|&arg| arg.to_owned()).collect(),
        mode,
        framing,
        env: Vec::new(),
        work_dir: std::env::temp_dir(),
        turn_idle: Duration::from_millis(250),
        stop_grace: Duration::from_secs(20),
    }
}

/// A `text` session without an idle limit that could disturb.
fn session(argv: &[&str]) -> ExecSpec {
    ExecSpec { turn_idle: PATIENCE, ..spec(Mode::Session, Framing::Text, argv) }
}

/// A `text` session of a shell script.
fn script(text: &str) -> ExecSpec {
    session(&["sh", "-c", text])
}

impl Rig {
    fn start(spec: ExecSpec) -> Self {
        Self::gated(spec, Semaphore::MAX_PERMITS)
    }

    /// The outlet takes only so many reports until more permits are added.
    fn gated(spec: ExecSpec, permits: usize) -> Self {
        let (inputs, inlet) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(None);
        let log = Arc::<Log>::default();
        let gate = Arc::new(Semaphore::new(permits));
        let outlet = TestOutlet { log: log.clone(), gate: gate.clone() };
        let task = tokio::spawn(run(spec, 1, TestInlet(inlet), outlet, stopped));
        Self { inputs: Some(inputs), stop, log, gate, task, sent: 0 }
    }

    fn input(&mut self, content: impl Into<Bytes>) {
        self.sent += 1;
        let input = Input {
            seq: Sequence(self.sent),
            message_id: format!("m{}", self.sent),
            kind: InputKind::User,
            content: content.into(),
        };
        let inputs = self.inputs.as_ref().expect("the inlet is open");
        inputs.send(input).expect("the actor holds the inlet");
    }

    fn reports(&self) -> Vec<Report> {
        self.log.vectors.lock().iter().flatten().cloned().collect()
    }

    /// Waits until the reports satisfy `condition`.
    async fn until(&self, what: &str, condition: impl Fn(&[Report]) -> bool) -> Vec<Report> {
        let mut count = self.log.count.subscribe();
        let wait = async {
            loop {
                count.mark_unchanged();
                let reports = self.reports();
                if condition(&reports) {
                    return reports;
                }
                count.changed().await.expect("the log has its sender");
            }
        };
        match timeout(PATIENCE, wait).await {
            Ok(reports) => reports,
            Err(_) => panic!("{what} did not happen: {:?}", brief(&self.reports())),
        }
    }

    /// Waits until the outlet is asked to make `line` durable.
    async fn asked_for(&self, line: &str) {
        let mut asked = self.log.asked.subscribe();
        let found = asked.wait_for(|lines| lines.iter().any(|found| found == line));
        timeout(PATIENCE, found).await.expect(line).expect("the log has its sender");
    }

    /// Waits until the child has made a file.
    async fn made(&self, dir: &tempfile::TempDir, name: &str) {
        let wait = async {
            while !dir.path().join(name).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect(name);
    }

    async fn until_text(&self, wanted: &str) -> Vec<Report> {
        self.until(wanted, |reports| text(reports).contains(wanted)).await
    }

    async fn process(&self) -> ProcessRef {
        let found = |reports: &[Report]| {
            reports.iter().find_map(|report| match report {
                Report::Connected { process: Some(process) } | Report::Started { process, .. } => {
                    Some(process.clone())
                }
                _ => None,
            })
        };
        found(&self.until("a process", |reports| found(reports).is_some()).await)
            .expect("just seen")
    }

    /// Waits for the end and gives what was reported.
    async fn end(mut self) -> (Ended, Vec<Report>) {
        let ended = timeout(PATIENCE, &mut self.task).await;
        let reports = self.reports();
        match ended {
            Ok(ended) => (ended.expect("the actor does not panic"), reports),
            Err(_) => panic!("it did not end: {:?}", brief(&reports)),
        }
    }

    async fn stop(self, mode: StopMode) -> (Ended, Vec<Report>) {
        self.stop.send_replace(Some(mode));
        self.end().await
    }
}

/// All text of a worker.
fn text(reports: &[Report]) -> String {
    let mut all = Vec::new();
    for report in reports {
        if let Report::Output { kind: OutputKind::TextDelta, content, .. } = report {
            assert!(content.len() <= DELTA_BYTES_MAX && !content.is_empty());
            std::str::from_utf8(content).expect("no delta holds a part of a character");
            all.extend_from_slice(content);
        }
    }
    String::from_utf8(all).expect("deltas are text")
}

fn stderr(reports: &[Report]) -> String {
    let mut all = String::new();
    for report in reports {
        if let Report::Diagnosed { source: "stderr", text } = report {
            assert!(text.len() <= STDERR_BYTES_MAX);
            all += text;
        }
    }
    all
}

/// One line per report, neighbouring deltas joined, without what differs from run to run.
fn brief(reports: &[Report]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut said: Option<(u64, String)> = None;
    for report in reports {
        let line = match report {
            Report::Output { turn, kind: OutputKind::TextDelta, content } => {
                let part = String::from_utf8_lossy(content);
                match &mut said {
                    Some((last, text)) if last == turn => text.push_str(&part),
                    _ => {
                        lines.extend(said.take().map(|(turn, text)| format!("text {turn} {text}")));
                        said = Some((*turn, part.into_owned()));
                    }
                }
                continue;
            }
            Report::Output { turn, kind, content } => {
                format!("{kind:?} {turn} {}", String::from_utf8_lossy(content))
            }
            Report::Connected { .. } => "connected".into(),
            Report::SpawnFailed { message } => format!("spawn failed {message}"),
            Report::Dispatching { input, turn, .. } => format!("dispatching {input} {turn}"),
            Report::Started { turn, .. } => format!("started {turn}"),
            Report::TextDone { turn } => format!("done {turn}"),
            Report::TurnEnded { turn, result, exit } => {
                let exit = exit.map(|exit| format!(" {:?} {:?}", exit.code, exit.signal));
                format!("end {turn} {result:?}{}", exit.unwrap_or_default())
            }
            Report::Diagnosed { source, text } => format!("{source} {text}"),
            Report::InputFailed { input, message } => format!("failed {input} {message}"),
            Report::Exited { exit } => format!("exited {:?} {:?}", exit.code, exit.signal),
        };
        lines.extend(said.take().map(|(turn, text)| format!("text {turn} {text}")));
        lines.push(line);
    }
    lines.extend(said.map(|(turn, text)| format!("text {turn} {text}")));
    for line in &mut lines {
        let cut = line.floor_char_boundary(200);
        line.truncate(cut);
    }
    lines
}

/// Waits until a process is gone or a zombie nobody counts on.
async fn gone(pid: u32) {
    let wait = async {
        while std::fs::exists(format!("/proc/{pid}")).unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("process {pid} is still there"));
}

/// The process group is empty, zombies not counted.
async fn group_gone(group: u32) {
    let lives = || {
        std::fs::read_dir("/proc").expect("there is /proc").flatten().any(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields = stat.rsplit(')').next().unwrap_or("").split_ascii_whitespace();
            let fields: Vec<_> = fields.collect();
            stat.contains(')') && fields[2] == group.to_string() && fields[0] != "Z"
        })
    };
    let wait = async {
        while lives() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("group {group} is still there"));
}
