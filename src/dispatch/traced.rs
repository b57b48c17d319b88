//! The spans of a worker's turns: each is part of the trace that its input came with, which is in
//! the log, so that a turn finds it after a restart too.

use crate::{
    command::Outcome,
    trace::{self, TARGET},
};
use acta_events::{Record, Sequence};
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};
use tracing::{Span, debug_span};

/// Inputs that may have been read and not be dispatched yet; an actor reads one ahead.
const WAITING_MAX: usize = 16;

/// Shared by the two ends of an actor.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

struct State {
    waiting: VecDeque<(Sequence, Span)>,
    current: Span,
}

impl Default for State {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), current: Span::none() }
    }
}

impl Turns {
    /// An input is about to be given to the backend.
    pub(super) fn taken(&self, input: &Record) {
        let seq = input.seq();
        let span = debug_span!(target: TARGET, parent: None, "backend", acta.input = seq.0);
        if span.is_disabled() {
            return;
        }
        trace::join(&span, input.header.trace.as_ref());
        let mut state = self.0.lock();
        state.waiting.push_back((seq, span));
        if state.waiting.len() > WAITING_MAX {
            state.waiting.pop_front();
        }
    }

    /// The span that a report is part of. A turn's ends with its last report.
    pub(super) fn of(&self, outcomes: &[Outcome]) -> Span {
        let mut state = self.0.lock();
        let mut span = state.current.clone();
        for outcome in outcomes {
            match outcome {
                Outcome::Dispatching { input, .. } | Outcome::InputFailed { input, .. } => {
                    while state.waiting.front().is_some_and(|(seq, _)| seq <= input) {
                        if let Some((seq, waiting)) = state.waiting.pop_front()
                            && seq == *input
                        {
                            span = waiting;
                        }
                    }
                    state.current = span.clone();
                }
                _ => {}
            }
            if let Outcome::TurnEnded { .. } | Outcome::InputFailed { .. } = outcome {
                state.current = Span::none();
            }
        }
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use acta_events::TurnResult;

    #[test]
    fn a_span_lasts_from_the_dispatch_of_its_input_to_the_end_of_its_turn() {
        let turns = Turns::default();
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || {
            let span = || debug_span!(target: TARGET, parent: None, "backend");
            let (first, second) = (span(), span());
            turns
                .0
                .lock()
                .waiting
                .extend([(Sequence(3), first.clone()), (Sequence(5), second.clone())]);
            let dispatching = |n| Outcome::Dispatching { input: Sequence(n), turn: n };
            let text = |turn| Outcome::TextDone { turn };
            let ended =
                |turn| Outcome::TurnEnded { turn, result: TurnResult::Finished, exit: None };
            let of = |outcomes: &[Outcome]| turns.of(outcomes).id();
            assert_eq!(of(&[text(0)]), None);
            assert_eq!(of(&[dispatching(3)]), first.id());
            assert_eq!(of(&[text(3)]), first.id());
            assert_eq!(of(&[text(3), ended(3)]), first.id());
            assert_eq!(of(&[text(3)]), None);
            assert_eq!(of(&[dispatching(5), ended(5)]), second.id());
            assert_eq!(of(&[]), None);
            assert!(turns.0.lock().waiting.is_empty());
        });
    }
}
