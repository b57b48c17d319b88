//! Processes told apart from later ones with the same number, and the end of those that an
//! earlier life of the service left behind.

use acta_events::ProcessRef;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    fs,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// How long a killed group is waited for.
const KILL_WAIT: Duration = Duration::from_secs(5);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// How the attempt to end a leftover process group went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftoverEnd {
    /// The process is gone, or its number belongs to another one; nothing was signalled.
    Gone,
    /// The group ended within the grace period after SIGTERM.
    Terminated,
    /// The group had to be killed.
    Killed,
    /// Part of the group is still there after SIGKILL, or may not be signalled.
    Remains,
}

/// What `/proc/<pid>/stat` says of a process.
pub(super) struct Stat {
    state: char,
    group: i32,
    started_ticks: u64,
}

impl Stat {
    /// Reads it; `None` if there is no such process.
    pub(super) fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name of the program is in parentheses and may itself hold parentheses, blanks and
    /// any byte, so the fields are counted from the last closing one: 3 is the state, 5 the
    /// process group, 22 the start time.
    fn parse(line: &[u8]) -> Option<Self> {
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(line.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        Some(Self {
            state: fields.next()?.chars().next()?,
            group: fields.nth(1)?.parse().ok()?,
            started_ticks: fields.nth(16)?.parse().ok()?,
        })
    }

    fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    BOOT.get_or_init(|| {
        Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
    })
    .as_deref()
}

/// The identity of a process that has not been reaped yet; `None` where the kernel does not
/// tell.
pub fn identify(pid: u32) -> Option<ProcessRef> {
    Some(ProcessRef {
        pid,
        started_ticks: Stat::read(pid)?.started_ticks,
        boot: boot_id()?.to_owned(),
    })
}

fn matching(process: &ProcessRef) -> Option<Stat> {
    if boot_id() != Some(&process.boot) {
        return None;
    }
    Stat::read(process.pid).filter(|stat| stat.started_ticks == process.started_ticks)
}

/// Whether this very process still runs. One that has ended but was not reaped does not.
pub fn is_alive(process: &ProcessRef) -> bool {
    matching(process).is_some_and(|stat| stat.lives())
}

/// Ends the process group of a child that outlived an earlier life of the service: SIGTERM,
/// `grace`, SIGKILL. It only acts while the leader of the group is there and is the same
/// process, by number, start time and boot. Members whose leader is gone are left alone: by
/// then the number may have been given to a stranger's group.
pub async fn end_leftover(process: &ProcessRef, grace: Duration) -> LeftoverEnd {
    let process = process.clone();
    tokio::task::spawn_blocking(move || end_blocking(&process, grace))
        .await
        .unwrap_or(LeftoverEnd::Remains)
}

fn end_blocking(process: &ProcessRef, grace: Duration) -> LeftoverEnd {
    let Some(leader) = matching(process) else { return LeftoverEnd::Gone };
    let Ok(pid) = i32::try_from(process.pid) else { return LeftoverEnd::Gone };
    if leader.group != pid {
        return LeftoverEnd::Gone;
    }
    if !leader.lives() && !has_live_member(pid) {
        return LeftoverEnd::Gone;
    }
    let group = Pid::from_raw(pid);
    let _ = killpg(group, Signal::SIGTERM);
    let _ = killpg(group, Signal::SIGCONT);
    if gone_within(pid, grace) {
        return LeftoverEnd::Terminated;
    }
    // The group had a member at every look since its leader was recognised, so the kernel
    // has not given its number away.
    let _ = killpg(group, Signal::SIGKILL);
    if gone_within(pid, KILL_WAIT) { LeftoverEnd::Killed } else { LeftoverEnd::Remains }
}

fn gone_within(group: i32, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        if !has_live_member(group) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(POLL_EVERY);
    }
}

fn has_live_member(group: i32) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    entries
        .flatten()
        .filter_map(|entry| Stat::read(entry.file_name().to_str()?.parse().ok()?))
        .any(|stat| stat.group == group && stat.lives())
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn a_program_name_may_look_like_fields() {
        let tail = "S 1 77 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        for name in ["cat", "a b", ") Z 9 (", "((", "\u{fffd})"] {
            let line = format!("12 ({name}) {tail}");
            let stat = Stat::parse(line.as_bytes()).expect("it has all fields");
            assert_eq!((stat.state, stat.group, stat.started_ticks), ('S', 77, 4242), "{name}");
        }
        assert!(Stat::parse(b"12 (cat) S 1").is_none());
    }

    #[test]
    fn the_kernel_tells_about_this_process() {
        let process = super::identify(std::process::id()).expect("Linux tells");
        assert!(super::is_alive(&process));
        let other = super::ProcessRef { started_ticks: process.started_ticks + 1, ..process };
        assert!(!super::is_alive(&other));
    }
}
