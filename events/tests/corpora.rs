//! Replays what the fuzzer began with and has found, see `fuzz/README.md`.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../fuzz/logic/cursor.rs"]
mod cursor;
#[path = "../../fuzz/logic/header_decode.rs"]
mod header_decode;
#[path = "../../fuzz/logic/record_decode.rs"]
mod record_decode;

fn replay(target: &str, run: impl Fn(&[u8])) {
    let dir = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus of {target} is empty");
}

#[test]
fn stored_blocks() {
    replay("record_decode", record_decode::run);
}

#[test]
fn headers() {
    replay("header_decode", header_decode::run);
}

#[test]
fn cursors() {
    replay("cursor", cursor::run);
}
