//! The client side of WebSocket, as much as an observer needs: the handshake, and frames of the
//! server taken apart where they lie.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::client::{find, status_of};

/// What one frame of the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Ping,
    Close,
    Other,
}

/// Where a whole frame lies in a buffer: its payload, and the end of the frame.
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// The frame at the start of `bytes`, or none while it is not complete.
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<Frame>> {
    let [first, second, ..] = bytes else { return Ok(None) };
    ensure!(first & 0x80 != 0, "a fragmented message");
    ensure!(second & 0x80 == 0, "a masked frame from the server");
    let (from, length) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[high, low]) => (4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(length.try_into()?))?),
            None => return Ok(None),
        },
        length => (2, usize::from(length)),
    };
    if bytes.len() - from.min(bytes.len()) < length {
        return Ok(None);
    }
    let kind = match first & 0x0f {
        0x1 => Kind::Text,
        0x8 => Kind::Close,
        0x9 => Kind::Ping,
        _ => Kind::Other,
    };
    Ok(Some(Frame { kind, from, to: from + length }))
}

/// The answer to a ping; a client masks, here with zeroes.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    let length = payload.len().min(125);
    let mut frame = vec![0x8a, 0x80 | length as u8, 0, 0, 0, 0];
    frame.extend_from_slice(&payload[..length]);
    frame
}

/// The text of a close frame: code and reason.
pub(crate) fn close_reason(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            format!("{} {}", u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason))
        }
        _ => "no reason".to_owned(),
    }
}

/// A text frame as a server sends it; for the bare limit.
pub(crate) fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// Connects and upgrades; returns the socket and what came after the upgrade.
pub(crate) fn connect(
    address: SocketAddr,
    token: &str,
    path: &str,
) -> Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4_096];
    let head = loop {
        if let Some(end) = find(&answer, b"\r\n\r\n") {
            break end + 4;
        }
        let count = stream.read(&mut chunk).context("waiting for the upgrade")?;
        ensure!(count > 0, "closed during the upgrade");
        answer.extend_from_slice(&chunk[..count]);
    };
    if status_of(&answer) != Some(101) {
        bail!("no upgrade of {path}: {}", String::from_utf8_lossy(&answer));
    }
    Ok((stream, answer.split_off(head)))
}
