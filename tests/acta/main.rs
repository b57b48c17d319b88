//! Black-box tests: the real binary on a data directory and a port of its own, spoken to as
//! any client does. One binary, so that it is linked once.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "these are tests")]

mod support;

mod survive_bare;
mod survive_children;
mod survive_clock;
mod survive_damage;
mod survive_disk;
mod survive_hostile;
mod survive_kill;
mod survive_measure;
mod survive_power;
mod survive_raw;
mod survive_sealed;
mod survive_slow;

mod access;
mod audit_api;
mod audit_foreign;
mod audit_import;
mod audit_verify;
mod cli;
mod connect_backends;
mod connect_chain;
mod connect_kill;
mod connect_options;
mod connect_poll;
mod connect_push;
mod contract_bundles;
mod contract_commands;
mod contract_errors;
mod contract_inputs;
mod contract_lifecycle;
mod contract_past;
mod contract_transcript;
mod contract_workers;
mod demo;
mod erase_race;
mod erase_redact;
mod erase_shown;
mod export_lines;
mod external_create;
mod external_deployed;
mod external_inbox;
mod external_presence;
mod external_push;
mod external_rules;
mod lookback_auditors;
mod lookback_log;
mod lookback_replay;
mod observe_cursors;
mod observe_ends;
mod observe_log;
mod observe_snapshot;
mod observe_worker;
mod operate_config;
mod operate_doctor;
mod operate_metrics;
#[cfg(feature = "otlp")]
mod operate_traces;
mod outgoing_tls;
mod registry_bounds;
mod registry_cli;
mod registry_hosts;
mod registry_leaks;
mod registry_manifest;
mod registry_pods;
mod registry_remote;
mod registry_rules;
mod registry_spawn;
mod registry_workers;
mod retain_history;
mod retain_power;
mod snapshot_apart;
mod snapshot_restore;
mod tidy;
