//! Agents that connect in: a fleet at rest, and a message to one of them that waits for it.
//!
//! Every agent is made by the requests that a person and a deployed client would make. The
//! figures of the fleet stand beside those of an empty request at the same rate, by the same
//! generator over the same connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::Options;
use crate::client::Client;
use crate::fleet::{Agent, Asks, Fleet, Tally};
use crate::machine;
use crate::report::{Figure, Report, Target, number};
use crate::service::{Service, head};

/// Keep-alive connections that the whole fleet shares.
const CONNECTIONS: usize = 256;
/// Threads that create and register agents, so that they share syncs.
const ENLISTING: usize = 16;
/// Messages to an agent that waits for one.
const MESSAGES: usize = 200;
/// The poller is waiting again well within this, and if it is not, its poll is answered at once.
const BETWEEN_MESSAGES: Duration = Duration::from_millis(20);
/// The messages take far less; the fleet must not run for ever if they do not.
const MESSAGES_DEADLINE: Duration = Duration::from_secs(120);
/// Of the empty requests beside it.
const BARE_MAX: Duration = Duration::from_secs(8);
/// What a lease is unless configured.
const LEASE_SECS: f64 = 60.0;

/// A worker and the token of its agent.
struct Member {
    id: String,
    token: String,
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    println!("external: {} connected agents over {CONNECTIONS} connections", options.workers);
    let service = Service::start(&options.binary, &options.directory, options.lines)?;
    let begun = Instant::now();
    let members = enlist(&service, options.workers)?;
    let enlisted = begun.elapsed();
    // A connection that asks nothing for half a minute is closed, so each look has its own.
    let head = || head(&mut service.client()?);
    let connected_at = head()?;
    let agents = members.iter().map(|member| agent(service.address, member)).collect();
    let mut fleet = Fleet::new(service.address, agents, CONNECTIONS, &service.token)?;
    let beginning = Instant::now();

    let window = Duration::from_secs_f64(options.seconds);
    let never = AtomicBool::new(false);
    // A few seconds of it tell as much as many.
    let bare = fleet.run(Asks::Nothing, window.min(BARE_MAX), &never)?;
    let before = head()?;
    let cpu = machine::cpu_seconds(service.pid());
    let idle = fleet.run(Asks::Inboxes, window, &never)?;
    let cpu = machine::cpu_seconds(service.pid()) - cpu;
    let written = head()? - before;
    polls(report, options, bare, idle, cpu)?;
    report.add(
        Figure::new("external: records by the idle fleet", written as f64, "")
            .target(Target::ValueAtMost(0.0)),
    );

    // Two that are not of the fleet and do not beat: one asks the other, which waits.
    let pair = enlist(&service, 2)?;
    let (mut hands, fleet_ms) = in_hands(&service, &mut fleet, &pair)?;
    in_hands_figures(report, &mut hands, fleet_ms);
    let lost = lost(&mut service.client()?, connected_at)?;
    let watched = beginning.elapsed().as_secs_f64();
    report.add(
        Figure::new("external: missed leases", lost as f64, "")
            .target(Target::ValueAtMost(0.0))
            .note(format!(
                "offline or degraded within {watched:.0} s{}; all were connected in {:.1} s",
                if watched < LEASE_SECS { ", which is less than a lease of 60 s" } else { "" },
                enlisted.as_secs_f64()
            )),
    );
    report.add(Figure::new(
        "external: peak memory",
        machine::peak_memory_mib(service.pid())?,
        "MiB",
    ));
    service.stop()?;
    Ok(())
}

fn polls(
    report: &mut Report,
    options: &Options,
    mut bare: Tally,
    mut idle: Tally,
    cpu: f64,
) -> Result<()> {
    let count = idle.polls_ms.len();
    // The rate is kept: whoever falls behind answers as many, but late.
    let expected = options.workers as f64 * options.seconds;
    ensure!(count as f64 >= expected * 0.99, "{count} polls of about {expected}");
    for (name, share, target) in [("median", 0.5, Some(20.0)), ("p99", 0.99, None)] {
        let value = machine::percentile(&mut idle.polls_ms, share);
        let beside = machine::percentile(&mut bare.polls_ms, share);
        let mut figure = Figure::new(format!("external: poll, {name}"), value, "ms")
            .against("an empty request at the same rate", beside);
        if let Some(most) = target {
            figure = figure.target(Target::ValueAtMost(most)).note(format!(
                "{} polls and {} beats; {:.0} us of CPU a poll, generator {:.0} us; {} waited for \
                 a connection at most",
                number(count as f64),
                idle.beats,
                cpu * 1e6 / count.max(1) as f64,
                idle.cpu_seconds * 1e6 / count.max(1) as f64,
                idle.queued_max
            ));
        }
        report.add(figure);
    }
    Ok(())
}

fn in_hands_figures(report: &mut Report, hands: &mut [f64], mut fleet: Tally) {
    let beside = machine::percentile(&mut fleet.polls_ms, 0.5);
    let count = hands.len();
    for (name, share) in [("median", 0.5), ("max", 1.0)] {
        report.add(
            Figure::new(
                format!("external: in a poller's hands, {name}"),
                machine::percentile(hands, share),
                "ms",
            )
            .target(Target::ValueAtMost(50.0))
            .note(format!(
                "{count} messages to an agent in wait=30 beside the fleet, whose polls took \
                 {beside:.1} ms at the median"
            )),
        );
    }
}

