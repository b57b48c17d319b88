//! Blocks as workers leave them come back to the letter, and take less space apart.

use super::*;
use acta_events::{
    Actor, Content, Digest, Epoch, Event, Header, IdempotencyKey, MediaType, Record, RuntimeId,
    Sequence, ServiceStopped, Version, WorkerDiagnosed, WorkerId, block::BlockBuilder,
    record::CommandRef,
};
use proptest::prelude::*;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Clone, Debug)]
struct Made {
    worker: Option<u8>,
    /// Whether the version follows that of the worker's record before.
    follows: bool,
    /// Whether the id bears the time.
    usual_id: bool,
    command: bool,
    time_us: i64,
    noise: u128,
    content: Option<String>,
    /// How the content is kept: in the block, erased, or in a file.
    kept: u8,
}

fn made() -> impl Strategy<Value = Made> {
    let flags = (prop::bool::weighted(0.9), prop::bool::weighted(0.9), any::<bool>());
    let content = prop_oneof![3 => ".{0,200}".prop_map(Some), 1 => Just(None)];
    let parts = (prop::option::weighted(0.9, 0_u8..3), flags, -3_000_000_i64..9_000_000);
    (parts, any::<u128>(), content, 0_u8..8).prop_map(|(parts, noise, content, kept)| {
        let (worker, (follows, usual_id, command), rose_by) = parts;
        let time_us = 1_767_225_600_000_000 + rose_by;
        Made { worker, follows, usual_id, command, time_us, noise, content, kept }
    })
}

