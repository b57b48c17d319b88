//! The closed-loop load generator: one thread, epoll, one outstanding command per connection.
//!
//! It shares two cores with the service, so a request costs one `write` of a prepared buffer in
//! which only the key and the content change, and one `read` of an answer of which only the
//! status and the length are looked at.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mio::{Events, Poll};

use crate::client::{find, post_request};
use crate::link::Link;
use crate::machine::thread_cpu_seconds;

pub(crate) const CONTENT_BYTES: usize = 120;
const KEY_DIGITS: usize = 16;
/// After the window, outstanding commands get this long to be answered.
const DRAIN: Duration = Duration::from_secs(20);

pub(crate) struct Plan<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) token: &'a str,
    /// Connection `i` sends to worker `i % workers.len()`.
    pub(crate) workers: &'a [String],
    pub(crate) connections: usize,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    /// The keys are this and sixteen hexadecimal digits that count from 0.
    pub(crate) key_prefix: &'a str,
}

pub(crate) struct Outcome {
    /// All commands answered with 200, those of the warm-up and of the drain included.
    pub(crate) acknowledged: u64,
    /// Commands sent; the keys 0..sent were used.
    pub(crate) sent: u64,
    /// Acknowledged per second within the window.
    pub(crate) rate: f64,
    pub(crate) latencies_us: Vec<f64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// CPU of the generator within the window, per command.
    pub(crate) cpu_us: f64,
}

struct Connection {
    link: Link,
    key_at: usize,
    content_at: usize,
    sent_at: Instant,
    waiting: bool,
}

/// Text of which every command carries another part.
struct Prose {
    text: Vec<u8>,
    state: u64,
}

impl Prose {
    fn new() -> Self {
        const WORDS: [&str; 16] = [
            "ledger", "please", "review", "branch", "and", "report", "what", "changed", "in",
            "the", "build", "before", "noon", "deploy", "rollback", "tests",
        ];
        let mut text = String::new();
        while text.len() < 1 << 16 {
            text.push_str(WORDS[usize::from(rand::random::<u8>() % 16)]);
            text.push(' ');
        }
        Self { text: text.into_bytes(), state: rand::random::<u64>() | 1 }
    }

    fn next(&mut self) -> &[u8] {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let at = self.state as usize % (self.text.len() - CONTENT_BYTES);
        &self.text[at..at + CONTENT_BYTES]
    }
}

impl Connection {
    fn open(plan: &Plan<'_>, index: usize) -> Result<Self> {
        let mut link = Link::open(plan.address)?;
        let content = "c".repeat(CONTENT_BYTES);
        let key = format!("{}{}", plan.key_prefix, "k".repeat(KEY_DIGITS));
        let path = format!("/v1/workers/{}/input", plan.workers[index % plan.workers.len()]);
        let body = format!(r#"{{"kind":"user","content":"{content}"}}"#);
        link.request =
            post_request(&plan.address.to_string(), plan.token, &path, &key, &body).into_bytes();
        let key_at = find(&link.request, key.as_bytes()).context("no key in the request")?;
        let content_at = find(&link.request, content.as_bytes()).context("no content")?;
        Ok(Self {
            link,
            key_at: key_at + plan.key_prefix.len(),
            content_at,
            sent_at: Instant::now(),
            waiting: false,
        })
    }

    fn send(&mut self, number: u64, prose: &mut Prose, now: Instant) -> Result<()> {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let request = &mut self.link.request;
        let key = &mut request[self.key_at..self.key_at + KEY_DIGITS];
        for (at, digit) in key.iter_mut().enumerate() {
            *digit = HEX[(number >> (4 * (KEY_DIGITS - 1 - at))) as usize & 15];
        }
        request[self.content_at..self.content_at + CONTENT_BYTES].copy_from_slice(prose.next());
        self.sent_at = now;
        self.waiting = true;
        self.link.send()
    }
}

struct Loop<'a> {
    plan: &'a Plan<'a>,
    connections: Vec<Connection>,
    prose: Prose,
    open: usize,
    outcome: Outcome,
    counted: u64,
    window_from: Instant,
    window_to: Instant,
}

