//! The local pods of a running service: configured, registered, and looked at.

use super::serve_args::LocalPodArgs;
use crate::{
    command::{Command, Request},
    engine::EngineHandle,
    local_pods::{self, LocalPods, LocalPodsOwner, Source},
    log::Log,
};
use acta_events::{HostCapabilities, HostRegistered, RuntimeRegistered};
use anyhow::Result;
use std::{sync::Arc, time::Duration};

/// What is configured, if anything is.
pub(super) fn source(args: &LocalPodArgs) -> Option<Source> {
    let (id, root) = (args.workspace_id.as_deref()?, args.workspace_root.as_deref()?);
    Some(Source::new(id, root, args.pods_dir.clone()))
}

/// Makes the runtime and its host known, and begins to look for pods.
pub(super) async fn start(
    args: &LocalPodArgs,
    source: Option<Source>,
    log: &Arc<Log>,
    engine: &EngineHandle,
) -> Result<Option<LocalPodsOwner>> {
    let Some(source) = source else { return Ok(None) };
    let runtime = local_pods::runtime_id();
    let registered = RuntimeRegistered {
        kind: local_pods::RUNTIME_KIND.into(),
        label: "Local Worker runtime".into(),
        templates: Vec::new(),
    };
    let host = HostRegistered {
        host: source.host.clone(),
        kind: local_pods::HOST_KIND.into(),
        label: "This machine, as the home of local workers".into(),
        capabilities: HostCapabilities::of_machine(std::env::consts::OS, std::env::consts::ARCH),
    };
    let found = Command::FindHost { host: host.host.clone() };
    let commands = [
        Command::RegisterRuntime { runtime: runtime.clone(), registered },
        Command::RegisterHost { runtime, registered: host },
        found,
    ];
    for command in commands {
        engine.submit(Request::service(command)).await?;
    }
    let every = Duration::from_millis(args.pods_scan_ms);
    Ok(Some(LocalPods::start(source, Arc::clone(log), engine.clone(), every)))
}
