//! What the tests stand on: a service of their own, clients for it, and patience that ends.

mod cli;
mod client;
mod connector;
mod deployed;
mod manifest;
pub mod platform;
mod service;
mod socket;
mod tls;

pub use cli::{Ran, run};
pub use client::{Answer, Client, keys};
pub use connector::Connector;
pub use deployed::{Deployed, envelope, reply_to};
pub use manifest::{PAYLOADS, manifest};
pub use service::{Options, Service, bare_command};
pub use socket::{Incoming, Socket};
pub use tls::Authority;

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// How long anything may take before a test counts as failed. Generous: it is only waited out
/// by a defect.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until there is something to see. `what` is named if that never happens.
pub async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "it never happened: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits for something that announces itself.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(done) = tokio::time::timeout(PATIENCE, future).await else {
        panic!("it never happened: {what}")
    };
    done
}