/// Creates workers and registers their agents.
fn enlist(service: &Service, count: usize) -> Result<Vec<Member>> {
    let created = in_threads(service, count, |client, n| {
        let body = json!({"name": format!("agent {n}"), "runtime": "external"}).to_string();
        let request = post(service.address, &service.token, "/workspaces", &body);
        let answer = client.exchange(request.as_bytes())?;
        ensure!(answer.status == 201, "creating a worker was answered {}", answer.status);
        let answer: Value = serde_json::from_slice(&answer.body)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let id = text(&answer["id"]).context("a worker without an id")?;
        let token = text(&answer["connection"]["auth_token"]).context("no token")?;
        Ok(Member { id, token })
    })?;
    in_threads(service, count, |client, n| {
        let Member { id, token } = &created[n];
        let body = json!({
            "id": id,
            "agent_card": {"name": id, "description": "load bench", "version": "0.1.0"},
            "delivery_mode": "poll",
        });
        let request = post(service.address, token, "/registry/register", &body.to_string());
        client.exchange(request.as_bytes())?.json()
    })?;
    Ok(created)
}

/// Does something for every number below `count`, some at a time; the results are in order.
fn in_threads<T: Send>(
    service: &Service,
    count: usize,
    one: impl Fn(&mut Client, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            let mut client = service.client()?;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok(());
                }
                let result = one(&mut client, n)?;
                done.lock().map_err(|_| anyhow!("another thread failed"))?.push((n, result));
            }
        };
        let threads: Vec<_> = (0..ENLISTING).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    let mut done = done.into_inner().map_err(|_| anyhow!("a thread panicked"))?;
    done.sort_by_key(|(n, _)| *n);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

fn get(address: SocketAddr, token: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n")
}

/// Without an `Idempotency-Key`, which deployed clients do not send.
pub(crate) fn post(address: SocketAddr, token: &str, path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What a deployed client sends, as it sends it.
fn agent(address: SocketAddr, member: &Member) -> Agent {
    let poll = format!("/workspaces/{}/activity?type=a2a_receive&limit=50", member.id);
    let beat = json!({
        "workspace_id": member.id, "runtime_state": "ok", "uptime_seconds": 30,
    });
    Agent {
        poll: get(address, &member.token, &poll).into_bytes(),
        beat: post(address, &member.token, "/registry/heartbeat", &beat.to_string()).into_bytes(),
    }
}

/// Milliseconds from a message being posted to its being in the hands of an agent that waits for
/// one, while the fleet goes on.
fn in_hands(service: &Service, fleet: &mut Fleet, pair: &[Member]) -> Result<(Vec<f64>, Tally)> {
    let [asker, waiting] = pair else { anyhow::bail!("a pair of agents") };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let polling = scope.spawn(|| fleet.run(Asks::Inboxes, MESSAGES_DEADLINE, &stop));
        let taken = post_and_wait(service, asker, waiting);
        stop.store(true, Ordering::Relaxed);
        let tally = polling.join().map_err(|_| anyhow!("the fleet panicked"))??;
        Ok((taken?, tally))
    })
}

fn post_and_wait(service: &Service, asker: &Member, waiting: &Member) -> Result<Vec<f64>> {
    let (address, mut client) = (service.address, service.client()?);
    let path = format!("/workspaces/{}/a2a", waiting.id);
    let (sender, arrivals) = mpsc::channel();
    let mut poller = service.client()?;
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || wait_for_all(address, &mut poller, waiting, &sender));
        let mut taken = Vec::with_capacity(MESSAGES);
        for n in 0..MESSAGES {
            std::thread::sleep(BETWEEN_MESSAGES);
            let text = format!("message {n}");
            let body = json!({"jsonrpc": "2.0", "method": "message/send", "params": {"message":
                {"messageId": text, "parts": [{"type": "text", "kind": "text", "text": text}]}}});
            let request = post(address, &asker.token, &path, &body.to_string());
            let begun = Instant::now();
            client.exchange(request.as_bytes())?.json()?;
            let Ok((said, at)) = arrivals.recv_timeout(MESSAGES_DEADLINE) else { break };
            ensure!(said == text, "{said:?} arrived where {text:?} was posted");
            taken.push(at.saturating_duration_since(begun).as_secs_f64() * 1e3);
        }
        waiter.join().map_err(|_| anyhow!("the poller panicked"))??;
        ensure!(taken.len() == MESSAGES, "{} of {MESSAGES} messages arrived", taken.len());
        Ok(taken)
    })
}

/// Waits for one message after the other, as `acta connect` does; tells what each says and when
/// it had been understood.
fn wait_for_all(
    address: SocketAddr,
    client: &mut Client,
    waiting: &Member,
    arrivals: &mpsc::Sender<(String, Instant)>,
) -> Result<()> {
    let mut cursor = String::new();
    for _ in 0..MESSAGES {
        let since = if cursor.is_empty() { String::new() } else { format!("&since_id={cursor}") };
        let path =
            format!("/workspaces/{}/activity?type=a2a_receive&limit=50&wait=30{since}", waiting.id);
        let request = get(address, &waiting.token, &path);
        let rows = client.exchange(request.as_bytes())?.json()?;
        let at = Instant::now();
        let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
        let [row] = rows else { anyhow::bail!("{} messages where one was posted", rows.len()) };
        cursor = row["id"].as_str().context("a message without an id")?.to_owned();
        let text = row["request_body"]["params"]["message"]["parts"][0]["text"].as_str();
        arrivals.send((text.unwrap_or_default().to_owned(), at))?;
    }
    Ok(())
}

/// How many agents were declared lost or of limited use since.
fn lost(client: &mut Client, since: u64) -> Result<u64> {
    let (mut after, mut lost) = (since, 0);
    loop {
        let path = format!("/v1/events?after={after}&type=worker_offline,worker_degraded");
        let page = client.get(&path)?.json()?;
        let events = page["events"].as_array().context("a page without events")?;
        let Some(last) = events.last() else { return Ok(lost) };
        lost += events.len() as u64;
        after = last["seq"].as_u64().context("an event without a sequence")?;
    }
}
