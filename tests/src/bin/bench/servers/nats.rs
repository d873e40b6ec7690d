//! nats-server: a client publishes over TCP, subscribers come over WebSocket. Both speak the NATS protocol, which a
//! subscriber's WebSocket frames cut anywhere.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    rc::Rc,
};

use anyhow::{Result, bail, ensure};

use super::{Dialect, Entrance, Place, Running, Server, first_line, name};
use crate::{
    load::{
        Delivery,
        payload::Payloads,
        publisher::Publish,
        verify::Verify,
        websocket::{self, Opcode},
    },
    process::{Process, free_address},
};

/// What a client says first: no answer to each command, and its own messages are not for it.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false}\r\n";

#[derive(Debug)]
pub(super) struct Nats;

impl Server for Nats {
    fn name(&self) -> &'static str {
        name::NATS
    }

    fn version(&self, _place: &Place) -> Result<String> {
        first_line("nats-server", &["--version"])
    }

    fn start(&self, place: &Place) -> Result<Running> {
        let (tcp, ws) = (free_address()?, free_address()?);
        let config = place.folder.join("nats.conf");
        let text = format!(
            "listen: \"{tcp}\"\nping_interval: \"10m\"\nmax_connections: 65536\n\
             websocket {{ listen: \"{ws}\", no_tls: true, compression: false }}\n"
        );
        fs::write(&config, text)?;
        let mut command = Command::new("nats-server");
        command.arg("--config").arg(config);
        let mut process = Process::start(place.cores, &place.folder, "nats-server", &command)?;
        process.listening(&[tcp, ws])?;
        Ok(Running { process, dialect: Box::new(Speaks { tcp, ws }) })
    }
}

#[derive(Debug)]
struct Speaks {
    tcp: SocketAddr,
    ws: SocketAddr,
}

impl Dialect for Speaks {
    fn entrance(&self, _channel: &str) -> Entrance {
        Entrance { address: self.ws, path: "/".into(), protocol: None }
    }

    fn subscribe(&self, channel: &str) -> Result<TcpStream> {
        let mut socket = websocket::open(self.ws, "/", None)?;
        let mut out = Vec::new();
        let subject = subject(channel);
        websocket::put_frame(
            &mut out,
            Opcode::Binary,
            format!("{CONNECT}SUB {subject} 1\r\nPING\r\n").as_bytes(),
        );
        socket.write_all(&out)?;
        // INFO, then the answer to the PING.
        let mut said = Vec::new();
        while !said.ends_with(b"PONG\r\n") {
            said.extend(websocket::read_frame(&mut socket)?.1);
            ensure!(!said.windows(4).any(|bytes| bytes == b"-ERR"), "{}", String::from_utf8_lossy(&said));
        }
        Ok(socket)
    }

    fn delivery(&self) -> Delivery {
        // A first ping comes some seconds after a client has connected, whatever the interval.
        Delivery::InFrames { asides: b"PING\r\n" }
    }

    fn expect(&self, channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"MSG ");
        put_subject(channel, out);
        // Writing to a vector does not fail.
        let _ = write!(out, " 1 {}\r\n", payload.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn verify(&self, _: &str, _: &Rc<Payloads>, _: usize, _: bool) -> Option<Box<dyn Verify>> {
        None
    }

    fn publish(&self, channels: &[String]) -> Result<(TcpStream, Box<dyn Publish>)> {
        let mut socket = websocket::connect(self.tcp)?;
        socket.write_all(format!("{CONNECT}PING\r\n").as_bytes())?;
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        while !said.ends_with(b"PONG\r\n") {
            let count = socket.read(&mut buffer)?;
            ensure!(count > 0, "nats-server closed a publisher: {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&buffer[..count]);
        }
        Ok((socket, Box::new(Publishes { subjects: channels.iter().map(|name| subject(name)).collect() })))
    }

    fn most_in_flight(&self) -> u64 {
        u64::MAX
    }
}

#[derive(Debug)]
struct Publishes {
    subjects: Vec<String>,
}

impl Publish for Publishes {
    fn room(&self) -> u64 {
        u64::MAX
    }

    fn publish(&mut self, channel: usize, payload: &[u8], out: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        let _ = write!(out, "PUB {} {}\r\n", self.subjects[channel], payload.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn answers(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<()> {
        while let Some(end) = input.windows(2).position(|bytes| bytes == b"\r\n") {
            match &input[..end] {
                b"PING" => out.extend_from_slice(b"PONG\r\n"),
                line if line.starts_with(b"-ERR") => bail!("nats-server: {}", String::from_utf8_lossy(line)),
                _ => {}
            }
            input.drain(..end + 2);
        }
        Ok(())
    }
}

/// A channel's name as NATS has it: `.` between segments.
fn subject(channel: &str) -> String {
    channel.replace('/', ".")
}

fn put_subject(channel: &str, out: &mut Vec<u8>) {
    out.extend(channel.bytes().map(|byte| if byte == b'/' { b'.' } else { byte }));
}
