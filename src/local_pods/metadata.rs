//! What a pod's metadata says of its worker.

use super::{Source, lexical};
use acta_events::{
    LocalPodProblem, LocalWorkerFound, LocalWorkerStatus, WorkerId, display_hint, generated_id,
};
use serde::Deserialize;
use serde_json::Value;

/// What is read of a `metadata.json`. Whatever else is in it is none of our business.
#[derive(Deserialize)]
struct Metadata {
    worker_name: String,
    #[serde(default)]
    workspace_root: Option<String>,
    #[serde(default)]
    active: Option<Active>,
    #[serde(default)]
    resolved_manifest_snapshot: Option<Value>,
}

#[derive(Deserialize)]
struct Active {
    #[serde(default)]
    segment_id: Option<Value>,
}

/// The worker that a pod's directory stands for, or why it stands for none.
pub(super) fn worker(
    source: &Source,
    directory: &str,
    json: &[u8],
) -> Result<LocalWorkerFound, LocalPodProblem> {
    let metadata: Metadata =
        serde_json::from_slice(json).map_err(|_| LocalPodProblem::MetadataInvalid)?;
    let root = metadata.workspace_root.ok_or(LocalPodProblem::WorkspaceRootMissing)?;
    if lexical(&root) != source.workspace_root {
        return Err(LocalPodProblem::WorkspaceNotVisible);
    }
    let status = match metadata.active {
        Some(Active { segment_id: Some(_) }) => LocalWorkerStatus::Segment,
        Some(Active { segment_id: None }) => LocalWorkerStatus::PendingSegment,
        None => LocalWorkerStatus::MetadataOnly,
    };
    let snapshot = metadata.resolved_manifest_snapshot.as_ref();
    let id = generated_id("local-worker-", directory);
    Ok(LocalWorkerFound {
        worker: WorkerId::parse(&id).expect("a generated identifier is an identifier"),
        host: source.host.clone(),
        label: display_hint(&metadata.worker_name),
        hint: display_hint(directory),
        role: snapshot.and_then(|snapshot| named(snapshot, "role")),
        profile: snapshot.and_then(|snapshot| named(snapshot, "profile_selector")),
        status,
    })
}

/// A text, or the name of an object. What looks like a place on this machine is no name.
fn named(snapshot: &Value, field: &str) -> Option<String> {
    let value = snapshot.get(field)?;
    let text = value.as_str().or_else(|| value.get("name")?.as_str())?;
    let is_plain = !text.is_empty() && display_hint(text) == text;
    is_plain.then(|| text.to_owned())
}
