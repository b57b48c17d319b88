//! Identifiers that are made from something else: a name of a machine, of a directory.

use crate::{digest::sha256, ids::ID_CHARS_MAX};

/// How many hexadecimal digits of the digest stand at the end.
const DIGEST_CHARS: usize = 16;

/// The longest display hint, in characters.
pub const HINT_CHARS_MAX: usize = 80;

/// An identifier made from any text: a prefix, what can be read of the text, and the beginning of
/// its SHA-256, so that `foo.bar` and `foo-bar` differ.
///
/// It is valid whatever the text is, and at most 120 characters long. The prefix is to consist of
/// characters that identifiers have; one that leaves no room for the rest is cut.
pub fn generated_id(prefix: &str, original: &str) -> String {
    let digest = sha256(&[original.as_bytes()]).to_string();
    let digest = &digest[..DIGEST_CHARS];
    let room = ID_CHARS_MAX - DIGEST_CHARS - 1;
    let prefix: String = prefix.chars().map(plain).take(room - 2).collect();
    let body: String = original.chars().map(|c| plain(c.to_ascii_lowercase())).collect();
    let body = body.trim_matches('-');
    // Every character is one byte by now.
    let body = body[..body.len().min(room - prefix.len())].trim_end_matches('-');
    let body = if body.is_empty() { "id" } else { body };
    format!("{prefix}{body}-{digest}")
}

fn plain(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' }
}

/// A short name for people: no control characters and no slashes.
pub fn display_hint(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control() && !matches!(c, '/' | '\\'));
    plain.take(HINT_CHARS_MAX).collect()
}
