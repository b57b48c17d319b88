//! Events of tokens and cursors: who may ask, and how far consumers have read.

use crate::{
    Digest,
    ids::{CursorName, HostId, RuntimeId, Sequence, TokenId, WorkerId},
};
use serde::{Deserialize, Serialize};

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Operator,
    /// Reads everything; its own cursors; no other command.
    Auditor,
    /// Reads workers and their events; its own cursors.
    Observer,
    /// Registers itself and beats.
    Host,
    /// Its own worker, and messages to others.
    Worker,
}

/// See [`Event::TokenIssued`](super::Event::TokenIssued).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenIssued {
    /// Names the token without giving it away.
    pub token: TokenId,
    /// SHA-256 of the token.
    pub digest: Digest,
    /// What its holder may do.
    pub role: Role,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Of role `worker`: which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerRef>,
    /// Of role `host`: which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
}

/// A worker's full address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerRef {
    /// Its runtime.
    pub runtime_id: RuntimeId,
    /// Its id within the runtime.
    pub worker_id: WorkerId,
}

/// See [`Event::TokenRevoked`](super::Event::TokenRevoked).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRevoked {
    /// The token.
    pub token: TokenId,
}

/// See [`Event::CursorCommitted`](super::Event::CursorCommitted). The cursor belongs to the actor of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CursorCommitted {
    /// Its name.
    pub name: CursorName,
    /// The position, as the consumer gave it.
    pub cursor: String,
    /// The sequence in it.
    pub position: Sequence,
}

/// See [`Event::ReadsRecorded`](super::Event::ReadsRecorded).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadsRecorded {
    /// What was read, each once.
    pub reads: Vec<ReadNote>,
    /// How many more reads there were than there was room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
}

/// Something that was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadNote {
    /// The path, and which moments or positions were asked for.
    pub what: String,
    /// How often.
    pub count: u64,
    /// The head of the log at the last of them.
    pub head: Sequence,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
