//! Events of erasure: which content is gone, and by whose order.

use crate::{
    Digest,
    ids::{Actor, Sequence},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// See [`Event::ContentRedacted`](super::Event::ContentRedacted). Who ordered it, and when, is in
/// the header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContentRedacted {
    /// The record whose content is erased.
    pub sequence: Sequence,
    /// The content digest of that record, which stays.
    pub content: Digest,
    /// Of an erasure that is repeated after an older state was restored: the first order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<ErasureOrder>,
}

/// Who ordered an erasure, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErasureOrder {
    /// Who.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
}
