//! Access tokens, by the digest of the token. The token itself is nowhere.

use crate::Projection;
use acta_events::{Digest, Event, HostId, Record, Role, Timestamp, TokenId, WorkerRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An issued token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenState {
    /// SHA-256 of the token.
    pub digest: Digest,
    /// What its holder may do.
    pub role: Role,
    /// For people.
    pub label: Option<String>,
    /// Of role `worker`: which one.
    pub worker: Option<WorkerRef>,
    /// Of role `host`: which one.
    pub host: Option<HostId>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// Tokens by id, and ids by digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    by_id: BTreeMap<TokenId, TokenState>,
    valid: BTreeMap<String, TokenId>,
}

impl Tokens {
    /// One token by its id, revoked or not.
    pub fn get(&self, id: &TokenId) -> Option<&TokenState> {
        self.by_id.get(id)
    }

    /// The token that is valid now and has that digest.
    pub fn valid(&self, digest: &Digest) -> Option<(&TokenId, &TokenState)> {
        let id = self.valid.get(&digest.to_string())?;
        Some((id, self.by_id.get(id)?))
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&TokenId, &TokenState)> {
        self.by_id.iter()
    }
}

impl Projection for Tokens {
    const NAME: &'static str = "tokens";

    fn fold(&mut self, record: &Record) {
        match &record.header.event {
            Event::TokenIssued(issued) => {
                let state = TokenState {
                    digest: issued.digest,
                    role: issued.role,
                    label: issued.label.clone(),
                    worker: issued.worker.clone(),
                    host: issued.host.clone(),
                    issued_at: record.header.time,
                    revoked_at: None,
                };
                self.valid.insert(issued.digest.to_string(), issued.token.clone());
                self.by_id.insert(issued.token.clone(), state);
            }
            Event::TokenRevoked(revoked) => {
                if let Some(state) = self.by_id.get_mut(&revoked.token) {
                    state.revoked_at.get_or_insert(record.header.time);
                    self.valid.remove(&state.digest.to_string());
                }
            }
            _ => {}
        }
    }
}
