//! Servers whose WebSocket messages are the payloads alone: how they are subscribed to and published to.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
};

use anyhow::{Context as _, Result, ensure};
use shared::{Kind, ws_frame};

use super::{Dialect, Entrance};
use crate::load::{
    Delivery,
    payload::Payloads,
    publisher::Publish,
    verify::Verify,
    websocket::{self, Opcode},
};

/// A text frame for each message, and one channel for each path.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) receivers: SocketAddr,
    /// What stands before the channel in the path of a receiver.
    pub(super) path: &'static str,
    pub(super) senders: Senders,
    /// What the server leaves at the end of a message.
    pub(super) end: &'static [u8],
}

/// How such a server is published to.
#[derive(Debug)]
pub(super) enum Senders {
    /// Lines over TCP.
    Lines(SocketAddr),
    /// Lines over the connection that the server makes.
    LinesTo(TcpListener),
    /// A text frame for each message, over a WebSocket at this path and the channel.
    Frames(&'static str),
}

/// Messages in flight that keep such a server as busy as more would: what it does, it does for each message.
const ENOUGH: u64 = 4096;

impl Dialect for Plain {
    fn entrance(&self, channel: &str) -> Entrance {
        Entrance { address: self.receivers, path: format!("{}{channel}", self.path), protocol: None }
    }

    fn subscribe(&self, channel: &str) -> Result<TcpStream> {
        websocket::open(self.receivers, &format!("{}{channel}", self.path), None)
    }

    fn delivery(&self) -> Delivery {
        Delivery::Bytes
    }

    fn expect(&self, _channel: &str, payload: &[u8], out: &mut Vec<u8>) {
        ws_frame::put_header(out, Kind::Text, payload.len() + self.end.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(self.end);
    }

    fn verify(&self, _: &str, _: &Rc<Payloads>, _: usize, _: bool) -> Option<Box<dyn Verify>> {
        None
    }

    fn publish(&self, channels: &[String]) -> Result<(TcpStream, Box<dyn Publish>)> {
        let [channel] = channels else { anyhow::bail!("one channel for each connection that publishes") };
        match &self.senders {
            Senders::Lines(address) => Ok((websocket::connect(*address)?, Box::new(Lines))),
            Senders::LinesTo(listener) => {
                let (socket, _) = listener.accept().context("waiting for the server to connect")?;
                socket.set_nodelay(true)?;
                Ok((socket, Box::new(Lines)))
            }
            Senders::Frames(path) => {
                let socket = websocket::open(self.receivers, &format!("{path}{channel}"), None)?;
                Ok((socket, Box::new(Frames)))
            }
        }
    }

    fn most_in_flight(&self) -> u64 {
        ENOUGH
    }
}

/// A line for each message, and no answers.
#[derive(Debug)]
pub(super) struct Lines;

impl Publish for Lines {
    fn room(&self) -> u64 {
        u64::MAX
    }

    fn publish(&mut self, _channel: usize, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(payload);
        out.push(b'\n');
    }

    fn answers(&mut self, input: &mut Vec<u8>, _out: &mut Vec<u8>) -> Result<()> {
        ensure!(input.is_empty(), "an answer that nobody asked for: {}", String::from_utf8_lossy(input));
        Ok(())
    }
}

#[derive(Debug)]
struct Frames;

impl Publish for Frames {
    fn room(&self) -> u64 {
        u64::MAX
    }

    fn publish(&mut self, _channel: usize, payload: &[u8], out: &mut Vec<u8>) {
        websocket::put_frame(out, Opcode::Text, payload);
    }

    fn answers(&mut self, input: &mut Vec<u8>, _out: &mut Vec<u8>) -> Result<()> {
        // A line about each message that it has taken.
        input.clear();
        Ok(())
    }
}
