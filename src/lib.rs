//! Acta: an event-sourced control plane for agent workers.
//!
//! See ARCHITECTURE.md for the path of a command and for who may import whom.

pub mod auth;
pub mod backend;
pub mod bundle;
pub mod cli;
pub mod content;
pub mod create_request;
pub mod data_dir;
pub mod error;
pub mod index;
pub mod journal;
pub mod manifest;
