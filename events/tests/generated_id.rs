//! Identifiers made from names: bounded, valid, unique, readable.

#![allow(clippy::unwrap_used, reason = "a test")]

use acta_events::{HINT_CHARS_MAX, HostId, WorkerId, display_hint, generated_id, sha256};
use proptest::prelude::*;

const PREFIXES: [&str; 3] = ["local-", "embedded-", "local-worker-"];

fn end(text: &str) -> String {
    sha256(&[text.as_bytes()]).to_string()[..16].to_owned()
}

#[test]
fn a_hint_keeps_what_can_be_read() {
    let rows =
        [("echo", "echo"), ("../etc/passwd", "..etcpasswd"), ("a\\b\u{7}\nc", "abc"), ("", "")];
    for (text, expected) in rows {
        assert_eq!(display_hint(text), expected);
    }
    assert_eq!(display_hint(&"ü".repeat(500)).chars().count(), 80);
}

#[test]
fn an_identifier_is_a_prefix_what_can_be_read_and_a_digest() {
    let rows = [
        ("build-7", "build-7"),
        ("Build_7", "build_7"),
        ("foo.bar", "foo-bar"),
        ("foo-bar", "foo-bar"),
        ("", "id"),
        ("...", "id"),
        ("--a--", "a"),
        ("../../etc/passwd", "etc-passwd"),
        ("größe", "gr--e"),
        ("a\0b\n", "a-b"),
        ("a:b", "a-b"),
    ];
    for (text, body) in rows {
        for prefix in PREFIXES {
            assert_eq!(generated_id(prefix, text), format!("{prefix}{body}-{}", end(text)));
        }
    }
    assert_ne!(generated_id("local-", "foo.bar"), generated_id("local-", "foo-bar"));
    let long = generated_id("local-worker-", &"x".repeat(5_000));
    assert_eq!(long.len(), 120);
    assert!(long.ends_with(&end(&"x".repeat(5_000))));
    // Where the cut leaves a dash at the end, it goes too.
    let cut = generated_id("local-worker-", &format!("{}.y{}", "x".repeat(89), "z".repeat(500)));
    assert!(!cut.contains("--") && cut.len() == 119, "{cut}");
}

proptest! {
    #[test]
    fn an_identifier_is_valid_whatever_it_is_made_from(prefix in ".{0,200}", text in ".{0,300}") {
        for prefix in PREFIXES.into_iter().chain([prefix.as_str()]) {
            let id = generated_id(prefix, &text);
            prop_assert!(id.len() <= 120);
            prop_assert!(HostId::parse(&id).is_ok() && WorkerId::parse(&id).is_ok(), "{id}");
            let digest = format!("-{}", end(&text));
            prop_assert!(id.ends_with(&digest));
            prop_assert_eq!(&id, &generated_id(prefix, &text));
        }
    }

    #[test]
    fn different_names_have_different_identifiers(a in "[a-zA-Z._/ -]{0,8}", b in "[a-zA-Z._/ -]{0,8}") {
        for prefix in PREFIXES {
            prop_assert_eq!(a == b, generated_id(prefix, &a) == generated_id(prefix, &b));
        }
    }

    #[test]
    fn a_hint_is_short_and_plain(text in "(?s).{0,300}") {
        let hint = display_hint(&text);
        prop_assert!(hint.chars().count() <= HINT_CHARS_MAX);
        prop_assert!(!hint.chars().any(|c| c.is_control() || c == '/' || c == '\\'));
        prop_assert_eq!(&hint, &display_hint(&hint));
    }

    #[test]
    fn what_is_no_identifier_is_shown_cut(text in "(?s).{0,300}") {
        let valid = (1..=120).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':'));
        match HostId::parse(&text) {
            Ok(id) => prop_assert!(valid && id.as_str() == text),
            Err(error) => {
                prop_assert!(!valid);
                prop_assert_eq!(error.value, text.chars().take(120).collect::<String>());
            }
        }
    }
}
