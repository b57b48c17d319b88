//! A text is refused as a cursor, or it is the one text of that cursor.

use acta_events::cursor::Cursor;

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(cursor) = text.parse::<Cursor>() else { return };
    assert_eq!(cursor.to_string(), text);
    assert!(cursor.epoch.0 > 0);
}
