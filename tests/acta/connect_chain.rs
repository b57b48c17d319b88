//! `acta connect` against the real service: a person asks worker A, A asks worker B, B answers A,
//! A answers the person. Whoever is killed at whatever step, each message is answered exactly once.

use crate::support::{Connector, Deployed, Options, Service, envelope, eventually};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, time::Duration};

/// What worker A does with a message: it asks worker B, waits for the answer, and prints it. A
/// message that it is given again it asks again, under the same id.
const ASK: &str = r#"
import json, os, sys, time, urllib.error, urllib.request
url, token, me, peer = open("ask.conf").read().split()
message = os.environ["ACTA_MESSAGE_ID"]
with open("seen", "a") as seen:
    seen.write(message + "\n")

def call(path, body=None):
    request = urllib.request.Request(
        url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + token, "Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.headers, json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                sys.exit("%s: %s" % (error, error.read()))
        except (OSError, ValueError):
            pass
        time.sleep(0.02)

text = sys.stdin.read()
headers, _ = call("/workspaces/%s/a2a" % peer, {
    "jsonrpc": "2.0", "method": "message/send",
    "params": {"message": {"messageId": "from-" + message,
                           "parts": [{"type": "text", "kind": "text", "text": text}]}}})
row = headers["acta-message-id"]
while True:
    _, replies = call("/workspaces/%s/activity?type=a2a_reply&limit=500" % me)
    for reply in replies:
        if reply["in_reply_to"] == row:
            parts = reply["request_body"]["params"]["message"]["parts"]
            print("B says: " + parts[0]["text"])
            sys.exit(0)
    time.sleep(0.02)
"#;

/// What worker B does with a message.
const ANSWER: &str = "cmd=echo $ACTA_MESSAGE_ID >> seen; cat";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    A,
    B,
    Service,
}

const VICTIMS: [Victim; 3] = [Victim::A, Victim::B, Victim::Service];

/// What is there to be seen once a step is done.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A record of this type of A, or of B.
    OfA(&'static str),
    OfB(&'static str),
    /// The backend has seen the message.
    WorkOfA,
    WorkOfB,
}

const STEPS: [Step; 7] = [
    Step::OfA("message_received"),
    Step::WorkOfA,
    Step::OfB("message_received"),
    Step::WorkOfB,
    Step::OfB("message_answered"),
    Step::OfA("reply_received"),
    Step::OfA("worker_notified"),
];

struct Chain {
    service: Service,
    a: Deployed,
    b: Deployed,
    agent_a: Connector,
    agent_b: Connector,
}

fn connector(service: &Service, worker: &Deployed, cmd: &str) -> Connector {
    let token = worker.client.bearer.as_deref().unwrap();
    let args = [
        "--backend",
        "exec",
        "--backend-opt",
        cmd,
        "--backend-opt",
        "pass_meta=true",
        "--backend-opt",
        "timeout=15s",
    ];
    Connector::new(&service.base, &worker.id, token, &args)
}

impl Chain {
    async fn start() -> Self {
        let service = Service::start().await;
        let (a, b) = (Deployed::awaited(&service).await, Deployed::awaited(&service).await);
        let agent_a = connector(&service, &a, "cmd=exec python3 ask.py");
        let token = a.client.bearer.as_deref().unwrap();
        fs::write(agent_a.home().join("ask.py"), ASK).unwrap();
        let conf = format!("{} {token} {} {}", service.base, a.id, b.id);
        fs::write(agent_a.home().join("ask.conf"), conf).unwrap();
        let (agent_a, agent_b) = (agent_a.started(), connector(&service, &b, ANSWER).started());
        Self { service, a, b, agent_a, agent_b }
    }

    /// A person asks A.
    async fn ask(&self, message: &str) {
        let body = envelope(message, message);
        self.service.post(&self.a.path("/a2a"), &body).await.ok();
    }

    async fn count(&self, step: Step) -> usize {
        let of = async |worker: &Deployed, kind: &str| {
            worker.events(&self.service).await.iter().filter(|got| *got == kind).count()
        };
        match step {
            Step::OfA(kind) => of(&self.a, kind).await,
            Step::OfB(kind) => of(&self.b, kind).await,
            Step::WorkOfA => seen(&self.agent_a).len(),
            Step::WorkOfB => seen(&self.agent_b).len(),
        }
    }

    async fn reaches(&self, step: Step, count: usize) {
        eventually(&format!("{count} × {step:?}"), || async {
            (self.count(step).await >= count).then_some(())
        })
        .await;
    }

    /// Killed, and started again at once.
    async fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::A => {
                self.agent_a.kill9().await;
                self.agent_a.start();
            }
            Victim::B => {
                self.agent_b.kill9().await;
                self.agent_b.start();
            }
            Victim::Service => {
                self.service.kill9().await;
                self.service.restart_here().await;
            }
        }
    }

    /// Each of these was asked once, answered once, and never failed.
    async fn is_complete(&self, messages: usize, kills: &[Victim]) {
        for (worker, kind) in [
            (&self.a, "message_received"),
            (&self.b, "message_received"),
            (&self.b, "message_answered"),
            (&self.a, "reply_received"),
            (&self.a, "worker_notified"),
        ] {
            let records = worker.records(&self.service).await;
            let of_kind: Vec<&Value> =
                records.iter().filter(|record| record["type"] == kind).collect();
            assert_eq!(of_kind.len(), messages, "{kind}: {of_kind:?}");
            if kind != "message_received" {
                let about = counts(of_kind.iter().map(|r| r["data"]["message"].to_string()));
                assert_eq!(about.len(), messages, "{kind}: {about:?}");
            }
            assert!(records.iter().all(|record| record["type"] != "worker_reported"));
        }
        for (agent, victim) in [(&self.agent_a, Victim::A), (&self.agent_b, Victim::B)] {
            let seen = counts(seen(agent));
            assert_eq!(seen.len(), messages, "{victim:?}: {seen:?}");
            let repeats: usize = seen.values().map(|count| count - 1).sum();
            let own = kills.iter().filter(|killed| **killed == victim).count();
            assert!(repeats <= own, "{victim:?}: {repeats} repeats, {own} kills: {seen:?}");
        }
    }
}

