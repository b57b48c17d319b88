//! The inbox of an agent: what it has not dealt with, oldest first.

use super::{
    super::{App, access::Caller, error::Reply, past, query},
    address, change, external, is_agent, may_read, row_seq,
    rows::{self, PAGE_BYTES_MAX, Wanted},
    worker,
};
use crate::{
    command::ExternalChange,
    error::{Code, Rejection, shown},
    log::Logged,
};
use acta_events::{DegradedReason, Event, Inbox, Sequence, WorkerRef};
use acta_projections::{External, WorkerState};
use axum::{
    body::Bytes,
    extract::State,
    http::{Uri, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const ROWS_DEFAULT: usize = 100;
const ROWS_MAX: usize = 500;
const SINCE_SECS_MAX: u64 = 2_592_000;

/// The longest that a poll may wait for a row, in seconds.
const WAIT_SECS_MAX: u64 = 60;

/// How many records of a worker are looked at in one go, where rows are looked for.
const RECORDS_AT_ONCE: usize = 512;

#[derive(Deserialize)]
struct ActivityQuery {
    #[serde(rename = "type")]
    wanted: Option<String>,
    limit: Option<String>,
    since_id: Option<String>,
    since_secs: Option<String>,
    source: Option<String>,
    wait: Option<String>,
}

/// What is asked for, checked.
struct Asked {
    wanted: Wanted,
    limit: usize,
    since: Option<Sequence>,
    not_before_millis: Option<i64>,
    by_agent: Option<bool>,
    wait: Duration,
}

impl ActivityQuery {
    fn check(self) -> Reply<Asked> {
        let refuse = |message: String| Rejection::new(Code::InvalidQuery, message);
        let number = |name: &str, text: Option<String>| {
            let parse = |text: String| {
                text.parse::<u64>()
                    .map_err(|_| refuse(format!("`{name}` is a number, not `{}`", shown(&text))))
            };
            text.filter(|text| !text.is_empty()).map(parse).transpose()
        };
        let wanted = match self.wanted.as_deref() {
            None | Some("") => Wanted::Both,
            Some("a2a_receive") => Wanted::Messages,
            Some("a2a_reply") => Wanted::Replies,
            Some(other) => {
                let message = format!(
                    "`type` is `a2a_receive` or `a2a_reply`, not `{}`; everything else that \
                     happens to a worker is in GET /v1/events",
                    shown(other)
                );
                return Err(refuse(message));
            }
        };
        let limit = match number("limit", self.limit)? {
            None => ROWS_DEFAULT,
            Some(0) => return Err(refuse("`limit` is at least 1".into())),
            Some(limit) => usize::try_from(limit).unwrap_or(ROWS_MAX).min(ROWS_MAX),
        };
        let not_before_millis = match number("since_secs", self.since_secs)? {
            None => None,
            Some(secs) if (1..=SINCE_SECS_MAX).contains(&secs) => {
                let secs = i64::try_from(secs).unwrap_or_default();
                Some(jiff::Timestamp::now().as_millisecond() - secs * 1_000)
            }
            Some(_) => {
                let message =
                    format!("`since_secs` is a positive number of at most {SINCE_SECS_MAX}");
                return Err(refuse(message));
            }
        };
        let by_agent = match self.source.as_deref() {
            None | Some("") => None,
            Some("canvas") => Some(false),
            Some("agent") => Some(true),
            Some(other) => {
                let message = format!("`source` is `canvas` or `agent`, not `{}`", shown(other));
                return Err(refuse(message));
            }
        };
        let since = match self.since_id.filter(|id| !id.is_empty()) {
            None => None,
            Some(id) => Some(row_seq(&id).ok_or_else(|| gone(&id))?),
        };
        let wait = number("wait", self.wait)?.unwrap_or_default().min(WAIT_SECS_MAX);
        let wait = Duration::from_secs(wait);
        Ok(Asked { wanted, limit, since, not_before_millis, by_agent, wait })
    }
}

/// Clients begin again without a cursor when they hear this.
fn gone(id: &str) -> Rejection {
    let message = format!(
        "`since_id` {} is not a row of this worker that can be continued after; leave it out to \
         get everything that has not been dealt with",
        shown(id)
    );
    Rejection::new(Code::ActivityUnknown, message)
}

/// A page of what waits. With `since_id` everything up to there counts as dealt with.
pub(super) async fn poll(
    caller: Caller,
    State(app): State<App>,
    query::Segment(id): query::Segment,
    uri: Uri,
) -> Reply<Response> {
    let address = address(&id)?;
    may_read(&caller, &address)?;
    past::refuse(&uri, "what an agent has not dealt with")?;
    let state = worker(&app, &address)?;
    let asked = query::query::<ActivityQuery>(&uri)?.check()?;
    if let Some(since) = asked.since {
        check_since(&app, &address, external(&state)?, since).await?;
    }
    if is_agent(&caller, &address) {
        app.agents.leases.polled(&address.worker_id);
        listened(&caller, &app, &address, external(&state)?, &asked).await;
    }
    // Subscribed before the first look, so that nothing that comes meanwhile is slept through.
    let mut news = app.log.watch_worker(state.ordinal);
    let deadline = tokio::time::Instant::now() + asked.wait;
    loop {
        let state = worker(&app, &address)?;
        // What it would do now, it may have done after the snapshot that the service was restored from.
        let is_held = is_agent(&caller, &address) && app.log.views().read().lineage.is_paused();
        let page = if is_held { Vec::new() } else { page(&app, &state, &asked).await? };
        if !page.is_empty() || asked.wait.is_zero() {
            return Ok(answer(&page));
        }
        let more = tokio::select! {
            changed = news.changed() => changed.is_ok(),
            () = app.log.until_resumed(), if is_held => true,
            () = app.shutdown.begun() => false,
            () = tokio::time::sleep_until(deadline) => false,
        };
        if !caller.is_valid(&app) {
            return Err(Rejection::new(Code::Unauthorized, "the token was revoked"));
        }
        if is_agent(&caller, &address) {
            // Whoever waits is listening all the time.
            app.agents.leases.polled(&address.worker_id);
        }
        if !more {
            return Ok(answer(&[]));
        }
    }
}

fn answer(rows: &[Vec<u8>]) -> Response {
    let mut body = Vec::with_capacity(rows.iter().map(|row| row.len() + 1).sum::<usize>() + 2);
    body.push(b'[');
    for (n, row) in rows.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        body.extend_from_slice(row);
    }
    body.push(b']');
    ([(header::CONTENT_TYPE, "application/json")], Bytes::from(body)).into_response()
}

/// Refuses a position that is not that of a row of this worker.
async fn check_since(
    app: &App,
    address: &WorkerRef,
    agent: &External,
    since: Sequence,
) -> Reply<()> {
    // The usual case needs no look at the log: it was checked when it was committed.
    if since == agent.messages_read || since == agent.replies_read {
        return Ok(());
    }
    let refused = || gone(&super::row_id(since));
    if since > app.log.head() {
        return Err(refused());
    }
    let logged = app.log.record(since).await?.ok_or_else(refused)?;
    let header = &logged.record.header;
    let is_own = header.runtime.as_ref() == Some(&address.runtime_id)
        && header.worker.as_ref() == Some(&address.worker_id);
    if is_own && Wanted::Both.holds(&header.event) { Ok(()) } else { Err(refused()) }
}

/// Records what a poll of the agent itself says: that it listens, and how far it has got.
async fn listened(
    caller: &Caller,
    app: &App,
    address: &WorkerRef,
    agent: &External,
    asked: &Asked,
) {
    let mut changes = Vec::new();
    if agent.degraded == Some(DegradedReason::Deaf) {
        changes.push(ExternalChange::Listens);
    }
    if let Some(through) = asked.since {
        let messages = asked.wanted.messages() && through > agent.messages_read;
        let replies = asked.wanted.replies() && through > agent.replies_read;
        let inbox = match asked.wanted {
            Wanted::Messages => Inbox::Messages,
            Wanted::Replies => Inbox::Replies,
            Wanted::Both => Inbox::All,
        };
        if messages || replies {
            changes.push(ExternalChange::Read { inbox, through });
        }
    }
    for of in changes {
        // Its rows are what the agent is here for; where it stands is told again with its next
        // poll.
        if let Err(error) = app.engine.submit(change(&caller.0.actor, address, of)).await {
            tracing::debug!(%error, "a poll could not be recorded");
        }
    }
}

async fn page(app: &App, state: &WorkerState, asked: &Asked) -> Reply<Vec<Vec<u8>>> {
    let agent = external(state)?;
    let mut page = Page { app, agent, asked, rows: Vec::new(), bytes: 2 };
    match known(agent, asked) {
        Some(seqs) => {
            for seq in seqs {
                let Some(logged) = app.log.record(seq).await? else { continue };
                if !page.take(&logged).await? {
                    break;
                }
            }
        }
        None => {
            let begin = [
                asked.wanted.messages().then_some(agent.messages_read),
                asked.wanted.replies().then_some(agent.replies_read),
            ];
            let begin = begin.into_iter().flatten().min().unwrap_or_default();
            page.scan(state.ordinal, asked.since.unwrap_or(begin)).await?;
        }
    }
    Ok(page.rows)
}

/// The rows that are asked for, if all of them are among those that have not been dealt with.
fn known(agent: &External, asked: &Asked) -> Option<BTreeSet<Sequence>> {
    let since = asked.since.unwrap_or_default();
    let mut seqs = BTreeSet::new();
    if asked.wanted.messages() {
        if asked.since.is_some() && since < agent.messages_read {
            return None;
        }
        seqs.extend(agent.waiting.iter().filter(|seq| **seq > since));
    }
    if asked.wanted.replies() {
        if agent.replies_forgotten || asked.since.is_some() && since < agent.replies_read {
            return None;
        }
        seqs.extend(agent.replies.iter().filter(|seq| **seq > since));
    }
    Some(seqs)
}

/// A page that is being filled.
struct Page<'a> {
    app: &'a App,
    agent: &'a External,
    asked: &'a Asked,
    rows: Vec<Vec<u8>>,
    bytes: usize,
}

