//! The load: any number of receivers and publishers on one thread, and the proof that every message arrived, in
//! order and whole.
//!
//! # Layout
//! - [`payload`] makes messages; [`stream`] is what receivers have to get, [`verify`] looks at what can't be foretold.
//! - [`publisher`]: a connection that publishes. [`websocket`]: the client's side of it. [`latency`]: how late
//!   messages came.
//!
//! # Why it is fast
//! A server that fans out writes the same bytes to everyone, so what arrives is compared as bytes: one read of up to
//! 64 KiB, one comparison with what has to be there. Nothing is parsed, except where a server chooses its own
//! WebSocket frames around a stream of messages; these are taken off first.

pub(crate) mod latency;
pub(crate) mod payload;
pub(crate) mod publisher;
pub(crate) mod stream;
pub(crate) mod verify;
pub(crate) mod websocket;

use std::{
    io::{ErrorKind, Read as _},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use latency::Latency;
use payload::Payloads;
use publisher::{Publish, Publisher, Source};
use stream::{Mismatch, Stream};
use websocket::Deframer;

/// Bytes that one read takes: what two receivers' worth of it leaves of a core's cache is enough for the rest.
const READ: usize = 64 * 1024;

/// Bytes of messages that are given to a publisher at a time.
const BATCH: usize = 64 * 1024;

/// Bytes of a stream that are kept before what everybody has is forgotten.
const KEPT: usize = 1024 * 1024;

/// Tokens from here on are publishers.
const PUBLISHERS: usize = 1 << 32;

/// How a server puts messages into the bytes that a receiver gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Every receiver gets the same bytes, all of which are known.
    Bytes,
    /// The server makes WebSocket frames as it likes; what they carry, put together, is known, but that `asides`
    /// may stand between two messages.
    InFrames { asides: &'static [u8] },
}

/// Receivers, publishers, and what is on its way between them.
#[derive(Debug)]
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    payloads: Rc<Payloads>,
    payload: Vec<u8>,
    /// What receivers of one stream get of what is published just now.
    units: Vec<u8>,
    streams: Vec<Stream>,
    receivers: Vec<Receiver>,
    /// Bytes that each receiver has got, by the index of `receivers`.
    positions: Vec<u64>,
    publishers: Vec<Publisher>,
    /// The publisher whose turn is next.
    turn: usize,
    published: u64,
    latency: Option<Latency>,
}

#[derive(Debug)]
struct Receiver {
    socket: TcpStream,
    stream: usize,
    deframer: Option<Deframer>,
    /// What the server may put between two messages, and how much of that has come.
    asides: &'static [u8],
    aside: usize,
}

/// Writes what receivers of a stream get of a payload.
pub(crate) type Expect<'a> = &'a dyn Fn(usize, &[u8], &mut Vec<u8>);

