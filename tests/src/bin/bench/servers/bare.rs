//! Bare `send`: what the kernel does for anyone who has the bytes at hand. A publisher's bytes are read as they come,
//! up to 512 KiB, and written to one plain socket after the other: no protocol, no channels, nothing kept.

use std::{
    env,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    rc::Rc,
};

use anyhow::{Context as _, Result};
use shared::{Kind, ws_frame};

use super::{Dialect, Entrance, Place, Running, Server, name};
use crate::{
    load::{Delivery, payload::Payloads, publisher::Publish, verify::Verify, websocket},
    process::{Process, free_address},
};

/// Bytes that are written to a socket at a time, at most.
const BLOCK: usize = 512 * 1024;

/// What a connection says first: that it will read.
const READER: u8 = b'R';
/// That it will write.
const WRITER: u8 = b'W';

#[derive(Debug)]
pub(super) struct Bare;

/// Serves one writer and all readers that came before it, until the writer ends.
pub(crate) fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    let mut readers = Vec::new();
    let mut writer = loop {
        let mut socket = listener.accept()?.0;
        let mut first = [0];
        match (socket.read(&mut first), first) {
            (Ok(1), [READER]) => readers.push(socket),
            (Ok(1), [WRITER]) => break socket,
            // Whoever only looked whether somebody listens.
            _ => {}
        }
    };
    let mut block = vec![0; BLOCK];
    loop {
        let count = match writer.read(&mut block) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.context("reading what is to be sent")?,
        };
        for reader in &mut readers {
            reader.write_all(&block[..count]).context("sending")?;
        }
    }
}

impl Server for Bare {
    fn name(&self) -> &'static str {
        name::BARE
    }

    fn version(&self, _place: &Place) -> Result<String> {
        Ok("of this bench".into())
    }

    fn start(&self, place: &Place) -> Result<Running> {
        let address = free_address()?;
        let mut command = Command::new(env::current_exe()?);
        command.arg("bare-send").arg(address.to_string());
        let mut process = Process::start(place.cores, &place.folder, "bare-send", &command)?;
        process.listening(&[address])?;
        Ok(Running { process, dialect: Box::new(Speaks { address }) })
    }
}

#[derive(Debug)]
struct Speaks {
    address: SocketAddr,
}

impl Dialect for Speaks {
    fn entrance(&self, _channel: &str) -> Entrance {
        Entrance { address: self.address, path: String::new(), protocol: None }
    }

    fn subscribe(&self, _channel: &str) -> Result<TcpStream> {
        let mut socket = websocket::connect(self.address)?;
        socket.write_all(&[READER])?;
        Ok(socket)
    }

    fn delivery(&self) -> Delivery {
        Delivery::Bytes
    }

    fn expect(&self, _channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        ws_frame::put(out, Kind::Text, payload);
    }

    fn verify(&self, _: &str, _: &Rc<Payloads>, _: usize, _: bool) -> Option<Box<dyn Verify>> {
        None
    }

    fn publish(&self, _channels: &[String]) -> Result<(TcpStream, Box<dyn Publish>)> {
        let mut socket = websocket::connect(self.address)?;
        socket.write_all(&[WRITER])?;
        Ok((socket, Box::new(Frames)))
    }

    fn most_in_flight(&self) -> u64 {
        u64::MAX
    }
}

/// What receivers get, as it is.
#[derive(Debug)]
struct Frames;

impl Publish for Frames {
    fn room(&self) -> u64 {
        u64::MAX
    }

    fn publish(&mut self, _channel: usize, payload: &[u8], out: &mut Vec<u8>) {
        ws_frame::put(out, Kind::Text, payload);
    }

    fn answers(&mut self, _input: &mut Vec<u8>, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}
