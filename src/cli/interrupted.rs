//! What a command makes aside is gone when a signal ends it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

/// What is added to the number of the signal that ends a process, as a shell tells it.
const SIGNAL_CODE: i32 = 128;
/// What is being written while a signal comes may be there after everything was removed.
const REMOVALS: u32 = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);

/// Removes a directory and ends the process when a signal asks it to. The work may be blocking, and is at
/// whatever it is at.
pub(super) fn remove_when_interrupted(dir: &Path) -> io::Result<()> {
    let dir: PathBuf = dir.into();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let wait = move || {
        let ended_by = runtime.block_on(interrupted());
        for _ in 0..REMOVALS {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    thread::sleep(REMOVAL_PAUSE);
                }
                _ => break,
            }
        }
        process::exit(SIGNAL_CODE + ended_by.as_raw_value());
    };
    thread::Builder::new().name("interrupted".into()).spawn(wait).map(drop)
}

/// The first signal that asks the process to end. A hangup may be meant to be ignored.
async fn interrupted() -> SignalKind {
    let wait = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            // The default action of the signal ends the process as well.
            Err(_) => std::future::pending().await,
        }
        kind
    };
    tokio::select! {
        kind = wait(SignalKind::interrupt()) => kind,
        kind = wait(SignalKind::terminate()) => kind,
    }
}
