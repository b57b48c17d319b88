//! Runtimes of other services, under the aliases that they have here.
//!
//! What is known of one durably is where it is; the log of the other service has all the rest. So
//! nothing is kept here but how it was seen last, and everything that is asked is asked there,
//! each within its deadline: a service that hangs keeps nobody waiting but who asked for it.

mod call;
mod monitor;
mod watch;
mod wire;

pub(crate) use call::{Asked, RemoteError};
pub use monitor::MonitorOwner;
pub(crate) use watch::Frames;
pub(crate) use wire::{
    AckAnswer, RemoteStatus, RemoteTranscript, RemoteWorker, TranscriptAnswer, WorkerAnswer,
    WorkersAnswer,
};

use crate::trust::Trust;
use acta_events::{RemoteAddress, RuntimeId};
use parking_lot::RwLock;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long an answer of another service is waited for, all in all.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// How often it is looked whether it is there.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How another service was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its own id of the runtime, as soon as it has told.
    pub(crate) runtime: Option<RuntimeId>,
    /// Whether the runtime takes work.
    pub(crate) running: bool,
    /// Why it is not there, if it is not.
    pub(crate) problem: Option<RemoteError>,
}

/// The other services, and the connections to them.
#[derive(Clone, Debug)]
pub struct Remotes {
    http: reqwest::Client,
    trust: Trust,
    seen: Arc<RwLock<BTreeMap<RuntimeId, (RemoteAddress, Seen)>>>,
}

impl Remotes {
    /// No connection is made before one is needed.
    pub fn new(trust: Trust) -> Result<Self, reqwest::Error> {
        let http = trust
            .http()
            .connect_timeout(Duration::from_secs(2))
            .timeout(ANSWER_DEADLINE)
            .build()?;
        Ok(Self { http, trust, seen: Arc::default() })
    }

    /// How it was seen last; nothing if it was not looked at yet, or is somewhere else by now.
    pub(crate) fn seen(&self, runtime: &RuntimeId, address: &RemoteAddress) -> Option<Seen> {
        let seen = self.seen.read();
        seen.get(runtime).filter(|(at, _)| at == address).map(|(_, seen)| seen.clone())
    }
}
