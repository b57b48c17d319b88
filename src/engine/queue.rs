//! The queue between those who give commands and the decider.
//!
//! A wake-up of a thread costs more than a decision. So while a batch is being made durable, a
//! command does not wake the decider by itself: a good number of them do, or the end of the
//! batch. When nothing is under way, the first command wakes it at once. There is no timer.

use parking_lot::{Condvar, Mutex};
use std::{collections::VecDeque, sync::Arc};

/// How many commands wake a decider that waits for a batch.
const COMMANDS_PER_WAKE: usize = 32;

struct State<T> {
    waiting: VecDeque<T>,
    /// Something waits that has to be seen at once.
    urgent: bool,
    /// How many have to wait before the decider is woken; none while it is awake.
    wake_at: Option<usize>,
    closed: bool,
}

impl<T> State<T> {
    fn has(&self, enough: usize) -> bool {
        self.urgent || self.waiting.len() >= enough
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
}

/// The sending side; cheap to clone. Its bound is that of the permits which commands hold.
pub(super) struct Sender<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The receiving side: the decider's.
pub(super) struct Receiver<T>(Arc<Shared<T>>);

pub(super) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { waiting: VecDeque::new(), urgent: false, wake_at: None, closed: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Queues a command. Gives it back if the decider is gone.
    pub(super) fn command(&self, item: T) -> Result<(), T> {
        self.push(item, false)
    }

    /// Queues something that the decider has to see at once.
    pub(super) fn news(&self, item: T) -> Result<(), T> {
        self.push(item, true)
    }

    fn push(&self, item: T, urgent: bool) -> Result<(), T> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Err(item);
        }
        state.waiting.push_back(item);
        state.urgent |= urgent;
        if state.wake_at.is_some_and(|enough| state.has(enough)) {
            state.wake_at = None;
            drop(state);
            self.0.wake.notify_one();
        }
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Takes everything that waits, without waiting.
    pub(super) fn take_all(&self, into: &mut VecDeque<T>) {
        let mut state = self.0.state.lock();
        state.urgent = false;
        into.append(&mut state.waiting);
    }

    /// Waits until there is something to take. While a batch is under way (`for_batch`) a few
    /// commands are not reason enough: its end will be.
    pub(super) fn wait(&self, for_batch: bool) {
        let enough = if for_batch { COMMANDS_PER_WAKE } else { 1 };
        let mut state = self.0.state.lock();
        while !state.has(enough) {
            state.wake_at = Some(enough);
            self.0.wake.wait(&mut state);
        }
        state.wake_at = None;
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        state.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread, time::Duration};

    #[test]
    fn nothing_is_slept_through() {
        let (sender, receiver) = queue();
        // Commands alone do not end a wait for a batch, but its end does, whenever it comes.
        for n in 0..COMMANDS_PER_WAKE - 1 {
            assert_eq!(sender.command(n), Ok(()));
        }
        let waiter = thread::spawn(move || {
            receiver.wait(true);
            let mut taken = VecDeque::new();
            receiver.take_all(&mut taken);
            (receiver, taken.len())
        });
        thread::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        assert_eq!(sender.news(0), Ok(()));
        let (receiver, taken) = waiter.join().unwrap();
        assert_eq!(taken, COMMANDS_PER_WAKE);
        // News that came before the wait ends it at once.
        assert_eq!(sender.news(1), Ok(()));
        receiver.wait(true);
        receiver.take_all(&mut VecDeque::new());
        // So does the first command when nothing is under way.
        assert_eq!(sender.command(2), Ok(()));
        receiver.wait(false);
        drop(receiver);
        assert_eq!(sender.command(3), Err(3));
    }
}
