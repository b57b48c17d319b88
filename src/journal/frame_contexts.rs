//! What decompressing needs beside what is compressed, kept for whoever comes next.
//!
//! zstd takes a match from a dictionary by a slower path, unless what it writes stands right behind the
//! dictionary in memory. Who reads one frame of a segment after the other has it there: a context that
//! is used with the same dictionary again and again takes a copy of it.

use super::frame::{FRAME_BYTES, UNREADABLE, Why};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use zstd::zstd_safe::DCtx;

/// How many [`Contexts`], of some 200 KiB each and a copy of a dictionary, are kept. Making them takes
/// longer than decompressing a small frame.
const CONTEXTS_MAX: usize = 4;
/// What was decompressed may take so much room as long as it is kept.
const KEPT_BYTES_MAX: usize = 4 * FRAME_BYTES;
/// A copy is taken when a dictionary is used for the eighth time in a row: copying takes as long as a copy
/// saves in about so many frames.
const COPIED_AT: u32 = 8;

static CONTEXTS: Mutex<Vec<Contexts>> = Mutex::new(Vec::new());
static DICTIONARIES: AtomicU64 = AtomicU64::new(1);

/// What frames have in common.
pub(super) struct Dictionary {
    /// Unlike that of any other in this process.
    number: u64,
    bytes: Arc<[u8]>,
}

impl Dictionary {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { number: DICTIONARIES.fetch_add(1, Ordering::Relaxed), bytes: bytes.into() }
    }
}

/// Text and content of a frame are decompressed with one each.
pub(super) struct Contexts {
    pub(super) text: Context,
    pub(super) content: Context,
}

/// Lends contexts, if possible those that this dictionary, of the text, was used with last.
pub(super) fn with_contexts<T>(
    dictionary: Option<&Dictionary>,
    work: impl FnOnce(&mut Contexts) -> T,
) -> T {
    let kept = {
        let mut kept = CONTEXTS.lock();
        let number = dictionary.map(|dictionary| dictionary.number);
        let at = kept.iter().rposition(|contexts| contexts.text.last.map(|(it, _)| it) == number);
        at.map(|at| kept.remove(at)).or_else(|| kept.pop())
    };
    let mut contexts =
        kept.unwrap_or_else(|| Contexts { text: Context::new(), content: Context::new() });
    let done = work(&mut contexts);
    contexts.text.tidy();
    contexts.content.tidy();
    let mut kept = CONTEXTS.lock();
    if kept.len() < CONTEXTS_MAX {
        kept.push(contexts);
    }
    done
}

impl Contexts {
    /// What is not stored apart.
    pub(super) fn whole(
        &mut self,
        dictionary: Option<&Dictionary>,
        bytes: &[u8],
        plain_len: usize,
    ) -> Result<Vec<u8>, Why> {
        self.text.decompress(dictionary, bytes, plain_len).map(<[u8]>::to_vec)
    }
}

pub(super) struct Context {
    context: DCtx<'static>,
    /// A copy of a dictionary, if it has one, and room behind it.
    buffer: Vec<u8>,
    copy: Held,
    /// The dictionary used last, and how often in a row.
    last: Option<(u64, u32)>,
}

/// Which dictionary the buffer begins with, and how far it goes.
#[derive(Clone, Copy, Default)]
struct Held {
    of: Option<u64>,
    len: usize,
}

impl Context {
    fn new() -> Self {
        Self { context: DCtx::create(), buffer: Vec::new(), copy: Held::default(), last: None }
    }

    /// What was compressed with a dictionary.
    pub(super) fn decompress(
        &mut self,
        dictionary: Option<&Dictionary>,
        bytes: &[u8],
        plain_len: usize,
    ) -> Result<&[u8], Why> {
        if let Some(dictionary) = dictionary {
            self.count(dictionary);
        }
        let begin = self.copy.len;
        if self.buffer.len() < begin + plain_len {
            self.buffer.resize(begin + plain_len, 0);
        }
        let (copy, room) = self.buffer.split_at_mut(begin);
        let room = &mut room[..plain_len];
        let done = match dictionary {
            None => self.context.decompress(room, bytes),
            Some(Dictionary { number, .. }) if self.copy.of == Some(*number) => {
                self.context.decompress_using_dict(room, bytes, copy)
            }
            Some(Dictionary { bytes: other, .. }) => {
                self.context.decompress_using_dict(room, bytes, other)
            }
        };
        let len = done.map_err(|_| UNREADABLE)?;
        self.buffer.get(begin..begin + len).ok_or(UNREADABLE)
    }

    /// Takes a copy of the dictionary if it is used often enough.
    fn count(&mut self, Dictionary { number, bytes }: &Dictionary) {
        let times = match self.last {
            Some((last, times)) if last == *number => times.saturating_add(1),
            _ => 1,
        };
        self.last = Some((*number, times));
        if times >= COPIED_AT && self.copy.of != Some(*number) {
            self.buffer.clear();
            self.buffer.extend_from_slice(bytes);
            self.copy = Held { of: Some(*number), len: bytes.len() };
        }
    }

    fn tidy(&mut self) {
        let kept = self.copy.len + KEPT_BYTES_MAX;
        if self.buffer.len() > kept {
            self.buffer.truncate(kept);
            self.buffer.shrink_to(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zstd::bulk::Compressor;

    /// Before a copy is taken, with it, with another dictionary and without any: always the same.
    #[test]
    fn a_copy_of_the_dictionary_changes_nothing() {
        let texts: Vec<Vec<u8>> = (0..3_u8)
            .map(|n| (0..40_000_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8 ^ n).collect())
            .collect();
        let dictionaries: Vec<_> = texts.iter().map(|text| Dictionary::new(text)).collect();
        let mut context = Context::new();
        for round in 0..60_usize {
            // Runs of one dictionary, longer than it takes for a copy, and changes in between.
            let which = if round % 5 == 4 { round % 3 } else { round / 20 };
            let plain = [&texts[which][round * 100..round * 100 + 900], b"and the end"].concat();
            let stored = Compressor::with_dictionary(5, &texts[which]).unwrap().compress(&plain);
            let stored = stored.unwrap();
            assert!(stored.len() < 100, "the dictionary is made use of");
            let used = Some(&dictionaries[which]);
            assert_eq!(context.decompress(used, &stored, plain.len()).unwrap(), plain);
            assert_eq!(context.decompress(used, &stored, plain.len() - 1), Err(UNREADABLE));
            let alone = Compressor::new(5).unwrap().compress(&plain).unwrap();
            assert_eq!(context.decompress(None, &alone, plain.len()).unwrap(), plain);
        }
        assert_eq!(context.copy.len, 40_000);
    }
}
