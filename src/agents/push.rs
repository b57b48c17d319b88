//! Posting messages to agents that have a URL: at least once, in order per worker.
//!
//! One task follows the log. A worker with messages that wait gets a task of its own, which goes
//! through them one after the other; there is no state that could be lost, since what waits is in
//! the log until its delivery, or the end of its attempts, is.

use super::{
    AddressPolicy, external_runtime,
    post::{Attempt, answered, failed, http, reason},
};
use crate::{
    command::{Command, ExternalChange, Request},
    engine::EngineHandle,
    envelope::Envelope,
    error::Rejection,
    feed::{Filter, Follower},
    log::Log,
    trust::Trust,
};
use acta_events::{Event, MediaType, Record, Sequence, WorkerId, WorkerRef};
use acta_projections::{EXTERNAL_RUNTIME, WorkerState, WorkerStatus};
use bytes::Bytes;
use rand::Rng as _;
use reqwest::{Client, header::CONTENT_TYPE};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// How many messages are being posted at once, to all agents together.
const POSTS_AT_ONCE: usize = 1_024;

const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How deliveries are tried.
#[derive(Clone, Copy, Debug)]
pub struct PushLimits {
    /// How often a message is tried before it is given up.
    pub attempts: u32,
    /// The pause after the first attempt; it doubles.
    pub pause: Duration,
    /// How long an agent may take to answer.
    pub answer: Duration,
}

/// What deliveries are made with.
#[derive(Clone)]
struct Push {
    log: Arc<Log>,
    engine: EngineHandle,
    addresses: AddressPolicy,
    limits: PushLimits,
    http: Client,
    posts: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// Ends all deliveries.
#[derive(Debug)]
pub struct PushOwner {
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl PushOwner {
    /// Delivers what waits, then follows the log.
    pub fn start(
        log: Arc<Log>,
        engine: EngineHandle,
        addresses: AddressPolicy,
        limits: PushLimits,
        trust: &Trust,
    ) -> Result<Self, reqwest::Error> {
        let http = http(&addresses, &limits, trust)?;
        let shutdown = CancellationToken::new();
        let posts = Arc::new(Semaphore::new(POSTS_AT_ONCE));
        let push = Push { log, engine, addresses, limits, http, posts, shutdown: shutdown.clone() };
        Ok(Self { shutdown, task: tokio::spawn(push.run()) })
    }

    /// Cuts off what is being posted; it is posted again after the next start.
    pub async fn close(self) {
        self.shutdown.cancel();
        if self.task.await.is_err() {
            tracing::error!("the task that posts messages ended in a panic");
        }
    }
}

/// A worker whose messages are posted, with the one that is next.
struct Next {
    state: Arc<WorkerState>,
    url: String,
    message: Sequence,
}

impl Push {
    async fn run(self) {
        tokio::select! {
            () = self.shutdown.cancelled() => return,
            () = self.log.until_resumed() => {}
        }
        let head = self.log.head();
        let mut at_work = HashSet::new();
        let mut tasks = JoinSet::new();
        for worker in self.with_waiting() {
            self.begin(&worker, &mut at_work, &mut tasks);
        }
        let filter = Filter { runtime: Some(external_runtime()), ..Filter::default() };
        let mut follower = Follower::new(Arc::clone(&self.log), filter, None, head).holding();
        loop {
            match follower.read().await {
                Ok(records) => {
                    for logged in records {
                        if let Some(worker) = &logged.record.header.worker
                            && makes_work(&logged.record.header.event)
                        {
                            self.begin(worker, &mut at_work, &mut tasks);
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "deliveries cannot read the log; they try again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            if !follower.caught_up() {
                continue;
            }
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                more = follower.wait() => if !more { break },
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Ok(worker) = ended {
                        at_work.remove(&worker);
                        // Something may have come while it was ending.
                        self.begin(&worker, &mut at_work, &mut tasks);
                    }
                }
            }
        }
        self.shutdown.cancel();
        while tasks.join_next().await.is_some() {}
    }

    fn with_waiting(&self) -> Vec<WorkerId> {
        let views = self.log.views().read();
        let of = views.workers.of(&external_runtime(), None);
        of.filter(|state| next(state).is_some()).map(|state| state.worker.clone()).collect()
    }

    fn state(&self, worker: &WorkerId) -> Option<Arc<WorkerState>> {
        self.log.views().worker(&external_runtime(), worker)
    }

    /// Makes sure that a task delivers what waits for a worker, if it is delivered at all.
    fn begin(
        &self,
        worker: &WorkerId,
        at_work: &mut HashSet<WorkerId>,
        tasks: &mut JoinSet<WorkerId>,
    ) {
        let has_work = self.state(worker).is_some_and(|state| next(&state).is_some());
        if !has_work || self.shutdown.is_cancelled() || !at_work.insert(worker.clone()) {
            return;
        }
        let (push, worker) = (self.clone(), worker.clone());
        tasks.spawn(async move {
            push.deliver_all(&worker).await;
            worker
        });
    }

    async fn deliver_all(&self, worker: &WorkerId) {
        while let Some((state, (url, message))) =
            self.state(worker).and_then(|state| next(&state).map(|next| (state, next)))
        {
            let next = Next { state, url, message };
            let delivered = tokio::select! {
                () = self.shutdown.cancelled() => return,
                delivered = self.deliver(&next) => delivered,
            };
            if let Err(error) = delivered {
                tracing::error!(%error, worker = %worker, "a message could not be read; it is tried again");
                tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    () = tokio::time::sleep(PAUSE_MAX) => {}
                }
            }
        }
    }

