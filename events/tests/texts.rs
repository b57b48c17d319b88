//! Everything with a text form: it comes back as it was, and nothing else is taken for it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use acta_events::{cursor::Cursor, *};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use uuid::Uuid;

fn a_cursor() -> Cursor {
    let log = LogId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
    Cursor::new(log, Epoch(3), Sequence(0x1122), Digest([0xab; 32]))
}

proptest! {
    #[test]
    fn a_cursor_comes_back(log: u128, epoch in 1..=u32::MAX, seq: u64, digest in support::digest()) {
        let cursor = Cursor::new(LogId(Uuid::from_u128(log)), Epoch(epoch), Sequence(seq), digest);
        let text = cursor.to_string();
        prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        prop_assert_eq!(text.parse(), Ok(cursor));
    }

    /// One position has one text: whatever else is taken for a cursor is another position.
    #[test]
    fn a_text_that_is_taken_for_a_cursor_is_its_text(text in "[A-Za-z0-9_-]{49,51}") {
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string(), text);
        }
    }

    #[test]
    fn any_text_may_be_tried_as_a_cursor(text in "(?s).{0,120}") {
        prop_assert!(text.parse::<Cursor>().is_err());
    }

    #[test]
    fn a_time_comes_back(time in support::time()) {
        let text = time.to_string();
        prop_assert_eq!(Timestamp::parse(&text), Ok(time), "{}", text);
        prop_assert!(text.ends_with('Z') && text.as_bytes()[text.len() - 8] == b'.', "{}", text);
    }

    #[test]
    fn a_digest_comes_back(digest in support::digest()) {
        prop_assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
    }

    #[test]
    fn ids_are_checked(text in "(?s).{0,130}") {
        let valid = (1..=120).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:".contains(&b));
        prop_assert_eq!(WorkerId::parse(&text).is_ok(), valid);
        let key = (1..=255).contains(&text.len()) && text.bytes().all(|b| (b'!'..=b'~').contains(&b));
        prop_assert_eq!(IdempotencyKey::parse(&text).is_ok(), key);
    }
}

#[test]
fn the_text_of_a_cursor_never_changes() {
    let text = "AQECAwQFBgcICQoLDA0ODxAAAAADAAAAAAAAESKrq6urq6urqw";
    assert_eq!(a_cursor().to_string(), text);
    assert_eq!(text.parse(), Ok(a_cursor()));
}

#[test]
fn the_beginning_has_no_digest() {
    let (log, epoch) = (a_cursor().log, Epoch(1));
    let beginning = Cursor::beginning(log, epoch);
    assert_eq!(Cursor::new(log, epoch, Sequence::ZERO, Digest([1; 32])), beginning);
    assert_eq!(beginning.digest, [0; 8]);
    assert_eq!(beginning.to_string().parse(), Ok(beginning));
}

#[test]
fn what_is_no_cursor_is_refused() {
    let check = |text: &str| {
        let parsed = text.parse::<Cursor>();
        assert!(parsed.is_err(), "{text:?} was taken for {parsed:?}");
    };
    let good = a_cursor().to_string();
    let raw = URL_SAFE_NO_PAD.decode(&good).unwrap();
    let mut rows = vec![
        String::new(),
        "0".into(),
        "42".into(),
        "-1".into(),
        "null".into(),
        "\0".into(),
        "é".repeat(25),
        format!("{good}="),
        format!("{good}=="),
        format!(" {good}"),
        format!("{good}\n"),
        format!("snapshot:{good}"),
        good[..good.len() - 1].into(),
        format!("{good}A"),
        good.repeat(2),
        "A".repeat(10_000_000),
        // The last character has four bits that no byte uses.
        format!("{}x", &good[..good.len() - 1]),
        // The other base64.
        good.replacen("AQ", "+/", 1),
    ];
    let mut change = |at: usize, bytes: &[u8]| {
        let mut raw = raw.clone();
        raw[at..at + bytes.len()].copy_from_slice(bytes);
        rows.push(URL_SAFE_NO_PAD.encode(raw));
    };
    change(0, &[0]);
    change(0, &[2]);
    change(17, &[0; 4]);
    change(21, &[0; 8]);
    for len in (0..raw.len()).chain([raw.len() + 1]) {
        let raw: Vec<_> = raw.iter().copied().chain([0]).take(len).collect();
        rows.push(URL_SAFE_NO_PAD.encode(raw));
    }
    rows.iter().for_each(|row| check(row));
}

#[test]
fn times_are_rfc_3339() {
    let rows = [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("1970-01-01T00:00:00.000001Z", Some(1)),
        ("1970-01-01T00:00:00.0000019Z", Some(1)),
        ("1969-12-31T23:59:59.999999Z", Some(-1)),
        ("1970-01-01T02:00:00+02:00", Some(0)),
        ("2026-11-20T19:14:00.123456Z", Some(1_795_202_040_123_456)),
        ("", None),
        ("2026-11-20", None),
        ("2026-11-20T19:14:00", None),
        ("2026-02-30T00:00:00Z", None),
        ("99999-01-01T00:00:00Z", None),
        ("1795202040", None),
    ];
    for (text, expected) in rows {
        assert_eq!(Timestamp::parse(text).ok(), expected.map(Timestamp), "{text}");
    }
    assert_eq!(Timestamp(-1).as_millis(), -1, "rounds down, also before 1970");
    assert_eq!(Timestamp(1_999).as_millis(), 1);
    assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000000Z");
}

#[test]
fn digests_are_lower_case_and_whole() {
    let good = Digest([0x0f; 32]).to_string();
    assert_eq!(good, "0f".repeat(32));
    let rows = [
        good.to_uppercase(),
        good[1..].into(),
        format!("{good}0"),
        good.replace('f', "g"),
        "é".repeat(32),
    ];
    for row in rows {
        assert!(Digest::parse(&row).is_err(), "{row}");
    }
    // FIPS 180-2, "abc", in any cut.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for parts in [&[&b"abc"[..]][..], &[b"a", b"", b"bc"]] {
        assert_eq!(sha256(parts).to_string(), abc);
    }
}

#[test]
fn ids_and_traces_have_their_limits() {
    assert!(RuntimeId::parse(&"x".repeat(120)).is_ok());
    let error = RuntimeId::parse(&"é".repeat(200)).unwrap_err();
    assert_eq!(error.value.chars().count(), 120);
    assert!(IdempotencyKey::parse(&"~".repeat(255)).is_ok());
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert!(TraceParent::parse(trace).is_ok());
    for bad in
        [&trace.to_uppercase()[..], &trace[1..], &format!("{trace}-"), &trace.replace('-', "_")]
    {
        assert!(TraceParent::parse(bad).is_err(), "{bad}");
    }
}

/// Whoever issues a token chooses its id, and the id becomes part of an actor, which is stored
/// and read again.
#[test]
fn the_actor_of_every_token_can_be_read_again() {
    for len in [1, 100, 120] {
        let Ok(token) = TokenId::parse(&"t".repeat(len)) else { continue };
        let actor = Actor::token(&token);
        assert_eq!(Actor::parse(actor.as_str()).as_ref(), Ok(&actor), "{len} characters");
    }
}
