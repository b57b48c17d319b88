//! Agents that connect in: their leases, and the delivery of messages to those with a URL.
//!
//! What an agent is told and what it answers is in the log. Here is only what has a clock:
//! when each was heard of, and when to try a delivery again.

mod address;
mod leases;
mod post;
mod push;

pub use address::{AddressPolicy, Network, NetworkError, UrlRefused};
pub use leases::{LeaseOwner, Leases, external_runtime};
pub use push::{PushLimits, PushOwner};
