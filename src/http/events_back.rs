//! The log from its end: pages with the newest record first.
//!
//! What is older is asked for with `before`, so nobody has to read all of history to see what
//! happened last, and neither side keeps more than a page.

use super::{
    App,
    error::Reply,
    events::{EventsQuery, LOOKED_AT_MAX, PAGE_BYTES, expired, page_limit},
    reads::NothingRead,
    record_json,
};
use crate::error::{Code, Rejection};
use acta_events::Sequence;
use axum::{
    http::header,
    response::{IntoResponse as _, Response},
};

/// How many records are read at once.
const RECORDS_PER_READ: usize = 256;

/// A page, newest first. `before` in the answer is where the next one goes on; it is `null` when
/// there is nothing older.
pub(super) async fn page(app: &App, query: &EventsQuery) -> Reply<Response> {
    let limit = page_limit(app, query)?;
    let (filter, grep) = (query.filter()?, query.grep());
    let ordinal = query.ordinal(app, &filter)?;
    let head = app.log.head();
    if query.before.is_some_and(|before| before.0 == 0) {
        let message = "`before` is the sequence of a record, so it is at least 1";
        return Err(Rejection::new(Code::InvalidQuery, message));
    }
    let after = query.begin(app).await?;
    let before = query.before.map_or(head, |before| Sequence(before.0 - 1)).min(head);
    let last = query.last(app).await?.unwrap_or(head).min(before);
    let mut out = b"{\"events\":[".to_vec();
    let mut only_watching = true;
    let (mut count, mut looked_at, mut position) = (0, 0, last);
    'page: while count < limit && position > after && looked_at < LOOKED_AT_MAX {
        let slice = app.log.backwards(ordinal, (after, position), RECORDS_PER_READ).await?;
        looked_at += slice.records.len() as u64;
        for logged in slice.records {
            let record = &logged.record;
            if !filter.wants(record) {
                continue;
            }
            if let Some(grep) = &grep
                && !grep.is_in(app, record).await?
            {
                continue;
            }
            if count > 0 {
                out.push(b',');
            }
            record_json::write(app, record, &mut out).await?;
            count += 1;
            only_watching &= record.header.event.is_about_watching();
            if count >= limit || out.len() >= PAGE_BYTES {
                position = Sequence(record.seq().0 - 1);
                break 'page;
            }
        }
        position = slice.through;
    }
    let older = match position > after {
        true => position.next().to_string(),
        false => "null".into(),
    };
    out.extend_from_slice(format!("],\"head\":{head},\"before\":{older}").as_bytes());
    expired(app, &mut out);
    out.push(b'}');
    let mut response = ([(header::CONTENT_TYPE, "application/json")], out).into_response();
    if only_watching {
        response.extensions_mut().insert(NothingRead);
    }
    Ok(response)
}
