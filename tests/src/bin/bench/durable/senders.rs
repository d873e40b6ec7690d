//! The load that publishes: any number of connections on one thread, each with so many messages on their way as its
//! window allows, and the count of those that were acknowledged.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use super::{acknowledge::Acknowledge, servers::Started};
use crate::load::payload::{Mark, Payloads};

/// Bytes that one read takes.
const READ: usize = 64 * 1024;

/// How long no acknowledgement may come while some are awaited.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who publishes what.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Of each connection the channels. Payloads are marked with the index of the connection's channel among all.
    pub(super) channels: Vec<Vec<String>>,
    /// Messages that a connection may have on their way.
    pub(super) window: u64,
    /// Messages that it publishes to a channel before it turns to its next one.
    pub(super) batch: u64,
    /// Bytes of a message.
    pub(super) bytes: usize,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Senders {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    payloads: Payloads,
    payload: Vec<u8>,
    connections: Vec<Connection>,
    /// Messages that were given to sockets, or wait for that.
    sent: u64,
    settled: u64,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    protocol: Box<dyn Acknowledge>,
    /// The mark of its first channel; those of the others follow.
    origin: u16,
    /// Of each channel the number of its next message.
    numbers: Vec<u64>,
    /// The channel whose turn it is, and the messages until it is the next one's.
    turn: usize,
    until_next: u64,
    batch: u64,
    window: u64,
    unsettled: u64,
    /// Messages that it may still publish.
    left: u64,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
}

impl Shape {
    /// One connection and one channel.
    pub(super) fn single(window: u64, bytes: usize) -> Self {
        Self { channels: vec![vec!["bench".to_owned()]], window, batch: 1, bytes }
    }

    /// So many connections with a channel each.
    pub(super) fn each_its_own(count: usize, window: u64, bytes: usize) -> Self {
        let channels = (0..count).map(|index| vec![format!("bench/{index:05}")]).collect();
        Self { channels, window, batch: 1, bytes }
    }

    /// Channels of all connections, one that several have counted as often.
    pub(super) fn origins(&self) -> usize {
        self.channels.iter().map(Vec::len).sum()
    }

    /// Connects everyone.
    pub(super) fn connect(&self, server: &Started) -> Result<Senders> {
        let mut senders = Senders {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ],
            payloads: Payloads::new(self.bytes),
            payload: Vec::new(),
            connections: Vec::new(),
            sent: 0,
            settled: 0,
        };
        let mut origin = 0;
        for (number, channels) in self.channels.iter().enumerate() {
            let (socket, protocol) = server.publisher(number, channels)?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            let both = Interest::READABLE | Interest::WRITABLE;
            senders.poll.registry().register(&mut socket, Token(number), both)?;
            senders.connections.push(Connection {
                socket,
                protocol,
                origin: u16::try_from(origin)?,
                numbers: vec![0; channels.len()],
                turn: 0,
                until_next: self.batch,
                batch: self.batch,
                window: self.window,
                unsettled: 0,
                left: 0,
                out: Vec::new(),
                written: 0,
                input: Vec::new(),
            });
            origin += channels.len();
        }
        Ok(senders)
    }
}

impl Senders {
    /// Messages that were published.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages that were acknowledged.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Lets each connection publish so many messages more.
    pub(super) fn allow(&mut self, messages: u64) -> Result<()> {
        for connection in &mut self.connections {
            connection.left = messages;
            self.sent += connection.fill(&self.payloads, &mut self.payload)?;
        }
        Ok(())
    }

    /// Waits for what happens, takes acknowledgements, and publishes what they make room for.
    pub(super) fn step(&mut self, timeout: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let Token(index) = event.token();
            let connection = &mut self.connections[index];
            if event.is_readable() {
                self.settled += connection.read(&mut self.buffer)?;
            }
            self.sent += connection.fill(&self.payloads, &mut self.payload)?;
        }
        Ok(())
    }

    /// Waits until nobody may publish more and everything is acknowledged.
    pub(super) fn finish(&mut self) -> Result<()> {
        let mut last = (self.settled, Instant::now());
        while self.settled < self.sent || self.connections.iter().any(|connection| connection.left > 0) {
            self.step(Duration::from_millis(100))?;
            if self.settled != last.0 {
                last = (self.settled, Instant::now());
            }
            let (settled, sent) = (self.settled, self.sent);
            ensure!(
                last.1.elapsed() < PATIENCE,
                "{settled} of {sent} messages are acknowledged, and no more"
            );
        }
        Ok(())
    }
}

impl Connection {
    /// Publishes what the window allows; how many messages.
    fn fill(&mut self, payloads: &Payloads, payload: &mut Vec<u8>) -> Result<u64> {
        self.flush()?;
        if !self.out.is_empty() {
            return Ok(0);
        }
        let now = self.left.min(self.window.saturating_sub(self.unsettled));
        for _ in 0..now {
            let number = &mut self.numbers[self.turn];
            payloads.write(Mark { origin: self.origin + self.turn as u16, number: *number }, payload);
            *number += 1;
            self.protocol.put(self.turn, payload, &mut self.out);
            self.until_next -= 1;
            if self.until_next == 0 {
                self.turn = (self.turn + 1) % self.numbers.len();
                self.until_next = self.batch;
            }
        }
        self.left -= now;
        self.unsettled += now;
        self.flush()?;
        Ok(now)
    }

    /// Writes what the socket takes.
    fn flush(&mut self) -> Result<()> {
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

    /// Reads answers; how many messages they settle.
    fn read(&mut self, buffer: &mut [u8]) -> Result<u64> {
        let mut messages = 0;
        loop {
            match self.socket.read(buffer) {
                Ok(0) => bail!("the server closed a connection that publishes"),
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    let (taken, settled) = self.protocol.settle(&self.input, &mut self.out)?;
                    self.input.drain(..taken);
                    messages += settled;
                    // A read that did not fill the buffer took all there was: the next bytes are a new event.
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading acknowledgements"),
            }
        }
        ensure!(messages <= self.unsettled, "more messages are acknowledged than were published");
        self.unsettled -= messages;
        Ok(messages)
    }
}
