//! A process group that does not outlive its owner.

use super::process::Stat;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// The process group of a child, named by the child's own number. Dropping it kills the
/// group.
pub(crate) struct Group {
    pid: u32,
    /// Whether the child was reaped, so that its number is held by other members only.
    leader_reaped: bool,
    /// Whether everything was done that could be.
    settled: bool,
}

impl Group {
    /// The group that the child `pid` leads.
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid, leader_reaped: false, settled: false }
    }

    /// The child was waited for.
    pub(crate) fn leader_reaped(&mut self) {
        self.leader_reaped = true;
    }

    /// Asks every member to end. A suspended one is woken up so that it can.
    pub(crate) fn terminate(&self) {
        self.send(Signal::SIGTERM);
        self.send(Signal::SIGCONT);
    }

    /// Kills every member.
    pub(crate) fn kill(&self) {
        self.send(Signal::SIGKILL);
    }

    /// Kills what the child left behind, for the last time.
    pub(crate) fn settle(&mut self) {
        if !self.settled {
            self.kill();
            self.settled = true;
        }
    }

    /// The kernel does not give a number away while a group bears it. So when the child was
    /// reaped and a process has its number, the group is empty and that one is a stranger.
    fn send(&self, signal: Signal) {
        let Ok(pid) = i32::try_from(self.pid) else { return };
        if self.settled || (self.leader_reaped && Stat::read(self.pid).is_some()) {
            return;
        }
        // ESRCH: everybody is gone already, which is what was wanted.
        let _ = killpg(Pid::from_raw(pid), signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.settle();
    }
}
