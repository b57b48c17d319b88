//! What the log means: pure folds over its records.
//!
//! A projection is a state and the position up to which it has read. Applying a record at or
//! below the position changes nothing, so replay is duplicate-safe; a record that is not the
//! next one is refused, so nothing is ever skipped. The state of a projection depends on the
//! records alone: no clock, no randomness, no I/O.

mod bundles;
mod cursors;
mod external;
mod hosts;
mod lineage;
mod local_workers;
mod redactions;
mod registry;
mod tokens;
mod transcript;
mod worker;
mod workers;

pub use bundles::{BundleState, Bundles};
pub use cursors::{CursorState, Cursors};
pub use external::{
    ANSWERS_KEPT, Answered, EXTERNAL_RUNTIME, External, Presence, REPLIES_KEPT, UNDELIVERED_KEPT,
    Undelivered, WAITING_MAX,
};
pub use hosts::{HostState, HostStatus, Hosts};
pub use lineage::{EpochStart, Expired, Lineage};
pub use local_workers::{LocalWorkerState, LocalWorkers};
pub use redactions::{Redaction, Redactions};
pub use registry::{REMOTE_HTTP, RuntimeState, RuntimeStatus, Runtimes, remote_host};
pub use tokens::{TokenState, Tokens};
pub use transcript::{MarkKind, TranscriptMark};
pub use worker::{
    Backend, Child, Execution, LastResult, OpenText, OpenTurn, Operation, Outcome, RunState,
    Terminal, WorkerSpec, WorkerState, WorkerStatus,
};
pub use workers::{WorkerCounts, Workers};

use acta_events::{Digest, Record, Sequence, Timestamp, sha256};
use serde::{Deserialize, Serialize};

/// A fold over records.
pub trait Projection: Clone + Default + Serialize {
    /// Its name in reports.
    const NAME: &'static str;

    /// Takes in the next record. Total: any record is fine.
    fn fold(&mut self, record: &Record);
}

/// A record is not the next one for a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {found} does not follow {position}: records are missing in between")]
pub struct Gap {
    /// How far the projection has read.
    pub position: Sequence,
    /// The record it was given.
    pub found: Sequence,
}

/// A projection with the position up to which it has read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Projected<P> {
    position: Sequence,
    state: P,
}

impl<P: Projection> Projected<P> {
    /// Applies a record; one at or below the position changes nothing.
    pub fn apply(&mut self, record: &Record) -> Result<(), Gap> {
        let seq = record.seq();
        if seq <= self.position {
            return Ok(());
        }
        if seq != self.position.next() {
            return Err(Gap { position: self.position, found: seq });
        }
        self.state.fold(record);
        self.position = seq;
        Ok(())
    }

    /// How far it has read.
    pub fn position(&self) -> Sequence {
        self.position
    }

    /// SHA-256 over the position and the state. Contents count with their digests only.
    pub fn digest(&self) -> Digest {
        // The state is made of maps with text keys, numbers and texts: that always serialises.
        let state = serde_json::to_vec(&self.state).unwrap_or_default();
        sha256(&[P::NAME.as_bytes(), &self.position.0.to_be_bytes(), &state])
    }
}

impl<P> std::ops::Deref for Projected<P> {
    type Target = P;
    fn deref(&self) -> &P {
        &self.state
    }
}

/// The last record that was read, for whoever continues the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tip {
    /// When it was decided.
    pub time: Timestamp,
    /// Its record digest.
    pub digest: Option<Digest>,
}

impl Projection for Tip {
    const NAME: &'static str = "tip";

    fn fold(&mut self, record: &Record) {
        self.time = record.header.time;
        self.digest = Some(record.digest);
    }
}

/// The state of one projection, for comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProjectionDigest {
    /// Its name.
    pub name: &'static str,
    /// How far it has read.
    pub position: Sequence,
    /// SHA-256 over position and state.
    pub digest: Digest,
}

macro_rules! projections {
    ($($(#[$doc:meta])* $field:ident: $Type:ty,)*) => {
        /// Every projection, fed from one log.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub struct Projections {
            $($(#[$doc])* pub $field: Projected<$Type>,)*
        }

        impl Projections {
            /// Applies a record to all of them; one at or below the position changes nothing.
            pub fn apply(&mut self, record: &Record) -> Result<(), Gap> {
                $(self.$field.apply(record)?;)*
                Ok(())
            }

            /// The digest of each.
            pub fn digests(&self) -> Vec<ProjectionDigest> {
                vec![$(ProjectionDigest {
                    name: <$Type as Projection>::NAME,
                    position: self.$field.position(),
                    digest: self.$field.digest(),
                },)*]
            }
        }
    };
}

projections! {
    /// Runtimes and their templates.
    runtimes: Runtimes,
    /// Hosts.
    hosts: Hosts,
    /// Workers.
    workers: Workers,
    /// Workers in a directory of pods.
    local_workers: LocalWorkers,
    /// Config bundles.
    bundles: Bundles,
    /// Named consumer cursors.
    cursors: Cursors,
    /// Access tokens.
    tokens: Tokens,
    /// Contents that were erased.
    redactions: Redactions,
    /// The incarnations of the log.
    lineage: Lineage,
    /// The last record.
    tip: Tip,
}

impl Projections {
    /// How far all of them have read.
    pub fn position(&self) -> Sequence {
        self.tip.position()
    }

    /// One digest over all of them.
    pub fn digest(&self) -> Digest {
        let digests = self.digests();
        let parts: Vec<&[u8]> = digests.iter().map(|part| part.digest.0.as_slice()).collect();
        sha256(&parts)
    }
}