/// Runs the plan to its end; an error only when it cannot even start.
pub(crate) fn run(plan: &Plan<'_>) -> Result<Outcome> {
    ensure!(plan.connections > 0 && !plan.workers.is_empty(), "nothing to do");
    let mut poll = Poll::new()?;
    let mut connections = Vec::with_capacity(plan.connections);
    for index in 0..plan.connections {
        let mut connection = Connection::open(plan, index)?;
        connection.link.watch(&poll, index)?;
        connections.push(connection);
    }
    let start = Instant::now();
    let mut state = Loop {
        plan,
        connections,
        prose: Prose::new(),
        open: plan.connections,
        outcome: Outcome {
            acknowledged: 0,
            sent: 0,
            rate: 0.0,
            latencies_us: Vec::with_capacity(1 << 20),
            errors: 0,
            first_error: None,
            cpu_us: 0.0,
        },
        counted: 0,
        window_from: start + plan.warm_up,
        window_to: start + plan.warm_up + plan.window,
    };
    for index in 0..plan.connections {
        state.next_command(index, Instant::now());
    }
    state.turn_until_done(&mut poll)?;
    Ok(state.outcome)
}

impl Loop<'_> {
    fn turn_until_done(&mut self, poll: &mut Poll) -> Result<()> {
        let mut events = Events::with_capacity(1_024);
        let mut scratch = vec![0; 1 << 14];
        let (mut cpu_from, mut cpu_to) = (None, None);
        while self.open > 0 {
            poll.poll(&mut events, Some(Duration::from_millis(100)))?;
            let now = Instant::now();
            if cpu_from.is_none() && now >= self.window_from {
                cpu_from = Some(thread_cpu_seconds());
            }
            if cpu_to.is_none() && now >= self.window_to {
                cpu_to = Some(thread_cpu_seconds());
            }
            if now > self.window_to + DRAIN {
                self.error(format!("{} commands were never answered", self.open));
                break;
            }
            for event in &events {
                self.event(event.token().0, event.is_writable(), &mut scratch);
            }
        }
        let cpu = cpu_to.unwrap_or_else(thread_cpu_seconds) - cpu_from.unwrap_or(0.0);
        self.outcome.cpu_us = cpu * 1e6 / self.counted.max(1) as f64;
        self.outcome.rate = self.counted as f64 / self.plan.window.as_secs_f64();
        Ok(())
    }

    fn event(&mut self, index: usize, writable: bool, scratch: &mut [u8]) {
        let connection = &mut self.connections[index];
        if !connection.waiting {
            return;
        }
        match connection.link.turn(writable, scratch) {
            Ok(false) => {}
            Ok(true) => {
                let now = Instant::now();
                self.answered(index, now);
                self.next_command(index, now);
            }
            Err(error) => self.lost(index, &error),
        }
    }

    fn answered(&mut self, index: usize, now: Instant) {
        let connection = &mut self.connections[index];
        connection.waiting = false;
        if connection.link.status() != Some(200) {
            let shown = connection.link.shown();
            self.error(shown);
            return;
        }
        self.outcome.acknowledged += 1;
        if now >= self.window_from && now < self.window_to {
            self.counted += 1;
            let taken = now - connection.sent_at;
            self.outcome.latencies_us.push(taken.as_secs_f64() * 1e6);
        }
    }

    /// Sends the next command, or closes the connection when the window is over.
    fn next_command(&mut self, index: usize, now: Instant) {
        if now >= self.window_to {
            self.open -= 1;
            return;
        }
        let number = self.outcome.sent;
        self.outcome.sent += 1;
        if let Err(error) = self.connections[index].send(number, &mut self.prose, now) {
            self.lost(index, &error);
        }
    }

    fn lost(&mut self, index: usize, error: &anyhow::Error) {
        self.connections[index].waiting = false;
        self.open -= 1;
        self.error(format!("connection {index}: {error:#}"));
    }

    fn error(&mut self, text: String) {
        self.outcome.errors += 1;
        self.outcome.first_error.get_or_insert(text);
    }
}
