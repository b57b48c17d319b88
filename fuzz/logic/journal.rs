//! Operations on both journals, with reboots among them, against a list of blocks.

use acta::{
    data_dir::DataDir,
    journal::{AppendError, EncodedBlock, Head, Journal, MemoryJournal, ReadLimits, SledJournal},
};
use acta_events::{
    Actor, Content, Epoch, Header, LogId, MediaType, Record, Sequence, Timestamp, WorkerDiagnosed,
    block::BlockBuilder,
};
use std::sync::Arc;
use uuid::Uuid;

const LOG: LogId = LogId(Uuid::from_u128(0xac7a));

/// Each costs a sync of the disk, or more.
const OPERATIONS_MAX: usize = 60;

fn record(seq: u64, content_bytes: usize) -> Arc<Record> {
    let bytes: Vec<u8> = (0..content_bytes as u64).map(|n| (n * 31 + seq) as u8).collect();
    let content = Content::new([seq as u8; 16], MediaType::Text, bytes.into());
    let header = Header {
        seq: Sequence(seq),
        id: Uuid::from_u128(u128::from(seq)),
        time: Timestamp(seq as i64),
        runtime: None,
        worker: None,
        version: None,
        actor: Actor::service(),
        command: None,
        trace: None,
        event: WorkerDiagnosed { source: "stderr".into() }.into(),
    };
    Arc::new(Record::new(header, Some(content.to_stored())).expect("a small record"))
}

fn block_after(head: Head, records: u64, content_bytes: usize) -> EncodedBlock {
    let mut builder = BlockBuilder::new(Epoch(1), head.block);
    for n in 1..=records {
        let record = record(head.seq.0 + n, content_bytes);
        if builder.fits(record.stored_bytes()) {
            builder.push(record);
        }
    }
    let (block, bytes) = builder.finish().expect("at least one record fits");
    EncodedBlock::new(&block, bytes)
}

/// What the journals ought to hold.
struct Model {
    blocks: Vec<EncodedBlock>,
}

impl Model {
    fn head(&self) -> Head {
        let last = self.blocks.last();
        last.map_or(Head::empty(LOG), |block| Head { seq: block.last, block: block.digest })
    }

    fn check(&self, journal: &dyn Journal, after: Sequence, limit: usize) {
        assert_eq!(journal.head(), self.head());
        let limits = ReadLimits { blocks: limit, bytes: usize::MAX };
        let read = journal.read(after, limits).expect("nothing is damaged");
        let wanted: Vec<_> =
            self.blocks.iter().filter(|block| block.last > after).take(limit.max(1)).collect();
        assert_eq!(read.len(), wanted.len(), "after {after}");
        for (read, wanted) in read.iter().zip(wanted) {
            assert_eq!((read.first(), read.last()), (wanted.first, wanted.last));
            assert_eq!((read.digest, read.previous), (wanted.digest, wanted.previous));
        }
    }
}

fn append(model: &mut Model, journals: &[&dyn Journal], size: u8) {
    let mut blocks = Vec::new();
    let mut end = model.head();
    for _ in 0..=size % 3 {
        let block = block_after(end, 1 + u64::from(size % 5), usize::from(size) * 100);
        end = Head { seq: block.last, block: block.digest };
        blocks.push(block);
    }
    for journal in journals {
        assert_eq!(journal.append(model.head().seq, &blocks), Ok(end));
    }
    model.blocks.extend(blocks);
}

/// Appends that are not to be: at another place, and of what does not follow.
fn misplace(model: &Model, journals: &[&dyn Journal], shift: u8) {
    let head = model.head();
    let elsewhere = Head { seq: Sequence(head.seq.0 + 1 + u64::from(shift)), ..head };
    let (next, gap) = (block_after(head, 1, 10), block_after(elsewhere, 1, 10));
    for journal in journals {
        let conflict = journal.append(elsewhere.seq, std::slice::from_ref(&next));
        assert_eq!(conflict, Err(AppendError::Conflict { head }));
        assert!(matches!(
            journal.append(head.seq, std::slice::from_ref(&gap)),
            Err(AppendError::Refused(_))
        ));
    }
}

pub(crate) fn run(input: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let data = DataDir::create(dir.path(), LOG, Timestamp(0)).expect("a data directory");
    let open = || SledJournal::open(&data).expect("it opens");
    let memory = MemoryJournal::new(LOG);
    let mut sled = open();
    let mut model = Model { blocks: Vec::new() };
    for operation in input.chunks_exact(2).take(OPERATIONS_MAX) {
        let (what, with) = (operation[0], operation[1]);
        let journals: [&dyn Journal; 2] = [&memory, &sled];
        match what % 8 {
            0..3 => append(&mut model, &journals, with),
            3 => misplace(&model, &journals, with),
            4 => journals.iter().for_each(|journal| {
                assert_eq!(journal.recover(), Ok(model.head()));
            }),
            5 => {
                // In good order or not: what was acknowledged is there.
                if with < 128 {
                    sled.close().expect("it closes");
                }
                drop(sled);
                sled = open();
            }
            _ => {
                let after = Sequence(u64::from(with) * model.head().seq.0 / 200);
                for journal in journals {
                    model.check(journal, after, usize::from(what / 8));
                }
            }
        }
        assert_eq!(sled.head(), model.head());
    }
    for journal in [&memory as &dyn Journal, &sled] {
        model.check(journal, Sequence::ZERO, usize::MAX);
    }
}