impl Page<'_> {
    /// Takes a row in if it is asked for. Whether there is room for more.
    async fn take(&mut self, logged: &Arc<Logged>) -> Reply<bool> {
        let record = &logged.record;
        let header = &record.header;
        let old = self
            .asked
            .not_before_millis
            .is_some_and(|not_before| header.time.as_millis() < not_before);
        let other = self
            .asked
            .by_agent
            .is_some_and(|by_agent| by_agent != rows::source(&header.event).is_some());
        if old
            || other
            || !self.asked.wanted.holds(&header.event)
            || self.is_read(&header.event, header.seq)
        {
            return Ok(true);
        }
        let Some(row) = rows::row(self.app, self.agent, record).await? else { return Ok(true) };
        if !self.rows.is_empty() && self.bytes + row.len() + 1 > PAGE_BYTES_MAX {
            return Ok(false);
        }
        self.bytes += row.len() + 1;
        self.rows.push(row);
        Ok(self.rows.len() < self.asked.limit)
    }

    /// Without `since_id` only what has not been dealt with is shown.
    fn is_read(&self, event: &Event, seq: Sequence) -> bool {
        let through = match event {
            Event::ReplyReceived(_) => self.agent.replies_read,
            _ => self.agent.messages_read,
        };
        self.asked.since.is_none() && seq <= through
    }

    /// Takes rows from all records of the worker after a position.
    async fn scan(&mut self, ordinal: u32, after: Sequence) -> Reply<()> {
        let head = self.app.log.head();
        let mut position = after;
        while position < head {
            let slice =
                self.app.log.worker_records(ordinal, position, head, RECORDS_AT_ONCE).await?;
            for logged in &slice.records {
                if !self.take(logged).await? {
                    return Ok(());
                }
            }
            position = slice.through;
        }
        Ok(())
    }
}
