//! The three pipes of a child, and text that arrives in pieces.

use acta_events::Sequence;
use bytes::{Buf, Bytes, buf::Chain};
use std::{
    future::{pending, poll_fn},
    io,
    pin::Pin,
    task::Poll,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    process::ChildStdin,
};

/// A pipe that a child writes to.
pub(super) struct Source<R> {
    pipe: Option<R>,
    buffer: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> Source<R> {
    /// Reads `pipe`, at most `bytes_max` at a time.
    pub(super) fn new(pipe: R, bytes_max: usize) -> Self {
        Self { pipe: Some(pipe), buffer: vec![0; bytes_max].into_boxed_slice() }
    }

    /// Whether its end has not been seen.
    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// What the last [`Self::fill`] read.
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        self.buffer.get(..len).unwrap_or_default()
    }

    /// Waits until there is something to read, then takes all that is there and fits, so
    /// that many small writes of a child make few reports. 0 is the end, told once; after it
    /// this never resolves. Cancel-safe.
    pub(super) async fn fill(&mut self) -> usize {
        let Some(pipe) = &mut self.pipe else { return pending().await };
        let mut space = ReadBuf::new(&mut self.buffer);
        let (len, open) = poll_fn(|context| {
            loop {
                let before = space.filled().len();
                if space.remaining() == 0 {
                    return Poll::Ready((before, true));
                }
                match Pin::new(&mut *pipe).poll_read(context, &mut space) {
                    Poll::Pending if before == 0 => return Poll::Pending,
                    Poll::Pending => return Poll::Ready((before, true)),
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                    Poll::Ready(Err(_)) => return Poll::Ready((before, false)),
                    Poll::Ready(Ok(())) if space.filled().len() == before => {
                        return Poll::Ready((before, false));
                    }
                    Poll::Ready(Ok(())) => {}
                }
            }
        })
        .await;
        if !open {
            self.pipe = None;
        }
        len
    }
}

/// The standard input of a child. At most one input is on its way at a time.
pub(super) struct Feed {
    pipe: Option<ChildStdin>,
    pending: Option<(Sequence, Chain<Bytes, Bytes>)>,
    close_when_written: bool,
}

impl Feed {
    /// Writes to `pipe`.
    pub(super) fn new(pipe: ChildStdin) -> Self {
        Self { pipe: Some(pipe), pending: None, close_when_written: false }
    }

    /// Whether nothing more can be written.
    pub(super) fn is_closed(&self) -> bool {
        self.pipe.is_none()
    }

    /// Whether an input is on its way.
    pub(super) fn is_writing(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes an input to write, in two parts to spare a copy; only when none is on its way.
    pub(super) fn give(&mut self, input: Sequence, content: Bytes, end: Bytes) {
        if self.pipe.is_some() {
            self.pending = Some((input, content.chain(end)));
        }
    }

    /// The end of the input follows what is on its way.
    pub(super) fn close_when_written(&mut self) {
        self.close_when_written = true;
    }

    /// Closes the pipe now and forgets what is on its way.
    pub(super) fn close(&mut self) {
        self.pipe = None;
        self.pending = None;
    }

    /// The input that has not been written to its end.
    pub(super) fn take_unwritten(&mut self) -> Option<Sequence> {
        self.pending.take().map(|(input, _)| input)
    }

    /// Writes until the input on its way is written or the child does not want it; without
    /// one it never resolves. Cancel-safe: what was written is not written again.
    pub(super) async fn write(&mut self) -> Result<(), (Sequence, io::Error)> {
        let (Some(pipe), Some((input, data))) = (&mut self.pipe, &mut self.pending) else {
            return pending().await;
        };
        let input = *input;
        let mut outcome = Ok(());
        while outcome.is_ok() && data.has_remaining() {
            outcome = match pipe.write_buf(data).await {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) => Err(error),
            };
        }
        self.pending = None;
        if outcome.is_err() || self.close_when_written {
            self.pipe = None;
        }
        outcome.map_err(|error| (input, error))
    }
}

/// Makes text of bytes that arrive in pieces. What is not UTF-8 becomes U+FFFD.
#[derive(Default)]
pub(super) struct Decoder {
    /// The beginning of a character whose rest has not arrived, at most three bytes.
    tail: Vec<u8>,
}

impl Decoder {
    /// The text of all bytes so far, up to the last whole character.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> String {
        let mut joined = std::mem::take(&mut self.tail);
        let bytes = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_beginning(invalid) {
                self.tail = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// What is left when nothing more will arrive.
    pub(super) fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.tail).is_empty() { "" } else { "\u{fffd}" }
    }
}

/// Whether more bytes could still make a character of it.
fn is_beginning(invalid: &[u8]) -> bool {
    std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
}

/// Cuts off the longest beginning of `text` of at most `bytes_max` that ends between two
/// characters. `bytes_max` is at least 4, so it is never empty unless `text` is.
pub(super) fn split(text: &str, bytes_max: usize) -> (&str, &str) {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::{Decoder, split};
    use proptest::prelude::*;

    fn in_pieces(bytes: &[u8], cuts: &[usize]) -> String {
        let mut decoder = Decoder::default();
        let mut text = String::new();
        let mut rest = bytes;
        for cut in cuts {
            let (piece, more) = rest.split_at(cut % (rest.len() + 1));
            text += &decoder.decode(piece);
            rest = more;
        }
        text += &decoder.decode(rest);
        text + decoder.finish()
    }

    proptest! {
        #[test]
        fn pieces_make_the_same_text_as_the_whole(
            bytes in prop_oneof![
                any::<Vec<u8>>(),
                any::<String>().prop_map(String::into_bytes),
                proptest::collection::vec(proptest::sample::select(
                    vec![0_u8, b'a', 0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xed, 0xa0]
                ), 0..40),
            ],
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            prop_assert_eq!(in_pieces(&bytes, &cuts), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_split_loses_nothing(text in any::<String>(), bytes_max in 4_usize..20) {
            let (head, tail) = split(&text, bytes_max);
            prop_assert!(head.len() <= bytes_max);
            prop_assert!(text.is_empty() || !head.is_empty());
            prop_assert_eq!(format!("{head}{tail}"), text);
        }
    }
}
