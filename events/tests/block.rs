//! The block: what goes in comes out, and what was not put in does not.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use acta_events::{
    block::{BLOCK_BYTES_MAX, Block, BlockBuilder, BlockError, genesis},
    record::{HEADER_BYTES_MAX, RecordError},
    *,
};
use proptest::{collection::vec, option, prelude::*, sample::Index};
use std::sync::Arc;
use support::{RawContent, raw_block};
use uuid::Uuid;

type Parts = Vec<(Header, Option<StoredContent>)>;

fn parts() -> impl Strategy<Value = Parts> {
    vec((support::header(), option::of(support::content())), 1..6)
}

fn build(epoch: u32, first: u64, previous: Digest, parts: Parts) -> (Block, Vec<u8>) {
    let mut builder = BlockBuilder::new(Epoch(epoch), previous);
    for (seq, (header, content)) in (first..).zip(parts) {
        let record = Record::new(Header { seq: Sequence(seq), ..header }, content).unwrap();
        assert!(builder.fits(record.stored_bytes()));
        builder.push(Arc::new(record));
    }
    let (block, bytes) = builder.finish().unwrap();
    (block, bytes.to_vec())
}

fn header(event: Event) -> Header {
    Header {
        seq: Sequence(1),
        id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
        time: Timestamp(1_795_202_040_000_001),
        runtime: None,
        worker: None,
        version: None,
        actor: Actor::service(),
        command: None,
        trace: None,
        event,
    }
}

/// One record for each kind of content.
fn one_of_each() -> Vec<u8> {
    let stopped = || header(ServiceStopped { reason: "signal".into() }.into());
    let inline = Content::new([7; 16], MediaType::Text, b"hello".as_slice().into()).to_stored();
    let digest = Digest([0x5a; 32]);
    let elsewhere = |body| StoredContent { digest, len: 9, media_type: MediaType::Json, body };
    let parts = vec![
        (stopped(), None),
        (stopped(), Some(inline)),
        (stopped(), Some(elsewhere(ContentBody::File))),
        (stopped(), Some(elsewhere(ContentBody::Erased))),
    ];
    build(1, 1, genesis(LogId(Uuid::nil())), parts).1
}

/// What a reader sees of a block.
fn seen(block: &Block) -> impl PartialEq + std::fmt::Debug {
    let records = block.records.iter().map(|record| {
        (record.header.clone(), record.json.clone(), record.content.clone(), record.digest)
    });
    (block.epoch, block.previous, block.digest, records.collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        epoch: u32,
        first in 1..u64::MAX - 10,
        previous in support::digest(),
        parts in parts(),
    ) {
        let (block, bytes) = build(epoch, first, previous, parts);
        let decoded = Block::decode(bytes.into()).unwrap();
        prop_assert_eq!(seen(&decoded), seen(&block));
        prop_assert_eq!(decoded.first(), Sequence(first));
        prop_assert_eq!(decoded.last().0, first + block.records.len() as u64 - 1);
    }

    /// Some records are the same as when all are understood, and a changed byte of any other is noticed too.
    #[test]
    fn some_records_are_decoded_alone(parts in parts(), chosen: u64, at: Index, change in 1..=255_u8) {
        let (block, mut bytes) = build(1, 1, Digest::ZERO, parts);
        let wanted = |seq: Sequence| chosen >> (seq.0 % 64) & 1 == 1;
        let some = Block::decode_some(bytes.clone().into(), wanted).unwrap();
        let expected = block.records.iter().filter(|record| wanted(record.seq())).cloned();
        let expected = Block { records: expected.collect(), ..block.clone() };
        let some = Block { records: some, ..block };
        prop_assert_eq!(seen(&some), seen(&expected));
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(Block::decode_some(bytes.into(), wanted).is_err(), "byte {} ^ {}", at, change);
    }

    #[test]
    fn a_changed_byte_is_noticed(parts in parts(), at: Index, change in 1..=255_u8) {
        let (_, mut bytes) = build(1, 1, Digest::ZERO, parts);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(Block::decode(bytes.into()).is_err(), "byte {} ^ {}", at, change);
    }

    #[test]
    fn bytes_that_are_no_block_are_refused(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(Block::decode(bytes.clone().into()).is_err());
        let mut begun = one_of_each();
        begun.truncate(56);
        begun.extend(bytes);
        prop_assert!(Block::decode(begun.into()).is_err());
    }

    #[test]
    fn an_independent_encoder_agrees(header in support::header(), salt: [u8; 16], text in "\\PC{0,40}") {
        let content = Content::new(salt, MediaType::Text, text.clone().into_bytes().into());
        let (block, bytes) = build(3, 1, Digest([1; 32]), vec![(header, Some(content.to_stored()))]);
        let content = RawContent::Inline { salt, bytes: text.into_bytes() };
        let json = block.records[0].json.to_vec();
        prop_assert_eq!(bytes, raw_block(3, 1, [1; 32], &[(&json, content)]));
    }
}

