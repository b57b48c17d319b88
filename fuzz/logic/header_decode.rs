//! A header in a block whose digests are right: refused, or understood for good.

use acta_events::{Digest, Record, block::Block, sha256};

/// What the first byte of the input says about the content.
fn content(kind: u8) -> (Vec<u8>, Option<Digest>) {
    let digest = Digest([0x5a; 32]);
    match kind % 4 {
        0 => (vec![0], None),
        1 => {
            let (salt, text) = ([7; 16], b"hello");
            let stored = [&[1][..], &salt, &5_u32.to_be_bytes(), text].concat();
            (stored, Some(sha256(&[&salt, text])))
        }
        2 => ([&[2][..], &digest.0].concat(), Some(digest)),
        _ => ([&[3][..], &digest.0.map(|byte| !byte)].concat(), Some(digest)),
    }
}

/// A block of one record at sequence 1.
fn block(kind: u8, header: &[u8]) -> Vec<u8> {
    let mut out = b"ACTB\x00\x01\x00\x00\x00\x00\x00\x01".to_vec();
    out.extend(1_u64.to_be_bytes());
    out.extend(1_u32.to_be_bytes());
    out.extend([0; 32]);
    let (stored, digest) = content(kind);
    let record = match digest {
        None => sha256(&[&[0], header]),
        Some(digest) => sha256(&[&[1], header, &digest.0]),
    };
    let trailer = sha256(&[&out, &record.0]);
    out.extend((header.len() as u32).to_be_bytes());
    out.extend(header);
    out.extend(stored);
    out.extend(trailer.0);
    out
}

pub(crate) fn run(input: &[u8]) {
    let Some((kind, header)) = input.split_first() else { return };
    let Ok(read) = Block::decode(block(*kind, header).into()) else { return };
    let read = &read.records[0];
    assert_eq!(read.json, header);
    // Written by this version it may be longer, and so too long.
    let Ok(written) = Record::new(read.header.clone(), read.content.clone()) else { return };
    let again =
        Block::decode(block(*kind, &written.json).into()).expect("what was written is read");
    assert_eq!(again.records[0].header, read.header);
    assert_eq!(again.records[0].content, read.content);
}
