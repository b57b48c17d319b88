//! The file of a segment: what was written is read, and damage anywhere is noticed.

use super::{
    super::test_blocks::{block_after, blocks_after, end_of, log},
    *,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::{fs, path::PathBuf};

fn write(dir: &Path, after: Head, blocks: &[EncodedBlock]) -> (PathBuf, Footer) {
    let last = blocks[blocks.len() - 1].last;
    let path = dir.join(file_name(after.seq.next(), last));
    let mut writer = SegmentWriter::create(&path, log(), after).unwrap();
    for block in blocks {
        writer.push(block).unwrap();
    }
    let (_, footer) = writer.finish().unwrap();
    (path, footer)
}

fn all(segment: &Segment) -> Result<Vec<Bytes>, SegmentError> {
    let mut found = Vec::new();
    for number in 0..segment.frames() {
        let frame = segment.frame(number)?;
        found.extend((0..frame.blocks.len()).map(|at| frame.get(at).unwrap().1));
    }
    Ok(found)
}

#[test]
fn names_are_read_as_they_are_written() {
    for (first, last) in [(1, 1), (7, 65_536), (u64::MAX - 1, u64::MAX)] {
        let (first, last) = (Sequence(first), Sequence(last));
        assert_eq!(parse_name(&file_name(first, last)), Some((first, last)));
    }
    let one = "00000000000000000001";
    for name in [
        "",
        ".seg",
        "1-2.seg",
        &format!("{one}-{one}.seg.new"),
        &format!("{one}-{one}"),
        &format!("+0000000000000000001-{one}.seg"),
        &format!("00000000000000000002-{one}.seg"),
        &format!("00000000000000000000-{one}.seg"),
        "99999999999999999999-99999999999999999999.seg",
    ] {
        assert_eq!(parse_name(name), None, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any blocks after any place: all come back, each is found by any sequence in it, and
    /// the footer says what they are.
    #[test]
    fn what_is_written_is_read(
        before in 0_u64..3,
        sizes in proptest::collection::vec((1_u64..5, prop_oneof![0_usize..300, 0_usize..8_000]), 1..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut end = Head::empty(log());
        for block in blocks_after(end, before, 0) {
            end = end_of(&block);
        }
        let start = end;
        let mut written = Vec::new();
        for (records, bytes) in sizes {
            let block = block_after(end, records, bytes);
            end = end_of(&block);
            written.push(block);
        }
        let (path, footer) = write(dir.path(), start, &written);
        let segment = Segment::open(&path, log()).unwrap();
        segment.verify().unwrap();
        prop_assert_eq!(segment.footer(), &footer);
        prop_assert_eq!((footer.first, footer.end, footer.previous), (start.seq.next(), end, start.block));
        prop_assert_eq!(footer.blocks as usize, written.len());
        let bytes: Vec<_> = written.iter().map(|block| block.bytes.clone()).collect();
        prop_assert_eq!(all(&segment).unwrap(), bytes);
        for seq in start.seq.next().0..=end.seq.0 {
            let seq = Sequence(seq);
            let frame = segment.frame(segment.frame_with(seq)).unwrap();
            let holds = written.iter().find(|block| block.last >= seq).unwrap();
            prop_assert_eq!(frame.floor(seq), Some((holds.first, holds.bytes.clone())));
            if let Some((first, _)) = frame.ceiling(seq) {
                let next = written.iter().find(|block| block.first >= seq).unwrap();
                prop_assert_eq!(first, next.first);
            }
        }
    }
}

#[test]
fn only_what_follows_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let start = Head::empty(log());
    let written = blocks_after(start, 3, 0);
    let mut writer = SegmentWriter::create(&dir.path().join("s"), log(), start).unwrap();
    assert!(writer.push(&written[1]).is_err());
    writer.push(&written[0]).unwrap();
    assert!(writer.push(&written[0]).is_err());
    assert!(writer.push(&written[2]).is_err());
    let elsewhere = Head { block: Digest::ZERO, ..end_of(&written[0]) };
    assert!(writer.push(&block_after(elsewhere, 1, 0)).is_err());
    writer.push(&written[1]).unwrap();
}

/// One flipped bit, one cut: the file as a whole never passes, and a frame that is read is what was
/// written.
#[test]
fn damage_anywhere_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let written = blocks_after(Head::empty(log()), 60, 4_000);
    let (path, footer) = write(dir.path(), Head::empty(log()), &written);
    assert!(footer.frames > 2);
    let whole = fs::read(&path).unwrap();
    let expected: Vec<_> = written.iter().map(|block| block.bytes.clone()).collect();
    let near_end = (whole.len() - 400..whole.len()).step_by(7);
    for at in (0..whole.len()).step_by(1_009).chain(0..24).chain(near_end) {
        for cut in [false, true] {
            let mut bytes = whole.clone();
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << (at % 8);
            }
            fs::write(&path, bytes).unwrap();
            let Ok(segment) = Segment::open(&path, log()) else { continue };
            assert!(segment.verify().is_err(), "{at} {cut}");
            let mut found = 0;
            for number in 0..segment.frames() {
                let Ok(frame) = segment.frame(number) else { continue };
                found += 1;
                for (first, range) in &frame.blocks {
                    let block = written.iter().find(|block| block.first == *first).unwrap();
                    assert_eq!(&frame.plain[range.clone()], &block.bytes[..]);
                }
            }
            let all_need_it = segment.frame(0).is_err();
            assert!(found + 1 >= segment.frames() || all_need_it, "{at}: {found} frames");
        }
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(all(&Segment::open(&path, log()).unwrap()).unwrap(), expected);
    let other = LogId(Uuid::from_u128(1));
    assert!(Segment::open(&path, other).is_err());
    let renamed = dir.path().join(file_name(Sequence(2), footer.end.seq));
    fs::rename(&path, &renamed).unwrap();
    assert!(Segment::open(&renamed, log()).is_err());
}

/// A segment of format 1, which had its frames compressed as they are.
#[test]
fn the_first_format_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let written = blocks_after(Head::empty(log()), 60, 4_000);
    let (path, _) = write(dir.path(), Head::empty(log()), &written);
    let segment = Segment::open(&path, log()).unwrap();
    let mut bytes = fs::read(&path).unwrap()[..START_BYTES as usize].to_vec();
    bytes[4..6].copy_from_slice(&1_u16.to_be_bytes());
    let (mut table, mut dictionary) = (Vec::new(), Vec::new());
    for (number, entry) in segment.entries.iter().enumerate() {
        let plain = segment.frame(number).unwrap().plain;
        let mut compressor = zstd::bulk::Compressor::with_dictionary(3, &dictionary).unwrap();
        compressor.include_checksum(true).unwrap();
        let stored = compressor.compress(&plain).unwrap();
        let (offset, len) = (bytes.len() as u64, stored.len() as u32);
        Entry { offset, len, ..*entry }.encode(&mut table);
        bytes.extend_from_slice(&stored);
        if number == 0 {
            dictionary = plain.to_vec();
        }
    }
    let body = Digest(Sha256::digest(&bytes).into());
    table.extend_from_slice(&Footer { body, ..segment.footer().clone() }.encode());
    let checksum = sha256(&[&table]);
    fs::write(&path, [&bytes[..], &table, &checksum.0].concat()).unwrap();
    let old = Segment::open(&path, log()).unwrap();
    old.verify().unwrap();
    let expected: Vec<_> = written.iter().map(|block| block.bytes.clone()).collect();
    assert!(old.frames() > 2);
    assert_eq!(all(&old).unwrap(), expected);
}
