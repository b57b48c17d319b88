//! The log as a stream over plain HTTP: a record a line, or Server-Sent Events.
//!
//! Both read when the client does: a client that is slow holds up nobody and misses nothing.
//! The id of a Server-Sent Event is its cursor, so that a browser resumes by itself.

use super::{
    App,
    access::Caller,
    error::Reply,
    events::EventsQuery,
    frames,
    grep::Grep,
    reads::{NothingRead, Read},
    record_json,
    worker_ws::is_set,
};
use crate::{
    feed::{Follower, cursor_at},
    log::{Logged, ReadFault},
    metrics::{Observer, Observing},
};
use acta_events::{Epoch, Sequence};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::watch;

/// How many records are read at once.
const RECORDS_PER_READ: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Lines,
    ServerSent,
}

struct Stream {
    app: App,
    caller: Caller,
    follower: Follower,
    grep: Option<Grep>,
    /// To be noted with the first record that is not about watching.
    noted: Option<Read>,
    /// The last record that is asked for.
    last: Option<Sequence>,
    revocations: watch::Receiver<u64>,
    form: Form,
    epoch: Epoch,
    /// How many more records are wanted.
    left: usize,
    /// Whether to go on after everything that is there.
    follow: bool,
    progress: bool,
    announced: bool,
    ended: bool,
    _observing: Observing,
}

pub(super) async fn lines(
    app: App,
    caller: Caller,
    query: EventsQuery,
    read: Option<Read>,
) -> Reply<Response> {
    open(app, caller, (query, read), Form::Lines, "application/x-ndjson").await
}

pub(super) async fn server_sent(
    app: App,
    caller: Caller,
    query: EventsQuery,
    read: Option<Read>,
) -> Reply<Response> {
    open(app, caller, (query, read), Form::ServerSent, "text/event-stream").await
}

async fn open(
    app: App,
    caller: Caller,
    (query, read): (EventsQuery, Option<Read>),
    form: Form,
    media_type: &'static str,
) -> Reply<Response> {
    // Server-Sent Events begin now unless they are told where; lines begin at the beginning.
    let begin = match form {
        Form::Lines => app.log.expired_through(),
        Form::ServerSent => app.log.head(),
    };
    let after = query.position(&app).await?.unwrap_or(begin);
    let follower = query.follower(&app, after)?;
    let last = query.last(&app).await?;
    let epoch = app.log.views().read().lineage.current();
    let change = query.epoch_change(&app);
    let _observing = app.engine.metrics().observing(Observer::Http);
    let stream = Stream {
        _observing,
        revocations: app.log.watch_revocations(),
        epoch,
        left: query.limit.unwrap_or(usize::MAX),
        follow: query.follow.is_empty() || is_set(&query.follow),
        progress: is_set(&query.progress),
        announced: false,
        ended: false,
        grep: query.grep(),
        noted: read,
        last,
        app,
        caller,
        follower,
        form,
    };
    let body = futures_util::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await.transpose()?;
        Some((chunk, stream))
    });
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let mut response = (headers, Body::from_stream(body)).into_response();
    if let Some(change) = change {
        let name = header::HeaderName::from_static("acta-epoch-changed");
        response.headers_mut().insert(name, HeaderValue::from(change.epoch.0));
    }
    response.extensions_mut().insert(NothingRead);
    Ok(response)
}

impl Stream {
    /// The next piece of the body; none at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, ReadFault> {
        if self.ended {
            return Ok(None);
        }
        loop {
            if self.left == 0 || self.app.shutdown.is_begun() || !self.caller.is_valid(&self.app) {
                return Ok(None);
            }
            let records = self.read().await?;
            if !records.is_empty() {
                return self.render(&records).await.map(Some);
            }
            let over = self.last.is_some_and(|last| self.follower.position() >= last);
            if !over && !self.follower.caught_up() {
                continue;
            }
            self.follow &= !over;
            if !self.announced {
                self.announced = true;
                if let Some(note) = self.progress("caught_up").await? {
                    self.ended = !self.follow;
                    return Ok(Some(note));
                }
            }
            if !self.follow {
                return Ok(None);
            }
            let heartbeat = self.app.limits.heartbeat;
            tokio::select! {
                more = self.follower.wait() => if !more { return Ok(None) },
                _ = self.revocations.changed() => {}
                () = self.app.shutdown.begun() => return Ok(None),
                () = tokio::time::sleep(heartbeat) => {
                    // One more look, so that the cursor of the heartbeat is that of the head.
                    let records = self.read().await?;
                    if !records.is_empty() {
                        return self.render(&records).await.map(Some);
                    }
                    match self.progress("heartbeat").await? {
                        Some(note) => return Ok(Some(note)),
                        None if self.form == Form::ServerSent => {
                            return Ok(Some(Bytes::from_static(b": heartbeat\n\n")));
                        }
                        // An empty line between two records is nothing to whoever reads lines.
                        None => return Ok(Some(Bytes::from_static(b"\n"))),
                    }
                }
            }
        }
    }

    /// The wanted ones among the next records.
    async fn read(&mut self) -> Result<Vec<Arc<Logged>>, ReadFault> {
        let last = self.last.unwrap_or(Sequence(u64::MAX));
        let mut records = self.follower.read_through(last, RECORDS_PER_READ).await?;
        if let Some(grep) = &self.grep {
            let mut found = Vec::new();
            for logged in records {
                if grep.is_in(&self.app, &logged.record).await? {
                    found.push(logged);
                }
            }
            records = found;
        }
        Ok(records)
    }

    async fn render(&mut self, records: &[Arc<Logged>]) -> Result<Bytes, ReadFault> {
        let mut out = Vec::with_capacity(records.len() * 512);
        for logged in records.iter().take(self.left) {
            let record = &logged.record;
            if self.form == Form::ServerSent {
                let cursor = frames::cursor_of(&self.app, self.epoch, record);
                let name = record.header.event.name();
                out.extend_from_slice(format!("id: {cursor}\nevent: {name}\ndata: ").as_bytes());
            }
            record_json::write(&self.app, record, &mut out).await?;
            if !record.header.event.is_about_watching()
                && let Some(read) = self.noted.take()
            {
                read.note(self.app.log.head());
            }
            out.extend_from_slice(if self.form == Form::Lines { b"\n" } else { b"\n\n" });
        }
        self.left = self.left.saturating_sub(records.len());
        Ok(out.into())
    }

    /// Where the stream stands, if the client asked to be told.
    async fn progress(&self, kind: &str) -> Result<Option<Bytes>, ReadFault> {
        if !self.progress {
            return Ok(None);
        }
        let position = self.follower.position();
        let Some(cursor) = cursor_at(&self.app.log, position).await? else { return Ok(None) };
        let (cursor, head) = (cursor.to_string(), self.follower.head());
        let note = frames::progress(kind, &cursor, head);
        Ok(Some(match self.form {
            Form::Lines => format!("{note}\n").into(),
            Form::ServerSent => format!("id: {cursor}\nevent: {kind}\ndata: {note}\n\n").into(),
        }))
    }
}
