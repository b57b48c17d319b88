//! A fleet of agents that connect in, as one thread plays it: each polls once a second and beats
//! every 30 seconds, at its own moment, whether or not the service keeps up.
//!
//! The agents share a bounded number of keep-alive connections: ten thousand sockets would
//! measure the kernel, and need that many descriptors on both sides. What is due waits for a
//! free connection, and its time counts from the moment it was due, so that a service that falls
//! behind cannot hide it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mio::{Events, Poll};

use crate::link::Link;
use crate::machine::thread_cpu_seconds;

/// How often each agent polls, and beats.
const POLL_EVERY: Duration = Duration::from_secs(1);
const BEAT_EVERY: Duration = Duration::from_secs(30);
/// What is outstanding when the time is over gets this long to be answered.
const DRAIN: Duration = Duration::from_secs(20);
const TURN_MAX: Duration = Duration::from_millis(10);

/// The requests of one agent, ready to be sent.
pub(crate) struct Agent {
    pub(crate) poll: Vec<u8>,
    pub(crate) beat: Vec<u8>,
}

/// What the fleet asks for in place of its polls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Its inboxes, all of which are empty.
    Inboxes,
    /// `/healthz`: what a request costs that needs nothing.
    Nothing,
}

#[derive(Clone, Copy)]
enum Kind {
    Poll,
    Beat,
}

struct Errand {
    kind: Kind,
    agent: usize,
    due: Instant,
}

struct Place {
    link: Link,
    errand: Option<Errand>,
}

/// What a run of the fleet came to.
#[derive(Default)]
pub(crate) struct Tally {
    /// From the moment each was due to its whole answer.
    pub(crate) polls_ms: Vec<f64>,
    pub(crate) beats: u64,
    /// Requests that waited for a connection at once, at most.
    pub(crate) queued_max: usize,
    pub(crate) cpu_seconds: f64,
}

pub(crate) struct Fleet {
    agents: Vec<Agent>,
    nothing: Vec<u8>,
    poll: Poll,
    places: Vec<Place>,
    free: VecDeque<usize>,
    queue: VecDeque<Errand>,
    beats_from: Instant,
    beats: u64,
}

impl Fleet {
    /// Connects. From now on the agents have to beat, which they do while the fleet runs.
    pub(crate) fn new(
        address: SocketAddr,
        agents: Vec<Agent>,
        connections: usize,
        token: &str,
    ) -> Result<Self> {
        ensure!(!agents.is_empty() && connections > 0, "nothing to do");
        let poll = Poll::new()?;
        let mut places = Vec::with_capacity(connections);
        for index in 0..connections {
            let mut link = Link::open(address)?;
            link.watch(&poll, index)?;
            places.push(Place { link, errand: None });
        }
        let nothing = format!(
            "GET /healthz HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        Ok(Self {
            agents,
            nothing: nothing.into_bytes(),
            poll,
            free: (0..places.len()).collect(),
            places,
            queue: VecDeque::new(),
            beats_from: Instant::now(),
            beats: 0,
        })
    }

    /// Polls and beats for a time, or until it is told to stop; then waits for what is
    /// outstanding. An answer that is none of a service in order ends the run.
    pub(crate) fn run(&mut self, asks: Asks, time: Duration, stop: &AtomicBool) -> Result<Tally> {
        let mut tally = Tally::default();
        let cpu = thread_cpu_seconds();
        let mut events = Events::with_capacity(1_024);
        let mut scratch = vec![0; 1 << 14];
        let start = Instant::now();
        let mut polls = 0;
        loop {
            let now = Instant::now();
            let is_over = now >= start + time || stop.load(Ordering::Relaxed);
            if !is_over {
                self.enqueue(start, &mut polls, now);
            }
            tally.queued_max = tally.queued_max.max(self.queue.len());
            self.send(asks)?;
            if is_over && self.queue.is_empty() && self.free.len() == self.places.len() {
                break;
            }
            ensure!(now < start + time + DRAIN, "{} requests are not answered", self.outstanding());
            let next = due(start, POLL_EVERY, polls, self.agents.len());
            let wait = next.saturating_duration_since(now).min(TURN_MAX);
            self.poll.poll(&mut events, Some(if is_over { TURN_MAX } else { wait }))?;
            for event in &events {
                let index = event.token().0;
                self.turn(index, event.is_writable(), asks, &mut scratch, &mut tally)?;
            }
        }
        tally.cpu_seconds = thread_cpu_seconds() - cpu;
        Ok(tally)
    }

    fn outstanding(&self) -> usize {
        self.queue.len() + self.places.len() - self.free.len()
    }

    /// Queues whatever is due by now.
    fn enqueue(&mut self, start: Instant, polls: &mut u64, now: Instant) {
        let count = self.agents.len();
        loop {
            let due = due(start, POLL_EVERY, *polls, count);
            if due > now {
                break;
            }
            let agent = (*polls % count as u64) as usize;
            self.queue.push_back(Errand { kind: Kind::Poll, agent, due });
            *polls += 1;
        }
        loop {
            let due = due(self.beats_from, BEAT_EVERY, self.beats, count);
            if due > now {
                break;
            }
            let agent = (self.beats % count as u64) as usize;
            self.queue.push_back(Errand { kind: Kind::Beat, agent, due });
            self.beats += 1;
        }
    }

    fn send(&mut self, asks: Asks) -> Result<()> {
        while let Some(&index) = self.free.front() {
            let Some(errand) = self.queue.pop_front() else { break };
            self.free.pop_front();
            let agent = &self.agents[errand.agent];
            let request = match (errand.kind, asks) {
                (Kind::Beat, _) => &agent.beat,
                (Kind::Poll, Asks::Inboxes) => &agent.poll,
                (Kind::Poll, Asks::Nothing) => &self.nothing,
            };
            let place = &mut self.places[index];
            place.link.request.clone_from(request);
            place.errand = Some(errand);
            place.link.send()?;
        }
        Ok(())
    }

    fn turn(
        &mut self,
        index: usize,
        writable: bool,
        asks: Asks,
        scratch: &mut [u8],
        tally: &mut Tally,
    ) -> Result<()> {
        let place = &mut self.places[index];
        let Some(errand) = &place.errand else { return Ok(()) };
        if !place.link.turn(writable, scratch)? {
            return Ok(());
        }
        let is_poll = matches!(errand.kind, Kind::Poll);
        let expected: Option<&[u8]> = (is_poll && asks == Asks::Inboxes).then_some(b"[]");
        ensure!(
            place.link.status() == Some(200)
                && expected.is_none_or(|expected| place.link.body() == expected),
            "an idle agent was answered: {}",
            place.link.shown()
        );
        match errand.kind {
            Kind::Poll => tally.polls_ms.push(errand.due.elapsed().as_secs_f64() * 1e3),
            Kind::Beat => tally.beats += 1,
        }
        place.errand = None;
        self.free.push_back(index);
        Ok(())
    }
}

/// When the nth request of a fleet is due, if each of its agents makes one in every `every`.
fn due(from: Instant, every: Duration, n: u64, agents: usize) -> Instant {
    from + Duration::from_nanos((every.as_nanos() * u128::from(n) / agents as u128) as u64)
}
