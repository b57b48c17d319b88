//! Acta: an event-sourced control plane for agent workers.
//!
//! See ARCHITECTURE.md for the path of a command and for who may import whom.

#[cfg(test)]
extern crate self as acta;
#[cfg(test)]
mod fuzz_corpora;

pub mod agents;
pub mod audit;
pub mod auth;
pub mod backend;
pub mod base;
pub mod bundle;
pub mod checkpoint;
pub mod cli;
pub mod command;
pub mod connect;
pub mod content;
pub mod create_request;
pub mod data_dir;
pub mod decide;
pub mod disk_use;
pub mod dispatch;
pub mod engine;
pub mod envelope;
pub mod eraser;
pub mod error;
pub mod feed;
pub mod host_leases;
pub mod http;
pub mod index;
pub mod journal;
pub mod local_pods;
pub mod log;
pub mod manifest;
pub mod metrics;
pub mod object;
pub mod overview;
pub mod redaction_list;
pub mod remote;
pub mod rendered;
pub mod retention;
pub mod snapshot;
pub mod trace;
pub mod trust;
mod varint;
pub mod views;