impl Load {
    /// A load with payloads of that length and nobody connected.
    pub(crate) fn new(payloads: Rc<Payloads>) -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ],
            payloads,
            payload: Vec::new(),
            units: Vec::new(),
            streams: Vec::new(),
            receivers: Vec::new(),
            positions: Vec::new(),
            publishers: Vec::new(),
            turn: 0,
            published: 0,
            latency: None,
        })
    }

    /// Adds what receivers will get; gives its index.
    pub(crate) fn add_stream(&mut self, stream: Stream) -> usize {
        self.streams.push(stream);
        self.streams.len() - 1
    }

    /// Adds a receiver whose connection is open and has nothing to read yet.
    pub(crate) fn add_receiver(
        &mut self,
        socket: std::net::TcpStream,
        stream: usize,
        delivery: Delivery,
    ) -> Result<()> {
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        self.poll.registry().register(&mut socket, Token(self.receivers.len()), Interest::READABLE)?;
        let deframer = matches!(delivery, Delivery::InFrames { .. }).then(Deframer::default);
        let asides = match delivery {
            Delivery::Bytes => b"",
            Delivery::InFrames { asides } => asides,
        };
        self.receivers.push(Receiver { socket, stream, deframer, asides, aside: 0 });
        self.positions.push(0);
        Ok(())
    }

    /// Adds a connection that publishes, from these sources in turn.
    pub(crate) fn add_publisher(
        &mut self,
        socket: std::net::TcpStream,
        protocol: Box<dyn Publish>,
        sources: Vec<Source>,
    ) -> Result<()> {
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        let token = Token(PUBLISHERS + self.publishers.len());
        self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        self.publishers.push(Publisher::new(socket, protocol, sources));
        Ok(())
    }

    /// Notes from now on how late messages come.
    pub(crate) fn set_latency(&mut self, latency: Latency) {
        self.latency = Some(latency);
    }

    /// How late messages came, if it was noted.
    pub(crate) fn latency(&self) -> Option<&Latency> {
        self.latency.as_ref()
    }

    /// Waits for what happens, and does what it asks for.
    ///
    /// # Errors
    /// A message that is not what had to come next, and a connection that ended.
    pub(crate) fn poll(&mut self, timeout: Option<Duration>) -> Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let Token(token) = event.token();
            if token < PUBLISHERS {
                self.receive(token)?;
                continue;
            }
            let publisher = &mut self.publishers[token - PUBLISHERS];
            if event.is_readable() {
                publisher.read(&mut self.buffer)?;
            }
            if event.is_writable() {
                publisher.flush()?;
            }
        }
        self.events = events;
        Ok(())
    }

    /// Reads what a receiver has, and compares it.
    fn receive(&mut self, index: usize) -> Result<()> {
        let receiver = &mut self.receivers[index];
        let stream = &mut self.streams[receiver.stream];
        let position = &mut self.positions[index];
        loop {
            let count = match receiver.socket.read(&mut self.buffer) {
                Ok(0) => bail!("receiver {index}: the server closed its connection after {position} bytes"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| format!("receiver {index}")),
            };
            let before = *position;
            receiver
                .check(position, stream, &self.buffer[..count])
                .with_context(|| format!("receiver {index}"))?;
            if let (Some(latency), Some(unit)) = (&mut self.latency, stream.fixed_unit()) {
                latency.arrived(before / unit as u64..*position / unit as u64);
            }
            // A read that did not fill the buffer took all there was: the next bytes are a new event, epoll(7).
            if count < READ {
                break;
            }
        }
        if stream.kept() > KEPT {
            let here = self.receivers[index].stream;
            let slowest = self.positions.iter().zip(&self.receivers).filter(|(_, r)| r.stream == here);
            let slowest = slowest.map(|(position, _)| *position).min().unwrap_or_default();
            self.streams[here].trim(slowest);
        }
        Ok(())
    }

    /// Publishes at most so many messages, as many as the servers' rules and the sockets take now.
    ///
    /// # Errors
    /// What a socket says.
    pub(crate) fn publish(&mut self, count: u64, expect: Expect<'_>) -> Result<()> {
        // Many publishers take turns after a few messages, so that what they publish mixes.
        let batch = (BATCH / self.payloads.length() / self.publishers.len()).max(1) as u64;
        let (mut left, mut idle) = (count, 0);
        while left > 0 && idle < self.publishers.len() {
            let turn = self.turn;
            self.turn = (turn + 1) % self.publishers.len();
            let publisher = &mut self.publishers[turn];
            let now = left.min(batch).min(publisher.room());
            let mut stream = 0;
            for _ in 0..now {
                let next = publisher.publish(&self.payloads, &mut self.payload);
                if next != stream {
                    self.streams[stream].publish(&mut self.units);
                    stream = next;
                }
                expect(stream, &self.payload, &mut self.units);
            }
            self.streams[stream].publish(&mut self.units);
            publisher.flush()?;
            left -= now;
            idle = if now == 0 { idle + 1 } else { 0 };
        }
        self.published += count - left;
        Ok(())
    }

    /// Messages that were published.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// Bytes that all receivers together have got.
    pub(crate) fn received(&self) -> u64 {
        self.positions.iter().sum()
    }

    /// Bytes of one message as a receiver gets it; 0 when that is not known yet.
    pub(crate) fn unit(&self) -> f64 {
        self.streams.first().map_or(0.0, Stream::unit)
    }

    /// Messages that were published and that the slowest receiver has not got; where there are several channels,
    /// each with a receiver of its own, those of all of them.
    pub(crate) fn in_flight(&self) -> u64 {
        let unit = self.unit();
        if unit == 0.0 {
            return self.published;
        }
        let arrived = match self.streams.len() {
            1 => self.positions.iter().min().copied().unwrap_or_default(),
            _ => self.received(),
        };
        self.published.saturating_sub((arrived as f64 / unit) as u64)
    }

    /// Whether every receiver has everything that was published.
    pub(crate) fn all_arrived(&self) -> bool {
        match self.streams.first().and_then(Stream::verified) {
            Some((messages, bytes)) => {
                messages == self.published && self.positions.iter().all(|&position| position == bytes)
            }
            None => self.in_flight() == 0,
        }
    }

    /// Says what is missing at the receiver that has least.
    pub(crate) fn what_is_missing(&self) -> String {
        let slowest = self.positions.iter().enumerate().min_by_key(|(_, position)| **position);
        let Some((index, &position)) = slowest else { return "there are no receivers".into() };
        let has = if self.unit() == 0.0 { 0 } else { (position as f64 / self.unit()) as u64 };
        format!("{} messages were published to all channels; receiver {index} has {has}", self.published)
    }
}

