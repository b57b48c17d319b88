//! The file, and what is done to it.

use super::*;
use serde_json::json;
use tempfile::TempDir;

fn directory() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("acta/state");
    (root, directory)
}

fn pending(row_id: &str) -> Pending {
    let outcome = Outcome::Reply { to: "w2".into(), body: json!({ "a": 1 }) };
    Pending { row_id: row_id.into(), key: format!("w2/message/{row_id}"), outcome }
}

#[tokio::test]
async fn what_was_recorded_is_there_again() {
    let (_root, directory) = directory();
    let mut state = State::open(&directory, "w").unwrap();
    assert_eq!((state.cursor(), state.pending()), (None, None));
    state.set_pending(pending("r1")).await.unwrap();
    drop(state);
    let mut state = State::open(&directory, "w").unwrap();
    assert_eq!((state.cursor(), state.pending()), (None, Some(&pending("r1"))));
    assert!(!state.was_answered("w2/message/r1"));
    state.settle_pending().await.unwrap();
    drop(state);
    let mut state = State::open(&directory, "w").unwrap();
    assert_eq!((state.cursor(), state.pending()), (Some("r1"), None));
    assert!(state.was_answered("w2/message/r1"));
    state.reset_cursor().await.unwrap();
    drop(state);
    let state = State::open(&directory, "w").unwrap();
    assert_eq!(state.cursor(), None);
    assert!(state.was_answered("w2/message/r1"), "a reset forgets no answer");
}

#[tokio::test]
async fn the_files_are_for_their_owner_and_nothing_temporary_is_left() {
    let (_root, directory) = directory();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut state = State::open(&directory, "w").unwrap();
    fs::write(directory.join("w.json.tmp"), "half").unwrap();
    state.pass("r1").await.unwrap();
    assert_eq!((mode(&directory), mode(&directory.join("w.json"))), (0o700, 0o600));
    assert!(!directory.join("w.json.tmp").exists());
    drop(state);
    fs::write(directory.join("w.json.tmp"), "half").unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let state = State::open(&directory, "w").unwrap();
    assert_eq!(state.cursor(), Some("r1"));
    assert_eq!(mode(&directory), 0o700);
    assert!(!directory.join("w.json.tmp").exists());
}

#[tokio::test]
async fn unknown_fields_are_kept() {
    let (_root, directory) = directory();
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("w.json");
    fs::write(&file, r#"{"workspace_id":"w","last_since_id":"r1","later":{"x":[1]}}"#).unwrap();
    let mut state = State::open(&directory, "w").unwrap();
    state.pass("r2").await.unwrap();
    let value: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let expected = json!({ "workspace_id": "w", "last_since_id": "r2", "later": { "x": [1] } });
    assert_eq!(value, expected);
}

#[test]
fn a_corrupt_file_is_named_and_left_alone() {
    let (_root, directory) = directory();
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("w.json");
    for text in ["", "{", "[]", "\0\0", r#"{"workspace_id":"v"}"#, r#"{"workspace_id":3}"#] {
        fs::write(&file, text).unwrap();
        let error = State::open(&directory, "w").unwrap_err();
        assert!(matches!(error, StateError::Corrupt { .. }), "{text}: {error}");
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn a_worker_has_one_process() {
    let (_root, directory) = directory();
    let first = State::open(&directory, "w").unwrap();
    assert!(matches!(State::open(&directory, "w"), Err(StateError::InUse { .. })));
    assert!(State::open(&directory, "v").is_ok());
    drop(first);
    assert!(State::open(&directory, "w").is_ok());
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let (_root, directory) = directory();
    let mut state = State::open(&directory, "w").unwrap();
    for n in 0..ANSWERED_MAX {
        state.answered(format!("k{n}"));
    }
    for n in 0..=GIVEN_MAX {
        let given = Given { key: format!("g{n}"), body: json!(n) };
        state.settle_given(given).await.unwrap();
    }
    assert_eq!(state.stored.answered.len(), ANSWERED_MAX);
    assert_eq!(state.given("g0"), None);
    assert_eq!(state.given("g4"), Some(&json!(4)));
    assert!(state.was_answered("g0") && !state.was_answered("k0"));
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let (root, _) = directory();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = State::open(&file.join("state"), "w").unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
}
