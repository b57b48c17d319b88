//! A blocking HTTP/1.1 client on one keep-alive connection: for control, and for what is
//! measured one request at a time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// No answer of the service may take longer than this.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Client {
    stream: TcpStream,
    authority: String,
    token: String,
    buffer: Vec<u8>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The JSON body of a 200; anything else is an error that shows the start of the body.
    pub(crate) fn json(&self) -> Result<Value> {
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
        ensure!(self.status == 200, "status {}: {shown}", self.status);
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {shown}"))
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, token: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connecting to the service")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
        Ok(Self {
            stream,
            authority: address.to_string(),
            token: token.to_owned(),
            buffer: Vec::with_capacity(1 << 16),
        })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Answer> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
            self.authority, self.token
        );
        self.exchange(request.as_bytes()).with_context(|| format!("GET {path}"))
    }

    pub(crate) fn post(&mut self, path: &str, key: &str, body: &str) -> Result<Answer> {
        let request = post_request(&self.authority, &self.token, path, key, body);
        self.exchange(request.as_bytes()).with_context(|| format!("POST {path}"))
    }

    /// Sends one prepared request and waits for its whole answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let head_bytes = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.fill()?;
        };
        let status = status_of(&self.buffer).context("no status line")?;
        let head = &self.buffer[..head_bytes];
        let body = match content_length(head) {
            Some(length) => {
                while self.buffer.len() < head_bytes + length {
                    self.fill()?;
                }
                self.buffer[head_bytes..head_bytes + length].to_vec()
            }
            None if find(head, b"chunked").is_some() => self.chunked(head_bytes)?,
            None => bail!("an answer without a length"),
        };
        Ok(Answer { status, body })
    }

    /// How many lines an answer has, and how many bytes. They are not kept.
    pub(crate) fn count_lines(&mut self, path: &str, accept: &str) -> Result<(u64, u64)> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\naccept: {accept}\r\n\r\n",
            self.authority, self.token
        );
        self.stream.write_all(request.as_bytes())?;
        self.buffer.clear();
        let end = self.fill_until(0, b"\r\n\r\n")?;
        ensure!(status_of(&self.buffer) == Some(200), "{path} was not answered with 200");
        ensure!(find(&self.buffer[..end], b"chunked").is_some(), "{path} is not chunked");
        self.buffer.drain(..end + 4);
        let (mut lines, mut bytes) = (0, 0);
        loop {
            let end = self.fill_until(0, b"\r\n")?;
            let digits = std::str::from_utf8(&self.buffer[..end])?;
            let length = usize::from_str_radix(digits.split(';').next().unwrap_or("").trim(), 16)?;
            while self.buffer.len() < end + 2 + length + 2 {
                self.fill()?;
            }
            let chunk = &self.buffer[end + 2..end + 2 + length];
            lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
            bytes += length as u64;
            self.buffer.drain(..end + 2 + length + 2);
            if length == 0 {
                return Ok((lines, bytes));
            }
        }
    }

    /// Where something stands in what has come, once it has come.
    fn fill_until(&mut self, from: usize, end: &[u8]) -> Result<usize> {
        loop {
            if let Some(at) = find(&self.buffer[from..], end) {
                return Ok(from + at);
            }
            self.fill()?;
        }
    }

    fn chunked(&mut self, mut at: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.fill_until(at, b"\r\n")?;
            let digits = std::str::from_utf8(&self.buffer[at..line])?;
            let length = usize::from_str_radix(digits.split(';').next().unwrap_or("").trim(), 16)?;
            while self.buffer.len() < line + 2 + length + 2 {
                self.fill()?;
            }
            body.extend_from_slice(&self.buffer[line + 2..line + 2 + length]);
            at = line + 2 + length + 2;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut chunk = [0; 1 << 16];
        let count = self.stream.read(&mut chunk).context("waiting for an answer")?;
        ensure!(count > 0, "the service closed the connection");
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(())
    }
}

pub(crate) fn post_request(
    authority: &str,
    token: &str,
    path: &str,
    key: &str,
    body: &str,
) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n\
         {body}",
        body.len()
    )
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The status of `HTTP/1.1 200 …`.
pub(crate) fn status_of(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

/// The value of the `content-length` header, whatever its case.
pub(crate) fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    for line in head.split(|byte| *byte == b'\n') {
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            return std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok();
        }
    }
    None
}
