//! Named consumer cursors: how far each consumer says it has read.

use crate::Projection;
use acta_events::{Actor, CursorName, Event, Record, Sequence, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The last committed position of one consumer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CursorState {
    /// As the consumer gave it.
    pub cursor: String,
    /// The sequence in it.
    pub position: Sequence,
    /// The record that committed it.
    pub committed_seq: Sequence,
    /// When.
    pub committed_at: Timestamp,
}

/// Cursors by owner, then by name: a name belongs to whoever committed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cursors {
    by_owner: BTreeMap<Actor, BTreeMap<CursorName, CursorState>>,
}

impl Cursors {
    /// One cursor.
    pub fn get(&self, owner: &Actor, name: &CursorName) -> Option<&CursorState> {
        self.by_owner.get(owner)?.get(name)
    }

    /// All cursors of one owner, by name.
    pub fn of<'a>(
        &'a self,
        owner: &Actor,
    ) -> impl Iterator<Item = (&'a CursorName, &'a CursorState)> + use<'a> {
        self.by_owner.get(owner).into_iter().flatten()
    }

    /// All cursors, by owner and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Actor, &CursorName, &CursorState)> {
        let all = self.by_owner.iter();
        all.flat_map(|(owner, of)| of.iter().map(move |(name, state)| (owner, name, state)))
    }
}

impl Projection for Cursors {
    const NAME: &'static str = "cursors";

    fn fold(&mut self, record: &Record) {
        if let Event::CursorCommitted(committed) = &record.header.event {
            let state = CursorState {
                cursor: committed.cursor.clone(),
                position: committed.position,
                committed_seq: record.seq(),
                committed_at: record.header.time,
            };
            self.by_owner
                .entry(record.header.actor.clone())
                .or_default()
                .insert(committed.name.clone(), state);
        }
    }
}
