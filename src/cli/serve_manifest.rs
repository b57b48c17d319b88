//! The manifest of a running service: read at the start, watched afterwards.
//!
//! The file is looked at once a second, which also notices what a notification of the kernel
//! would miss (another file in its place, a mounted directory). A change is recorded as a new list
//! of templates of the runtime, if it is one; a broken edit keeps the last good manifest.

use crate::{
    command::{Command, Request},
    engine::EngineHandle,
    manifest::Manifest,
};
use acta_events::{RuntimeId, RuntimeRegistered};
use parking_lot::RwLock;
use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinHandle;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What of a file tells that it has changed; none if it cannot be looked at.
type Seen = Option<(u64, u64, i64, i64)>;

/// Keeps a service's manifest up to date. Ends when it is closed.
pub(super) struct Watch {
    task: JoinHandle<()>,
}

/// What the watch works with.
pub(super) struct Watched {
    /// Where the manifest is; none if nothing is named and nothing is in the usual places.
    pub(super) path: Option<PathBuf>,
    pub(super) manifest: Arc<RwLock<Arc<Manifest>>>,
    pub(super) engine: EngineHandle,
    pub(super) runtime: RuntimeId,
    pub(super) label: String,
    /// What is wrong with the file as it is now, for those who list the runtime.
    pub(super) problem: Arc<RwLock<Option<String>>>,
}

/// The command that makes the service's own runtime known with its templates.
pub(super) fn registration(runtime: &RuntimeId, label: &str, manifest: &Manifest) -> Command {
    let registered = RuntimeRegistered {
        kind: "embedded_worker_runtime".into(),
        label: label.into(),
        templates: manifest.templates(),
    };
    Command::RegisterRuntime { runtime: runtime.clone(), registered }
}

impl Watch {
    pub(super) fn start(watched: Watched) -> Self {
        Self { task: tokio::spawn(watched.run()) }
    }

    pub(super) async fn close(self) {
        self.task.abort();
        // It was told to end; how it did makes no difference.
        drop(self.task.await);
    }
}

impl Watched {
    async fn run(self) {
        let Some(path) = self.path.clone() else { return };
        let mut seen = seen(&path).await;
        // What changed between reading and looking for the first time is noticed as well.
        let mut is_news = true;
        loop {
            if is_news && !self.take_over(&path).await {
                // The engine does not write at the moment; the change is still to come.
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self::seen(&path).await;
            is_news = now != seen;
            seen = now;
        }
    }

    /// Whether nothing is left to do.
    async fn take_over(&self, path: &Path) -> bool {
        let file = path.to_owned();
        let Ok(read) = tokio::task::spawn_blocking(move || Manifest::read(&file)).await else {
            return true;
        };
        let fresh = match read {
            Ok(fresh) => {
                *self.problem.write() = None;
                fresh
            }
            Err(error) => {
                *self.problem.write() = Some(
                    "the manifest cannot be read as it is now; the templates stay as they were. \
                     `acta manifest check` says what is wrong with it"
                        .into(),
                );
                tracing::warn!("{error}; the templates stay as they were");
                return true;
            }
        };
        if **self.manifest.read() == fresh {
            return true;
        }
        let command = registration(&self.runtime, &self.label, &fresh);
        if let Err(error) = self.engine.submit(Request::service(command)).await {
            tracing::warn!(%error, "the changed manifest could not be recorded; trying again");
            return false;
        }
        let startable = fresh.templates().iter().filter(|template| template.startable).count();
        *self.manifest.write() = Arc::new(fresh);
        tracing::info!(startable, "the manifest has changed and is in use");
        true
    }
}

async fn seen(path: &Path) -> Seen {
    let meta = tokio::fs::metadata(path).await.ok()?;
    Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}
