//! Clients that send a message when they have got the last one back, every byte of which is looked at.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use super::proxies::Started;
use crate::{
    load::websocket::{Deframer, Opcode, put_frame},
    process::Cpu,
    work::{Figures, figure},
};

/// Bytes of one read.
const READ: usize = 256 * 1024;

/// How long nothing may come back.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Client {
    socket: TcpStream,
    deframer: Deframer,
    /// The message that is on its way, as a frame.
    frame: Vec<u8>,
    /// Bytes of the frame that were sent.
    sent: usize,
    /// Bytes of its payload that came back.
    back: usize,
    bytes: usize,
    number: u64,
}

/// Runs for so long, of which the first quarter is not measured.
pub(super) fn run(
    proxied: &Started,
    binary: bool,
    connections: usize,
    bytes: usize,
    length: Duration,
) -> Result<Figures> {
    let mut poll = Poll::new()?;
    let mut clients = Vec::new();
    for index in 0..connections {
        let socket = proxied.open(binary)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        poll.registry().register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        clients.push(Client::new(socket, bytes, index, binary));
    }
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; READ]);
    let (began, mut echoes, mut warm, mut last) = (Instant::now(), 0, None, Instant::now());
    while began.elapsed() < length {
        match poll.poll(&mut events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        let before = echoes;
        for event in &events {
            let Token(index) = event.token();
            echoes += clients[index].turn(&mut buffer).with_context(|| format!("client {index}"))?;
        }
        if echoes > before {
            last = Instant::now();
        }
        ensure!(last.elapsed() < PATIENCE, "nothing came back for {PATIENCE:?}");
        if warm.is_none() && began.elapsed() > length / 4 {
            warm = Some(Sample::take(proxied, echoes)?);
        }
    }
    let Some(warm) = warm else { bail!("the run was too short") };
    Ok(Sample::take(proxied, echoes)?.figures(&warm, bytes))
}

impl Client {
    fn new(socket: TcpStream, bytes: usize, index: usize, binary: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(index as u64);
        let payload: Vec<u8> = (0..bytes).map(|_| random.alphanumeric() as u8).collect();
        let mut frame = Vec::new();
        put_frame(&mut frame, if binary { Opcode::Binary } else { Opcode::Text }, &payload);
        Self { socket, deframer: Deframer::default(), frame, sent: 0, back: 0, bytes, number: 0 }
    }

    /// Sends and reads as much as goes now; how many messages came back.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<u64> {
        let mut echoes = 0;
        self.send()?;
        loop {
            let count = match self.socket.read(buffer) {
                Ok(0) => bail!("the proxy closed the connection after {} messages", self.number),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(echoes),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let mut input = &buffer[..count];
            while let Some(data) = self.deframer.next(&mut input)? {
                let payload = &self.frame[self.frame.len() - self.bytes..];
                let expected = payload.get(self.back..self.back + data.len());
                ensure!(expected == Some(data), "another message came back than message {}", self.number);
                self.back += data.len();
            }
            if self.back == self.bytes {
                echoes += 1;
                self.next();
                self.send()?;
            }
            // A read that did not fill the buffer took all there was: the next bytes are a new event, epoll(7).
            if count < buffer.len() {
                return Ok(echoes);
            }
        }
    }

    fn send(&mut self) -> Result<()> {
        while self.sent < self.frame.len() {
            match self.socket.write(&self.frame[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next message: no two of a client are alike.
    fn next(&mut self) {
        self.number += 1;
        let at = self.frame.len() - self.bytes;
        self.frame[at..at + 16].copy_from_slice(format!("{:016x}", self.number).as_bytes());
        (self.sent, self.back) = (0, 0);
    }
}

/// What was used and echoed at one time.
struct Sample {
    at: Instant,
    echoes: u64,
    proxy: Cpu,
    load: Cpu,
}

impl Sample {
    fn take(proxied: &Started, echoes: u64) -> Result<Self> {
        let (proxy, load) = (proxied.process.cpu()?, Cpu::of(std::process::id())?);
        Ok(Self { at: Instant::now(), echoes, proxy, load })
    }

    /// The figures of what happened between two samples.
    fn figures(&self, before: &Self, bytes: usize) -> Figures {
        let seconds = (self.at - before.at).as_secs_f64();
        let echoes = (self.echoes - before.echoes) as f64;
        let proxy = self.proxy.since(before.proxy);
        let figures = [
            (figure::DELIVERIES, echoes / seconds),
            (figure::PER_CPU_SECOND, echoes / proxy.total()),
            // There and back.
            (figure::BYTES_PER_CPU_SECOND, 2.0 * echoes * bytes as f64 / proxy.total()),
            (figure::USER_SHARE, proxy.user / proxy.total()),
            (figure::CORES, proxy.total() / seconds),
            (figure::LOAD_CORES, self.load.since(before.load).total() / seconds),
        ];
        // Nothing is said by a share of nothing.
        let told = figures.into_iter().filter(|(_, value)| value.is_finite());
        told.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
