//! A WebSocket session that follows the log: catch up, then live.

use super::{
    App,
    access::Caller,
    frames,
    socket::{CloseCode, Heard, Sender, Unsent, listen},
};
use crate::{
    feed::{Follower, cursor_at},
    log::{Logged, ReadFault},
    metrics::Observer,
};
use acta_events::{Epoch, Sequence};
use axum::extract::ws::{Utf8Bytes, WebSocket};
use futures_util::stream::SplitStream;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// How many heartbeats an observer may leave unanswered before it counts as gone.
const UNANSWERED_MAX: u32 = 4;

/// What a session shows of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum View {
    /// The frames of one worker, which has this number in the index.
    Worker(u32),
    /// Whole records.
    Records,
}

/// One observer.
pub(super) struct Session {
    pub(super) app: App,
    pub(super) caller: Caller,
    pub(super) follower: Follower,
    pub(super) sender: Sender,
    pub(super) stream: SplitStream<WebSocket>,
    pub(super) view: View,
    /// Whether to tell where the stream stands.
    pub(super) progress: bool,
    pub(super) epoch: Epoch,
}

/// Why a session ends.
enum End {
    Left,
    Spoke,
    Unsent(Unsent),
    Unreadable(ReadFault),
    Revoked,
    Shutdown,
}

impl From<Unsent> for End {
    fn from(unsent: Unsent) -> Self {
        Self::Unsent(unsent)
    }
}

impl From<ReadFault> for End {
    fn from(fault: ReadFault) -> Self {
        Self::Unreadable(fault)
    }
}

impl Session {
    /// Until the observer leaves, or has to.
    pub(super) async fn run(mut self) {
        let app = Arc::clone(&self.app);
        let _observing = app.engine.metrics().observing(Observer::WebSocket);
        let mut sent = self.follower.position();
        let Err(end) = self.follow(&mut sent).await;
        let cursor = || async {
            let cursor = cursor_at(&self.app.log, sent).await.ok().flatten();
            cursor.map(|cursor| cursor.to_string()).unwrap_or_default()
        };
        let (code, reason) = match end {
            End::Left | End::Unsent(Unsent::Gone) => return,
            End::Unsent(Unsent::TooSlow) => (CloseCode::TooSlow, cursor().await),
            End::Shutdown => (CloseCode::GoingAway, cursor().await),
            End::Spoke => {
                let message = "this is for watching only; nothing can be sent here";
                let frame = frames::diagnostic("runtime.observation_only", message);
                let _ = self.sender.send(frame).await;
                (CloseCode::Policy, message.to_owned())
            }
            End::Revoked => {
                let message = "the token was revoked";
                let _ = self.sender.send(frames::diagnostic("runtime.unavailable", message)).await;
                (CloseCode::Unauthorized, message.to_owned())
            }
            End::Unreadable(fault @ ReadFault::Expired { .. }) => {
                let message = fault.to_string();
                let _ =
                    self.sender.send(frames::diagnostic("runtime.cursor_expired", &message)).await;
                (CloseCode::Conflict, message)
            }
            End::Unreadable(fault) => {
                tracing::error!(error = %fault, "an observer's records cannot be read");
                let frame = frames::diagnostic("runtime.unavailable", &fault.to_string());
                let _ = self.sender.send(frame).await;
                (CloseCode::Failed, cursor().await)
            }
        };
        self.sender.close(code, &reason).await;
    }

    async fn follow(&mut self, sent: &mut Sequence) -> Result<std::convert::Infallible, End> {
        let mut heartbeat = ticks(self.app.limits.heartbeat);
        let mut heard_at = Instant::now();
        // Polled anew at every wake-up, but registered once: a thousand observers share them.
        let over = over(Arc::clone(&self.app), self.caller.clone());
        let mut over = std::pin::pin!(over);
        let mut announced = false;
        let mut beat = false;
        loop {
            let records = self.follower.read().await?;
            let mut out = Vec::with_capacity(records.len());
            for logged in &records {
                let frame = self.frame(logged).await?;
                out.extend(frame.map(|frame| (logged.record.seq(), frame)));
            }
            if !out.is_empty() {
                self.sender.send_all(out, sent).await?;
            }
            *sent = self.follower.position();
            let caught_up = self.follower.caught_up();
            if caught_up && self.progress && !announced {
                announced = true;
                self.tell("caught_up").await?;
            }
            if std::mem::take(&mut beat) {
                if self.progress {
                    self.tell("heartbeat").await?;
                }
                self.sender.ping().await?;
            }
            tokio::select! {
                biased;
                heard = listen(&mut self.stream) => match heard {
                    Heard::Alive => heard_at = Instant::now(),
                    Heard::Spoke => return Err(End::Spoke),
                    Heard::Left => return Err(End::Left),
                },
                end = over.as_mut() => return Err(end),
                _ = heartbeat.tick() => {
                    if heard_at.elapsed() > self.app.limits.heartbeat * UNANSWERED_MAX {
                        return Err(End::Unsent(Unsent::Gone));
                    }
                    // Told after another look, so that its cursor is that of the head.
                    beat = true;
                }
                more = self.follower.wait(), if caught_up => if !more {
                    return Err(End::Shutdown);
                },
                () = std::future::ready(()), if !caught_up => {}
            }
        }
    }

    async fn frame(&self, logged: &Arc<Logged>) -> Result<Option<Utf8Bytes>, ReadFault> {
        let View::Worker(ordinal) = self.view else {
            return frames::whole_record(&self.app, self.epoch, &logged.record).await.map(Some);
        };
        let frame = frames::of_record(&self.app, ordinal, self.epoch, logged).await?;
        match frame {
            None if self.progress => {
                let whole = frames::whole_record(&self.app, self.epoch, &logged.record).await?;
                Ok(Some(whole))
            }
            frame => Ok(frame),
        }
    }

    /// Tells where the stream stands, also when nothing of interest has come.
    async fn tell(&mut self, kind: &str) -> Result<(), End> {
        if let Some(cursor) = cursor_at(&self.app.log, self.follower.position()).await? {
            let frame = frames::progress(kind, &cursor.to_string(), self.follower.head());
            self.sender.send(frame).await?;
        }
        Ok(())
    }
}

/// Resolves when the session has to end whatever its observer does.
async fn over(app: App, caller: Caller) -> End {
    let mut revocations = app.log.watch_revocations();
    let revoked = async {
        // The token may have been revoked since it was looked at.
        while caller.is_valid(&app) {
            if revocations.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = revoked => End::Revoked,
        () = app.shutdown.begun() => End::Shutdown,
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
