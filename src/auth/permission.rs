//! What each role may do: one table.

use acta_events::Role;
use std::fmt;

/// Something that not everybody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Read runtimes, hosts, workers, and what workers said and did.
    ReadWorkers,
    /// Read everything else too: the whole log, proofs, tokens without the tokens themselves.
    ReadAll,
    /// Commit one's own cursors.
    OwnCursors,
    /// Give commands: spawn, input, stop, cancel, register, store; and run the service.
    Command,
    /// Issue and revoke tokens.
    Tokens,
    /// Register a host and send its heartbeats.
    HostBeat,
    /// Act as a worker: register, beat, read its inbox, report. Which one is checked apart.
    WorkerSelf,
    /// Send a message to a worker.
    SendMessage,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 8] = [
        Self::ReadWorkers,
        Self::ReadAll,
        Self::OwnCursors,
        Self::Command,
        Self::Tokens,
        Self::HostBeat,
        Self::WorkerSelf,
        Self::SendMessage,
    ];

    /// The roles that have it.
    pub fn roles(self) -> impl Iterator<Item = Role> {
        ROLES.into_iter().filter(move |role| role.may(self))
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadWorkers => "read workers",
            Self::ReadAll => "read the whole log",
            Self::OwnCursors => "commit cursors",
            Self::Command => "give commands",
            Self::Tokens => "issue or revoke tokens",
            Self::HostBeat => "speak for a host",
            Self::WorkerSelf => "speak for a worker",
            Self::SendMessage => "send messages",
        })
    }
}

const ROLES: [Role; 5] = [Role::Operator, Role::Auditor, Role::Observer, Role::Host, Role::Worker];

/// What a role means here.
pub trait RoleExt {
    /// Whether the role includes it.
    fn may(self, permission: Permission) -> bool;

    /// As it is written in JSON and on the command line.
    fn name(self) -> &'static str;
}

impl RoleExt for Role {
    fn may(self, permission: Permission) -> bool {
        use Permission::{
            Command, HostBeat, OwnCursors, ReadAll, ReadWorkers, SendMessage, Tokens, WorkerSelf,
        };
        match self {
            Self::Operator => true,
            Self::Auditor => matches!(permission, ReadWorkers | ReadAll | OwnCursors),
            Self::Observer => matches!(permission, ReadWorkers | OwnCursors),
            Self::Host => matches!(permission, HostBeat),
            Self::Worker => match permission {
                WorkerSelf | SendMessage => true,
                ReadWorkers | ReadAll | OwnCursors | Command | Tokens | HostBeat => false,
            },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Observer => "observer",
            Self::Host => "host",
            Self::Worker => "worker",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_of_the_design() {
        use Permission::{
            Command, HostBeat, OwnCursors, ReadAll, ReadWorkers, SendMessage, Tokens, WorkerSelf,
        };
        //                operator auditor observer host worker
        let table = [
            (ReadWorkers, [true, true, true, false, false]),
            (ReadAll, [true, true, false, false, false]),
            (OwnCursors, [true, true, true, false, false]),
            (Command, [true, false, false, false, false]),
            (Tokens, [true, false, false, false, false]),
            (HostBeat, [true, false, false, true, false]),
            (WorkerSelf, [true, false, false, false, true]),
            (SendMessage, [true, false, false, false, true]),
        ];
        assert_eq!(table.map(|(permission, _)| permission), Permission::ALL);
        for (permission, expected) in table {
            assert_eq!(ROLES.map(|role| role.may(permission)), expected, "{permission:?}");
        }
    }

    #[test]
    fn a_role_is_called_what_json_calls_it() {
        for role in ROLES {
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
        }
    }
}
