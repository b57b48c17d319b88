//! What a text may hold that names things but must not be a path, a socket or a secret.

use crate::error::{Code, Rejection, shown};
use acta_events::record::HEADER_BYTES_MAX;
use serde::Serialize;

/// The longest text, in characters.
pub(crate) const TEXT_CHARS_MAX: usize = 2048;

/// The most bytes that an event's data may take in its record's header, which also holds
/// identifiers, the command's key and the trace.
pub(crate) const EVENT_DATA_BYTES_MAX: usize = HEADER_BYTES_MAX - 4096;

/// What gives away a path, a socket or a cache of some machine, in lower case.
const HOST_LOCAL: [&str; 12] = [
    ":\\",
    ".cache",
    "cache_path",
    "session_path",
    "/sessions/",
    "\\sessions\\",
    "/run/",
    "\\run\\",
    ".sock",
    "/sock",
    "\\sock",
    "socket=",
];

/// Refuses a text of nothing but white space.
pub(crate) fn refuse_blank(field: &str, text: &str) -> Result<(), Rejection> {
    if text.trim().is_empty() {
        return Err(Rejection::invalid(format!("`{field}` is blank; it must say something")));
    }
    Ok(())
}

/// Refuses what is too long, has control characters, or is a path, a socket or a cache.
pub(crate) fn refuse_text(field: &str, text: &str) -> Result<(), Rejection> {
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        let message = format!("`{field}` is too long; it may have {TEXT_CHARS_MAX} characters");
        return Err(Rejection::invalid(message));
    }
    if text.chars().any(char::is_control) {
        let message = format!("`{field}` is `{}`; control characters are refused", shown(text));
        return Err(Rejection::invalid(message));
    }
    let lower = text.trim_start().to_ascii_lowercase();
    if lower.starts_with(['/', '~']) || HOST_LOCAL.iter().any(|word| lower.contains(word)) {
        return Err(Rejection::invalid(format!(
            "`{field}` is `{}`; it must be a name, not a path, a socket or a cache of a machine",
            shown(text)
        )));
    }
    Ok(())
}

/// Refuses a reference that is not one word of the few characters that references have. The
/// message does not show it, since it may be the secret itself.
pub(super) fn check_reference(field: &str, reference: &str) -> Result<(), Rejection> {
    refuse_blank(field, reference)?;
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_' | b'.' | b'@' | b'+');
    if !reference.bytes().all(allowed) {
        return Err(Rejection::invalid(format!(
            "`{field}` may have only letters, digits and `:-_.@+`: it is a reference such as \
             `secret:github`, never a secret or a path"
        )));
    }
    refuse_text(field, reference)
}

/// Refuses what would not fit the header of a record.
pub(crate) fn refuse_large(what: &str, data: &impl Serialize) -> Result<(), Rejection> {
    let bytes = serde_json::to_vec(data).map_or(usize::MAX, |json| json.len());
    if bytes > EVENT_DATA_BYTES_MAX {
        let message = format!("{what} take {bytes} bytes as JSON; at most {EVENT_DATA_BYTES_MAX}");
        return Err(Rejection::new(Code::InvalidRequest, message));
    }
    Ok(())
}
