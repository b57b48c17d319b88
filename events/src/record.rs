//! The record: an event in its envelope, with an optional content.
//!
//! ```text
//! content digest = SHA-256(salt ‖ content)
//! record digest  = SHA-256(0x00 ‖ header)                     no content
//!                = SHA-256(0x01 ‖ header ‖ content digest)    with content
//! ```
//!
//! The header is one JSON object. Its bytes are stored once and are never serialised again,
//! so that its digest holds whatever a later version would have written.

use crate::{
    Digest, Event, EventDecodeError, Timestamp,
    ids::{Actor, IdempotencyKey, RuntimeId, Sequence, TraceParent, Version, WorkerId},
    sha256,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use uuid::Uuid;

/// The largest header, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// The largest content that is stored beside its header, in bytes.
pub const INLINE_BYTES_MAX: usize = 32 * 1024;

/// The length of a content's salt, in bytes.
pub const SALT_BYTES: usize = 16;

/// What a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaType {
    /// UTF-8 text.
    #[serde(rename = "text/plain")]
    Text,
    /// One JSON document.
    #[serde(rename = "application/json")]
    Json,
}

/// What a person or an agent wrote, with the salt that lets it be erased later.
#[derive(Clone, Debug)]
pub struct Content {
    /// Random; makes the digest of an erased content tell nothing.
    pub salt: [u8; SALT_BYTES],
    /// What it is.
    pub media_type: MediaType,
    /// The content itself.
    pub bytes: Bytes,
    digest: Digest,
}

impl Content {
    /// Binds a content to its salt.
    pub fn new(salt: [u8; SALT_BYTES], media_type: MediaType, bytes: Bytes) -> Self {
        let digest = sha256(&[&salt, &bytes]);
        Self { salt, media_type, bytes, digest }
    }

    /// SHA-256 over salt and content.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// As it is kept in a record: beside the header if it is small enough.
    pub fn to_stored(&self) -> StoredContent {
        let body = if self.bytes.len() <= INLINE_BYTES_MAX {
            ContentBody::Inline { salt: self.salt, bytes: self.bytes.clone() }
        } else {
            ContentBody::File
        };
        StoredContent {
            digest: self.digest,
            len: self.bytes.len() as u64,
            media_type: self.media_type,
            body,
        }
    }
}

/// A record's content as the record knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredContent {
    /// SHA-256 over salt and content.
    pub digest: Digest,
    /// Length in bytes, without the salt.
    pub len: u64,
    /// What it is.
    pub media_type: MediaType,
    /// Where it is.
    pub body: ContentBody,
}

/// Where a content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentBody {
    /// In the block, beside its header.
    Inline {
        /// The salt.
        salt: [u8; SALT_BYTES],
        /// The content.
        bytes: Bytes,
    },
    /// In a file named by the content digest: the salt, then the content.
    File,
    /// Erased; the digest stays.
    Erased,
}

/// How a command can be recognised when it is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRef {
    /// Unique per actor.
    pub key: IdempotencyKey,
    /// Digest over what was asked for.
    pub fingerprint: Digest,
}

/// The envelope of an event, and the event.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Its place in the log.
    pub seq: Sequence,
    /// UUIDv7.
    pub id: Uuid,
    /// When it was decided. Never before the record in front of it.
    pub time: Timestamp,
    /// The runtime it is about.
    pub runtime: Option<RuntimeId>,
    /// The worker it is about.
    pub worker: Option<WorkerId>,
    /// The worker's count of records, this one included.
    pub version: Option<Version>,
    /// Who gave the command.
    pub actor: Actor,
    /// The command's key, on its first record.
    pub command: Option<CommandRef>,
    /// The caller's trace.
    pub trace: Option<TraceParent>,
    /// What happened.
    pub event: Event,
}

/// An event in its envelope, with its sequence: the unit of the log.
#[derive(Clone, Debug)]
pub struct Record {
    /// The envelope, understood.
    pub header: Header,
    /// The envelope as it is stored: one JSON object.
    pub json: Bytes,
    /// What a person or an agent wrote.
    pub content: Option<StoredContent>,
    /// The record digest.
    pub digest: Digest,
}

/// A record cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Too much for the envelope.
    #[error("the header has {bytes} bytes; at most {HEADER_BYTES_MAX} are stored")]
    HeaderTooLarge {
        /// What it would take.
        bytes: usize,
    },
    /// The stored bytes are not a header.
    #[error("the header is malformed: {0}")]
    HeaderMalformed(String),
    /// The event in it is not understood.
    #[error(transparent)]
    Event(#[from] EventDecodeError),
    /// The header announces a content that is not there, or the other way round.
    #[error("the header and the content disagree")]
    ContentMismatch,
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    seq: Sequence,
    id: Uuid,
    time: Timestamp,
    #[serde(rename = "type")]
    kind: &'static str,
    v: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a RuntimeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<&'a WorkerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    actor: &'a Actor,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<CommandOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a TraceParent>,
    data: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<ContentMeta>,
}