fn record(seq: u64, made: &Made, version: u64) -> Record {
    let millis = (made.time_us / 1_000) as u64;
    let random = made.noise.to_be_bytes();
    let (random, _) = random.split_first_chunk::<10>().unwrap();
    let id = uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid();
    let command = made.command.then(|| CommandRef {
        key: IdempotencyKey::parse(&format!("key-{}", made.noise)).unwrap(),
        fingerprint: Digest([made.noise as u8; 32]),
    });
    let event: Event = match made.content {
        // A text that looks like what tokens stand for.
        Some(_) => WorkerDiagnosed { source: r#","version":7,"worker":""#.into() }.into(),
        None => ServiceStopped { reason: "test".into() }.into(),
    };
    let header = Header {
        seq: Sequence(seq),
        id: if made.usual_id { id } else { Uuid::from_u128(made.noise) },
        time: Timestamp(made.time_us),
        runtime: made.worker.map(|_| RuntimeId::parse("embedded-worker-runtime").unwrap()),
        worker: made.worker.map(|n| WorkerId::parse(&format!("w-{n}")).unwrap()),
        version: made.worker.map(|_| Version(version)),
        actor: Actor::service(),
        command,
        trace: None,
        event,
    };
    let content = made.content.clone().map(|text| {
        let salt = made.noise.to_be_bytes();
        let bytes = if made.kept == 7 { text.repeat(400) } else { text };
        Content::new(salt, MediaType::Text, bytes.into_bytes().into()).to_stored()
    });
    let record = Record::new(header, content).unwrap();
    if made.kept == 6 { record.erased().unwrap_or(record) } else { record }
}

/// Blocks of these records, `sizes` of them each.
fn blocks(made: &[Made], first: u64, size: usize) -> Vec<u8> {
    let (mut plain, mut previous, mut seq) = (Vec::new(), Digest([9; 32]), first);
    let mut versions = [0_u64; 3];
    for part in made.chunks(size) {
        let mut builder = BlockBuilder::new(Epoch(2), previous);
        for made in part {
            let version = made.worker.map_or(0, |worker| {
                let version = &mut versions[usize::from(worker)];
                *version += if made.follows { 1 } else { 5 };
                *version
            });
            builder.push(Arc::new(record(seq, made, version)));
            seq += 1;
        }
        let (block, bytes) = builder.finish().unwrap();
        previous = block.digest;
        plain.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        plain.extend_from_slice(&bytes);
    }
    plain
}

/// The record at this place of a log as workers leave it.
fn usual(place: u8) -> Made {
    Made {
        worker: Some(place % 2),
        follows: true,
        usual_id: true,
        command: true,
        time_us: 1_767_225_600_000_000 + i64::from(place) * 1_000,
        noise: u128::from(place) << 40,
        content: Some("a piece of text".into()),
        kept: 0,
    }
}

/// Whether one of these blocks, each behind its length, ends at this place.
fn is_between_blocks(blocks: &[u8], place: usize) -> bool {
    let mut end = 0;
    while end < place {
        let (len, _) = blocks[end..].split_first_chunk().unwrap();
        end += 4 + u32::from_be_bytes(*len) as usize;
    }
    end == place
}

proptest! {
    /// Whatever records say, their blocks are taken apart and put together again to the letter.
    #[test]
    fn blocks_come_back(
        made in prop::collection::vec(made(), 1..20), first in 1_u64..1 << 50, size in 1_usize..6,
    ) {
        let plain = blocks(&made, first, size);
        let parts = split(&plain).expect("they are blocks");
        let joined = join(&parts.text, &parts.content, &parts.raw, plain.len());
        prop_assert_eq!(joined.as_ref(), Some(&plain));
        let too_few = join(&parts.text, &parts.content, &parts.raw, plain.len() - 1);
        prop_assert_eq!(too_few, None);
    }

    /// Parts of no blocks are refused, and bytes of no blocks are not taken apart.
    #[test]
    fn noise_is_refused(
        made in prop::collection::vec(made(), 1..6), part in 0_usize..3, noise: prop::sample::Index,
        byte: u8, bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let plain = blocks(&made, 1, 3);
        let mut parts = split(&plain).unwrap();
        let part = [&mut parts.text, &mut parts.content, &mut parts.raw][part].as_mut_slice();
        if !part.is_empty() {
            part[noise.index(part.len())] ^= byte;
        }
        // Any answer but a panic or a length without bound: the digests of blocks are checked later.
        if let Some(joined) = join(&parts.text, &parts.content, &parts.raw, plain.len()) {
            prop_assert!(joined.len() <= plain.len());
        }
        let cut = noise.index(plain.len()).max(1);
        prop_assert_eq!(split(&plain[..cut]).is_some(), is_between_blocks(&plain, cut));
        if !bytes.is_empty() {
            prop_assert_eq!(split(&bytes), None);
        }
    }
}

/// Blocks that were cut short are taken apart only where one of them ends.
#[test]
fn only_whole_blocks_are_taken_apart() {
    let made: Vec<_> = (0..5).map(usual).collect();
    let plain = blocks(&made, 1, 2);
    let whole: Vec<_> = (1..=plain.len()).filter(|cut| split(&plain[..*cut]).is_some()).collect();
    let ends: Vec<_> =
        (1..=plain.len()).filter(|place| is_between_blocks(&plain, *place)).collect();
    assert_eq!(whole, ends);
    assert_eq!(whole.len(), 3);
}

/// What the tokens are for: of a usual record little more than its event is left.
#[test]
fn little_is_left_of_a_usual_header() {
    let made: Vec<_> = (0..20).map(usual).collect();
    let parts = split(&blocks(&made, 1_000, 10)).unwrap();
    let header = record(1_018, &made[18], 10).json.len();
    let text = String::from_utf8(parts.text).unwrap();
    let of_last = text.split(char::from(KIND + 1)).nth(19).unwrap();
    assert!(of_last.starts_with("\u{1},\"type\":"), "{of_last:?}");
    assert!(of_last.contains("\"version\":\u{2},"), "{of_last:?}");
    assert!(of_last.contains("\"fingerprint\":\"\u{4}\""), "{of_last:?}");
    assert!(of_last.contains("\"len\":\u{3},"), "{of_last:?}");
    assert!(of_last.len() + 150 < header, "{} of {header}", of_last.len());
    assert_eq!(parts.content.len(), 20 * 15);
}
