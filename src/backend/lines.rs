//! Bytes to lines, with a limit on their length.

use super::LINE_BYTES_MAX;

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A whole line.
    Whole(&'a [u8]),
    /// A line was longer than allowed; told once, with its beginning.
    TooLong(&'a [u8]),
}

/// Collects lines from pieces. It holds at most one line of [`LINE_BYTES_MAX`].
#[derive(Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    /// The rest of a line that was too long is passed over.
    skipping: bool,
}

impl Lines {
    /// Takes the next bytes and hands each line that they complete to `line`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(Line<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.append(&bytes[..end], &mut line);
            self.complete(&mut line);
            bytes = &bytes[end + 1..];
        }
        self.append(bytes, &mut line);
    }

    /// The last line may lack its end.
    pub(super) fn finish(&mut self, mut line: impl FnMut(Line<'_>)) {
        self.complete(&mut line);
    }

    fn append(&mut self, bytes: &[u8], line: &mut impl FnMut(Line<'_>)) {
        if self.skipping {
            return;
        }
        if self.partial.len() + bytes.len() <= LINE_BYTES_MAX {
            self.partial.extend_from_slice(bytes);
            return;
        }
        if self.partial.is_empty() {
            line(Line::TooLong(bytes));
        } else {
            line(Line::TooLong(&self.partial));
        }
        self.partial = Vec::new();
        self.skipping = true;
    }

    fn complete(&mut self, line: &mut impl FnMut(Line<'_>)) {
        if !self.skipping && !self.partial.trim_ascii().is_empty() {
            line(Line::Whole(&self.partial));
        }
        self.skipping = false;
        if self.partial.capacity() > LINE_BYTES_MAX / 16 {
            // One long line should not hold its memory for the life of the child.
            self.partial = Vec::new();
        }
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_BYTES_MAX, Line, Lines};

    fn collect(pieces: &[&[u8]]) -> Vec<(bool, usize)> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        let mut note = |line: Line<'_>| match line {
            Line::Whole(bytes) => found.push((true, bytes.len())),
            Line::TooLong(_) => found.push((false, 0)),
        };
        for piece in pieces {
            lines.feed(piece, &mut note);
        }
        lines.finish(&mut note);
        found
    }

    #[test]
    fn lines_are_found_across_pieces_and_long_ones_skipped() {
        let exact = vec![b'x'; LINE_BYTES_MAX];
        let check = |pieces: &[&[u8]], expected: &[(bool, usize)]| {
            assert_eq!(collect(pieces), expected);
        };
        check(&[], &[]);
        check(&[b"ab\ncd\n"], &[(true, 2), (true, 2)]);
        check(&[b"a", b"b\nc", b"d"], &[(true, 2), (true, 2)]);
        check(&[b"\n \t\n\n"], &[]);
        check(&[&exact, b"\nok"], &[(true, LINE_BYTES_MAX), (true, 2)]);
        check(&[&exact, b"x", &exact, b"\nok"], &[(false, 0), (true, 2)]);
        check(&[&exact, b"x"], &[(false, 0)]);
    }
}
