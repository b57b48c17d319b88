//! Config bundles: which are stored, and what they declare.

use crate::Projection;
use acta_events::{BundleRef, ConfigBundleStored, Event, Record, Sequence};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A stored bundle; the document itself is the content of its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BundleState {
    /// The record that stored it.
    pub seq: Sequence,
    /// What is known without the document.
    pub stored: ConfigBundleStored,
}

/// Bundles by identifier, then by digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bundles {
    by_id: BTreeMap<String, BTreeMap<String, BundleState>>,
}

impl Bundles {
    /// The bundle with that identifier and digest.
    pub fn get(&self, bundle: &BundleRef) -> Option<&BundleState> {
        self.by_id.get(&bundle.id)?.get(&bundle.digest)
    }

    /// Whether there is a bundle with that identifier, under any digest.
    pub fn knows_id(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// All of them, by identifier and digest.
    pub fn iter(&self) -> impl Iterator<Item = &BundleState> {
        self.by_id.values().flat_map(BTreeMap::values)
    }
}

impl Projection for Bundles {
    const NAME: &'static str = "bundles";

    fn fold(&mut self, record: &Record) {
        if let Event::ConfigBundleStored(stored) = &record.header.event {
            let state = BundleState { seq: record.seq(), stored: stored.clone() };
            self.by_id
                .entry(stored.bundle.id.clone())
                .or_default()
                .insert(stored.bundle.digest.clone(), state);
        }
    }
}
