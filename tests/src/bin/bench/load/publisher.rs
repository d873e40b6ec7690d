//! A connection that publishes: what the server's protocol makes of messages, and its answers.

use std::{
    fmt,
    io::{ErrorKind, Read as _, Write as _},
};

use anyhow::{Context as _, Result, bail};
use mio::net::TcpStream;

use crate::load::payload::{Mark, Payloads};

/// How a server is published to, by its own protocol.
pub(crate) trait Publish: fmt::Debug {
    /// Messages that its rules allow to be sent before it answers.
    fn room(&self) -> u64;

    /// Writes what publishes a payload to one of the channels that the connection was opened for.
    fn publish(&mut self, channel: usize, payload: &[u8], out: &mut Vec<u8>);

    /// Takes whole answers off the input; what has to be said in return goes to `out`.
    ///
    /// # Errors
    /// A refusal.
    fn answers(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<()>;
}

/// Where messages come from: what one connection publishes to one channel.
#[derive(Debug)]
pub(crate) struct Source {
    /// The stream that it goes to.
    pub(crate) stream: usize,
    /// What its payloads are marked with.
    pub(crate) origin: u16,
    /// Its next message.
    pub(crate) number: u64,
}

impl Source {
    /// A source whose payloads are marked with that origin.
    pub(crate) fn new(stream: usize, origin: usize) -> Self {
        Self { stream, origin: origin as u16, number: 0 }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) socket: TcpStream,
    protocol: Box<dyn Publish>,
    sources: Vec<Source>,
    /// The source that publishes next.
    turn: usize,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
}

impl Publisher {
    /// A connection whose channels are those of the sources, in their order.
    pub(crate) fn new(socket: TcpStream, protocol: Box<dyn Publish>, sources: Vec<Source>) -> Self {
        Self { socket, protocol, sources, turn: 0, out: Vec::new(), written: 0, input: Vec::new() }
    }

    /// Messages that may be given to it now: none while bytes of older ones wait.
    pub(crate) fn room(&self) -> u64 {
        if self.out.is_empty() { self.protocol.room() } else { 0 }
    }

    /// Adds the next message to what the next [`flush`](Self::flush) writes; leaves its payload in `payload` and
    /// gives the stream that it belongs to.
    pub(crate) fn publish(&mut self, payloads: &Payloads, payload: &mut Vec<u8>) -> usize {
        let channel = self.turn;
        self.turn = (self.turn + 1) % self.sources.len();
        let source = &mut self.sources[channel];
        payloads.write(Mark { origin: source.origin, number: source.number }, payload);
        source.number += 1;
        self.protocol.publish(channel, payload, &mut self.out);
        source.stream
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("publishing"),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads the server's answers.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => bail!("the server closed the connection that publishes"),
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    self.protocol.answers(&mut self.input, &mut self.out)?;
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading answers to what was published"),
            }
        }
        self.flush()
    }
}
