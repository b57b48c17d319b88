//! Snapshots by the clock: one every so often into a directory, each on top of the one before, and
//! the oldest removed.

use super::{
    Base, Plan, Received, Receiver, Snapshot, SnapshotError, created, list, receive::discard,
    settled, unfinished,
};
use crate::{audit::Notary, log::Log};
use acta_events::{Sequence, Timestamp};
use parking_lot::Mutex;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(60);

/// Which snapshot is the newest that this service knows of. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Newest(Arc<Mutex<Option<(Sequence, Timestamp)>>>);

impl Newest {
    /// Its last record, and when it was taken.
    pub fn get(&self) -> Option<(Sequence, Timestamp)> {
        *self.0.lock()
    }

    /// One was taken.
    pub fn taken(&self, sequence: Sequence, taken: Timestamp) {
        let mut newest = self.0.lock();
        if newest.is_none_or(|(_, before)| before <= taken) {
            *newest = Some((sequence, taken));
        }
    }
}

/// When and where.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The directory of snapshots.
    pub dir: PathBuf,
    /// The time between two.
    pub every: Duration,
    /// How many are kept.
    pub keep: usize,
}

/// Ends the task.
#[derive(Debug)]
pub struct ScheduleOwner {
    end: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl ScheduleOwner {
    /// Starts to take snapshots of the log in a data directory.
    pub fn start(
        schedule: Schedule,
        log: Arc<Log>,
        notary: Arc<Notary>,
        data: PathBuf,
        newest: Newest,
    ) -> Self {
        let (end, ended) = watch::channel(false);
        let job = Job { schedule, log, notary, data, newest };
        Self { end, task: tokio::spawn(job.run(ended)) }
    }

    /// Cuts off a snapshot that is being taken.
    pub async fn close(self) {
        self.end.send_replace(true);
        if self.task.await.is_err() {
            tracing::error!("the task that takes snapshots has failed");
        }
    }
}

#[derive(Clone)]
struct Job {
    schedule: Schedule,
    log: Arc<Log>,
    notary: Arc<Notary>,
    data: PathBuf,
    newest: Newest,
}

impl Job {
    async fn run(self, mut ended: watch::Receiver<bool>) {
        let mut failed = false;
        loop {
            let wait = if failed { PAUSE.min(self.schedule.every) } else { self.wait().await };
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => return,
                () = tokio::time::sleep(wait) => {}
            }
            let ready = tokio::select! {
                _ = ended.wait_for(|ended| *ended) => return,
                ready = settled(&self.log) => ready,
            };
            let taken = match ready {
                Ok(()) => self.take(ended.clone()).await,
                Err(error) => Err(error),
            };
            failed = taken.is_err();
            match taken {
                Ok(received) => {
                    let manifest = &received.manifest;
                    self.newest.taken(manifest.sequence, manifest.taken);
                    let (sequence, bytes) = (manifest.sequence, manifest.bytes());
                    tracing::info!(%sequence, bytes, new = received.sent, "a snapshot was taken");
                }
                Err(error) => {
                    let dir = self.schedule.dir.display();
                    tracing::error!(%error, %dir, "a snapshot could not be taken");
                }
            }
        }
    }

    /// How long until the next one is due.
    async fn wait(&self) -> Duration {
        let (dir, log) = (self.schedule.dir.clone(), self.log.id());
        let newest = tokio::task::spawn_blocking(move || {
            let listed = list(&dir).unwrap_or_default();
            let own = listed.into_iter().filter_map(|it| it.manifest.ok());
            own.filter(|it| it.log_id == log).map(|it| (it.sequence, it.taken)).next_back()
        });
        let Ok(Some((sequence, taken))) = newest.await else { return Duration::ZERO };
        self.newest.taken(sequence, taken);
        let age = now().0.saturating_sub(taken.0);
        self.schedule.every.saturating_sub(Duration::from_micros(u64::try_from(age).unwrap_or(0)))
    }

    async fn take(&self, ended: watch::Receiver<bool>) -> Result<Received, SnapshotError> {
        let job = self.clone();
        let taken = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(&job.schedule.dir)?;
            job.sweep()?;
            let before = newest_of(&job.schedule.dir, &job.log);
            let received = job.take_on(before.as_deref(), &ended);
            // It may be from before a restore, or damaged.
            let received = match (received, before) {
                (Err(error @ (SnapshotError::Base(_) | SnapshotError::Damaged(_))), Some(_)) => {
                    tracing::warn!(%error, "a whole snapshot is taken, on top of nothing");
                    job.take_on(None, &ended)?
                }
                (received, _) => received?,
            };
            remove_old(&job.schedule, &job.log)?;
            Ok(received)
        });
        taken.await.unwrap_or_else(|_| Err(SnapshotError::Again("it was cut off".into())))
    }

    /// Removes what an earlier process began and did not finish.
    fn sweep(&self) -> Result<(), SnapshotError> {
        let begun = format!(".{}", prefix(&self.log));
        for entry in fs::read_dir(&self.schedule.dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(&begun) && name.ends_with(".unfinished") {
                discard(&path)?;
            }
        }
        Ok(())
    }

    fn take_on(
        &self,
        base: Option<&Path>,
        ended: &watch::Receiver<bool>,
    ) -> Result<Received, SnapshotError> {
        let base = base.map(Snapshot::open).transpose()?;
        let on = base.as_ref().map(|base| Base::of(base.manifest()));
        let created = created(&self.data)?;
        let plan = Plan::new(&self.log, &self.notary, &self.data, created, on.as_ref())?;
        let time: String =
            now().to_string().chars().filter(char::is_ascii_alphanumeric).take(15).collect();
        let name = format!("{}{time}-{}", prefix(&self.log), plan.sequence());
        let mut receiver = Receiver::new(&self.schedule.dir.join(name), base)?;
        let received = plan.send(|bytes| match *ended.borrow() {
            true => Err(SnapshotError::Again("the service ends".into())),
            false => receiver.feed(&bytes),
        });
        received.and_then(|()| receiver.finish())
    }
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

/// What the names of snapshots begin with that are removed when they are old.
fn prefix(log: &Log) -> String {
    format!("acta-{}-", &log.id().to_string()[..8])
}

/// The snapshots of this log in a directory that were taken by the clock, oldest first.
fn own(dir: &Path, log: &Log) -> Result<Vec<PathBuf>, SnapshotError> {
    let prefix = prefix(log);
    let own = list(dir)?.into_iter().filter(|listed| {
        let name = listed.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(&prefix)
            && listed.manifest.as_ref().is_ok_and(|manifest| manifest.log_id == log.id())
    });
    Ok(own.map(|listed| listed.path).collect())
}

fn newest_of(dir: &Path, log: &Log) -> Option<PathBuf> {
    own(dir, log).ok()?.pop()
}

fn remove_old(schedule: &Schedule, log: &Log) -> Result<(), SnapshotError> {
    let own = own(&schedule.dir, log)?;
    let old = own.len().saturating_sub(schedule.keep.max(1));
    own[..old].iter().try_for_each(|path| {
        // Whoever lists them sees all of it or nothing.
        let aside = unfinished(path)?;
        fs::rename(path, &aside)?;
        discard(&aside)
    })
}
