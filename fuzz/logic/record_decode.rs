//! A stored block is refused, or it is exactly what its records encode to.

use acta_events::block::{Block, BlockBuilder};

pub(crate) fn run(input: &[u8]) {
    let Ok(block) = Block::decode(input.to_vec().into()) else { return };
    let mut builder = BlockBuilder::new(block.epoch, block.previous);
    for (n, record) in block.records.iter().enumerate() {
        assert_eq!(record.seq().0, block.first().0 + n as u64);
        builder.push(record.clone());
    }
    let (again, bytes) = builder.finish().expect("a block has records");
    assert_eq!(again.digest, block.digest);
    assert_eq!(bytes, input);
}
