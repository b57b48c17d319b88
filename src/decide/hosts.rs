//! Hosts: what they are, and whether they are there.

use super::{Decision, Draft, Facts, registry::unknown_runtime};
use crate::error::{Code, Rejection, shown};
use acta_events::{HostFound, HostId, HostLost, HostRegistered, HostUpdated, RuntimeId, Timestamp};
use acta_projections::HostStatus;

pub(super) fn register(
    facts: Facts<'_>,
    runtime: &RuntimeId,
    registered: &HostRegistered,
) -> Result<Decision, Rejection> {
    if facts.globals.runtimes.get(runtime).is_none() {
        return Err(unknown_runtime(runtime));
    }
    let host = &registered.host;
    let Some(known) = facts.globals.hosts.get(host) else {
        return Ok(Draft::of_runtime(runtime, registered.clone()).into());
    };
    if known.runtime != *runtime {
        let message = format!(
            "host `{host}` belongs to runtime `{}`; register it there, or under another id here",
            known.runtime
        );
        return Err(Rejection::new(Code::WrongRuntime, message));
    }
    if known.kind != registered.kind {
        let message = format!(
            "host `{host}` is of kind `{}`; what is of another kind needs another id",
            shown(&known.kind)
        );
        return Err(Rejection::invalid(message));
    }
    if known.label == registered.label && known.capabilities == registered.capabilities {
        return Ok(Decision::Unchanged);
    }
    let updated = HostUpdated {
        host: host.clone(),
        label: registered.label.clone(),
        capabilities: registered.capabilities.clone(),
    };
    Ok(Draft::of_runtime(runtime, updated).into())
}

/// A host that is not known any more cannot be lost either.
pub(super) fn lose(facts: Facts<'_>, host: &HostId, last_seen_at: Option<Timestamp>) -> Decision {
    match facts.globals.hosts.get(host) {
        Some(known) if known.status == HostStatus::Online => {
            let lost = HostLost { host: host.clone(), last_seen_at };
            Draft::of_runtime(&known.runtime, lost).into()
        }
        _ => Decision::Unchanged,
    }
}

pub(super) fn find(facts: Facts<'_>, host: &HostId) -> Result<Decision, Rejection> {
    match facts.globals.hosts.get(host) {
        None => Err(unknown(host)),
        Some(known) if known.status == HostStatus::Online => Ok(Decision::Unchanged),
        Some(known) => {
            Ok(Draft::of_runtime(&known.runtime, HostFound { host: host.clone() }).into())
        }
    }
}

fn unknown(host: &HostId) -> Rejection {
    let message = format!("there is no host `{host}`; `acta ls hosts` lists them");
    Rejection::new(Code::UnknownHost, message)
}
