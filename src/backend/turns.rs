//! Turns and text spans: what belongs together in what a child says.

use super::{DELTA_BYTES_MAX, Mode, Report, SPAN_BYTES_MAX, stdio::split};
use acta_events::{ExitStatus, OutputKind, TurnResult};
use bytes::Bytes;

/// Numbers turns and closes what is open. Everything that happens is pushed to `out`.
pub(super) struct Turns {
    next: u64,
    open: Option<u64>,
    /// Bytes of text since the last text done.
    span_bytes: usize,
    /// Whether the child said text since it last said itself that its text is complete.
    said_text: bool,
    /// Whether a turn lasts as long as its process, whatever the process says.
    lasts: bool,
    result: TurnResult,
}

impl Turns {
    /// The first turn will be number `first`.
    pub(super) fn new(first: u64, mode: Mode) -> Self {
        Self {
            next: first,
            open: None,
            span_bytes: 0,
            said_text: false,
            lasts: mode == Mode::PerInput,
            result: TurnResult::Finished,
        }
    }

    /// Whether a turn is open.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Ends the open turn, if any, and begins a new one for an input.
    pub(super) fn begin(&mut self, out: &mut Vec<Report>) -> u64 {
        self.end(None, out);
        self.ensure()
    }

    /// The open turn; a child that speaks without being asked opens one.
    pub(super) fn ensure(&mut self) -> u64 {
        if let Some(turn) = self.open {
            return turn;
        }
        let turn = self.next;
        self.next = turn.saturating_add(1);
        self.open = Some(turn);
        self.result = TurnResult::Finished;
        turn
    }

    /// The open turn or, without one, the last.
    pub(super) fn current(&self) -> u64 {
        self.open.unwrap_or(self.next.saturating_sub(1))
    }

    /// Text as it is said.
    pub(super) fn text(&mut self, mut text: &str, out: &mut Vec<Report>) {
        while !text.is_empty() {
            let (delta, rest) = split(text, DELTA_BYTES_MAX);
            if self.span_bytes + delta.len() > SPAN_BYTES_MAX {
                self.close_span(out);
            }
            let turn = self.ensure();
            let content = Bytes::copy_from_slice(delta.as_bytes());
            out.push(Report::Output { turn, kind: OutputKind::TextDelta, content });
            self.span_bytes += delta.len();
            self.said_text = true;
            if self.span_bytes == SPAN_BYTES_MAX {
                self.close_span(out);
            }
            text = rest;
        }
    }

    /// The child says that its text is complete, and which text. That is taken only when
    /// it has not come as deltas before.
    pub(super) fn text_done(&mut self, text: &str, out: &mut Vec<Report>) {
        if !self.said_text {
            self.text(text, out);
        }
        self.close_span(out);
        self.said_text = false;
    }

    /// The child says that its turn is over.
    pub(super) fn said_end(&mut self, result: TurnResult, out: &mut Vec<Report>) {
        self.text_done("", out);
        if self.open.is_some() {
            self.result = result;
        }
        if !self.lasts {
            self.end(None, out);
        }
    }

    /// Ends the open turn, if any.
    pub(super) fn end(&mut self, exit: Option<ExitStatus>, out: &mut Vec<Report>) {
        self.text_done("", out);
        if let Some(turn) = self.open.take() {
            out.push(Report::TurnEnded { turn, result: self.result, exit });
        }
    }

    fn close_span(&mut self, out: &mut Vec<Report>) {
        if self.span_bytes > 0 {
            self.span_bytes = 0;
            out.push(Report::TextDone { turn: self.current() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(reports: &[Report]) -> Vec<String> {
        let name = |report: &Report| match report {
            Report::Output { turn, content, .. } => format!("delta {turn} {}", content.len()),
            Report::TextDone { turn } => format!("done {turn}"),
            Report::TurnEnded { turn, .. } => format!("end {turn}"),
            other => format!("{other:?}"),
        };
        reports.iter().map(name).collect()
    }

    #[test]
    fn text_is_cut_into_deltas_and_spans() {
        let check = |text: String, expected: &[&str]| {
            let mut out = Vec::new();
            let mut turns = Turns::new(7, Mode::Session);
            turns.text(&text, &mut out);
            turns.end(None, &mut out);
            assert_eq!(brief(&out), expected, "{} bytes", text.len());
        };
        check(String::new(), &[]);
        check("a".into(), &["delta 7 1", "done 7", "end 7"]);
        let full = "delta 7 16384";
        check("a".repeat(65_536), &[full, full, full, full, "done 7", "end 7"]);
        let more = [full, full, full, full, "done 7", "delta 7 1", "done 7", "end 7"];
        check("a".repeat(65_537), &more);
        // Three bytes a character: a delta ends before the character that would not fit.
        let cut = "delta 7 16383";
        check("€".repeat(5_462), &[cut, "delta 7 3", "done 7", "end 7"]);
    }

    #[test]
    fn a_span_that_was_full_is_not_told_twice() {
        let mut out = Vec::new();
        let mut turns = Turns::new(1, Mode::Session);
        let text = "a".repeat(SPAN_BYTES_MAX);
        turns.text(&text, &mut out);
        out.clear();
        turns.text_done(&text, &mut out);
        assert_eq!(out, []);
        turns.text_done("b", &mut out);
        assert_eq!(brief(&out), ["delta 1 1", "done 1"]);
    }

    #[test]
    fn an_input_ends_the_turn_before_it() {
        let mut out = Vec::new();
        let mut turns = Turns::new(1, Mode::Session);
        assert_eq!(turns.begin(&mut out), 1);
        turns.text("x", &mut out);
        assert_eq!(turns.begin(&mut out), 2);
        assert_eq!(turns.begin(&mut out), 3);
        assert_eq!(brief(&out), ["delta 1 1", "done 1", "end 1", "end 2"]);
    }

    #[test]
    fn a_turn_of_its_own_process_lasts() {
        let mut out = Vec::new();
        let mut turns = Turns::new(1, Mode::PerInput);
        turns.begin(&mut out);
        turns.said_end(TurnResult::Paused, &mut out);
        turns.text("x", &mut out);
        turns.end(None, &mut out);
        assert_eq!(brief(&out), ["delta 1 1", "done 1", "end 1"]);
        assert!(matches!(out[2], Report::TurnEnded { result: TurnResult::Paused, .. }));
    }
}
