//! Speaking HTTP byte by byte, as no well-meaning client does, and seeing that others are well.

use super::{
    support::{Client, Service, soon},
    survive_measure::rss_mib,
};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What the service may take, whatever is thrown at it; ten thousand connections take most.
pub const RSS_MIB_MAX: u64 = 450;

/// How long a command of somebody else may take meanwhile: less than any of the deadlines that
/// it could have to wait for, more than a busy machine takes.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// Others are served as if nothing were.
pub async fn is_well(service: &Service, worker: &str) {
    let begun = Instant::now();
    service.input(worker, "are you well?").await;
    assert!(begun.elapsed() < ANSWER_WITHIN, "a command took {:?}", begun.elapsed());
    assert_eq!(service.get("/readyz").await.status, 200);
    let rss = rss_mib(service.pid());
    assert!(rss < RSS_MIB_MAX, "the service takes {rss} MiB");
    assert!(!service.log().contains("panicked"), "{}", service.log());
}

pub fn address(client: &Client) -> &str {
    client.base.strip_prefix("http://").unwrap()
}

pub async fn connect(client: &Client) -> TcpStream {
    TcpStream::connect(address(client)).await.unwrap()
}

/// The head of a request with everything that it needs.
pub fn head(client: &Client, line: &str, more: &str) -> String {
    let token = client.bearer.as_deref().unwrap();
    format!("{line}\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n{more}\r\n", address(client))
}

/// Sends bytes as they are; everything that comes back until the connection is closed, or for
/// a while.
pub async fn raw(client: &Client, bytes: &[u8]) -> String {
    let mut stream = connect(client).await;
    // It may close before it has read everything.
    drop(stream.write_all(bytes).await);
    said(&mut stream, Duration::from_millis(700)).await
}

pub async fn said(stream: &mut TcpStream, patience: Duration) -> String {
    let mut out = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(Ok(len)) = tokio::time::timeout(patience, stream.read(&mut buffer)).await {
        if len == 0 {
            break;
        }
        out.extend_from_slice(&buffer[..len]);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What comes back until the head of an answer is there.
pub async fn first_answer(stream: &mut TcpStream) -> String {
    let mut out = Vec::new();
    let mut buffer = [0; 4096];
    while !out.windows(4).any(|window| window == b"\r\n\r\n") {
        let len = soon("an answer", stream.read(&mut buffer)).await.unwrap();
        assert!(len > 0, "closed without an answer");
        out.extend_from_slice(&buffer[..len]);
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub fn statuses(said: &str) -> Vec<&str> {
    said.split("HTTP/1.").skip(1).filter_map(|part| part.get(2..5)).collect()
}
