//! Turns the panics of a storage engine into errors.
//!
//! sled panics on damaged files, in the calling thread and in its own `sled-io-*` threads.
//! What happens in the calling thread is caught here and told as an error, so the panic
//! message must not also appear on standard error. The panic hook belongs to the whole
//! process, therefore the one installed here only steps aside for threads that are inside
//! [`contained`] and for sled's own; everything else goes to the hook that was there before.
//!
//! A panic in an `sled-io-*` thread cannot be turned into an error here: sled catches it,
//! starts no further threads, and whoever waits for that write may wait for ever. It is logged.
//! No append waits for such a write; the keeper does, and a start ends it.

use std::{
    any::Any,
    cell::Cell,
    io,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
    thread,
};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// The prefix that sled gives the names of its threads.
const ENGINE_THREADS: &str = "sled-io-";

/// The engine failed: with an error of its own or of the disk, or by panicking.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Fault {
    /// An error of its own.
    #[error("{0}")]
    Error(String),
    /// The disk refused: nothing is known of what is on it.
    #[error("{0}")]
    Io(String),
    /// What it panicked with.
    #[error("the storage engine panicked: {0}")]
    Panic(String),
}

/// Calls into the engine; a panic becomes an error.
pub(super) fn contained<T, E: std::fmt::Display>(
    call: impl FnOnce() -> Result<T, E>,
) -> Result<T, Fault> {
    install_hook();
    let outer = CONTAINED.replace(true);
    // The engine's locks are released as the panic unwinds, and what it hands out afterwards
    // is verified against digests, so nothing here relies on its invariants.
    let result = catch_unwind(AssertUnwindSafe(call));
    CONTAINED.set(outer);
    match result {
        Ok(result) => result.map_err(|error| Fault::Error(error.to_string())),
        Err(panic) => Err(Fault::Panic(message(&*panic))),
    }
}

/// Whether an error says something of the disk, and not of what is on it: a file that is gone or too
/// short is damage, and so is what a library finds wrong with its bytes (`Other`). sled hands on
/// only the kind of an error, and that of an I/O error has no name.
pub(super) fn is_of_the_disk(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    !matches!(
        error.kind(),
        Kind::NotFound | Kind::UnexpectedEof | Kind::InvalidData | Kind::InvalidInput | Kind::Other
    )
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").chars().take(300).collect()
}

fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if CONTAINED.get() {
                return;
            }
            let thread = thread::current();
            match thread.name() {
                Some(name) if name.starts_with(ENGINE_THREADS) => {
                    let message = message(panic.payload());
                    tracing::error!(thread = name, message, "the storage engine panicked");
                }
                _ => before(panic),
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::{Fault, contained};

    #[test]
    fn a_panic_becomes_an_error_and_the_thread_goes_on() {
        let failed = contained(|| -> Result<(), String> { panic!("index {} out of bounds", 7) });
        assert!(matches!(failed, Err(Fault::Panic(why)) if why == "index 7 out of bounds"));
        assert_eq!(contained(|| Ok::<_, String>(5)).unwrap(), 5);
        assert!(matches!(contained(|| Err::<(), _>("no")), Err(Fault::Error(why)) if why == "no"));
    }
}
