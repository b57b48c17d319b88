//! One keep-alive connection of a load generator, and its one outstanding request.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};

use crate::client::{content_length, find, status_of};

pub(crate) struct Link {
    stream: TcpStream,
    /// What [`Self::send`] sends.
    pub(crate) request: Vec<u8>,
    written: usize,
    pub(crate) answer: Vec<u8>,
    body_at: usize,
}

impl Link {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = std::net::TcpStream::connect(address).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            request: Vec::new(),
            written: 0,
            answer: Vec::with_capacity(2_048),
            body_at: 0,
        })
    }

    pub(crate) fn watch(&mut self, poll: &Poll, index: usize) -> Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(poll.registry().register(&mut self.stream, Token(index), interest)?)
    }

    /// Begins a request; the answer to the one before is forgotten.
    pub(crate) fn send(&mut self) -> Result<()> {
        self.answer.clear();
        self.written = 0;
        self.write()
    }

    /// Goes on after an event; true once the whole answer is there.
    pub(crate) fn turn(&mut self, writable: bool, scratch: &mut [u8]) -> Result<bool> {
        if writable && self.written < self.request.len() {
            self.write()?;
        }
        self.read(scratch)
    }

    pub(crate) fn status(&self) -> Option<u16> {
        status_of(&self.answer)
    }

    /// The body of an answer that is there as a whole.
    pub(crate) fn body(&self) -> &[u8] {
        self.answer.get(self.body_at..).unwrap_or_default()
    }

    /// The start of the answer, for people.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.answer[..self.answer.len().min(500)]).into_owned()
    }

    fn write(&mut self) -> Result<()> {
        while self.written < self.request.len() {
            match self.stream.write(&self.request[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("sending a request"),
            }
        }
        Ok(())
    }

    /// Reads what is there.
    ///
    /// A short read means that the socket is empty, and the next answer, which only comes after
    /// the next request, raises a new edge.
    fn read(&mut self, scratch: &mut [u8]) -> Result<bool> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => bail!("the service closed a connection"),
                Ok(count) => {
                    self.answer.extend_from_slice(&scratch[..count]);
                    if count < scratch.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("reading an answer"),
            }
        }
        let Some(head) = find(&self.answer, b"\r\n\r\n") else { return Ok(false) };
        let length = content_length(&self.answer[..head]).context("an answer without a length")?;
        self.body_at = head + 4;
        Ok(self.answer.len() >= self.body_at + length)
    }
}
