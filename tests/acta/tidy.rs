//! The rules that the source keeps, checked on its text.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The longest a file may be, in lines.
const FILE_LINES_MAX: usize = 600;

/// A source file: its path from the top, its text, and its text without comments and strings.
struct Source {
    path: String,
    text: String,
    code: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn sources_of(dir: &str) -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() && !path.ends_with("target") => walk(&path, found),
                Some(extension) if extension == "rs" => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(dir), &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let code = code_of(&text);
        Source { path, text, code }
    };
    found.into_iter().map(read).collect()
}

fn sources() -> Vec<Source> {
    let dirs = ["src", "events", "projections", "tests", "benches", "fuzz"];
    let all: Vec<_> = dirs.into_iter().flat_map(sources_of).collect();
    assert!(all.len() > 100, "the source is found");
    all
}

/// The text without line comments. Enough for what is looked for: no rule is about a word that
/// a string of this source holds behind two slashes.
fn code_of(text: &str) -> String {
    let line = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The top-level modules of the own crate that a file names, as in `crate::a::b` and
/// `crate::{a::b, c}`.
fn modules_named(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let ident = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    for rest in code.split("crate::").skip(1) {
        if !rest.starts_with('{') {
            named.insert(ident(rest));
            continue;
        }
        let (mut depth, mut is_first) = (0, false);
        for (at, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ' ' | '\n' => continue,
                _ if is_first && depth == 1 => {
                    named.insert(ident(&rest[at..]));
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
            is_first = depth == 1 && matches!(c, '{' | ',');
        }
    }
    named
}

fn check_names(dirs: &[&str], is_allowed: impl Fn(&str) -> bool) {
    let sources = dirs.iter().flat_map(|dir| sources_of(dir));
    // Tests put pieces together that know nothing of each other otherwise.
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    for source in sources.filter(|source| !is_test(&source.path)) {
        for module in modules_named(&source.code) {
            assert!(is_allowed(&module), "{} names crate::{module}", source.path);
        }
    }
}

fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let section = text.split("\n[dependencies]\n").nth(1).unwrap();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    lines.filter(|line| !line.is_empty()).map(name).collect()
}

#[test]
fn names_are_found_however_they_are_written() {
    let code = "use crate::a::b; use crate::{c::{d, e}, f,\n  g::*}; crate::h::i(); other_crate::j";
    let expected = ["a", "c", "f", "g", "h"].map(str::to_owned);
    // The last one is a name that this source does not have.
    let mut named = modules_named(code);
    named.remove("j");
    assert_eq!(named, expected.into());
}

#[test]
fn the_inner_crates_depend_on_nothing_that_does_io() {
    let events = dependencies("events/Cargo.toml");
    let projections = dependencies("projections/Cargo.toml");
    for forbidden in ["tokio", "axum", "hyper", "sled", "tracing", "rand", "reqwest", "nix", "acta"]
    {
        assert!(!events.contains(forbidden) && !projections.contains(forbidden), "{forbidden}");
    }
    assert!(!events.contains("acta-projections") && projections.contains("acta-events"));
}

#[test]
fn the_inner_crates_have_no_clock_no_randomness_and_no_io() {
    for source in ["events/src", "projections/src"].into_iter().flat_map(sources_of) {
        for word in [
            "std::fs",
            "std::net",
            "std::io",
            "std::thread",
            "std::process",
            "std::env",
            "Instant",
            "SystemTime",
            "Timestamp::now",
            "Uuid::new_v",
            "async fn",
            "println!",
        ] {
            assert!(!source.code.contains(word), "{}: {word}", source.path);
        }
    }
}

#[test]
fn decide_sees_only_events_projections_commands_and_errors() {
    check_names(&["src/decide"], |module| matches!(module, "command" | "error"));
}

#[test]
fn http_never_names_a_journal() {
    check_names(&["src/http"], |module| module != "journal");
}

#[test]
fn journals_and_backends_know_neither_each_other_nor_engine_nor_http() {
    check_names(&["src/backend"], |module| {
        !matches!(module, "journal" | "engine" | "http" | "dispatch" | "log" | "cli")
    });
    check_names(&["src/journal"], |module| {
        !matches!(module, "backend" | "engine" | "http" | "dispatch" | "log" | "cli")
    });
}

#[test]
fn the_agent_side_knows_nothing_of_the_service() {
    // Process groups are ended the same way on both sides, and the same authorities are trusted.
    check_names(&["src/connect"], |module| matches!(module, "connect" | "backend" | "trust"));
}

#[test]
fn only_serve_names_concrete_journals() {
    for source in sources_of("src") {
        let may = source.path.starts_with("src/journal")
            || ["src/cli/serve.rs", "src/cli/rebuild.rs", "src/cli/bench.rs"]
                .contains(&source.path.as_str())
            || source.path.ends_with("tests.rs")
            || source.path.contains("/tests/")
            || source.path.starts_with("src/fuzz");
        for name in ["SledJournal", "MemoryJournal"] {
            assert!(may || !source.code.contains(name), "{} names {name}", source.path);
        }
        let stores = source.code.contains("sled::") && !source.code.contains("mod sled");
        assert!(!stores || source.path.starts_with("src/journal"), "{} names sled", source.path);
    }
}

#[test]
fn nothing_is_left_undone() {
    // Put together, so that this file does not hold what it looks for.
    let words = ["ignore]", "ignore ="].map(|word| format!("#[{word}"));
    let macros = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let notes =
        ["TO", "FIX"].map(|begin| format!("{begin}{}", if begin == "TO" { "DO" } else { "ME" }));
    for source in sources() {
        for word in words.iter().chain(&macros).chain(&notes) {
            assert!(!source.text.contains(word.as_str()), "{} has {word}", source.path);
        }
    }
}

#[test]
fn files_are_short() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", source.path);
    }
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    let places = ["work", "home", "Users", "root"].map(|top| format!("/{top}/"));
    for source in sources() {
        for (at, line) in source.text.lines().enumerate() {
            let is_place = places.iter().any(|place| {
                line.match_indices(place.as_str())
                    .any(|(start, _)| line[..start].ends_with(['"', ' ', '`', '(', '=', '\'']))
            });
            assert!(!is_place, "{}:{}: {line}", source.path, at + 1);
        }
    }
}

#[test]
fn no_version_of_the_source_forgets_its_lints() {
    for manifest in ["Cargo.toml", "events/Cargo.toml", "projections/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{manifest}");
    }
}
