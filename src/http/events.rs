//! The whole log: a page of it, or a stream.

use super::{
    App,
    access::Caller,
    error::Reply,
    events_back, events_stream,
    grep::Grep,
    past, query,
    reads::{NothingRead, Read},
    record_json,
    worker_ws::is_set,
};
use crate::{
    auth::Permission,
    error::{Code, Rejection},
    feed::{EpochChange, Filter, Follower, cursor_at, epoch_change, resolve, retained},
};
use acta_events::{Actor, Event, RuntimeId, Sequence, WorkerId};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use std::sync::Arc;

/// A page ends after this many bytes of records, however few they are.
pub(super) const PAGE_BYTES: usize = 4 << 20;

/// How many records are looked at for one page of a filtered list, at most.
pub(super) const LOOKED_AT_MAX: u64 = 100_000;

#[derive(Debug, Deserialize)]
pub(super) struct EventsQuery {
    pub(super) after: Option<Sequence>,
    pub(super) cursor: Option<String>,
    pub(super) limit: Option<usize>,
    #[serde(rename = "type", default)]
    pub(super) types: String,
    pub(super) runtime: Option<String>,
    pub(super) worker: Option<String>,
    pub(super) actor: Option<String>,
    /// From then on: a sequence or a time.
    pub(super) since: Option<String>,
    /// Up to and with then.
    pub(super) until: Option<String>,
    /// Only records in which this text stands.
    pub(super) grep: Option<String>,
    /// `newest`: a page from the end, newest first.
    #[serde(default)]
    pub(super) order: String,
    /// With `order=newest`: only what came before this sequence.
    pub(super) before: Option<Sequence>,
    /// With the records about watching itself.
    #[serde(default)]
    pub(super) watching: String,
    #[serde(default)]
    pub(super) progress: String,
    #[serde(default)]
    pub(super) follow: String,
}

impl EventsQuery {
    /// Whoever may read workers may follow one; following everything is more.
    pub(super) fn permission(&self) -> Permission {
        if self.worker.is_some() { Permission::ReadWorkers } else { Permission::ReadAll }
    }

    pub(super) fn filter(&self) -> Reply<Filter> {
        let id = |text: &str| Rejection::new(Code::InvalidIdentifier, text.to_owned());
        let types: Vec<String> = self
            .types
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        for name in &types {
            if !Event::KINDS.iter().any(|(known, _)| known == name) {
                let known: Vec<_> = Event::KINDS.iter().map(|(name, _)| *name).collect();
                let message = format!(
                    "there are no events of type `{}`; there are: {}",
                    crate::error::shown(name),
                    known.join(", ")
                );
                return Err(Rejection::new(Code::InvalidQuery, message));
            }
        }
        Ok(Filter {
            types,
            runtime: self
                .runtime
                .as_deref()
                .map(RuntimeId::parse)
                .transpose()
                .map_err(|error| id(&error.to_string()))?,
            worker: self
                .worker
                .as_deref()
                .map(WorkerId::parse)
                .transpose()
                .map_err(|error| id(&error.to_string()))?,
            actor: self
                .actor
                .as_deref()
                .map(Actor::parse)
                .transpose()
                .map_err(|error| id(&error.to_string()))?,
            watching: is_set(&self.watching),
        })
    }

    /// What has to stand in a record.
    pub(super) fn grep(&self) -> Option<Grep> {
        self.grep.as_deref().and_then(Grep::new)
    }

    /// The number of the one worker of interest, if one is named.
    pub(super) fn ordinal(&self, app: &App, filter: &Filter) -> Reply<Option<u32>> {
        let Some(id) = &filter.worker else { return Ok(None) };
        let runtime = filter.runtime.clone().unwrap_or_else(|| query::runtime_of(app, id));
        match app.log.views().worker(&runtime, id) {
            Some(state) => Ok(Some(state.ordinal)),
            None => {
                let message = "there is no such worker; `acta ls workers` lists them";
                Err(Rejection::new(Code::WorkerNotFound, message))
            }
        }
    }

    /// A follower of what is asked for. A filter by one known worker reads only its records.
    pub(super) fn follower(&self, app: &App, after: Sequence) -> Reply<Follower> {
        let filter = self.filter()?;
        let ordinal = self.ordinal(app, &filter)?;
        Ok(Follower::new(Arc::clone(&app.log), filter, ordinal, after))
    }

    /// The position that is asked for; none if none is.
    pub(super) async fn position(&self, app: &App) -> Reply<Option<Sequence>> {
        let since = match &self.since {
            Some(since) => Some(past::before_since(app, since).await?),
            None => None,
        };
        Ok(self.resumed(app).await?.max(since))
    }

    /// The position that is asked for, or that before the first record that is there.
    pub(super) async fn begin(&self, app: &App) -> Reply<Sequence> {
        let begin = app.log.expired_through();
        Ok(self.position(app).await?.unwrap_or(begin))
    }

