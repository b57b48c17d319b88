//! The local pod source: a read-only view of a directory of pods.
//!
//! [`scan`] looks into the directory and says what it found; it records nothing. [`LocalPods`] is
//! the task that does so every few seconds and gives what is news to the engine: workers that were
//! found, have changed, or are gone. Everything that is shown of local workers is a fold of these
//! events, so that history shows which existed when.
//!
//! Nothing that leaves this module names a path: directories become identifiers, and texts of the
//! metadata become short hints.

mod metadata;
mod scan;
#[cfg(test)]
mod tests;
mod watch;

pub use scan::{FILE_BYTES_MAX, PODS_MAX, Scan, scan};
pub use watch::{LocalPods, LocalPodsOwner};

use acta_events::{HostId, RuntimeId, generated_id};
use std::path::{Path, PathBuf};

/// The runtime that stands for a directory of pods.
pub const RUNTIME: &str = "local-worker-runtime";

/// The kind of that runtime.
pub const RUNTIME_KIND: &str = "local_pod";

/// The kind of its host.
pub const HOST_KIND: &str = "local-worker-host";

/// Where local pods are, and which of them count.
#[derive(Clone, Debug)]
pub struct Source {
    /// The directory that holds a directory per pod; none if it is not known where pods are.
    pub pods: Option<PathBuf>,
    /// The workspace whose pods count.
    pub workspace_root: String,
    /// The host that stands for the workspace on this machine.
    pub host: HostId,
}

impl Source {
    /// The source of a workspace.
    pub fn new(workspace_id: &str, workspace_root: &Path, pods: Option<PathBuf>) -> Self {
        let host = generated_id("local-", workspace_id);
        let host = HostId::parse(&host).expect("a generated identifier is an identifier");
        Self { pods, workspace_root: lexical(&workspace_root.to_string_lossy()), host }
    }
}

/// The id of the runtime that stands for a directory of pods.
pub fn runtime_id() -> RuntimeId {
    RuntimeId::parse(RUNTIME).expect("it is made of letters and dashes")
}

/// A path as it is compared: with `/` between its parts, and none at its end.
fn lexical(path: &str) -> String {
    let path = path.replace('\\', "/");
    match path.trim_end_matches('/') {
        "" if !path.is_empty() => "/".into(),
        trimmed => trimmed.into(),
    }
}
