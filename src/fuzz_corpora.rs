//! Replays what the fuzzer began with and has found, see `fuzz/README.md`.

#[path = "../fuzz/logic/create_request.rs"]
mod create_request;
#[path = "../fuzz/logic/journal.rs"]
mod journal;

fn replay(target: &str, run: impl Fn(&[u8])) {
    let dir = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
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
fn create_requests() {
    replay("create_request", create_request::run);
}

#[test]
fn journal_operations_and_reboots() {
    replay("journal", journal::run);
}
