//! Runtimes and config bundles.

use super::{Decision, Draft, Facts};
use crate::error::{Code, Rejection};
use acta_events::{
    ConfigBundleStored, RemoteRuntimeRegistered, RuntimeId, RuntimeRegistered, RuntimeRetired,
    RuntimeStopped, RuntimeUpdated, StoredContent,
};
use acta_projections::RuntimeStatus;

pub(super) fn register_runtime(
    facts: Facts<'_>,
    runtime: &RuntimeId,
    registered: &RuntimeRegistered,
) -> Decision {
    match facts.globals.runtimes.get(runtime) {
        None => Draft::of_runtime(runtime, registered.clone()).into(),
        Some(known)
            if known.label == registered.label && known.templates == registered.templates =>
        {
            Decision::Unchanged
        }
        Some(_) => {
            let updated = RuntimeUpdated {
                label: registered.label.clone(),
                templates: registered.templates.clone(),
            };
            Draft::of_runtime(runtime, updated).into()
        }
    }
}

/// An alias stands for one thing: a runtime of this service cannot become another's.
pub(super) fn register_remote(
    facts: Facts<'_>,
    runtime: &RuntimeId,
    registered: &RemoteRuntimeRegistered,
) -> Result<Decision, Rejection> {
    match facts.globals.runtimes.get(runtime) {
        Some(known) if known.remote.is_none() => {
            let message = format!(
                "runtime `{runtime}` is one of this service's own; choose another id for the other \
                 service's"
            );
            Err(Rejection::invalid(message))
        }
        Some(known)
            if known.label == registered.label
                && known.remote.as_ref() == Some(&registered.remote) =>
        {
            Ok(Decision::Unchanged)
        }
        _ => Ok(Draft::of_runtime(runtime, registered.clone()).into()),
    }
}

pub(super) fn retire_runtime(facts: Facts<'_>, runtime: &RuntimeId) -> Result<Decision, Rejection> {
    match facts.globals.runtimes.get(runtime) {
        None => Err(unknown_runtime(runtime)),
        Some(known) if known.remote.is_none() => {
            let message = format!(
                "runtime `{runtime}` is one of this service's own and stays as long as its \
                 configuration says so; `acta runtime stop` ends its work"
            );
            Err(Rejection::invalid(message))
        }
        Some(_) => Ok(Draft::of_runtime(runtime, RuntimeRetired {}).into()),
    }
}

pub(super) fn stop_runtime(facts: Facts<'_>, runtime: &RuntimeId) -> Result<Decision, Rejection> {
    match facts.globals.runtimes.get(runtime) {
        None => Err(unknown_runtime(runtime)),
        Some(known) if known.status == RuntimeStatus::Stopped => Ok(Decision::Unchanged),
        Some(_) => Ok(Draft::of_runtime(runtime, RuntimeStopped {}).into()),
    }
}

pub(super) fn unknown_runtime(runtime: &RuntimeId) -> Rejection {
    let message = format!("there is no runtime `{runtime}`; `acta ls runtimes` lists them");
    Rejection::new(Code::UnknownRuntime, message)
}

pub(super) fn store_bundle(
    facts: Facts<'_>,
    stored: &ConfigBundleStored,
    document: &StoredContent,
) -> Decision {
    if facts.globals.bundles.get(&stored.bundle).is_some() {
        return Decision::Unchanged;
    }
    Draft::of_service(stored.clone()).with(Some(document.clone())).into()
}
