//! An observer of the whole log over WebSocket that believes nothing: it keeps whatever comes,
//! in the order in which it came, so that what is missing or came twice can be seen.

use super::{
    api::{Api, Told},
    service::WorkerProcess,
};
use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    connect_async_with_config,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::WebSocketConfig},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// A content of 16 MiB, each byte of it escaped.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// Everything that one observer has seen, over all of its connections.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) events: Vec<Told>,
    /// Where it resumes: the cursor of the last event that it saw.
    pub(super) cursor: Option<String>,
    /// The processes that workers were given.
    pub(super) processes: Vec<WorkerProcess>,
    /// Why the connection is over.
    ended: Option<String>,
}

/// See [`Seen`]. Its connection is a task that ends with it.
#[derive(Default)]
pub(super) struct Observer {
    seen: Arc<Mutex<Seen>>,
    more: Arc<Notify>,
    connection: Option<JoinHandle<()>>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    kind: String,
    cursor: Option<String>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    diagnostic: Option<Value>,
}

impl Observer {
    /// Connects and begins where it left off; the first time at the beginning.
    pub(super) async fn connect(&mut self, api: &Api) -> Result<()> {
        self.cut().await;
        let place = match &self.seen.lock().cursor {
            Some(cursor) => format!("cursor={cursor}"),
            None => "after=0".into(),
        };
        self.seen.lock().ended = None;
        let base = api.base.replacen("http", "ws", 1);
        let mut request = format!("{base}/v1/events/ws?{place}").into_client_request()?;
        let token = format!("Bearer {}", api.token).parse()?;
        request.headers_mut().insert("authorization", token);
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let connecting = Box::pin(connect_async_with_config(request, Some(config), true));
        let (mut socket, _) = timeout(CONNECT_DEADLINE, connecting)
            .await
            .context("the WebSocket was not opened within 10 s")?
            .context("the WebSocket was not opened")?;
        let (seen, more) = (Arc::clone(&self.seen), Arc::clone(&self.more));
        self.connection = Some(tokio::spawn(async move {
            let why = loop {
                let why = match socket.next().await {
                    Some(Ok(Message::Text(text))) => take_in(&seen, &text).err(),
                    Some(Ok(Message::Close(close))) => {
                        Some(anyhow::anyhow!("closed by the service: {close:?}"))
                    }
                    Some(Ok(_)) => None,
                    Some(Err(error)) => Some(error.into()),
                    None => Some(anyhow::anyhow!("closed by the service")),
                };
                more.notify_one();
                if let Some(why) = why {
                    break why;
                }
            };
            seen.lock().ended = Some(format!("{why:#}"));
            more.notify_one();
        }));
        Ok(())
    }

    /// Drops the connection without a word.
    pub(super) async fn cut(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.abort();
            // It is over when nothing more can arrive; that it was aborted is no news.
            drop(connection.await);
        }
    }

    /// Looks at what was seen so far.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock())
    }

    /// Waits until what was seen is enough; `show` is called whenever there may be more.
    pub(super) async fn wait(
        &self,
        what: &str,
        deadline: Duration,
        mut show: impl FnMut() -> Result<()>,
        mut enough: impl FnMut(&Seen) -> bool,
    ) -> Result<()> {
        let until = Instant::now() + deadline;
        loop {
            show()?;
            let ended = {
                let seen = self.seen.lock();
                if enough(&seen) {
                    return Ok(());
                }
                seen.ended.clone()
            };
            if let Some(why) = ended {
                bail!("while waiting for {what}, the observer lost its connection: {why}");
            }
            if timeout_at(until, self.more.notified()).await.is_err() {
                let last = self.seen.lock().events.last().map_or(0, |told| told.seq);
                bail!(
                    "waited {} s for {what}; the last event seen was {last}",
                    deadline.as_secs_f32()
                );
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.abort();
        }
    }
}

fn take_in(seen: &Mutex<Seen>, text: &str) -> Result<()> {
    let frame: Frame<'_> = serde_json::from_str(text).context("a frame is malformed")?;
    if let Some(diagnostic) = frame.diagnostic {
        bail!("the service said: {diagnostic}");
    }
    let (Some(record), Some(cursor)) = (frame.record, frame.cursor) else {
        bail!("an unexpected frame of kind {}", frame.kind);
    };
    let told = Told::new(record)?;
    let process = process_in(&told)?;
    let mut seen = seen.lock();
    seen.processes.extend(process);
    seen.events.push(told);
    seen.cursor = Some(cursor);
    Ok(())
}

fn process_in(told: &Told) -> Result<Option<WorkerProcess>> {
    // Few records tell of a process, and contents may be large.
    if !told.json.contains("\"started_ticks\"") {
        return Ok(None);
    }
    let record: Value = serde_json::from_str(&told.json)?;
    let process = &record["data"]["process"];
    let number = |name: &str| process[name].as_u64();
    let (Some(pid), Some(started_ticks)) = (number("pid"), number("started_ticks")) else {
        return Ok(None);
    };
    Ok(Some(WorkerProcess { pid: u32::try_from(pid)?, started_ticks }))
}
