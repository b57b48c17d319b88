//! The records of the service, a line each, over one connection after the other.

use crate::cli::{
    client::{Client, ClientError},
    follower::Start,
};
use acta_events::Sequence;
use bytes::{Buf as _, BytesMut};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long the service may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How many connections in a row may break before one brought anything.
const FAILURES_MAX: u32 = 8;
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// A content of 16 MiB, each byte of it escaped.
const LINE_BYTES_MAX: usize = 128 << 20;

/// What a record line begins with.
const RECORD: &[u8] = b"{\"seq\":";

/// What the service tells.
pub(super) enum Line {
    Record(Record),
    /// Everything that was asked for has come.
    End,
}

pub(super) struct Record {
    pub(super) seq: Sequence,
    pub(super) text: String,
}

#[derive(Deserialize)]
struct Place {
    seq: Sequence,
}

#[derive(Deserialize)]
struct Note {
    kind: String,
    cursor: String,
}

type Query = [(&'static str, Option<String>); 7];

/// Reads what is asked for, and goes on after what was written when a connection breaks.
pub(super) struct Lines<'a> {
    client: &'a Client,
    query: Query,
    position: Start,
    response: Option<reqwest::Response>,
    buffer: BytesMut,
    /// Up to here the buffer holds no newline.
    searched: usize,
    failures: u32,
}

impl<'a> Lines<'a> {
    pub(super) fn new(client: &'a Client, query: Query, from: Start) -> Self {
        let buffer = BytesMut::new();
        Self { client, query, position: from, response: None, buffer, searched: 0, failures: 0 }
    }

    /// Everything up to here is where it should be.
    pub(super) fn written(&mut self, seq: Sequence) {
        self.position = Start::After(seq);
    }

    /// Where to go on from.
    pub(super) fn cursor(&self) -> String {
        match &self.position {
            Start::Cursor(cursor) => cursor.clone(),
            Start::After(seq) => seq.to_string(),
            Start::Now => "now".into(),
        }
    }

    /// The next line. An error is one that another attempt would not cure.
    pub(super) async fn next(&mut self) -> Result<Line, ClientError> {
        loop {
            if let Some(line) = self.line() {
                match self.understand(&line)? {
                    Some(line) => return Ok(line),
                    None => continue,
                }
            }
            match self.more().await {
                Ok(()) => {}
                Err(ClientError::Unknown { .. } | ClientError::NoService { .. })
                    if self.failures < FAILURES_MAX =>
                {
                    self.failures += 1;
                    self.response = None;
                    self.buffer.clear();
                    self.searched = 0;
                    sleep(RETRY_DELAY * (1 << self.failures.min(6))).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn understand(&mut self, line: &[u8]) -> Result<Option<Line>, ClientError> {
        // An empty line says that the service is there.
        if line.is_empty() {
            return Ok(None);
        }
        let not_acta = |error: &dyn std::fmt::Display| self.client.not_acta(error);
        let text = std::str::from_utf8(line).map_err(|error| not_acta(&error))?;
        if line.starts_with(RECORD) {
            let place: Place = serde_json::from_str(text).map_err(|error| not_acta(&error))?;
            self.failures = 0;
            return Ok(Some(Line::Record(Record { seq: place.seq, text: text.into() })));
        }
        let note: Note = serde_json::from_str(text).map_err(|error| not_acta(&error))?;
        self.position = Start::Cursor(note.cursor);
        Ok((note.kind == "caught_up").then_some(Line::End))
    }

    /// A whole line of the buffer, without its newline.
    fn line(&mut self) -> Option<BytesMut> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end);
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }

    /// Reads more, over a new connection if there is none.
    async fn more(&mut self) -> Result<(), ClientError> {
        let broken = |what: String| ClientError::Unknown { what, key: None };
        let silent = |_| broken("the service is silent".into());
        let Some(response) = &mut self.response else {
            let query = self.whole_query();
            let answer = self.client.get_lines(&["events"], &query);
            self.response = Some(timeout(SILENCE_MAX, answer).await.map_err(silent)??);
            return Ok(());
        };
        let chunk = timeout(SILENCE_MAX, response.chunk()).await.map_err(silent)?;
        match chunk {
            Ok(Some(chunk)) if self.buffer.len() + chunk.len() <= LINE_BYTES_MAX => {
                self.buffer.extend_from_slice(&chunk);
                Ok(())
            }
            Ok(Some(_)) => Err(self.client.not_acta("a line has no end")),
            Ok(None) => Err(broken("the service ended the answer before its end".into())),
            Err(error) => Err(broken(format!("the connection broke: {error}"))),
        }
    }

    fn whole_query(&self) -> Vec<(&'static str, String)> {
        let given = self.query.iter().filter_map(|(name, value)| Some((*name, value.clone()?)));
        let position = match &self.position {
            Start::Cursor(cursor) => ("cursor", cursor.clone()),
            Start::After(seq) => ("after", seq.to_string()),
            Start::Now => ("after", u64::MAX.to_string()),
        };
        let fixed = [("follow", "0".to_owned()), ("progress", "1".to_owned()), position];
        given.chain(fixed).collect()
    }
}
