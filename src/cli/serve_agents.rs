//! What `acta serve` does for agents that connect in.

use crate::{
    agents::{AddressPolicy, LeaseOwner, Leases, Network, PushLimits, PushOwner, external_runtime},
    command::{Command, Request},
    engine::{Engine, EngineHandle},
    http::Agents,
    log::Log,
    trust::Trust,
};
use acta_events::{RuntimeId, RuntimeRegistered};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::{sync::Arc, time::Duration};

/// Options of `acta serve` about agents that connect in.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "External workers")]
pub struct AgentArgs {
    /// How agents reach this service, as it is told to whoever connects one. Otherwise
    /// EXTERNAL_PLATFORM_URL, or what the request says
    #[arg(long, value_name = "URL", env = "ACTA_PLATFORM_URL")]
    pub platform_url: Option<String>,

    /// A network that messages may be posted to although it is refused otherwise, as in
    /// 10.0.0.0/8; may be repeated
    #[arg(long, value_name = "NETWORK", env = "ACTA_PUSH_ALLOW", value_delimiter = ',')]
    pub push_allow: Vec<Network>,

    /// How long an agent counts as there after it was heard of
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub lease_ms: u64,

    /// How long a message to an agent with a URL waits for its answer
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    pub push_answer_wait_ms: u64,

    /// How long an agent with a URL may take to answer a message that is posted to it
    #[arg(long, value_name = "MS", default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub push_timeout_ms: u64,

    /// The pause after the first attempt to post a message; it doubles, up to a minute
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub push_pause_ms: u64,

    /// How often a message is tried to be posted before it is given up
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub push_attempts_max: u32,
}

/// Ends what looks after agents.
pub(super) struct AgentsOwner {
    leases: LeaseOwner,
    push: PushOwner,
}

impl AgentsOwner {
    pub(super) async fn close(self) {
        self.leases.close().await;
        self.push.close().await;
    }
}

/// Makes the runtime of agents that connect in known.
pub(super) async fn announce(own: &RuntimeId, engine: &Engine) -> Result<()> {
    let runtime = external_runtime();
    if *own == runtime {
        bail!("--runtime-id {runtime} is taken: it is the runtime of workers that connect in");
    }
    let registered = RuntimeRegistered {
        kind: "external".into(),
        label: "External workers".into(),
        templates: Vec::new(),
    };
    let command = Command::RegisterRuntime { runtime, registered };
    engine.handle().submit(Request::service(command)).await?;
    Ok(())
}

/// Starts what looks after agents.
pub(super) fn start(
    args: &AgentArgs,
    log: &Arc<Log>,
    engine: &EngineHandle,
    trust: &Trust,
) -> Result<(Agents, AgentsOwner)> {
    let leases = Leases::new(Duration::from_millis(args.lease_ms));
    let addresses = AddressPolicy::new(args.push_allow.iter().copied());
    let limits = PushLimits {
        attempts: args.push_attempts_max,
        pause: Duration::from_millis(args.push_pause_ms),
        answer: Duration::from_millis(args.push_timeout_ms),
    };
    let owner = AgentsOwner {
        leases: LeaseOwner::start(leases.clone(), Arc::clone(log), engine.clone()),
        push: PushOwner::start(Arc::clone(log), engine.clone(), addresses.clone(), limits, trust)
            .context("messages could not be posted to agents")?,
    };
    let agents = Agents {
        leases,
        addresses,
        platform_url: args
            .platform_url
            .clone()
            .or_else(|| std::env::var("EXTERNAL_PLATFORM_URL").ok())
            .filter(|url| !url.is_empty()),
        answer_wait: Duration::from_millis(args.push_answer_wait_ms),
    };
    Ok((agents, owner))
}