#[test]
fn every_change_of_every_byte_is_noticed() {
    let good = one_of_each();
    Block::decode(good.clone().into()).unwrap();
    for at in 0..good.len() {
        for change in 1..=255 {
            let mut bad = good.clone();
            bad[at] ^= change;
            assert!(Block::decode(bad.into()).is_err(), "byte {at} ^ {change:#04x}");
        }
    }
}

#[test]
fn a_part_or_more_than_a_block_is_none() {
    let good = one_of_each();
    for len in 0..good.len() {
        assert!(Block::decode(good[..len].to_vec().into()).is_err(), "{len} bytes");
    }
    for more in [&[0_u8][..], b"ACTB", &good] {
        assert!(Block::decode([&good, more].concat().into()).is_err());
    }
}

/// The layout, byte by byte. If this fails, what is stored by others can no longer be read.
#[test]
fn the_layout_never_changes() {
    let content = Content::new([7; 16], MediaType::Text, b"hello".as_slice().into());
    let stopped = header(ServiceStopped { reason: "signal".into() }.into());
    let previous = genesis(LogId(Uuid::from_u128(0xac7a)));
    let digest = Digest([0x5a; 32]);
    let elsewhere = |body| StoredContent { digest, len: 9, media_type: MediaType::Json, body };
    let parts = vec![
        (stopped.clone(), None),
        (stopped.clone(), Some(content.to_stored())),
        (stopped.clone(), Some(elsewhere(ContentBody::File))),
        (stopped, Some(elsewhere(ContentBody::Erased))),
    ];
    let (_, bytes) = build(1, 2, previous, parts);
    assert_eq!(hex(&bytes), include_str!("block.hex").replace(char::is_whitespace, ""));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A block that matches its digest is checked all the same.
fn check_made_up(bytes: Vec<u8>, expected: &str) {
    let error = Block::decode(bytes.into()).unwrap_err();
    assert!(error.to_string().contains(expected), "{error} is not about {expected}");
}

const HEADER: &str = r#"{"seq":1,"id":"01920000-0000-7000-8000-000000000001","time":"2026-11-20T19:14:00.000001Z","type":"service_stopped","v":1,"actor":"service","data":{"reason":"signal"}}"#;

fn made_up(header: &str) -> Vec<u8> {
    raw_block(1, 1, [0; 32], &[(header.as_bytes(), RawContent::None)])
}

#[test]
fn a_block_that_was_made_up_is_judged_by_its_records() {
    Block::decode(made_up(HEADER).into()).unwrap();
    let with = |from: &str, to: &str| {
        let header = HEADER.replace(from, to);
        assert_ne!(header, HEADER, "{from}");
        made_up(&header)
    };
    check_made_up(with("\"seq\":1", "\"seq\":2"), "sequence is not its place");
    check_made_up(with("\"seq\":1", "\"seq\":-1"), "record 1: the header is malformed");
    check_made_up(with("\"seq\":1", "\"seq\":18446744073709551616"), "malformed");
    check_made_up(with("\"seq\":1", "\"seq\":1e99"), "malformed");
    check_made_up(with("service_stopped", "service_paused"), "`service_paused` version 1");
    check_made_up(with("\"v\":1", "\"v\":2"), "a newer one wrote it");
    check_made_up(with("\"reason\":\"signal\"", "\"reason\":1"), "malformed data");
    check_made_up(with("\"actor\":\"service\"", "\"actor\":\"a b\""), "malformed");
    check_made_up(with("2026-11-20T19:14:00.000001Z", "yesterday"), "malformed");
    check_made_up(with("signal", "\u{1}"), "malformed");
    check_made_up(with("}}", "}"), "malformed");
    check_made_up(with("}}", "}}}"), "malformed");
    check_made_up(
        with("}}", "},\"content\":{\"len\":1,\"media_type\":\"text/plain\"}}"),
        "disagree",
    );
    let of_one = HEADER.replace("}}", "},\"content\":{\"len\":1,\"media_type\":\"text/plain\"}}");
    let two = RawContent::Inline { salt: [0; 16], bytes: vec![1, 2] };
    check_made_up(raw_block(1, 1, [0; 32], &[(of_one.as_bytes(), two)]), "disagree");
    let file = RawContent::File([0; 32]);
    check_made_up(raw_block(1, 1, [0; 32], &[(HEADER.as_bytes(), file)]), "disagree");
    let erased = RawContent::Erased([0; 32]);
    Block::decode(raw_block(1, 1, [0; 32], &[(of_one.as_bytes(), erased)]).into()).unwrap();
    check_made_up(raw_block(1, 1, [0; 32], &[]), "no records");
    check_made_up(raw_block(1, 0, [0; 32], &[(HEADER.as_bytes(), RawContent::None)]), "impossible");
    let last = raw_block(1, u64::MAX, [0; 32], &[(HEADER.as_bytes(), RawContent::None)]);
    check_made_up(last, "impossible");
    check_made_up(raw_block(1, 1, [0; 32], &[(b"\xff\xfe{}", RawContent::None)]), "malformed");
}

/// A later version may add fields; this one leaves them alone and keeps their bytes.
#[test]
fn fields_that_are_not_known_are_kept_and_left_alone() {
    let header = HEADER.replace("\"data\":{", "\"later\":[{\"x\":1}],\"data\":{\"more\":null,");
    let block = Block::decode(made_up(&header).into()).unwrap();
    assert_eq!(block.records[0].json, header.as_bytes());
}

#[test]
fn deep_json_ends_in_an_error_and_not_in_the_stack() {
    let deep = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
    // As deep as fits into a header, in a field that is not known, and in the data.
    for at in ["\"data\":{", "\"actor\":"] {
        let header = HEADER.replace(at, &format!("\"x\":{},{at}", deep(8000)));
        assert!(header.len() <= HEADER_BYTES_MAX);
        Block::decode(made_up(&header).into()).unwrap();
    }
    let data = HEADER.replace("\"signal\"", &deep(8000));
    check_made_up(made_up(&data), "malformed data");
    let data = HEADER.replace("{\"reason\":\"signal\"}", &deep(8000));
    check_made_up(made_up(&data), "malformed data");
    let deepest = HEADER.replace("\"data\":{", &format!("\"x\":{},\"data\":{{", deep(100_000)));
    check_made_up(made_up(&deepest), "longer than headers are");
}

#[test]
fn a_field_that_promises_more_than_is_there_costs_nothing() {
    let good = one_of_each();
    let check = |at: usize, value: u32| {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&value.to_be_bytes());
        let error = Block::decode(bad.into()).unwrap_err();
        assert!(matches!(error, BlockError::Malformed(_) | BlockError::Length), "{error}");
    };
    // The count, the length of the first header, and the length of the first content.
    let content = good.windows(5).position(|window| window == b"hello").unwrap() - 4;
    for at in [20, 56, content] {
        for value in [0x00ff_ffff, 0x7fff_ffff, 0xffff_ffff] {
            check(at, value);
        }
    }
}

