//! What is there for those who verify a log themselves.

use super::{
    Journal as _, OpenError, ReadError, SealLimits,
    sled::{SledJournal, closed},
    sled_store::RealDisk,
    walk::damaged,
};
use crate::data_dir::DataDir;
use acta_events::Sequence;
use bytes::Bytes;
use std::sync::Arc;

impl SledJournal {
    /// As [`Self::open`], for whoever reads and verifies all of it: only its end is looked at, which has
    /// to be what HEAD names. What is damaged before it is told by reading it.
    pub fn open_to_verify(data: &DataDir) -> Result<Self, OpenError> {
        Self::open_on(data, Arc::new(RealDisk), 1, SealLimits::default())
    }

    /// Blocks as they are stored, unverified, from the one that holds the sequence after
    /// `after`; none at the end. For whoever verifies them and measures that alone; where
    /// something is wrong with them, [`crate::journal::Journal::read`] tells what.
    pub fn stored(&self, after: Sequence, blocks: usize) -> Result<Vec<Bytes>, ReadError> {
        let Some(store) = self.keeper.live_store() else { return Err(closed()) };
        let view = self.view(&store);
        let wanted = after.next();
        let fault = |fault| damaged(wanted, self.head().seq.max(wanted), fault);
        if after >= self.head().seq {
            return Ok(Vec::new());
        }
        let floor = view.floor(wanted).map_err(fault)?;
        let mut next = floor.map_or(wanted, |(first, _)| first);
        let mut found = Vec::new();
        while found.len() < blocks {
            let Some((first, bytes)) = view.ceiling(next).map_err(fault)? else { break };
            found.push(bytes);
            next = first.next();
        }
        Ok(found)
    }
}