    /// The last record that is asked for.
    pub(super) async fn last(&self, app: &App) -> Reply<Option<Sequence>> {
        match &self.until {
            Some(until) => past::last_until(app, until).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether the cursor is of an earlier epoch.
    pub(super) fn epoch_change(&self, app: &App) -> Option<EpochChange> {
        epoch_change(&app.log, self.cursor.as_deref()?)
    }

    async fn resumed(&self, app: &App) -> Reply<Option<Sequence>> {
        if let Some(cursor) = &self.cursor {
            return Ok(Some(resolve(&app.log, cursor).await?.after));
        }
        let head = app.log.head();
        match self.after {
            Some(seq) if seq > head => {
                let message = format!("`after` is {seq}, but the log ends at {head}");
                Err(Rejection::new(Code::CursorAhead, message))
            }
            Some(seq) => {
                retained(&app.log, seq).await?;
                Ok(Some(seq))
            }
            None => Ok(None),
        }
    }
}

/// Says in a page up to where history has expired, if any has.
pub(super) fn expired(app: &App, out: &mut Vec<u8>) {
    let through = app.log.expired_through();
    if through > Sequence::ZERO {
        out.extend_from_slice(format!(",\"expired_through\":{through}").as_bytes());
    }
}

/// A page, from either end, or a stream if one is asked for.
pub(super) async fn list(
    caller: Caller,
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
    read: Option<Extension<Read>>,
) -> Reply<Response> {
    let mut query: EventsQuery = query::query(&uri)?;
    caller.may(query.permission())?;
    let accepts = |media: &str| {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        accept.unwrap_or_default().contains(media)
    };
    let read = read.map(|Extension(read)| read);
    if accepts("text/event-stream") {
        if let Some(id) = headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
            query.cursor = Some(id.to_owned());
        }
        return events_stream::server_sent(app, caller, query, read).await;
    }
    if accepts("application/x-ndjson") {
        return events_stream::lines(app, caller, query, read).await;
    }
    match query.order.as_str() {
        "" | "oldest" => page(&app, &query).await,
        "newest" => events_back::page(&app, &query).await,
        other => {
            let message =
                format!("`order` is `oldest` or `newest`, not `{}`", crate::error::shown(other));
            Err(Rejection::new(Code::InvalidQuery, message))
        }
    }
}

/// How many records a page may have.
pub(super) fn page_limit(app: &App, query: &EventsQuery) -> Reply<usize> {
    let limit = query.limit.unwrap_or(app.limits.event_records);
    if limit <= app.limits.event_records {
        return Ok(limit);
    }
    let message = format!(
        "limit {limit} is larger than a page, which has at most {} records",
        app.limits.event_records
    );
    Err(Rejection::new(Code::LimitTooLarge, message))
}

async fn page(app: &App, query: &EventsQuery) -> Reply<Response> {
    let limit = page_limit(app, query)?;
    let after = query.begin(app).await?;
    let mut follower = query.follower(app, after)?;
    let head = follower.head();
    let looked_at_max = Sequence(after.0.saturating_add(LOOKED_AT_MAX));
    let last = query.last(app).await?.unwrap_or(head).min(head).min(looked_at_max);
    let grep = query.grep();
    let mut out = b"{\"events\":[".to_vec();
    let mut only_watching = true;
    let (mut count, mut position) = (0, after);
    'page: while count < limit && position < last {
        let records = follower.read_through(last, (limit - count).clamp(64, 256)).await?;
        for logged in records {
            if let Some(grep) = &grep
                && !grep.is_in(app, &logged.record).await?
            {
                continue;
            }
            if count > 0 {
                out.push(b',');
            }
            record_json::write(app, &logged.record, &mut out).await?;
            count += 1;
            only_watching &= logged.record.header.event.is_about_watching();
            position = logged.record.seq();
            if count >= limit || out.len() >= PAGE_BYTES {
                break 'page;
            }
        }
        position = follower.position();
    }
    let cursor = cursor_at(&app.log, position).await?.map(|cursor| cursor.to_string());
    let cursor = cursor.unwrap_or_default();
    out.extend_from_slice(format!("],\"head\":{head},\"cursor\":\"{cursor}\"").as_bytes());
    if let Some(change) = query.epoch_change(app) {
        // Numbers only: that always serialises.
        let change = serde_json::to_string(&change).unwrap_or_default();
        out.extend_from_slice(format!(",\"epoch_changed\":{change}").as_bytes());
    }
    expired(app, &mut out);
    out.push(b'}');
    let mut response = ([(header::CONTENT_TYPE, "application/json")], out).into_response();
    if only_watching {
        response.extensions_mut().insert(NothingRead);
    }
    Ok(response)
}