#[test]
fn a_newer_format_says_so() {
    let mut bytes = one_of_each();
    bytes[4..6].copy_from_slice(&2_u16.to_be_bytes());
    assert!(matches!(Block::decode(bytes.clone().into()), Err(BlockError::Format(2))));
    bytes[0] = b'B';
    assert!(matches!(Block::decode(bytes.into()), Err(BlockError::Magic)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let with = |len: usize| header(ServiceStopped { reason: "x".repeat(len) }.into());
    let empty = Record::new(with(0), None).unwrap().json.len();
    let largest = Record::new(with(HEADER_BYTES_MAX - empty), None).unwrap();
    assert_eq!(largest.json.len(), HEADER_BYTES_MAX);
    let error = Record::new(with(HEADER_BYTES_MAX - empty + 1), None).unwrap_err();
    assert!(
        matches!(error, RecordError::HeaderTooLarge { bytes } if bytes == HEADER_BYTES_MAX + 1)
    );

    let mut builder = BlockBuilder::new(Epoch(1), Digest::ZERO);
    assert!(builder.is_empty());
    let mut n = 0;
    while builder.fits(largest.stored_bytes()) {
        n += 1;
        let header = Header { seq: Sequence(n), ..with(HEADER_BYTES_MAX - empty) };
        builder.push(Arc::new(Record::new(header, None).unwrap()));
    }
    assert_eq!(n, 3);
    let (_, bytes) = builder.finish().unwrap();
    assert!(bytes.len() <= BLOCK_BYTES_MAX);
    Block::decode(bytes).unwrap();
    assert!(BlockBuilder::new(Epoch(1), Digest::ZERO).finish().is_none());
}

#[test]
fn contents_above_the_limit_stand_elsewhere() {
    let stored = |len: usize| {
        Content::new([1; 16], MediaType::Text, vec![b'x'; len].into()).to_stored().body
    };
    assert!(matches!(stored(32 * 1024), ContentBody::Inline { .. }));
    assert_eq!(stored(32 * 1024 + 1), ContentBody::File);
}
