//! Works that read what was kept: receivers that come when all is published, and the start of a relay on it.

use std::{
    io::{ErrorKind, Read as _},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use super::{
    disk::{self, Folder},
    figure,
    histories::History,
    servers::{Keeping, Server, Started},
};
use crate::{
    load::{
        payload::Payloads,
        verify::{Form, RelayFrames, Verify as _},
        websocket,
    },
    process::{Cpu, pause},
    servers::Place,
    work::{Figures, figure as common},
};

/// Bytes that one read takes.
const READ: usize = 256 * 1024;

/// How long nothing may come while something is awaited.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a relay that has just started rests, before its memory is that of an idle one.
const REST: Duration = Duration::from_millis(200);

const MIB: f64 = 1024.0 * 1024.0;

/// A receiver of everything from the beginning on, which looks at every byte.
#[derive(Debug)]
struct Receiver {
    socket: TcpStream,
    frames: RelayFrames,
    /// What has come and is not looked at yet, at the beginning of it.
    buffer: Vec<u8>,
    kept: usize,
    messages: u64,
}

/// So many receivers of a channel or pattern get all that is kept of it.
pub(super) fn run(
    place: &Place,
    history: &History,
    channel: &str,
    messages: u64,
    receivers: usize,
) -> Result<Figures> {
    disk::warm(history.data.path())?;
    let server = Server::Relay.start(place, history.data.path(), Keeping::ALL)?;
    pause(REST);
    let idle = server.process.resident()?;
    server.process.forget_peak()?;
    let (cpu, load) = (server.process.cpu()?, Cpu::of(std::process::id())?);
    let began = Instant::now();
    receive(&server, history, channel, messages, receivers)?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = server.process.cpu()?.since(cpu);
    let load = Cpu::of(std::process::id())?.since(load);
    let bytes = (messages * receivers as u64 * history.shape.bytes as u64) as f64;
    let figures = [
        (figure::REPLAYED, bytes / seconds),
        (common::BYTES_PER_CPU_SECOND, bytes / cpu.total()),
        (common::USER_SHARE, cpu.user / cpu.total()),
        (common::CORES, cpu.total() / seconds),
        (common::LOAD_CORES, load.total() / seconds),
        (figure::MEMORY, (server.process.peak()? as f64 - idle as f64) / MIB),
    ];
    let told = figures.into_iter().filter(|(_, value)| value.is_finite());
    Ok(told.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Opens the receivers and reads until each has so many messages.
fn receive(
    server: &Started,
    history: &History,
    channel: &str,
    messages: u64,
    receivers: usize,
) -> Result<()> {
    let payloads = Rc::new(Payloads::new(history.shape.bytes));
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let mut all = Vec::new();
    for index in 0..receivers {
        let socket = websocket::open(server.address, &format!("/c/{channel}?since=earliest"), None)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
        let frames = RelayFrames::new(Form::Raw, channel, Rc::clone(&payloads), history.shape.origins());
        all.push(Receiver { socket, frames, buffer: vec![0; READ], kept: 0, messages: 0 });
    }
    let (mut left, mut last) = (receivers, Instant::now());
    while left > 0 {
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            last = Instant::now();
            let Token(index) = event.token();
            let before = all[index].messages;
            all[index].read(messages).with_context(|| format!("receiver {index}"))?;
            if before < messages && all[index].messages == messages {
                left -= 1;
            }
        }
        let least = all.iter().map(|receiver| receiver.messages).min().unwrap_or_default();
        ensure!(last.elapsed() < PATIENCE, "a receiver has {least} of {messages} messages, and no more come");
    }
    Ok(())
}

impl Receiver {
    /// Reads what has come, and looks at it.
    fn read(&mut self, most: u64) -> Result<()> {
        loop {
            let room = self.buffer.len() - self.kept;
            let count = match self.socket.read(&mut self.buffer[self.kept..]) {
                Ok(0) => bail!("the relay closed the connection after {} messages", self.messages),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let have = self.kept + count;
            let (taken, messages) = self.frames.verify(&self.buffer[..have])?;
            self.messages += messages;
            ensure!(self.messages <= most, "more than the {most} messages that were published came");
            self.buffer.copy_within(taken..have, 0);
            self.kept = have - taken;
            // A read that did not fill the buffer took all there was: the next bytes are a new event.
            if count < room {
                return Ok(());
            }
        }
    }
}

/// How long a relay takes from its start until it says that it is ready, after one that was killed and after one that
/// ended; and what the files take.
pub(super) fn start(place: &Place, history: &History) -> Result<Figures> {
    let data = Folder::new(place.folder.join("data"))?;
    data.copy(&history.data)?;
    let begin = || {
        disk::warm(data.path())?;
        let began = Instant::now();
        let server = Server::Relay.start(place, data.path(), Keeping::ALL)?;
        anyhow::Ok((server, began.elapsed().as_secs_f64()))
    };
    let (server, after_kill) = begin()?;
    drop(server);
    let (server, seconds) = begin()?;
    pause(REST);
    let payload = (history.messages * history.shape.bytes as u64) as f64;
    let figures = [
        (figure::START, seconds),
        (figure::START_AFTER_KILL, after_kill),
        (figure::DISK, disk::size(data.path())?.blocks as f64 / payload),
        (figure::IDLE, server.process.resident()? as f64 / MIB),
    ];
    drop(server);
    let stored = Server::Relay.start(place, data.path(), Keeping::ALL)?.stored(&history.shape.channels)?;
    ensure!(stored == history.messages, "{stored} of {} messages are there", history.messages);
    Ok(figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