#[derive(Serialize)]
struct CommandOut<'a> {
    key: &'a IdempotencyKey,
    fingerprint: Digest,
}

/// What a header says of its content.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ContentMeta {
    pub(crate) len: u64,
    pub(crate) media_type: MediaType,
}

#[derive(Deserialize)]
struct HeaderIn<'a> {
    seq: Sequence,
    id: Uuid,
    time: Timestamp,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    v: u16,
    runtime: Option<RuntimeId>,
    worker: Option<WorkerId>,
    version: Option<Version>,
    actor: Actor,
    command: Option<CommandIn>,
    trace: Option<TraceParent>,
    #[serde(borrow)]
    data: &'a RawValue,
    content: Option<ContentMeta>,
}

#[derive(Deserialize)]
struct CommandIn {
    key: IdempotencyKey,
    fingerprint: Digest,
}

impl Record {
    /// Writes the envelope and computes the digest.
    pub fn new(header: Header, content: Option<StoredContent>) -> Result<Self, RecordError> {
        let out = HeaderOut {
            seq: header.seq,
            id: header.id,
            time: header.time,
            kind: header.event.name(),
            v: header.event.version(),
            runtime: header.runtime.as_ref(),
            worker: header.worker.as_ref(),
            version: header.version,
            actor: &header.actor,
            command: header
                .command
                .as_ref()
                .map(|command| CommandOut { key: &command.key, fingerprint: command.fingerprint }),
            trace: header.trace.as_ref(),
            data: &header.event,
            content: content
                .as_ref()
                .map(|content| ContentMeta { len: content.len, media_type: content.media_type }),
        };
        let mut json = Vec::with_capacity(512);
        serde_json::to_writer(&mut json, &out)
            .map_err(|error| RecordError::HeaderMalformed(error.to_string()))?;
        if json.len() > HEADER_BYTES_MAX {
            return Err(RecordError::HeaderTooLarge { bytes: json.len() });
        }
        let digest = digest_of(&json, content.as_ref().map(|content| content.digest));
        Ok(Self { header, json: json.into(), content, digest })
    }

    /// Understands a stored envelope. `content` is its digest and where it is, from the block;
    /// `digest` is that of the record, from [`digest_of`]; `before` is the record before it, with
    /// which it may share texts.
    pub(crate) fn decode(
        json: Bytes,
        content: Option<(Digest, ContentBody)>,
        digest: Digest,
        before: Option<&Header>,
    ) -> Result<Self, RecordError> {
        if json.len() > HEADER_BYTES_MAX {
            return Err(RecordError::HeaderTooLarge { bytes: json.len() });
        }
        let (header, meta) = match crate::header::read(&json, before) {
            Some(read) => read,
            None => read_any(&json)?,
        };
        let content = match (meta, content) {
            (None, None) => None,
            (Some(meta), Some((digest, body))) => {
                if let ContentBody::Inline { bytes, .. } = &body
                    && bytes.len() as u64 != meta.len
                {
                    return Err(RecordError::ContentMismatch);
                }
                Some(StoredContent { digest, len: meta.len, media_type: meta.media_type, body })
            }
            _ => return Err(RecordError::ContentMismatch),
        };
        Ok(Self { header, json, content, digest })
    }

    /// The record's sequence.
    pub fn seq(&self) -> Sequence {
        self.header.seq
    }

    /// The same record with its content erased; none if there is nothing to erase. No digest
    /// changes by that.
    pub fn erased(&self) -> Option<Self> {
        let content = self.content.as_ref()?;
        if content.body == ContentBody::Erased {
            return None;
        }
        let content = StoredContent { body: ContentBody::Erased, ..content.clone() };
        Some(Self { content: Some(content), ..self.clone() })
    }

    /// How many bytes it takes in a block.
    pub fn stored_bytes(&self) -> usize {
        let content = match &self.content {
            None => 0,
            Some(StoredContent { body: ContentBody::Inline { bytes, .. }, .. }) => {
                SALT_BYTES + 4 + bytes.len()
            }
            Some(_) => 32,
        };
        4 + self.json.len() + 1 + content
    }
}

/// Understands a header however it is written.
pub(crate) fn read_any(json: &[u8]) -> Result<(Header, Option<ContentMeta>), RecordError> {
    let read: HeaderIn<'_> = serde_json::from_slice(json)
        .map_err(|error| RecordError::HeaderMalformed(error.to_string()))?;
    let event = Event::decode(&read.kind, read.v, read.data.get())?;
    let header = Header {
        seq: read.seq,
        id: read.id,
        time: read.time,
        runtime: read.runtime,
        worker: read.worker,
        version: read.version,
        actor: read.actor,
        command: read
            .command
            .map(|command| CommandRef { key: command.key, fingerprint: command.fingerprint }),
        trace: read.trace,
        event,
    };
    Ok((header, read.content))
}

/// The record digest over the stored parts.
pub(crate) fn digest_of(header: &[u8], content: Option<Digest>) -> Digest {
    match content {
        None => sha256(&[&[0], header]),
        Some(content) => sha256(&[&[1], header, &content.0]),
    }
}
