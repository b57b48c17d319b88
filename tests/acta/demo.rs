//! The main job, as a newcomer runs it.

use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs the demonstration in an empty directory, with its temporary files there.
fn demo(dir: &Path, arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_acta"))
        .arg("demo")
        .args(arguments)
        .current_dir(dir)
        .env("TMPDIR", dir)
        // What the user has set for a service of their own.
        .env("ACTA_LISTEN", "192.0.2.1:1")
        .env("ACTA_DATA", "/nonexistent")
        .env("ACTA_TOKEN", "somebody-else")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have refused its arguments before it read anything.
    drop(child.stdin.take().unwrap().write_all(stdin));
    child.wait_with_output().unwrap()
}

#[test]
fn the_main_job_holds_and_leaves_nothing_behind() {
    for (arguments, stdin) in
        [(&["-o", "json"][..], "".as_bytes()), (&["-o", "json", "-"], b"a\nb c\n")]
    {
        let dir = tempfile::tempdir().unwrap();
        let out = demo(dir.path(), arguments, stdin);
        let told: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((told["ok"].as_bool(), out.status.code()), (Some(true), Some(0)), "{told:#}");
        assert!(told["checks"].as_array().unwrap().len() > 20, "{told:#}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{told:#}");
    }
}

#[test]
fn input_that_cannot_be_sent_is_refused_before_anything_is_started() {
    let check = |arguments: &[&str], stdin: &[u8], code: i32, expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        let out = demo(dir.path(), arguments, stdin);
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    };
    check(&[], b"one\nt\xffo\n", 1, "line 2 of standard input is not UTF-8");
    check(&["-"], b"\n\n", 1, "no line with anything on it");
    check(&["-f", "absent.txt"], b"", 1, "cannot open absent.txt");
    check(&[" "], b"", 2, "an input is blank");
    check(&["--template", "absent"], b"", 2, "`absent` cannot be started");
    check(&["--manifest", "absent.json"], b"", 1, "absent.json");
}
