//! Which hosts are there: leases in memory, and events only when that changes.
//!
//! A beat renews the lease of a host; it is not an event. One task, which the service owns, looks
//! for leases that have run out and has `host_lost` recorded. A lost host that beats again is
//! `host_found`. After a start every lease is granted anew, since nothing was heard of anybody while
//! the service was down. What is in the table is bounded by the registered hosts.

use crate::{
    command::{Command, Request},
    engine::{Clock as _, EngineHandle, SystemClock},
    log::Log,
};
use acta_events::{HostId, Timestamp};
use acta_projections::HostStatus;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

/// The longest time between two looks for leases that have run out.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// The shortest.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(10);

/// The leases of hosts. Cheap to clone.
#[derive(Clone)]
pub struct HostLeases {
    shared: Arc<Shared>,
}

struct Shared {
    lease: Duration,
    /// The hosts that this machine is: they are there as long as the service is.
    own: Vec<HostId>,
    table: Mutex<BTreeMap<HostId, Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    granted: Instant,
    /// None if the lease was granted without having heard of the host.
    at: Option<Timestamp>,
}

/// The task that looks for lost hosts; its owner ends it.
pub struct HostLeasesOwner {
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl HostLeases {
    /// Begins to look for hosts of which nothing is heard for longer than `lease`.
    pub fn start(
        log: Arc<Log>,
        engine: EngineHandle,
        own: Vec<HostId>,
        lease: Duration,
    ) -> (Self, HostLeasesOwner) {
        let shared = Arc::new(Shared { lease, own, table: Mutex::default() });
        let (end, ended) = watch::channel(false);
        let look = Look { shared: Arc::clone(&shared), log, engine, is_failing: false };
        let task = tokio::spawn(look.run(ended));
        (Self { shared }, HostLeasesOwner { end, task })
    }

    /// How long a host may be silent.
    pub fn lease(&self) -> Duration {
        self.shared.lease
    }

    /// Notes that a registered host was heard of, and tells the time of that.
    pub fn beat(&self, host: &HostId) -> Timestamp {
        self.shared.beat(host)
    }

    /// When a host was last heard of, if that was since the service started.
    pub fn last_seen(&self, host: &HostId) -> Option<Timestamp> {
        self.shared.table.lock().get(host)?.at
    }
}

impl HostLeasesOwner {
    /// Ends the task. What it is recording is waited for.
    pub async fn close(self) {
        self.end.send_replace(true);
        if self.task.await.is_err() {
            tracing::error!("the task that looks for lost hosts has failed");
        }
    }
}

impl Shared {
    fn beat(&self, host: &HostId) -> Timestamp {
        let now = SystemClock.now();
        let mut table = self.table.lock();
        let seen = Seen { granted: Instant::now(), at: Some(now) };
        match table.get_mut(host) {
            Some(known) => *known = seen,
            None => drop(table.insert(host.clone(), seen)),
        }
        now
    }

    /// Those of the hosts whose lease has run out. One without a lease is granted one.
    fn overdue(&self, hosts: Vec<HostId>) -> Vec<(HostId, Seen)> {
        let now = Instant::now();
        let mut table = self.table.lock();
        let lease = |host: HostId| {
            let seen = *table.entry(host.clone()).or_insert(Seen { granted: now, at: None });
            (now.duration_since(seen.granted) > self.lease).then_some((host, seen))
        };
        hosts.into_iter().filter_map(lease).collect()
    }

    fn has_beaten_since(&self, host: &HostId, seen: Seen) -> bool {
        self.table.lock().get(host).is_some_and(|now| now.granted != seen.granted)
    }
}

struct Look {
    shared: Arc<Shared>,
    log: Arc<Log>,
    engine: EngineHandle,
    is_failing: bool,
}

impl Look {
    async fn run(mut self, mut ended: watch::Receiver<bool>) {
        let every = (self.shared.lease / 4).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
        loop {
            for own in &self.shared.own {
                self.shared.beat(own);
            }
            self.lose_the_silent(&ended).await;
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    async fn lose_the_silent(&mut self, ended: &watch::Receiver<bool>) {
        let online: Vec<HostId> = {
            let views = self.log.views().read();
            let online = views.hosts.iter().filter(|(_, host)| {
                // What stands for another service does not beat; it is asked.
                let asked = views.runtimes.get(&host.runtime).is_some_and(|it| it.remote.is_some());
                host.status == HostStatus::Online && !asked
            });
            online.map(|(id, _)| id.clone()).collect()
        };
        for (host, seen) in self.shared.overdue(online) {
            if *ended.borrow() {
                return;
            }
            let lose = Command::LoseHost { host: host.clone(), last_seen_at: seen.at };
            let mut done = self.submit(lose).await;
            // A beat that came in between found the host online, and recorded nothing.
            if done && self.shared.has_beaten_since(&host, seen) {
                done = self.submit(Command::FindHost { host }).await;
            }
            if !done {
                return;
            }
        }
    }

    /// Whether it was recorded. What was not is seen again at the next look.
    async fn submit(&mut self, command: Command) -> bool {
        let result = self.engine.submit(Request::service(command)).await;
        if let Err(error) = &result
            && !self.is_failing
        {
            tracing::warn!(%error, "a lost host could not be recorded; trying again");
        }
        self.is_failing = result.is_err();
        !self.is_failing
    }
}