    /// Delivers one message, or gives it up; returns early if there is another URL by now.
    async fn deliver(&self, next: &Next) -> Result<(), Rejection> {
        let Some(logged) = self.log.record(next.message).await? else {
            if self.log.has_expired(next.message) {
                self.give_up(next, 0, "it has expired".into()).await;
            }
            return Ok(());
        };
        let record = &logged.record;
        let Some(body) = self.body(record).await? else {
            self.give_up(next, 0, "its content was erased".into()).await;
            return Ok(());
        };
        let mut pause = self.limits.pause;
        for attempts in 1.. {
            let (why, wait) = match self.post(next, record, &body).await {
                Attempt::Taken(answer) => {
                    self.taken(next, record, attempts, answer).await?;
                    return Ok(());
                }
                Attempt::Never(why) => {
                    self.give_up(next, attempts, why).await;
                    return Ok(());
                }
                Attempt::Again(why, wait) => (why, wait),
            };
            if attempts >= self.limits.attempts {
                self.give_up(next, attempts, why).await;
                return Ok(());
            }
            tracing::debug!(worker = %next.state.worker, message = %next.message, why, "a delivery failed");
            let jitter = rand::rng().random_range(0.8..1.2);
            let rest = wait.unwrap_or(pause).min(PAUSE_MAX).mul_f64(jitter);
            if !self.rest(next, rest).await {
                return Ok(());
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }

    /// Waits; false if the message is not to be posted there any more.
    async fn rest(&self, next: &Next, pause: Duration) -> bool {
        let mut news = self.log.watch_worker(next.state.ordinal);
        let until = Instant::now() + pause;
        loop {
            let is_current = self
                .state(&next.state.worker)
                .and_then(|state| self::next(&state))
                .is_some_and(|(url, message)| url == next.url && message == next.message);
            if !is_current {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                changed = news.changed() => if changed.is_err() { return false },
            }
        }
    }

    /// What is posted; none if it was erased.
    async fn body(&self, record: &Arc<Record>) -> Result<Option<Bytes>, Rejection> {
        let content = self.log.content(record).await?;
        Ok(content.map(|bytes| match record.header.event {
            Event::WorkerInputAccepted(_) => {
                let id = format!("act-{}", record.seq());
                let text = String::from_utf8_lossy(&bytes);
                Envelope::of_text(&id, &text).to_string().into()
            }
            _ => bytes,
        }))
    }

    async fn post(&self, next: &Next, record: &Record, body: &Bytes) -> Attempt {
        // A literal address is not resolved, so it is looked at here.
        let url = match self.addresses.parse(&next.url) {
            Ok(url) => url,
            Err(refused) => return Attempt::Never(reason(&refused)),
        };
        let Ok(_place) = self.posts.acquire().await else {
            return Attempt::Again("the service is ending".into(), None);
        };
        let id = format!("act-{}", next.message);
        let mut request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", &id)
            .header("x-acta-row-id", &id)
            .header("x-workspace-id", next.state.worker.as_str());
        if let Event::MessageReceived(received) = &record.header.event
            && let Some(source) = &received.source
        {
            request = request.header("x-acta-source-id", source.worker_id.as_str());
        }
        match request.body(body.clone()).send().await {
            Ok(response) => answered(response).await,
            Err(error) => failed(&error),
        }
    }

    async fn taken(
        &self,
        next: &Next,
        record: &Record,
        attempts: u32,
        answer: Option<Bytes>,
    ) -> Result<(), Rejection> {
        let asker = match &record.header.event {
            Event::MessageReceived(received) => received.source.clone(),
            _ => None,
        };
        let answer = match answer {
            None => None,
            Some(bytes) => {
                let answer = self.log.keep(MediaType::Json, bytes.clone()).await?;
                let reply = match &asker {
                    None => None,
                    Some(_) => Some(self.log.keep(MediaType::Json, bytes).await?),
                };
                Some((asker, answer, reply))
            }
        };
        let message = next.message;
        self.record(next, ExternalChange::Delivered { message, attempts, answer }).await;
        Ok(())
    }

    async fn give_up(&self, next: &Next, attempts: u32, reason: String) {
        let message = next.message;
        self.record(next, ExternalChange::DeliveryFailed { message, attempts, reason }).await;
    }

    /// Records what came of a message, for as long as it takes: it must not be posted again only
    /// because the log could not be written for a while.
    async fn record(&self, next: &Next, change: ExternalChange) {
        let worker =
            WorkerRef { runtime_id: external_runtime(), worker_id: next.state.worker.clone() };
        loop {
            let change = Box::new(change.clone());
            let command = Command::External { worker: worker.clone(), change };
            match self.engine.submit_patiently(Request::service(command)).await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "what came of a delivery could not be recorded yet");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Whether an event may mean that there is something to post.
fn makes_work(event: &Event) -> bool {
    matches!(
        event,
        Event::MessageReceived(_)
            | Event::WorkerInputAccepted(_)
            | Event::AgentRegistered(_)
            | Event::DeliveryRetried(_)
    )
}

/// Where the next message of a worker goes; none if none waits or none is posted.
fn next(state: &WorkerState) -> Option<(String, Sequence)> {
    let agent = state.external.as_ref().filter(|_| state.status == WorkerStatus::Running)?;
    debug_assert_eq!(state.runtime.as_str(), EXTERNAL_RUNTIME, "others have no agent");
    Some((agent.delivery.url.clone()?, *agent.waiting.front()?))
}
