//! Runtimes.

use crate::Projection;
use acta_events::{
    Event, HostId, Record, RemoteAddress, RuntimeId, TemplateSummary, Timestamp, sha256,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

/// The kind of a runtime that another service has.
pub const REMOTE_HTTP: &str = "remote_http";

/// The host that stands for another service, whose own hosts are its own affair.
pub fn remote_host(runtime: &RuntimeId) -> HostId {
    let digest = sha256(&[runtime.as_str().as_bytes()]).to_string();
    HostId::parse(&format!("remote-{}", &digest[..16]))
        .expect("letters, a dash and hexadecimal digits make an identifier")
}

/// Whether a runtime takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeStatus {
    /// It does.
    Running,
    /// It does not any more.
    Stopped,
}

/// A runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeState {
    /// Such as `embedded_worker_runtime`.
    pub kind: String,
    /// For people.
    pub label: String,
    /// Whether it takes work.
    pub status: RuntimeStatus,
    /// What workers can be made from.
    pub templates: Vec<TemplateSummary>,
    /// Where it is reached, if another service has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteAddress>,
    /// When it was registered.
    pub registered_at: Timestamp,
}

/// Runtimes by id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Runtimes {
    by_id: BTreeMap<RuntimeId, RuntimeState>,
}

impl Runtimes {
    /// One runtime.
    pub fn get(&self, id: &RuntimeId) -> Option<&RuntimeState> {
        self.by_id.get(id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&RuntimeId, &RuntimeState)> {
        self.by_id.iter()
    }

    /// Those with ids after `after`, by id.
    pub fn after<'a>(
        &'a self,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a RuntimeId, &'a RuntimeState)> + use<'a> {
        self.by_id.range::<str, _>((after.map_or(Unbounded, Excluded), Unbounded))
    }
}

impl Projection for Runtimes {
    const NAME: &'static str = "runtimes";

    fn fold(&mut self, record: &Record) {
        let Some(id) = &record.header.runtime else { return };
        match &record.header.event {
            Event::RuntimeRegistered(registered) => {
                let state = RuntimeState {
                    kind: registered.kind.clone(),
                    label: registered.label.clone(),
                    status: RuntimeStatus::Running,
                    templates: registered.templates.clone(),
                    remote: None,
                    registered_at: record.header.time,
                };
                self.by_id.insert(id.clone(), state);
            }
            Event::RemoteRuntimeRegistered(registered) => {
                let known = self.by_id.get(id);
                let state = RuntimeState {
                    kind: REMOTE_HTTP.into(),
                    label: registered.label.clone(),
                    status: RuntimeStatus::Running,
                    templates: Vec::new(),
                    remote: Some(registered.remote.clone()),
                    registered_at: known.map_or(record.header.time, |known| known.registered_at),
                };
                self.by_id.insert(id.clone(), state);
            }
            Event::RuntimeRetired(_) => {
                self.by_id.remove(id);
            }
            Event::RuntimeUpdated(updated) => {
                if let Some(state) = self.by_id.get_mut(id) {
                    state.label.clone_from(&updated.label);
                    state.templates.clone_from(&updated.templates);
                }
            }
            Event::RuntimeStopped(_) => {
                if let Some(state) = self.by_id.get_mut(id) {
                    state.status = RuntimeStatus::Stopped;
                }
            }
            _ => {}
        }
    }
}
