//! Tests of the engine: the deciding half by itself, and both threads over a journal that
//! fails.

mod batches;
mod core_rules;
mod faults;
mod faulty;
pub(crate) mod history;
mod projections;
mod simulation;
