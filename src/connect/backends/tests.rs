//! The backends by themselves.

use super::registry;
use crate::{
    connect::{
        backend::{BackendError, Part, Progress, ProgressSender, Registry, Request},
        options::BackendOptions,
    },
    trust::Trust,
};
use std::time::{Duration, Instant};

fn options(pairs: &[&str]) -> BackendOptions {
    BackendOptions::parse(pairs.iter().copied()).unwrap()
}

fn request(text: &str) -> Request {
    Request {
        workspace_id: "w1".into(),
        caller_id: "w2".into(),
        message_id: "m1".into(),
        task_id: "t1".into(),
        method: "message/send".into(),
        parts: vec![Part::text(text)],
        ..Request::default()
    }
}

fn trust() -> Trust {
    Trust::new(None).unwrap()
}

/// The answer, and the pieces that came before it.
async fn ask(
    name: &str,
    pairs: &[&str],
    request: &Request,
) -> (Result<String, BackendError>, Vec<String>) {
    let backend = registry().build(name, &options(pairs), &trust()).unwrap();
    let (sender, mut progress) = ProgressSender::channel();
    let gathering = async {
        let mut pieces = Vec::new();
        while let Some(told) = progress.recv().await {
            if let Progress::Piece(piece) = told {
                assert!(!piece.is_final);
                pieces.push(piece.parts[0].text.clone());
            }
        }
        pieces
    };
    let (answer, pieces) = tokio::join!(backend.handle(request, sender), gathering);
    let text = answer.map(|response| {
        assert!(response.is_final);
        response.parts[0].text.clone()
    });
    (text, pieces)
}

#[test]
fn every_backend_has_a_name_of_its_own() {
    assert_eq!(registry().names(), ["a2a", "claude-code", "exec", "mock"]);
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    let error = registry().build("moon", &options(&[]), &trust()).err().unwrap();
    assert!(
        error.contains("\"moon\"") && error.contains("a2a, claude-code, exec, mock"),
        "{error}"
    );
}

#[test]
#[should_panic(expected = "two backends named")]
fn a_name_is_taken_once() {
    let mut registry = Registry::default();
    registry.register("a", super::mock::build);
    registry.register("a", super::mock::build);
}

#[test]
#[should_panic(expected = "has a name")]
fn a_backend_without_a_name_is_refused() {
    Registry::default().register("", super::mock::build);
}

#[test]
fn options_are_checked_before_anything_runs() {
    let check = |name: &str, pairs: &[&str], wrong: &str| {
        let error = registry().build(name, &options(pairs), &trust()).err();
        let error = error.unwrap_or_else(|| panic!("{name} {pairs:?}"));
        assert!(error.contains(wrong), "{name} {pairs:?}: {error}");
    };
    check("mock", &["text=x"], "\"text\"");
    check("exec", &[], "--backend-opt cmd=");
    check("exec", &["cmd="], "--backend-opt cmd=");
    check("exec", &["cmd=cat", "timeout=5"], "60s");
    check("exec", &["cmd=cat", "pass_meta=perhaps"], "true or false");
    check("exec", &["cmd=a\0b"], "NUL");
    check("claude-code", &["cmd=cat"], "\"cmd\"");
    check("claude-code", &["timeout=soon"], "60s");
    check("a2a", &[], "--backend-opt url=");
    check("a2a", &["url=nowhere"], "url");
    check("a2a", &["url=ftp://h"], "http://");
}

#[tokio::test]
async fn mock_answers_out_of_its_template() {
    let mut two = request("a");
    two.parts.push(Part { kind: "data".into(), ..Part::default() });
    two.parts.push(Part::text("b"));
    assert_eq!(ask("mock", &[], &two).await.0.as_deref(), Ok("echo: a\nb"));
    assert_eq!(ask("mock", &["reply=%s=%s"], &request("x")).await.0.as_deref(), Ok("x=x"));
    assert_eq!(ask("mock", &["reply=fixed"], &request("x")).await.0.as_deref(), Ok("fixed"));
}

