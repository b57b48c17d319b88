//! From a template's command line to a running child.

use super::{ExecSpec, child::Running};
use nix::unistd::{AccessFlags, access};
use std::{
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

/// What every child gets of the environment, if it is set.
const ENV_ALWAYS: [&str; 7] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER"];

/// Finds the program of `spec`, or says for people why it cannot be started.
pub(super) async fn resolve(spec: &ExecSpec) -> Result<PathBuf, String> {
    let argv0 = spec.argv.first().cloned().unwrap_or_default();
    let work_dir = spec.work_dir.clone();
    let found = tokio::task::spawn_blocking(move || {
        let program = find(&argv0, env::var_os("PATH").as_deref())?;
        if work_dir.is_dir() {
            Ok(program)
        } else {
            Err(format!("cannot start `{}`: its working directory is missing", shown(&argv0)))
        }
    });
    found.await.unwrap_or_else(|_| Err("cannot start: the service is shutting down".into()))
}

/// Starts `program` as the leader of a new process group.
pub(super) fn spawn(spec: &ExecSpec, program: &Path) -> Result<Running, String> {
    let argv0 = spec.argv.first().map_or("", String::as_str);
    let mut command = Command::new(program);
    command
        .arg0(argv0)
        .args(spec.argv.iter().skip(1))
        .env_clear()
        .envs(passed_on(&spec.env))
        .current_dir(&spec.work_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let started = command.spawn().and_then(|child| {
        if let Some(pid) = child.id() {
            go_first(pid);
        }
        Running::new(child, spec.framing)
    });
    started.map_err(|error| format!("cannot start `{}`: {}", shown(argv0), reason(&error)))
}

/// When memory runs out, a child is to be ended before the service, whose score it has inherited.
/// A score may always be raised.
fn go_first(pid: u32) {
    let ours = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    if !ours.starts_with('-') {
        return;
    }
    if let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), "0") {
        tracing::debug!(%error, "a child is ended no sooner than the service when memory runs out");
    }
}

fn passed_on(names: &[String]) -> Vec<(&str, std::ffi::OsString)> {
    let named = names.iter().map(String::as_str);
    let all = ENV_ALWAYS.into_iter().chain(named);
    // A name with `=` or NUL cannot be set and would make the lookup panic on some systems.
    all.filter(|name| !name.is_empty() && !name.contains(['=', '\0']))
        .filter_map(|name| Some((name, env::var_os(name)?)))
        .collect()
}

/// A bare name is looked up in `path`; empty entries, which would mean the current
/// directory, are passed over. Anything with a slash is taken as it is.
fn find(argv0: &str, path: Option<&OsStr>) -> Result<PathBuf, String> {
    let change = "change `exec.argv` of the template";
    if argv0.is_empty() {
        return Err(format!("cannot start: the command line is empty; {change}"));
    }
    let name = shown(argv0);
    if argv0.contains('/') {
        let program = std::path::absolute(argv0).map_err(|_| format!("cannot start `{name}`"))?;
        return match (program.is_file(), is_executable(&program)) {
            (true, true) => Ok(program),
            (true, false) => Err(format!("cannot start `{name}`: it is not executable; {change}")),
            (false, _) => Err(format!("cannot start `{name}`: there is no such file; {change}")),
        };
    }
    env::split_paths(path.unwrap_or_default())
        .filter(|dir| !dir.as_os_str().is_empty())
        .map(|dir| dir.join(argv0))
        .find(|program| is_executable(program))
        .and_then(|program| std::path::absolute(program).ok())
        .ok_or_else(|| format!("cannot start `{name}`: not found in PATH; install it or {change}"))
}

fn is_executable(program: &Path) -> bool {
    program.is_file() && access(program, AccessFlags::X_OK).is_ok()
}

/// A program's own name: its directory is nobody's business.
fn shown(argv0: &str) -> &str {
    argv0.rsplit('/').find(|part| !part.is_empty()).unwrap_or(argv0)
}

/// The kernel's reason, without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "it, or the interpreter that its first line names, is missing".into()
        }
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::InvalidInput => "its command line holds a NUL byte".into(),
        io::ErrorKind::ArgumentListTooLong => "its command line is too long".into(),
        _ => match error.raw_os_error() {
            Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
            None => "the system refused".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::find;
    use std::ffi::OsStr;

    #[test]
    fn programs_are_found_or_the_reason_is_told() {
        let path = Some(OsStr::new(":/nowhere:/usr/bin:/bin"));
        let check = |argv0: &str, expected: Result<(), &str>| match (find(argv0, path), expected) {
            (Ok(program), Ok(())) => assert!(program.is_absolute(), "{argv0}"),
            (Err(message), Err(part)) => {
                assert!(message.contains(part), "{argv0}: {message}");
                assert!(!message.contains("/etc"), "{argv0}: {message}");
            }
            (found, _) => panic!("{argv0}: {found:?}"),
        };
        check("cat", Ok(()));
        check("/bin/sh", Ok(()));
        check("", Err("empty"));
        check("no-such-program", Err("`no-such-program`: not found in PATH; install it or change"));
        check("/etc/passwd", Err("`passwd`: it is not executable"));
        check("/etc/none", Err("`none`: there is no such file"));
        check("/etc", Err("`etc`: there is no such file"));
        assert!(find("cat", None).is_err());
    }
}
