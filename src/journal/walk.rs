//! Reads blocks in order and believes none of them: each has to be where it belongs, match
//! its digest, and follow the one before it.

use super::{ReadError, panics::Fault, pending::View};
use acta_events::{Digest, Sequence, block::Block};
use bytes::Bytes;

/// Goes through a log from a place on.
pub(super) struct Walk<'a> {
    view: &'a View<'a>,
    /// The sequence that the next block has to begin with.
    expected: Sequence,
    /// The digest of the block before it; none before the first step.
    previous: Option<Digest>,
    /// The log has to go this far.
    at_least: Sequence,
    /// Where to begin could not be found out.
    refused: Option<String>,
}

impl<'a> Walk<'a> {
    /// Begins with the block that holds `wanted`, as far as that can be told. The first block
    /// may end before `wanted` if the one that held it is gone; the next step then says so.
    pub(super) fn new(view: &'a View<'a>, wanted: Sequence, at_least: Sequence) -> Self {
        let begin = view.segments.begin_head().seq.next();
        let wanted = wanted.max(begin);
        let (expected, refused) = match view.floor(wanted) {
            Ok(Some((first, _))) => (first.max(begin), None),
            Err(Fault::Io(why)) => (wanted, Some(why)),
            Ok(None) | Err(_) => (wanted, None),
        };
        Self { view, expected, previous: None, at_least, refused }
    }

    /// The next block, decoded and as stored; none at the end. After an error the walk is over.
    pub(super) fn step(&mut self) -> Result<Option<(Block, Bytes)>, ReadError> {
        let expected = self.expected;
        if let Some(why) = self.refused.take() {
            return Err(ReadError::Io { why });
        }
        let (first, bytes) = match self.view.ceiling(expected) {
            Ok(Some(found)) => found,
            Ok(None) if expected > self.at_least => return Ok(None),
            Ok(None) => {
                let why = format!(
                    "the log ends at {}, but {} was durable",
                    expected.0.saturating_sub(1),
                    self.at_least
                );
                return Err(damaged(expected, self.at_least, why));
            }
            Err(Fault::Io(why)) => return Err(ReadError::Io { why }),
            Err(fault) => {
                return Err(damaged(expected, self.unreadable_until(expected), fault));
            }
        };
        if first != expected {
            let last = Sequence(first.0.saturating_sub(1));
            return Err(damaged(expected, last, "there is no block with them"));
        }
        let block = match Block::decode(bytes.clone()) {
            Ok(block) if block.first() == first => block,
            Ok(_) => {
                let why = "the block there belongs elsewhere";
                return Err(damaged(first, self.until_next(first), why));
            }
            Err(error) => return Err(damaged(first, self.until_next(first), error)),
        };
        let follows = match self.previous {
            Some(previous) => block.previous == previous,
            None => self.joins(&block),
        };
        if !follows {
            let why = "the block does not follow the one before it";
            return Err(damaged(first, block.last(), why));
        }
        self.expected = block.last().next();
        self.previous = Some(block.digest);
        Ok(Some((block, bytes)))
    }

    /// Whether the first block of the walk follows its neighbour, if there is an intact one.
    fn joins(&self, block: &Block) -> bool {
        let before = Sequence(block.first().0.saturating_sub(1));
        let begin = self.view.segments.begin_head();
        if before == begin.seq {
            return block.previous == begin.block;
        }
        match self.view.floor(before) {
            // Decoding the neighbour is for the rare case in which they disagree.
            Ok(Some((_, bytes))) if !bytes.ends_with(&block.previous.0) => {
                !Block::decode(bytes).is_ok_and(|neighbour| neighbour.last() == before)
            }
            _ => true,
        }
    }

    /// The last sequence before the next block after a damaged one.
    fn until_next(&self, first: Sequence) -> Sequence {
        match self.view.ceiling(first.next()) {
            Ok(Some((next, _))) => Sequence(next.0.saturating_sub(1)),
            Ok(None) => self.at_least.max(first),
            Err(_) => self.unreadable_until(first.next()),
        }
    }

    /// The last sequence that cannot be read, where `from` cannot. The engine loses a leaf of
    /// its tree at a time and does not say what was in it, so the next place that it can read
    /// from is searched for.
    fn unreadable_until(&self, from: Sequence) -> Sequence {
        let end = self.at_least.max(from);
        let mut bad = from.0;
        let mut stride = 1_u64;
        let mut good = loop {
            let probe = from.0.saturating_add(stride);
            if probe > end.0 {
                return end;
            }
            match self.view.ceiling(Sequence(probe)) {
                Ok(Some(_)) => break probe,
                Ok(None) => return end,
                Err(_) => bad = probe,
            }
            stride = stride.saturating_mul(2);
        };
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            match self.view.ceiling(Sequence(middle)) {
                Ok(Some(_)) => good = middle,
                _ => bad = middle,
            }
        }
        match self.view.ceiling(Sequence(good)) {
            Ok(Some((next, _))) => Sequence(next.0.saturating_sub(1)),
            _ => end,
        }
    }
}

pub(super) fn damaged(first: Sequence, last: Sequence, why: impl std::fmt::Display) -> ReadError {
    ReadError::Damaged { first, last, why: why.to_string() }
}