#[tokio::test]
async fn exec_gives_the_message_on_standard_input_and_never_in_the_command() {
    let nasty = "$(touch x); `id` \"quoted\" \u{1f600}\n'";
    let (answer, _) = ask("exec", &["cmd=cat"], &request(nasty)).await;
    assert_eq!(answer.as_deref(), Ok(nasty));
    // More than a pipe holds, both ways.
    let long = "0123456789abcde\n".repeat(20_000);
    let (answer, _) = ask("exec", &["cmd=cat"], &request(&long)).await;
    assert_eq!(answer.unwrap(), long.trim_end());
    // A command that does not read it.
    assert_eq!(ask("exec", &["cmd=echo hi"], &request(&long)).await.0.as_deref(), Ok("hi"));
    assert_eq!(ask("exec", &["cmd=true"], &request("x")).await.0.as_deref(), Ok(""));
}

#[tokio::test]
async fn exec_passes_what_is_known_of_a_message_when_it_is_asked_to() {
    let print = "cmd=env | grep ^ACTA_ | sort; true";
    assert_eq!(ask("exec", &[print], &request("x")).await.0.as_deref(), Ok(""));
    let mut odd = request("x");
    odd.task_id = "t\0;$(id)".into();
    let (answer, _) = ask("exec", &[print, "pass_meta=true"], &odd).await;
    let expected = "ACTA_CALLER_ID=w2\nACTA_MESSAGE_ID=m1\nACTA_METHOD=message/send\n\
                    ACTA_TASK_ID=t;$(id)\nACTA_WORKER_ID=w1";
    assert_eq!(answer.as_deref(), Ok(expected));
}

#[tokio::test]
async fn exec_tells_how_a_command_failed() {
    let check = async |cmd: &str, wrong: &[&str]| {
        let (answer, _) = ask("exec", &[cmd, "timeout=300ms"], &request("x")).await;
        let BackendError::Failed(said) = answer.unwrap_err() else { panic!("{cmd}") };
        for wrong in wrong {
            assert!(said.contains(wrong), "{cmd}: {said}");
        }
        assert!(said.len() < 3000, "{}", said.len());
    };
    check("cmd=echo oops >&2; exit 3", &["status 3", "oops"]).await;
    check("cmd=kill -9 $$", &["signal 9"]).await;
    check("cmd=no-such-command", &["status 127", "no-such-command"]).await;
    check("cmd=yes x | head -c 100000 >&2; echo end >&2; exit 1", &["end"]).await;
    check("cmd=echo begun >&2; sleep 60", &["no answer within 0.3 s", "begun"]).await;
}

#[tokio::test]
async fn exec_leaves_no_process_behind() {
    let root = tempfile::tempdir().unwrap();
    let mark = root.path().join("pid");
    let gone = async |what: &str| {
        let pid = std::fs::read_to_string(&mark).unwrap();
        let begun = Instant::now();
        while std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
            .is_ok_and(|stat| !stat.contains(") Z"))
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let background = format!("cmd=sleep 60 & echo $! > {}", mark.display());
    // The answer is there although somebody holds the pipe open.
    let (answer, _) = ask("exec", &[&background], &request("x")).await;
    assert_eq!(answer.as_deref(), Ok(""));
    gone("after an answer").await;
    let waiting = format!("{background}; wait");
    let (answer, _) = ask("exec", &[&waiting, "timeout=200ms"], &request("x")).await;
    assert!(answer.is_err());
    gone("after the deadline").await;

    std::fs::remove_file(&mark).unwrap();
    let backend = registry().build("exec", &options(&[&waiting]), &trust()).unwrap();
    let closing = async {
        while !std::fs::read_to_string(&mark).is_ok_and(|pid| pid.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        backend.close().await;
        backend.close().await;
    };
    let (sender, _progress) = ProgressSender::channel();
    let work = request("x");
    let (answer, ()) = tokio::join!(backend.handle(&work, sender), closing);
    assert_eq!(answer, Err(BackendError::Closed));
    gone("after it was closed").await;
}

#[tokio::test]
async fn exec_tells_what_is_printed_while_it_is_printed() {
    let cmd = "cmd=printf 'a\\303'; sleep 0.2; printf '\\251b'";
    let (answer, pieces) = ask("exec", &[cmd], &request("x")).await;
    assert_eq!(answer.as_deref(), Ok("aéb"));
    assert_eq!(pieces, ["a", "éb"], "no character is cut in two");
}

#[tokio::test]
async fn exec_cuts_off_what_nobody_could_take() {
    let (answer, _) =
        ask("exec", &["cmd=head -c 600000 /dev/zero | tr '\\0' x"], &request("")).await;
    let answer = answer.unwrap();
    assert!(answer.len() < 530_000, "{}", answer.len());
    assert!(answer.ends_with(&format!("[{} bytes more were cut off]", 600_000 - 512 * 1024)));
}