/// The ids that a backend saw.
fn seen(agent: &Connector) -> Vec<String> {
    let text = fs::read_to_string(agent.home().join("seen")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn counts(names: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_kill_of_either_agent_or_the_service_at_each_step_costs_and_doubles_nothing() {
    let mut chain = Chain::start().await;
    let mut kills = Vec::new();
    for step in STEPS {
        for victim in VICTIMS {
            let before = chain.count(step).await;
            kills.push(victim);
            chain.ask(&format!("m-{}", kills.len())).await;
            chain.reaches(step, before + 1).await;
            chain.kill(victim).await;
            chain.reaches(Step::OfA("worker_notified"), kills.len()).await;
        }
    }
    chain.is_complete(kills.len(), &kills).await;
}

#[tokio::test]
async fn kills_at_any_moment_leave_each_message_of_the_chain_answered_once() {
    const MESSAGES: usize = 15;
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut chain = Chain::start().await;
    for n in 1..=MESSAGES {
        chain.ask(&format!("m-{n}")).await;
    }
    let mut kills = Vec::new();
    while kills.len() < 25 {
        tokio::time::sleep(Duration::from_millis(rng.random_range(10..400))).await;
        let victim = VICTIMS[rng.random_range(0..VICTIMS.len())];
        kills.push(victim);
        chain.kill(victim).await;
    }
    chain.reaches(Step::OfA("worker_notified"), MESSAGES).await;
    chain.is_complete(MESSAGES, &kills).await;
}

#[tokio::test]
async fn a_person_talks_to_an_agent_and_reads_along_while_it_writes() {
    let service = Service::start().await;
    let worker = Deployed::awaited(&service).await;
    let cmd = "cmd=echo thinking; while ! [ -e go ]; do sleep 0.05; done; tr a-z A-Z";
    let agent = connector(&service, &worker, cmd).started();
    service.acta(&["send", &worker.id, "hello there"]).await.ok();
    // What is printed is there before the answer is.
    let said = async |text: &str| {
        eventually(text, || async {
            let said = service.acta(&["tail", &worker.id, "--from", "start", "--no-follow"]).await;
            said.ok().contains(text).then_some(())
        })
        .await;
    };
    said("thinking").await;
    fs::write(agent.home().join("go"), "").unwrap();
    said("HELLO THERE").await;
    let transcript = service.acta(&["transcript", &worker.id]).await;
    let transcript = transcript.ok();
    assert!(transcript.contains("hello there") && transcript.contains("HELLO THERE"));
    assert_eq!(worker.status(&service).await, "online");
    assert!(!service.log().contains("hello"));
}

#[tokio::test]
async fn a_failed_message_is_told_to_who_watches() {
    let service = Service::start().await;
    let worker = Deployed::awaited(&service).await;
    let asker = Deployed::awaited(&service).await;
    let _agent = connector(&service, &worker, "cmd=echo no luck >&2; exit 3").started();
    asker.ask(&worker, "m-1", "x").await;
    eventually("the report", || async {
        let events = worker.events(&service).await;
        events.iter().any(|kind| kind == "worker_reported").then_some(())
    })
    .await;
    let said = service.acta(&["tail", &worker.id, "--from", "start", "--no-follow"]).await;
    assert!(said.ok().contains("no luck"), "{said:?}");
}

#[tokio::test]
async fn a_removed_worker_ends_its_agent() {
    let service = Service::start().await;
    let worker = Deployed::awaited(&service).await;
    let mut agent = connector(&service, &worker, ANSWER).started();
    agent.says("connected").await;
    service.delete(&worker.path("")).await;
    assert_eq!(agent.ended().await.code(), Some(1), "{}", agent.log());
    let said = agent.log();
    assert!(said.contains("error: ") && said.contains("refuses this worker"), "{said}");
}

#[tokio::test]
async fn a_waiting_agent_has_its_message_at_once() {
    let service = Service::start().await;
    let (worker, asker) = (Deployed::awaited(&service).await, Deployed::awaited(&service).await);
    let token = worker.client.bearer.as_deref().unwrap();
    // So slow that an answer in time is one to a poll that was waiting.
    let args = ["--backend", "mock", "--interval-ms", "60000"];
    let _agent = Connector::new(&service.base, &worker.id, token, &args).started();
    for n in 0..3 {
        asker.ask(&worker, &format!("m-{n}"), "x").await;
        eventually("the answer", || async { (asker.replies().await.len() == n + 1).then_some(()) })
            .await;
    }
    let replies = asker.replies().await;
    let text = &replies[0]["request_body"]["params"]["message"]["parts"][0]["text"];
    assert_eq!(*text, json!("echo: x"));
}

#[tokio::test]
async fn a_person_waits_for_the_answer_of_an_agent() {
    let service = Service::start().await;
    let worker = Deployed::awaited(&service).await;
    let _agent = connector(&service, &worker, "cmd=cat").started();
    let ran = service.acta(&["send", &worker.id, "--wait", "hello"]).await;
    assert_eq!(ran.ok(), "hello");
    let other = Deployed::awaited(&service).await;
    let _failing = connector(&service, &other, "cmd=echo no luck >&2; exit 3").started();
    let ran = service.acta(&["send", &other.id, "--wait", "hello"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("no luck"), "{ran:?}");
}

#[tokio::test]
async fn messages_are_brought_to_an_agent_that_listens_for_them() {
    let service = Options::default().arg("--push-allow").arg("127.0.0.0/8").start().await;
    let (worker, asker) = (Deployed::awaited(&service).await, Deployed::connected(&service).await);
    let token = worker.client.bearer.as_deref().unwrap();
    let args = ["--mode", "push", "--backend", "exec", "--backend-opt", ANSWER];
    let pass = ["--backend-opt", "pass_meta=true"];
    let args = [&args[..], &pass[..]].concat();
    let mut agent = Connector::new(&service.base, &worker.id, token, &args).started();
    agent.says("connected").await;
    asker.client.post(&worker.path("/a2a"), &envelope("m-1", "ping")).await.ok();
    eventually("the answer", || async { (asker.replies().await.len() == 1).then_some(()) }).await;
    let ran = service.acta(&["send", &worker.id, "--wait", "hello"]).await;
    assert_eq!(ran.ok(), "hello");
    // While it is away a message waits; its address is another one afterwards.
    agent.kill9().await;
    let ran = service.acta(&["send", &worker.id, "again"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    agent.start();
    eventually("the answer", || async {
        let events = worker.events(&service).await;
        (events.iter().filter(|kind| *kind == "message_answered").count() == 3).then_some(())
    })
    .await;
    assert_eq!(seen(&agent).len(), 3, "{:?}", seen(&agent));
}
