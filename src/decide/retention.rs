//! Retention: up to where history has expired.

use super::{Decision, Draft, Facts};
use acta_events::HistoryExpired;

/// Expires what has not expired yet, and never what is not there. That nothing of it is needed any
/// more is found out by whoever asks for it, and stays so: what would be needed again is refused.
pub(super) fn expire(facts: Facts<'_>, expired: &HistoryExpired) -> Decision {
    let through = expired.through;
    let lineage = &facts.globals.lineage;
    if through <= lineage.expired_through() || through >= facts.globals.position() {
        return Decision::Unchanged;
    }
    Draft::of_service(expired.clone()).into()
}
