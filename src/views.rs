//! The live projections behind one handle.
//!
//! Readers share a lock that is only ever held for the time of a look; the engine's writer
//! is the only one that writes, and only what is durable.

use acta_events::{Record, RuntimeId, WorkerId};
use acta_projections::{Gap, Projections, WorkerState};
use parking_lot::{RwLock, RwLockReadGuard};
use std::sync::Arc;

/// The live projections.
#[derive(Debug, Default)]
pub struct Views {
    projections: RwLock<Projections>,
}

impl Views {
    /// Views that continue from a state.
    pub fn new(projections: Projections) -> Self {
        Self { projections: RwLock::new(projections) }
    }

    /// All projections, for a short look. Never held across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, Projections> {
        self.projections.read()
    }

    /// One worker.
    pub fn worker(&self, runtime: &RuntimeId, worker: &WorkerId) -> Option<Arc<WorkerState>> {
        self.projections.read().workers.get(runtime, worker).cloned()
    }

    /// Applies durable records, and hands each to `then` with the state that it led to.
    pub(crate) fn apply(
        &self,
        records: &[Arc<Record>],
        mut then: impl FnMut(&Arc<Record>, &Projections),
    ) -> Result<(), Gap> {
        let mut projections = self.projections.write();
        for record in records {
            projections.apply(record)?;
            then(record, &projections);
        }
        Ok(())
    }
}
