//! What a service needs around its data: a configuration, programs, files, an address, a clock.

use super::Findings;
use crate::{
    cli::{
        Command, config, output::with_causes, serve_args::ServeArgs, serve_snapshots::check_dir,
    },
    manifest::Manifest,
};
use acta_events::Timestamp;
use std::{
    env,
    ffi::OsString,
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::{Duration, SystemTime},
};

/// Connections and children need more files than this.
const OPEN_FILES_LOW: u64 = 4_096;
/// A clock may be that far behind what was written last without anybody having set it.
const CLOCK_SLACK: Duration = Duration::from_secs(2);
/// 2026-01-01: before this version was written.
const TIME_MIN: Timestamp = Timestamp(1_767_225_600_000_000);

/// What `acta serve` would be told here.
pub(super) fn configuration(path: Option<&Path>, found: &mut Findings) -> Option<ServeArgs> {
    let what = "configuration";
    let mut arguments: Vec<OsString> = vec!["acta".into(), "serve".into()];
    if let Some(path) = path {
        arguments.extend(["--config".into(), path.into()]);
    }
    let args = match config::parse(&arguments) {
        Ok((cli, _)) => match cli.command {
            Command::Serve(args) => *args,
            _ => return None,
        },
        Err(config::Unparsed::File(error)) => {
            found.wrong(what, with_causes(&error));
            return None;
        }
        Err(config::Unparsed::Arguments(error)) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            found.wrong(what, format!("a variable of the environment does not fit: {line}"));
            return None;
        }
    };
    match args.operator_tokens() {
        Err(error) => found.wrong(what, error.to_string()),
        Ok(_) if args.no_auth => {
            found.warn(what, "no-auth is set: every user of this machine can give commands");
        }
        Ok(_) => found.ok(what, "it is understood; `acta config show` tells what it says"),
    }
    if let Some(dir) = &args.snapshots.snapshot_dir {
        match check_dir(dir) {
            Ok(()) => found.ok("snapshots", format!("they are taken into {}", dir.display())),
            Err(why) => found.wrong("snapshots", why),
        }
    }
    if args.limits.content_bytes_max > args.limits.body_bytes_max {
        let text = "content-bytes-max is larger than body-bytes-max, so it is never reached";
        found.warn(what, text);
    }
    Some(args)
}

/// The manifest, and whether the programs in it are there.
pub(super) fn manifest(path: Option<&Path>, found: &mut Findings) {
    let what = "manifest";
    let loaded = Manifest::load(path);
    if let Some(warning) = loaded.warning {
        return found.warn(what, warning);
    }
    let templates = loaded.manifest.templates();
    let mut startable = 0;
    for template in &templates {
        let Some(exec) = loaded.manifest.exec_of(&template.name) else { continue };
        let Some(program) = exec.argv.first() else { continue };
        if is_program(program) {
            startable += 1;
        } else {
            let name = &template.name;
            found
                .warn(what, format!("`{program}` of the template `{name}` is not there to be run"));
        }
    }
    let n = templates.len();
    match startable {
        0 => found.warn(what, format!("none of its {n} templates can be started")),
        _ => found.ok(what, format!("{startable} of its {n} templates can be started")),
    }
}

/// Whether a child can be made of it, as far as can be seen without doing so.
fn is_program(program: &str) -> bool {
    use nix::unistd::{AccessFlags, access};
    let runs = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if program.contains('/') {
        return runs(Path::new(program));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| runs(&dir.join(program)))
}

/// How many files may be open.
pub(super) fn open_files(found: &mut Findings) {
    use nix::sys::resource::{Resource, getrlimit};
    let what = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < OPEN_FILES_LOW => {
            let text =
                format!("at most {hard} may be open; raise the limit (LimitNOFILE=, ulimit -Hn)");
            found.warn(what, text);
        }
        Ok((_, hard)) => found.ok(what, format!("{hard} may be open")),
        Err(error) => found.warn(what, format!("the limit is not known: {error}")),
    }
}

/// Whether the service could listen.
pub(super) fn address(listen: SocketAddr, is_running: bool, found: &mut Findings) {
    let what = "address";
    let error = match TcpListener::bind(listen) {
        Ok(_) if is_running => {
            let text = "it is free although a service is running; that one listens elsewhere";
            return found.warn(what, format!("{listen}: {text}"));
        }
        Ok(_) => return found.ok(what, format!("{listen} can be listened on")),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::AddrInUse if is_running => {
            found.ok(what, format!("{listen} is in use, as the data directory is"));
        }
        ErrorKind::AddrInUse => {
            let text = "another program listens there; stop it, or choose another `listen`";
            found.wrong(what, format!("{listen}: {text}"));
        }
        ErrorKind::AddrNotAvailable => {
            found.wrong(what, format!("{listen}: this machine has no such address"));
        }
        ErrorKind::PermissionDenied => {
            let text = "this user may not listen there; choose a port from 1024 on";
            found.wrong(what, format!("{listen}: {text}"));
        }
        _ => found.wrong(what, format!("{listen}: {error}")),
    }
}

/// Now.
pub(super) fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

/// A moment as the log has it.
pub(super) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Whether the clock goes on from where the data was written last.
pub(super) fn clock(now: Timestamp, written: Option<Timestamp>, found: &mut Findings) {
    let what = "clock";
    if now < TIME_MIN {
        let text = format!("it says {now}, which is before this version was written; set it");
        return found.wrong(what, text);
    }
    let slack = i64::try_from(CLOCK_SLACK.as_micros()).unwrap_or(0);
    match written {
        Some(written) if written.0 > now.0.saturating_add(slack) => found.wrong(
            what,
            format!(
                "it says {now}, but the data was written at {written}: it was set back, or was \
                 ahead then. Times in the log never go back, so records get that time until the \
                 clock has caught up. Synchronise it (chrony, systemd-timesyncd)"
            ),
        ),
        Some(written) => found.ok(what, format!("it says {now}; the data is of {written}")),
        None => found.ok(what, format!("it says {now}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_is_wrong_if_it_is_behind_the_data_or_behind_this_version() {
        let check = |now: i64, written: Option<i64>, verdict| {
            let mut found = Findings::default();
            clock(Timestamp(now), written.map(Timestamp), &mut found);
            assert_eq!(found.0[0].verdict, verdict, "{now} {written:?}");
        };
        let now = TIME_MIN.0 + 1_000_000_000;
        check(now, None, Verdict::Ok);
        check(now, Some(now), Verdict::Ok);
        check(now, Some(now + 1_000_000), Verdict::Ok);
        check(now, Some(now + 3_000_000), Verdict::Wrong);
        check(0, None, Verdict::Wrong);
    }

    #[test]
    fn an_address_is_wrong_if_somebody_else_has_it() {
        let check = |listen: SocketAddr, is_running, verdict| {
            let mut found = Findings::default();
            address(listen, is_running, &mut found);
            assert_eq!(found.0[0].verdict, verdict, "{listen} {is_running} {:?}", found.0);
        };
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        check(taken, false, Verdict::Wrong);
        check(taken, true, Verdict::Ok);
        drop(other);
        check("127.0.0.1:0".parse().unwrap(), false, Verdict::Ok);
        // Of the range for documentation, so nobody has it.
        check("192.0.2.1:0".parse().unwrap(), false, Verdict::Wrong);
    }

    #[test]
    fn programs_are_found_as_a_child_would_find_them() {
        for (program, expected) in
            [("sh", true), ("/bin/sh", true), ("/bin", false), ("no-such-program", false)]
        {
            assert_eq!(is_program(program), expected, "{program}");
        }
    }
}
