//! How far something is, for a person who watches standard error; nothing for anybody else.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

const DRAWN_EVERY: Duration = Duration::from_millis(100);
const BAR_CHARS: u64 = 24;

/// A line that is drawn over until [`Self::finish`].
pub(super) struct Progress {
    what: &'static str,
    total: Option<u64>,
    begun: Instant,
    drawn: Option<Instant>,
    is_seen: bool,
}

impl Progress {
    /// Of something that is counted, up to a total if one is known.
    pub(super) fn new(what: &'static str, total: Option<u64>) -> Self {
        let is_seen = io::stderr().is_terminal();
        Self { what, total, begun: Instant::now(), drawn: None, is_seen }
    }

    /// Draws it anew, unless it was drawn just now.
    pub(super) fn at(&mut self, done: u64) {
        if !self.is_seen || self.drawn.is_some_and(|drawn| drawn.elapsed() < DRAWN_EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        let line = line(self.what, done, self.total, self.begun.elapsed());
        // Nobody may be left to see it.
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }

    /// Takes the line away.
    pub(super) fn finish(self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: Option<u64>, spent: Duration) -> String {
    let rate = done as f64 / spent.as_secs_f64().max(0.001);
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{what} {done}  {rate:.0}/s");
    };
    let part = (done.min(total) * BAR_CHARS / total) as usize;
    let bar: String = "=".repeat(part) + &" ".repeat(BAR_CHARS as usize - part);
    format!("{what} [{bar}] {done} of {total}  {rate:.0}/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_and_how_fast() {
        let check = |done, total, expected: &str| {
            assert_eq!(line("records", done, total, Duration::from_secs(2)), expected);
        };
        check(10, None, "records 10  5/s");
        check(0, Some(0), "records 0  0/s");
        check(5, Some(10), "records [============            ] 5 of 10  2/s");
        check(20, Some(10), "records [========================] 20 of 10  10/s");
    }
}
