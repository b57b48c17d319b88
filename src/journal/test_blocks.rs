//! Blocks to write in tests.

use super::{EncodedBlock, Head, Journal, ReadLimits};
use acta_events::{
    Actor, Content, Epoch, Header, LogId, MediaType, Record, Sequence, ServiceStopped, Timestamp,
    WorkerDiagnosed,
    block::{Block, BlockBuilder},
};
use std::sync::Arc;
use uuid::Uuid;

/// No limits worth the name.
pub(crate) const ALL: ReadLimits = ReadLimits { blocks: usize::MAX, bytes: usize::MAX };

/// The log that all tests write.
pub(crate) fn log() -> LogId {
    LogId(Uuid::from_u128(0xac7a))
}

fn record(seq: Sequence, content_bytes: usize) -> Record {
    let content = (content_bytes > 0).then(|| {
        // Differs from place to place, so that bytes that were moved about are noticed, and does
        // not compress.
        let mut noise = seq.0 ^ 0x9e37_79b9_7f4a_7c15;
        let bytes: Vec<u8> = (0..content_bytes)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        Content::new([seq.0 as u8; 16], MediaType::Text, bytes.into()).to_stored()
    });
    let event = match content {
        Some(_) => WorkerDiagnosed { source: "stderr".into() }.into(),
        None => ServiceStopped { reason: "test".into() }.into(),
    };
    let header = Header {
        seq,
        id: Uuid::from_u128(u128::from(seq.0)),
        time: Timestamp(seq.0 as i64),
        runtime: None,
        worker: None,
        version: None,
        actor: Actor::service(),
        command: None,
        trace: None,
        event,
    };
    Record::new(header, content).unwrap()
}

/// A block of `records` records after `head`, each with that much content.
pub(crate) fn block_after(head: Head, records: u64, content_bytes: usize) -> EncodedBlock {
    let mut builder = BlockBuilder::new(Epoch(1), head.block);
    for n in 1..=records {
        builder.push(Arc::new(record(Sequence(head.seq.0 + n), content_bytes)));
    }
    let (block, bytes) = builder.finish().unwrap();
    EncodedBlock::new(&block, bytes)
}

/// Where the log ends after a block.
pub(crate) fn end_of(block: &EncodedBlock) -> Head {
    Head { seq: block.last, block: block.digest }
}

/// `count` blocks after `head`, of 1, 2, 3, 1, … records.
pub(crate) fn blocks_after(head: Head, count: u64, content_bytes: usize) -> Vec<EncodedBlock> {
    let mut end = head;
    let mut blocks = Vec::new();
    for n in 0..count {
        let block = block_after(end, 1 + n % 3, content_bytes);
        end = end_of(&block);
        blocks.push(block);
    }
    blocks
}

/// Appends them one by one.
pub(crate) fn append_each(journal: &dyn Journal, blocks: &[EncodedBlock]) {
    for block in blocks {
        let head = journal.append(journal.head().seq, std::slice::from_ref(block)).unwrap();
        assert_eq!(head, end_of(block));
    }
}

/// Asserts that what was read is what was written, record by record.
pub(crate) fn assert_same(read: &[Arc<Block>], written: &[EncodedBlock]) {
    assert_eq!(read.len(), written.len());
    for (read, written) in read.iter().zip(written) {
        let expected = Block::decode(written.bytes.clone()).unwrap();
        assert_eq!((read.digest, read.previous), (expected.digest, expected.previous));
        assert_eq!((read.first(), read.last()), (written.first, written.last));
        for (read, expected) in read.records.iter().zip(&expected.records) {
            assert_eq!((&read.json, &read.content), (&expected.json, &expected.content));
        }
    }
}
