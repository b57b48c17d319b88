//! The keeper: takes durable blocks from memory into the store, behind the appends.
//!
//! It works in small steps that anybody who has to have the store to himself waits for
//! ([`Kept::stand_still`]). A fault of the store ends its work until the log is recovered: what it
//! had not taken over is in the commit files, so nothing is lost by that.

use super::{
    head_file::HeadFile, panics::Fault, pending::Pending, seal::Sealer, sled_store::Store,
};
use acta_events::Sequence;
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use std::{
    io,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

/// Blocks are gathered for so long, so that the keeper is woken seldom.
const GATHER: Duration = Duration::from_millis(20);
/// But not more of them than this.
const GATHER_BYTES: usize = 4 * 1024 * 1024;

/// What appends and the keeper share. `step` may be held around any of the other locks, and
/// `work` around `pending` and what the sealer knows; otherwise no two are held at once. The keeper seals too (`seal.rs`).
pub(super) struct Kept {
    /// Held while the store is being written.
    step: Mutex<()>,
    /// None while it is being reopened, and after closing.
    pub(super) store: RwLock<Option<Arc<Store>>>,
    pub(super) pending: RwLock<Pending>,
    pub(super) head_file: Mutex<HeadFile>,
    pub(super) sealer: Sealer,
    work: Mutex<Work>,
    changed: Condvar,
    /// Wakes appends that wait for the store.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    /// The keeper sleeps until it is told of something.
    idle: bool,
    /// The store is to be durable up to here.
    wanted: Sequence,
    /// It is.
    synced: Sequence,
    fault: Option<String>,
    stop: bool,
}

/// The thread; it ends when this is dropped.
pub(super) struct Keeper {
    kept: Arc<Kept>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(store: Store, head_file: HeadFile, sealer: Sealer) -> io::Result<Self> {
        let kept = Arc::new(Kept {
            step: Mutex::default(),
            store: RwLock::new(Some(Arc::new(store))),
            pending: RwLock::default(),
            head_file: Mutex::new(head_file),
            sealer,
            work: Mutex::default(),
            changed: Condvar::new(),
            progress: Condvar::new(),
        });
        let keeping = Arc::clone(&kept);
        let thread = Builder::new().name("acta-keeper".into()).spawn(move || keeping.run())?;
        Ok(Self { kept, thread: Some(thread) })
    }
}

impl std::ops::Deref for Keeper {
    type Target = Kept;
    fn deref(&self) -> &Kept {
        &self.kept
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.kept.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there has nothing left to do for us.
            let _ = thread.join();
        }
    }
}

impl Kept {
    pub(super) fn live_store(&self) -> Option<Arc<Store>> {
        self.store.read().clone()
    }

    /// What made the keeper end its work.
    pub(super) fn fault(&self) -> Option<String> {
        self.work.lock().fault.clone()
    }

    /// Leaves the store alone until the log is recovered.
    pub(super) fn give_up(&self, fault: &Fault) {
        tracing::error!(%fault, "the store could not be brought up to date");
        self.work.lock().fault = Some(fault.to_string());
    }

    /// Up to where the store is durable.
    pub(super) fn synced(&self) -> Sequence {
        self.work.lock().synced
    }

    /// There are blocks pending, and if `sync` is given, the store is to be durable up to there.
    pub(super) fn tell(&self, sync: Option<Sequence>) {
        let mut work = self.work.lock();
        let is_news = sync.is_some_and(|wanted| wanted > work.wanted);
        work.wanted = work.wanted.max(sync.unwrap_or(Sequence::ZERO));
        if work.idle || is_news {
            work.idle = false;
            self.changed.notify_one();
        }
    }

    /// Nothing is left to do any more.
    pub(super) fn stop(&self) {
        self.work.lock().stop = true;
        self.changed.notify_all();
        self.progress.notify_all();
    }

    /// Waits until the store is durable beyond `synced`, or has failed, or time is up.
    pub(super) fn wait_beyond(&self, synced: Sequence, wait: Duration) {
        let until = Instant::now() + wait;
        let mut work = self.work.lock();
        while work.synced <= synced && work.fault.is_none() && !work.stop {
            if self.progress.wait_until(&mut work, until).timed_out() {
                return;
            }
        }
    }

    /// Keeps the keeper from the store for as long as the guard lives; none if it does not stop
    /// in time.
    pub(super) fn stand_still(&self, wait: Duration) -> Option<MutexGuard<'_, ()>> {
        self.step.try_lock_for(wait)
    }

    /// After a recovery: the store is sound and durable up to there.
    pub(super) fn begin_again(&self, synced: Sequence) {
        let mut work = self.work.lock();
        work.fault = None;
        work.wanted = synced;
        work.synced = synced;
        self.changed.notify_one();
    }

    /// Takes over everything that is pending. The caller sees to it that nobody else does.
    pub(super) fn take_over(&self, store: &Store) -> Result<(), Fault> {
        loop {
            let Some(block) = self.pending.read().oldest() else { return Ok(()) };
            store.insert(block.first, &block.bytes)?;
            self.sealer.took(&block);
            self.pending.write().remove(block.first);
        }
    }

    /// Makes the store durable. Meanwhile HEAD says so: should the process end with that sync
    /// failed, what the next one reads of the store may be in memory only.
    pub(super) fn sync(&self, store: &Store) -> Result<(), Fault> {
        let mark = |under_way| {
            let marked = self.head_file.lock().mark_syncing(under_way);
            marked.map_err(|error| Fault::Io(error.to_string()))
        };
        mark(true)?;
        store.sync()?;
        mark(false)
    }

    fn run(&self) {
        while let Some(wanted) = self.wait_for_work() {
            let step = self.step.lock();
            let done = self.work(wanted);
            drop(step);
            match done {
                Ok(synced) => {
                    let mut work = self.work.lock();
                    work.synced = work.synced.max(synced);
                }
                Err(fault) => self.give_up(&fault),
            }
            self.progress.notify_all();
        }
    }

    /// Up to where the store is to be synced, if there is anything to do; none at the end.
    fn wait_for_work(&self) -> Option<Sequence> {
        let mut work = self.work.lock();
        loop {
            if work.stop {
                return None;
            }
            let stalled = work.fault.is_some();
            if !stalled && work.wanted > work.synced {
                return Some(work.wanted);
            }
            let (empty, bytes) = {
                let pending = self.pending.read();
                (pending.is_empty(), pending.bytes())
            };
            if stalled || empty {
                work.idle = true;
                // Sealing that has failed is tried again though nothing is appended.
                match self.sealer.due_at().filter(|_| !stalled) {
                    None => self.changed.wait(&mut work),
                    Some(at) if at <= Instant::now() => return Some(Sequence::ZERO),
                    Some(at) => drop(self.changed.wait_until(&mut work, at)),
                }
            } else if bytes >= GATHER_BYTES || self.changed.wait_for(&mut work, GATHER).timed_out()
            {
                return Some(Sequence::ZERO);
            }
        }
    }

    fn work(&self, wanted: Sequence) -> Result<Sequence, Fault> {
        // Without a store the log is being recovered, which sees to everything.
        let Some(store) = self.live_store() else { return Ok(Sequence::ZERO) };
        self.take_over(&store)?;
        let sealed = self.seal_if_due(&store)?;
        if wanted > sealed {
            let live = self.live_store().unwrap_or_else(|| Arc::clone(&store));
            self.sync(&live)?;
        }
        drop(store);
        self.sealer.remove_retired();
        Ok(wanted.max(sealed))
    }
}