impl Receiver {
    /// Compares what came with what has to come.
    fn check(&mut self, position: &mut u64, stream: &mut Stream, mut got: &[u8]) -> Result<()> {
        let Some(mut deframer) = self.deframer.take() else { return self.check_data(position, stream, got) };
        while let Some(data) = deframer.next(&mut got)? {
            self.check_data(position, stream, data)?;
        }
        self.deframer = Some(deframer);
        Ok(())
    }

    fn check_data(&mut self, position: &mut u64, stream: &mut Stream, mut got: &[u8]) -> Result<()> {
        loop {
            // The rest of what the server put between two messages.
            while self.aside > 0 && !got.is_empty() {
                ensure!(got[0] == self.asides[self.aside], "something else than messages came");
                self.aside = (self.aside + 1) % self.asides.len();
                got = &got[1..];
            }
            let Err(mismatch) = stream.check(*position, got) else {
                *position += got.len() as u64;
                return Ok(());
            };
            let at = match mismatch {
                Mismatch::Differs { at, .. } | Mismatch::Unpublished { at } => at,
                Mismatch::Wrong(_) => return Err(explain(*position, got, stream, mismatch)),
            };
            let between =
                stream.fixed_unit().is_some_and(|unit| (*position + at as u64).is_multiple_of(unit as u64));
            if !between || self.asides.first() != Some(&got[at]) {
                return Err(explain(*position, got, stream, mismatch));
            }
            *position += at as u64;
            got = &got[at + 1..];
            self.aside = 1;
        }
    }
}

/// Says which message is wrong, and how.
fn explain(position: u64, got: &[u8], stream: &Stream, mismatch: Mismatch) -> anyhow::Error {
    let place = |at: usize| match stream.fixed_unit() {
        Some(unit) => {
            let at = position + at as u64;
            format!("message {}, byte {} of {unit}", at / unit as u64, at % unit as u64)
        }
        None => format!("byte {} of what all get", position + at as u64),
    };
    let shown = |bytes: &[u8]| bytes[..bytes.len().min(32)].escape_ascii().to_string();
    match mismatch {
        Mismatch::Wrong(error) => error,
        Mismatch::Unpublished { at } => {
            anyhow!("{}: `{}` came, which nobody published", place(at), shown(&got[at..]))
        }
        Mismatch::Differs { at, expected } if got[at] == 0x88 && expected[0] != 0x88 => {
            let reason = websocket::close_reason(got.get(at + 2..).unwrap_or_default());
            anyhow!("{}: the server closed the connection: {}", place(at), reason)
        }
        Mismatch::Differs { at, expected } => {
            anyhow!("{}: `{}` came instead of `{}`", place(at), shown(&got[at..]), shown(&expected))
        }
    }
}
